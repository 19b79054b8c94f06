"""Memory plans on a card that is none and refuses what it has no room for (support/fake_device.py)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from studio.core.base import validate
from studio.core.generation.memory_policy import MEMORY_RAN_OUT_NOTE, MemoryPlan, MemoryState
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models import memory_planner
from studio.engine.models.memory_planner import MemoryPlanner
from studio.engine.sweeps.job import run_sweep
from studio.errors import OutOfMemory
from studio.settings import load
from studio.storage.jobs import Progress
from support import lora_makers as makers
from support.benches import open_bench
from support.fake_device import TOTAL_BYTES, Card, insert_card
from support.models import POCKET, make_toy, make_toy_z_image
from support.sentences import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SLOW = pytest.mark.slow
GIB = 2**30
# Large enough that what is computed with the embedded model is not lost among its weights.
SPEC: dict[str, Any] = {
    "prompt": "a (red:1.2) boat",
    "steps": 2,
    "seed": 3,
    "width": 128,
    "height": 128,
    "scheduler": "Euler",
    "noise_schedule": "Model default",
}
ADAPTER_KINDS = (
    "LoHa",
    "LoKr of low rank",
    "DoRA",
    "DoRA along inputs",
    "OFT, limited and rescaled",
    "(IA)³ on inputs",
    "full difference",
)
PLENTY = MemoryState(free=100 * GIB, host_free=100 * GIB, is_shared=False, stores_fp8=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("small") / "home"
    make_toy(home / "models" / "toy-sd1", "StableDiffusionPipeline", width=32)
    make_toy(home / "models" / "toy-sdxl", "StableDiffusionXLPipeline")
    make_toy_z_image(home / "models" / "toy-z")
    (home / "loras").mkdir()
    makers.kohya(home / "loras" / "both.safetensors", makers.add(makers.stock(POCKET)), 2)
    return home


@pytest.fixture(scope="module")
def inserted() -> Iterator[Card]:
    with pytest.MonkeyPatch.context() as patch, insert_card(patch) as card:
        # It takes all of a card for a moment but 1.2 GiB, which is more than these cards have.
        patch.setattr(transformers.modeling_utils, "caching_allocator_warmup", lambda *given: None)
        yield card


@pytest.fixture
def card(inserted: Card) -> Iterator[Card]:
    """An empty one, of 24 GB until a test makes it smaller."""
    yield inserted
    inserted.total_bytes = TOTAL_BYTES


def open_card(home: Path, **settings: Any) -> WorkerContext:
    settings = {"device": "cuda", "precision": "float32", "keep_free": 0, "preview_every": 1} | (
        settings
    )
    return WorkerContext.open(load(home=home, **settings))


def paint(bench: WorkerContext, **spec: Any) -> tuple[np.ndarray, dict[str, Any]]:
    result = generate(bench, SPEC | spec, lambda progress: None)
    return np.asarray(Image.open(result["pictures"][-1]["path"])), result


def leave(bench: WorkerContext, card: Card) -> None:
    """Give all back; nothing may stay on the card but what it is computed with by others."""
    bench.pipelines.evict_idle()
    bench.home.gallery.close()
    del bench
    gc.collect()


def list_plans(bench: WorkerContext, **spec: Any) -> dict[tuple[str, bool], MemoryPlan]:
    request = GenerationRequest(**SPEC | spec)
    info = bench.home.library.get_model(request.model)
    plans = bench.pipelines._planner.list_plans(info, request)
    return {("dropped" if plan.drops_parts else plan.level, plan.is_tiled): plan for plan in plans}


@pytest.fixture(scope="module")
def reference(home: Path, inserted: Card) -> np.ndarray:
    """The picture of a card with plenty."""
    bench = open_card(home)
    pixels, result = paint(bench)
    assert result["notes"] == []
    leave(bench, inserted)
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize("level", ["turns", "fp8", "whole"])
def test_a_card_that_just_holds_a_plan_paints(
    card: Card, home: Path, reference: np.ndarray, level: str
) -> None:
    """Every tensor is counted, and one byte over the card's memory raises; with a byte less the plan is a lower one."""
    bench = open_card(home)
    plan = list_plans(bench)[level, False]
    card.total_bytes = card.used_bytes + plan.peak_bytes
    assert bench.pipelines.plan_memory(GenerationRequest(**SPEC)) == plan
    pixels, result = paint(bench)
    assert result["notes"] == plan.notes
    assert np.array_equal(pixels, reference) == (level != "fp8")
    (loaded,) = bench.pipelines.loaded
    assert 0 < loaded["bytes"] <= card.used_bytes
    bench.pipelines.evict_idle()
    card.total_bytes -= 1
    with suppress(OutOfMemory):
        assert bench.pipelines.plan_memory(GenerationRequest(**SPEC)) != plan
    leave(bench, card)


