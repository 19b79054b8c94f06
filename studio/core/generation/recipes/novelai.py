"""NovelAI's images: texts of a PNG, EXIF, or hidden in the alpha channel.

Knows: its settings of all versions, its grammar of weights. Does not know: how hidden texts are
found in pixels, NovelAI's models (nobody has them).

    Software: NovelAI · Description: the prompt · Comment: {"steps": 28, "uc": "…", …}
    {word} times 1.05 · [word] divided by 1.05 · 1.2::words:: times 1.2 (since version 4)

Sources: docs.novelai.net ("Strengthening and weakening"), enslo/sd-metadata (novelai),
d3x-at/sd-parsers (tests of NovelAI). Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import (
    as_list,
    as_number,
    as_object,
    as_text,
    parse_object,
)
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

PROGRAM = "NovelAI"
BRACE_FACTOR = 1.05
MAX_WEIGHT, MIN_WEIGHT = 10.0, -10.0
_TOKENS = re.compile(r"(-?\d{0,3}(?:\.\d{1,4})?::|[{}\[\]])")
_PLAIN_SIGNS = re.compile(r"([()])")
_OPERATOR_WORDS = re.compile(r"\b(AND|BREAK)\b")
_NUMBER_FIELDS = {"steps": "steps", "scale": "guidance", "cfg_rescale": "guidance_rescale"}
_MISSING = {
    "sm": "SMEA",
    "sm_dyn": "SMEA DYN",
    "dynamic_thresholding": "Decrisper",
    "reference_strength_multiple": "vibe transfer",
    "director_reference_strengths": "a reference for a character",
    "skip_cfg_above_sigma": "Variety+",
}
_READ_KEYS = {
    *("prompt", "uc", "v4_prompt", "v4_negative_prompt", "seed", "width", "height", "sampler"),
    *("noise_schedule", "strength", "noise", "request_type", *_NUMBER_FIELDS, *_MISSING),
}
# What they are in pictures that nobody changed them for, or of no use for another picture.
_NEUTRAL_VALUES: dict[str, Any] = {
    **{"uncond_scale": 1, "n_samples": 1, "controlnet_strength": 1, "params_version": None},
    **{"hide_debug_overlay": None, "signed_hash": None, "version": None, "stream": None},
    **{"extra_noise_seed": None, "add_original_image": None, "legacy": None, "legacy_uc": None},
    **{"legacy_v3_extend": None, "deliberate_euler_ancestral_bug": None, "prefer_brownian": None},
    **{"uncond_per_vibe": None, "wonky_vibe_correlation": None, "skip_cfg_below_sigma": 0},
    **{"cfg_sched_eligibility": "enable_for_post_summer_samplers", "minimize_sigma_inf": None},
    **{"explike_fine_detail": None, "reference_information_extracted_multiple": None},
    **{"dynamic_thresholding_percentile": None, "dynamic_thresholding_mimic_scale": None},
}
_COMMENT_MARKS = ("v4_prompt", "uncond_scale", "uc", "request_type")


def _list_holders(metadata: ImageMetadata) -> Iterator[dict[str, Any]]:
    """Yield the objects that may hold NovelAI's texts, the way a PNG's chunks are named."""
    yield dict(metadata.chunks)
    texts = (metadata.hidden, metadata.user_comment, metadata.comment)
    for text in (*texts, metadata.chunks.get("parameters", "")):
        if "NovelAI" in text or '"uc"' in text:
            yield parse_object(text)
    yield {**metadata.exif, "Comment": metadata.user_comment}


def find_settings(metadata: ImageMetadata) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return NovelAI's settings, and the texts beside them; empty ones where there are none."""
    for holder in _list_holders(metadata):
        software = holder.get("Software")
        is_named = isinstance(software, str) and "NovelAI" in software
        comment = _read_comment(holder.get("Comment"), is_named)
        has_marks = sum(key in comment for key in _COMMENT_MARKS) >= 2
        if comment and (is_named or (has_marks and "sampler" in comment)):
            return comment, holder
        if is_named and as_text(holder.get("Description")) is not None:
            return {}, holder
        if sum(key in holder for key in _COMMENT_MARKS) >= 2 and "sampler" in holder:
            return holder, {}
    return {}, {}


