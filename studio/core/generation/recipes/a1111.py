"""A1111's text and its relatives': what it says as a request's fields, and what it does not.

Knows: A1111 of all ages, Forge, reForge, SD.Next, Civitai, Stability Matrix; our own, which is read
back without loss. Does not know: how a text is taken apart (a1111_text.py), which files the library
has, how it is written (infotext.py).

Source: A1111's processing.create_infotext and its "PNG info", as documented and seen in files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

from studio.core.catalog import AUTOMATIC, MODEL_DEFAULT
from studio.core.generation import lora_use
from studio.core.generation.recipes import a1111_files
from studio.core.generation.recipes.a1111_keys import (
    FIELDS_BY_FOREIGN_KEY,
    IGNORED_KEYS,
    LABEL_VALUES,
    OPTIONAL_FIELD_KEYS,
    PLAIN_FIELD_KEYS,
)
from studio.core.generation.recipes.a1111_text import A1111Text, split_text
from studio.core.generation.recipes.file_names import (
    clean_file_name,
    hide_paths,
    strip_weights_ending,
)
from studio.core.generation.recipes.recipe import (
    FileReference,
    ImageMetadata,
    Recipe,
    RecipeSource,
)
from studio.core.generation.recipes.sampler_names import read_sampler
from studio.core.generation.recipes.seeds import read_seed
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaler_names import (
    INTERPOLATIONS,
    is_latent_formula,
    normalize_upscaler_name,
)
from studio.errors import quote

_SIZE_PATTERN = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})")
NOISE_SOURCE_KEY = "RNG"
_OWN_VAE_WORDS = ("None", "Automatic", "Built in")
_NO_MODEL_WORDS = ("", "None")
_OLD_FIRST_PASS_PIXELS = 512 * 512  # of A1111's first pass in 2022, where none was chosen
_OLD_FIRST_PASS_MULTIPLE = 64
_PROGRAMS_BY_VERSION = (
    (re.compile(r"studio \d"), "studio"),
    (re.compile(r"f\d|neo", re.IGNORECASE), "Forge"),
    (re.compile(r"comfyui", re.IGNORECASE), "ComfyUI, as A1111's text"),
    (re.compile(r"fooocus", re.IGNORECASE), "Fooocus"),
)
# Programs whose noise is not drawn on the graphics card where nothing is said.
_CPU_NOISE_PROGRAMS = ("studio", "ComfyUI, as A1111's text", "SD.Next", "Fooocus")


@dataclass
class ParsedInfotext:
    """Values for a request's fields, and notes on what could not be taken over.

    Attributes:
        values: By field; the prompts only where the text says them.
        notes: A sentence each.
        files: The files that the text names.
        program: Who wrote it.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[FileReference] = field(default_factory=list)
    program: str = "A1111"

    @property
    def embedding_hashes(self) -> dict[str, str]:
        """The beginning of the file's sha256 for each embedding of the prompts, by that name."""
        return {file.name: file.digest for file in self.files if file.kind == "embedding"}


def parse_infotext(text: str) -> ParsedInfotext:
    """Return what a text says that this studio, A1111 or one of its relatives wrote.

    Raises ValueError where there is nothing in it.
    """
    split = split_text(text)
    pairs = dict(split.pairs)
    parsed = ParsedInfotext(program=_find_program(pairs))
    _read_prompts(split, pairs, parsed)
    uses = [lora_use.LoraUse(**use) for use in parsed.values["loras"]]
    parsed.files = a1111_files.list_files(pairs, uses)
    parsed.files += a1111_files.list_civitai_resources(pairs, parsed.files)
    if split.has_settings:
        _read_pairs(pairs, parsed, split.is_own)
    if not split.is_own:
        _clean_up(parsed)
    if "Template:" in split.trailer:
        parsed.notes.append("It was made from a template; the prompt is taken as it came out.")
    return parsed


def _find_program(pairs: dict[str, str]) -> str:
    if pairs.get("App", "").casefold().startswith("sd.next"):
        return "SD.Next"
    version = pairs.get("Version", "")
    for pattern, program in _PROGRAMS_BY_VERSION:
        if pattern.match(version):
            return program
    return "Civitai" if a1111_files.CIVITAI_KEY in pairs else "A1111"


def _read_prompts(split: A1111Text, pairs: dict[str, str], parsed: ParsedInfotext) -> None:
    """Read both prompts, with the tags as LoRAs.

    Tags that cannot be read stay where they are: the form says what is wrong. A prompt that another
    program's text does not hold is none, and empties nothing.
    """
    quoted_prompt = pairs.pop("Prompt", None) if split.is_own else None
    quoted_negative = pairs.pop("Negative", None) if split.is_own else None
    try:
        if quoted_prompt is None:
            prompt, uses = lora_use.extract_tags(split.prompt)
        else:
            prompt = quoted_prompt
            uses = lora_use.parse_loras(pairs.pop("Loras", ""))
    except ValueError:
        prompt, uses = split.prompt, ()
    parsed.values["loras"] = [use.model_dump() for use in uses]
    negative_prompt = split.negative_prompt if quoted_negative is None else quoted_negative
    if prompt or uses or split.is_own:
        parsed.values["prompt"] = prompt
    if negative_prompt or prompt or split.is_own:
        parsed.values["negative_prompt"] = negative_prompt or ""


