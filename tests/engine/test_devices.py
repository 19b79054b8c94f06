"""What a device is, what its errors mean, and what is done when it is full, lost or of no use; no GPU is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models import devices
from studio.engine.models.devices import Device, is_device_lost, is_out_of_memory
from studio.engine.training import lora_network, monitor
from studio.engine.training.job import train
from studio.engine.worker import _Worker, main, set_allocator
from studio.errors import InvalidSpec, OutOfMemory, StudioError
from studio.services import supervisor
from studio.settings import Settings, load
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock
from support.benches import open_bench
from support.sentences import refused
from support.trainings import add, hasten, make_home, silent

QUICK: dict[str, Any] = {"prompt": "a boat", "steps": 2, "width": 64, "height": 64, "seed": 1}
CUDA = torch.device("cuda", 0)
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("HIP error: the operation cannot be performed in the present state"),
    RuntimeError("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)"),
]
BUGS = [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory"), KeyError("x")]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two cards that compute nothing; what is set on them stands in the result."""
    told: dict[str, Any] = {"name": "NVIDIA RTX 9000", "capability": (12, 0)}
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "set_device": lambda device: told.update(device=device),
        "get_device_name": lambda device: told["name"],
        "get_device_capability": lambda device: told["capability"],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(*shape))
    return told


# ---- which device ---------------------------------------------------------------------------------------------------


def test_several_settings_mean_one_card(card: dict[str, Any]) -> None:
    assert {devices.resolve_name(name) for name in ("auto", "cuda", "cuda:0")} == {"cuda:0"}
    assert devices.resolve_name("cuda:1") == "cuda:1"
    assert devices.resolve_name("cpu") == "cpu"
    with refused(InvalidSpec):
        devices.resolve_name("cuda:2")


def test_the_chosen_card_is_the_one_that_torch_means(card: dict[str, Any]) -> None:
    assert devices.resolve("cuda:1").torch_device == torch.device("cuda", 1)
    assert card["device"] == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "capability"), [("NVIDIA GeForce GTX 1080", (6, 1)), ("NVIDIA B300", (10, 3))]
)
def test_a_card_without_kernels_says_which_wheel_has_them(
    card: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    capability: tuple[int, int],
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution")

    card.update(name=name, capability=capability)
    monkeypatch.setattr(torch, "ones", fail)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    with refused(InvalidSpec) as told:
        devices.resolve("cuda")
    assert ("cu126" in str(told.value)) == (capability < (7, 5))


@pytest.mark.parametrize("error", [FULL[1], LOST[0]])
def test_a_card_that_is_full_at_the_start_is_kept_and_a_broken_one_said(
    card: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    if is_out_of_memory(error):
        assert devices.resolve("cuda").kind == "cuda"
        return
    with refused(InvalidSpec):
        devices.resolve("cuda")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("NVIDIA GeForce GTX 1660 Ti", torch.float32), ("NVIDIA GeForce RTX 3090", torch.float16)],
)
def test_cards_whose_float16_breaks_take_float32(
    card: dict[str, Any], name: str, dtype: torch.dtype
) -> None:
    card["name"] = name
    assert devices.resolve("cuda").dtype == dtype


def test_what_is_trained_from_is_encoded_in_float32() -> None:
    config = validate(TrainingConfig, {"dataset": "moon", "name": "a", "precision": "bfloat16"})
    cpu = torch.device("cpu")
    device = lora_network.select_device(config, Device(cpu, torch.float32))
    assert (device.dtype, device.vae_dtype) == (torch.bfloat16, torch.float32)
    assert Device(cpu, torch.bfloat16).vae_dtype == torch.bfloat16


def test_a_driver_that_cannot_say_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intel's integrated GPUs."""

    def refuse(device: Any) -> Any:
        raise RuntimeError("The device doesn't support querying the available free memory.")

    class Properties:
        total_memory = 1000

    monkeypatch.setattr(torch.xpu, "mem_get_info", refuse)
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.xpu, "memory_allocated", lambda device: 200)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: Properties)
    assert Device(torch.device("xpu", 0), torch.bfloat16).get_memory() == (1000, 800)


