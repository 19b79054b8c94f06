"""Painting on pictures: second passes, only the masked area, new area, strips; what is loaded, said, refused and stopped."""

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
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.pictures import Side, cases
from studio.core.base import validate, validate_stored
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models import loaded_model
from studio.engine.sweeps.denoise_strip import render_denoise_strip
from studio.engine.sweeps.job import run_sweep
from studio.errors import BadPicture, Cancelled, InvalidSpec
from studio.settings import load
from studio.storage.gallery import Gallery, read_image_settings
from studio.storage.home import Home
from studio.storage.jobs import Progress
from studio.storage.sweeps import Sweeps
from support.models import POCKET
from support.painting import made
from support.sentences import refused
from support.stock import PROMPT, SEED, called, pipe_of, scene, square

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
EULER: dict[str, Any] = {
    "scheduler": "Euler",
    "steps": 4,
    "guidance": 6,
    "seed": SEED,
    "noise_schedule": "Model default",
    "prompt": PROMPT,
}


@pytest.fixture(scope="module")
def first() -> Any:
    return pipe_of("StableDiffusionPipeline", POCKET, "Euler")


def quiet(progress: Progress) -> None:
    pass


# ---- the second pass --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["latent", "pixel"])
def test_hires_is_bitwise_two_stock_calls(bench: WorkerContext, first: Any, way: str) -> None:
    second = diffusers.StableDiffusionImg2ImgPipeline(
        **first.components, requires_safety_checker=False
    )
    second.set_progress_bar_config(disable=True)
    told = {
        "num_inference_steps": 4,
        "width": 64,
        "height": 64,
        "output_type": "latent" if way == "latent" else "pil",
    }
    begun = first(
        PROMPT, guidance_scale=6.0, generator=torch.Generator().manual_seed(SEED), **told
    ).images
    larger = (
        torch.nn.functional.interpolate(begun, (12, 12), mode="bilinear")
        if way == "latent"
        else begun[0].resize((96, 96), Image.Resampling.LANCZOS)
    )
    expected = called(second, "Euler", image=larger, strength=0.5, num_inference_steps=6)
    ours = made(
        bench,
        None,
        **EULER,
        width=64,
        height=64,
        hires_scale=1.5,
        hires_resize=way,
        hires_steps=6,
        hires_strength=0.5,
    )
    assert np.array_equal(ours, expected)


@pytest.mark.slow
def test_enlarging_a_picture(bench: WorkerContext) -> None:
    """Without a first pass: the picture itself is what the second one starts from, in one piece or in tiles."""
    second = pipe_of("StableDiffusionImg2ImgPipeline", POCKET, "Euler")
    larger = scene().resize((128, 128), Image.Resampling.LANCZOS)
    ours = made(bench, scene(), **EULER, strength=0, hires_scale=2, hires_strength=0.5)
    assert np.array_equal(
        ours, called(second, "Euler", image=larger, strength=0.5, num_inference_steps=4)
    )
    tiled = made(
        bench,
        scene(),
        **EULER,
        strength=0,
        hires_scale=2,
        hires_strength=0.5,
        hires_tile=96,
        hires_overlap=32,
    )
    assert tiled.shape == (128, 128, 3)
    assert not np.array_equal(tiled, ours)
    corner = called(
        second, "Euler", image=larger.crop((0, 0, 96, 96)), strength=0.5, num_inference_steps=4
    )
    assert np.array_equal(tiled[:32, :32], corner[:32, :32])  # where only the first tile is
    seams = np.abs(np.diff(tiled.astype(int), axis=1)).mean((0, 2))
    assert seams[[31, 63, 95]].max() < 2 * seams.mean() + 4  # no edge where a tile begins or ends
    latent = made(bench, scene(), **EULER, strength=0, hires_scale=2, hires_resize="latent")
    assert latent.shape == (128, 128, 3)


@pytest.mark.slow
def test_several_at_once_with_a_second_pass(bench: WorkerContext) -> None:
    seen: list[Progress] = []
    lively = replace(bench, home=Home(bench.settings.model_copy(update={"preview_every": 1})))
    spec = EULER | {
        "width": 64,
        "height": 64,
        "num_images": 2,
        "batch_size": 2,
        "hires_scale": 2,
        "hires_strength": 0.5,
    }
    pictures = generate(lively, spec, seen.append)["pictures"]
    alone = made(
        bench,
        None,
        **EULER | {"seed": SEED + 1},
        width=64,
        height=64,
        hires_scale=2,
        hires_strength=0.5,
    )
    assert [Image.open(one["path"]).size for one in pictures] == [(128, 128)] * 2
    assert np.abs(np.asarray(Image.open(pictures[1]["path"])).astype(int) - alone).mean() < 1
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert steps[-1] == seen[-1].total == 2 * (4 + 2)
    assert any(progress.preview for progress in seen)


