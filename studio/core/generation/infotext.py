"""A request as A1111's "parameters" text.

Knows: the text that A1111 v1.10 writes under an image, field by field. Does not know: how it is
read back (recipes/a1111.py), PNG files (storage/gallery/store.py), which models the library has.

    a red boat by a lake <lora:moon:0.8>
    Negative prompt: fog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 128x128, …
"""

from __future__ import annotations

import json

from studio import __version__
from studio.core.families.registry import FAMILIES
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.recipes.a1111 import parse_infotext
from studio.core.generation.recipes.a1111_keys import (
    EMBEDDING_HASH_KEY,
    OPTIONAL_FIELD_KEYS,
    OWN_VALUES_KEY,
    VALUE_LABELS,
)
from studio.core.generation.recipes.a1111_passes import find_a1111_strength
from studio.core.generation.recipes.clip_skip import count_from_last_layer
from studio.core.generation.request import GenerationRequest, WrittenRequest
from studio.core.generation.upscaler_names import get_upscaler_title
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import NO_FILES, UsedFiles, shorten_name

_CIVITAI_KEY = "Hashes"  # JSON, not quoted: Civitai looks for its braces
_VERSION_TAG = f"studio {__version__}"
# A1111's text says nothing of noise from the GPU, which the studio's is not: always written. Texts
# of the studio that do not have it are of before it could be chosen.
_ALWAYS_WRITTEN_FIELDS = ("noise_source", "strength", "mask_blur", "mask_padding", "hires_resize")


def format_infotext(request: GenerationRequest, used_files: UsedFiles = NO_FILES) -> str:
    """Return the text for one image's resolved request.

    Names are written as A1111 knows files: without folders.

    Args:
        request: The request.
        used_files: The files that it was made with; their hashes are written as A1111, Forge and
            Civitai compute them.
    """
    return _format_settings(request, used_files) + _format_templates(request)


def _format_templates(request: GenerationRequest) -> str:
    """Return the lines below the settings that A1111's dynamic prompts write."""
    origin = request.prompt_origin if isinstance(request, WrittenRequest) else None
    if origin is None:
        return ""
    lines = [("Template", origin.prompt), ("Negative Template", origin.negative_prompt)]
    return "".join(f"\n{key}: {' '.join(text.split())}" for key, text in lines if text.strip())


def _format_settings(request: GenerationRequest, used_files: UsedFiles) -> str:
    family = FAMILIES.get(used_files.family)
    clip_skip = count_from_last_layer(request.clip_skip, family)
    pairs: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": request.scheduler,
        "Schedule type": request.noise_schedule,
        "CFG scale": _format_number(request.guidance),
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": used_files.get_hash("model"),
        "Model": shorten_name(request.model),
        "Clip skip": _none_if_1(clip_skip),
        "Seed resize from": _format_seed_resize(request),
        "Batch size": _none_if_1(request.batch_size),
        **_collect_optional_pairs(request),
        **_count_passes(request),
        **_collect_file_pairs(request, used_files),
        OWN_VALUES_KEY: _format_own_values(request, clip_skip),
        "Version": _VERSION_TAG,
    }
    text = _format_text(request, pairs)
    if _is_prompt_preserved(request, text):
        return text
    # Words that look like settings or end in blanks: write them a second time, quoted.
    quoted_pairs: dict[str, object] = {
        "Prompt": request.prompt,
        "Negative": request.negative_prompt,
        "Loras": _format_lora_tags(request) or None,
    }
    return _format_text(request, quoted_pairs | pairs)


def _collect_file_pairs(request: GenerationRequest, used_files: UsedFiles) -> dict[str, object]:
    """Return what is said of the files beside the model's own name and hash."""
    vae = used_files.get("vae")
    vae_name = vae.file_name if vae else shorten_name(request.vae)
    overrides = dict(used_files.overrides)
    noise_schedule = {"True": "Zero Terminal SNR", "False": "Default"}
    return {
        "VAE hash": used_files.get_hash("vae"),
        "VAE": vae_name or None,
        "Lora hashes": used_files.format_lora_hashes(),
        EMBEDDING_HASH_KEY: _format_embedding_hashes(used_files),
        "Prediction type": overrides.get("prediction_type"),
        "Noise Schedule": noise_schedule.get(overrides.get("zero_snr", "")),
        _CIVITAI_KEY: used_files.format_civitai_hashes(),
    }


