"""InvokeAI's images of all ages.

Knows: its three forms of settings, how its prompts and samplers are meant. Does not know: compel's
grammar, in which its prompts are written (core/generation/prompts).

    invokeai_metadata   since 3.0: {"positive_prompt": "a boat++", "scheduler": "dpmpp_2m_k", …}
    sd-metadata         2.x: {"app_id": "invoke-ai/InvokeAI", "image": {"prompt": [{…}], …}}
    Dream               1.x: "a boat [fog]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms

Sources: invoke-ai/InvokeAI (invocations/metadata; docs of the command line), d3x-at/sd-parsers
(tests of InvokeAI). Facts, no code.
"""

from __future__ import annotations

import re
from typing import Any

from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import (
    as_list,
    as_number,
    as_object,
    as_text,
    as_whole_number,
    parse_object,
)
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

PROGRAM = "InvokeAI"
MAX_LORA_SLOTS = 100
_NEW_KEY, _SECOND_KEY, _FIRST_KEY = "invokeai_metadata", "sd-metadata", "Dream"
_MAX_KARRAS_STEPS = 29  # of InvokeAI 2.0 to 2.2, which took Karras' noise levels up to there
_NUMBER_FIELDS = {
    "steps": "steps",
    "cfg_scale": "guidance",
    "cfg_rescale_multiplier": "guidance_rescale",
}
_MISSING = {
    "controlnets": "ControlNet",
    "controlLayers": "ControlNet",
    "ipAdapters": "IP-Adapter",
    "t2iAdapters": "T2I-Adapter",
    "refiner_model": "the refiner",
    "hrf_enabled": "its high resolution fix",
    "seamless_x": "seamless edges",
    "seamless_y": "seamless edges",
    "regional_prompts": "prompts for regions",
}
_READ_KEYS = {
    *("positive_prompt", "negative_prompt", "positive_style_prompt", "negative_style_prompt"),
    *("width", "height", "seed", "rand_device", "scheduler", "clip_skip", "model", "vae", "loras"),
    *("strength", "init_image", "generation_mode", *_NUMBER_FIELDS, *_MISSING),
}
# Of no use for another picture, or said with what they belong to.
_UNUSED_KEYS = {
    *("app_version", "canvas_v2_metadata", "hrf_method", "hrf_strength", "refiner_cfg_scale"),
    *("refiner_steps", "refiner_scheduler", "refiner_positive_aesthetic_score"),
    *("refiner_negative_aesthetic_score", "refiner_start", "hrf_height", "hrf_width"),
    *("control_layers", "positive_prompt_id", "qwen3_encoder"),
}
_SECOND_KEYS = {
    *("model", "model_weights", "model_hash", "app_id", "app_version", "image"),
    *("prompt", "steps", "cfg_scale", "height", "width", "seed", "sampler", "type", "strength"),
    *("postprocessing", "hires_fix", "seamless", "variations", "perlin", "threshold"),
}
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_DREAM = re.compile(r'\s*"(.*)"((?:\s+-.*)?)$', re.DOTALL)
_DREAM_FLAG = re.compile(r"(?:^|\s)-([A-Za-z])\s*([^\s]{1,80})")
_DREAM_LONG_FLAG = re.compile(r"\s(--[a-z][a-z_-]{0,40})")
_DREAM_KEYS = {
    **{"s": "steps", "S": "seed", "W": "width", "H": "height"},
    **{"C": "cfg_scale", "A": "sampler", "f": "strength"},
}


def recognises_settings(metadata: ImageMetadata) -> bool:
    """Return whether InvokeAI wrote a file's texts."""
    return _find_new(metadata) != {} or any(
        metadata.chunks.get(key) for key in (_SECOND_KEY, _FIRST_KEY)
    )


def _find_new(metadata: ImageMetadata) -> dict[str, Any]:
    pasted = metadata.chunks.get("parameters", "")
    texts = (metadata.chunks.get(_NEW_KEY, ""), metadata.user_comment, metadata.hidden)
    for text in (*texts, pasted, metadata.sidecars.get(".json", "")):
        is_own = bool(text) and text is metadata.chunks.get(_NEW_KEY)
        if not is_own and "positive_prompt" not in text and _NEW_KEY not in text:
            continue
        data = parse_object(text)
        if _NEW_KEY in data:
            return as_object(data[_NEW_KEY])
        if "positive_prompt" in data or is_own:
            return data
    return {}


