"""A denoise strip: how one image came out of the noise, step by step, on a labelled sheet.

Knows: which steps are shown, what is written on them. Does not know: the loop (generation/), how a
    sheet is drawn (sheet.py).
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

from studio.core.base import validate_stored
from studio.core.catalog import SCHEDULERS
from studio.core.generation.request import SEED_LIMIT, GenerationRequest, ResolvedRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory_runner import decode_latents, prepare_task
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.engine.sweeps.results import Table, TableAxis, TableCell
from studio.engine.sweeps.sheet import render_pages
from studio.errors import InvalidSpec, StudioError, quote
from studio.storage.gallery import ImageOrigin
from studio.storage.models.used_files import list_used_files

MAX_STEP_INTERVAL = 150


def render_denoise_strip(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Make an image again and save a sheet of its steps in the gallery, under its settings.

    Shown are the latents as the U-Net is shown them, noise and all, and at last the finished ones;
    a second pass is left out.

    Args:
        context: The worker's.
        spec: "request", of which the first image is made, and "every", the interval of the steps.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        What `generate` returns.

    Raises:
        InvalidSpec: The interval is none, or the request has no steps.
    """
    start_time = time.perf_counter()
    step_interval = spec.get("every")
    if (
        isinstance(step_interval, bool)
        or not isinstance(step_interval, int)
        or not 1 <= step_interval <= MAX_STEP_INTERVAL
    ):
        raise InvalidSpec(
            [
                f"Strip: the interval must be a whole number from 1 to {MAX_STEP_INTERVAL} "
                f"(you entered {quote(step_interval)})."
            ]
        )
    request = validate_stored(GenerationRequest, spec.get("request") or {})
    if request.is_open:  # of several pictures the first is shown
        seed = secrets.randbelow(SEED_LIMIT)
        request = request.write_out(context.home.prompt_files, seed)
        if request.seed < 0:
            request = request.model_copy(update={"seed": seed})
    if not request.effective_steps:
        raise InvalidSpec(
            [
                "Strip: an image that is only enlarged has no steps to show; choose a denoising "
                "strength above 0."
            ]
        )
    tracker = ProgressTracker(report, request.effective_steps)
    tracker.report(0, "Loading the model")
    plan = context.pipelines.plan_memory(request)
    with context.pipelines.borrow(request, plan=plan) as model:
        resolved = context.home.inputs.resolve(
            request, model.info.native_size, secrets.randbelow(SEED_LIMIT)
        )
        content_hashes = context.pipelines.content_hashes(resolved, plan)
        first = resolved.split()[0]
        frames, seconds = _render_frames(context, model, first, step_interval, tracker)
    tracker.report(first.effective_steps, "Drawing the strip")
    identity = f"strip {step_interval} {first.digest(content_hashes)}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    strip = _draw_strip(first, step_interval, frames)
    saved = context.home.gallery.save(
        strip,
        first,
        digest=digest,
        content_hashes=content_hashes,
        seconds=seconds,
        owner=context.owner,
        used_files=list_used_files(context.home.library, first, content_hashes),
        origin=ImageOrigin("strip"),
    )
    image = {
        "path": str(saved.path),
        "thumb": str(saved.thumbnail),
        "digest": digest,
        "seconds": round(seconds, 3),
        "seed": first.seed,
    }
    return {
        "pictures": [image],
        "request": first.model_dump(mode="json"),
        "notes": plan.notes,
        "seconds": round(time.perf_counter() - start_time, 3),
    }


def _render_frames(
    context: WorkerContext,
    model: LoadedModel,
    request: ResolvedRequest,
    step_interval: int,
    tracker: ProgressTracker,
) -> tuple[list[tuple[str, Image.Image]], float]:
    """Return labels and images of the steps, and the seconds that the U-Net took."""
    conditioning = encode_prompts(model, request)
    trajectory = prepare_task(model, request, conditioning, context.home.inputs).trajectory
    assert trajectory
    batcher, num_steps = Batcher(model, 1), request.effective_steps
    info = SCHEDULERS[request.scheduler]
    frames: list[tuple[str, Image.Image]] = []
    rendered_steps: set[int] = set()
    timesteps: set[float] = set()

    def on_call() -> None:
        latents, timestep = trajectory.last_input
        timesteps.add(timestep)
        step = (batcher.calls - 1) // info.calls_per_step
        if info.repeats_second_timestep:
            step = len(timesteps) - 1
        step = min(step, num_steps - 1)
        if step % step_interval == 0 and step not in rendered_steps:
            rendered_steps.add(step)
            image = decode_latents(model, latents, trajectory.request.size)
            frames.append((f"step {step + 1} · t {timestep:.0f}", image))
        tracker.report(step + 1, "Generating")

    tracker.start()
    ((_, latents, seconds),) = batcher.denoise([trajectory], on_call)
    if isinstance(latents, StudioError):
        raise latents
    frames.append(("finished", decode_latents(model, latents, trajectory.request.size)))
    return frames, seconds


def _draw_strip(
    request: ResolvedRequest, step_interval: int, frames: list[tuple[str, Image.Image]]
) -> Image.Image:
    """Draw the first page of a sheet: strips are small enough for one."""
    settings = [
        ("Model", request.model),
        ("Sampler", f"{request.scheduler} · {request.noise_schedule}"),
        ("Steps", str(request.steps)),
        ("CFG scale", f"{request.guidance:g}"),
        ("Seed", str(request.seed)),
    ]
    if request.image:
        settings.append(("Denoising strength", f"{request.strength:g}"))
    interval = f"before every {step_interval} steps"
    if step_interval == 1:
        interval = "before every step"
    with tempfile.TemporaryDirectory() as folder:
        cells: dict[tuple[int, ...], TableCell] = {}
        for number, (_, image) in enumerate(frames):
            path = Path(folder) / f"{number}.png"
            image.save(path)
            cells[(number,)] = TableCell(path)
        axis = TableAxis("Step", tuple(label for label, _ in frames))
        title = request.prompt[:300] or "no prompt"
        table = Table("strip", title, (axis,), cells, tuple(settings), interval)
        return next(render_pages(table))