def _read_comment(value: object, is_named: bool) -> dict[str, Any]:
    """Return the settings in a comment; others' are not even looked at."""
    has_mark = isinstance(value, str) and any(f'"{mark}"' in value for mark in _COMMENT_MARKS)
    return as_object(value) if is_named or has_mark or isinstance(value, dict) else {}


def recognises_settings(metadata: ImageMetadata) -> bool:
    """Return whether NovelAI wrote a file's texts."""
    return any(find_settings(metadata))


def read_settings(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of an image of NovelAI. Raises ValueError where there is none."""
    data, holder = find_settings(metadata)
    if not data and not holder:
        raise ValueError("it contains no NovelAI settings.")
    draft = RecipeDraft(PROGRAM)
    draft.show(data or holder)
    for name, key, caption_key in (
        ("prompt", "prompt", "v4_prompt"),
        ("negative_prompt", "uc", "v4_negative_prompt"),
    ):
        words = _read_caption(data.get(caption_key), draft)
        if words is None:
            words = as_text(data.get(key))
        if words is None and name == "prompt":
            words = as_text(holder.get("Description"))
        if words is not None:
            draft.take_prompt(name, convert_weights(words))
    draft.take("prompt_syntax", "A1111")
    draft.take_named(data, _NUMBER_FIELDS)
    draft.take_seed(data.get("seed"), is_cpu_noise=False)
    size = metadata.size or (None, None)
    draft.take_size(data.get("width", size[0]), data.get("height", size[1]))
    draft.take_sampler(data.get("sampler"), data.get("noise_schedule"))
    _note_differences(data, holder, draft)
    draft.note_unused(key for key, value in data.items() if value and not _is_known(key, value))
    return draft.recipe


def _is_known(key: str, value: Any) -> bool:
    """Return whether a setting is read, or says nothing at this value."""
    neutral = _NEUTRAL_VALUES.get(key, ...)
    return key in _READ_KEYS or neutral is None or neutral == value


def _read_caption(value: Any, draft: RecipeDraft) -> str | None:
    """Return a prompt of version 4: what holds for all, then each character's."""
    caption = as_object(as_object(value).get("caption"))
    base = as_text(caption.get("base_caption"))
    if base is None:
        return None
    characters = [
        text
        for item in as_list(caption.get("char_captions"))
        if (text := as_text(as_object(item).get("char_caption")))
    ]
    if characters:
        draft.note(
            f"Characters with their own prompts and positions: {len(characters)}. Here all become "
            "one prompt: the image will differ."
        )
    return ", ".join(filter(None, [base, *characters]))


def _note_differences(data: dict[str, Any], holder: dict[str, Any], draft: RecipeDraft) -> None:
    source = as_text(holder.get("Source")) or ""
    words = f" ({source:.60})" if source else ""
    draft.note(f"NovelAI's model{words} is not available; choose another: the image will differ.")
    for key, name in _MISSING.items():
        if data.get(key):
            draft.note(f"Not available here: {name}; the image will differ.")
    is_from_picture = as_number(data.get("strength")) is not None and (
        "noise" in data or "Img2Img" in str(data.get("request_type"))
    )
    if is_from_picture:
        draft.note("It was made from another image, which is not in the file.")
        draft.take_number("strength", data["strength"])


def convert_weights(text: str) -> str:
    """Return a prompt of NovelAI's grammar in A1111's: each stretch with the weight it comes to.

    Brackets that A1111's grammar reads are only words there. What is never closed holds to the end.
    """
    braces, number = 0, 1.0
    pieces: list[tuple[float, str]] = []
    for part in _TOKENS.split(text):
        if part in ("{", "]"):
            braces += 1
        elif part in ("}", "["):
            braces -= 1
        elif part.endswith("::") and _TOKENS.fullmatch(part):
            number = _read_number(part)
        elif part:
            weight = min(
                MAX_WEIGHT, max(MIN_WEIGHT, number * BRACE_FACTOR ** max(-50, min(50, braces)))
            )
            words = _OPERATOR_WORDS.sub(lambda word: word[0].lower(), part)
            pieces.append((round(weight, 4), _PLAIN_SIGNS.sub(r"\\\1", words)))
    return "".join(
        words if weight == 1 or not words.strip(" ,") else f"({words}:{weight:g})"
        for weight, words in pieces
    )


def _read_number(part: str) -> float:
    try:
        return float(part.removesuffix("::"))
    except ValueError:  # a closing ::
        return 1.0


SOURCE = RecipeSource(PROGRAM, recognises_settings, read_settings)
