"""What a plain upscale is asked with, and what a picture says of it afterwards.

Knows: the settings, how large the result is, its digest. Does not know: which upscalers there are
(storage/models/upscalers.py), how an image is enlarged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import ConfigDict, field_validator, model_validator

from studio.core.base import Spec, is_sha256, spec_field
from studio.core.generation.geometry import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE_PX, Size
from studio.core.generation.upscaler_names import normalize_upscaler_name
from studio.errors import InvalidSpec, quote

MAX_GUEST_PIXELS = 16_800_000  # of a guest's result: 4096 × 4096


class UpscaleSpec(Spec):
    """An image, and how it is made larger without being painted again."""

    image: str = spec_field(
        ...,
        title="Image",
        help="The image to enlarge: its sha256 in home/inputs.",
    )
    upscaler: str = spec_field(
        "",
        title="Upscaler",
        max_length=200,
        help="A network in the folder upscalers, Lanczos or Nearest. Empty picks one that suits "
        "the image.",
    )
    scale: float = spec_field(
        4.0,
        title="Scale",
        ge=1,
        le=8,
        step=0.25,
        guest_max=4,
        help="How many times as large.",
    )
    longer_side: int = spec_field(
        0,
        title="Longer side",
        ge=0,
        le=MAX_IMAGE_SIDE_PX,
        unit="px",
        guest_max=4096,
        help="The longer side of the result in pixels, instead of the scale; 0 uses the scale.",
    )

    @field_validator("image")
    @classmethod
    def _require_sha256(cls, sha256: str) -> str:
        if not is_sha256(sha256):
            raise ValueError(
                f"must be the sha256 of an image in home/inputs (you entered {quote(sha256)})."
            )
        return sha256

    @field_validator("upscaler")
    @classmethod
    def _normalize_upscaler(cls, name: str) -> str:
        return normalize_upscaler_name(name)

    def compute_scale(self, size: Size) -> float:
        """Return how many times as large an image of `size` is to be."""
        return self.longer_side / max(size) if self.longer_side else self.scale

    def compute_size(self, size: Size, is_guest: bool = False) -> Size:
        """Return the (width, height) in pixels that an image of `size` comes to.

        Raises InvalidSpec where that is too large, or smaller than the image is.
        """
        if self.longer_side and self.longer_side < max(size):
            raise InvalidSpec(
                [
                    f"Longer side: the image is already {max(size)} pixels long; enter more (you "
                    f"entered {self.longer_side})."
                ]
            )
        scale = self.compute_scale(size)
        width, height = (max(1, round(side * scale)) for side in size)
        max_pixels = MAX_GUEST_PIXELS if is_guest else MAX_IMAGE_PIXELS
        if max(width, height) > MAX_IMAGE_SIDE_PX or width * height > max_pixels:
            title = "Longer side" if self.longer_side else "Scale"
            raise InvalidSpec(
                [
                    f"{title}: {width} × {height} is too large; at most {max_pixels // 10**6} "
                    f"million pixels and {MAX_IMAGE_SIDE_PX} a side are allowed."
                ]
            )
        return width, height


class UpscaleRecord(Spec):
    """What a PNG says of how it was made larger; what a later studio adds is ignored.

    Attributes:
        image: The sha256 of what was made larger.
        upscaler: The upscaler's name.
        scale: How many times as large it is.
        has_settings: Whether the settings beside this are the original picture's own; else nothing
            is known of how that was made, and they mean nothing.
    """

    model_config = ConfigDict(extra="ignore")

    image: str
    upscaler: str
    scale: float
    has_settings: bool

    @model_validator(mode="after")
    def _check_scale(self) -> UpscaleRecord:
        if not 0 < self.scale <= MAX_IMAGE_SIDE_PX:
            raise ValueError(f"an image cannot be enlarged {self.scale} times.")
        return self


def compute_upscale_digest(image: str, size: Size, content_hashes: Mapping[str, str]) -> str:
    """Return the sha256 over all that decides the pixels of a plain upscale.

    Args:
        image: The sha256 of what is made larger.
        size: Width and height of the result.
        content_hashes: Of the upscaler ("upscaler"); "dtype" and "device" of a network.
    """
    text = json.dumps(["upscale", image, list(size), dict(content_hashes)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
