"""A1111's "parameters" text ⇄ request.

Knows: the text that A1111 v1.10 writes under a picture, field by field, and how to read it back: our own without loss (but for
settings that change nothing), others' as far as the studio can do the same. Does not know: PNG files (storage/gallery.py), which
models are here.

    a red boat by a lake <lora:moon:0.8>
    Negative prompt: fog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 128x128, Model hash: …, …
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from studio import __version__
from studio.core.base import extra
from studio.core.catalog import SCHEDULERS, Schedule, Scheduler
from studio.core.generation import lora_use
from studio.core.generation.request import NEEDS, GenerationRequest
from studio.core.generation.rules import SWITCHES

LONGEST = 1_000_000  # characters; more is no settings text
# A1111's pattern with an end to the keys: without one, a long line of letters takes hours.
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = re.compile(r"^Negative prompt:", re.MULTILINE)
_SIZE = re.compile(r"^(\d{1,5})x(\d{1,5})$")
# What A1111's "Automatic" means for a sampler there; for all others it is Uniform.
_AUTOMATIC: dict[str, Schedule] = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "UniPC": "SGM Uniform",
}
_OURS = f"studio {__version__}"
# Settings of work on a picture, under A1111's names where it has them; written where they differ from the default, some always.
_ON_A_PICTURE = {
    name: str(extra(GenerationRequest, name)["infotext"])
    for name in GenerationRequest.model_fields
    if name in NEEDS or name in SWITCHES
}
_ALWAYS = ("strength", "mask_blur", "mask_padding", "hires_resize")
_SAID = {
    ("invert_mask", True): "Inpaint not masked",
    ("inpaint_area", "only masked"): "Only masked",
    ("hires_resize", "latent"): "Latent",
    ("hires_resize", "pixel"): "Lanczos",
}
_UNSAID = ("Model hash", "VAE hash", "Batch pos", "RNG", "Lora hashes", "Init image hash")


@dataclass
class Found:
    """What a text said: values for a request's fields, and notes on what could not be taken over."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write(request: GenerationRequest, model_hash: str = "") -> str:
    """The text for one picture's resolved request; `model_hash` is the content's sha256, of which ten digits are shown."""
    pairs: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": request.scheduler,
        "Schedule type": "Automatic" if request.schedule == "As shipped" else request.schedule,
        "CFG scale": f"{request.guidance!r}".removesuffix(".0"),
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash[:10] or None,
        "Model": request.model,
        "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
        "Batch size": request.batch if request.batch > 1 else None,
        **_on_a_picture(request),
        "Version": _OURS,
    }
    text = _text(request, pairs)
    if not _same_words(
        request, text
    ):  # words that look like settings or end in blanks: say them twice, safely
        tags = _tags(request) or None
        text = _text(
            request,
            {"Prompt": request.prompt, "Negative": request.negative_prompt, "Loras": tags} | pairs,
        )
    return text


def read(text: str) -> Found:
    """Settings from a text that this studio, A1111, Forge or SD.Next wrote. Raises ValueError where there are none."""
    if len(text) > LONGEST:
        raise ValueError("the settings text is longer than a million characters.")
    *lines, last = text.strip("\r\n").split("\n") if text.strip() else [""]
    pairs = {key.strip(): _unquoted(value) for key, value in _PAIR.findall(last)}
    if len(pairs) < 3:
        raise ValueError("there are no settings in it.")
    found = Found()
    own = pairs.pop("Version", "").startswith("studio ")
    words, negative, *_ = [
        *_NEGATIVE.split("\n".join(lines if own else map(str.strip, lines)), 1),
        "",
    ]
    _take_prompt(words.removesuffix("\n"), pairs, found)
    found.values["negative_prompt"] = pairs.pop("Negative", negative.removeprefix(" "))
    _take(pairs, found, own)
    return found


def _on_a_picture(request: GenerationRequest) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, key in _ON_A_PICTURE.items():
        value = getattr(request, name)
        if name not in request.idle and (
            name in _ALWAYS or value != GenerationRequest.model_fields[name].default
        ):
            found[key] = _SAID.get((name, value)) or (
                f"{value!r}".removesuffix(".0") if isinstance(value, float) else value
            )
    if request.hires and not request.image:  # A1111 has one name for both strengths
        found["Denoising strength"] = found.pop("Hires strength", request.hires_strength)
    return found


def _text(request: GenerationRequest, pairs: dict[str, object]) -> str:
    words = (
        f"{request.prompt} {_tags(request)}"
        if request.prompt and request.loras
        else request.prompt or _tags(request)
    )
    lines = [words] if words else []
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(
        ", ".join(
            f"{key}: {_quoted(key, str(value))}"
            for key, value in pairs.items()
            if value is not None
        )
    )
    return "\n".join(lines)


def _same_words(request: GenerationRequest, text: str) -> bool:
    values = read(text).values
    return bool(
        values["prompt"] == request.prompt
        and values["negative_prompt"] == request.negative_prompt
        and values.get("loras", []) == request.model_dump(mode="json")["loras"]
    )


