"""What goes together in a request that works on a picture, and which of its settings change anything.

Knows: a request's values. Does not know: pictures and masks themselves (storage/inputs.py), who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from studio.core.catalog import SCHEDULERS
from studio.core.generation import geometry as pictures
from studio.core.generation.geometry import Box

if TYPE_CHECKING:
    from studio.core.generation.request import GenerationRequest

SIDES = ("extend_left", "extend_top", "extend_right", "extend_bottom")
SWITCHES = (
    "image",
    "mask",
    *SIDES,
    "hires_scale",
)  # at their default they are off, and so is all that needs them
# What a setting needs to change anything.
A_PICTURE, ONLY_RESIZED, A_MASK, REPAINTED = (
    "a picture",
    "a picture without a mask",
    "a mask",
    "a mask or an extension",
)
ONLY_MASKED, AN_EXTENSION, A_COLOUR = (
    "an inpaint area of only masked",
    "an extension",
    "an extend fill of colour",
)
A_SECOND_PASS, TILES = "a hires scale above 1", "a hires tile"


def idle(request: GenerationRequest, needs: Mapping[str, str]) -> frozenset[str]:
    """Settings that change nothing in a request, for what they need is not there. A switch that is off is one of them."""
    work = request.task
    repaints, extends = work in ("inpaint", "outpaint"), work == "outpaint"
    there = {
        A_PICTURE: work != "txt2img",
        ONLY_RESIZED: work == "img2img",
        A_MASK: work == "inpaint",
        REPAINTED: repaints,
        ONLY_MASKED: repaints and request.inpaint_area == "only masked",
        AN_EXTENSION: extends,
        A_COLOUR: extends and request.extend_fill == "colour",
        A_SECOND_PASS: request.hires,
        TILES: request.hires and request.hires_tile > 0,
    }
    fields = type(request).model_fields
    off = {name for name in SWITCHES if getattr(request, name) == fields[name].default}
    return frozenset(off | {name for name, need in needs.items() if not there[need]})


def faults(request: GenerationRequest) -> list[str]:
    """A sentence for each thing that cannot be."""
    found = []
    if request.image and request.mask and any(request.extension):
        found.append(
            "Mask: outpainting paints the new area and nothing else; leave out the mask or what is to be extended."
        )
    if request.image and request.strength and not request.steps_run:
        found.append(_too_weak("Strength", request.strength, request.steps))
    if request.image and not request.strength and (not request.hires or request.repaints):
        found.append(
            "Strength: 0 changes nothing; choose more (0 is only for enlarging a picture, with a hires scale above 1)."
        )
    return [*found, *_hires(request)] if request.hires else found


def hires_tiles(request: GenerationRequest) -> list[Box]:
    """What the second pass of a resolved request paints, one by one; a single box where it paints all in one piece."""
    if not request.hires:
        return []
    size = pictures.enlarged((request.width or 512, request.height or 512), request.hires_scale)
    return pictures.tiles(size, request.hires_tile or max(size), request.hires_overlap)


def passes(request: GenerationRequest) -> list[tuple[int, float]]:
    """The passes of one picture: how often each asks the U-Net, and how many times the request's width and height it asks about."""
    info, found = SCHEDULERS[request.scheduler], []
    if request.steps_run:
        found.append((info.asks(request.steps_run, request.steps), 1.0))
    if boxes := hires_tiles(request):
        asks = info.asks(request.hires_steps_run, request.hires_steps or request.steps)
        area = (boxes[0][2] - boxes[0][0]) * (boxes[0][3] - boxes[0][1])  # all are equally large
        found.append((asks * len(boxes), area / (request.width or 512) / (request.height or 512)))
    return found


def all_steps(request: GenerationRequest) -> int:
    """Steps of one picture, over all its passes and tiles."""
    return request.steps_run + request.hires_steps_run * len(hires_tiles(request))


def rows(request: GenerationRequest) -> int:
    """U-Net rows of one picture."""
    return sum(asks for asks, _ in passes(request)) * (2 if request.guided else 1)


def work(request: GenerationRequest, width: int, height: int) -> float:
    """How much one picture asks of the U-Net: millions of pixels times rows."""
    return (
        sum(asks * area for asks, area in passes(request))
        * (2 if request.guided else 1)
        * width
        * height
        / 1e6
    )


def _hires(request: GenerationRequest) -> list[str]:
    found = []
    if request.repaints:
        found.append(
            "Hires scale: a second pass paints the whole picture again, which inpainting and outpainting must not; "
            "choose 1, and enlarge the finished picture."
        )
    if not request.hires_steps_run:
        found.append(
            _too_weak(
                "Hires strength", request.hires_strength, request.hires_steps or request.steps
            )
        )
    if request.hires_tile and request.hires_tile < max(pictures.LEAST, 2 * request.hires_overlap):
        found.append(
            f"Hires tile: has to be {pictures.LEAST} or more and twice the overlap (not {request.hires_tile}, with an "
            f"overlap of {request.hires_overlap})."
        )
    if request.hires_tile and request.hires_resize == "latent":
        found.append("Hires resize: tiles are cut from pixels; choose pixel, or a hires tile of 0.")
    if request.width and request.height:
        width, height = pictures.enlarged((request.width, request.height), request.hires_scale)
        if max(width, height) > pictures.MOST_SIDE or width * height > pictures.MOST_PIXELS:
            found.append(
                f"Hires scale: {width} × {height} is too large; {pictures.MOST_PIXELS // 10**6} million pixels are the "
                "most."
            )
        elif not request.hires_tile and max(width, height) > pictures.MOST_WHOLE:
            found.append(
                f"Hires scale: {width} × {height} is too large for one piece ({pictures.MOST_WHOLE} a side at most); "
                "choose a hires tile."
            )
    return found


def _too_weak(title: str, strength: float, steps: int) -> str:
    return f"{title}: {strength:g} of {steps} steps is less than one; choose {1 / steps:.2g} or more, or more steps."
