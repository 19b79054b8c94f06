"""What a picture's file carries of its making: all, A1111's text, or nothing; and a mark of AI.

Knows: the choices, the texts that each comes to. Does not know: files (imaging/encode.py), where
the owner's choice is kept (storage/picture_options.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from studio.core.base import Spec, spec_field
from studio.core.generation.comfyui_writer import build_graph
from studio.core.generation.infotext import format_infotext, format_upscale
from studio.core.generation.recipes.xmp import SourceType
from studio.core.generation.request import ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import UsedFiles
from studio.errors import InvalidSpec

Carry = Literal["everything", "text", "nothing"]


class CarryOptions(Spec):
    """What the files of pictures carry."""

    carry: Carry = spec_field(
        "everything",
        title="Settings in images",
        help="everything: A1111's text and the studio's own, which loses nothing. text: A1111's "
        "alone, which most programs read. nothing: only the gallery knows.",
    )
    ai_mark: bool = spec_field(
        True,
        title="Mark as made with AI",
        help="Writes IPTC's digital source type, which programs and sites read, and nothing else.",
    )
    comfyui_graph: bool = spec_field(
        False,
        title="Include ComfyUI workflow",
        help="PNG files also carry a ComfyUI workflow where ComfyUI's own nodes can do the same. "
        "Drop one on ComfyUI to open it.",
    )


@dataclass(frozen=True)
class CarriedTexts:
    """The texts of one file; what is empty is not written.

    Attributes:
        parameters: A1111's text.
        studio_json: Our own JSON.
        source_type: IPTC's digital source type.
        comfyui_prompt: ComfyUI's graph as JSON.
    """

    parameters: str = ""
    studio_json: str = ""
    source_type: SourceType = ""
    comfyui_prompt: str = ""


@dataclass(frozen=True)
class Making:
    """How an image came to be.

    Attributes:
        request: The resolved request.
        used_files: The files that it was made with.
        upscale: How it was made larger afterwards.
        metadata: Our own JSON's values; None for an image that is not the gallery's.
    """

    request: ResolvedRequest
    used_files: UsedFiles
    upscale: UpscaleRecord | None = None
    metadata: Mapping[str, Any] | None = None


def build_texts(making: Making, options: CarryOptions) -> CarriedTexts:
    """Return what a file of an image carries."""
    request, upscale = making.request, making.upscale
    parameters = ""
    studio_json = ""
    if options.carry != "nothing" and upscale:
        parameters = format_upscale(request, upscale, making.used_files)
    elif options.carry != "nothing":
        parameters = format_infotext(request, making.used_files)
    if options.carry == "everything" and making.metadata is not None:
        studio_json = json.dumps(making.metadata, ensure_ascii=False)
    comfyui_prompt = ""
    if options.carry == "everything" and options.comfyui_graph and not upscale:
        with suppress(InvalidSpec):  # what ComfyUI cannot do has no graph
            comfyui_prompt = json.dumps(build_graph(request, making.used_files).nodes)
    source_type = find_source_type(making) if options.ai_mark else ""
    return CarriedTexts(parameters, studio_json, source_type, comfyui_prompt)


def find_source_type(making: Making) -> SourceType:
    """Return what IPTC calls an image: made by a model alone, or on top of another picture.

    Of one that was only made larger, and of which nothing else is known, nothing is said: it may be
    a photograph.
    """
    if making.upscale and not making.upscale.has_settings:
        return ""
    if making.request.image:
        return "compositeWithTrainedAlgorithmicMedia"
    return "trainedAlgorithmicMedia"
