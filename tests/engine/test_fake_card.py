"""Everything that is computed on a card stays there, and the program does not wait for it between two steps.

On a card that is none (support/fake_device.py): it refuses to mix devices and counts blocking copies and looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.catalog import SCHEDULERS
from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models import manager
from studio.engine.models.flow_schedulers import FLOW_SCHEDULER_SPECS
from studio.engine.models.part_placement import place_networks
from studio.engine.training import memory_probe, monitor
from studio.engine.training.trainer import Trainer
from studio.settings import load
from support.benches import open_bench
from support.fake_device import CARD, Card, CardTensor, insert_card
from support.models import make_toy_z_image
from support.trainings import make_home, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SLOW = pytest.mark.slow
STEPS = 4
BATCH_SIZE = 2  # of a training
SPEC: dict[str, Any] = {
    "model": "tiny",
    "prompt": "a (red:1.2) boat",
    "steps": STEPS,
    "seed": 3,
    "width": 64,
    "height": 64,
    "noise_schedule": "Model default",
}
# Blocking copies between two calls of the denoiser, all of diffusers' own making: noise that is drawn on the CPU, so that it
# is the same on every device, and UniPC's table of coefficients.
NOISE = "copy by diffusers' scheduler, for noise_process.step"
WAITS_PER_CALL = dict.fromkeys(
    (
        "Euler a",
        "DPM2 a",
        "DPM++ SDE",
        "DPM++ 2M SDE",
        "DPM++ 2M SDE Heun",
        "DDPM",
        "LCM",
        "TCD",
        "SA-Solver",
    ),
    1,
) | {"UniPC": 8}  # of the third order
FLOW_WAITS_PER_CALL = WAITS_PER_CALL | {"UniPC": 6}  # of the second
# A Brownian tree lies beside the card.
TREE = "copy by noise.draw_between"
# What a mask adds: diffusers' add_noise looks its noise level up on the device.
RENOISE = "copy by diffusers' scheduler, for noise_process.renoise"
MAX_RENOISE_WAITS_PER_CALL = 4


def get_noise_waits(scheduler: str) -> Counter[str]:
    """The copies of noise that a call may wait for."""
    kind = TREE if scheduler == "DPM++ SDE" else NOISE
    return Counter({kind: WAITS_PER_CALL.get(scheduler, 0)})


def quick_first(names: Iterable[str], quick: set[str]) -> list[Any]:
    """All names, those that are not quick as slow tests."""
    return [name if name in quick else pytest.param(name, marks=SLOW) for name in names]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("card") / "home")
    make_toy_z_image(home / "models" / "toy-z")
    return home


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    with pytest.MonkeyPatch.context() as patch, insert_card(patch) as card:
        yield card


@pytest.fixture(scope="module")
def bench(home: Path, card: Card) -> Iterator[WorkerContext]:
    settings = load(home=home, device="cuda", precision="float32", keep_free=0, preview_every=0)
    bench = WorkerContext.open(settings)
    yield bench
    bench.home.gallery.close()


@pytest.fixture(scope="module")
def inputs(bench: WorkerContext) -> dict[str, str]:
    """An image and a mask of its middle."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    store = bench.home.inputs
    return {"image": store.add(image).sha256, "mask": store.add_mask(mask).sha256}


def paint(bench: WorkerContext, **spec: Any) -> np.ndarray:
    made = generate(bench, SPEC | spec, lambda progress: None)["pictures"]
    return np.asarray(Image.open(made[-1]["path"]))


def copy_and_place_networks(networks: Iterable[torch.nn.Module], *rest: Any) -> None:
    """Place weights where torch allocates, as a card's are.

    Mapped from a file they lie at odd addresses, and MKL sums up in another order there: one level of one value.
    """
    networks = list(networks)
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.clone()
    place_networks(networks, *rest)


def count_between_calls(card: Card, bench: WorkerContext, **spec: Any) -> Counter[str]:
    """The most of each wait between two calls of the denoiser."""
    calls: list[Counter[str]] = []

    def note(module: torch.nn.Module, *given: Any) -> None:
        if type(module).__name__ in ("UNet2DConditionModel", "ZImageTransformer2DModel"):
            calls.append(card.waits.copy())

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        paint(bench, **spec)
    finally:
        hook.remove()
    most: Counter[str] = Counter()
    for before, after in pairwise(calls):
        most |= after - before
    return most


def test_it_refuses_what_a_card_refuses(card: Card) -> None:
    here, there = torch.ones(3), torch.ones(3, device=CARD)
    for mixed in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: here[there.long()],
        lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
        lambda: torch.randn(3, device=CARD, generator=torch.Generator()),
    ):
        with pytest.raises(RuntimeError):
            mixed()
    with pytest.raises(TypeError):
        there.numpy()
    assert (there * torch.tensor(2.0)).device == CARD  # numbers may come from anywhere
    with card.counting() as waits:
        here.to(CARD, non_blocking=True)
    assert not waits
    with card.counting() as waits:
        assert here.to(CARD).sum().item() == 3
    assert sorted(waits.values()) == [1, 1]


@pytest.mark.parametrize(
    "scheduler", quick_first(SCHEDULERS, {"Euler", "Euler a", "DPM++ 2M", "UniPC"})
)
def test_a_step_waits_for_nothing(card: Card, bench: WorkerContext, scheduler: str) -> None:
    waits = count_between_calls(card, bench, scheduler=scheduler, steps=6)
    assert waits == get_noise_waits(scheduler)