@pytest.mark.parametrize(("kind", "waits"), [("cuda", False), ("mps", True), ("xpu", True)])
def test_only_cuda_has_read_a_tensor_when_the_copy_returns(kind: str, waits: bool) -> None:
    class Source:
        def to(self, device: torch.device, non_blocking: bool) -> bool:
            return not non_blocking

    source: Any = Source()
    assert devices.copy_to(torch.device(kind), source) is waits


def test_only_trainings_on_cuda_multiply_in_tf32() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with devices.fast_float32(torch.device("cpu")):
        assert torch.backends.cuda.matmul.allow_tf32 == before
    with devices.fast_float32(CUDA):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before


# ---- what an error means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [*FULL, *LOST, *BUGS], ids=lambda error: str(error)[:40])
def test_errors_are_told_apart(error: Exception) -> None:
    assert is_out_of_memory(error) == (error in FULL)
    assert is_device_lost(error) == (error in LOST)


def test_a_lost_device_is_seen_behind_another_error() -> None:
    def fail() -> None:
        try:
            raise LOST[0]
        finally:
            raise StudioError("The picture broke.")

    with pytest.raises(StudioError) as told:
        fail()
    assert is_device_lost(told.value)
    assert not is_device_lost(None)


# ---- the worker -----------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(settings: Settings) -> _Worker:
    return _Worker("cpu", Jobs(settings.home / "jobs.sqlite"), settings)


def run(worker: _Worker, error: Exception) -> None:
    def fail(*given: Any) -> Any:
        raise error

    worker._job_functions["unload"] = fail
    worker._jobs.submit("unload", {})
    job = worker._jobs.claim("cpu")
    assert job
    worker.run_job(job)


def test_a_lost_device_stays_lost(worker: _Worker) -> None:
    run(worker, BUGS[0])
    assert worker.is_healthy
    run(worker, LOST[2])
    assert not worker.is_healthy
    run(worker, BUGS[0])  # the training's own error, after that of a picture in between
    assert not worker.is_healthy


def test_a_lost_device_that_cannot_be_asked_ends_the_worker_in_good_order(
    worker: _Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: Device) -> Any:
        raise LOST[0]

    monkeypatch.setattr(Device, "get_memory", fail)
    worker.publish_status()
    assert not worker.is_healthy


@pytest.mark.slow
def test_a_second_name_for_a_card_makes_no_second_worker(settings: Settings) -> None:
    """One waits while the other lives, and leaves if no studio needs it."""
    card = Lock(settings.home, "card-cpu")
    assert card.acquire()
    assert main(load(home=settings.home, device="auto", keep_free=0)) == 0


def test_the_allocator_is_set_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    environment = devices_environment()
    assert "PYTORCH_ALLOC_CONF" not in environment
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    assert devices_environment()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def devices_environment() -> dict[str, str]:
    import os

    set_allocator()
    return dict(os.environ)


def test_ctrl_c_does_not_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supervisor._build_detaching_flags() == {"start_new_session": True}
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert supervisor._build_detaching_flags() == {"creationflags": 512}


