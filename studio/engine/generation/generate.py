"""The work behind Generate: a request → pictures in the gallery.

Knows: the order of things, what to report, how a picture becomes pixels.
Does not know: who asked, the job table, the page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from studio.engine.bench import Bench
from studio.engine.generation import preview
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import Trajectory
from studio.engine.pipelines.families import Parts
from studio.engine.pipelines.prompts import condition
from studio.errors import StudioError
from studio.spec.request import MOST_SEEDS, GenerationRequest
from studio.spec.value import check
from studio.store.jobs import Progress

Report = Callable[[Progress], None]


def generate(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Make the pictures of one request. Returns them, the request with nothing left open, notes, and the seconds it took.

    Each is saved when it is ready: what was finished before a stop stays. `report` raises Cancelled to stop.
    """
    began = time.perf_counter()
    request = check(GenerationRequest, spec)
    report(Progress(0, request.steps * request.count, "Loading the model"))
    with bench.pipelines.borrow(request) as parts:
        request = request.resolved(parts.info.side, secrets.randbelow(MOST_SEEDS))
        run = _Run(bench, parts, request, report)
        pictures = run.all()
    return {"pictures": pictures, "request": request.model_dump(mode="json"), "notes": run.notes,
            "seconds": round(time.perf_counter() - began, 3)}


class _Run:
    """The pictures of one request, and how far they are."""

    def __init__(self, bench: Bench, parts: Parts, request: GenerationRequest, report: Report) -> None:
        self.bench, self.parts, self.request, self._report = bench, parts, request, report
        self.contents = bench.pipelines.contents(request)
        self.notes = [one.adapter.note for one in parts.loras if one.adapter and one.adapter.note]
        self.pictures: list[dict[str, Any]] = []
        self.total, self.before = request.steps * request.count, 0  # steps of all pictures; of those in earlier groups
        self.began = 0.0

    def all(self) -> list[dict[str, Any]]:
        """Groups of `batch` one after the other."""
        for note in self.notes:
            self.say(0, note)
        self.say(0, "Reading the prompt")
        conditioning = condition(self.parts, self.request)
        each = self.request.expand()
        self.began = time.perf_counter()
        for first in range(0, len(each), self.request.batch):
            self._group([Trajectory(self.parts, one, conditioning) for one in each[first:first + self.request.batch]])
        return self.pictures

    def say(self, step: int, note: str, shown: bytes | None = None) -> None:
        """`step` counts the steps of all pictures."""
        took = time.perf_counter() - self.began
        left = round(took / step * (self.total - step), 1) if step and self.began else None
        self._report(Progress(step, self.total, note, left, tuple(self.pictures), shown))

    def _group(self, group: list[Trajectory]) -> None:
        every, steps = self.bench.settings.preview_every, self.request.steps
        first, last = len(self.pictures) + 1, len(self.pictures) + len(group)
        which = f"picture {first}" if len(group) == 1 else f"pictures {first} to {last}"
        note = f"Painting {which} of {self.request.count}" if self.request.count > 1 else "Painting"
        batcher, rows = Batcher(self.parts, len(group)), sum(one.asks * one.rows for one in group)
        shown_at = 0

        def on_call() -> None:
            nonlocal shown_at
            step, shown = steps * batcher.rows // rows, None
            if every and shown_at + every <= step < steps:
                shown_at = step
                shown = preview.jpeg(self.parts, [latents for one in group if (latents := one.estimate()) is not None])
            self.say(self.before + step * len(group), note, shown)

        self.say(self.before, note)
        for trajectory, latents, painting in batcher.paint(group, on_call):
            if isinstance(latents, StudioError):
                raise latents
            began = time.perf_counter()
            image = decode(self.parts, latents)
            self._save(image, trajectory.request, painting + time.perf_counter() - began)
            self.say(self.before + steps * batcher.rows // rows * len(group), note)
        self.before += steps * len(group)

    def _save(self, image: Image.Image, request: GenerationRequest, seconds: float) -> None:
        digest = request.digest(self.contents)
        kept = self.bench.gallery.save(image, request, digest, self.contents, seconds, self.bench.owner)
        self.pictures.append({"path": str(kept.path), "thumb": str(kept.thumb), "digest": digest, "seconds": round(seconds, 3),
                              "seed": request.seed})


@torch.inference_mode()
def decode(parts: Parts, latents: torch.Tensor) -> Image.Image:
    """Latents → picture."""
    return VaeImageProcessor(vae_scale_factor=parts.scale).postprocess(parts.decode(latents), output_type="pil")[0]
