"""A denoise strip: how one picture came out of the noise, step by step, on a labelled sheet.

Knows: which steps are shown, what is written on them. Does not know: the loop (generation/), how a sheet is drawn (sheet.py).
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from studio.core.base import check
from studio.core.catalog import SCHEDULERS
from studio.core.generation.request import MOST_SEEDS, GenerationRequest
from studio.engine.context import Bench
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import Report, decode
from studio.engine.generation.trajectory_runner import begin
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import condition
from studio.engine.sweeps.results import Table, TableAxis, TableCell
from studio.engine.sweeps.sheet import pages
from studio.errors import InvalidSpec, StudioError
from studio.storage.jobs import Progress

MOST_EVERY = 150


def strip(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Paint the first picture of spec["request"] again and decode every spec["every"]-th of its steps; the sheet goes into the
    gallery under the picture's settings. Returns what `generate` returns. `report` raises Cancelled to stop.

    Shown are the latents as the U-Net is shown them, noise and all, and at last the finished ones; a second pass is left out.
    """
    began, every = time.perf_counter(), spec.get("every")
    if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every <= MOST_EVERY:
        raise InvalidSpec(
            [
                f"Strip: every how many steps? A whole number from 1 to {MOST_EVERY} (not {every!r:.40})."
            ]
        )
    request = check(GenerationRequest, spec.get("request") or {})
    if not request.steps_run:
        raise InvalidSpec(
            [
                "Strip: a picture that is only enlarged has no steps to show; choose a strength above 0."
            ]
        )
    report(Progress(0, request.steps_run, "Loading the model"))
    with bench.pipelines.borrow(request) as parts:
        full = bench.library.inputs.resolved(
            request, parts.info.side, secrets.randbelow(MOST_SEEDS)
        )
        contents = bench.pipelines.contents(full)
        (one, *_) = full.expand()
        frames, seconds = _painted(bench, parts, one, every, report)
    report(Progress(one.steps_run, one.steps_run, "Drawing the strip"))
    digest = hashlib.sha256(f"strip {every} {one.digest(contents)}".encode()).hexdigest()
    kept = bench.gallery.save(
        _drawn(one, every, frames), one, digest, contents, seconds, bench.owner
    )
    made = {
        "path": str(kept.path),
        "thumb": str(kept.thumb),
        "digest": digest,
        "seconds": round(seconds, 3),
        "seed": one.seed,
    }
    return {
        "pictures": [made],
        "request": one.model_dump(mode="json"),
        "notes": [],
        "seconds": round(time.perf_counter() - began, 3),
    }


def _painted(
    bench: Bench, parts: Parts, one: GenerationRequest, every: int, report: Report
) -> tuple[list[tuple[str, Image.Image]], float]:
    """Labels and pictures of the steps, and the seconds that the U-Net took."""
    trajectory = begin(parts, one, condition(parts, one), bench.library.inputs).trajectory
    assert trajectory
    batcher, steps, info = Batcher(parts, 1), one.steps_run, SCHEDULERS[one.scheduler]
    frames: list[tuple[str, Image.Image]] = []
    shown: set[int] = set()
    met: set[float] = set()

    def on_call() -> None:
        latents, timestep = trajectory.shown
        met.add(timestep)
        step = min(len(met) - 1 if info.again else (batcher.calls - 1) // info.calls, steps - 1)
        if step % every == 0 and step not in shown:
            shown.add(step)
            frames.append((f"step {step + 1} · t {timestep:.0f}", decode(parts, latents)))
        report(Progress(step + 1, steps, "Painting"))

    ((_, latents, seconds),) = batcher.paint([trajectory], on_call)
    if isinstance(latents, StudioError):
        raise latents
    return [*frames, ("finished", decode(parts, latents))], seconds


def _drawn(
    one: GenerationRequest, every: int, frames: list[tuple[str, Image.Image]]
) -> Image.Image:
    """The first page of a sheet: strips are small enough for one."""
    fixed = [
        ("Model", one.model),
        ("Scheduler", f"{one.scheduler} · {one.schedule}"),
        ("Steps", str(one.steps)),
        ("Guidance", f"{one.guidance:g}"),
        ("Seed", str(one.seed)),
    ]
    fixed += [("Strength", f"{one.strength:g}")] if one.image else []
    with tempfile.TemporaryDirectory() as place:
        cells: dict[tuple[int, ...], TableCell] = {}
        for k, (_, image) in enumerate(frames):
            image.save(Path(place) / f"{k}.png")
            cells[(k,)] = TableCell(Path(place) / f"{k}.png")
        axis = TableAxis("Step", tuple(label for label, _ in frames))
        which = "before every step" if every == 1 else f"before every {every} steps"
        return next(
            pages(
                Table("strip", one.prompt[:300] or "no prompt", (axis,), cells, tuple(fixed), which)
            )
        )
