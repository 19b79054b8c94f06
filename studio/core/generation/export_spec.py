"""How pictures are handed on: in which format, how well, with how much of their making.

Knows: the choices. Does not know: files (storage/picture_exports.py).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from studio.core.base import Spec, spec_field
from studio.core.generation.carried import CarryOptions

ExportFormat = Literal["PNG", "JPEG", "WebP", "AVIF", "ComfyUI"]
ExportCarry = Literal["as chosen", "everything", "text", "nothing"]
Switch = Literal["as chosen", "yes", "no"]
_FORMATS_BY_FOLDED: dict[str, ExportFormat] = {
    "png": "PNG",
    "jpeg": "JPEG",
    "jpg": "JPEG",
    "webp": "WebP",
    "avif": "AVIF",
    "comfyui": "ComfyUI",
}


class ExportSpec(Spec):
    """What exported files are like; "as chosen" is what new pictures carry."""

    format: ExportFormat = spec_field(
        "JPEG",
        title="Format",
        help="File type. ComfyUI saves no image but its workflow, which ComfyUI's page opens.",
    )
    quality: int = spec_field(
        90,
        title="Quality",
        ge=1,
        le=100,
        step=1,
        help="For JPEG, WebP and AVIF. At 100, WebP is lossless.",
    )
    carry: ExportCarry = spec_field(
        "as chosen",
        title="Settings in the file",
        help="everything: loads here without loss. text: A1111's alone. nothing: only pixels.",
    )
    ai_mark: Switch = spec_field(
        "as chosen",
        title="Made with AI",
        help="Whether the file is marked as made with AI, as defined by IPTC.",
    )

    @field_validator("format", mode="before")
    @classmethod
    def _match_format_case(cls, name: Any) -> Any:
        """Take `webp` for `WebP`, and `jpg` for `JPEG`."""
        if not isinstance(name, str):
            return name
        return _FORMATS_BY_FOLDED.get(name.strip().casefold(), name)

    def choose_options(self, chosen: CarryOptions) -> CarryOptions:
        """Return what a file carries.

        Args:
            chosen: What new pictures carry.
        """
        return CarryOptions(
            carry=chosen.carry if self.carry == "as chosen" else self.carry,
            ai_mark=chosen.ai_mark if self.ai_mark == "as chosen" else self.ai_mark == "yes",
            comfyui_graph=chosen.comfyui_graph,
        )


class PictureExportSpec(ExportSpec):
    """A picture of the gallery, and the file to make of it."""

    digest: str = spec_field(
        ...,
        pattern="^[0-9a-f]{64}$",
        title="Digest",
        help="The digest of the image, as generate, upscale and sweep return it; the newest one "
        "with it is exported.",
    )
