"""The work behind Upscale: an image → the same, larger, in the gallery.

Knows: the order of things, what to report.
Does not know: who asked, the job table, the page; how an image is enlarged (enlarge.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from studio.core.base import validate, validate_stored
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord, UpscaleSpec, compute_upscale_digest
from studio.engine.context import WorkerContext
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.engine.upscaling.enlarge import enlarge_alpha, enlarge_image
from studio.imaging.transparency import split_transparency
from studio.storage.models.upscalers import UpscalerFile

FALLBACK_SIDE_PX = 512  # of the settings that stand in where an image has none


def upscale(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Make one image larger, without painting anything.

    Args:
        context: The worker's.
        spec: An `UpscaleSpec` as JSON values, and under "request" what the image was made with;
            None where that is not known.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        The image, what it was made with, and the seconds it took.
    """
    start_time = time.perf_counter()
    values = dict(spec)
    request_values = values.pop("request", None)
    upscale_spec = validate(UpscaleSpec, values)
    library = context.home.library
    image = context.home.inputs.load(upscale_spec.image, keeps_transparency=True)
    colours, alpha = split_transparency(image)
    size = upscale_spec.compute_size(image.size)
    upscaler = library.upscalers.read(
        upscale_spec.upscaler
        or library.upscalers.choose_default(
            _read_request(request_values), upscale_spec.compute_scale(image.size)
        )
    )
    tracker = ProgressTracker(report, 1)
    tracker.report(0, "Loading the upscaler")

    def report_tile(done: int, total: int) -> None:
        if tracker.total != total or not tracker.is_started:
            tracker.total = total
            tracker.start()
        tracker.report(done, f"Enlarging with {upscaler.name}")

    enlarged = enlarge_image(context.pipelines, upscaler, colours, size, report_tile)
    if alpha is not None:
        enlarged.putalpha(enlarge_alpha(upscaler, alpha, size))
    seconds = time.perf_counter() - start_time
    settings = _read_request(request_values)
    entry = _save_image(context, enlarged, upscale_spec, (upscaler, settings), seconds)
    tracker.report(tracker.total, "Done", images=(entry,))
    return {
        "pictures": [entry],
        "upscaler": upscaler.name,
        "size": list(size),
        "seconds": round(seconds, 3),
    }


def _save_image(
    context: WorkerContext,
    image: Image.Image,
    spec: UpscaleSpec,
    origin: tuple[UpscalerFile, ResolvedRequest | None],
    seconds: float,
) -> dict[str, Any]:
    """Save the result in the gallery; return its entry in the job's result."""
    upscaler, request = origin
    width, _ = context.home.inputs.read_size(spec.image)
    content_hashes = {"upscaler": upscaler.content_hash}
    if upscaler.path:
        device = context.pipelines.device
        content_hashes |= {"dtype": device.dtype_name, "device": device.kind}
    digest = compute_upscale_digest(spec.image, image.size, content_hashes)
    record = UpscaleRecord(
        image=spec.image,
        upscaler=upscaler.name,
        scale=round(image.width / width, 4),
        has_settings=request is not None,
    )
    saved = context.home.gallery.save(
        image,
        request or _build_stand_in(spec.image),
        digest=digest,
        content_hashes=content_hashes,
        seconds=seconds,
        owner=context.owner,
        upscale=record,
    )
    return {
        "path": str(saved.path),
        "thumb": str(saved.thumbnail),
        "digest": digest,
        "seconds": round(seconds, 3),
        "seed": saved.request.seed,
    }


def _read_request(values: Mapping[str, Any] | None) -> ResolvedRequest | None:
    return validate_stored(ResolvedRequest, values) if values else None


def _build_stand_in(image: str) -> ResolvedRequest:
    """Return the settings of an image of which none are known: nothing but the image itself."""
    return GenerationRequest(image=image).resolve(FALLBACK_SIDE_PX, 0)