# ---- memory that does not suffice -----------------------------------------------------------------------------------


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`little_memory(side)`: the autoencoder takes no latents, and no pixels, beyond those of that side."""

    def limit(side: int) -> None:
        decode, encode = (
            diffusers.models.autoencoders.vae.Decoder,
            diffusers.models.autoencoders.vae.Encoder,
        )
        for module, most in ((decode, side), (encode, side * 8)):
            forward = module.forward

            def limited(
                self: Any,
                sample: torch.Tensor,
                *given: Any,
                forward: Any = forward,
                most: int = most,
            ) -> Any:
                if max(sample.shape[2:]) > most:
                    raise RuntimeError("MPS backend out of memory")
                return forward(self, sample, *given)

            monkeypatch.setattr(module, "forward", limited)

    return limit


@pytest.mark.slow
def test_decoding_that_does_not_fit_goes_on_in_tiles_and_says_so(
    settings: Settings, little_memory: Callable[[int], None]
) -> None:
    bench = open_bench(settings.home)
    spec = QUICK | {"width": 128, "height": 128, "steps": 8}
    whole = generate(bench, spec, silent)
    little_memory(8)
    tiled = generate(bench, spec, silent)
    before, after = (
        np.asarray(Image.open(made["pictures"][0]["path"]), float) for made in (whole, tiled)
    )
    assert 0 < np.abs(before - after).mean() < 6
    assert whole["notes"] == []
    assert "in tiles" in tiled["notes"][0]
    saved = bench.home.gallery.get(tiled["pictures"][0]["path"])
    assert saved
    assert saved.content_hashes["autoencoder"] == "in tiles"
    with bench.pipelines.borrow(GenerationRequest()) as model:
        assert not model.vae.use_tiling
        assert model.vae.tile_sample_min_size == model.vae.config.sample_size
        pixels = torch.rand(1, 3, 128, 128) * 2 - 1
        latents = model.encode(pixels, torch.Generator().manual_seed(1))
        assert latents.shape == model.latent_shape(128, 128)


@pytest.mark.slow
def test_what_does_not_fit_in_tiles_either_says_what_to_lower(
    settings: Settings, little_memory: Callable[[int], None]
) -> None:
    bench = open_bench(settings.home)
    little_memory(2)
    with refused(OutOfMemory):
        generate(bench, QUICK | {"width": 128, "height": 128}, silent)
    with bench.pipelines.borrow(GenerationRequest()) as model:
        assert not model.vae.use_tiling


@pytest.mark.slow
def test_the_memory_of_decoding_is_reckoned_with(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = bench.home.library.get_model("pocket")
    with bench.pipelines.borrow(GenerationRequest()) as model:
        channels = model.vae.config.block_out_channels
    assert info.decode_elements_per_pixel == 4 * channels[1] + 3
    request = GenerationRequest(width=64, height=64)
    activations = 2 * info.activation_elements_per_pixel * 64 * 64 * 4
    weights = 2 * info.size_bytes  # the files are in float16
    needed = weights + activations + bench.pipelines.estimate_decode_bytes(info, 64 * 64)
    monkeypatch.setattr(type(bench.pipelines), "loaded", property(lambda self: []))
    for missing in (0, 1):
        free = property(lambda self, missing=missing: needed - missing)
        monkeypatch.setattr(type(bench.pipelines), "free_bytes", free)
        assert bench.pipelines.can_run_concurrently(request, 0) == (not missing)


@pytest.mark.slow
def test_samples_that_do_not_fit_are_left_out_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> Any:
        raise RuntimeError("MPS backend out of memory")

    bench = open_bench(make_home(tmp_path / "home"))
    hasten(monkeypatch)
    monkeypatch.setattr(monitor, "GenerationRequest", partial(GenerationRequest, steps=2))
    monkeypatch.setattr(monitor, "decode_latents", full)
    run_id = add(bench, steps=2, sample_prompts="a boat", sample_every=2)
    result = train(bench, {"run": run_id}, silent)
    assert result["steps"] == 2
    assert [note for note in result["notes"] if "step 0" in note or "step 2" in note]
    assert not list((bench.home.runs.get(run_id).folder / "samples").glob("*.png"))  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_training_in_bfloat16_paints_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its LoRA is float32, the model it paints with is not, and no autocast is on."""
    bench = open_bench(make_home(tmp_path / "home"))
    hasten(monkeypatch)
    monkeypatch.setattr(monitor, "GenerationRequest", partial(GenerationRequest, steps=2))
    values = {"precision": "bfloat16", "sample_prompts": "a boat", "sample_every": 2}
    run_id = add(bench, steps=2, **values)
    assert train(bench, {"run": run_id}, silent)["steps"] == 2
    run = bench.home.runs.get(run_id)
    assert run
    assert len(list((run.folder / "samples").glob("*.png"))) == 2
