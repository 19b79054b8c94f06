"""What only a card can tell, in under eight minutes and without a network; a line as each part ends, and on after a failure.

Random weights in the sizes of SD 1.5, SDXL and Z-Image (tests/bench/shapes.py). With --toy everything runs at toy size on the CPU,
where memory that does not suffice and a lost device are only raised: so that the script itself is known to run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 7.5 * 60  # after which no further part begins
GIB = 2**30
BATCH_SIZE = 8  # of the batch that shall not fit
# What the child with the lost device does: the worker's own class, a job that breaks the device, and then how it ends.
LOSE_DEVICE = """
import sys, torch
from pathlib import Path
from studio.engine.worker import _Worker
from studio.settings import load
from studio.storage.jobs import Jobs

def lose(context, spec, report):
    if sys.argv[2] == "cpu":
        raise RuntimeError("CUDA error: device-side assert triggered")
    torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")].sum().item()

settings = load(home=Path(sys.argv[1]), device=sys.argv[2], keep_free=0)
jobs = Jobs(settings.home / "jobs.sqlite")
worker = _Worker("cpu", jobs, settings)
worker._job_functions["unload"] = lose
jobs.submit("unload", {})
job = jobs.claim("cpu")
worker.run_job(job)
print(jobs.get(job.id).state, "healthy" if worker.is_healthy else "lost")
"""


@dataclass(frozen=True)
class Shape:
    """A model of the bench, and how it is painted with."""

    name: str
    side: int
    steps: int
    guidance: float
    precision: str


SHAPES = (
    Shape("sd15", 512, 20, 7.0, "float16"),
    Shape("sdxl", 1024, 20, 7.0, "float16"),
    Shape("z-image", 1024, 8, 1.0, "bfloat16"),
)
TOYS = (
    Shape("sd15", 128, 3, 7.0, "float32"),
    Shape("sdxl", 64, 3, 7.0, "float32"),
    Shape("z-image", 64, 3, 1.0, "float32"),
)


def gpu(flags: argparse.Namespace) -> None:
    """Run every part; the first line names the device, the last counts those that failed."""
    from studio.engine.worker import set_allocator

    set_allocator()
    import torch

    from studio.engine.models import devices

    name = "cpu" if flags.toy else devices.resolve_name("auto")
    if name == "cpu" and not flags.toy:
        print("gpu: there is no card here; --toy runs everything at toy size on the CPU")
        return
    device = devices.resolve(name)
    print(f"gpu: {device.title}, torch {torch.__version__}{_describe_card(device)}", flush=True)
    began, failed = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        bench = _Bench(Path(place), name, flags.toy, stack)
        for part in bench.list_parts():
            title = part.__name__.strip("_").replace("_", " ")
            if time.perf_counter() - began > MAX_SECONDS:
                print(f"  left out  {title}", flush=True)
                continue
            start = time.perf_counter()
            try:
                told = part()
                print(f"  {time.perf_counter() - start:5.1f} s  {title}: {told}", flush=True)
            except Exception as error:
                failed.append(title)
                print(f"  FAILED   {title}: {type(error).__name__}: {error!s:.300}", flush=True)
                traceback.print_exc()
            bench.release()
    print(f"gpu: {time.perf_counter() - began:.0f} s, failed: {', '.join(failed) or 'none'}")
    if failed and flags.toy:
        sys.exit(1)


def _describe_card(device: Any) -> str:
    import torch

    total, free = device.get_memory()
    text = f", {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if device.kind == "cuda":
        capability = torch.cuda.get_device_capability(device.torch_device)
        text += f", capability {'.'.join(map(str, capability))}, CUDA {torch.version.cuda}"
    return text


class _Bench:
    """The models, a context for each precision, and what is measured with them."""

    def __init__(self, home: Path, device: str, toy: bool, stack: ExitStack) -> None:
        from tests.bench import shapes

        self.home, self.device, self.toy = home, device, toy
        self.shapes = TOYS if toy else SHAPES
        self.contexts: dict[tuple[str, int], Any] = {}
        self.seeds = itertools.count(1)
        if not toy:
            stack.enter_context(shapes.random_weights())

    def list_parts(self) -> list[Callable[[], str]]:
        first, *others = self.shapes
        precisions = ("float32",) if self.toy else ("bfloat16", "float16", "float32")
        return [
            self._models,
            self._name(self._image, first),
            self._waits_for_the_device,
            self._previews,
            self._gpu_tests,
            self._lost_device,
            self._memory_for_fewer_at_once,
            self._memory_for_none,
            self._memory_for_tiles_alone,
            *[self._name(self._training, precision) for precision in precisions],
            self._sweep_of_guidance,
            self._lora_switching,
            self._sweep_of_lora_weights,
            *[self._name(self._image, shape) for shape in others],
            *[self._name(self._memory_settings, shape) for shape in self.shapes],
        ]

    @staticmethod
    def _name(part: Callable[[Any], str], value: Any) -> Callable[[], str]:
        def named() -> str:
            return part(value)

        named.__name__ = f"{part.__name__} {getattr(value, 'name', value)}"
        return named

    def context(self, precision: str, preview_every: int = 0) -> Any:
        from studio.engine.context import WorkerContext
        from studio.settings import load

        key = precision, preview_every
        if key not in self.contexts:
            settings = load(
                home=self.home,
                device=self.device,
                precision=precision,
                keep_free=0,
                preview_every=preview_every,
            )
            self.contexts[key] = WorkerContext.open(settings)
        return self.contexts[key]

    def release(self) -> None:
        """Give all memory back: each part begins with an empty card."""
        import gc

        for context in self.contexts.values():
            for shape in self.shapes:
                context.pipelines.unload(shape.name)
            context.pipelines._cache.clear()
        self.contexts.clear()
        gc.collect()
        if self._on_cuda:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    # ---- what is painted ------------------------------------------------------------------------

    def _models(self) -> str:
        """Write the folders, and LoRAs for SD 1.5."""
        from tests.bench import shapes
        from tests.support.models import POCKET, make_toy, make_toy_z_image

        models = self.home / "models"
        models.mkdir(exist_ok=True)
        (self.home / "loras").mkdir(exist_ok=True)
        if self.toy:
            make_toy(models / "sd15", "StableDiffusionPipeline", 32, "epsilon")
            make_toy(models / "sdxl", "StableDiffusionXLPipeline")
            make_toy_z_image(models / "z-image")
        else:
            make_toy_z_image(self.home / "toy")
            shapes.make_sd15(models / "sd15", POCKET)
            shapes.make_sdxl(models / "sdxl", POCKET)
            shapes.make_z_image(models / "z-image", self.home / "toy")
        shapes.write_lora(self.home / "loras" / "bench.safetensors", models / "sd15")
        library = self.context("float32").home.library
        sizes = [library.get_model(shape.name).size_bytes / GIB for shape in self.shapes]
        return ", ".join(f"{shape.name} {size:.1f} GiB" for shape, size in zip(self.shapes, sizes))

    def paint(self, context: Any, shape: Shape, **spec: Any) -> dict[str, Any]:
        from studio.engine.generation.job import generate

        values = {
            "model": shape.name,
            "prompt": "a red boat by a lake",
            "steps": shape.steps,
            "guidance": shape.guidance,
            "width": shape.side,
            "height": shape.side,
            "scheduler": "Euler",
            "noise_schedule": "Model default",
            "seed": next(self.seeds),
        }
        return generate(context, values | spec, lambda progress: None)

    def _image(self, shape: Shape) -> str:
        """Two images: loading and the first, then the second; predicted and measured memory."""
        from studio.core.generation.request import GenerationRequest

        context = self.context(shape.precision)
        start = time.perf_counter()
        self.paint(context, shape)
        first = time.perf_counter() - start
        start = time.perf_counter()
        self.paint(context, shape)
        seconds = time.perf_counter() - start
        info = context.home.library.get_model(shape.name)
        request = GenerationRequest(model=shape.name, width=shape.side, height=shape.side)
        predicted = context.pipelines._planner.list_plans(info, request)[0].peak_bytes
        return (
            f"{shape.side}² in {shape.precision}, {shape.steps} steps: {seconds:.2f} s (the first, with "
            f"loading, {first:.1f} s); predicted {predicted / GIB:.2f} GiB, peak {self._peak()}"
        )

    def _memory_settings(self, shape: Shape) -> str:
        """The second image under each plan that saves memory: seconds, predicted and measured memory."""
        from studio.core.generation.request import GenerationRequest

        request = GenerationRequest(model=shape.name, width=shape.side, height=shape.side)
        texts = []
        levels = ("turns", "fp8", "streamed") if self._on_cuda else ("turns",)
        for level in levels:
            self.release()
            context = self.context(shape.precision)
            planner = context.pipelines._planner
            plans = planner.list_plans(context.home.library.get_model(shape.name), request)
            plan = next(plan for plan in plans if plan.level == level)
            planner.choose = lambda info, requests, plan=plan: plan
            self.paint(context, shape)
            start = time.perf_counter()
            self.paint(context, shape)
            texts.append(
                f"{plan.title}: {time.perf_counter() - start:.2f} s, predicted "
                f"{plan.peak_bytes / GIB:.2f} GiB, peak {self._peak()}"
            )
        return "; ".join(texts)

    def _waits_for_the_device(self) -> str:
        """Count torch's warnings of waits in two runs; the difference belongs to the steps."""
        shape, counts = self.shapes[0], []
        context = self.context(shape.precision)
        self.paint(context, shape)
        for steps in (4, 12):
            with self._sync_warnings() as waits:
                self.paint(context, shape, steps=steps)
            counts.append(len(waits))
        return f"{(counts[1] - counts[0]) / 8:.2f} a step, {counts[0]} in an image of 4 steps"

    @contextmanager
    def _sync_warnings(self) -> Iterator[list[Any]]:
        import torch

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            waits: list[Any] = []
            if self._on_cuda:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield waits
            finally:
                if self._on_cuda:
                    torch.cuda.set_sync_debug_mode("default")
                waits += [one for one in caught if "synchroniz" in str(one.message)]

    def _previews(self) -> str:
        shape, seconds = self.shapes[0], []
        for preview_every in (0, 3):
            context = self.context(shape.precision, preview_every)
            self.paint(context, shape)
            start = time.perf_counter()
            for _ in range(3):
                self.paint(context, shape)
            seconds.append((time.perf_counter() - start) / 3)
        return f"{seconds[0]:.2f} s without, {seconds[1]:.2f} s with: {seconds[1] / seconds[0]:.3f}"

    # ---- sweeps and LoRAs -----------------------------------------------------------------------

    def _sweep(self, axis: dict[str, Any], prompt: str) -> str:
        from studio.core.base import validate
        from studio.core.sweeps.spec import SweepSpec
        from studio.engine.sweeps.job import run_sweep

        shape = self.shapes[0]
        context = self.context(shape.precision)
        self.paint(context, shape)
        told = {}
        for fast in (False, True):
            base = {
                "model": shape.name,
                "prompt": prompt,
                "steps": shape.steps,
                "width": shape.side,
                "height": shape.side,
                "seed": next(self.seeds),
            }
            spec = validate(SweepSpec, {"base": base, "axes": [axis], "fast": fast, "title": ""})
            sweep_id = context.home.sweeps.save(spec, "bench")
            result = run_sweep(context, {"sweep": sweep_id}, lambda progress: None)
            if result["failed"]:
                results = context.home.sweeps.load_cell_results(sweep_id)
                raise RuntimeError(next(cell.error for cell in results.values() if cell.error))
            told[fast] = result["seconds"], result["calls"]
        (exact, exact_calls), (fast_seconds, fast_calls) = told[False], told[True]
        return (
            f"8 cells exact {exact:.2f} s ({exact_calls} calls), fast {fast_seconds:.2f} s "
            f"({fast_calls} calls): {exact / fast_seconds:.2f} times as fast"
        )

    def _sweep_of_guidance(self) -> str:
        return self._sweep({"field": "guidance", "values": [2 + k for k in range(8)]}, "a boat")

    def _sweep_of_lora_weights(self) -> str:
        axis = {"field": "lora_weight", "values": [k / 8 for k in range(1, 9)], "lora": "bench"}
        return self._sweep(axis, "a boat")

    def _lora_switching(self) -> str:
        """Seconds to attach, milliseconds to change the weight, and of a call without and with."""
        import torch

        from studio.core.generation.request import GenerationRequest
        from studio.engine.models.adapters import lora

        shape = self.shapes[0]
        context = self.context(shape.precision)
        self.paint(context, shape)
        start = time.perf_counter()
        self.paint(context, shape, prompt="a boat <lora:bench:1>")
        first = time.perf_counter() - start
        seconds = []
        for prompt in ("a boat", "a boat <lora:bench:0.5>"):
            self.paint(context, shape, prompt=prompt)
            start = time.perf_counter()
            self.paint(context, shape, prompt=prompt)
            seconds.append(time.perf_counter() - start)
        weights = [round(0.05 * k, 2) for k in range(1, 21)]
        requests = [
            GenerationRequest(model=shape.name, prompt=f"a boat <lora:bench:{weight}>")
            for weight in weights
        ]
        with context.pipelines.borrow(*requests) as model, torch.inference_mode():
            start = time.perf_counter()
            for request in requests:
                lora.set_adapters(model, lora.select_adapters(model, request))
            switching = (time.perf_counter() - start) / len(requests)
            lora.set_adapters(model, lora.select_adapters(model, requests[0]))
        return (
            f"image {seconds[0]:.2f} s without, {seconds[1]:.2f} s with; the first with, attached, "
            f"{first:.2f} s; a weight {switching * 1000:.1f} ms"
        )

    # ---- training -------------------------------------------------------------------------------

    def _training(self, precision: str) -> str:
        """A run of a few steps on the shipped Moon; predicted and measured memory."""
        from studio.core.base import validate
        from studio.core.training.config import TrainingConfig
        from studio.engine.training.job import train

        shape = self.shapes[0]
        context = self.context(shape.precision)
        steps = 2 if self.toy else 12
        config = {
            "dataset": "moon",
            "name": f"bench-{precision}",
            "model": shape.name,
            "steps": steps,
            "rank": 16,
            "resolution": shape.side,
            "train_batch_size": 1,
            "targets": "attention",
            "precision": precision,
            "seed": 7,
        }
        run_id = context.home.runs.add(validate(TrainingConfig, config), "bench")
        train(context, {"run": run_id}, lambda progress: None)
        cost = context.home.runs.get(run_id).start_info["cost"]
        rows = [row for row in context.home.runs.read_log(run_id, 0) if "loss" in row]
        losses = [row["loss"] for row in rows]
        if len(losses) != steps or not all(abs(loss) < float("inf") for loss in losses):
            raise RuntimeError(f"losses {losses}")
        predicted = (cost["model"] + cost["working"]) / GIB
        return (
            f"{cost['seconds'] * 1000:.0f} ms a forward and backward pass, loss {losses[0]:.3f} to "
            f"{losses[-1]:.3f}; predicted {predicted:.2f} GiB, peak {self._peak()}"
        )

    # ---- memory that does not suffice -----------------------------------------------------------

    def _memory_for_fewer_at_once(self) -> str:
        shape = self.shapes[0]
        context = self.context(shape.precision)
        sizes: list[int] = []
        one, many = self._peak_of(1), self._peak_of(BATCH_SIZE)
        spec = {"num_images": BATCH_SIZE, "batch_size": BATCH_SIZE}
        with self._limit((one + many) // 2, max_rows=6), self._watch_rows(sizes):
            made = self.paint(context, shape, **spec)
        if len(made["pictures"]) != BATCH_SIZE or max(sizes) == min(sizes):
            raise RuntimeError(f"{len(made['pictures'])} pictures, rows {sizes}")
        return f"{BATCH_SIZE} pictures, of {max(sizes)} rows then {min(sizes)} at once"

    def _memory_for_none(self) -> str:
        from studio.errors import OutOfMemory

        shape = self.shapes[0]
        context = self.context(shape.precision)
        one, held = self._peak_of(1), self._allocated()
        try:
            with self._limit(held + (one - held) // 8, max_rows=1):
                self.paint(context, shape)
        except OutOfMemory as error:
            self.paint(context, shape)
            return f"{error} The next picture came."
        raise RuntimeError("it came to a picture")

    def _memory_for_tiles_alone(self) -> str:
        shape = self.shapes[0]
        context = self.context(shape.precision)
        one = self._peak_of(1)
        whole = max(one, self._peak_bytes(lambda: self.paint(context, shape)))
        with self._limit((one + whole) // 2, max_latent_side=shape.side // 16):
            made = self.paint(context, shape)
        if not made["notes"]:
            raise RuntimeError("no note of tiles")
        return str(made["notes"][0])

    def _peak_of(self, batch_size: int) -> int:
        """Return the most bytes that are held while images are denoised, without decoding them."""
        from studio.core.generation.request import GenerationRequest
        from studio.engine.generation.batcher import Batcher
        from studio.engine.generation.trajectory import Trajectory
        from studio.engine.models.prompt_encoding import encode_prompts

        shape = self.shapes[0]
        context = self.context(shape.precision)
        request = GenerationRequest(
            model=shape.name, prompt="a boat", steps=2, width=shape.side, height=shape.side, seed=1
        ).resolve(shape.side, 0)
        self.paint(context, shape, steps=1)  # everything is loaded

        def denoise() -> None:
            with context.pipelines.borrow(request) as model:
                prompts = encode_prompts(model, request)
                batch = [Trajectory(model, request, prompts) for _ in range(batch_size)]
                list(Batcher(model, batch_size).denoise(batch))

        return self._peak_bytes(denoise)

    def _peak_bytes(self, act: Callable[[], Any]) -> int:
        if not self._on_cuda:
            act()
            return 0
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        act()
        return int(torch.cuda.max_memory_reserved())

    @contextmanager
    def _limit(
        self, most_bytes: int, max_rows: int | None = None, max_latent_side: int | None = None
    ) -> Iterator[None]:
        """Let torch have so many bytes; where there is no card, raise beyond so many rows or latents."""
        import torch
        from diffusers import UNet2DConditionModel
        from diffusers.models.autoencoders.vae import Decoder

        if self._on_cuda:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(most_bytes / total)
            try:
                yield
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            return

        def limited(module: type, is_too_much: Callable[[torch.Tensor], bool]) -> Any:
            forward: Any = module.forward  # type: ignore[attr-defined]

            def call(network: Any, sample: torch.Tensor, *given: Any, **named: Any) -> Any:
                if is_too_much(sample):
                    raise torch.OutOfMemoryError("too much")
                return forward(network, sample, *given, **named)

            return patch.object(module, "forward", call)

        rows, side = max_rows or 1000, max_latent_side or 1000
        with (
            limited(UNet2DConditionModel, lambda sample: len(sample) > rows),
            limited(Decoder, lambda sample: max(sample.shape[2:]) > side),
        ):
            yield

    @contextmanager
    def _watch_rows(self, sizes: list[int]) -> Iterator[None]:
        """Note the rows of every call of the denoiser that succeeds or fails."""
        from studio.engine.models.loaded_model import LoadedModel

        predict = LoadedModel.predict

        def watched(model: Any, latents: Any, *given: Any) -> Any:
            sizes.append(len(latents))
            return predict(model, latents, *given)

        with patch.object(LoadedModel, "predict", watched):
            yield

    @property
    def _on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def _allocated(self) -> int:
        if not self._on_cuda:
            return 0
        import torch

        return int(torch.cuda.memory_allocated())

    def _peak(self) -> str:
        if not self._on_cuda:
            return "unknown"
        import torch

        return f"{torch.cuda.max_memory_allocated() / GIB:.2f} GiB"

    # ---- other processes ------------------------------------------------------------------------

    def _lost_device(self) -> str:
        command = [sys.executable, "-c", LOSE_DEVICE, str(self.home / "lost"), self.device]
        told = self._run(command, 60).stdout.strip()
        if told != "failed lost":
            raise RuntimeError(f"the worker says {told!r}")
        return "its job fails, and the worker leaves"

    def _gpu_tests(self) -> str:
        flags = ["-m", "gpu", "-n", "0"]
        command = [sys.executable, "-m", "pytest", "tests/engine/test_gpu.py", *flags]
        done = self._run(command, 120)
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-1000:])
        return done.stdout.strip().splitlines()[-1]

    @staticmethod
    def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
