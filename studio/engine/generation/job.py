"""The work behind Generate: a request → images in the gallery.

Knows: the order of things, what to report, how an image becomes pixels.
Does not know: who asked, the job table, the page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from studio.core.base import validate
from studio.core.generation import rules
from studio.core.generation.family_rules import list_family_notes
from studio.core.generation.request import SEED_LIMIT, GenerationRequest, ResolvedRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.guidance import build_guidance
from studio.engine.generation.trajectory_runner import (
    ImageTask,
    TrajectoryRunner,
    prepare_task,
    render_preview,
)
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.errors import StudioError


def generate(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Make the images of one request.

    Each is saved when it is ready: what was finished before a stop stays.

    Args:
        context: The worker's.
        spec: A `GenerationRequest` as JSON values.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        The images, the request with nothing left open, notes, and the seconds it took.
    """
    start_time = time.perf_counter()
    # 1. What exactly is asked for.
    request = validate(GenerationRequest, spec)
    info = context.home.library.check_request(request)
    resolved = context.home.inputs.resolve(request, info.native_size, secrets.randbelow(SEED_LIMIT))
    steps_per_image = rules.count_steps(resolved, resolved.size)
    tracker = ProgressTracker(report, steps_per_image * resolved.num_images)
    tracker.report(0, "Loading the model")
    # 2. The model, with its LoRAs on.
    with context.pipelines.borrow(request) as model:
        notes = [
            active.adapter.warning
            for active in model.active_adapters
            if active.adapter and active.adapter.warning
        ]
        notes += list_family_notes(resolved, model.family)
        for note in notes:
            tracker.report(0, note)
        # 3. The prompt, once for all images.
        tracker.report(0, "Reading the prompt")
        conditioning = encode_prompts(model, resolved)
        # 4. The images, as many at once as was asked for.
        run = _GenerationRun(context, model, resolved, tracker)
        requests = resolved.split()
        tracker.start()
        for first in range(0, len(requests), resolved.batch_size):
            batch = requests[first : first + resolved.batch_size]
            run.generate_batch(
                [prepare_task(model, one, conditioning, context.home.inputs) for one in batch]
            )
    return {
        "pictures": run.images,
        "request": resolved.model_dump(mode="json"),
        "notes": notes,
        "seconds": round(time.perf_counter() - start_time, 3),
    }


class _GenerationRun:
    """The images of one request, and how far they are."""

    def __init__(
        self,
        context: WorkerContext,
        model: LoadedModel,
        request: ResolvedRequest,
        tracker: ProgressTracker,
    ) -> None:
        self.context = context
        self.model = model
        self.request = request
        self.tracker = tracker
        self.images: list[dict[str, Any]] = []
        self.content_hashes = context.pipelines.content_hashes(request)
        self.steps_per_image = rules.count_steps(request, request.size)
        self.steps_before = 0  # of all images in earlier batches

    def generate_batch(self, tasks: list[ImageTask]) -> None:
        """Make some images together, and save each as it ends.

        Raises what is wrong with one of them.
        """
        preview_every = self.context.settings.preview_every
        num_images = len(tasks)
        runner = TrajectoryRunner(self.model, num_images)
        num_calls = rules.count_model_calls(self.request, self.request.size)
        num_rows = num_calls * build_guidance(self.model, self.request).branches * num_images
        message = self._describe_batch(num_images)
        last_preview_step = 0

        def on_call() -> None:
            nonlocal last_preview_step
            step = self.steps_per_image * runner.rows // num_rows  # of one image
            preview = None
            if preview_every and last_preview_step + preview_every <= step < self.steps_per_image:
                last_preview_step = step
                preview = render_preview(self.model, tasks)
            self._report(self.steps_before + step * num_images, message, preview)

        self._report(self.steps_before, message)
        for task, image, seconds in runner.run(list(tasks), on_call):
            if isinstance(image, StudioError):
                raise image
            self._save_image(image, task.request, seconds)
            tasks.remove(task)
            step = self.steps_per_image * runner.rows // num_rows
            self._report(self.steps_before + step * num_images, message)
        self.steps_before += self.steps_per_image * num_images

    def _describe_batch(self, num_images: int) -> str:
        if self.request.num_images == 1:
            return "Painting"
        first = len(self.images) + 1
        subject = f"picture {first}"
        if num_images > 1:
            subject = f"pictures {first} to {first + num_images - 1}"
        return f"Painting {subject} of {self.request.num_images}"

    def _report(self, step: int, message: str, preview: bytes | None = None) -> None:
        self.tracker.report(step, message, images=tuple(self.images), preview=preview)

    def _save_image(self, image: Image.Image, request: ResolvedRequest, seconds: float) -> None:
        digest = request.digest(self.content_hashes)
        saved = self.context.home.gallery.save(
            image,
            request,
            digest=digest,
            content_hashes=self.content_hashes,
            seconds=seconds,
            owner=self.context.owner,
        )
        self.images.append(
            {
                "path": str(saved.path),
                "thumb": str(saved.thumbnail),
                "digest": digest,
                "seconds": round(seconds, 3),
                "seed": request.seed,
            }
        )
