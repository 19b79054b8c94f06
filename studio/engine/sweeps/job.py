"""The work behind a sweep: a stored plan → a picture in the gallery for each cell.

Knows: in which order cells are painted, which are there already, which of them may be painted together.
Does not know: how values become cells (core/sweeps/spec.py), what the page shows, how sheets are drawn (export.py).

Nothing is lost: the plan is stored before this begins, each cell is saved as it ends, and whoever runs the sweep again, after a
stop, a kill or with more values, finds what is there by its digest. The digest holds hashes of models and LoRAs and whether the
picture is exact, so a changed file is painted anew and an exact cell is never taken from a batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import Cell, SweepSpec, plan
from studio.engine.context import Bench
from studio.engine.generation.job import Report
from studio.engine.generation.trajectory_runner import Painter, Painting, begin, look
from studio.engine.models.adapters import lora
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import condition
from studio.engine.sweeps.export import write
from studio.errors import OutOfMemory, StudioError
from studio.storage.gallery import Picture
from studio.storage.jobs import Progress
from studio.storage.sweeps import Kept
from studio.storage.timings import rates


def run_sweep(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Paint what a stored sweep lacks. `spec` has its id as "sweep"; with "guest", only the owner's pictures are taken.

    Returns how many cells were made, taken from the gallery and failed, and what the U-Net did. `report` raises Cancelled to
    stop. A cell that cannot be painted carries its error, and the others go on.
    """
    began = time.perf_counter()
    sweep = bench.sweeps.get(str(spec.get("sweep")))
    if sweep is None:
        raise StudioError(f"There is no sweep {spec.get('sweep')!r:.40} here any more.")
    planned = plan(sweep.spec)
    if bench.sweeps.cells(sweep.id):
        bench.gallery.sync()  # a killed worker may have left a file that is not listed
    run = _Run(
        bench,
        sweep.id,
        [planned.cells[k] for k in planned.order],
        bench.owner if spec.get("guest") else None,
        report,
    )
    run.all()
    report(Progress(run.ended, len(planned.cells), "Drawing the sheet"))
    write(bench, sweep.id)
    return {
        "sweep": sweep.id,
        "cells": len(planned.cells),
        "made": run.made,
        "taken": run.taken,
        "failed": run.failed,
        "calls": run.calls,
        "rows": run.rows,
        "seconds": round(time.perf_counter() - began, 3),
    }


def outline(bench: Bench, spec: SweepSpec) -> dict[str, Any]:
    """A settled plan in the order of running: each cell's request with nothing left open and its digest, and what all will take.
    Loads and makes nothing."""
    models = {request.model for request in plan(spec).named}
    planned = plan(
        spec, rates=rates(bench.settings, bench.gallery, bench.library, models, spec.fast)
    )
    names, cells = _Names(bench), []
    for k in planned.order:
        one, contents = names.of(planned.cells[k].request)
        cells.append(
            {
                "labels": planned.cells[k].labels,
                "request": one.model_dump(mode="json"),
                "digest": one.digest(contents),
            }
        )
    return {
        "cells": cells,
        "predicted": planned.predicted.model_dump() | {"seconds": planned.predicted.seconds},
    }


class _Names:
    """What requests name, looked up once for all cells that name the same."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._known: dict[Any, tuple[dict[str, str], int] | StudioError] = {}

    def of(self, request: GenerationRequest) -> tuple[GenerationRequest, dict[str, str]]:
        """A cell's request with nothing left open, and what its digest is made over. Raises what Library.check raises."""
        names = (
            request.model,
            tuple(use.name for use in request.untagged().loras),
            request.image,
            request.mask,
            request.extension,
        )
        if names not in self._known:
            try:
                contents = self._bench.pipelines.contents(request)
                self._known[names] = contents, self._bench.library.model(request.model).side
            except StudioError as error:
                self._known[names] = error
        found = self._known[names]
        if isinstance(found, StudioError):
            raise found
        return self._bench.library.inputs.resolved(request, found[1], request.seed), found[0]


@dataclass(frozen=True)
class _Wanted:
    """A cell that is to be painted, and the hashes its digest is made over."""

    cell: Cell
    contents: Mapping[str, str]

    @property
    def digest(self) -> str:
        return self.cell.request.digest(self.contents)


