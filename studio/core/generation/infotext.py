"""A1111's "parameters" text ⇄ request.

Knows: the text that A1111 v1.10 writes under an image, field by field, and how to read it back: our
own without loss (but for settings that change nothing), others' as far as the studio can do the
same. Does not know: PNG files (storage/gallery.py), which models the library has.

    a red boat by a lake <lora:moon:0.8>
    Negative prompt: fog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 128x128, …
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio import __version__
from studio.core.base import field_meta
from studio.core.catalog import (
    AUTOMATIC,
    MODEL_DEFAULT,
    SCHEDULE_ALIASES,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
    explain_missing_scheduler,
)
from studio.core.generation import lora_use
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaler_names import (
    get_upscaler_title,
    is_latent_formula,
    normalize_upscaler_name,
)
from studio.core.generation.upscaling import UpscaleRecord
from studio.errors import quote

MAX_TEXT_CHARS = 1_000_000  # more is no settings text
MIN_PAIRS = 3  # fewer are no settings text
SHOWN_HASH_DIGITS = 10
SHOWN_EMBEDDING_HASH_DIGITS = 12  # A1111 shows two more of these
_EMBEDDING_HASH_KEY = "TI hashes"
_EMBEDDING_HASH_PATTERN = re.compile(r"\s*(.{1,200}?)\s*: ([0-9a-fA-F]{8,64})\s*(?:,|$)")
# A1111's pattern with an end to the keys: without one, a long line of letters takes hours.
_PAIR_PATTERN = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE_PATTERN = re.compile(r"^Negative prompt:", re.MULTILINE)
_SIZE_PATTERN = re.compile(r"^(\d{1,5})x(\d{1,5})$")
_OWN_VAE_WORDS = ("None", "Automatic", "Built in")
_WEIGHTS_ENDING = re.compile(r"\.(safetensors|ckpt|pt|pth|bin)$")
_VERSION_TAG = f"studio {__version__}"
# A1111's text says nothing of noise from the GPU, which the studio's is not: always written. Texts
# of the studio that do not have it are of before it could be chosen.
NOISE_SOURCE_KEY = "RNG"
_ALWAYS_WRITTEN_FIELDS = ("noise_source", "strength", "mask_blur", "mask_padding", "hires_resize")
# A1111's words for values of (field, value).
_VALUE_LABELS = {
    ("invert_mask", True): "Inpaint not masked",
    ("inpaint_area", "only masked"): "Only masked",
    ("hires_resize", "latent"): "Latent",
    ("hires_resize", "pixel"): "Lanczos",
}
_LABEL_VALUES = {label: value for (_, value), label in _VALUE_LABELS.items()}
# Key, field, and what reads its value.
_PLAIN_PAIRS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("Steps", "steps", int),
    ("CFG scale", "guidance", float),
    ("Seed", "seed", int),
    ("Clip skip", "clip_skip", int),
    ("Model", "model", str),
    ("Batch size", "batch_size", int),
)
# What is written in a way of its own, or is not written: that of one image says nothing of others.
_SPECIAL_FIELDS = {
    *("prompt", "negative_prompt", "loras", "width", "height", "scheduler", "noise_schedule"),
    *("num_images", "hires_upscaler", "seed_resize_width", "seed_resize_height"),
}
# All others, under A1111's names where it has them; written where they are active and differ from
# the default, some always.
_OPTIONAL_FIELD_KEYS = {
    name: str(field_meta(GenerationRequest, name)["infotext"])
    for name in GenerationRequest.model_fields
    if name not in _SPECIAL_FIELDS | {name for _, name, _ in _PLAIN_PAIRS}
}
_IGNORED_KEYS = ("Model hash", "VAE hash", "Batch pos", "RNG", "Lora hashes", "Init image hash")


@dataclass
class ParsedInfotext:
    """Values for a request's fields, and notes on what could not be taken over.

    Attributes:
        embedding_hashes: The beginning of the file's sha256 for each textual inversion that the
            prompts name, by that name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    embedding_hashes: dict[str, str] = field(default_factory=dict)


