"""The work behind a sweep: a stored plan → an image in the gallery for each cell.

Knows: in which order cells are made, which are there already, which of them may be made together.
    Does not know: how values become cells (core/sweeps/spec.py), what the page shows, how sheets
    are drawn (export.py).

Nothing is lost: the plan is stored before this begins, each cell is saved as it ends, and whoever
runs the sweep again, after a stop, a kill or with more values, finds what is there by its digest.
The digest holds hashes of models and LoRAs and whether the image is exact, so a changed file is
made anew and an exact cell is never taken from a batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

from PIL import Image

from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.memory_policy import MEMORY_RAN_OUT_NOTE, MemoryPlan
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.used_files import UsedFiles
from studio.core.sweeps.spec import Cell, SweepSpec, plan_sweep
from studio.engine.context import WorkerContext
from studio.engine.generation.trajectory_runner import (
    ImageTask,
    TrajectoryRunner,
    prepare_task,
    render_preview,
)
from studio.engine.models.adapters import lora
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.engine.sweeps.export import load_sweep, write_exports
from studio.engine.upscaling.enlarge import Enlarger
from studio.errors import InvalidSpec, OutOfMemory, StudioError
from studio.storage.gallery import GeneratedImage, ImageOrigin
from studio.storage.models.embedding_index import EmbeddingIndex
from studio.storage.models.library import ModelInfo
from studio.storage.models.used_files import list_used_files
from studio.storage.sweeps import CellResult
from studio.storage.timings import load_timings

# Besides what is loaded, what decides how a model has to lie in memory.
MEMORY_FIELDS = ("width", "height", "hires_scale", "hires_tile", "hires_overlap")


def run_sweep(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Make what a stored sweep lacks.

    A cell that cannot be made carries its error, and the others go on.

    Args:
        context: The worker's.
        spec: The sweep's id as "sweep"; with "guest", only the owner's images are taken; as
            "remake" the keys of cells that are made again though their images are in the bin; as
            "report" the training run whose report asks for it.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        How many cells were made, taken from the gallery, left in the bin and failed, and what the
        U-Net did.

    Raises:
        StudioError: There is no such sweep.
    """
    start_time = time.perf_counter()
    # 1. The plan.
    sweep = load_sweep(context, str(spec.get("sweep")))
    plan = plan_sweep(sweep.spec)
    if context.home.sweeps.load_cell_results(sweep.id):
        context.home.gallery.sync()  # a killed worker may have left a file that is not listed
    owner = context.owner if spec.get("guest") else None
    tracker = ProgressTracker(report, len(plan.cells))
    run_id = str(spec.get("report") or "")
    origin = ImageOrigin("report", run_id) if run_id else ImageOrigin("sweep", sweep.id)
    remade_keys = frozenset(map(str, spec.get("remake") or ()))
    run = _SweepRun(context, sweep.id, owner, tracker=tracker, origin=origin, remade=remade_keys)
    # 2. What is there already.
    run.report_progress("Looking for cells that are already done")
    pending = [
        found for index in plan.run_order if (found := run.reuse_or_resolve(plan.cells[index]))
    ]
    # 3. The rest, model by model; of cells that are the same image, one is made.
    unique = {cell.digest: cell for cell in reversed(pending)}
    to_make = [cell for cell in pending if unique[cell.digest] is cell]
    tracker.start()
    with ThreadPoolExecutor(1) as saver:  # writing files goes on beside the next steps
        for group in _group_cells(to_make):
            run.make_group(group, saver)
        run.check_saves(wait=True)
    # 4. The twins of what was made.
    for cell in pending:
        if unique[cell.digest] is not cell:
            run.copy_result(cell, unique[cell.digest])
    # 5. Sheet, viewer and index.
    tracker.report(run.num_finished, "Drawing the sheet")
    write_exports(context, sweep, plan)
    return {
        "sweep": sweep.id,
        "cells": len(plan.cells),
        "made": run.num_made,
        "taken": run.num_reused,
        "binned": run.num_binned,
        "failed": run.num_failed,
        "calls": run.num_unet_calls,
        "rows": run.num_unet_rows,
        "notes": [*sorted(run.notes), *describe_binned(run.num_binned)],
        "seconds": round(time.perf_counter() - start_time, 3),
    }


def describe_binned(num_binned: int) -> list[str]:
    """Return the sentence that says why cells have no image though nothing failed."""
    if not num_binned:
        return []
    images = (
        "The image of 1 cell is" if num_binned == 1 else f"The images of {num_binned} cells are"
    )
    return [f"{images} in the bin: restore them in the Gallery, or make them again here."]


