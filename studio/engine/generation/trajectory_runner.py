"""One picture from its request to its pixels: what it starts from, and what becomes of the latents.

Knows: the picture and mask of a request, how they become a trajectory's start, what is put back around what was painted, the
second pass. Does not know: the loop, what else is painted meanwhile, the gallery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from studio.core.generation import geometry as sizes
from studio.core.generation import rules
from studio.core.generation.request import MOST_SEEDS, GenerationRequest
from studio.engine.generation import latent_preview
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import Start, Trajectory
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import Conditioning
from studio.errors import InvalidSpec, StudioError
from studio.imaging import canvas, masks
from studio.imaging.canvas import Window
from studio.storage.inputs import Inputs

EMPTY = "Mask: nothing is masked; paint over what shall change (or turn the mask around, or let it grow)."


@dataclass(eq=False)
class Painting:
    """A picture that is to be painted.

    `picture` is the one that is worked on, `mask` and `window` say what of it. Without a trajectory it is only enlarged.
    """

    request: GenerationRequest
    conditioning: Conditioning
    trajectory: Trajectory | None
    picture: Image.Image | None = None
    mask: Image.Image | None = None
    window: Window | None = None
    showing: Trajectory | None = None  # of its second pass, once that has begun

    def estimate(self) -> torch.Tensor | None:
        """What its latents look like so far; None before the first prediction."""
        at = self.showing or self.trajectory
        return at.estimate() if at else None


def begin(
    parts: Parts, request: GenerationRequest, conditioning: Conditioning, inputs: Inputs
) -> Painting:
    """`request` is one picture's, resolved. Raises InvalidSpec for a mask without anything in it, BadPicture."""
    if request.task == "txt2img":
        return Painting(request, conditioning, Trajectory(parts, request, conditioning))
    picture, size = (
        inputs.load(request.image),
        (request.width or parts.info.side, request.height or parts.info.side),
    )
    if request.task == "img2img":
        picture = canvas.resized(picture, size, request.resize_mode)
        if not request.steps_run:
            return Painting(request, conditioning, None, picture)
        start = Start(request.strength, pixels(picture))
        return Painting(
            request, conditioning, Trajectory(parts, request, conditioning, start), picture
        )
    mask = masks.used(
        request, picture.size, inputs.load_mask(request.mask) if request.task == "inpaint" else None
    )
    if request.task == "outpaint":
        picture = canvas.extended(
            picture, request.extension, request.extend_fill, request.extend_colour, request.seed
        )
    if (box := masks.painted_box(request, mask)) is None:
        raise InvalidSpec([EMPTY])
    window = Window.of(box, size)
    shown, hidden = window.cut(picture), window.cut(mask)
    for_latents = torch.from_numpy(canvas.for_latents(hidden, parts.scale))[None, None]
    if not for_latents.any():
        raise InvalidSpec([EMPTY])
    if request.task == "inpaint" and request.masked_content == "fill":
        shown = canvas.filled(shown, hidden)
    hard = torch.from_numpy(canvas.for_latents(hidden, 1))[None, None]
    start = Start(
        request.strength,
        pixels(shown),
        None,
        hard,
        for_latents.to(parts.device.torch, parts.device.dtype),
        request.masked_content if request.task == "inpaint" else "original",
    )
    return Painting(
        request,
        conditioning,
        Trajectory(parts, request, conditioning, start),
        picture,
        mask,
        window,
    )