@pytest.mark.parametrize("scheduler", quick_first(SCHEDULERS, {"Euler", "DDIM"}))
def test_a_masked_step_waits_for_add_noise_alone(
    card: Card, bench: WorkerContext, inputs: dict[str, str], scheduler: str
) -> None:
    spec = {"scheduler": scheduler, "strength": 0.9, "steps": 7, **inputs}
    waits = count_between_calls(card, bench, **spec)
    assert 0 < waits.pop(RENOISE) <= MAX_RENOISE_WAITS_PER_CALL
    assert waits == get_noise_waits(scheduler)


@pytest.mark.parametrize("scheduler", quick_first(FLOW_SCHEDULER_SPECS, {"Euler"}))
def test_a_flow_stays_there(card: Card, bench: WorkerContext, scheduler: str) -> None:
    spec = {"model": "toy-z", "guidance": 3.0, "scheduler": scheduler, "steps": 6}
    paint(bench, **spec | {"steps": 2})  # the transformer makes its table of positions once
    waits = count_between_calls(card, bench, **spec)
    assert waits == Counter({NOISE: FLOW_WAITS_PER_CALL.get(scheduler, 0)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"model": "toy-sdxl", "negative_prompt": "fog"}, id="sdxl"),
        pytest.param({"num_images": 2, "batch_size": 2}, id="batch"),
        pytest.param(
            {"prompt": '("a boat", "a tree").blend(0.7, 0.3)', "clip_skip": 2},
            id="blend",
            marks=SLOW,
        ),
        pytest.param({"prompt": "boat " * 90}, id="long", marks=SLOW),
        pytest.param({"hires_scale": 1.5}, id="second pass", marks=SLOW),
        pytest.param({"hires_scale": 1.5, "hires_resize": "latent"}, id="second pass of latents"),
        pytest.param({"guidance_rescale": 0.5}, id="rescale", marks=SLOW),
        pytest.param({"image": "", "strength": 0.5}, id="img2img"),
        pytest.param(
            {"image": "", "strength": 0.5, "scheduler": "UniPC"}, id="img2img by UniPC", marks=SLOW
        ),
        pytest.param({"image": "", "extend_left": 64}, id="outpainting", marks=SLOW),
        pytest.param(
            {"image": "", "mask": "", "masked_content": "latent noise"},
            id="latent noise",
            marks=SLOW,
        ),
        pytest.param(
            {"model": "toy-z", "image": "", "mask": ""}, id="a flow with a mask", marks=SLOW
        ),
        pytest.param(
            {"model": "toy-z", "num_images": 2, "batch_size": 2}, id="a flow in a batch", marks=SLOW
        ),
    ],
)
def test_it_is_the_picture_of_the_cpu(
    bench: WorkerContext,
    inputs: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
) -> None:
    """The card computes here, so that all are bitwise equal; and nothing is mixed on the way."""
    spec = spec | {name: inputs[name] for name in inputs if name in spec}
    there = paint(bench, **spec)
    here = open_bench(bench.settings.home)
    monkeypatch.setattr(manager, "place_networks", copy_and_place_networks)
    assert np.array_equal(there, paint(here, **spec))


@pytest.mark.slow
def test_a_preview_waits_once(card: Card, bench: WorkerContext, home: Path) -> None:
    settings = load(home=home, device="cuda", precision="float32", keep_free=0, preview_every=1)
    seen = WorkerContext.open(settings)
    shown = []
    generate(seen, SPEC, lambda progress: shown.append(progress.preview))
    assert any(shown)
    with card.counting() as waits:
        generate(seen, SPEC | {"seed": 4}, lambda progress: None)
    assert waits["copy by latent_preview._to_rgb"] == STEPS - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="memory", marks=SLOW),
        pytest.param({"cache_latents": "disk"}, id="disk", marks=SLOW),
        pytest.param({"cache_latents": "off"}, id="off", marks=SLOW),
        pytest.param({"cache_latents": "off", "model": "toy-sdxl"}, id="off, sdxl"),
        pytest.param({"train_text_encoder": True, "dropout": 0.2}, id="text encoder", marks=SLOW),
        pytest.param(
            {"model": "tiny-v", "min_snr_gamma": 5.0, "noise_offset": 0.1},
            id="v and offset",
            marks=SLOW,
        ),
        pytest.param(
            {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
            id="checkpointing",
            marks=SLOW,
        ),
        pytest.param(
            {
                "validation_split": 0.25,
                "validate_every": 2,
                "sample_prompts": "a boat",
                "sample_every": 2,
            },
            id="validation and samples",
        ),
    ],
)
def test_a_training_stays_there(
    card: Card, bench: WorkerContext, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    steps: list[Counter[str]] = []
    step = Trainer.step

    def counted(trainer: Trainer, *given: Any) -> None:
        assert all(isinstance(weight, CardTensor) for weight in trainer.parameters)
        with card.counting() as waits:
            step(trainer, *given)
        steps.append(waits)

    monkeypatch.setattr(Trainer, "step", counted)
    monkeypatch.setattr(monitor, "GenerationRequest", partial(GenerationRequest, steps=2))
    monkeypatch.setattr(memory_probe, "MAX_TIMED_STEPS", 1)
    values = {"steps": 2, "precision": "float32", "train_batch_size": BATCH_SIZE} | config
    trained(bench, **values)
    assert len(steps) == 2
    # Where nothing is cached a picture is brought there, and two looks tell whether it came to numbers.
    encodes = config.get("cache_latents") == "off"
    assert steps[-1].total() == (3 * BATCH_SIZE if encodes else 0)
