"""What a sweep costs: the order in which expensive changes are rare, and the time of that order.

Knows: how expensive a change of each field is (the fields say so), how often models are loaded,
texts encoded and the U-Net run.
Does not know: this machine; its measurements are handed in, and without them the answer is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from studio.core.base import Spec, field_meta
from studio.core.catalog import SPECIAL_AXES
from studio.core.generation.geometry import Size
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.core.generation.rules import count_unet_rows, estimate_unet_megapixels, plan_passes

__all__ = [
    "CostEstimate",
    "ModelTimings",
    "compute_peak_pixels",
    "estimate_cost",
    "get_first_pass_size",
    "get_text_encoder_loras",
    "order_requests",
]


class ModelTimings(Spec):
    """What was measured with one model on this machine; None where nothing was."""

    native_size: int | None = None  # px, of its training images; for requests without a size
    load: float | None = None  # seconds until it is ready
    encode: float | None = None  # seconds for one prompt
    # Seconds for a million pixels through the U-Net once, as the gallery measures them.
    seconds_per_megapixel: float | None = None
    model_bytes: int | None = None  # of the loaded model
    bytes_per_pixel: float | None = None  # in addition, for each pixel of an image in the making


class CostEstimate(Spec):
    """What a plan will take. Seconds and bytes are None where a model was not measured."""

    cells: int
    loads: int  # of a model
    encodes: int  # of a text, by each model, clip skip and state of the text encoder
    rows: int  # of the U-Net
    loading: float | None  # seconds
    encoding: float | None
    painting: float | None
    memory: int | None  # bytes, at the most expensive cell

    @property
    def seconds(self) -> float | None:
        """The sum of loading, encoding and painting; None if one of them is not known."""
        return _sum_known((self.loading, self.encoding, self.painting))


def order_requests(requests: Sequence[GenerationRequest]) -> tuple[int, ...]:
    """Order requests so that the more expensive a change is, the rarer it becomes.

    Returns:
        Indexes of the requests in the order in which to run them; equal ones stay in turn.
    """
    levels = sorted(_list_change_costs(), key=lambda level: -level[0])
    ranks: list[dict[Any, int]] = [{} for _ in levels]  # of each setting's values, as they appear
    sort_keys = []
    for request in requests:
        settings = [get_setting(request) for _, get_setting in levels]
        sort_keys.append(
            [rank.setdefault(setting, len(rank)) for rank, setting in zip(ranks, settings)]
        )
    return tuple(sorted(range(len(requests)), key=sort_keys.__getitem__))


USUAL_SIZE: Size = (512, 512)  # in pixels, where nothing says another


def estimate_cost(
    requests: Sequence[GenerationRequest], timings: Mapping[str, ModelTimings]
) -> CostEstimate:
    """Estimate what requests for one image each take when they run in this order.

    Args:
        requests: The requests, ordered.
        timings: What was measured with each model, by its name.
    """
    loaded_models = [model for model, _ in groupby(request.model for request in requests)]
    # As the engine does it: both prompts, guided or not, each once for as long as the model stays.
    encoded_texts = {
        (request.model, get_text_encoder_loras(request), request.clip_skip, text)
        for request in requests
        for text in (request.prompt, request.negative_prompt)
    }

    def get_timings(model: str) -> ModelTimings:
        return timings.get(model, ModelTimings())

    peaks = [_estimate_peak_bytes(request, get_timings(request.model)) for request in requests]
    known_peaks = [peak for peak in peaks if peak is not None]
    all_known = len(known_peaks) == len(peaks)
    return CostEstimate(
        cells=len(requests),
        loads=len(loaded_models),
        encodes=len(encoded_texts),
        rows=sum(_count_rows(request, get_timings(request.model)) for request in requests),
        loading=_sum_known(get_timings(model).load for model in loaded_models),
        encoding=_sum_known(get_timings(model).encode for model, *_ in encoded_texts),
        painting=_sum_known(
            _estimate_painting_seconds(request, get_timings(request.model)) for request in requests
        ),
        memory=round(max(known_peaks)) if known_peaks and all_known else None,
    )


def _count_rows(request: GenerationRequest, timings: ModelTimings) -> int:
    """Return the U-Net rows of one image; where its size is not known, those of a usual one."""
    return count_unet_rows(request, get_first_pass_size(request, timings) or USUAL_SIZE)


def _estimate_painting_seconds(request: GenerationRequest, timings: ModelTimings) -> float | None:
    size = get_first_pass_size(request, timings)
    if size is None:
        return None
    return _multiply_known(timings.seconds_per_megapixel, estimate_unet_megapixels(request, size))


def _estimate_peak_bytes(request: GenerationRequest, timings: ModelTimings) -> float | None:
    image_bytes = _multiply_known(timings.bytes_per_pixel, compute_peak_pixels(request, timings))
    if timings.model_bytes is None or image_bytes is None:
        return None
    return timings.model_bytes + image_bytes * request.batch_size


def compute_peak_pixels(request: GenerationRequest, timings: ModelTimings) -> float | None:
    """Return the pixels of one image in its largest pass; None where its size is not known."""
    size = get_first_pass_size(request, timings)
    if size is None:
        return None
    width, height = size
    return width * height * max((area for _, area in plan_passes(request, size)), default=1.0)


def get_first_pass_size(request: GenerationRequest, timings: ModelTimings) -> Size | None:
    """Return (width, height) in pixels of the first pass.

    None if the request leaves it open and neither the model's native size nor the image that it
    starts from is known here.
    """
    side = None if request.image else timings.native_size
    width = request.width or side
    height = request.height or side
    return (width, height) if width and height else None


def get_text_encoder_loras(request: GenerationRequest) -> tuple[tuple[str, float], ...]:
    """Return (name, weight) of the LoRAs that change the text encoder, sorted."""
    weights = ((lora.name, lora.text_encoder) for lora in _get_loras(request))
    return tuple(sorted((name, weight) for name, weight in weights if weight))


def _list_change_costs() -> list[tuple[int, Callable[[GenerationRequest], Any]]]:
    """Return (cost of a change, function that reads the setting) of everything with a cost."""

    def get_lora_names(request: GenerationRequest) -> tuple[str, ...]:
        return tuple(sorted(lora.name for lora in _get_loras(request)))

    def get_unet_loras(request: GenerationRequest) -> tuple[tuple[str, float], ...]:
        return tuple(sorted((lora.name, lora.unet) for lora in _get_loras(request)))

    levels: list[tuple[int, Callable[[GenerationRequest], Any]]] = [
        (SPECIAL_AXES["lora"].cost, get_lora_names),
        (SPECIAL_AXES["lora_text_encoder"].cost, get_text_encoder_loras),
        (SPECIAL_AXES["lora_unet"].cost, get_unet_loras),
    ]
    for name in GenerationRequest.model_fields:
        cost = field_meta(GenerationRequest, name).get("cost", 0)
        if cost and name != "loras":
            levels.append((cost, attrgetter(name)))
    return levels


def _get_loras(request: GenerationRequest) -> tuple[LoraUse, ...]:
    return request.with_inline_loras().loras


def _multiply_known(rate: float | None, amount: float | None) -> float | None:
    if rate is None or amount is None:
        return None
    return rate * amount


def _sum_known(parts: Iterable[float | None]) -> float | None:
    known = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return sum(known)