def _tags(request: GenerationRequest) -> str:
    return " ".join(use.tag for use in request.loras)


def _take_prompt(words: str, pairs: dict[str, str], found: Found) -> None:
    """The prompt, with its tags as LoRAs. Tags that cannot be read stay where they are: the form says what is wrong."""
    safe = pairs.pop("Prompt", None)
    try:
        found.values["prompt"], uses = (
            lora_use.lift(words) if safe is None else (safe, lora_use.read(pairs.pop("Loras", "")))
        )
    except ValueError:
        found.values["prompt"], uses = words, ()
    found.values["loras"] = [use.model_dump() for use in uses]


def _quoted(key: str, value: str) -> str:
    plain = (
        key not in ("Prompt", "Negative")
        and value == value.strip()
        and not any(c in value for c in ',\n:"')
    )
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def _take(pairs: dict[str, str], found: Found, own: bool) -> None:
    """Turn A1111's pairs into fields; what is left over is noted."""
    for key, name, turn in (
        ("Steps", "steps", int),
        ("CFG scale", "guidance", float),
        ("Seed", "seed", int),
        ("Clip skip", "clip_skip", int),
        ("Model", "model", str),
        ("Batch size", "batch", int),
    ):
        if key in pairs:
            value = pairs.pop(key)
            try:
                found.values[name] = turn(value)
            except ValueError:
                found.notes.append(f"{key}: {value!r:.40} is not a number; left as it is.")
    if size := _SIZE.match(pairs.pop("Size", "")):
        found.values["width"], found.values["height"] = int(size[1]), int(size[2])
    sampler, schedule = pairs.pop("Sampler", ""), pairs.pop("Schedule type", "")
    if sampler:
        _take_sampler(sampler, schedule, found, own)
    _take_on_a_picture(pairs, found, own)
    if not own:
        if "batch" in found.values:
            del found.values["batch"]  # elsewhere it was one picture of a batch, not a wish
        if ignored := sorted(key for key in pairs if key not in _UNSAID):
            found.notes.append(f"Not taken over: {', '.join(ignored):.200}.")


def _take_on_a_picture(pairs: dict[str, str], found: Found, own: bool) -> None:
    hires, said = (
        "Hires upscale" in pairs or "Hires resize" in pairs,
        {wrote: value for (_, value), wrote in _SAID.items()},
    )
    if hires and "Init image" not in pairs and "Denoising strength" in pairs:
        pairs["Hires strength"] = pairs.pop("Denoising strength")
    if not own and not hires and "Denoising strength" in pairs:
        found.notes.append("It was made from another picture, which the text does not hold.")
    if (size := _SIZE.match(pairs.get("Hires resize", ""))) and found.values.get("width"):
        del pairs["Hires resize"]
        pairs["Hires upscale"] = f"{int(size[1]) / found.values['width']:.6g}"
    for name, key in _ON_A_PICTURE.items():
        if key not in pairs:
            continue
        value: Any = pairs.pop(key)
        kind = GenerationRequest.model_fields[name].annotation
        try:
            found.values[name] = said.get(value, value) if kind not in (int, float) else kind(value)
        except ValueError:
            found.notes.append(f"{key}: {value!r:.40} is not a number; left as it is.")
    if (upscaler := found.values.get("hires_resize")) not in (None, "latent", "pixel"):
        found.values["hires_resize"] = "latent" if str(upscaler).startswith("Latent") else "pixel"
        found.notes.append(
            f"Hires upscaler {upscaler!r:.40} is not in this studio; {found.values['hires_resize']} is taken."
        )


def _take_sampler(sampler: str, schedule: str, found: Found, own: bool) -> None:
    for ending in (
        "Karras",
        "Exponential",
    ):  # before v1.9 the ladder was part of the sampler's name
        if not schedule and sampler.endswith(f" {ending}"):
            sampler, schedule = sampler.removesuffix(f" {ending}"), ending
    known: dict[str, Scheduler] = {name.casefold(): name for name in SCHEDULERS}
    scheduler = known.get(sampler.casefold())
    if scheduler is None:
        found.notes.append(
            f"Sampler {sampler!r:.40} is not in this studio; the scheduler is left as it is."
        )
        return
    possible = SCHEDULERS[scheduler].schedules
    if schedule in ("", "Automatic"):
        wanted: str = "As shipped" if own else _AUTOMATIC.get(scheduler, "Uniform")
        wanted = wanted if wanted in possible else "As shipped"
    else:
        wanted = {name.casefold(): name for name in possible}.get(schedule.casefold(), "")
    if not wanted:
        found.notes.append(
            f"Schedule type {schedule!r:.40} does not go with {scheduler} here; As shipped is taken."
        )
        wanted = "As shipped"
    found.values["scheduler"], found.values["schedule"] = scheduler, wanted
