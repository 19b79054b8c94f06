"""Clip skip of other programs: which layer it means, by program and kind of model, in and out.

The table is of what is public of each program (see the module): SDXL and SD 2.x read the last layer but one.
"""

from __future__ import annotations

import pytest

from studio.core.families.family import Family
from studio.core.families.sd1 import SD1
from studio.core.families.sd2 import SD2
from studio.core.families.sdxl import SDXL
from studio.core.families.z_image import Z_IMAGE
from studio.core.generation.recipes.clip_skip import (
    ClipSkip,
    ClipSkipCounting,
    count_from_last_layer,
    describe_counting,
    translate_clip_skip,
)
from studio.core.generation.recipes.draft import RecipeDraft


@pytest.mark.parametrize(
    ("number", "counting", "family", "expected", "has_note"),
    [
        (1, "ComfyUI", SD1, 1, False),
        (2, "ComfyUI", SD1, 2, False),
        (2, "A1111", SD1, 2, False),
        (1, "ComfyUI", SDXL, 1, True),  # there it reads the last layer, which cannot be had here
        (2, "ComfyUI", SDXL, 1, True),
        (3, "ComfyUI", SDXL, 2, True),
        (2, "ComfyUI", SD2, 1, True),
        (1, "Forge", SDXL, 1, False),
        (2, "Forge", SDXL, 1, True),
        (4, "Forge", SDXL, 3, True),
        (1, "A1111", SDXL, 1, False),
        (2, "A1111", SDXL, 1, True),
        (5, "A1111", SDXL, 1, True),
        (5, "A1111", SD2, 1, True),
        (2, "Forge", Z_IMAGE, 1, True),
        (1, "ComfyUI", Z_IMAGE, 1, False),
    ],
)
def test_the_layer_by_program_and_model(
    number: int, counting: ClipSkipCounting, family: Family, expected: int, has_note: bool
) -> None:
    clip_skip, note = translate_clip_skip(ClipSkip(number, counting), family)
    assert clip_skip == expected
    assert bool(note) == has_note


def test_without_a_model_it_is_said() -> None:
    assert "set it to 2" in describe_counting(ClipSkip(3))
    assert "set it to 1" in describe_counting(ClipSkip(3, "A1111"))
    assert describe_counting(ClipSkip(1)) == ""


@pytest.mark.parametrize("family", [SD1, SD2, SDXL])
@pytest.mark.parametrize("clip_skip", [2, 3, 7])
def test_what_is_written_is_read_as_the_same_layer(family: Family, clip_skip: int) -> None:
    written = count_from_last_layer(clip_skip, family)
    for counting in ("ComfyUI", "Forge"):
        assert translate_clip_skip(ClipSkip(written, counting), family)[0] == clip_skip
    assert count_from_last_layer(1, family) == 1  # the usual one is not written at all


@pytest.mark.parametrize(("value", "number"), [(-2, 2), (2, 2), ("2", 2), ("-3", 3), (0, 1)])
def test_a_draft_keeps_how_it_was_counted(value: object, number: int) -> None:
    draft = RecipeDraft("X")
    draft.take_clip_skip(value)
    assert (draft.recipe.values["clip_skip"], draft.recipe.clip_skip) == (number, ClipSkip(number))


@pytest.mark.parametrize("value", ["x", 40, None, float("nan"), True, [2]])
def test_a_draft_takes_no_nonsense(value: object) -> None:
    draft = RecipeDraft("X")
    draft.take_clip_skip(value)
    assert draft.recipe.clip_skip is None
    assert "clip_skip" not in draft.recipe.values
    assert bool(draft.recipe.notes) == (value is not None)