def outline_sweep(context: WorkerContext, spec: SweepSpec) -> dict[str, Any]:
    """Return a settled plan in the order of running, and what all will take; nothing is loaded.

    Each cell has its labels, its request with nothing left open, and its digest.
    """
    models = {request.model for request in plan_sweep(spec).distinct_requests}
    home = context.home
    timings = load_timings(context.settings, home.gallery, home.library, models, spec.fast)
    plan = plan_sweep(spec, timings=timings)
    resolver, cells = _RequestResolver(context), []
    for index in plan.run_order:
        request, content_hashes = resolver.resolve(plan.cells[index].request)
        cells.append(
            {
                "labels": plan.cells[index].labels,
                "request": request.model_dump(mode="json"),
                "digest": request.digest(content_hashes),
            }
        )
    estimate = plan.cost_estimate
    return {"cells": cells, "predicted": estimate.model_dump() | {"seconds": estimate.seconds}}


class _RequestResolver:
    """What requests name, looked up once for all cells that name the same."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._cache: dict[Any, tuple[dict[str, str], ModelInfo] | StudioError] = {}
        self._embeddings: dict[Any, EmbeddingIndex] = {}  # by model and LoRAs
        self._embedding_hashes: dict[Any, dict[str, str]] = {}  # by these and prompts
        self._used_files: dict[Any, UsedFiles] = {}  # by content hashes and names

    def resolve(self, request: GenerationRequest) -> tuple[ResolvedRequest, dict[str, str]]:
        """Return a cell's resolved request, and the hashes that its digest is made over.

        Raises what `Library.check_request` raises.
        """
        names = (
            request.model,
            request.vae,
            tuple(use.name for use in request.with_inline_loras().loras),
            request.active_upscaler,
            request.image,
            request.mask,
            request.extension,
            *(getattr(request, name) for name in MEMORY_FIELDS),
        )
        if names not in self._cache:
            self._cache[names] = self._look_up(request)
        known = self._cache[names]
        if isinstance(known, StudioError):
            raise known
        content_hashes, model = known
        faults = find_family_faults(request, FAMILIES[model.family])  # this cell's, not its group's
        if faults:
            raise InvalidSpec(faults)
        embedding_hashes = self._hash_embeddings(request, model)
        if embedding_hashes:
            content_hashes = content_hashes | embedding_hashes
        inputs = self._context.home.inputs
        return inputs.resolve(request, model.native_size, request.seed), content_hashes

    def list_notes(self, request: GenerationRequest) -> list[str]:
        """Return what is to be said of the words of a request that was resolved."""
        return self._embeddings[_get_word_key(request)].resolve([request]).notes

    def list_files(self, request: ResolvedRequest, content_hashes: Mapping[str, str]) -> UsedFiles:
        """Return the files of a request that was resolved, as other programs know them."""
        names = tuple(use.name for use in request.loras)
        key = (request.model, request.vae, names, tuple(content_hashes.items()))
        if key not in self._used_files:
            library = self._context.home.library
            self._used_files[key] = list_used_files(library, request, content_hashes)
        return self._used_files[key]

    def _hash_embeddings(self, request: GenerationRequest, model: ModelInfo) -> dict[str, str]:
        """Return the hashes of the embeddings that a cell's prompts name. Raises InvalidSpec."""
        word_key = _get_word_key(request)
        key = (word_key, request.prompts)
        if key not in self._embedding_hashes:
            library = self._context.home.library
            known = self._embeddings.get(word_key)
            if known is None or known.has_unread:
                library.embeddings.read_named_pickles([request])
                self._embeddings[word_key] = library.index_embeddings(model, [request])
            index = self._embeddings[word_key]
            hashes = self._context.pipelines.embedding_hashes(request, index)
            self._embedding_hashes[key] = hashes
        return self._embedding_hashes[key]

    def _look_up(
        self, request: GenerationRequest
    ) -> tuple[dict[str, str], ModelInfo] | StudioError:
        try:
            # Without words: those are looked up for each cell.
            wordless = request.with_inline_loras().model_copy(
                update={"prompt": "", "negative_prompt": ""}
            )
            content_hashes = self._context.pipelines.content_hashes(wordless)
            model = self._context.home.library.get_model(request.model)
        except StudioError as error:
            return error
        return content_hashes, model


def _get_word_key(request: GenerationRequest) -> tuple[Any, ...]:
    """Return what decides which embeddings a prompt can name."""
    uses = request.with_inline_loras().loras
    return request.model, tuple(use.name for use in uses if not use.is_inactive)


