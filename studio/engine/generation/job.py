"""The work behind Generate: a request → images in the gallery.

Knows: the order of things, what to report, how an image becomes pixels.
Does not know: who asked, the job table, the page.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import Any

from PIL import Image

from studio.core.base import validate_stored
from studio.core.generation import rules
from studio.core.generation.family_rules import list_family_notes
from studio.core.generation.memory_policy import MEMORY_RAN_OUT_NOTE, MemoryPlan
from studio.core.generation.request import SEED_LIMIT, GenerationRequest, ResolvedRequest
from studio.core.generation.used_files import UsedFiles
from studio.engine.context import WorkerContext
from studio.engine.generation.trajectory_runner import (
    ImageTask,
    TrajectoryRunner,
    prepare_task,
    render_preview,
    render_unfinished,
)
from studio.engine.models.loaded_model import Conditioning, LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.engine.upscaling.enlarge import Enlarger
from studio.errors import Cancelled, OutOfMemory, StudioError
from studio.storage.models.model_configs import list_chosen_files
from studio.storage.models.single_files import COMPONENT_TITLES
from studio.storage.models.used_files import list_used_files


def generate(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Make the images of one request.

    Each is saved when it is ready: what was finished before a stop stays, and what was not is saved
    as far as it is, marked as stopped.

    Args:
        context: The worker's.
        spec: A `GenerationRequest` as JSON values.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        The images, the request with nothing left open, notes, and the seconds it took.
    """
    start_time = time.perf_counter()
    # 1. What exactly is asked for.
    request = validate_stored(GenerationRequest, spec)
    info = context.home.library.check_request(request)
    files = context.home.prompt_files
    seed = secrets.randbelow(SEED_LIMIT)
    resolved = context.home.inputs.resolve(request, info.native_size, seed, files)
    images = resolved.split(files)
    distinct = _select_distinct(images) if resolved.is_open else [request]
    for image in distinct if resolved.is_open else ():
        context.home.library.check_request(image)  # a template may ask for anything
    steps_per_image = rules.count_steps(resolved, resolved.size)
    tracker = ProgressTracker(report, steps_per_image * resolved.num_images)
    # 2. How the model lies in memory.
    plan = context.pipelines.plan_memory(*distinct)
    run = _GenerationRun(context, resolved, images, tracker)
    failure: OutOfMemory | None = None
    try:
        run.generate_images(plan)
    except OutOfMemory as error:
        failure = error.with_traceback(None)  # its frames hold what has to go
    # 3. Once more, more sparingly, for the images that are left.
    if failure:
        lower_plan = context.pipelines.lower_plan(plan, *distinct)
        if lower_plan is None:
            raise failure
        run.add_note(MEMORY_RAN_OUT_NOTE)
        run.generate_images(lower_plan)
    return {
        "pictures": run.images,
        "request": (images[0] if len(images) == 1 else resolved).model_dump(mode="json"),
        "notes": run.notes,
        "seconds": round(time.perf_counter() - start_time, 3),
    }


def _group_by_loras(images: Sequence[ResolvedRequest]) -> list[list[ResolvedRequest]]:
    """Split images into runs that have the same LoRAs: templates may bring others for each."""
    return [list(group) for _, group in groupby(images, key=lambda image: image.loras)]


def _select_distinct(images: Sequence[ResolvedRequest]) -> list[ResolvedRequest]:
    """Return the first image of each different wording."""
    distinct: dict[Any, ResolvedRequest] = {}
    for image in images:
        distinct.setdefault((image.prompts, image.loras), image)
    return list(distinct.values())


