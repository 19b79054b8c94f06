"""What a sweep costs: the order in which dear changes are rare, and what that order will take.

Knows: how dear a change of each field is (the fields say so), how often models are loaded, texts encoded and the U-Net asked.
Does not know: this machine; what was measured on it is handed in, and where nothing was, the answer is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from studio.core.base import Value, extra
from studio.core.catalog import AXES
from studio.core.generation.geometry import Size
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.core.generation.rules import passes, rows, work

__all__ = ["Prediction", "Rates", "order", "pixels", "predict", "rows", "size_of", "text_encoder"]


class Rates(Value):
    """What was measured with one model on this machine; None where nothing was."""

    side: int | None = (
        None  # of the pictures it was made for, for requests that leave the size open
    )
    load: float | None = None  # seconds until it is ready
    encode: float | None = None  # seconds for one prompt
    row: float | None = (
        None  # seconds for a million pixels through the U-Net once, as the gallery measures
    )
    held: int | None = None  # bytes that it takes
    pixel: float | None = None  # bytes more for each pixel of a picture that is being painted


class Prediction(Value):
    """What a plan will take. Seconds and bytes are None where a model was not measured."""

    cells: int
    loads: int  # of a model
    encodes: int  # of a text, by each model, clip skip and state of the text encoder
    rows: int  # of the U-Net
    loading: float | None  # seconds
    encoding: float | None
    painting: float | None
    memory: int | None  # bytes, at the dearest cell

    @property
    def seconds(self) -> float | None:
        """Altogether."""
        parts = [part for part in (self.loading, self.encoding, self.painting) if part is not None]
        return sum(parts) if len(parts) == 3 else None


def order(requests: Sequence[GenerationRequest]) -> tuple[int, ...]:
    """Indexes of the requests as they are to run: the dearer a change, the rarer; else they stay in turn."""
    levels = sorted(_levels(), key=lambda level: -level[0])
    ranks: list[dict[Any, int]] = [{} for _ in levels]
    keys = [
        tuple(
            rank.setdefault(what, len(rank))
            for rank, what in zip(ranks, (see(request) for _, see in levels))
        )
        for request in requests
    ]
    return tuple(sorted(range(len(requests)), key=keys.__getitem__))


def predict(running: Sequence[GenerationRequest], rates: Mapping[str, Rates]) -> Prediction:
    """What single pictures (count 1) will take in this order."""
    models = [request.model for request in running]
    loaded = [model for before, model in zip([None, *models], models) if model != before]
    # As the engine does it: both prompts, guided or not, each once for as long as the model stays.
    encoded = {
        (request.model, text_encoder(request), request.clip_skip, text)
        for request in running
        for text in (request.prompt, request.negative_prompt)
    }

    def rate(model: str) -> Rates:
        return rates.get(model, Rates())

    def painting(request: GenerationRequest) -> float | None:
        size = size_of(request, rate(request.model))
        return _times(rate(request.model).row, None if size is None else work(request, *size))

    def memory(request: GenerationRequest) -> float | None:
        held = rate(request.model).held
        more = _times(rate(request.model).pixel, pixels(request, rate(request.model)))
        return None if held is None or more is None else held + more * request.batch

    most = [memory(request) for request in running]
    known = [bytes_ for bytes_ in most if bytes_ is not None]
    return Prediction(
        cells=len(running),
        loads=len(loaded),
        encodes=len(encoded),
        rows=sum(map(rows, running)),
        loading=_sum(rate(model).load for model in loaded),
        encoding=_sum(rate(model).encode for model, *_ in encoded),
        painting=_sum(map(painting, running)),
        memory=round(max(known)) if known and len(known) == len(most) else None,
    )


def pixels(request: GenerationRequest, rates: Rates) -> float | None:
    """Of one picture at its largest; None where its size is not known."""
    found = size_of(request, rates)
    return (
        None
        if found is None
        else found[0] * found[1] * max((area for _, area in passes(request)), default=1.0)
    )


def size_of(request: GenerationRequest, rates: Rates) -> Size | None:
    """(width, height) that is painted first; None if it takes the model's own size or a picture's and nobody told that."""
    side = None if request.image else rates.side
    width, height = request.width or side, request.height or side
    return (width, height) if width and height else None


def text_encoder(request: GenerationRequest) -> tuple[tuple[str, float], ...]:
    """What LoRAs do to the text encoder: each with its weight there."""
    return tuple(
        sorted((lora.name, lora.text_encoder) for lora in _loras(request) if lora.text_encoder)
    )


def _levels() -> list[tuple[int, Callable[[GenerationRequest], Any]]]:
    """How dear a change is, and what changes."""
    levels: list[tuple[int, Callable[[GenerationRequest], Any]]] = [
        (AXES["lora"].cost, lambda request: tuple(sorted(lora.name for lora in _loras(request)))),
        (AXES["lora_text_encoder"].cost, text_encoder),
        (
            AXES["lora_unet"].cost,
            lambda request: tuple(sorted((lora.name, lora.unet) for lora in _loras(request))),
        ),
    ]
    for name in GenerationRequest.model_fields:
        cost = extra(GenerationRequest, name).get("cost", 0)
        if cost and name != "loras":
            levels.append((cost, lambda request, name=name: getattr(request, name)))  # type: ignore[misc]
    return levels


def _loras(request: GenerationRequest) -> tuple[LoraUse, ...]:
    return request.untagged().loras


def _times(rate: float | None, amount: float | None) -> float | None:
    return None if rate is None or amount is None else rate * amount


def _sum(parts: Iterable[float | None]) -> float | None:
    listed = list(parts)
    known = [part for part in listed if part is not None]
    return sum(known) if len(known) == len(listed) else None
