"""Fooocus' images and those of its forks: Ruined Fooocus, Fooocus-MRE, SimpleSDXL.

Knows: their JSON, old and new names of its keys, what a "performance" is in steps. Does not know:
the A1111 text that Fooocus writes instead where it is told to (a1111.py).

    parameters      {"prompt": "a boat", "full_prompt": ["a boat, cinematic"], "steps": 30, …}
    fooocus_scheme  "fooocus"

Fooocus encodes each text of `full_prompt` by itself and lays them end to end.

Sources: lllyasviel/Fooocus (modules/meta_parser), enslo/sd-metadata (ruined-fooocus),
receyuki/stable-diffusion-prompt-reader (format/fooocus). Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from studio.core.generation.recipes.comfyui_prompts import adapt_words
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import (
    as_list,
    as_number,
    as_size,
    as_text,
    parse_object,
)
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

MAX_LORA_SLOTS = 50
_STEPS_BY_PERFORMANCE = {
    "quality": 60,
    "speed": 30,
    "extreme speed": 8,
    "lightning": 4,
    "hyper-sd": 4,
}
# A performance paints with a LoRA of its own, which most versions list among the others.
_LORAS_BY_PERFORMANCE = {
    "extreme speed": "sdxl_lcm_lora",
    "lightning": "sdxl_lightning_4step_lora",
    "hyper-sd": "sdxl_hyper_sd_4step_lora",
}
_MARKS = ("base_model", "Base Model", "base_model_name")
_OWN_SETTINGS = {
    "sharpness": "sharpness",
    "adm guidance": "ADM guidance",
    "adaptive cfg": "adaptive CFG",
    "freeu": "FreeU",
}
# As older versions call them, and forks.
_OTHER_KEYS = {
    "cfg mimicking from tsnr": "adaptive cfg",
    "sampler name": "sampler",
    "negative": "negative prompt",
    "cfg": "guidance scale",
    "base model name": "base model",
    "real prompt": "full prompt",
    "real negative prompt": "full negative prompt",
}
_READ_KEYS = {
    *("prompt", "negative prompt", "full prompt", "full negative prompt", "styles", "performance"),
    *("steps", "resolution", "width", "height", "guidance scale", "seed", "sampler", "scheduler"),
    *("clip skip", "base model", "base model hash", "vae", "loras", "refiner model"),
    *_OWN_SETTINGS,
}
# Of no use for another picture, or said with the refiner.
_UNUSED_KEYS = {
    *("metadata scheme", "version", "software", "created by", "image number", "refiner switch"),
    *("refiner swap method", "refiner model hash", "overwrite switch"),
}
_SLOT_KEY = re.compile(r"(?:lora combined |lora |l|w)\d{1,3}")


def find_settings(metadata: ImageMetadata) -> dict[str, Any]:
    """Return the settings that Fooocus or a fork of it wrote; empty where there are none."""
    for text in _list_texts(metadata):
        if not any(f'"{mark}"' in text for mark in _MARKS):
            continue
        data = parse_object(text)
        has_prompt = any(key in data for key in ("prompt", "Prompt"))
        has_model = any(isinstance(data.get(key), str) for key in _MARKS)
        if has_prompt and has_model and "class_type" not in data:
            return data
    return {}


def _list_texts(metadata: ImageMetadata) -> Iterator[str]:
    for key in ("parameters", "Comment", "UserComment"):
        yield metadata.chunks.get(key, "")
    yield metadata.user_comment
    yield metadata.comment
    yield metadata.sidecars.get(".json", "")


def read_settings(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of an image of Fooocus or a fork.

    Raises ValueError where there is none.
    """
    data = find_settings(metadata)
    if not data:
        raise ValueError("it contains no Fooocus settings.")
    draft = RecipeDraft(_name_program(data))
    draft.show(data)
    unused = [key for key, value in data.items() if value and not _is_known(key)]
    data = _fold_keys(data)
    _take_prompts(data, draft)
    _take_numbers(data, draft)
    _take_files(data, draft)
    changed = [words for key, words in _OWN_SETTINGS.items() if data.get(key) not in (None, "")]
    if changed:
        draft.note(f"Not available here: Fooocus' {', '.join(changed)}; the image will differ.")
    draft.note_unused(unused)
    return draft.recipe


def _fold_key(key: str) -> str:
    folded = key[:100].casefold().replace("_", " ")
    return _OTHER_KEYS.get(folded, folded)


def _is_known(key: str) -> bool:
    folded = _fold_key(key)
    is_read = folded in _READ_KEYS or folded in _UNUSED_KEYS
    return is_read or bool(_SLOT_KEY.fullmatch(folded))


