"""Pictures under each memory plan, on the CPU: the same bit for bit where a plan says so, 8 bits within their bound."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, ZImageTransformer2DModel
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Config,
    Qwen3Model,
)

from studio.core.base import validate
from studio.core.families.family import DENOISER, VAE
from studio.core.generation.memory_policy import (
    MEMORY_RAN_OUT_NOTE,
    WHOLE,
    MemoryPlan,
    get_streamed_bytes,
)
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models import memory_planner
from studio.engine.models.adapters.adapted_layer import AdaptedLayer
from studio.engine.models.cache import measure_bytes
from studio.engine.models.loaded_model import PARTS, list_networks
from studio.engine.models.part_placement import store_in_fp8
from studio.engine.sweeps.job import run_sweep
from studio.errors import OutOfMemory
from support import lora_makers as makers
from support.benches import open_toy_bench
from support.models import POCKET, make_toy, make_toy_z_image
from support.sentences import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SLOW = pytest.mark.slow
MODELS = ("toy-sd1", "toy-sdxl", "toy-z", "pocket")
TURNS, FP8, STREAMED = MemoryPlan("turns"), MemoryPlan("fp8"), MemoryPlan("streamed")
# What 8 bits cost the embedded model, in parts of the norm.
FP8_PREDICTION_BOUND = 0.03
FP8_LORA_BOUND = 0.15


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    toys = tmp_path_factory.mktemp("toys")
    make_toy(toys / "toy-sd1", "StableDiffusionPipeline", width=32)
    make_toy(toys / "toy-sdxl", "StableDiffusionXLPipeline")
    make_toy_z_image(toys / "toy-z")
    bench = open_toy_bench(tmp_path_factory.mktemp("plans"), toys)
    for name, options in (("both", {}), ("unet", {"only": "unet", "convs": True})):
        made = makers.add(makers.stock(POCKET), **options)
        makers.kohya(bench.settings.loras / f"{name}.safetensors", made, 2)
    yield bench
    bench.home.gallery.close()


@pytest.fixture(autouse=True)
def nothing_loaded(bench: WorkerContext) -> None:
    bench.pipelines.evict_idle()


def paint(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, plan: MemoryPlan, **spec: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """The pixels and the job's result under a plan."""
    spec = {
        "prompt": "a boat",
        "steps": 2,
        "seed": 3,
        "width": 64,
        "height": 64,
        "scheduler": "Euler",
        "noise_schedule": "Model default",
    } | spec
    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(bench.pipelines._planner, "choose", lambda info, requests: plan)
        result = generate(bench, spec, lambda progress: messages.append(progress.message))
    loading = messages.index("Loading the model")
    assert [note for note in plan.notes if note not in messages[:loading]] == []  # said beforehand
    return np.asarray(Image.open(result["pictures"][0]["path"])), result


def build_request(model: str) -> GenerationRequest:
    return GenerationRequest(model=model, scheduler="Euler", noise_schedule="Model default")


