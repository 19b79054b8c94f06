"""A1111's text and its relatives': what it says as a request's fields, and what it does not.

Knows: A1111 of all ages, Forge, reForge, SD.Next, Fooocus' A1111 scheme, Civitai, Stability Matrix;
our own, which is read back without loss. Does not know: how a text is taken apart (a1111_text.py),
where it stands in a file (a1111_places.py), how passes are counted (a1111_passes.py), which files
the library has, how it is written (infotext.py).

Source: A1111's processing.create_infotext and its "PNG info", as documented and seen in files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from studio.core.base import validate
from studio.core.catalog import MODEL_DEFAULT
from studio.core.generation import lora_use
from studio.core.generation.fields import RequestFields
from studio.core.generation.recipes import a1111_files, a1111_passes
from studio.core.generation.recipes.a1111_keys import (
    FIELDS_BY_FOREIGN_KEY,
    IGNORED_KEYS,
    LABEL_VALUES,
    OPTIONAL_FIELD_KEYS,
    OWN_VALUES_KEY,
    PLAIN_FIELD_KEYS,
    is_empty_word,
)
from studio.core.generation.recipes.a1111_places import find_text
from studio.core.generation.recipes.a1111_programs import (
    DEFAULTS,
    OWN,
    PROMPT_DEFAULTS,
    Writer,
    find_writer,
)
from studio.core.generation.recipes.a1111_solvers import leave_out_ineffective
from studio.core.generation.recipes.a1111_text import A1111Text, split_text
from studio.core.generation.recipes.clip_skip import ClipSkip
from studio.core.generation.recipes.draft import RecipeDraft, get_file_name
from studio.core.generation.recipes.file_names import hide_paths, strip_weights_ending
from studio.core.generation.recipes.json_text import as_number
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource
from studio.core.generation.recipes.sampler_names import read_sampler
from studio.core.generation.recipes.seeds import read_seed

NOISE_SOURCE_KEY = "RNG"
LORA_WEIGHTS_KEY = "Lora weights"
MAX_WEIGHTS_CHARS = 10_000
_OWN_VAE_WORDS = ("Built in", "Default (model)")
Pairs = dict[str, str]


def parse_infotext(text: str) -> Recipe:
    """Return what a text says that this studio, A1111 or one of its relatives wrote.

    Raises ValueError where there is nothing in it.
    """
    split = split_text(text)
    pairs = dict(split.pairs)
    writer = find_writer(pairs)
    draft = RecipeDraft(writer.program)
    if split.is_own:
        _read_own_prompts(split, pairs, draft)
    else:
        _read_prompts(split, pairs, draft)
    uses = [validate(lora_use.LoraUse, use) for use in draft.values.get("loras", ())]
    files = a1111_files.list_files(pairs, uses)
    files += a1111_files.list_civitai_resources(pairs, files)
    draft.recipe.files = [file for file in files if file.name or file.digest or file.version]
    if split.is_own:
        _read_own_pairs(pairs, draft)
    elif split.has_settings:
        _read_pairs(pairs, draft, writer)
    if split.has_settings:
        prompt_defaults = PROMPT_DEFAULTS if "prompt" in draft.values else {}
        draft.recipe.defaults = {**DEFAULTS, **prompt_defaults}
    if "Template:" in split.trailer:
        draft.note("It was made from a template; the resulting prompt is used.")
    if not split.is_own:
        draft.recipe.notes = [hide_paths(note) for note in draft.recipe.notes]
    return draft.recipe


# ---- our own ----------------------------------------------------------------------------------


def _read_own_prompts(split: A1111Text, pairs: Pairs, draft: RecipeDraft) -> None:
    """Read both prompts, with the tags as LoRAs; tags that cannot be read stay where they are."""
    quoted_prompt, quoted_negative = pairs.pop("Prompt", None), pairs.pop("Negative", None)
    try:
        if quoted_prompt is None:
            prompt, uses = lora_use.extract_tags(split.prompt)
        else:
            prompt, uses = quoted_prompt, lora_use.parse_loras(pairs.pop("Loras", ""))
    except ValueError:
        prompt, uses = split.prompt, ()
    draft.values["loras"] = [use.model_dump() for use in uses]
    draft.values["prompt"] = prompt
    negative_prompt = split.negative_prompt if quoted_negative is None else quoted_negative
    draft.values["negative_prompt"] = negative_prompt or ""


def _read_own_pairs(pairs: Pairs, draft: RecipeDraft) -> None:
    """Read settings that this studio wrote; nothing of them is converted."""
    for name, key in PLAIN_FIELD_KEYS.items():
        if key in pairs:
            _take_setting(draft, name, pairs.pop(key))
    size = a1111_passes.parse_size(pairs.pop("Size", ""))
    if size and all(size):
        draft.values["width"], draft.values["height"] = size
    reading = read_sampler(pairs.pop("Sampler", ""), pairs.pop("Schedule type", ""))
    for note in reading.notes:
        draft.note(note)
    if reading.scheduler is not None:
        # Automatic was the model's own, until there was an Automatic and a noise source.
        bare = "Automatic" if NOISE_SOURCE_KEY in pairs else MODEL_DEFAULT
        draft.values["scheduler"] = reading.scheduler
        draft.values["noise_schedule"] = reading.noise_schedule or bare
    if "Hires upscale" in pairs and "Init image" not in pairs and "Denoising strength" in pairs:
        pairs["Hires strength"] = pairs.pop("Denoising strength")
    if "Hires upscaler" in pairs:
        a1111_passes.take_upscaler(pairs.pop("Hires upscaler"), draft, is_own=True)
    _take_optional_pairs(pairs, draft)
    if draft.values.get("vae"):
        draft.values["vae"] = strip_weights_ending(draft.values["vae"])
    for pair in pairs.pop(OWN_VALUES_KEY, "")[:MAX_WEIGHTS_CHARS].split():
        name, equals, value = pair.partition("=")
        if equals and name in RequestFields.model_fields:
            draft.take_number(name, value)


# ---- those of others --------------------------------------------------------------------------


def _read_prompts(split: A1111Text, pairs: Pairs, draft: RecipeDraft) -> None:
    """Read both prompts; one that another program's text does not hold empties nothing."""
    draft.take_prompt("prompt", split.prompt, has_lora_tags=True)
    negative_prompt = split.negative_prompt
    is_said = bool(draft.values.get("prompt") or draft.values.get("loras"))
    if not is_said:
        draft.values.pop("prompt", None)
    if negative_prompt or is_said:
        draft.take_prompt("negative_prompt", negative_prompt or "")
    _take_lora_weights(pairs.pop(LORA_WEIGHTS_KEY, ""), draft)
    if is_said:
        draft.values.setdefault("loras", [])