def format_infotext(
    request: GenerationRequest, content_hashes: Mapping[str, str] | None = None
) -> str:
    """Return the text for one image's resolved request.

    Args:
        request: The request.
        content_hashes: What its digest was made over: of the model's ("model") ten digits are
            written, of each textual inversion's ("embedding NAME") twelve.
    """
    content_hashes = content_hashes or {}
    pairs: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": request.scheduler,
        "Schedule type": request.noise_schedule,
        "CFG scale": _format_number(request.guidance),
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": content_hashes.get("model", "")[:SHOWN_HASH_DIGITS] or None,
        "Model": request.model,
        "Clip skip": _none_if_1(request.clip_skip),
        "Seed resize from": _format_seed_resize(request),
        "Batch size": _none_if_1(request.batch_size),
        **_collect_optional_pairs(request),
        _EMBEDDING_HASH_KEY: _format_embedding_hashes(content_hashes),
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


def format_upscale(request: GenerationRequest, record: UpscaleRecord) -> str:
    """Return the text for an image that was made larger: as A1111's Extras tab writes it.

    Args:
        request: What the image was made with before.
        record: How it was made larger; where nothing is known of before, only that is written.
    """
    pairs = {
        "Postprocess upscale by": _format_number(record.scale),
        "Postprocess upscaler": get_upscaler_title(record.upscaler),
    }
    settings = ", ".join(f"{key}: {_quote(key, value)}" for key, value in pairs.items())
    return f"{format_infotext(request)}, {settings}" if record.has_settings else settings


def parse_infotext(text: str) -> ParsedInfotext:
    """Return the settings in a text that this studio, A1111, Forge or SD.Next wrote.

    Raises ValueError where there are none.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError("the settings text is longer than a million characters.")
    *lines, last_line = text.strip("\r\n").split("\n") if text.strip() else [""]
    pairs = {key.strip(): _unquote(value) for key, value in _PAIR_PATTERN.findall(last_line)}
    if len(pairs) < MIN_PAIRS:
        raise ValueError("there are no settings in it.")
    is_own = pairs.pop("Version", "").startswith("studio ")
    if not is_own:
        lines = [line.strip() for line in lines]
    words = _NEGATIVE_PATTERN.split("\n".join(lines), 1)
    negative_words = words[1].removeprefix(" ") if len(words) > 1 else ""
    parsed = ParsedInfotext()
    _read_prompt(words[0].removesuffix("\n"), pairs, parsed)
    parsed.values["negative_prompt"] = pairs.pop("Negative", negative_words)
    hashes = _EMBEDDING_HASH_PATTERN.findall(pairs.pop(_EMBEDDING_HASH_KEY, ""))
    parsed.embedding_hashes = {name: digits.lower() for name, digits in hashes}
    _read_pairs(pairs, parsed, is_own)
    return parsed


def _format_embedding_hashes(content_hashes: Mapping[str, str]) -> str | None:
    pairs = [
        f"{name}: {content_hash[:SHOWN_EMBEDDING_HASH_DIGITS]}"
        for name, content_hash in get_embedding_hashes(content_hashes).items()
    ]
    return ", ".join(pairs) or None


def get_embedding_hashes(content_hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of textual inversions by name, of all that a digest was made over."""
    return {
        key.removeprefix("embedding "): content_hash
        for key, content_hash in content_hashes.items()
        if key.startswith("embedding ")
    }


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
    for name, key in _OPTIONAL_FIELD_KEYS.items():
        value = getattr(request, name)
        is_default = value == GenerationRequest.model_fields[name].default
        if name in request.inactive_fields:
            continue
        if is_default and name not in _ALWAYS_WRITTEN_FIELDS:
            continue
        if (name, value) in _VALUE_LABELS:
            value = _VALUE_LABELS[name, value]
        elif isinstance(value, float):
            value = _format_number(value)
        pairs[key] = value
    if request.active_upscaler:  # A1111 has one name for what is enlarged and by what
        pairs["Hires upscaler"] = get_upscaler_title(request.active_upscaler)
    if request.has_hires_pass and not request.image:  # A1111 has one name for both strengths
        pairs["Denoising strength"] = pairs.pop("Hires strength", request.hires_strength)
    return pairs