# ---- equality -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=SLOW if name in ("toy-sd1", "pocket") else ()) for name in MODELS],
)
def test_what_takes_turns_or_comes_layer_by_layer_is_the_same_picture(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    whole, result = paint(bench, monkeypatch, WHOLE, model=model)
    assert result["notes"] == []
    for plan in (TURNS, STREAMED):
        pixels, same = paint(bench, monkeypatch, plan, model=model)
        assert np.array_equal(pixels, whole), plan.level
        assert same["pictures"][0]["digest"] == result["pictures"][0]["digest"]
        assert same["notes"] == plan.notes


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name == "toy-sdxl" else SLOW) for name in MODELS]
)
def test_8_bits_are_another_picture_under_another_digest(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    whole, result = paint(bench, monkeypatch, WHOLE, model=model)
    pixels, other = paint(bench, monkeypatch, FP8, model=model)
    again, same = paint(bench, monkeypatch, FP8, model=model)
    assert np.array_equal(pixels, again)
    assert not np.array_equal(pixels, whole)
    digests = [made["pictures"][0]["digest"] for made in (result, other, same)]
    assert digests[0] != digests[1] == digests[2]
    saved = bench.home.gallery.get(other["pictures"][0]["path"])
    assert saved
    assert saved.content_hashes["memory"] == "fp8"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"loras": ["both:0.7"]}, id="lora"),
        pytest.param(
            {"prompt": "a (red:1.3) boat <lora:unet:1:0>", "guidance": 3.0}, id="tag", marks=SLOW
        ),
        pytest.param(
            {"num_images": 3, "batch_size": 2, "hires_scale": 1.5}, id="several", marks=SLOW
        ),
    ],
)
def test_layer_by_layer_with_all_that_a_request_can_have(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    whole, _ = paint(bench, monkeypatch, WHOLE, **spec)
    streamed, _ = paint(bench, monkeypatch, STREAMED, **spec)
    assert np.array_equal(streamed, whole)


def test_decoding_in_tiles_by_plan_is_said_and_in_the_digest(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"width": 128, "height": 128}
    whole, result = paint(bench, monkeypatch, WHOLE, **size)
    tiled, other = paint(bench, monkeypatch, MemoryPlan("turns", is_tiled=True), **size)
    assert 0 < np.abs(whole.astype(float) - tiled).mean() < 20
    assert result["pictures"][0]["digest"] != other["pictures"][0]["digest"]
    assert other["notes"] == MemoryPlan("turns", is_tiled=True).notes
    saved = bench.home.gallery.get(other["pictures"][0]["path"])
    assert saved
    assert saved.content_hashes["autoencoder"] == "in tiles"


# ---- 8 bits ---------------------------------------------------------------------------------------------------------


def predict(network: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    states = torch.randn(2, 77, network.config.cross_attention_dim, generator=generator)
    with torch.inference_mode():
        prediction: torch.Tensor = network(
            latents, torch.tensor([500.0, 100.0]), encoder_hidden_states=states
        ).sample
    return prediction


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_8_bits_are_as_diffusers_stores_them_and_within_their_bound(
    bench: WorkerContext,
) -> None:
    stock = UNet2DConditionModel.from_pretrained(POCKET, subfolder="unet", dtype=torch.float32)
    plain = predict(stock.eval())
    stock.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with bench.pipelines.borrow(GenerationRequest(), plan=FP8) as model:
        ours = predict(model.denoiser)
        held_bytes = measure_bytes(model.denoiser)
    assert torch.equal(ours, predict(stock))
    error = apart(ours, plain)
    print(f"a prediction in 8 bits is {error:.1%} off")
    assert 0.001 < error < FP8_PREDICTION_BOUND
    assert held_bytes < 0.27 * measure_bytes(
        UNet2DConditionModel.from_pretrained(POCKET, subfolder="unet", dtype=torch.float32)
    )


@pytest.mark.slow
def test_a_lora_on_8_bits_has_its_effect_and_leaves_nothing(bench: WorkerContext) -> None:
    """Attached in the number format to compute in; afterwards the base is bit for bit as before."""
    effects = {}
    for plan in (WHOLE, FP8):
        with bench.pipelines.borrow(GenerationRequest(), plan=plan) as model:
            before = predict(model.denoiser)
            weights = {name: weight.clone() for name, weight in model.denoiser.state_dict().items()}
        with bench.pipelines.borrow(GenerationRequest(loras=["unet"]), plan=plan) as model:
            effects[plan.level] = predict(model.denoiser) - before
            adapted = [
                layer for layer in model.denoiser.modules() if isinstance(layer, AdaptedLayer)
            ]
            assert adapted
            assert {
                weight.dtype for layer in adapted for weight in layer.adapters.parameters()
            } == {torch.float32}
        assert bench.pipelines._cache.evict(
            next(
                held["key"]
                for held in bench.pipelines._cache.list_residents()
                if held["key"].startswith("lora")
            )
        )
        with bench.pipelines.borrow(GenerationRequest(), plan=plan) as model:
            after = model.denoiser.state_dict()
            assert after.keys() == weights.keys()
            for name, weight in weights.items():
                assert after[name].dtype == weight.dtype
                assert torch.equal(after[name].float(), weight.float()), name
            assert torch.equal(predict(model.denoiser), before)
        bench.pipelines.evict_idle()
    error = apart(effects["fp8"], effects["whole"])
    print(f"a LoRA's effect on 8 bits is {error:.1%} off")
    assert error < FP8_LORA_BOUND


def test_what_8_bits_cannot_hold_stays_as_it_is() -> None:
    """Numbers over 448 would become none."""
    network = UNet2DConditionModel.from_pretrained(POCKET, subfolder="unet", dtype=torch.float32)
    with torch.no_grad():
        network.conv_out.weight[0, 0, 0, 0] = 1000.0
        network.down_blocks[0].resnets[0].conv1.bias[0] = -449.0
    store_in_fp8(network, torch.float32)
    assert network.conv_out.weight.dtype == torch.float32
    assert network.down_blocks[0].resnets[0].conv1.weight.dtype == torch.float32
    assert network.conv_in.weight.dtype == torch.float8_e4m3fn
    assert bool(torch.isfinite(predict(network)).all())


# ---- residents ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_form_of_a_part_is_a_resident_of_its_own(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plan in (WHOLE, FP8, STREAMED):
        paint(bench, monkeypatch, plan)
    keys = [resident["key"].split() for resident in bench.pipelines._cache.list_residents()]
    assert {(key[0], " ".join(key[4:])) for key in keys} == {
        *((part, "") for part in PARTS),
        (DENOISER, "fp8"),
        (DENOISER, "streamed"),
        (VAE, "streamed"),  # the prompt was remembered
    }
    assert bench.pipelines.unload("pocket")
    assert bench.pipelines.loaded == []


@pytest.mark.slow
def test_a_lora_is_on_the_encoders_that_are_used(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not, the denoiser is the same resident; the text encoders are not."""
    spec = {"loras": ["both:0.7"]}
    whole, _ = paint(bench, monkeypatch, WHOLE, **spec)
    turns, _ = paint(bench, monkeypatch, TURNS, **spec)
    again, _ = paint(bench, monkeypatch, WHOLE, **spec | {"seed": 4})
    assert np.array_equal(whole, turns)
    bench.pipelines.evict_idle()
    fresh, _ = paint(bench, monkeypatch, WHOLE, **spec | {"seed": 4})
    assert np.array_equal(again, fresh)


def test_who_borrows_a_lent_model_gets_it_as_it_lies(bench: WorkerContext) -> None:
    with (
        bench.pipelines.borrow(GenerationRequest(), plan=FP8) as model,
        bench.pipelines.borrow(GenerationRequest(), plan=WHOLE) as again,
    ):
        assert again is model
        assert again.plan == FP8
        assert bench.pipelines.plan_memory(GenerationRequest()) == FP8
    assert model.plan == WHOLE


@pytest.mark.parametrize("model", MODELS)
def test_the_autoencoder_is_not_there_before_it_is_needed(bench: WorkerContext, model: str) -> None:
    with bench.pipelines.borrow(build_request(model)) as lent:
        shape = lent.latent_shape(64, 64)
        assert not lent.parts
        assert shape[1] == lent.vae.config.latent_channels
        assert shape[2] * 2 ** (len(lent.vae.config.block_out_channels) - 1) == 64
        assert dict(lent.vae_config) == dict(lent.vae.config)


@pytest.mark.slow
def test_a_sweep_whose_memory_runs_out_is_made_in_8_bits(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the digest of that; cells that are the same image still share one."""
    planner = bench.pipelines._planner
    monkeypatch.setattr(planner, "choose", lambda info, requests: WHOLE)
    monkeypatch.setattr(planner, "choose_below", lambda info, requests, failed: FP8)
    forward = UNet2DConditionModel.forward

    def fail_unless_fp8(network: Any, *given: Any, **named: Any) -> Any:
        if network.conv_in.weight.dtype == torch.float32:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(network, *given, **named)

    base = {"prompt": "a boat", "steps": 2, "width": 64, "height": 64}
    axis = {"field": "seed", "values": [1, 2, 1]}
    sweep = validate(SweepSpec, {"base": base, "axes": [axis]})
    with monkeypatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", fail_unless_fp8)
        sweep_id = bench.home.sweeps.save(sweep, "local")
        result = run_sweep(bench, {"sweep": sweep_id}, lambda progress: None)
    counts = [result[name] for name in ("cells", "made", "taken", "failed")]
    assert counts == [3, 2, 1, 0]
    assert {MEMORY_RAN_OUT_NOTE, *FP8.notes} <= set(result["notes"])
    for cell in bench.home.sweeps.load_cell_results(sweep_id).values():
        assert cell.path
        image = bench.home.gallery.get(cell.path)
        assert image
        assert image.content_hashes["memory"] == "fp8"
        assert image.digest == cell.digest


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_parts_are_as_large_as_their_files_say(bench: WorkerContext, model: str) -> None:
    planner = bench.pipelines._planner
    with bench.pipelines.borrow(build_request(model)) as lent:
        for part in PARTS:
            held_bytes = measure_bytes(list_networks(lent._get_part(part)))
            said_bytes = planner.measure_part(lent.info, part, WHOLE)
            assert held_bytes * 0.98 < said_bytes < held_bytes * 1.25 + 30_000  # headers


@pytest.mark.slow
def test_shares_of_the_released_models() -> None:
    """Of their real shapes, without numbers: the largest layer, and what is not kept in 8 bits."""
    large = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    }
    qwen = Qwen3Config(
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )
    clip_g = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
    )
    with torch.device("meta"):
        denoisers = [
            UNet2DConditionModel(cross_attention_dim=768),
            UNet2DConditionModel(**large),
            ZImageTransformer2DModel(),
        ]
        others = [
            CLIPTextModel(CLIPTextConfig()),
            CLIPTextModelWithProjection(clip_g),
            Qwen3Model(qwen),
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            ),
        ]
        for network in (*denoisers, *others):
            for dtype_bytes in (2, 4):
                largest = max(
                    sum(weight.numel() for weight in layer.parameters(recurse=False))
                    for layer in network.modules()
                )
                total = sum(weight.numel() for weight in network.parameters())
                assert largest * dtype_bytes <= get_streamed_bytes(total * dtype_bytes)
        for network in denoisers:
            total = sum(weight.numel() for weight in network.parameters())
            network.half().enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16
            )
            held_bytes = sum(
                weight.numel() * weight.element_size() for weight in network.parameters()
            )
            assert total <= held_bytes < 1.01 * total