class _GenerationRun:
    """The images of one request, and how far they are."""

    # What the present plan brings: the model as it is lent, what its images' digests hold.
    model: LoadedModel
    # Both by prompts.
    content_hashes: Mapping[tuple[str, str], Mapping[str, str]]
    used_files: Mapping[tuple[str, str], UsedFiles]
    saver: ThreadPoolExecutor

    def __init__(
        self,
        context: WorkerContext,
        request: ResolvedRequest,
        image_requests: Sequence[ResolvedRequest],
        tracker: ProgressTracker,
    ) -> None:
        self.context = context
        self.request = request
        self.image_requests = image_requests
        self.tracker = tracker
        self.images: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._pending_saves: deque[Future[dict[str, Any]]] = deque()
        self._last_report: tuple[int, str] = 0, ""
        self.steps_per_image = rules.count_steps(request, request.size)
        self.steps_before = 0  # of all images in earlier batches

    def add_note(self, note: str) -> None:
        """Report a note, and keep it for the result; each once."""
        if note not in self.notes:
            self.notes.append(note)
            self.tracker.report(self._last_report[0], note, images=tuple(self.images))

    def generate_images(self, plan: MemoryPlan) -> None:
        """Make the images that are not there yet, with the model in memory as a plan says.

        Each is saved when it is ready. Raises OutOfMemory.
        """
        for note in plan.notes:
            self.add_note(note)
        self.tracker.report(self._last_report[0], "Loading the model", images=tuple(self.images))
        for group in _group_by_loras(self.image_requests[len(self.images) :]):
            self._generate_group(group, plan)

    def _generate_group(self, requests: Sequence[ResolvedRequest], plan: MemoryPlan) -> None:
        """Make images that have the same LoRAs."""
        first, *others = _select_distinct(requests)
        # Of all images: what says that memory does not suffice says how many were made at once.
        first = first.model_copy(update={"num_images": len(requests)})
        distinct = [first, *others]
        # 1. The model, with its LoRAs on.
        with self.context.pipelines.borrow(*distinct, plan=plan) as model:
            self.model = model
            self.content_hashes = {
                request.prompts: self.context.pipelines.content_hashes(request, plan)
                for request in distinct
            }
            library = self.context.home.library
            self.used_files = {
                request.prompts: list_used_files(
                    library, request, self.content_hashes[request.prompts]
                )
                for request in distinct
            }
            for active in model.active_adapters:
                if active.adapter and active.adapter.warning:
                    self.add_note(active.adapter.warning)
            for component, path in list_chosen_files(model.info).items():
                title = COMPONENT_TITLES.get(component, "text encoder")
                self.add_note(f"Generated with the {title} in {path.name}.")
            index = self.context.home.library.index_embeddings(model.info, distinct)
            notes = [
                note for request in distinct for note in list_family_notes(request, model.family)
            ]
            for note in [*notes, *index.resolve(distinct).notes]:
                self.add_note(note)
            # 2. The prompts, each once for all images.
            self.tracker.report(
                self._last_report[0], "Encoding the prompt", images=tuple(self.images)
            )
            conditionings = {
                request.prompts: encode_prompts(model, request) for request in distinct
            }
            # 3. The images.
            with ThreadPoolExecutor(1) as self.saver:  # files are written beside the next steps
                self._generate_batches(requests, conditionings)

    def _generate_batches(
        self,
        requests: Sequence[ResolvedRequest],
        conditionings: Mapping[tuple[str, str], Conditioning],
    ) -> None:
        """Make as many images at once as was asked for; those that are ready are kept."""
        self.tracker.start(self.steps_before)
        try:
            for first in range(0, len(requests), self.request.batch_size):
                batch = requests[first : first + self.request.batch_size]
                inputs = self.context.home.inputs
                tasks = [
                    prepare_task(self.model, request, conditionings[request.prompts], inputs)
                    for request in batch
                ]
                self._generate_batch(tasks)
        finally:
            num_reported = len(self.images)
            self._collect_saves(wait=True)
            self.steps_before = self.steps_per_image * len(self.images)
            if len(self.images) > num_reported:
                self._report(*self._last_report)

    def _generate_batch(self, tasks: list[ImageTask]) -> None:
        """Make some images together, and save each as it ends.

        Raises what is wrong with one of them.
        """
        preview_every = self.context.settings.preview_every
        num_images = len(tasks)
        runner = TrajectoryRunner(self.model, num_images, Enlarger(self.context))
        num_rows = sum(
            rules.count_unet_rows(task.request, self.request.size, self.model.is_distilled)
            for task in tasks
        )
        message = self._describe_batch(num_images)
        last_preview_step = step = 0
        start_time = time.perf_counter()

        def on_call() -> None:
            nonlocal last_preview_step, step
            step = self.steps_per_image * runner.rows // num_rows  # of one image
            preview = None
            if preview_every and last_preview_step + preview_every <= step < self.steps_per_image:
                last_preview_step = step
                preview = render_preview(self.model, tasks)
            self._report(self.steps_before + step * num_images, message, preview)

        self._report(self.steps_before, message)
        try:
            for task, image, seconds in runner.run(list(tasks), on_call):
                if isinstance(image, StudioError):
                    raise image
                self._pending_saves.append(
                    self.saver.submit(self._save_image, image, task, seconds)
                )
                num_left = self.request.num_images - len(self.images) - len(self._pending_saves)
                self._collect_saves(wait=not num_left)  # nothing is left to do meanwhile
                is_unplanned = task.is_tiled and not self.model.plan.is_tiled
                if is_unplanned and task.tiles_note not in self.notes:
                    self.notes.append(task.tiles_note)
                tasks.remove(task)
                step = self.steps_per_image * runner.rows // num_rows
                self._report(self.steps_before + step * num_images, message)
        except Cancelled:
            self._save_unfinished(tasks, step, time.perf_counter() - start_time)
            raise
        self.steps_before += self.steps_per_image * num_images

    def _save_unfinished(self, tasks: Sequence[ImageTask], step: int, seconds: float) -> None:
        """Save what a stop cut short as far as it is; nothing of what has not begun."""
        stopped_at = f"step {step} of {self.steps_per_image}"
        for task in tasks:
            with suppress(StudioError):  # memory may not suffice, and nothing is owed any more
                image = render_unfinished(self.model, task)
                if image:
                    task.stopped_at = stopped_at
                    save = self.saver.submit(self._save_image, image, task, seconds)
                    self._pending_saves.append(save)

    def _describe_batch(self, num_images: int) -> str:
        if self.request.num_images == 1:
            return "Generating"
        first = len(self.images) + 1
        subject = f"image {first}"
        if num_images > 1:
            subject = f"images {first} to {first + num_images - 1}"
        return f"Generating {subject} of {self.request.num_images}"

    def _report(self, step: int, message: str, preview: bytes | None = None) -> None:
        self._last_report = step, message
        self._collect_saves()
        self.tracker.report(step, message, images=tuple(self.images), preview=preview)

    def _collect_saves(self, wait: bool = False) -> None:
        """Take the images that are saved, in order; raise what went wrong, such as a full disk."""
        while self._pending_saves and (wait or self._pending_saves[0].done()):
            self.images.append(self._pending_saves.popleft().result())

    def _save_image(self, image: Image.Image, task: ImageTask, seconds: float) -> dict[str, Any]:
        content_hashes = self.content_hashes[task.request.prompts]
        # An unfinished image is another than the whole one, which nothing is to take it for.
        digest = task.request.digest({**content_hashes, **task.stopped_contents})
        saved = self.context.home.gallery.save(
            image,
            task.request,
            digest=digest,
            content_hashes={**content_hashes, **task.extra_contents},
            seconds=seconds,
            owner=self.context.owner,
            used_files=self.used_files[task.request.prompts],
        )
        return {
            "path": str(saved.path),
            "thumb": str(saved.thumbnail),
            "digest": digest,
            "seconds": round(seconds, 3),
            "seed": task.request.seed,
            **task.stopped_contents,
        }