@dataclass(frozen=True, eq=False)
class _PendingCell:
    """A cell that is to be made: its key, its resolved request, and the hashes of its digest."""

    key: str
    request: ResolvedRequest
    content_hashes: Mapping[str, str] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        return self.request.digest(self.content_hashes)

    @property
    def acceptable_digests(self) -> Iterator[str]:
        """Its own digest, then the one of the image made on its own, where that is another."""
        yield self.digest
        if self.batch_size > 1:
            yield self.request.model_copy(update={"batch_size": 1}).digest(self.content_hashes)

    @property
    def batch_size(self) -> int:
        return self.request.batch_size

    def with_plan(self, plan: MemoryPlan) -> Self:
        """Return the cell as it is made with a model that lies in memory as a plan says."""
        content_hashes = plan.update_contents(self.content_hashes)
        if content_hashes == self.content_hashes:
            return self
        return replace(self, content_hashes=content_hashes)


def _group_cells(cells: Iterable[_PendingCell]) -> Iterator[list[_PendingCell]]:
    """Yield cells of one model with the same LoRAs; those that are made together come first."""
    for _, same_model in groupby(cells, attrgetter("content_hashes")):
        by_batch_size = sorted(same_model, key=attrgetter("batch_size"), reverse=True)
        for _, group in groupby(by_batch_size, attrgetter("batch_size")):
            yield list(group)


