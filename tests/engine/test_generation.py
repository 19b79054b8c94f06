"""From request to pictures. The reference side of every equality is a stock diffusers pipeline built here from the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.generation.trajectory_runner import decode_latents
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.errors import BadFile, Cancelled, InvalidSpec, ModelNotFound, OutOfMemory, StudioError
from studio.settings import Settings, load
from studio.storage.home import Home
from studio.storage.jobs import Progress
from support.models import POCKET
from support.painting import together
from support.sentences import refused

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning:torchsde"
)
QUICK: dict[str, Any] = {
    "steps": 2,
    "width": 64,
    "height": 64,
    "scheduler": "Euler",
    "noise_schedule": "Uniform",
}
LIN = {"timestep_spacing": "linspace"}
SLOW = pytest.mark.slow


def stock(folder: Path, kind: str) -> Any:
    pipe = getattr(diffusers, kind).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, scheduler: str, *, seed: int = 3, **given: Any) -> np.ndarray:
    """A stock call on the folder's own config with linspace timesteps."""
    shipped = {
        key: value for key, value in pipe.scheduler.config.items() if key != "use_karras_sigmas"
    }
    pipe.scheduler = getattr(diffusers, scheduler).from_config(shipped, **LIN)
    return np.asarray(pipe(generator=torch.Generator().manual_seed(seed), **given).images[0])


def latents(bench: WorkerContext, each: list[GenerationRequest]) -> list[torch.Tensor]:
    with bench.pipelines.borrow(each[0]) as parts:
        return together(parts, *each)


# ---- the same picture as the stock call -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_toy_sd2_v_is_bitwise(toys: Path, paint: Callable[..., Any], scheduler: str) -> None:
    name = "Euler" if scheduler.startswith("Euler") else "DDPM"
    reference = call(
        stock(toys / "toy-sd2", "StableDiffusionPipeline"),
        scheduler if name == "Euler" else "DDPMScheduler",
        prompt="a red boat",
        negative_prompt="fog",
        num_inference_steps=3,
        guidance_scale=5.0,
    )
    ours = paint(
        model="toy-sd2",
        prompt="a red boat",
        negative_prompt="fog",
        steps=3,
        guidance=5,
        scheduler=name,
        noise_schedule="Uniform",
        seed=3,
    )
    assert np.array_equal(ours, reference)