def _take_lora_weights(text: str, draft: RecipeDraft) -> None:
    """Take the LoRAs that Fooocus lists beside the prompt: name: 0.5, name: 1."""
    known = {use["name"] for use in draft.values.get("loras", ())}
    for item in text[:MAX_WEIGHTS_CHARS].split(","):
        name, colon, weight = item.rpartition(":")
        if colon and as_number(weight.strip()) is not None and get_file_name(name) not in known:
            draft.add_lora(name.strip(), weight.strip())


def _read_pairs(pairs: Pairs, draft: RecipeDraft, writer: Writer) -> None:
    """Turn settings into fields, and note what cannot be taken over."""
    source = pairs.get(NOISE_SOURCE_KEY, "").upper()
    if "Seed" in pairs:
        seed, note = read_seed(pairs.pop("Seed"), source == "CPU" or writer.draws_on_cpu)
        if note:
            draft.note(note)
        draft.take("seed", seed)
    pairs.pop("Batch size", None)  # that it was one of a batch is no wish
    for name, key in PLAIN_FIELD_KEYS.items():
        if key in pairs:
            _take_plain_pair(name, pairs.pop(key), draft, writer)
    a1111_passes.take_size(pairs, draft)
    _take_sampler(pairs, draft, writer)
    a1111_passes.take_passes(pairs, draft, writer.step_counting)
    _take_vae(pairs, draft)
    _take_optional_pairs(pairs, draft)
    leave_out_ineffective(draft)
    unused = {key for key, value in pairs.items() if not is_empty_word(value)}
    draft.note_unused(unused - set(IGNORED_KEYS))


