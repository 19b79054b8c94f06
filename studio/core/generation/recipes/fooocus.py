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
_MARKS = ("base_model", "Base Model", "base_model_name")
_OWN_SETTINGS = {
    "sharpness": "sharpness",
    "adm_guidance": "ADM guidance",
    "adaptive_cfg": "adaptive CFG",
    "freeu": "FreeU",
}


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
        raise ValueError("there are no settings of Fooocus in it.")
    draft = RecipeDraft(_name_program(data))
    draft.show(data)
    _take_prompts(data, draft)
    _take_numbers(data, draft)
    _take_files(data, draft)
    changed = [words for key, words in _OWN_SETTINGS.items() if _get(data, key) not in (None, "")]
    if changed:
        draft.note(f"Not here: Fooocus' {', '.join(changed)}; the picture will differ.")
    return draft.recipe


def _name_program(data: dict[str, Any]) -> str:
    words = " ".join(str(_get(data, key))[:60] for key in ("software", "version")).casefold()
    if "ruined" in words:
        return "Ruined Fooocus"
    if "mre" in words:
        return "Fooocus-MRE"
    return "SimpleSDXL" if "simple" in words else "Fooocus"


def _get(data: dict[str, Any], *keys: str) -> Any:
    """Return a setting by its key, or by the title that older versions wrote."""
    for key in keys:
        for name in (key, key.replace("_", " ").title(), key.capitalize()):
            if data.get(name) is not None:
                return data[name]
    return None


def _take_prompts(data: dict[str, Any], draft: RecipeDraft) -> None:
    for name, full_keys, raw_keys in (
        ("prompt", ("full_prompt", "real_prompt"), ("prompt",)),
        (
            "negative_prompt",
            ("full_negative_prompt", "real_negative_prompt"),
            ("negative_prompt", "negative"),
        ),
    ):
        raw = as_text(_get(data, *raw_keys))
        texts = [text for text in as_list(_get(data, *full_keys)) if isinstance(text, str) and text]
        if texts:
            words: str | None = " BREAK ".join(adapt_words(text) for text in texts)
        else:
            words = None if raw is None else adapt_words(raw)
        draft.take_prompt(name, words, has_lora_tags=not texts and not data.get("loras"))
    styles = _get(data, "styles")
    if styles and styles != "[]":
        names = styles if isinstance(styles, str) else ", ".join(map(str, as_list(styles)))
        is_written_out = bool(_get(data, "full_prompt", "real_prompt"))
        draft.note(
            f"Styles {names.strip('[]'):.200}: "
            + ("written out in the prompt." if is_written_out else "not here; it will differ.")
        )
    draft.take("prompt_syntax", "A1111")
    if "(" in f"{draft.values.get('prompt')}{draft.values.get('negative_prompt')}":
        draft.take("emphasis", "compel")
        draft.note("Words with weights: Fooocus weighs them a little differently.")


def _take_numbers(data: dict[str, Any], draft: RecipeDraft) -> None:
    performance = as_text(_get(data, "performance"))
    steps = as_number(_get(data, "steps"))
    if steps is None or steps < 1:  # -1 is what the performance has
        steps = _STEPS_BY_PERFORMANCE.get((performance or "").casefold())
    if steps is not None:
        draft.take_number("steps", steps)
    elif performance:
        draft.note(f"Performance {performance!r:.60} is not known here; the steps stay.")
    size = as_size(_get(data, "resolution"))
    draft.take_size(*(size or (_get(data, "width"), _get(data, "height"))))
    guidance = _get(data, "guidance_scale", "cfg")
    if guidance is not None:
        draft.take_number("guidance", guidance)
    draft.take_seed(_get(data, "seed"))
    draft.take_sampler(_get(data, "sampler_name", "sampler"), _get(data, "scheduler"))
    if _get(data, "clip_skip") is not None:
        draft.take_number("clip_skip", _get(data, "clip_skip"))


def _take_files(data: dict[str, Any], draft: RecipeDraft) -> None:
    model = _get(data, "base_model_name", "base_model")
    draft.add_model(model, _get(data, "base_model_hash"))
    refiner = as_text(_get(data, "refiner_model"))
    if refiner and refiner != "None":
        draft.note(f"Refiner {refiner!r:.80} is not here; the model goes on to the end.")
    vae = as_text(data.get("vae") or data.get("VAE"))
    if vae and vae.startswith("Default"):
        draft.take("vae", "")
    elif vae:
        draft.add_vae(vae)
    for item in as_list(data.get("loras")):
        if isinstance(item, dict):
            draft.add_lora(item.get("name"), item.get("weight", 1.0), digest=item.get("hash"))
        elif isinstance(item, list) and len(item) >= 2:
            digest = item[2] if len(item) > 2 else ""
            draft.add_lora(item[0], item[1], digest=digest)
    if not data.get("loras"):
        _take_numbered_loras(data, draft)


def _take_numbered_loras(data: dict[str, Any], draft: RecipeDraft) -> None:
    """Read LoRAs of older versions: "ink : 0.5", with whether it is on before it since 2.4."""
    for place in range(1, MAX_LORA_SLOTS + 1):
        text = as_text(data.get(f"lora_combined_{place}", data.get(f"LoRA {place}")))
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