def _format_text(request: GenerationRequest, pairs: dict[str, object]) -> str:
    words = " ".join(filter(None, [request.prompt, _format_lora_tags(request)]))
    lines = [words] if words else []
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    settings = [
        f"{key}: {_quote(key, str(value))}" for key, value in pairs.items() if value is not None
    ]
    lines.append(", ".join(settings))
    return "\n".join(lines)


def _is_prompt_preserved(request: GenerationRequest, text: str) -> bool:
    values = parse_infotext(text).values
    return bool(
        values["prompt"] == request.prompt
        and values["negative_prompt"] == request.negative_prompt
        and values.get("loras", []) == request.model_dump(mode="json")["loras"]
    )


def _format_lora_tags(request: GenerationRequest) -> str:
    return " ".join(use.tag for use in request.loras)


def _read_prompt(prompt_text: str, pairs: dict[str, str], parsed: ParsedInfotext) -> None:
    """Read the prompt, with its tags as LoRAs.

    Tags that cannot be read stay where they are: the form says what is wrong.
    """
    quoted_prompt = pairs.pop("Prompt", None)
    try:
        if quoted_prompt is None:
            prompt, uses = lora_use.extract_tags(prompt_text)
        else:
            prompt = quoted_prompt
            uses = lora_use.parse_loras(pairs.pop("Loras", ""))
    except ValueError:
        prompt, uses = prompt_text, ()
    parsed.values["prompt"] = prompt
    parsed.values["loras"] = [use.model_dump() for use in uses]


def _quote(key: str, value: str) -> str:
    """Return a value as it stands in the text: in quotes where it could be misread."""
    has_separator = any(character in value for character in ',\n:"')
    if key in ("Prompt", "Negative") or has_separator or value != value.strip():
        return json.dumps(value, ensure_ascii=False)
    return value


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def _read_pairs(pairs: dict[str, str], parsed: ParsedInfotext, is_own: bool) -> None:
    """Turn A1111's pairs into fields, and note what cannot be taken over."""
    for key, name, convert in _PLAIN_PAIRS:
        if key in pairs:
            _read_value(parsed, key, name, pairs.pop(key), convert)
    size = _SIZE_PATTERN.match(pairs.pop("Size", ""))
    if size:
        parsed.values["width"] = int(size[1])
        parsed.values["height"] = int(size[2])
    noise_size = _SIZE_PATTERN.match(pairs.pop("Seed resize from", ""))
    if noise_size:
        parsed.values["seed_resize_width"] = int(noise_size[1])
        parsed.values["seed_resize_height"] = int(noise_size[2])
    sampler = pairs.pop("Sampler", "")
    schedule = pairs.pop("Schedule type", "")
    if sampler:
        _read_sampler(sampler, schedule, parsed, is_own and NOISE_SOURCE_KEY not in pairs)
    _read_optional_pairs(pairs, parsed, is_own)
    if is_own:
        return
    # Elsewhere it says that this was an image of a batch, not what was wished.
    parsed.values.pop("batch_size", None)
    ignored = sorted(key for key in pairs if key not in _IGNORED_KEYS)
    if ignored:
        parsed.notes.append(f"Not taken over: {', '.join(ignored):.200}.")


def _read_value(
    parsed: ParsedInfotext, key: str, name: str, value: str, convert: Callable[[str], Any]
) -> None:
    try:
        parsed.values[name] = convert(value)
    except ValueError:
        parsed.notes.append(f"{key}: {quote(value)} is not a number; left as it is.")


