"""Sizes, second passes and steps on a picture in A1111's text, as they are counted here.

Knows: first passes of all ages, how many of its steps each program runs at a strength. Does not
know: all other settings (a1111.py).

    here            strength × steps run: 20 at 0.5 are the last 10
    A1111, Forge    on a picture one more, 11; with DDIM, PLMS and UniPC 10; in a second pass all
                    20, the last ones of 40
    SD.Next         all of them on a picture too

Sources: A1111's setup_img2img_steps and its two kinds of samplers; SD.Next's
calculate_base_steps. Facts, no code.
"""

from __future__ import annotations

import math
import re

from studio.core.generation.geometry import count_effective_steps, find_strength
from studio.core.generation.recipes.a1111_programs import StepCounting
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.file_names import clean_file_name
from studio.core.generation.recipes.json_text import as_number, as_whole_number
from studio.core.generation.upscaler_names import (
    INTERPOLATIONS,
    LANCZOS,
    is_latent_formula,
    normalize_upscaler_name,
)
from studio.errors import quote

MAX_STEPS = 150  # the most that Steps and Hires steps can be here
_SIZE_PATTERN = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})")
_OLD_FIRST_PASS_PIXELS = 512 * 512  # of A1111's first pass in 2022, where none was chosen
_OLD_FIRST_PASS_MULTIPLE = 64
_MAX_A1111_STRENGTH = 0.999
# A1111's samplers of the first kind, which run exactly the share.
_TIMESTEP_SAMPLERS = ("DDIM", "PLMS", "UniPC")
Pairs = dict[str, str]


def parse_size(text: str) -> tuple[int, int] | None:
    """Return width and height; either may be 0."""
    size = _SIZE_PATTERN.fullmatch(text.strip()[:20])
    return (int(size[1]), int(size[2])) if size else None


# ---- how many steps run -----------------------------------------------------------------------


def scale_steps(run_steps: int, strength: float) -> int:
    """Return the steps of which so many run here at a strength; it may be more than can be."""
    if not 0 < strength < 1:
        return run_steps
    steps = math.ceil(run_steps / strength - 1e-9)
    return steps if count_effective_steps(steps, strength) >= run_steps else steps + 1


def count_a1111_steps(steps: int, strength: float, scheduler: str) -> int:
    """Return how many steps A1111 runs on a picture."""
    share = int(min(strength, _MAX_A1111_STRENGTH) * steps)
    return share if scheduler in _TIMESTEP_SAMPLERS else share + 1


def find_a1111_strength(steps: int, strength: float, scheduler: str) -> float:
    """Return the strength at which A1111 runs on a picture what is run here.

    One that does so already stays; so does one at which nothing runs, which A1111 does not have.
    """
    run_steps = count_effective_steps(steps, strength)
    if not run_steps or count_a1111_steps(steps, strength, scheduler) == run_steps:
        return strength
    share = run_steps if scheduler in _TIMESTEP_SAMPLERS else run_steps - 1
    found = round(share / steps, 4)
    return found if int(found * steps) >= share else round(found + 1e-4, 4)


# ---- reading ----------------------------------------------------------------------------------


def take_size(pairs: Pairs, draft: RecipeDraft) -> None:
    """Take the size of the first pass.

    In 2022 `Size` was that of the finished picture, and the first pass had a size of its own.
    """
    size = parse_size(pairs.pop("Size", ""))
    first_size = parse_size(pairs.pop("First pass size", ""))
    if size is None or not all(size):
        return
    if first_size is not None:
        first_size = first_size if all(first_size) else _guess_first_size(size)
        if first_size != size and all(first_size):
            pairs.setdefault("Hires upscale", f"{size[0] / first_size[0]:.6g}")
            pairs.setdefault("Hires upscaler", LANCZOS)
            _note_other_shape(first_size, size, draft)
        size = first_size
    draft.take_size(*size)


def _guess_first_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the first pass that A1111 chose for a size in 2022: of about 512 × 512 pixels."""
    scale = math.sqrt(_OLD_FIRST_PASS_PIXELS / max(1, size[0] * size[1]))
    multiple = _OLD_FIRST_PASS_MULTIPLE
    width, height = (math.ceil(scale * side / multiple) * multiple for side in size)
    return width, height


def _note_other_shape(
    first_size: tuple[int, int], size: tuple[int, int], draft: RecipeDraft
) -> None:
    """Say that the second pass here keeps the first one's shape, where it did not."""
    if abs(size[0] * first_size[1] / (size[1] * first_size[0]) - 1) > 0.02:
        draft.note(
            f"Its second pass cropped it to {size[0]} × {size[1]}; here it keeps its proportions."
        )