def read_settings(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of an image of InvokeAI. Raises ValueError where it cannot be read."""
    draft = RecipeDraft(PROGRAM)
    data = _find_new(metadata)
    second = parse_object(metadata.chunks.get(_SECOND_KEY, ""))
    if data:
        draft.show(data)
        _take_new(data, draft)
    elif as_object(second.get("image")):
        draft.show(as_object(second["image"]))
        _take_second(second, as_object(second["image"]), draft)
    else:
        settings = _parse_dream(metadata.chunks.get(_FIRST_KEY, ""))
        draft.recipe.text = metadata.chunks.get(_FIRST_KEY, "")[:2_000]
        _take_image(settings, draft)
        _take_old_sampler(settings, "1", draft)
        draft.note_unused(key for key in settings if key.startswith("-"))
    if not draft.values:
        raise ValueError("its InvokeAI settings cannot be read.")
    if "prompt" in draft.values:
        draft.take("prompt_syntax", "compel")
    return draft.recipe


def _take_new(data: dict[str, Any], draft: RecipeDraft) -> None:
    draft.take_prompt("prompt", data.get("positive_prompt"))
    draft.take_prompt("negative_prompt", data.get("negative_prompt"))
    for key in ("positive_style_prompt", "negative_style_prompt"):
        if as_text(data.get(key)) and data[key] != data.get(key.replace("_style", "")):
            draft.note(f"A second prompt for the style is left out: {data[key]!r:.120}")
    draft.take_named(data, _NUMBER_FIELDS)
    draft.take_size(data.get("width"), data.get("height"))
    device = (as_text(data.get("rand_device")) or "cpu").partition(":")[0]
    draft.take_seed(data.get("seed"), is_cpu_noise=device == "cpu")
    if device == "cuda":
        draft.take("noise_source", "NV")
    elif device != "cpu":
        draft.note(
            f"Its noise was drawn on {device!r:.20}: the same seed gives a different image here."
        )
    scheduler = as_text(data.get("scheduler")) or ""
    if scheduler:
        draft.take_sampler(scheduler, "" if scheduler.endswith("_k") else "Model default")
    skipped_layers = as_whole_number(data.get("clip_skip"))
    if skipped_layers:
        draft.take_number("clip_skip", skipped_layers + 1)
    _take_models(data, draft)
    if as_number(data.get("strength")) is not None and data.get("init_image"):
        draft.take_number("strength", data["strength"])
    mode = as_text(data.get("generation_mode")) or ""
    if data.get("init_image") or "img2img" in mode or "paint" in mode:
        draft.note("It was made from another image, which is not in the file.")
    for key, words in _MISSING.items():
        if data.get(key):
            draft.note(f"Not available here: {words}; the image will differ.")
    known = _READ_KEYS | _UNUSED_KEYS
    draft.note_unused(key for key, value in data.items() if value and key not in known)


def _take_models(data: dict[str, Any], draft: RecipeDraft) -> None:
    """Read the files: 3.x says "model_name", later ones "name" and "hash"."""
    draft.add_model(*_name_model(data.get("model")))
    vae = data.get("vae")
    if vae:
        draft.add_vae(*_name_model(vae))
    for item in as_list(data.get("loras"))[:MAX_LORA_SLOTS]:
        entry = as_object(item)
        name, digest = _name_model(entry.get("model") or entry.get("lora"))
        draft.add_lora(name, entry.get("weight", 0.75), digest=digest)


def _name_model(value: Any) -> tuple[str | None, str]:
    if isinstance(value, str):  # 3.0: "sdxl/main/name"
        return as_text(value), ""
    model = as_object(value)
    name = as_text(model.get("name")) or as_text(model.get("model_name"))
    return name, as_text(model.get("hash")) or ""


def _take_second(data: dict[str, Any], image: dict[str, Any], draft: RecipeDraft) -> None:
    _take_image(image, draft)
    version = re.search(r"\d+\.\d+", as_text(data.get("app_version")) or "")
    _take_old_sampler(image, version[0] if version else "2.0", draft)
    draft.add_model(data.get("model_weights"), data.get("model_hash"))
    for key, words in (
        ("postprocessing", "what was done to the finished image"),
        ("hires_fix", "its high resolution fix"),
        ("seamless", "seamless edges"),
        ("variations", "variations of its seed"),
        ("perlin", "Perlin noise"),
        ("threshold", "a threshold of the latents"),
    ):
        if image.get(key):
            draft.note(f"Not available here: {words}; the image will differ.")
    if as_text(image.get("type")) not in (None, "txt2img"):
        draft.note("It was made from another image, which is not in the file.")
    settings = {**data, **image}
    draft.note_unused(key for key in settings if settings[key] and key not in _SECOND_KEYS)


def _take_image(image: dict[str, Any], draft: RecipeDraft) -> None:
    words = _join_prompts(image.get("prompt"), draft)
    if words is not None:
        unwanted = ", ".join(part.strip() for part in _BRACKETS.findall(words) if part.strip())
        draft.take_prompt("prompt", re.sub(r"\s{2,}", " ", _BRACKETS.sub(" ", words)).strip())
        draft.take_prompt("negative_prompt", unwanted)
    draft.take_named(image, _NUMBER_FIELDS)
    draft.take_size(image.get("width"), image.get("height"))
    draft.take_seed(image.get("seed"))
    if as_number(image.get("strength")) is not None:
        draft.take_number("strength", image["strength"])


def _join_prompts(value: Any, draft: RecipeDraft) -> str | None:
    """Return a prompt out of one text, or of several with weights."""
    if isinstance(value, str):
        return as_text(value)
    parts = [as_object(item) for item in as_list(value)]
    texts = [text for part in parts if (text := as_text(part.get("prompt"))) is not None]
    if len(texts) > 1:
        draft.note("Several prompts were mixed; here they are one: the image will differ.")
    return ", ".join(texts) if texts else None


def _take_old_sampler(image: dict[str, Any], version: str, draft: RecipeDraft) -> None:
    """Read a sampler of 1.x and 2.x, whose noise levels follow from the steps."""
    sampler = as_text(image.get("sampler")) or ""
    if not sampler:
        return
    steps = as_number(image.get("steps")) or 0
    is_karras = sampler.startswith("k_") and steps <= _MAX_KARRAS_STEPS and version == "2.2"
    draft.take_sampler(sampler, "karras" if is_karras else "Model default")


def _parse_dream(text: str) -> dict[str, Any]:
    """Return the settings of a command line of 1.x."""
    match = _DREAM.match(text[:20_000])
    if not match:
        return {}
    settings: dict[str, Any] = {"prompt": match[1]}
    for flag in _DREAM_FLAG.finditer(match[2]):
        settings[_DREAM_KEYS.get(flag[1], f"-{flag[1]}")] = flag[2]
    for flag in _DREAM_LONG_FLAG.finditer(match[2]):
        settings[flag[1]] = True
    return settings


SOURCE = RecipeSource(PROGRAM, recognises_settings, read_settings)