@pytest.mark.smoke
@pytest.mark.parametrize("negative", [None, "fog"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_toy_sdxl_is_bitwise(
    toys: Path, paint: Callable[..., Any], negative: str | None, guidance: float
) -> None:
    """Without a negative prompt it is zeros, as in a stock call that is given none. Its shipped Karras stays off."""
    pipe = stock(toys / "toy-sdxl", "StableDiffusionXLPipeline")
    reference = call(
        pipe,
        "EulerDiscreteScheduler",
        prompt="a red boat",
        negative_prompt=negative,
        num_inference_steps=2,
        guidance_scale=guidance,
        width=64,
        height=128,
    )
    ours = paint(
        model="toy-sdxl",
        prompt="a red boat",
        negative_prompt=negative or "",
        guidance=guidance,
        seed=3,
        **(QUICK | {"height": 128, "width": 64}),
    )
    assert np.array_equal(ours, reference)


def test_unguided_is_bitwise(paint: Callable[..., Any]) -> None:
    reference = call(
        stock(POCKET, "StableDiffusionPipeline"),
        "EulerDiscreteScheduler",
        prompt="a red boat",
        num_inference_steps=2,
        guidance_scale=1.0,
        width=64,
        height=64,
    )
    assert np.array_equal(paint(prompt="a red boat", guidance=1, seed=3, **QUICK), reference)


# ---- seeds, counts, batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["Euler a", "DPM++ SDE"])
def test_a_picture_depends_on_its_own_seed_alone(paint: Callable[..., Any], scheduler: str) -> None:
    """Count does not touch a picture; also with schedulers that add noise."""
    spec = {**QUICK, "prompt": "a green tree", "scheduler": scheduler}
    row = paint(seed=2**32 - 1, num_images=2, **spec)
    assert [
        np.array_equal(one, paint(seed=seed, **spec)) for one, seed in zip(row, (2**32 - 1, 0))
    ] == [True] * 2


@pytest.mark.parametrize("scheduler", ["Euler a", pytest.param("DPM++ SDE", marks=SLOW)])
def test_a_batch_touches_a_picture_only_in_the_last_bits(
    bench: WorkerContext, scheduler: str
) -> None:
    """At full size and with some steps: in two steps, guidance blows rounding up to 2e-5."""
    size = {"steps": 6, "width": 128, "height": 128}
    spec = {**QUICK, "prompt": "a green tree", "scheduler": scheduler} | size
    each = ResolvedRequest(seed=5, num_images=2, **spec).split()
    alone, together = [latents(bench, [one])[0] for one in each], latents(bench, each)
    assert max(float((a - b).norm() / a.norm()) for a, b in zip(alone, together)) < 1e-5


@pytest.mark.slow
def test_unequal_trajectories_share_calls(bench: WorkerContext) -> None:
    """Other schedulers, steps and guidance in one batch: each comes out as it does alone (in few steps guidance blows rounding
    up: UniPC in 5 reached 5e-5)."""
    size = {"width": 128, "height": 128, "prompt": "a red boat"}
    each = [
        ResolvedRequest(
            seed=1, steps=10, scheduler="DDIM", noise_schedule="Model default", guidance=3, **size
        ),
        ResolvedRequest(
            seed=2, steps=12, scheduler="Heun", noise_schedule="Karras", guidance=1, **size
        ),
        ResolvedRequest(
            seed=3, steps=20, scheduler="UniPC", noise_schedule="Simple", guidance=7, **size
        ),
    ]
    for one, shared in zip(each, latents(bench, each)):
        alone = latents(bench, [one])[0]
        assert float((alone - shared).norm() / alone.norm()) < 1e-5


def test_the_record_is_what_ran(bench: WorkerContext) -> None:
    made = generate(
        bench,
        {"prompt": "a boat", "num_images": 3, "batch_size": 2, **QUICK},
        lambda progress: None,
    )
    request = GenerationRequest.model_validate(made["request"])
    assert request.seed >= 0
    assert [picture["seed"] for picture in made["pictures"]] == [
        (request.seed + k) % 2**32 for k in range(3)
    ]
    kept = [bench.home.gallery.get(picture["path"]) for picture in made["pictures"]]
    assert [one.request.scheduler for one in kept if one] == ["Euler"] * 3
    assert [one.digest for one in kept if one] == [
        picture["digest"] for picture in made["pictures"]
    ]
    assert {one.content_hashes["dtype"] for one in kept if one} == {"float32"}


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_words_weigh(bench: WorkerContext) -> None:
    """A weight moves the conditioning away from the plain one, the more the farther it is from 1; neutral ones do not."""

    def rows(parts: LoadedModel, text: str) -> torch.Tensor:
        return (
            encode_prompts(parts, GenerationRequest(prompt=text))
            .positives[0]
            .get(0)["prompt_embeds"]
        )

    with bench.pipelines.borrow(GenerationRequest()) as parts:
        plain = rows(parts, "a red boat by a lake")
        assert torch.equal(rows(parts, "a (red:1.0) boat by a lake"), plain)
        apart = [
            float((rows(parts, f"a (red:{weight}) boat by a lake") - plain).norm())
            for weight in (0.2, 0.7, 1.1, 1.5)
        ]
        assert apart[0] > apart[1] > 0
        assert apart[3] > apart[2] > 0
        both = rows(parts, '("a red boat", "a lake").and()')
        assert both.shape[1] == 2 * plain.shape[1]
        assert torch.equal(both[:, :77], rows(parts, "a red boat"))
        mixed = rows(parts, '("a red boat", "a lake").blend(1, 3)')
        torch.testing.assert_close(
            mixed, rows(parts, "a red boat") / 4 + rows(parts, "a lake") * 3 / 4
        )
        for odd in ("", "( )", "[ ]", "(:0.5)", "a (b:0) c", "(xyzzy:0.5) (plugh:1.5)"):
            assert torch.isfinite(rows(parts, odd)).all()


def test_long_prompts_go_on_in_chunks(bench: WorkerContext) -> None:
    long = "a red boat by a lake, a green tree on a beach, " * 12 + "(night:1.3)"
    for model in ("pocket", "toy-sdxl"):
        request = GenerationRequest(model=model, prompt=long, negative_prompt="fog")
        with bench.pipelines.borrow(request) as parts:
            told = encode_prompts(parts, request)
            shape = told.positives[0].get(0)["prompt_embeds"].shape
            assert shape == told.negative.get(0)["prompt_embeds"].shape
            assert shape[1] in (154, 231, 308)
            told = encode_prompts(
                parts, request.model_copy(update={"prompt": "", "negative_prompt": long})
            )
            shapes = [
                row["prompt_embeds"].shape
                for row in (told.negative.get(0), told.positives[0].get(0))
            ]
            assert shapes[0] == shapes[1]


def test_clip_skip(bench: WorkerContext, toys: Path, paint: Callable[..., Any]) -> None:
    """Layer -n through the final norm for SD, one further in and without it for SDXL; too far is refused with the most."""
    for model, kinds in (
        ("pocket", ("text_encoder",)),
        ("toy-sdxl", ("text_encoder", "text_encoder_2")),
    ):
        request = GenerationRequest(model=model, prompt="a red boat", clip_skip=2)
        pipe = stock(
            POCKET if model == "pocket" else toys / model,
            f"StableDiffusion{'XL' * (len(kinds) - 1)}Pipeline",
        )
        tokens = pipe.tokenizer(
            "a red boat", padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            states = [
                getattr(pipe, kind)(tokens, output_hidden_states=True).hidden_states
                for kind in kinds
            ]
            expected = (
                pipe.text_encoder.final_layer_norm(states[0][-2])
                if model == "pocket"
                else torch.cat([state[-3] for state in states], dim=-1)
            )
        with bench.pipelines.borrow(request) as parts:
            read = encode_prompts(parts, request).positives[0].get(0)["prompt_embeds"]
            assert torch.equal(read, expected)
    assert not np.array_equal(
        *(paint(prompt="a red boat", seed=1, clip_skip=skip, **QUICK) for skip in (1, 2))
    )
    for model, most in (("pocket", 3), ("toy-sdxl", 3)):
        with refused(InvalidSpec, "Clip skip") as caught:
            paint(model=model, clip_skip=4, **QUICK)
        assert str(most) in str(caught.value)


def test_conditionings_are_remembered(bench: WorkerContext) -> None:
    request = GenerationRequest(prompt="a boat that was never asked for")
    with bench.pipelines.borrow(request) as parts:
        first = encode_prompts(parts, request).positives[0].get(0)
        assert encode_prompts(parts, request).positives[0].get(0) is first
        for k in range(70):
            encode_prompts(parts, request.model_copy(update={"prompt": f"boat {k}"}))
        assert len(parts.prompt_cache) <= 64


# ---- progress, stops, faults ----------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_progress(bench: WorkerContext) -> None:
    seen: list[Progress] = []
    lively = replace(bench, home=Home(bench.settings.model_copy(update={"preview_every": 2})))
    generate(
        lively,
        {
            **QUICK,
            "prompt": "a boat",
            "steps": 6,
            "num_images": 3,
            "batch_size": 2,
            "scheduler": "Heun",
        },
        seen.append,
    )
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert (steps[-1], seen[-1].total, len(seen[-1].images), seen[-1].eta_seconds) == (18, 18, 3, 0)
    assert [progress.message for progress in seen[:2]] == [
        "Loading the model",
        "Encoding the prompt",
    ]
    previews = [progress.preview for progress in seen if progress.preview]
    assert len(previews) == 4
    assert all(preview[:2] == b"\xff\xd8" and len(preview) < 60_000 for preview in previews)
    json.dumps([progress.images for progress in seen])


@pytest.mark.slow
def test_a_preview_looks_like_the_picture(bench: WorkerContext) -> None:
    """Fitted colours against the decoded picture, shrunk to its latents: alike, and far from another picture's."""
    import io

    from PIL import Image

    from studio.engine.generation import latent_preview

    shrunk = []
    for prompt in ("a blue car on a beach", "a red boat at night"):
        request = GenerationRequest(prompt=prompt, seed=9, steps=6).resolve(128, 0)
        with bench.pipelines.borrow(request) as parts:
            (one,) = together(parts, request)
            shown, real = (
                Image.open(io.BytesIO(latent_preview.render_jpeg(parts, [one]))),
                decode_latents(parts, one, request.size),
            )
        shrunk.append(
            [
                np.asarray(image.resize((16, 16), Image.Resampling.BOX), float).ravel()
                for image in (shown, real)
            ]
        )
    (shown, real), (_, other) = shrunk
    assert np.corrcoef(shown, real)[0, 1] > 0.8
    assert np.corrcoef(shown, other)[0, 1] < 0.7


@pytest.mark.parametrize("at", [0, 1, 4, *(pytest.param(at, marks=SLOW) for at in (2, 6))])
def test_a_stop_in_any_phase_leaves_nothing_behind(
    bench: WorkerContext, paint: Callable[..., Any], at: int
) -> None:
    before = paint(prompt="a boat", seed=4, **QUICK)
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) > at:
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(
            bench, {**QUICK, "prompt": "a tree", "num_images": 2, "scheduler": "Euler a"}, report
        )
    # At once; a picture that was being saved meanwhile is reported too.
    assert at + 1 <= len(seen) <= at + 2
    assert len(seen) == at + 1 or len(seen[-1].images) > len(seen[-2].images)
    assert not any(held["lent"] for held in bench.pipelines.loaded)
    assert np.array_equal(paint(prompt="a boat", seed=4, **QUICK), before)


def test_no_numbers_is_an_error(bench: WorkerContext) -> None:
    request = GenerationRequest(prompt="a boat", seed=1, **QUICK)
    with bench.pipelines.borrow(request) as parts:
        weight = parts.denoiser.conv_out.bias
        kept = weight.detach().clone()
        weight.data.fill_(float("nan"))
        try:
            with refused(StudioError):
                generate(bench, request.model_dump(), lambda progress: None)
        finally:
            weight.data.copy_(kept)


def test_out_of_memory_says_what_to_lower(
    bench: WorkerContext, paint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = paint(prompt="a boat", seed=4, **QUICK)
    with bench.pipelines.lend("a judge", lambda: torch.nn.Linear(3, 3)):
        pass

    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(diffusers.UNet2DConditionModel, "forward", full)
        with refused(OutOfMemory):
            paint(prompt="a boat", num_images=2, batch_size=2, **QUICK)
    # Another size may fit: only what stood in the way went.
    assert [held["name"] for held in bench.pipelines.loaded] == ["pocket"]
    assert np.array_equal(paint(prompt="a boat", seed=4, **QUICK), before)


def test_what_is_idle_makes_room_for_a_picture(
    bench: WorkerContext, paint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = paint(prompt="a boat", seed=4, **QUICK)
    with bench.pipelines.lend("a judge", lambda: torch.nn.Linear(3, 3)):
        pass
    forward = diffusers.UNet2DConditionModel.forward

    def full(*args: Any, **kwargs: Any) -> Any:
        if "a judge" in [held["name"] for held in bench.pipelines.loaded]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*args, **kwargs)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", full)
    assert np.array_equal(paint(prompt="a boat", seed=4, **QUICK), before)


def test_a_model_that_cannot_fit(settings: Settings) -> None:
    bench = WorkerContext.open(load(home=settings.home, device="cpu", keep_free=1000))
    with refused(OutOfMemory):
        generate(bench, dict(QUICK), lambda progress: None)


def test_models_are_lent_listed_and_unloaded(
    bench: WorkerContext, paint: Callable[..., Any]
) -> None:
    paint(prompt="a boat", **QUICK)
    with (
        bench.pipelines.borrow(GenerationRequest()) as parts,
        bench.pipelines.borrow(GenerationRequest()) as again,
    ):
        assert parts is again
        networks = (parts.denoiser, parts.vae, *parts.text_encoders)
        assert not bench.pipelines.unload("pocket")
        held = next(held for held in bench.pipelines.loaded if held["name"] == "pocket")
        assert held["lent"]
        assert held["bytes"] == sum(
            t.numel() * t.element_size()
            for module in networks
            for t in (*module.parameters(), *module.buffers())
        )
    with bench.pipelines.lend("a judge", lambda: torch.nn.Linear(3, 3)) as judge:
        assert isinstance(judge, torch.nn.Linear)
    assert bench.pipelines.unload("pocket")
    assert "pocket" not in [held["name"] for held in bench.pipelines.loaded]


def test_bad_requests(
    bench: WorkerContext, paint: Callable[..., Any], toys: Path, tmp_path: Path
) -> None:
    with refused(ModelNotFound) as caught:
        paint(model="pokket")
    assert "pokket" in str(caught.value)
    with refused(InvalidSpec, "Width", "Steps"):
        paint(steps=0, width=65)
    import shutil

    home = load(home=tmp_path / "home", device="cpu", keep_free=0)
    shutil.copytree(POCKET, home.models / "cut")
    weights = home.models / "cut" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(BadFile, match="vae of cut"):  # and then a path that is cut off somewhere
        generate(WorkerContext.open(home), {"model": "cut", **QUICK}, lambda progress: None)


@pytest.mark.slow
def test_bfloat16_runs(settings: Settings) -> None:
    """Another precision is another picture record; the autoencoder never runs in float16."""
    from studio.engine.models import devices

    assert torch.float16 not in devices.VAE_DTYPES.values()
    bench = WorkerContext.open(
        load(home=settings.home, device="cpu", precision="bfloat16", keep_free=0)
    )
    made = generate(bench, {"prompt": "a boat", **QUICK}, lambda progress: None)["pictures"]
    picture = bench.home.gallery.get(made[0]["path"])
    assert picture
    assert picture.content_hashes["dtype"] == "bfloat16"
    with bench.pipelines.borrow(GenerationRequest()) as parts:
        modules = (parts.denoiser, parts.vae, *parts.text_encoders)
        assert {weight.dtype for module in modules for weight in module.parameters()} == {
            torch.bfloat16
        }
    with refused(InvalidSpec):
        devices.resolve("cpu", "float16")
    with refused(InvalidSpec):
        devices.resolve("xpu")