@pytest.mark.parametrize("setting", ["auto", pytest.param("low", marks=SLOW)])
def test_a_processor_that_just_holds_the_denoiser_paints(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Where nothing can wait elsewhere, parts are given up one after the other; what lies there is never too much."""
    pipelines, planner = bench.pipelines, bench.pipelines._planner
    whole, _ = paint(bench, monkeypatch, WHOLE)
    pipelines.evict_idle()
    request = GenerationRequest(prompt="a boat", width=64, height=64)
    monkeypatch.setattr(planner, "_setting", setting)
    info = bench.home.library.get_model("pocket")
    plan = next(plan for plan in planner.list_plans(info, request) if plan.level != "whole")
    assert plan.level == ("turns" if setting == "auto" else "fp8")
    largest = max(planner.measure_part(info, part, WHOLE) for part in PARTS)
    assert plan.peak_bytes < sum(planner.measure_part(info, part, WHOLE) for part in PARTS) + (
        plan.denoise_bytes + plan.decode_bytes
    )
    assert plan.peak_bytes >= largest
    held: list[int] = []
    monkeypatch.setattr(
        type(pipelines.device),
        "get_memory",
        lambda device: (plan.peak_bytes, plan.peak_bytes - pipelines._cache.used_bytes),
    )
    monkeypatch.setattr(pipelines, "on_change", lambda: held.append(pipelines._cache.used_bytes))
    assert pipelines.plan_memory(request) == plan
    pixels, result = paint(bench, monkeypatch, planner.choose(info, [request]))
    assert result["notes"] == plan.notes
    assert np.array_equal(pixels, whole) == (setting == "auto")
    assert 0 < max(held) <= plan.peak_bytes
    assert pipelines.loaded[0]["bytes"] < plan.peak_bytes


# ---- the machine's own memory ---------------------------------------------------------------------------------------


def test_parts_that_wait_elsewhere_need_room_there(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = bench.pipelines._planner
    info = bench.home.library.get_model("pocket")
    monkeypatch.setattr(type(bench.pipelines.device), "shares_memory", property(lambda self: False))
    needed = planner.measure_part(info, DENOISER, WHOLE)
    monkeypatch.setattr(memory_planner, "get_free_host_bytes", lambda: needed)
    planner.make_host_room(info, DENOISER, STREAMED)
    monkeypatch.setattr(memory_planner, "get_free_host_bytes", lambda: needed - 1)
    planner.make_host_room(info, DENOISER, TURNS)  # it does not wait
    with refused(OutOfMemory):
        planner.make_host_room(info, DENOISER, STREAMED)
    monkeypatch.setattr(
        memory_planner,
        "choose_plan",
        lambda *given, **named: None,
    )
    with refused(OutOfMemory):
        planner.choose(info, [GenerationRequest()])


def test_what_is_idle_there_makes_room() -> None:
    from studio.engine.models.cache import ModelCache

    cache = ModelCache(lambda: 10**9, device=torch.device("meta"))
    with cache.lend("lent", lambda: torch.nn.Linear(8, 8)):
        for key in ("old", "new"):
            cache.get(key, lambda: torch.nn.Linear(8, 8))
        cache.get("there", lambda: torch.nn.Linear(8, 8, device="meta"))
        one = 72 * 4
        assert (cache.used_bytes, cache.idle_bytes, cache.idle_host_bytes) == (one, one, 2 * one)
        cache.evict_from_host(
            lambda: 1000 - sum(held["key"] in ("old", "new") for held in cache.list_residents()),
            999,
        )
        assert [held["key"] for held in cache.list_residents()] == ["lent", "new", "there"]
    gc.collect()