# ---- masks ------------------------------------------------------------------------------------------------------------------


def test_only_the_masked_area_is_bitwise_the_stock_crop(bench: WorkerContext) -> None:
    """The mask with its padding is 32 × 32 and painted at 64 × 64, as diffusers' padding_mask_crop does it."""
    picture, mask = scene((128, 104)), square((128, 104), (48, 44, 72, 68))
    pipe, inside = pipe_of("StableDiffusionInpaintPipeline", POCKET, "Euler"), np.asarray(mask) > 0
    ours = made(
        bench,
        picture,
        mask,
        **EULER,
        strength=0.8,
        mask_blur=0,
        inpaint_area="only masked",
        mask_padding=4,
        width=64,
        height=64,
    )
    theirs = called(
        pipe,
        "Euler",
        image=picture,
        mask_image=mask,
        strength=0.8,
        num_inference_steps=4,
        padding_mask_crop=4,
        width=64,
        height=64,
    )
    assert np.array_equal(ours[inside], theirs[inside])
    assert np.array_equal(ours[~inside], np.asarray(picture)[~inside])


def test_a_picture_of_any_size_keeps_it(bench: WorkerContext) -> None:
    picture, mask = scene((101, 67)), square((101, 67), (30, 20, 60, 50))
    for area in ("whole picture", "only masked"):
        after = made(bench, picture, mask, **EULER, inpaint_area=area, mask_blur=2)
        outside = np.ones((67, 101), bool)
        outside[15:55, 25:65] = False
        assert after.shape == (67, 101, 3)
        assert np.array_equal(after[outside], np.asarray(picture)[outside])
        assert (
            np.abs(after[25:45, 35:55].astype(int) - np.asarray(picture)[25:45, 35:55]).mean() > 1
        )


@pytest.mark.parametrize("fill", ["edge", "mirror", "noise", "colour"])
def test_outpainting_keeps_the_picture(bench: WorkerContext, fill: str) -> None:
    picture = scene((75, 64))
    after = made(
        bench,
        picture,
        **EULER,
        extend_left=32,
        extend_top=8,
        extend_fill=fill,
        seam_blur=2,
        strength=1,
    )
    assert after.shape == (72, 107, 3)
    assert np.array_equal(
        after[8 + 10 :, 32 + 10 :], np.asarray(picture)[10:, 10:]
    )  # beyond the seam: 2 · int(2.5 · 2 + 0.5)
    assert after[:, :32].std() > 5


def test_masked_content_decides_what_is_under_the_mask(bench: WorkerContext) -> None:
    found = [
        made(bench, scene(), square(), **EULER, masked_content=content, strength=0.5)
        for content in ("original", "fill", "latent noise", "latent nothing")
    ]
    assert all(not np.array_equal(one, other) for k, one in enumerate(found) for other in found[:k])


@pytest.mark.parametrize(
    "spec",
    [
        {"mask": Image.new("L", (64, 64))},
        {"mask": Image.new("L", (64, 64)), "inpaint_area": "only masked"},
        {"mask": Image.new("L", (64, 64), 255), "invert_mask": True},
        {"mask": square((64, 64), (1, 1, 3, 3)), "mask_grow": -9},
        {"mask": square((72, 64))},
        {"image": "0" * 64},
        {"strength": 0.1},
    ],
    ids=["empty", "empty area", "inverted", "shrunk", "another size", "gone", "no step"],
)
def test_what_cannot_be_is_said(bench: WorkerContext, spec: dict[str, Any]) -> None:
    with refused((InvalidSpec, BadPicture)):
        made(bench, None if "image" in spec else scene(), spec.pop("mask", None), **EULER | spec)
    assert not any(held["lent"] for held in bench.pipelines.loaded)