def _read_pairs(pairs: dict[str, str], parsed: ParsedInfotext, is_own: bool) -> None:
    """Turn settings into fields, and note what cannot be taken over."""
    if "Seed" in pairs and not is_own:
        is_cpu_noise = pairs.get("RNG") == "CPU" or parsed.program in _CPU_NOISE_PROGRAMS
        seed, note = read_seed(pairs.pop("Seed"), is_cpu_noise)
        parsed.values |= {} if seed is None else {"seed": seed}
        parsed.notes += filter(None, [note])
    for name, key in PLAIN_FIELD_KEYS.items():
        if key in pairs:
            _read_value(parsed, key, name, pairs.pop(key))
    _read_size(pairs, parsed)
    sampler, schedule = pairs.pop("Sampler", ""), pairs.pop("Schedule type", "")
    is_own_of_before = is_own and NOISE_SOURCE_KEY not in pairs
    _read_sampler(sampler, schedule, parsed, is_own_of_before)
    _read_optional_pairs(pairs, parsed, is_own)
    _read_upscaler(parsed)
    if is_own:
        return
    # Elsewhere it says that this was an image of a batch, not what was wished.
    parsed.values.pop("batch_size", None)
    ignored = sorted(key for key in pairs if key not in IGNORED_KEYS)
    if ignored:
        parsed.notes.append(f"Not taken over: {', '.join(ignored):.200}.")


def _read_value(parsed: ParsedInfotext, key: str, name: str, value: str) -> None:
    """Read a field's value as its kind; of one that is none only a note is left."""
    kinds = {GenerationRequest.model_fields[name].annotation}
    kinds |= set(get_args(GenerationRequest.model_fields[name].annotation))
    convert: Callable[[str], Any] = _read_label
    if int in kinds:
        convert = _read_whole_number
    elif float in kinds:
        convert = _read_number
    elif bool in kinds and value not in LABEL_VALUES:
        convert = "True".__eq__
    try:
        parsed.values[name] = convert(value)
    except (ValueError, OverflowError):
        parsed.notes.append(f"{key}: {quote(value)} is not a number; left as it is.")


def _read_whole_number(text: str) -> int:
    return int(text) if text.strip().lstrip("+-").isdecimal() else _check_whole(float(text))


def _check_whole(number: float) -> int:
    if number != int(number):
        raise ValueError
    return int(number)


def _read_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _read_label(label: str) -> Any:
    return LABEL_VALUES.get(label, label)


def _parse_size(text: str) -> tuple[int, int] | None:
    size = _SIZE_PATTERN.fullmatch(text.strip())
    return (int(size[1]), int(size[2])) if size else None


def _read_size(pairs: dict[str, str], parsed: ParsedInfotext) -> None:
    """Read the size of the first pass.

    In 2022 `Size` was that of the finished picture, and the first pass had a size of its own.
    """
    size = _parse_size(pairs.pop("Size", ""))
    first_text = pairs.pop("First pass size", "")
    first_size = _parse_size(first_text)
    if size and first_size is not None:
        first_size = first_size if all(first_size) else _guess_first_size(size)
        if first_size != size and all(first_size):
            pairs.setdefault("Hires upscale", f"{size[0] / first_size[0]:.6g}")
            pairs.setdefault("Hires upscaler", "Lanczos")
            _note_other_shape(first_size, size, parsed)
        size = first_size
    if size and all(size):
        parsed.values["width"], parsed.values["height"] = size


def _guess_first_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the first pass that A1111 chose for a size in 2022: of about 512 × 512 pixels."""
    scale = math.sqrt(_OLD_FIRST_PASS_PIXELS / max(1, size[0] * size[1]))
    multiple = _OLD_FIRST_PASS_MULTIPLE
    width, height = (math.ceil(scale * side / multiple) * multiple for side in size)
    return width, height


def _note_other_shape(
    first_size: tuple[int, int], size: tuple[int, int], parsed: ParsedInfotext
) -> None:
    """Say that the second pass here keeps the first one's shape, where it did not."""
    if abs(size[0] * first_size[1] / (size[1] * first_size[0]) - 1) > 0.02:
        parsed.notes.append(
            f"Its second pass cut it to {size[0]} × {size[1]}; here it keeps its shape."
        )