@pytest.mark.slow
def test_where_nothing_can_wait_beside_the_card_parts_are_read_again(
    card: Card, home: Path, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_planner, "get_free_host_bytes", lambda: 0)
    bench = open_card(home)
    plan = list_plans(bench)["dropped", False]
    card.total_bytes = card.used_bytes + plan.peak_bytes + 2**20  # the prompts lie there too
    pixels, result = paint(bench)
    assert result["notes"] == plan.notes
    assert np.array_equal(pixels, reference)
    leave(bench, card)


@pytest.mark.slow
def test_layer_by_layer_little_of_a_model_is_ever_on_the_card(
    card: Card, home: Path, reference: np.ndarray
) -> None:
    bench = open_card(home, memory="lowest")
    size = bench.pipelines._planner.measure(
        bench.home.library.get_model("pocket"), [GenerationRequest(**SPEC)]
    )
    used = card.used_bytes
    card.peak_bytes = 0
    pixels, _ = paint(bench)
    assert np.array_equal(pixels, reference)
    assert card.peak_bytes - used < size.decode + size.denoiser // 10
    assert [resident["bytes"] for resident in bench.pipelines.loaded] == [0]
    assert bench.pipelines.unload("pocket")
    leave(bench, card)


@pytest.mark.parametrize(
    ("model", "memory"),
    [
        pytest.param(model, memory, marks=SLOW)
        for model in ("toy-sd1", "toy-sdxl", "toy-z")
        for memory in ("low", "lowest")
    ],
)
def test_every_family_under_every_plan_stays_on_the_card(
    card: Card, home: Path, model: str, memory: str
) -> None:
    """Nothing is mixed on the way, and layer by layer it is the picture of a card with plenty.

    Not of the CPU: there weights are mapped from their file, to odd addresses, and MKL sums up in
    another order.
    """
    bench = open_card(home, memory=memory)
    pixels, _ = paint(bench, model=model, width=64, height=64)
    leave(bench, card)
    roomy = open_card(home)
    plain, _ = paint(roomy, model=model, width=64, height=64)
    leave(roomy, card)
    assert np.array_equal(pixels, plain) == (memory == "lowest")


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_loras_compute_on_the_card(card: Card, home: Path, memory: str) -> None:
    """On text encoders and denoiser, wherever their weights wait; each row with a weight of its own."""
    bench = open_card(home, memory=memory)
    dressed, _ = paint(bench, loras=["both:0.6"])
    plain, _ = paint(bench)
    leave(bench, card)
    cpu = open_bench(home)
    if memory == "lowest":
        assert np.array_equal(dressed, paint(cpu, loras=["both:0.6"])[0])
    assert not np.array_equal(dressed, plain)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_every_kind_of_adapter_computes_on_the_card(card: Card, home: Path, memory: str) -> None:
    """All at once, attached after the denoiser has run: what is computed from its weights is so wherever they wait."""
    pipe = makers.stock(POCKET)
    for seed, kind in enumerate(ADAPTER_KINDS):
        makers.add_relative(home / "loras" / f"kind {seed}.safetensors", pipe, kind, seed)
    uses = [
        {"name": f"kind {seed}", "unet": 0.2, "text_encoder": 0.2}
        for seed in range(len(ADAPTER_KINDS))
    ]
    bench = open_card(home, memory=memory)
    plain, _ = paint(bench)
    dressed, _ = paint(bench, loras=uses)
    again, _ = paint(bench)
    leave(bench, card)
    assert np.array_equal(again, plain)
    assert not np.array_equal(dressed, plain)
    if memory == "lowest":
        assert np.array_equal(dressed, paint(open_bench(home), loras=uses)[0])