# ---- one set of parts, stops, sweeps, strips --------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_kind_of_work_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, loads = (
        WorkerContext.open(load(home=tmp_path, device="cpu", keep_free=0, preview_every=0)),
        [],
    )
    real = loaded_model.load_network
    monkeypatch.setattr(
        loaded_model, "load_network", lambda *told: loads.append(told) or real(*told)
    )
    made(bench, None, **EULER, width=64, height=64)
    made(bench, scene(), **EULER)
    made(bench, scene(), square(), **EULER)
    made(bench, scene(), **EULER, extend_left=8)
    made(bench, None, **EULER, width=64, height=64, hires_scale=2)
    assert len(loads) == 3  # text encoder, U-Net, autoencoder
    bench.home.gallery.close()


@pytest.mark.parametrize("at", [3, 6, 8])
def test_a_stop_leaves_nothing_behind(bench: WorkerContext, at: int) -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) > at:
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(bench, EULER | {"width": 64, "height": 64, "hires_scale": 2}, report)
    # What there is of the picture by then is kept, and reported once.
    assert [len(progress.images) for progress in seen[: at + 1]] == [0] * (at + 1)
    assert [len(progress.images) for progress in seen[at + 1 :]] in ([], [1])
    assert not any(held["lent"] for held in bench.pipelines.loaded)


@pytest.fixture
def swept(bench: WorkerContext) -> Callable[..., list[np.ndarray]]:
    sweeps = Sweeps(bench.settings, Gallery(bench.settings))

    def swept(
        base: dict[str, Any], axes: list[dict[str, Any]], fast: bool = False
    ) -> list[np.ndarray]:
        id = sweeps.save(validate(SweepSpec, {"base": base, "axes": axes, "fast": fast}), "ann")
        told = run_sweep(bench, {"sweep": id}, quiet)
        assert not told["failed"], [r.error for r in sweeps.load_cell_results(id).values()]
        return [
            np.asarray(Image.open(cell.path))
            for cell in sweeps.load_cell_results(id).values()
            if cell.path
        ]

    return swept


@pytest.mark.slow
def test_strength_and_masks_are_axes(
    bench: WorkerContext, swept: Callable[..., list[np.ndarray]]
) -> None:
    """Exact cells are the single pictures, bit for bit; fast ones of different strengths share calls and stay near them."""
    inputs = bench.home.library.inputs
    base = EULER | {
        "image": inputs.add(scene()).sha256,
        "mask": inputs.add_mask(square()).sha256,
        "mask_blur": 3,
    }
    axes = [
        {"field": "strength", "values": [0.5, 1.0]},
        {"field": "masked_content", "values": ["original", "latent nothing"]},
    ]
    singles = {
        made(bench, None, **base | {"strength": strength, "masked_content": content}).tobytes()
        for strength in (0.5, 1.0)
        for content in ("original", "latent nothing")
    }
    assert {cell.tobytes() for cell in swept(base, axes)} == singles
    fast = swept({**base, "seed": SEED + 1}, axes[:1], fast=True)
    slow = [
        made(bench, None, **base | {"strength": strength, "seed": SEED + 1})
        for strength in (0.5, 1.0)
    ]
    for cell in fast:
        assert min(np.abs(cell.astype(int) - one).mean() for one in slow) < 0.5
    hires = swept(
        EULER | {"width": 64, "height": 64}, [{"field": "hires_scale", "values": [1, 1.5, 2]}]
    )
    assert sorted(cell.shape[0] for cell in hires) == [64, 96, 128]


def test_a_sweep_over_what_changes_nothing_is_refused() -> None:
    for axis in (
        {"field": "strength", "values": [0.3, 0.6]},
        {"field": "hires_steps", "values": [3, 6]},
    ):
        with refused(InvalidSpec):
            plan_sweep(validate(SweepSpec, {"base": EULER, "axes": [axis]}))
    both = [{"field": "hires_scale", "values": [1, 2]}, {"field": "hires_steps", "values": [3, 6]}]
    assert len(plan_sweep(validate(SweepSpec, {"base": EULER, "axes": both})).cells) == 4