def _fold_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Return settings by the present name of their keys in small letters, with blanks."""
    folded: dict[str, Any] = {}
    for key, value in data.items():
        if value is not None:
            folded.setdefault(_fold_key(key), value)
    return folded


def _name_program(data: dict[str, Any]) -> str:
    folded = _fold_keys(data)
    words = " ".join(str(folded.get(key))[:60] for key in ("software", "version")).casefold()
    if "ruined" in words:
        return "Ruined Fooocus"
    if "mre" in words:
        return "Fooocus-MRE"
    return "SimpleSDXL" if "simple" in words else "Fooocus"


def _take_prompts(data: dict[str, Any], draft: RecipeDraft) -> None:
    for name in ("prompt", "negative_prompt"):
        key = name.replace("_", " ")
        raw = as_text(data.get(key))
        full = as_list(data.get(f"full {key}"))
        texts = [text for text in full if isinstance(text, str) and text]
        if texts:
            words: str | None = " BREAK ".join(adapt_words(text) for text in texts)
        else:
            words = None if raw is None else adapt_words(raw)
        draft.take_prompt(name, words, has_lora_tags=not texts and not data.get("loras"))
    styles = data.get("styles")
    if styles and styles != "[]":
        names = styles if isinstance(styles, str) else ", ".join(map(str, as_list(styles)))
        is_written_out = bool(data.get("full prompt"))
        draft.note(
            f"Styles {names.strip('[]'):.200}: "
            + (
                "written out in the prompt."
                if is_written_out
                else ("not available here; the image will differ.")
            )
        )
    draft.take("prompt_syntax", "A1111")
    if "(" in f"{draft.values.get('prompt')}{draft.values.get('negative_prompt')}":
        draft.take("emphasis", "compel")
        draft.note("Weighted words: Fooocus weights them slightly differently.")


def _take_numbers(data: dict[str, Any], draft: RecipeDraft) -> None:
    performance = as_text(data.get("performance"))
    steps = as_number(data.get("steps"))
    if steps is None or steps < 1:  # -1 is what the performance has
        steps = _STEPS_BY_PERFORMANCE.get((performance or "").casefold())
    if steps is not None:
        draft.take_number("steps", steps)
    elif performance:
        draft.note(f"Performance {performance!r:.60} is unknown here; the steps are unchanged.")
    size = as_size(data.get("resolution"))
    draft.take_size(*(size or (data.get("width"), data.get("height"))))
    if data.get("guidance scale") is not None:
        draft.take_number("guidance", data["guidance scale"])
    draft.take_seed(data.get("seed"))
    draft.take_sampler(data.get("sampler"), data.get("scheduler"))
    if data.get("clip skip") is not None:
        draft.take_clip_skip(data["clip skip"])


def _take_files(data: dict[str, Any], draft: RecipeDraft) -> None:
    draft.add_model(data.get("base model"), data.get("base model hash"))
    refiner = as_text(data.get("refiner model"))
    if refiner and refiner != "None":
        share = as_number(data.get("refiner switch"))
        place = "" if share is None else f" from {share:.0%} of the steps on"
        draft.note(
            f"Refiner {refiner!r:.80}{place} is not available here; the model runs to the end."
        )
    vae = as_text(data.get("vae"))
    if vae and vae.startswith("Default"):
        draft.take("vae", "")
    elif vae:
        draft.add_vae(vae)
    for item in as_list(data.get("loras"))[:MAX_LORA_SLOTS]:
        if isinstance(item, dict):
            draft.add_lora(item.get("name"), item.get("weight", 1.0), digest=item.get("hash"))
        elif isinstance(item, list) and len(item) >= 2:
            digest = item[2] if len(item) > 2 else ""
            draft.add_lora(item[0], item[1], digest=digest)
    if not data.get("loras"):
        _take_numbered_loras(data, draft)
    _take_performance_lora(data, draft)


def _take_performance_lora(data: dict[str, Any], draft: RecipeDraft) -> None:
    """Take the LoRA that a performance is made of, also where the file does not list it."""
    performance = as_text(data.get("performance")) or ""
    name = _LORAS_BY_PERFORMANCE.get(performance.casefold())
    if name is None:
        return
    if name not in {use["name"] for use in draft.values.get("loras", [])}:
        draft.add_lora(name, 1.0)
    draft.note(f"Performance {performance!r:.40} uses the LoRA {name}, which is needed here too.")


def _take_numbered_loras(data: dict[str, Any], draft: RecipeDraft) -> None:
    """Read LoRAs of older versions: "ink : 0.5", with whether it is on before it since 2.4."""
    for place in range(1, MAX_LORA_SLOTS + 1):
        text = as_text(data.get(f"lora combined {place}", data.get(f"lora {place}")))
        parts = text.split(" : ") if text else []
        if len(parts) == 3 and parts[0] == "True":
            parts = parts[1:]
        if len(parts) == 2:
            draft.add_lora(parts[0], parts[1])
        name, weight = data.get(f"l{place}"), data.get(f"w{place}")  # Fooocus-MRE
        if isinstance(name, str) and name != "None":
            draft.add_lora(name, weight)


def recognises_settings(metadata: ImageMetadata) -> bool:
    """Return whether Fooocus or a fork of it wrote a file's JSON."""
    return bool(find_settings(metadata))


SOURCE = RecipeSource("Fooocus", recognises_settings, read_settings)
