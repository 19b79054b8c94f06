"""Clip skip as other programs count it, and as it is counted here.

Knows: which layer of the text encoder each program means, by the kind of model. Does not know:
which model a recipe comes to (services/recipe_files.py), where a program writes the number.

Here 1 is the layer that a model was trained on. Others count from the text encoder's last layer:
SDXL and SD 2.x read the last but one, which is 2 there and 1 here. A recipe does not say what its
model is, so it keeps the number and the way of counting until the model is known.

    written     SD 1.x      SDXL by ComfyUI             by Forge    by A1111
    1           1           the last layer: not here    1           1
    2           2           1                           1           1
    3           3           2                           2           1

Sources: ComfyUI's CLIPSetLastLayer sets both encoders of SDXL; Forge reads SDXL at 2 or deeper
(minimal_clip_skip); A1111 reads SDXL and SD 2.x where they were trained, whatever the number says.
Facts, no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.core.families.family import Family

ClipSkipCounting = Literal["ComfyUI", "Forge", "A1111"]
_USUAL = "the layer it was trained on is used"


@dataclass(frozen=True)
class ClipSkip:
    """A number that a program wrote, from 1, and how that program counts."""

    number: int
    counting: ClipSkipCounting = "ComfyUI"


def translate_clip_skip(clip_skip: ClipSkip, family: Family) -> tuple[int, str]:
    """Return Clip skip as it is counted here, and a sentence where that is another number.

    Args:
        clip_skip: What the program wrote.
        family: Of the model that will paint.
    """
    number, title = clip_skip.number, family.title
    if family.max_clip_skip is not None:
        has_effect = number > family.max_clip_skip
        note = (
            f"Clip skip {number} has no effect with {title}: its text encoder has no such option."
        )
        return family.max_clip_skip, note if has_effect else ""
    offset = family.usual_clip_skip - 1
    if not offset:
        return number, ""
    if clip_skip.counting == "A1111":
        note = f"Clip skip {number} has no effect with {title} in A1111: {_USUAL}."
        return 1, note if number > 1 else ""
    if number > offset:
        note = f"Clip skip {number} counts from the last layer; with {title} that is "
        return number - offset, f"{note}{number - offset} here."
    if clip_skip.counting == "Forge":
        return 1, ""
    return 1, f"Clip skip {number}, the last layer, cannot be used with {title} here: {_USUAL}."


def describe_counting(clip_skip: ClipSkip) -> str:
    """Return a sentence for a recipe whose model is not known; empty where nothing can differ."""
    if clip_skip.number < 2:
        return ""
    sdxl = "1" if clip_skip.counting == "A1111" else str(clip_skip.number - 1)
    return (
        f"Clip skip {clip_skip.number} counts from the last layer, as SD 1.x does here; with SDXL "
        f"and SD 2.x set it to {sdxl}."
    )


def count_from_last_layer(clip_skip: int, family: Family | None) -> int:
    """Return what A1111, Forge and ComfyUI call our Clip skip.

    Args:
        clip_skip: As it is counted here.
        family: Of the model; None where it is not known, which counts as SD 1.x.
    """
    offset = family.usual_clip_skip - 1 if family else 0
    return clip_skip + offset if clip_skip > 1 else clip_skip
