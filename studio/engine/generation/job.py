"""The work behind Generate: a request → pictures in the gallery.

Knows: the order of things, what to report, how a picture becomes pixels.
Does not know: who asked, the job table, the page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from studio.core.base import check
from studio.core.generation import rules
from studio.core.generation.request import MOST_SEEDS, GenerationRequest
from studio.engine.context import Bench
from studio.engine.generation.trajectory_runner import Painter, Painting, begin, decode, look
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import condition
from studio.errors import StudioError
from studio.storage.jobs import Progress

__all__ = ["Report", "decode", "generate"]

Report = Callable[[Progress], None]


def generate(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Make the pictures of one request. Returns them, the request with nothing left open, notes, and the seconds it took.

    Each is saved when it is ready: what was finished before a stop stays. `report` raises Cancelled to stop.
    """
    began = time.perf_counter()
    request = check(GenerationRequest, spec)
    report(Progress(0, rules.all_steps(request) * request.count, "Loading the model"))
    with bench.pipelines.borrow(request) as parts:
        request = bench.library.inputs.resolved(
            request, parts.info.side, secrets.randbelow(MOST_SEEDS)
        )
        run = _Run(bench, parts, request, report)
        pictures = run.all()
    return {
        "pictures": pictures,
        "request": request.model_dump(mode="json"),
        "notes": run.notes,
        "seconds": round(time.perf_counter() - began, 3),
    }


class _Run:
    """The pictures of one request, and how far they are."""

    def __init__(
        self, bench: Bench, parts: Parts, request: GenerationRequest, report: Report
    ) -> None:
        self.bench, self.parts, self.request, self._report = bench, parts, request, report
        self.contents = bench.pipelines.contents(request)
        self.notes = [one.adapter.note for one in parts.loras if one.adapter and one.adapter.note]
        self.pictures: list[dict[str, Any]] = []
        self.each = rules.all_steps(request)  # steps of one picture
        self.total, self.before = (
            self.each * request.count,
            0,
        )  # steps of all pictures; of those in earlier groups
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
            self._group(
                [
                    begin(self.parts, one, conditioning, self.bench.library.inputs)
                    for one in each[first : first + self.request.batch]
                ]
            )
        return self.pictures

    def say(self, step: int, note: str, shown: bytes | None = None) -> None:
        """`step` counts the steps of all pictures."""
        took = time.perf_counter() - self.began
        left = round(took / step * (self.total - step), 1) if step and self.began else None
        self._report(Progress(step, self.total, note, left, tuple(self.pictures), shown))

    def _group(self, group: list[Painting]) -> None:
        every = self.bench.settings.preview_every
        first, last = len(self.pictures) + 1, len(self.pictures) + len(group)
        which = f"picture {first}" if len(group) == 1 else f"pictures {first} to {last}"
        note = f"Painting {which} of {self.request.count}" if self.request.count > 1 else "Painting"
        many, shown_at = len(group), 0
        painter, rows = Painter(self.parts, many), rules.rows(self.request) * many

        def on_call() -> None:
            nonlocal shown_at
            step, shown = self.each * painter.rows // rows, None
            if every and shown_at + every <= step < self.each:
                shown_at = step
                shown = look(self.parts, group)
            self.say(self.before + step * many, note, shown)

        self.say(self.before, note)
        for painting, image, seconds in painter.paint(list(group), on_call):
            if isinstance(image, StudioError):
                raise image
            self._save(image, painting.request, seconds)
            group.remove(painting)
            self.say(self.before + self.each * painter.rows // rows * many, note)
        self.before += self.each * many

    def _save(self, image: Image.Image, request: GenerationRequest, seconds: float) -> None:
        digest = request.digest(self.contents)
        kept = self.bench.gallery.save(
            image, request, digest, self.contents, seconds, self.bench.owner
        )
        self.pictures.append(
            {
                "path": str(kept.path),
                "thumb": str(kept.thumb),
                "digest": digest,
                "seconds": round(seconds, 3),
                "seed": request.seed,
            }
        )