def format_upscale(
    request: GenerationRequest, record: UpscaleRecord, used_files: UsedFiles = NO_FILES
) -> str:
    """Return the text for an image that was made larger: as A1111's Extras tab writes it.

    Args:
        request: What the image was made with before.
        record: How it was made larger; where nothing is known of before, only that is written.
        used_files: The files that it was made with before, as far as they are known.
    """
    pairs = {
        "Postprocess upscale by": _format_number(record.scale),
        "Postprocess upscaler": get_upscaler_title(record.upscaler),
    }
    settings = ", ".join(f"{key}: {_quote(key, value)}" for key, value in pairs.items())
    if not record.has_settings:
        return settings
    return f"{_format_settings(request, used_files)}, {settings}{_format_templates(request)}"


def _format_embedding_hashes(used_files: UsedFiles) -> str | None:
    hashes = used_files.list_hashes("embedding")
    return ", ".join(f"{name}: {digits}" for name, digits in hashes.items()) or None


def _format_seed_resize(request: GenerationRequest) -> str | None:
    if not (request.seed_resize_width or request.seed_resize_height):
        return None
    return f"{request.seed_resize_width}x{request.seed_resize_height}"


def _none_if_1(number: int) -> int | None:
    return number if number > 1 else None


def _format_number(number: float) -> str:
    return f"{number!r}".removesuffix(".0")


def _collect_optional_pairs(request: GenerationRequest) -> dict[str, object]:
    """Return the other settings that are active, and not at their default."""
    pairs: dict[str, object] = {}
    for name, key in OPTIONAL_FIELD_KEYS.items():
        value = getattr(request, name)
        is_default = value == GenerationRequest.model_fields[name].default
        if name in request.inactive_fields:
            continue
        if is_default and name not in _ALWAYS_WRITTEN_FIELDS:
            continue
        if (name, value) in VALUE_LABELS:
            value = VALUE_LABELS[name, value]
        elif isinstance(value, float):
            value = _format_number(value)
        pairs[key] = value
    pairs.pop("VAE", None)  # it is written with the files
    if request.active_upscaler:  # A1111 has one name for what is enlarged and by what
        pairs["Hires upscaler"] = get_upscaler_title(request.active_upscaler)
    if request.has_hires_pass and not request.image:  # A1111 has one name for both strengths
        pairs["Denoising strength"] = pairs.pop("Hires strength", request.hires_strength)
    return pairs


def _count_passes(request: GenerationRequest) -> dict[str, object]:
    """Return steps and strength so that A1111 runs as many steps as are run here."""
    pairs: dict[str, object] = {}
    if request.image:
        strength = find_a1111_strength(request.steps, request.strength, request.scheduler)
        pairs["Denoising strength"] = _format_number(strength)
    if request.has_hires_pass:  # A1111 runs all that it is told to, without a word the first pass's
        run_steps = request.hires_effective_steps
        pairs["Hires steps"] = run_steps if run_steps not in (0, request.steps) else None
    return pairs


def _format_own_values(request: GenerationRequest, clip_skip: int) -> str | None:
    """Return the settings that A1111 counts otherwise, as they are here, so that none is lost."""
    names = []
    if clip_skip != request.clip_skip:
        names.append("clip_skip")
    passes = _count_passes(request)
    if passes.get("Denoising strength") not in (None, _format_number(request.strength)):
        names.append("strength")
    if request.has_hires_pass and (passes["Hires steps"] or 0) != request.hires_steps:
        names.append("hires_steps")
    return " ".join(f"{name}={_format_number(getattr(request, name))}" for name in names) or None


def _format_text(request: GenerationRequest, pairs: dict[str, object]) -> str:
    words = " ".join(filter(None, [request.prompt, _format_lora_tags(request)]))
    lines = [words] if words else []
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    settings = [
        f"{key}: {value if key == _CIVITAI_KEY else _quote(key, str(value))}"
        for key, value in pairs.items()
        if value is not None
    ]
    lines.append(", ".join(settings))
    return "\n".join(lines)


def _is_prompt_preserved(request: GenerationRequest, text: str) -> bool:
    values = parse_infotext(text).values
    return bool(
        values["prompt"] == request.prompt
        and values["negative_prompt"] == request.negative_prompt
        and values.get("loras", []) == [use.model_dump() for use in _shorten_loras(request)]
    )


def _format_lora_tags(request: GenerationRequest) -> str:
    return " ".join(use.tag for use in _shorten_loras(request))


def _shorten_loras(request: GenerationRequest) -> list[LoraUse]:
    """Return the LoRAs under their files' names, as far as two do not share one."""
    names = [shorten_name(use.name) for use in request.loras]
    return [
        use.model_copy(update={"name": name}) if names.count(name) == 1 else use
        for use, name in zip(request.loras, names)
    ]


def _quote(key: str, value: str) -> str:
    """Return a value as it stands in the text: in quotes where it could be misread."""
    has_separator = any(character in value for character in ',\n:"')
    if key in ("Prompt", "Negative") or has_separator or value != value.strip():
        return json.dumps(value, ensure_ascii=False)
    return value
