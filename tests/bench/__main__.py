"""Speed against the stock way, both warm, in turns, in one run.

python -m tests.bench picture [--device cuda]     one picture against a stock diffusers call
python -m tests.bench sweeps [--cells 1 8 64]     grids against a loop of stock diffusers calls
python -m tests.bench bound                       how far batched latents are from single ones
python -m tests.bench pictures                    inpainting, outpainting, img2img as the embedded judge sees them
python -m tests.bench training [--steps 10]       steps of training against diffusers' example loop
python -m tests.bench captioning [--batch 16]     captions against a loop of stock calls on one picture at a time
python -m tests.bench datasets [--pictures 10]    scan, page and edit of 10, 1,000 and 10,000 pictures
python -m tests.bench demos                       minutes of the Pocket presets of training, judged before and after
python -m tests.bench demos --kind LoRA LoKr DoRA the Moon with each kind: numbers, file, seconds a step, judged after
python -m tests.bench ladders                     a scheduler made ready, against a class newly made
python -m tests.bench latency                     an empty job through a real worker
python -m tests.bench files [--toy]               a single-file checkpoint opened, against diffusers' from_single_file
python -m tests.bench gpu [--toy]                 what only a card can tell, in eight minutes; --toy on the CPU at toy size
python -m tests.bench page                        the page's start, and in Chromium, against a hello-world gradio app
python -m tests.bench weight [--runs 3]           what the page costs a browser, against hello world: work, requests, tabs
                             [--against PATH]     and against another checkout of the studio
python -m tests.bench press [--runs 3]            a press that fills the training form, and with gradio's own script
python -m tests.bench tasks                       three tasks in presses, scrolls and seconds; --against another checkout too
python -m tests.bench guests [--seconds 180]      20 clients, two of them misbehaving: what the owner notices
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.captioning import captioning
from tests.bench.datasets import datasets
from tests.bench.demos import DEMO_KINDS, demos
from tests.bench.gpu import gpu
from tests.bench.guests import guests
from tests.bench.page import page
from tests.bench.pictures import pictures
from tests.bench.single_files import single_files
from tests.bench.sweeps import bound, sweeps
from tests.bench.tasks import tasks
from tests.bench.training import training
from tests.bench.weight import press, weight

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
PROMPT, STEPS = "a red boat by a lake", 20


def main() -> None:
    """Run the named benches, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    benches: dict[str, Callable[[argparse.Namespace], None]] = {
        "picture": picture,
        "sweeps": sweeps,
        "bound": bound,
        "pictures": pictures,
        "training": training,
        "demos": demos,
        "datasets": datasets,
        "captioning": captioning,
        "ladders": ladders,
        "latency": latency,
        "page": page,
        "weight": weight,
        "press": press,
        "tasks": tasks,
        "guests": guests,
        "gpu": gpu,
        "files": single_files,
    }
    parser.add_argument("bench", nargs="?", choices=benches)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--seconds", type=float, default=180, help="of each round with guests")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--steps", type=int, default=10, help="of the training, in each turn")
    parser.add_argument("--captions", type=int, default=64, help="that are made in each turn")
    parser.add_argument("--batch", type=int, help="pictures in one call of the captioner")
    parser.add_argument(
        "--pictures", type=int, nargs="+", default=[10, 1000, 10_000], help="of the datasets"
    )
    parser.add_argument(
        "--case",
        help="of the sweeps: schedulers, guidance, steps, LoRA weight or mixed; of bound: a scheduler",
    )
    parser.add_argument(
        "--toy", action="store_true", help="of the benches of the GPU and of files: at toy size"
    )
    parser.add_argument(
        "--against", help="of weight and tasks: a checkout of the studio to compare with"
    )
    parser.add_argument(
        "--kind", nargs="+", choices=DEMO_KINDS, help="of LoRA, to train the Moon with side by side"
    )
    flags = parser.parse_args()
    for name in [flags.bench] if flags.bench else list(benches):
        benches[name](flags)