@pytest.mark.parametrize("scheduler", ["Euler", "Heun", "PLMS"])
def test_a_strip_shows_every_nth_step(bench: WorkerContext, scheduler: str) -> None:
    from studio.engine.sweeps import denoise_strip as module

    drawn: list[list[tuple[str, Image.Image]]] = []
    real = module._draw_strip
    spec = EULER | {"scheduler": scheduler, "steps": 5, "width": 64, "height": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module,
            "_draw_strip",
            lambda one, every, frames: drawn.append(frames) or real(one, every, frames),
        )
        made_ = render_denoise_strip(bench, {"request": spec, "every": 2}, quiet)
    labels, images = zip(*drawn[0])
    assert [label.split(" · ")[0] for label in labels] == ["step 1", "step 3", "step 5", "finished"]
    assert np.array_equal(np.asarray(images[-1]), made(bench, None, **spec))
    apart = [
        np.abs(np.asarray(image).astype(int) - np.asarray(images[-1])).mean() for image in images
    ]
    assert apart[0] > 40
    assert apart[-1] == 0 < apart[-2] < min(apart[:2])
    (kept,) = made_["pictures"]
    assert read_image_settings(Path(kept["path"])).values["seed"] == SEED
    assert Image.open(kept["path"]).width > 4 * 64
    assert bench.home.gallery.get(kept["path"])
    assert json.dumps(made_)
    exact = validate(GenerationRequest, spec).resolve(128, 0)
    assert kept["digest"] != exact.digest(bench.pipelines.content_hashes(exact))


@pytest.mark.parametrize("every", [0, 151, 1.5, True, "2", None])
def test_a_strip_of_nonsense_is_refused(bench: WorkerContext, every: object) -> None:
    with refused(InvalidSpec, "Strip"):
        render_denoise_strip(bench, {"request": EULER, "every": every}, quiet)
    picture = bench.home.library.inputs.add(scene()).sha256
    with refused(InvalidSpec):
        render_denoise_strip(
            bench,
            {"request": EULER | {"image": picture, "strength": 0, "hires_scale": 2}, "every": 1},
            quiet,
        )


# ---- what was made before, and what the judge sees ---------------------------------------------------------------------------


def test_a_gallery_from_before_opens(tmp_path: Path) -> None:
    """Pictures saved when requests knew nothing of other pictures are found, by their files and by their digests."""
    settings = load(home=tmp_path, device="cpu")
    old = {
        "prompt": "a boat",
        "negative_prompt": "",
        "model": "pocket",
        "width": 64,
        "height": 64,
        "steps": 30,
        "guidance": 7.0,
        "scheduler": "DPM++ 2M",
        "noise_schedule": "As shipped",
        "seed": 3,
        "num_images": 1,
        "batch_size": 1,
        "clip_skip": 1,
        "loras": [],
    }
    digest = "ec38c75e3f2a" + "0" * 52
    told = PngInfo()
    told.add_itxt(
        "studio",
        json.dumps(
            {
                "request": old,
                "digest": digest,
                "contents": {},
                "seconds": 1,
                "owner": "ann",
                "created": 5,
            }
        ),
    )
    (settings.outputs / "2025-01-01").mkdir()
    Image.new("RGB", (64, 64)).save(settings.outputs / "2025-01-01" / "old.png", pnginfo=told)
    gallery = Gallery(settings)
    assert gallery.sync() == (1, 0)
    kept = gallery.find_by_digest(digest)
    assert kept
    assert kept.request == validate_stored(ResolvedRequest, old)
    assert kept.request.task == "txt2img"
    assert kept.request.noise_schedule == "Model default"
    assert kept.request.prompt_syntax == "both"
    assert kept.request.emphasis == "compel"
    gallery.close()


@pytest.mark.slow
def test_repainting_as_the_judge_sees_it(tmp_path: Path) -> None:
    """Few cases of `python -m tests.bench pictures`: others than it prints."""
    side, told = Side(tmp_path, steps=12), cases(5, first=300)
    repainted, _ = side.inpainted(told)
    assert repainted["place"] >= 0.8
    assert repainted["thing"] >= 0.6
    assert side.seen([case.picture for case in told])["thing"] != [
        case.wanted.thing for case in told
    ]
    changed, _ = side.changed(told[:3])
    assert changed["strength 0.3"] < changed["strength 0.6"] < changed["strength 0.9"]


@pytest.mark.slow
def test_fifty_pictures_as_the_judge_sees_them(tmp_path: Path) -> None:
    side, told = Side(tmp_path), cases(50, first=100)
    repainted, wider, changed = (
        work(told)[0] for work in (side.inpainted, side.outpainted, side.changed)
    )
    assert repainted["place"] >= 0.8
    assert repainted["thing"] >= 0.8
    assert wider["place"] >= 0.8
    assert wider["untouched"] == 1
    assert changed["strength 0.3"] < changed["strength 0.6"] < changed["strength 0.9"]
    assert changed["grows"] >= 0.9
