"""Short jobs between two steps of a long one: images, captions, searches while a LoRA is trained.

Knows: which waiting job is short enough, and whether it fits beside what the long work needs.
Does not know: how a job is done and recorded (worker.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.core.base import validate_stored
from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import ENDPOINT
from studio.core.generation.request import GenerationRequest
from studio.core.generation.rules import count_steps
from studio.core.jobs import CAPTION, CLIP_SEARCH, GENERATE, JOB_KINDS
from studio.engine.context import WorkerContext
from studio.errors import DiskError, StudioError
from studio.storage.jobs import Job, Jobs

# Steps of all images of a job that may be done between two steps of a long work.
MAX_INTERLEAVED_STEPS = 500
# Images of a captioning or a search; more of them would hold up the long work for long.
MAX_INTERLEAVED_IMAGES = 200
PEEK_SECONDS = 0.05  # between two looks for a job to let in between
MAX_REMEMBERED_COUNTS = 100
# A model takes about its file's size, and half precision on disk may be single on the device.
LOADED_SIZE_FACTOR = 2


class Interleaver:
    """Lets short jobs into long ones, on one worker.

    A kind of work is never let into itself, so that works are nested three deep at most: a search
    into a captioning into a training.

    Args:
        context: The worker's stores and models.
        jobs: The job table.
        device: Whose jobs are taken.
        run_job: Does a claimed job and records how it ended.
    """

    def __init__(
        self, context: WorkerContext, jobs: Jobs, device: str, run_job: Callable[[Job], None]
    ) -> None:
        self._context = context
        self._jobs = jobs
        self._device = device
        self._run_job = run_job
        self._open_kinds: list[str] = []
        self._reserved_bytes: list[int] = []  # what the works that wait still need
        self._image_counts: dict[int, int] = {}  # of a waiting job's dataset, by the job's id
        self._last_peek_time = 0.0

    @contextmanager
    def hold_open(self, kind: str) -> Iterator[None]:
        """Count a kind of work as begun, so that no second one of it is let in."""
        self._open_kinds.append(kind)
        try:
            yield
        finally:
            self._open_kinds.pop()

    def interleave_job(self, required_bytes: int) -> bool:
        """Do a waiting job that is short and fits beside the long work.

        Returns whether there was one. The long work has a model of its own and draws nothing from
        global state, so it does not notice.
        """
        if time.monotonic() - self._last_peek_time < PEEK_SECONDS:
            return False
        self._last_peek_time = time.monotonic()
        try:
            waiting = self._find_job(required_bytes)
            job = self._jobs.claim(self._device, waiting.id) if waiting else None
        except DiskError:  # the long work goes on as long as it can
            return False
        if job is None:
            return False
        self._reserved_bytes.append(required_bytes)
        try:
            self._run_job(job)
        finally:
            self._reserved_bytes.pop()
        return True

    def _find_job(self, required_bytes: int) -> Job | None:
        """Return the first waiting job of each kind that may be let in now, if any."""
        total_bytes = required_bytes + sum(self._reserved_bytes)
        for kind in JOB_KINDS.values():
            if not kind.is_interleavable or kind.name in self._open_kinds:
                continue
            waiting = self._jobs.peek(kind.name)
            if waiting and self._can_interleave(waiting, total_bytes):
                return waiting
        return None

    def _can_interleave(self, job: Job, required_bytes: int) -> bool:
        try:
            match job.kind:
                case GENERATE.name:
                    return self._fits_generation(job, required_bytes)
                case CAPTION.name:
                    return self._fits_captioning(job, required_bytes)
                case CLIP_SEARCH.name:
                    return self._fits_search(job, required_bytes)
        except StudioError:
            return True  # it says so itself, at once
        return False

    def _fits_generation(self, job: Job, required_bytes: int) -> bool:
        request = validate_stored(GenerationRequest, job.spec)
        model = self._context.home.library.get_model(request.model)
        resolved = self._context.home.inputs.resolve(request, model.native_size, 0)
        if count_steps(resolved, resolved.size) * request.num_images > MAX_INTERLEAVED_STEPS:
            return False
        return bool(self._context.pipelines.can_run_concurrently(request, required_bytes))

    def _fits_captioning(self, job: Job, required_bytes: int) -> bool:
        spec = validate_stored(CaptionSpec, job.spec)
        if not self._is_short(job, spec.dataset, spec.pictures):
            return False
        if spec.captioner == ENDPOINT:  # it needs no memory here
            return True
        info = self._context.pipelines.transformers_models.get_captioner(spec.captioner)
        return self._context.pipelines.can_lend_concurrently(
            LOADED_SIZE_FACTOR * info.size_bytes, required_bytes
        )

    def _fits_search(self, job: Job, required_bytes: int) -> bool:
        spec = validate_stored(ClipQuerySpec, job.spec)
        if not self._is_short(job, spec.dataset, spec.pictures):
            return False
        info = self._context.pipelines.transformers_models.get_clip_model(spec.clip)
        return self._context.pipelines.can_lend_concurrently(
            LOADED_SIZE_FACTOR * info.size_bytes, required_bytes
        )

    def _is_short(self, job: Job, dataset_name: str, keys: tuple[str, ...]) -> bool:
        """Return whether a job looks at few images; its dataset is counted once."""
        if "folder" in job.spec:  # of a program of this machine: it may be any folder
            return False
        if keys:
            return len(keys) <= MAX_INTERLEAVED_IMAGES
        if job.id not in self._image_counts:
            if len(self._image_counts) >= MAX_REMEMBERED_COUNTS:
                self._image_counts.clear()
            dataset = self._context.home.datasets.open(dataset_name)
            self._image_counts[job.id] = len(dataset.images)
        return self._image_counts[job.id] <= MAX_INTERLEAVED_IMAGES