class _SweepRun:
    """One run of a sweep, and how far it is."""

    def __init__(
        self,
        context: WorkerContext,
        sweep_id: str,
        owner: str | None,
        *,
        tracker: ProgressTracker,
        origin: ImageOrigin,
        remade: frozenset[str],
    ) -> None:
        self.context = context
        self.sweep_id = sweep_id
        self.owner = owner
        self.tracker = tracker
        self.origin = origin
        self.remade = remade  # keys of cells that are made though they are in the bin
        self.num_made = 0
        self.num_reused = 0
        self.num_binned = 0
        self.num_failed = 0
        self.num_unet_calls = 0
        self.num_unet_rows = 0
        self.notes: set[str] = set()
        self._message = ""
        self._pending_saves: list[Future[None]] = []
        self._resolver = _RequestResolver(context)

    @property
    def num_finished(self) -> int:
        return self.num_made + self.num_reused + self.num_binned + self.num_failed

    def report_progress(self, message: str = "", preview: bytes | None = None) -> None:
        """Report the finished cells, under the last message where none is given."""
        self._message = message or self._message
        self.tracker.report(self.num_finished, self._message, preview=preview)

    def reuse_or_resolve(self, cell: Cell) -> _PendingCell | None:
        """Return a cell that is to be made; None if it is there, or can never be."""
        try:
            request, content_hashes = self._resolver.resolve(cell.request)
        except StudioError as error:
            self._record_failure(cell.key, error)
            return None
        self.notes.update(self._resolver.list_notes(request))
        pending = _PendingCell(cell.key, request, content_hashes)
        return None if self._reuse(pending) else pending

    def copy_result(self, cell: _PendingCell, twin: _PendingCell) -> None:
        """Record for a cell what became of another that is the same image."""
        if self._reuse(cell):
            return
        result = self.context.home.sweeps.load_cell_results(self.sweep_id)[twin.key]
        if not result.has_image:
            self._record_failure(cell.key, StudioError(result.error))
            return
        # It was made with less memory than was planned, and so has another digest.
        self.num_reused += 1
        self.tracker.skip()
        self.context.home.sweeps.save_cell_result(self.sweep_id, cell.key, result)

    def make_group(self, group: list[_PendingCell], saver: ThreadPoolExecutor) -> None:
        """Make cells of one model with the same LoRAs; each leaves the list when it has ended.

        Those for which memory runs out on the way are tried once more with less.
        """
        pipelines = self.context.pipelines
        requests = [cell.request for cell in group]
        try:
            plan = pipelines.plan_memory(*requests)
        except StudioError as error:
            self._record_failures(group, error)
            return
        failure = self._try_group(group, plan, saver)
        if failure is None or not group:
            return
        lower_plan = pipelines.lower_plan(plan, *[cell.request for cell in group])
        if lower_plan is not None:
            self.notes.add(MEMORY_RAN_OUT_NOTE)
            failure = self._try_group(group, lower_plan, saver)
        if failure is not None:  # other models and sizes may do
            self._record_failures(group, failure)

    def _try_group(
        self, group: list[_PendingCell], plan: MemoryPlan, saver: ThreadPoolExecutor
    ) -> OutOfMemory | None:
        """Make a group with its model in memory as a plan says; return why not all could be."""
        group[:] = [cell.with_plan(plan) for cell in group]
        self.notes.update(plan.notes)
        try:
            with ExitStack() as stack:
                self.report_progress("Loading the model")
                try:
                    requests = [cell.request for cell in group]
                    loan = self.context.pipelines.borrow(*requests, plan=plan)
                    model = stack.enter_context(loan)
                except OutOfMemory:
                    raise
                except StudioError as error:  # the others may have no such model or LoRA
                    self._record_failures(group, error)
                    return None
                self._make_images(model, group, saver)
        except OutOfMemory as error:
            return error.with_traceback(None)  # its frames hold what has to go
        return None

    def check_saves(self, wait: bool = False) -> None:
        """Raise what went wrong with saving, such as a full disk; `wait` for all of it."""
        for save in list(self._pending_saves):
            if wait or save.done():
                self._pending_saves.remove(save)
                save.result()

    def _make_images(
        self, model: LoadedModel, group: list[_PendingCell], saver: ThreadPoolExecutor
    ) -> None:
        batch_size = self._choose_batch_size(model, group)
        runner = TrajectoryRunner(model, batch_size, Enlarger(self.context))
        cells: dict[ImageTask, _PendingCell] = {}
        preview_every = self.context.settings.preview_every
        self.report_progress("Generating")

        def on_call() -> None:
            preview = None
            if preview_every and runner.calls % preview_every == 0:
                preview = render_preview(model, cells)
            self.report_progress(preview=preview)

        for task, image, seconds in runner.run(self._start_tasks(model, group, cells), on_call):
            cell = cells.pop(task)
            group.remove(cell)
            if isinstance(image, StudioError):
                self._record_failure(cell.key, image)
                continue
            self.check_saves()
            self._pending_saves.append(saver.submit(self._save_image, cell, task, image, seconds))
            if task.is_tiled and not model.plan.is_tiled:
                self.notes.add(task.tiles_note)
            self.num_made += 1
            self.report_progress()
        self.num_unet_calls += runner.calls
        self.num_unet_rows += runner.rows

    def _start_tasks(
        self, model: LoadedModel, group: list[_PendingCell], cells: dict[ImageTask, _PendingCell]
    ) -> Iterator[ImageTask]:
        """Yield a task for one cell after the other, when there is room for it."""
        for cell in list(group):
            request = cell.request
            try:
                with lora.use_adapters(model, lora.select_adapters(model, request)):
                    conditioning = encode_prompts(model, request)
                    task = prepare_task(model, request, conditioning, self.context.home.inputs)
            except StudioError as error:
                group.remove(cell)
                self._record_failure(cell.key, error)
                continue
            cells[task] = cell
            yield task

    def _choose_batch_size(self, model: LoadedModel, group: Sequence[_PendingCell]) -> int:
        """Return how many may share a call: as many as were asked for, and as memory allows."""
        pixels = max(cell.request.width * cell.request.height for cell in group)
        elements = model.info.activation_elements_per_pixel * pixels
        bytes_per_image = max(1, elements * model.device.dtype.itemsize * 2)
        pipelines = self.context.pipelines
        decode_bytes = pipelines.estimate_decode_bytes(model.info, pixels)
        affordable = (pipelines.free_bytes - decode_bytes) // bytes_per_image
        return max(1, min(group[0].batch_size, affordable))

    def _reuse(self, cell: _PendingCell) -> bool:
        """Take an image from the gallery that was made exactly so, or more exactly."""
        for digest in cell.acceptable_digests:
            image = self.context.home.gallery.find_by_digest(digest, self.owner)
            if image:
                self.num_reused += 1
                self.tracker.skip()
                self._record_image(cell.key, image)
                return True
        return cell.key not in self.remade and self._leave_in_bin(cell)

    def _leave_in_bin(self, cell: _PendingCell) -> bool:
        """Record that a cell's image was thrown away: nobody asked for it to be made again."""
        for digest in cell.acceptable_digests:
            image = self.context.home.gallery.find_by_digest(digest, self.owner, is_binned=True)
            if image:
                self.num_binned += 1
                self.tracker.skip()
                self._record_image(cell.key, image)
                return True
        return False

    def _save_image(
        self, cell: _PendingCell, task: ImageTask, image: Image.Image, seconds: float
    ) -> None:
        saved = self.context.home.gallery.save(
            image,
            cell.request,
            digest=cell.digest,
            content_hashes={**cell.content_hashes, **task.extra_contents},
            seconds=seconds,
            owner=self.context.owner,
            used_files=self._resolver.list_files(cell.request, cell.content_hashes),
            origin=self.origin,
        )
        self._record_image(cell.key, saved)

    def _record_image(self, key: str, image: GeneratedImage) -> None:
        result = CellResult(image.path, image.digest, image.seconds)
        self.context.home.sweeps.save_cell_result(self.sweep_id, key, result)

    def _record_failures(self, cells: Iterable[_PendingCell], error: StudioError) -> None:
        for cell in cells:
            self._record_failure(cell.key, error)

    def _record_failure(self, key: str, error: StudioError) -> None:
        self.num_failed += 1
        self.context.home.sweeps.save_cell_result(self.sweep_id, key, CellResult(error=str(error)))
        self.report_progress()