def _read_optional_pairs(pairs: dict[str, str], parsed: ParsedInfotext, is_own: bool) -> None:
    """Read the settings that are written only where they matter."""
    has_hires_pass = "Hires upscale" in pairs or "Hires resize" in pairs
    if has_hires_pass and "Init image" not in pairs and "Denoising strength" in pairs:
        pairs["Hires strength"] = pairs.pop("Denoising strength")
    if not is_own and not has_hires_pass and "Denoising strength" in pairs:
        parsed.notes.append("It was made from another picture, which the text does not hold.")
    hires_size = _parse_size(pairs.get("Hires resize", ""))
    size = parsed.values.get("width"), parsed.values.get("height")
    if hires_size and all(hires_size) and size[0] and size[1]:
        del pairs["Hires resize"]
        pairs["Hires upscale"] = f"{max(hires_size[0] / size[0], hires_size[1] / size[1]):.6g}"
        _note_other_shape((size[0], size[1]), hires_size, parsed)
    for name, key in OPTIONAL_FIELD_KEYS.items():
        if key in pairs:
            _read_value(parsed, key, name, pairs.pop(key))
    for key, name in FIELDS_BY_FOREIGN_KEY.items():
        if key in pairs and name not in parsed.values:
            _read_value(parsed, key, name, pairs.pop(key))
    seed_size = _parse_size(pairs.get("Seed resize from", ""))
    if seed_size:
        del pairs["Seed resize from"]
        parsed.values["seed_resize_width"], parsed.values["seed_resize_height"] = seed_size
    vae = str(parsed.values.get("vae", ""))
    if vae and is_own:
        parsed.values["vae"] = strip_weights_ending(vae)
    elif vae:
        parsed.values["vae"] = "" if vae in _OWN_VAE_WORDS else clean_file_name(vae)


def _read_upscaler(parsed: ParsedInfotext) -> None:
    """Tell whether latents or pixels were enlarged, and by what."""
    upscaler = parsed.values.get("hires_resize")
    if upscaler in (None, "latent", "pixel"):
        return
    if is_latent_formula(str(upscaler)):
        parsed.values["hires_resize"] = "latent"
        parsed.notes.append(
            f"Hires upscaler {quote(upscaler)} is not in this studio; latent is taken."
        )
        return
    name = normalize_upscaler_name(str(upscaler))
    parsed.values["hires_resize"] = "pixel"
    parsed.values["hires_upscaler"] = name
    if name not in INTERPOLATIONS:
        parsed.files.append(FileReference("upscaler", clean_file_name(name)))


def _read_sampler(
    sampler: str, schedule: str, parsed: ParsedInfotext, is_own_of_before: bool
) -> None:
    """Read scheduler and noise schedule.

    Ours wrote Automatic for the model's own, until there was an Automatic and a noise source.
    """
    reading = read_sampler(sampler, schedule)
    parsed.notes += reading.notes
    if reading.scheduler is None:
        return
    noise_schedule = reading.noise_schedule
    if noise_schedule is None and is_own_of_before:
        noise_schedule = MODEL_DEFAULT
    parsed.values["scheduler"] = reading.scheduler
    parsed.values["noise_schedule"] = noise_schedule or AUTOMATIC


def _clean_up(parsed: ParsedInfotext) -> None:
    """Leave out words for no model, and the folders of whoever made the picture."""
    model = parsed.values.pop("model", None)
    if model is not None and clean_file_name(str(model)) not in _NO_MODEL_WORDS:
        parsed.values["model"] = clean_file_name(str(model))
    upscaler = parsed.values.get("hires_upscaler")
    if upscaler:
        parsed.values["hires_upscaler"] = clean_file_name(str(upscaler))
    parsed.files = [file for file in parsed.files if file.name or file.digest or file.version]
    parsed.notes = [hide_paths(note) for note in parsed.notes]


def _find_text(metadata: ImageMetadata) -> str:
    """Return the first text of an image that can be read as A1111's; empty where none can."""
    texts = (
        metadata.chunks.get("parameters", ""),
        metadata.user_comment,
        metadata.comment,
        metadata.exif.get("ImageDescription", ""),
        metadata.hidden,
        metadata.chunks.get("Comment", ""),
        metadata.sidecars.get(".txt", ""),
    )
    for text in filter(None, texts):
        try:
            split_text(text)
        except ValueError:
            continue
        return text
    return ""


def _recognises(metadata: ImageMetadata) -> bool:
    return bool(_find_text(metadata))


def read_recipe(metadata: ImageMetadata) -> Recipe:
    """Return what A1111's text in an image says. Raises ValueError where there is none."""
    text = _find_text(metadata)
    parsed = parse_infotext(text)
    values = parsed.values
    _read_noise_source(parsed)
    if parsed.program != "studio":
        values["prompt_syntax"] = "A1111"
        text = hide_paths(text)
    return Recipe(parsed.program, values, parsed.files, parsed.notes, text)


def _read_noise_source(parsed: ParsedInfotext) -> None:
    """Say where the noise came from: from the graphics card, where the text does not say it.

    What a card draws is drawn here by its formula, under the name NV.
    """
    is_cpu_noise = parsed.program in _CPU_NOISE_PROGRAMS
    source = parsed.values.get("noise_source", "CPU" if is_cpu_noise else "NV")
    parsed.values["noise_source"] = "NV" if source == "GPU" else source


A1111 = RecipeSource("A1111", _recognises, read_recipe)
