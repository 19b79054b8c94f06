"""Grids against a loop of stock diffusers calls, both warm, in turns: exact, fast, and the bare forwards they cannot be below.

Every run has seeds of its own, so that nothing is taken from the gallery. The stock loop encodes each prompt once, builds its
schedulers as the documentation says and switches LoRAs by `set_adapters`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

PROMPT, NEGATIVE = "a red boat by a lake", "fog"
SCHEDULERS = {
    "Euler": "EulerDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "Euler a": "EulerAncestralDiscreteScheduler",
    "Heun": "HeunDiscreteScheduler",
    "LMS": "LMSDiscreteScheduler",
    "DEIS": "DEISMultistepScheduler",
}
WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)


def cases(cells: int) -> dict[str, list[dict[str, Any]]]:
    """What varies in each, for so many cells; longer ones go on with other seeds."""
    k = range(cells)
    names = list(SCHEDULERS)
    return {
        "schedulers": [{"scheduler": names[n % 8]} for n in k],
        "guidance": [{"guidance": 2.0 + n % 8} for n in k],
        "steps": [{"steps": 8 + 2 * (n % 8)} for n in k],
        "LoRA weight": [{"weight": WEIGHTS[n % 8]} for n in k],
        "mixed": [
            {
                "scheduler": names[n % 8],
                "steps": (8, 12, 10, 9, 7, 6, 15, 11)[n % 8],
                "weight": WEIGHTS[n * 3 % 8],
                "guidance": (3.0, 5.0, 7.5, 9.0, 4.0, 6.0, 1.0, 1.0)[n % 8],
            }
            for n in k
        ],
    }


def sweeps(flags: argparse.Namespace) -> None:
    """Print, for each case and size, seconds of the loop and of ours, their ratio, rows, and what is beside the bare forwards."""
    import torch

    with tempfile.TemporaryDirectory() as place:
        side = _Side(Path(place), flags)
        print(
            f"{side.title}, {torch.get_num_threads()} threads, {flags.precision}, {side.info.native_size} px, {flags.runs} runs"
        )
        for cells in flags.cells:
            for name, wanted in cases(cells).items():
                if flags.case in (None, name):
                    side.measure(f"{name}, {cells} cell{'s' * (cells > 1)}", wanted, flags.runs)


class _Side:
    """Both sides, loaded once, and a LoRA that both know."""

    def __init__(self, home: Path, flags: argparse.Namespace) -> None:
        import diffusers

        from studio.engine.context import WorkerContext
        from studio.settings import load
        from studio.storage.models.library import Library
        from tests.support import lora_makers

        settings = load(
            home=home, device=flags.device, precision=flags.precision, keep_free=0, preview_every=0
        )
        self.info = Library(settings).get_model(flags.model)
        lora_makers.kohya(
            settings.loras / "moon.safetensors",
            lora_makers.add(lora_makers.stock(self.info.path)),
            2,
        )
        self.bench, self._seeds = WorkerContext.open(settings), count(1000)
        device = self.bench.pipelines.device
        self.title, self._where = device.title, device.torch_device
        self.stock: Any = diffusers.DiffusionPipeline.from_pretrained(
            self.info.path, dtype=device.dtype
        ).to(device.torch_device)
        self.stock.vae.to(device.vae_dtype)
        self.stock.set_progress_bar_config(disable=True)
        self.stock.load_lora_weights(
            settings.loras, weight_name="moon.safetensors", adapter_name="moon"
        )
        self._shipped, self._home = dict(self.stock.scheduler.config), home
        self.stock.disable_lora()
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        self._told = dict(
            zip(
                names,
                self.stock.encode_prompt(
                    PROMPT,
                    device=device.torch_device,
                    num_images_per_prompt=1,
                    do_classifier_free_guidance=True,
                    negative_prompt=NEGATIVE,
                ),
            )
        )

    def loop(self, cells: list[dict[str, Any]]) -> None:
        """One stock call after the other, each with its scheduler, LoRA weight and PNG."""
        import diffusers
        import torch

        for k, cell in enumerate(cells):
            kind = getattr(diffusers, SCHEDULERS[cell.get("scheduler", "Euler")])
            self.stock.scheduler = kind.from_config(self._shipped)
            if weight := cell.get("weight"):
                self.stock.enable_lora()
                self.stock.set_adapters(["moon"], [weight])
            else:
                self.stock.disable_lora()
            noise = torch.Generator().manual_seed(next(self._seeds))
            made = self.stock(
                **self._told,
                num_inference_steps=cell.get("steps", 12),
                guidance_scale=cell.get("guidance", 5.0),
                width=self.info.native_size,
                height=self.info.native_size,
                generator=noise,
            )
            made.images[0].save(self._home / f"stock-{k}.png")

    def ours(self, cells: list[dict[str, Any]], fast: bool) -> dict[str, Any]:
        """The same as a stored sweep, zipped axes."""
        from studio.core.base import validate
        from studio.core.sweeps.spec import SweepSpec
        from studio.engine.sweeps.job import run_sweep

        base = {
            "prompt": PROMPT,
            "negative_prompt": NEGATIVE,
            "steps": 12,
            "guidance": 5.0,
            "scheduler": "Euler",
            "schedule": "Model default",
            "model": self.info.name,
        }
        axes = [{"field": "seed", "values": [next(self._seeds) for _ in cells], "group": 1}]
        for field in ("scheduler", "steps", "guidance"):
            if field in cells[0]:
                axes.append({"field": field, "values": [cell[field] for cell in cells], "group": 1})
        if "weight" in cells[0]:
            axes.append(
                {
                    "field": "lora_unet",
                    "lora": "moon",
                    "values": [cell["weight"] for cell in cells],
                    "group": 1,
                }
            )
            base["loras"] = [{"name": "moon", "text_encoder": 0.0}]
        id = self.bench.home.sweeps.save(
            validate(SweepSpec, {"base": base, "axes": axes, "fast": fast}), "local"
        )
        return run_sweep(self.bench, {"sweep": id}, lambda progress: None)

    def bare(self, sizes: list[int], cells: int, lora: bool) -> None:
        """Only the forwards: U-Net calls of those many rows (with the LoRA on, if there is one), and each picture's decoding."""
        import torch

        from studio.core.generation.request import GenerationRequest

        request = GenerationRequest(model=self.info.name, loras=("moon",) * lora)
        resolved = request.resolve(self.info.native_size, 0)
        with self.bench.pipelines.borrow(request) as parts, torch.inference_mode():
            shape = parts.latent_shape(self.info.native_size, self.info.native_size)
            for rows in sizes:
                latents = torch.randn(rows, *shape[1:]).to(self._where, parts.device.dtype)
                row = parts.build_row(self._told, resolved)
                stacked = parts.stack_rows([row] * rows)
                times = torch.full((rows,), 500.0, device=self._where)
                parts.call_denoiser(latents, times, stacked)
            for _ in range(cells):
                parts.decode(torch.randn(shape).to(self._where, parts.device.dtype)).float().cpu()

    def sizes(self, cells: list[dict[str, Any]], fast: bool) -> list[int]:
        """How many rows each U-Net call of a sweep has."""
        from studio.core.generation.request import GenerationRequest

        seen: list[int] = []
        with self.bench.pipelines.borrow(GenerationRequest(model=self.info.name)) as parts:
            hook = parts.denoiser.register_forward_pre_hook(
                lambda module, given: seen.append(len(given[0]))
            )
        self.ours(cells, fast)
        hook.remove()
        return seen

    def measure(self, name: str, cells: list[dict[str, Any]], runs: int) -> None:
        exact, fast = (
            self.sizes(cells, False),
            self.sizes(cells, True),
        )  # which also warms everything up
        self.loop(cells)
        lora = "weight" in cells[0]
        ways: dict[str, Callable[[], Any]] = {
            "loop": lambda: self.loop(cells),
            "exact": lambda: self.ours(cells, False),
            "fast": lambda: self.ours(cells, True),
            "bare exact": lambda: self.bare(exact, len(cells), lora),
            "bare fast": lambda: self.bare(fast, len(cells), lora),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, work in ways.items():
                began = time.perf_counter()
                work()
                took[way].append(time.perf_counter() - began)
        middle = {way: statistics.median(seconds) for way, seconds in took.items()}
        ratios = {
            way: sorted(loop / ours for loop, ours in zip(took["loop"], took[way]))
            for way in ("exact", "fast")
        }
        said = [
            f"{name:22s} rows {sum(exact):5d}",
            *(f"{way} {middle[way]:6.2f} s" for way in ("loop", "exact", "fast")),
        ]
        said += [
            f"loop/{way} {statistics.median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"
            for way, found in ratios.items()
        ]
        said += [
            f"over bare: {way} {middle[way] / middle[f'bare {way}']:.3f}"
            for way in ("exact", "fast")
        ]
        print("  ".join(said), flush=True)


def bound(flags: argparse.Namespace) -> None:
    """How far fast latents are from exact ones: eight seeds in one batch, for each scheduler and some counts of steps."""
    from studio.core.catalog import SCHEDULERS as EVERY
    from studio.core.generation.request import GenerationRequest
    from studio.engine.context import WorkerContext
    from studio.engine.generation.batcher import Batcher
    from studio.engine.generation.trajectory import Trajectory
    from studio.engine.models.prompt_encoding import encode_prompts
    from studio.settings import load

    counts = (5, 10, 20)
    with tempfile.TemporaryDirectory() as place:
        bench = WorkerContext.open(
            load(
                home=Path(place),
                device=flags.device,
                precision=flags.precision,
                keep_free=0,
                preview_every=0,
            )
        )
        print(
            f"{bench.pipelines.device.title}, {flags.precision}: largest of 8 relative differences; steps {counts}, guidance 5"
        )
        for name in [flags.case] if flags.case else EVERY:
            worst = []
            for steps in counts:
                requests = [
                    GenerationRequest(
                        prompt=PROMPT,
                        model=flags.model,
                        scheduler=name,
                        noise_schedule="Model default",
                        steps=steps,
                        guidance=5,
                        seed=seed,
                    )
                    for seed in range(8)
                ]
                with bench.pipelines.borrow(*requests) as parts:

                    def painted(
                        most: int, requests: list[GenerationRequest] = requests, parts: Any = parts
                    ) -> dict[int, Any]:
                        side = parts.info.native_size
                        each = [
                            Trajectory(parts, one.resolve(side, 0), encode_prompts(parts, one))
                            for one in requests
                        ]
                        return {
                            one.request.seed: latents
                            for one, latents, _ in Batcher(parts, most).denoise(each)
                        }

                    exact, fast = painted(1), painted(8)
                worst.append(
                    max(float((fast[k] - exact[k]).norm() / exact[k].norm()) for k in exact)
                )
            print(f"{name:14s} " + "  ".join(f"{value:.1e}" for value in worst), flush=True)
