"""SwarmUI's images, and those of StableSwarmUI before it.

Knows: its JSON, the marks of its prompts. Does not know: graphs of ComfyUI, by which it paints.

    {"sui_image_params": {"prompt": "a boat", "model": "folder/name", "seed": 1, …},
     "sui_extra_data": {…},
     "sui_models": [{"name": "name.safetensors", "param": "model", "hash": "0x…"}]}

Source: mcmonkeyprojects/SwarmUI, docs ("Image Metadata Format", "Prompt Syntax"). Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from studio.core.generation.recipes.comfyui_prompts import adapt_words
from studio.core.generation.recipes.draft import RecipeDraft, get_file_name
from studio.core.generation.recipes.json_text import (
    as_list,
    as_number,
    as_object,
    as_text,
    parse_object,
)
from studio.core.generation.recipes.recipe import FileKind, ImageMetadata, Recipe, RecipeSource

_KEY = "sui_image_params"
MAX_LORA_SLOTS = 100
_NUMBER_FIELDS = {"steps": "steps", "cfgscale": "guidance"}
_UNUSED = {
    *("swarm_version", "aspectratio", "automaticvae", "date", "generation_time", "images"),
    *("nopreviews", "imageformat", "wildcardseed", "personalnote", "donotsave", "batchsize"),
    *("used_wildcards", "original_prompt", "resolution", "sidelength", "colordepth", "presets"),
    *("debugregionalprompting", "saveintermediateimages", "donotsaveintermediates", "batchid"),
}
_KNOWN = {
    *("prompt", "negativeprompt", "model", "seed", "width", "height", "sampler", "scheduler"),
    *("comfyuisampler", "comfyuischeduler", "autowebuisampler", "vae", "loras", "loraweights"),
    *("loratencweights", "clipstopatlayer", "initimage", "initimagecreativity", "refinerupscale"),
    *("refinerupscalemethod", "refinercontrolpercentage", "refinersteps", "variationseed"),
    *("variationseedstrength", "lorasectionconfinement", "loraweightsections"),
    *_NUMBER_FIELDS,
}
_BREAK = re.compile("<break>", re.IGNORECASE)
_TURN = re.compile(
    r"<(fromto\[([\d.]{1,10})\]|alternate|alt):([^<>|,]*)[,|]([^<>]*)>", re.IGNORECASE
)
_PART = re.compile(
    r"<(segment|object|region|refiner|base|video|videoswap|edit|extend|clear)\b[^<>]{0,200}>.*",
    re.IGNORECASE | re.DOTALL,
)
_OTHER = re.compile(
    r"<(?!lora:)(\w{1,20})(?:\[[^<>\]]{0,100}\])?(?::([^<>]{0,300}))?>", re.IGNORECASE
)
_LORA_TAG = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)


def find_settings(metadata: ImageMetadata) -> dict[str, Any]:
    """Return the whole JSON that SwarmUI wrote; empty where there is none."""
    for text in _list_texts(metadata):
        if _KEY in text and as_object((data := parse_object(text)).get(_KEY)):
            return data
    return {}


def _list_texts(metadata: ImageMetadata) -> Iterator[str]:
    yield metadata.chunks.get("parameters", "")
    yield metadata.user_comment
    yield metadata.exif.get("Model", "")  # StableSwarmUI before 0.6
    yield metadata.comment
    yield metadata.chunks.get("Comment", "")
    yield metadata.sidecars.get(".json", "")


def recognises_settings(metadata: ImageMetadata) -> bool:
    """Return whether SwarmUI wrote a file's JSON."""
    return bool(find_settings(metadata))