class Painter:
    """One model and the pictures that are painted with it; `calls` and `rows` count what its U-Net did in both passes."""

    def __init__(self, parts: Parts, most: int = 1) -> None:
        """At most `most` pictures share a U-Net call; second passes are painted one by one."""
        self.parts = parts
        self._first, self._second = Batcher(parts, most), Batcher(parts, 1)

    @property
    def calls(self) -> int:
        return self._first.calls + self._second.calls

    @property
    def rows(self) -> int:
        return self._first.rows + self._second.rows

    def paint(
        self, waiting: Iterable[Painting], on_call: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[Painting, Image.Image | StudioError, float]]:
        """Each picture as soon as it is ready, or why there is none, and its share of the seconds; as Batcher.paint."""
        by_trajectory: dict[Trajectory, Painting] = {}
        only_enlarged: list[Painting] = []

        def first_passes() -> Iterator[Trajectory]:
            for one in waiting:
                if one.trajectory is None:
                    only_enlarged.append(one)
                else:
                    by_trajectory[one.trajectory] = one
                    yield one.trajectory

        for trajectory, latents, seconds in self._first.paint(first_passes(), on_call):
            one = by_trajectory.pop(trajectory)
            if isinstance(latents, StudioError):
                yield one, latents, seconds
            else:
                yield one, *self._finished(one, latents, seconds, on_call)
        for one in only_enlarged:
            yield one, *self._finished(one, None, 0.0, on_call)

    def _finished(
        self,
        one: Painting,
        latents: torch.Tensor | None,
        seconds: float,
        on_call: Callable[[], Any],
    ) -> tuple[Image.Image | StudioError, float]:
        began = time.perf_counter()
        image: Image.Image | StudioError
        try:
            image = (
                self._enlarged(one, latents, on_call)
                if one.request.hires or latents is None
                else decode(self.parts, latents)
            )
        except StudioError as error:
            image = error
        if one.window and one.picture and one.mask and isinstance(image, Image.Image):
            image = canvas.composed(one.picture, image, one.mask, one.window)
        return image, seconds + time.perf_counter() - began

    def _enlarged(
        self, one: Painting, latents: torch.Tensor | None, on_call: Callable[[], Any]
    ) -> Image.Image:
        """The second pass, over the first one's latents or (without them) over the picture itself. Raises StudioError."""
        request, first = one.request, (one.request.width or 0, one.request.height or 0)
        size = sizes.enlarged(first, request.hires_scale)
        again = request.model_copy(
            update={
                "width": size[0],
                "height": size[1],
                "steps": request.hires_steps or request.steps,
            }
        )
        if request.hires_resize == "latent":
            if latents is None:
                assert one.picture
                latents = _encoded(self.parts, one.picture, request.seed)
            larger = torch.nn.functional.interpolate(
                latents, self.parts.latent_shape(*size)[2:], mode="bilinear"
            )
            return self._again(one, again, Start(request.hires_strength, latents=larger), on_call)
        image = decode(self.parts, latents) if latents is not None else one.picture
        assert image
        image, painted = image.resize(size, canvas.LANCZOS), []
        for k, box in enumerate(rules.hires_tiles(request)):
            tile = again.model_copy(
                update={
                    "width": box[2] - box[0],
                    "height": box[3] - box[1],
                    "seed": (request.seed + k) % MOST_SEEDS,
                }
            )
            start = Start(request.hires_strength, pixels(image.crop(box)))
            painted.append((box, self._again(one, tile, start, on_call)))
        return canvas.joined(size, painted)

    def _again(
        self, one: Painting, request: GenerationRequest, start: Start, on_call: Callable[[], Any]
    ) -> Image.Image:
        one.showing = Trajectory(self.parts, request, one.conditioning, start)
        ((_, latents, _),) = self._second.paint([one.showing], on_call)
        if isinstance(latents, StudioError):
            raise latents
        return decode(self.parts, latents)


def look(parts: Parts, group: Iterable[Painting]) -> bytes | None:
    """A preview of the pictures that are painted at the moment: the one in its second pass, or all in their first."""
    group = list(group)
    now = [one for one in group if one.showing][:1] or group
    estimates = [latents for one in now if (latents := one.estimate()) is not None]
    return latent_preview.jpeg(parts, estimates) if estimates else None


def pixels(image: Image.Image) -> torch.Tensor:
    """(1, 3, height, width) in -1 … 1, as diffusers makes them."""
    return torch.as_tensor(VaeImageProcessor(do_resize=False).preprocess(image))


@torch.inference_mode()
def decode(parts: Parts, latents: torch.Tensor) -> Image.Image:
    """Latents → picture."""
    return VaeImageProcessor(vae_scale_factor=parts.scale).postprocess(
        parts.decode(latents), output_type="pil"
    )[0]


@torch.inference_mode()
def _encoded(parts: Parts, image: Image.Image, seed: int) -> torch.Tensor:
    return parts.encode(pixels(image), torch.Generator().manual_seed(seed))