def _read_optional_pairs(pairs: dict[str, str], parsed: ParsedInfotext, is_own: bool) -> None:
    """Read the settings that are written only where they matter."""
    has_hires_pass = "Hires upscale" in pairs or "Hires resize" in pairs
    if has_hires_pass and "Init image" not in pairs and "Denoising strength" in pairs:
        pairs["Hires strength"] = pairs.pop("Denoising strength")
    if not is_own and not has_hires_pass and "Denoising strength" in pairs:
        parsed.notes.append("It was made from another picture, which the text does not hold.")
    hires_size = _SIZE_PATTERN.match(pairs.get("Hires resize", ""))
    if hires_size and parsed.values.get("width"):
        del pairs["Hires resize"]
        pairs["Hires upscale"] = f"{int(hires_size[1]) / parsed.values['width']:.6g}"
    for name, key in _OPTIONAL_FIELD_KEYS.items():
        if key not in pairs:
            continue
        kind: Any = GenerationRequest.model_fields[name].annotation
        if kind == float | None:
            kind = float
        convert: Callable[[str], Any] = kind if kind in (int, float) else _read_label
        if kind is bool and pairs[key] not in _LABEL_VALUES:
            convert = "True".__eq__
        _read_value(parsed, key, name, pairs.pop(key), convert)
    if not is_own and "vae" in parsed.values:
        parsed.values["vae"] = _read_vae(parsed.values["vae"])
    upscaler = parsed.values.get("hires_resize")
    if upscaler in (None, "latent", "pixel"):
        return
    if is_latent_formula(str(upscaler)):
        parsed.values["hires_resize"] = "latent"
        parsed.notes.append(
            f"Hires upscaler {quote(upscaler)} is not in this studio; latent is taken."
        )
        return
    parsed.values["hires_resize"] = "pixel"
    parsed.values["hires_upscaler"] = normalize_upscaler_name(str(upscaler))


def _read_vae(file_name: str) -> str:
    """Return the name of a VAE by what A1111 writes: its file, or a word for the model's own."""
    if file_name in _OWN_VAE_WORDS:
        return ""
    return _WEIGHTS_ENDING.sub("", file_name)


def _read_label(label: str) -> Any:
    return _LABEL_VALUES.get(label, label)


def _read_sampler(
    sampler: str, schedule: str, parsed: ParsedInfotext, is_own_of_before: bool
) -> None:
    """Read scheduler and noise schedule."""
    # Before v1.9 the noise schedule was a part of the sampler's name.
    for suffix in ("Karras", "Exponential"):
        if not schedule and sampler.endswith(f" {suffix}"):
            sampler = sampler.removesuffix(f" {suffix}")
            schedule = suffix
    schedulers: dict[str, Scheduler] = {name.casefold(): name for name in SCHEDULERS}
    scheduler = schedulers.get(sampler.casefold())
    if scheduler is None:
        reason = explain_missing_scheduler(sampler)
        parsed.notes.append(
            f"Sampler {quote(sampler)} is not in this studio{f': {reason}' if reason else ''}; the "
            "scheduler is left as it is."
        )
        return
    schedules = (AUTOMATIC, *SCHEDULERS[scheduler].noise_schedules)
    possible: dict[str, NoiseSchedule] = {name.casefold(): name for name in schedules}
    schedule = SCHEDULE_ALIASES.get(schedule, schedule) or AUTOMATIC
    noise_schedule = possible.get(schedule.casefold())
    if schedule == AUTOMATIC and is_own_of_before:
        noise_schedule = MODEL_DEFAULT  # written so until Automatic was to be had
    if noise_schedule is None:
        parsed.notes.append(
            f"Schedule type {quote(schedule)} does not go with {scheduler} here; Automatic is "
            "taken."
        )
        noise_schedule = AUTOMATIC
    parsed.values["scheduler"] = scheduler
    parsed.values["noise_schedule"] = noise_schedule