# ---- memory that runs out on the way --------------------------------------------------------------------------------


@pytest.fixture
def scarce_bytes(card: Card, home: Path) -> int:
    """What holds the denoiser, and beside it an autoencoder only if that comes layer by layer."""
    bench = open_card(home)
    sizes = bench.pipelines._planner.measure(
        bench.home.library.get_model("pocket"), [GenerationRequest(**SPEC)]
    )
    return card.used_bytes + sizes.denoiser + int(1.05 * sizes.decode)


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The studio takes the card for larger than it is, as when another program takes memory later."""
    monkeypatch.setattr(MemoryPlanner, "get_state", lambda self: PLENTY)


@pytest.mark.slow
def test_memory_that_runs_out_is_answered_with_the_next_plan(
    card: Card, home: Path, reference: np.ndarray, scarce_bytes: int, believed: None
) -> None:
    bench = open_card(home)
    plans = list_plans(bench)
    card.total_bytes = scarce_bytes
    pixels, result = paint(bench)
    assert np.array_equal(pixels, reference)
    assert result["notes"] == [MEMORY_RAN_OUT_NOTE, *plans["turns", False].notes]
    leave(bench, card)


@pytest.mark.slow
def test_it_is_tried_once(card: Card, home: Path, believed: None) -> None:
    bench = open_card(home)
    plans = list_plans(bench)
    card.total_bytes = card.used_bytes + plans["fp8", False].peak_bytes
    with refused(OutOfMemory):
        paint(bench)
    assert (
        bench.pipelines.plan_memory(GenerationRequest(**SPEC)).level == "whole"
    )  # nothing is held
    leave(bench, card)


@pytest.mark.slow
def test_images_that_were_ready_are_kept(
    card: Card, home: Path, reference: np.ndarray, scarce_bytes: int, believed: None
) -> None:
    """Another program takes memory after the first of two: it is not made again, and the second is the same picture."""
    bench = open_card(home)

    def report(progress: Progress) -> None:
        if progress.images:
            card.total_bytes = scarce_bytes

    first_seed = SPEC["seed"] - 1
    result = generate(bench, SPEC | {"num_images": 2, "seed": first_seed}, report)
    assert [made["seed"] for made in result["pictures"]] == [first_seed, SPEC["seed"]]
    assert MEMORY_RAN_OUT_NOTE in result["notes"]
    last = np.asarray(Image.open(result["pictures"][-1]["path"]))
    assert np.array_equal(last, reference)
    leave(bench, card)


@pytest.mark.slow
def test_a_sweep_goes_on_with_less(
    card: Card, home: Path, scarce_bytes: int, believed: None
) -> None:
    bench = open_card(home)
    card.total_bytes = scarce_bytes
    sweep = validate(
        SweepSpec,
        {"base": SPEC, "axes": [{"field": "seed", "values": [5, 6]}]},
    )
    sweep_id = bench.home.sweeps.save(sweep, "local")
    result = run_sweep(bench, {"sweep": sweep_id}, lambda progress: None)
    assert (result["made"], result["failed"]) == (2, 0)
    assert MEMORY_RAN_OUT_NOTE in result["notes"]
    leave(bench, card)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_fits_no_plan_is_refused_before_anything_is_loaded(
    card: Card, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = open_card(home)
    card.total_bytes = card.used_bytes + 2**20
    with refused(OutOfMemory):
        paint(bench)
    assert bench.pipelines.loaded == []
    card.total_bytes = card.used_bytes + 40 * 2**20
    monkeypatch.setattr(memory_planner, "get_free_host_bytes", lambda: 2**20)
    with refused(OutOfMemory):
        paint(bench)
    leave(bench, card)


@pytest.mark.slow
def test_prompts_of_a_model_that_waits_are_on_the_card(card: Card, home: Path) -> None:
    bench = open_card(home, memory="lowest")
    request = GenerationRequest(**SPEC)
    from studio.engine.models.prompt_encoding import encode_prompts

    with bench.pipelines.borrow(request) as model:
        row = encode_prompts(model, request).positives[0].get(0)
        assert row["prompt_embeds"].device.type == "cuda"
        assert isinstance(row["prompt_embeds"], torch.Tensor)
    leave(bench, card)