def _take_plain_pair(name: str, text: str, draft: RecipeDraft, writer: Writer) -> None:
    if name == "model":
        model = get_file_name(text)
        if model:
            draft.take("model", model)
        return
    _take_setting(draft, name, text)
    counting = writer.clip_skip_counting
    if name == "clip_skip" and counting and name in draft.values:
        draft.recipe.clip_skip = ClipSkip(draft.values[name], counting)


def _take_sampler(pairs: Pairs, draft: RecipeDraft, writer: Writer) -> None:
    sampler = pairs.pop("Sampler", "")
    schedule = pairs.pop("Schedule type", "")
    reading = read_sampler(sampler, schedule)
    draft.take_sampler(sampler, schedule)
    if reading.scheduler and not reading.noise_schedule:
        is_named = bool(schedule.strip())
        unnamed = "Automatic" if is_named else writer.find_unnamed_schedule(reading.scheduler)
        draft.take("noise_schedule", unnamed)


def _take_vae(pairs: Pairs, draft: RecipeDraft) -> None:
    """Take the autoencoder; Forge has it among its modules, with text encoders."""
    modules = [key for key in pairs if key.casefold().startswith("module ")]
    named = [key for key in modules if "vae" in pairs[key].casefold() or pairs[key] == "ae"]
    if len(named) == 1 and "VAE" not in pairs:
        pairs["VAE"] = pairs.pop(named[0])
    if "VAE" in pairs:
        vae = pairs.pop("VAE")
        draft.take("vae", "" if vae in _OWN_VAE_WORDS else get_file_name(vae))


def _take_optional_pairs(pairs: Pairs, draft: RecipeDraft) -> None:
    """Take the settings that are written only where they matter."""
    for name, key in OPTIONAL_FIELD_KEYS.items():
        if key in pairs:
            _take_setting(draft, name, pairs.pop(key))
    for key, name in FIELDS_BY_FOREIGN_KEY.items():
        if key in pairs and name not in draft.values:
            _take_setting(draft, name, pairs.pop(key))
    seed_size = a1111_passes.parse_size(pairs.get("Seed resize from", ""))
    if seed_size:
        del pairs["Seed resize from"]
        for name, side in zip(("seed_resize_width", "seed_resize_height"), seed_size):
            draft.take(name, side)


def _take_setting(draft: RecipeDraft, name: str, text: str) -> None:
    """Take a setting as its field's kind, by A1111's words for values."""
    annotation = RequestFields.model_fields[name].annotation
    kinds = {annotation, *get_args(annotation)}
    if kinds & {int, float}:
        draft.take_number(name, text)
    elif bool in kinds:
        draft.take(name, LABEL_VALUES.get(text, text == "True"))
    else:
        draft.take(name, LABEL_VALUES.get(text, text))


def read_recipe(metadata: ImageMetadata) -> Recipe:
    """Return what A1111's text in an image says. Raises ValueError where there is none."""
    text = find_text(metadata)
    recipe = parse_infotext(text)
    recipe.text = text if recipe.program == OWN else hide_paths(text)
    recipe.values["noise_source"] = _find_noise_source(recipe.values, Writer(recipe.program))
    if recipe.program != OWN:
        recipe.values["prompt_syntax"] = "A1111"
    return recipe


def _find_noise_source(values: Mapping[str, Any], writer: Writer) -> str:
    """Return where the noise came from: from the graphics card, where the text does not say it.

    What a card draws is drawn here by its formula, under the name NV.
    """
    source = str(values.get("noise_source", "CPU" if writer.draws_on_cpu else "NV"))
    return "NV" if source == "GPU" and not writer.is_own else source


def _recognises(metadata: ImageMetadata) -> bool:
    return bool(find_text(metadata))


A1111 = RecipeSource("A1111", _recognises, read_recipe)