def _groups(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    """Cells of one model with the same LoRAs; among those the ones that are painted together first, then those alone."""
    for _, cells in groupby(wanted, lambda one: one.contents):
        for _, group in groupby(
            sorted(cells, key=lambda one: -one.cell.request.batch),
            lambda one: one.cell.request.batch,
        ):
            yield list(group)


class _Run:
    """One run of a sweep, and how far it is."""

    def __init__(
        self, bench: Bench, sweep: str, cells: Sequence[Cell], owner: str | None, report: Report
    ) -> None:
        self.bench, self.sweep, self.cells, self.owner, self._report = (
            bench,
            sweep,
            cells,
            owner,
            report,
        )
        self.made = self.taken = self.failed = self.calls = self.rows = 0
        self._keys = {cell.index: cell.key for cell in cells}
        self._began, self._note = 0.0, ""
        self._saving: list[Future[None]] = []
        self._names = _Names(bench)

    @property
    def ended(self) -> int:
        return self.made + self.taken + self.failed

    def all(self) -> None:
        """First what is there, then the rest, model by model."""
        self.say("Looking for cells that are there already")
        every = [found for cell in self.cells if (found := self._look(cell))]
        first = {one.digest: one for one in reversed(every)}
        wanted = [
            one for one in every if first[one.digest] is one
        ]  # of cells that are the same picture, one is painted
        self._began = time.perf_counter()
        with ThreadPoolExecutor(1) as saver:  # writing files goes on beside the next steps
            for group in _groups(wanted):
                try:
                    self._lent(group, saver)
                except OutOfMemory as error:  # other models and sizes may do
                    for one in group:
                        self._fail(one.cell, error)
            self._saved(wait=True)
        for twin in [one for one in every if first[one.digest] is not one]:
            if self._look(twin.cell):
                kept = self.bench.sweeps.cells(self.sweep)[
                    self._keys[first[twin.digest].cell.index]
                ]
                self._fail(twin.cell, StudioError(kept.error))

    def say(self, note: str = "", shown: bytes | None = None) -> None:
        self._note = note or self._note
        done = self.made + self.failed
        left = (
            (time.perf_counter() - self._began) / done * (len(self.cells) - self.ended)
            if self._began and done
            else None
        )
        self._report(
            Progress(self.ended, len(self.cells), self._note, left and round(left, 1), (), shown)
        )

    def _look(self, cell: Cell) -> _Wanted | None:
        """None if the cell is there, or can never be."""
        try:
            one, contents = self._names.of(cell.request)
        except StudioError as error:
            self._fail(cell, error)
            return None
        exact = one.model_copy(update={"batch": 1})
        there = next(
            (
                picture
                for request in dict.fromkeys((one, exact))
                if (picture := self.bench.gallery.with_digest(request.digest(contents), self.owner))
            ),
            None,
        )
        if there is None:
            return _Wanted(cell.model_copy(update={"request": one}), contents)
        self.taken += 1
        self._keep(cell, there)
        return None

    def _lent(self, group: list[_Wanted], saver: ThreadPoolExecutor) -> None:
        with ExitStack() as lent:
            self.say("Loading the model")
            try:
                parts = lent.enter_context(
                    self.bench.pipelines.borrow(*(one.cell.request for one in group))
                )
            except (
                StudioError
            ) as error:  # what is wrong with this model or LoRA is not wrong with the others
                for one in group:
                    self._fail(one.cell, error)
                return
            self._group(parts, group, saver)

    def _group(self, parts: Parts, group: list[_Wanted], saver: ThreadPoolExecutor) -> None:
        """Cells of one model with the same LoRAs, each leaving the list when it has ended."""
        painter = Painter(parts, self._together(parts, [one.cell.request for one in group]))
        painted: dict[Painting, _Wanted] = {}
        every = self.bench.settings.preview_every
        self.say("Painting")
        for painting, image, seconds in painter.paint(
            self._begun(parts, group, painted),
            lambda: self._step(parts, painted, painter.calls, every),
        ):
            one = painted.pop(painting)
            group.remove(one)
            if isinstance(image, StudioError):
                self._fail(one.cell, image)
                continue
            self._saved()
            self._saving.append(saver.submit(self._save, one, image, seconds))
            self.made += 1
            self.say()
        self.calls, self.rows = self.calls + painter.calls, self.rows + painter.rows

    def _begun(
        self, parts: Parts, group: list[_Wanted], painted: dict[Painting, _Wanted]
    ) -> Iterator[Painting]:
        """A painting for one cell after the other, when there is room for it."""
        for one in list(group):
            try:
                with lora.switched(parts, lora.active(parts, one.cell.request)):
                    painting = begin(
                        parts,
                        one.cell.request,
                        condition(parts, one.cell.request),
                        self.bench.library.inputs,
                    )
            except StudioError as error:
                group.remove(one)
                self._fail(one.cell, error)
                continue
            painted[painting] = one
            yield painting

    def _step(
        self, parts: Parts, painted: Mapping[Painting, _Wanted], calls: int, every: int
    ) -> None:
        shown = None
        if every and calls % every == 0:
            shown = look(parts, painted)
        self.say(shown=shown)

    def _together(self, parts: Parts, requests: Sequence[GenerationRequest]) -> int:
        """How many may share a call: as many as were asked for, and as memory is there."""
        pixels = max((one.width or 0) * (one.height or 0) for one in requests)
        most = self.bench.pipelines.room // max(
            1, parts.info.working * pixels * parts.device.dtype.itemsize * 2
        )
        return max(1, min(requests[0].batch, most))

    def _save(self, one: _Wanted, image: Image.Image, seconds: float) -> None:
        self._keep(
            one.cell,
            self.bench.gallery.save(
                image, one.cell.request, one.digest, one.contents, seconds, self.bench.owner
            ),
        )

    def _keep(self, cell: Cell, picture: Picture) -> None:
        self.bench.sweeps.keep(
            self.sweep, self._keys[cell.index], Kept(picture.path, picture.digest, picture.seconds)
        )

    def _fail(self, cell: Cell, error: StudioError) -> None:
        self.failed += 1
        self.bench.sweeps.keep(self.sweep, self._keys[cell.index], Kept(error=str(error)))
        self.say()

    def _saved(self, wait: bool = False) -> None:
        """Raise what went wrong with saving, such as a full disk; `wait` for all of it."""
        for one in [one for one in self._saving if wait or one.done()]:
            self._saving.remove(one)
            one.result()