def take_passes(pairs: Pairs, draft: RecipeDraft, counting: StepCounting) -> None:
    """Take the second pass, or the strength on another picture; steps and sampler are known."""
    if "Hires upscaler" in pairs:
        take_upscaler(pairs.pop("Hires upscaler"), draft)
    hires_size = parse_size(pairs.get("Hires resize", ""))
    width, height = draft.values.get("width"), draft.values.get("height")
    if hires_size and any(hires_size) and width and height:
        del pairs["Hires resize"]
        scale = max(hires_size[0] / width, hires_size[1] / height)  # 0: by the other side
        pairs["Hires upscale"] = f"{scale:.6g}"
        if all(hires_size):
            _note_other_shape((width, height), hires_size, draft)
    if "Hires upscale" not in pairs and "Hires resize" not in pairs:
        _take_strength(pairs, draft, counting)
        return
    if "Init image" not in pairs and "Denoising strength" in pairs:
        pairs["Hires strength"] = pairs.pop("Denoising strength")
    _take_number(draft, "hires_scale", pairs.pop("Hires upscale", None))
    _take_number(draft, "hires_strength", pairs.pop("Hires strength", None))
    _take_hires_steps(pairs.pop("Hires steps", None), draft, counting)


def _take_number(draft: RecipeDraft, name: str, text: str | None) -> None:
    if text is not None:
        draft.take_number(name, text)


def _take_hires_steps(text: str | None, draft: RecipeDraft, counting: StepCounting) -> None:
    """Take the steps of the second pass, all of which run there; without any those of the first."""
    number = as_whole_number(text) if text is not None else 0
    if number is None or number < 0:
        draft.take_number("hires_steps", text)
        return
    first_steps = draft.values.get("steps")
    run_steps = number or first_steps
    strength = draft.values.get("hires_strength")
    if run_steps is None or strength is None:
        draft.take("hires_steps", number)
        return
    steps = scale_steps(run_steps, strength)
    if counting == "SD.Next" and 0 < strength < 1:
        steps = int(run_steps // strength) + 1
    if steps > MAX_STEPS >= run_steps:
        rest = count_effective_steps(MAX_STEPS, strength)
        draft.note(
            f"Hires steps: all {run_steps} run there, which takes {steps} at strength "
            f"{strength:g} here; the maximum of {MAX_STEPS} is used, so {rest} run."
        )
        steps = MAX_STEPS
    draft.take("hires_steps", 0 if steps == first_steps else steps)


def _take_strength(pairs: Pairs, draft: RecipeDraft, counting: StepCounting) -> None:
    """Take the strength on another picture, so that as many steps run as there."""
    if "Denoising strength" not in pairs:
        return
    text = pairs.pop("Denoising strength")
    draft.note("It was made from another image, which is not in the text.")
    strength, steps = as_number(text), draft.values.get("steps")
    is_share = strength is not None and 0 <= strength <= 1
    if not is_share or strength is None or not steps:
        draft.take_number("strength", text)
        return
    if counting == "A1111":
        run_steps = count_a1111_steps(steps, strength, str(draft.values.get("scheduler")))
        draft.take("strength", find_strength(steps, run_steps))
        return
    draft.take("strength", strength)
    total = scale_steps(steps, strength)
    if counting == "SD.Next" and 0 < strength < 1:
        total = int(steps // strength) + 1
    if total > MAX_STEPS:
        draft.note(
            f"Steps: all {steps} run there, which takes {total} at strength {strength:g} here; "
            f"the maximum of {MAX_STEPS} is used."
        )
    draft.take("steps", min(total, MAX_STEPS))


def take_upscaler(name: str, draft: RecipeDraft, *, is_own: bool = False) -> None:
    """Take whether latents or pixels are enlarged, and by what.

    Args:
        name: What A1111 calls it.
        draft: The recipe.
        is_own: Whether this studio wrote it, in whose names are no folders.
    """
    if is_latent_formula(name):
        draft.take("hires_resize", "latent")
        if name.strip().casefold() != "latent":
            draft.note(f"Hires upscaler {quote(name)} is not available here; latent is used.")
        return
    draft.take("hires_resize", "pixel")
    normalized = normalize_upscaler_name(name)
    if normalized == LANCZOS:
        draft.take("hires_upscaler", "")
        return
    if normalized not in INTERPOLATIONS and not is_own:
        normalized = clean_file_name(normalized)
    if normalized not in INTERPOLATIONS:
        draft.add_file("upscaler", normalized)
    draft.take("hires_upscaler", normalized)