def picture(flags: argparse.Namespace) -> None:
    """One picture, prompt known: the stock call and its PNG, ours without previews, ours with one every three steps."""
    import diffusers
    import torch

    from studio.engine.context import WorkerContext
    from studio.engine.generation.job import generate
    from studio.settings import load
    from studio.storage.models.library import Library

    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        settings = load(
            home=home, device=flags.device, precision=flags.precision, keep_free=0, preview_every=0
        )
        info = Library(settings).get_model(flags.model)
        bench = WorkerContext.open(settings)
        seen = WorkerContext.open(
            load(
                home=home,
                device=flags.device,
                precision=flags.precision,
                keep_free=0,
                preview_every=3,
            )
        )
        dtype, where = bench.pipelines.device.dtype, bench.pipelines.device.torch_device
        stock = diffusers.DiffusionPipeline.from_pretrained(info.path, dtype=dtype).to(where)
        stock.vae.to(bench.pipelines.device.vae_dtype)
        stock.scheduler = diffusers.EulerDiscreteScheduler.from_config(
            stock.scheduler.config, timestep_spacing="linspace"
        )
        stock.set_progress_bar_config(disable=True)

        # The studio remembers a prompt; the stock way to do so is to encode once and pass the embeddings.
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        with torch.no_grad():
            told = dict(
                zip(
                    names,
                    stock.encode_prompt(
                        PROMPT,
                        device=where,
                        num_images_per_prompt=1,
                        do_classifier_free_guidance=True,
                    ),
                )
            )

        def plain() -> None:
            made = stock(
                **told,
                num_inference_steps=STEPS,
                guidance_scale=7.0,
                width=info.native_size,
                height=info.native_size,
                generator=torch.Generator().manual_seed(7),
            )
            made.images[0].save(home / "stock.png")

        spec = {
            "prompt": PROMPT,
            "steps": STEPS,
            "seed": 7,
            "scheduler": "Euler",
            "schedule": "Uniform",
            "model": flags.model,
        }
        ways: dict[str, Callable[[], Any]] = {
            "stock": plain,
            "previews off": lambda: generate(bench, spec, lambda progress: None),
            "previews on": lambda: generate(seen, spec, lambda progress: None),
        }
        unets = [stock.unet, _unet(bench, flags.model), _unet(seen, flags.model)]
        rows = {name: _rows(way, unets) for name, way in ways.items()}
        times = _in_turns(ways, flags.runs)
        print(
            f"picture: {flags.model} {info.native_size}², {STEPS} steps, {bench.pipelines.device.title}, {flags.precision}"
        )
        for name, goal in (
            ("stock", ""),
            ("previews off", " (goal ≤ 1.03)"),
            ("previews on", " (goal ≤ 1.06)"),
        ):
            ratio = statistics.median(times[name]) / statistics.median(times["stock"])
            print(
                f"  {name:13s} {_spread(times[name])}  U-Net rows {rows[name]}  ratio {ratio:.3f}{goal}"
            )


def ladders(flags: argparse.Namespace) -> None:
    """A scheduler with its ladder of 20 steps, ours against one whose class is made anew each time."""
    from studio.core.catalog import SCHEDULERS
    from studio.engine.models import schedulers

    def ours(name: Any) -> None:
        schedulers.build_scheduler(name, "Model default", {}, STEPS, 1)

    def anew(name: Any) -> None:
        schedulers.build_prototype.cache_clear()
        ours(name)

    print("ladders: a scheduler made ready, milliseconds")
    for name in SCHEDULERS:
        times = _in_turns(
            {"anew": lambda name=name: anew(name), "ours": lambda name=name: ours(name)}, flags.runs
        )
        plain, quick = (statistics.median(times[way]) * 1000 for way in ("anew", "ours"))
        print(f"  {name:13s} {plain:7.1f} : {quick:6.2f} = {plain / quick:.1f}")


def latency(flags: argparse.Namespace) -> None:
    """From submit to done of a job that does nothing, through a real worker."""
    from studio.services.supervisor import worker_command
    from studio.settings import load
    from studio.storage.jobs import Jobs

    with tempfile.TemporaryDirectory() as place:
        settings = load(home=Path(place), device=flags.device, keep_free=0)
        jobs = Jobs(settings.home / "jobs.sqlite")
        worker = subprocess.Popen(
            [*worker_command(settings), "--linger", "60"], stderr=subprocess.DEVNULL
        )
        try:
            began = time.perf_counter()
            _empty(jobs)
            print(
                f"latency: worker up and first job done after {time.perf_counter() - began:.1f} s"
            )
            times = []
            for k in range(100):
                time.sleep(0.05 + 0.0137 * (k % 7))  # not in step with the worker's looking
                times.append(_empty(jobs))
            print(f"  empty job: {_spread(times)}  95 % below {sorted(times)[94] * 1000:.1f} ms")
        finally:
            worker.terminate()
            worker.wait()
            jobs.close()


def _in_turns(ways: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):  # the first one warms
        for name, way in ways.items():
            began = time.perf_counter()
            took = way()
            if run:
                times[name].append(took if isinstance(took, float) else time.perf_counter() - began)
    return times


def _spread(times: list[float]) -> str:
    least, most = min(times) * 1000, max(times) * 1000
    return f"median {statistics.median(times) * 1000:8.1f} ms  ({least:.1f} … {most:.1f}, {len(times)} runs)"


def _unet(bench: Any, model: str) -> Any:
    from studio.core.generation.request import GenerationRequest

    with bench.pipelines.borrow(GenerationRequest(model=model)) as parts:
        return parts.denoiser


def _rows(way: Callable[[], Any], unets: list[Any]) -> int:
    seen: list[int] = []
    hooks = [
        unet.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        for unet in unets
    ]
    way()
    for hook in hooks:
        hook.remove()
    return sum(seen)


def _empty(jobs: Any) -> float:
    began = time.perf_counter()
    id = jobs.submit("unload", {"models": []})
    while jobs.get(id).is_open:
        time.sleep(0.0005)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