def read_settings(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of an image of SwarmUI. Raises ValueError where there is none."""
    data = find_settings(metadata)
    params = as_object(data.get(_KEY))
    if not params:
        raise ValueError("it contains no SwarmUI settings.")
    draft = RecipeDraft("SwarmUI")
    draft.show(params)
    for key, name in (("prompt", "prompt"), ("negativeprompt", "negative_prompt")):
        text = as_text(params.get(key))
        if text is not None:
            words = read_prompt(text, draft, is_in_list=bool(params.get("loras")))
            draft.take_prompt(name, words, has_lora_tags=True)
    draft.take("prompt_syntax", "A1111")
    if "(" in f"{params.get('prompt')}{params.get('negativeprompt')}":
        draft.take("emphasis", "compel")
    draft.take_named(params, _NUMBER_FIELDS)
    draft.take_seed(params.get("seed"))
    draft.take_size(params.get("width"), params.get("height"))
    draft.take_sampler(
        params.get("sampler") or params.get("comfyuisampler") or params.get("autowebuisampler"),
        params.get("scheduler") or params.get("comfyuischeduler"),
    )
    if as_number(params.get("clipstopatlayer")):
        draft.take_clip_skip(params["clipstopatlayer"])
    _take_files(data, params, draft)
    _take_passes(params, draft)
    draft.note_unused(key for key in params if key not in _KNOWN | _UNUSED)
    return draft.recipe


def read_prompt(text: str, draft: RecipeDraft, *, is_in_list: bool) -> str:
    """Return a prompt of SwarmUI's grammar in A1111's.

    Args:
        text: The prompt.
        draft: What notes go to.
        is_in_list: Whether the LoRAs of its tags stand in the settings too.
    """
    part = _PART.search(text)
    if part:
        draft.note(f"Left out of the prompt: {part[0]!r:.120}, which is painted separately there.")
        text = text[: part.start()]
    tags = [] if is_in_list else _LORA_TAG.findall(text)
    text = _LORA_TAG.sub("", text)
    # Placeholders: what stands for signs must not be escaped as words.
    text = " \x01 ".join(part.strip() for part in _BREAK.split(text))
    text = _TURN.sub(_format_turn, text)
    for match in _OTHER.finditer(text):
        draft.note(f"{match[0]!r:.80} in the prompt is not available here; its words are kept.")
    text = adapt_words(_OTHER.sub(lambda match: match[2] or "", text))
    text = text.replace("\x02", "[").replace("\x03", "]")
    text = text.replace(" \x01 ", " BREAK ").strip()
    return " ".join(filter(None, [text, *tags]))


def _format_turn(match: re.Match[str]) -> str:
    """Return words that take turns in A1111's grammar, with placeholders for its brackets."""
    first, second = match[3].strip(), match[4].strip()
    if match[2]:
        return f"\x02{first}:{second}:{match[2]}\x03"
    return f"\x02{first}|{second}\x03"


def _take_files(data: dict[str, Any], params: dict[str, Any], draft: RecipeDraft) -> None:
    digests = {}
    for item in as_list(data.get("sui_models")):
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            digests[get_file_name(item["name"])] = item.get("hash")
    for key, kind in (("model", "model"), ("vae", "vae")):
        name = get_file_name(as_text(params.get(key)) or "")
        if name and kind == "model":
            draft.add_model(name, digests.get(name))
        elif name:
            draft.add_vae(name, digests.get(name))
    names = _split_list(params.get("loras"))[:MAX_LORA_SLOTS]
    weights = _split_list(params.get("loraweights"))
    encoder_weights = _split_list(params.get("loratencweights"))
    for place, path in enumerate(names):
        name = get_file_name(as_text(path) or "")
        weight = weights[place] if place < len(weights) else 1.0
        encoder = encoder_weights[place] if place < len(encoder_weights) else None
        draft.add_lora(name, weight, encoder, digests.get(name))


def _split_list(value: Any) -> list[Any]:
    """Return a list, also one that is written with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return as_list(value)


def _take_passes(params: dict[str, Any], draft: RecipeDraft) -> None:
    """Read what was done before and after: a picture to begin with, a pass at a larger size."""
    if "initimage" in params or "initimagecreativity" in params:
        draft.note("It was made from another image, which is not in the file.")
        draft.take_number("strength", params.get("initimagecreativity"))
    if as_number(params.get("variationseedstrength")):
        draft.take_number("variation_seed", params.get("variationseed"))
        draft.take_number("variation_strength", params["variationseedstrength"])
    scale = as_number(params.get("refinerupscale"))
    share = as_number(params.get("refinercontrolpercentage"))
    if scale and scale > 1 and share:
        draft.take_number("hires_scale", scale)
        draft.take_number("hires_strength", share)
        steps = as_number(params.get("refinersteps"))
        if steps:
            draft.take_number("hires_steps", steps)
        _take_upscaler(as_text(params.get("refinerupscalemethod")) or "", draft)
    elif share:
        draft.note("A refiner painted its last steps; here the model runs to the end.")


def _take_upscaler(method: str, draft: RecipeDraft) -> None:
    """Read "model-4x.pth", "pixel-lanczos", "latent-bicubic"."""
    kind, _, name = method.partition("-")
    draft.take("hires_resize", "latent" if kind.startswith("latent") else "pixel")
    if kind in ("model", "latentmodel"):
        upscaler: FileKind = "upscaler"
        draft.take("hires_upscaler", draft.add_file(upscaler, name))


SOURCE = RecipeSource("SwarmUI", recognises_settings, read_settings)
