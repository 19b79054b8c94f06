"""Programs that write flat settings, each under keys of its own, as one table.

Knows: Easy Diffusion, Draw Things, Tensor.Art, Stability Matrix, Spaces of Hugging Face: where
their settings stand and what the keys mean. Does not know: programs with a grammar or a graph.

Sources: enslo/sd-metadata (easydiffusion, tensorart, stability-matrix, hf-space), kcjerrell/dtm
(types of Draw Things), receyuki/stable-diffusion-prompt-reader (format/drawthings). Facts, no code.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from studio.core.generation.recipes.clip_skip import ClipSkipCounting
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import (
    as_list,
    as_object,
    as_size,
    as_text,
    parse_object,
)
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

MAX_XMP_CHARS = 1_000_000
MAX_LORA_SLOTS = 100
_USER_COMMENT_ATTRIBUTE = re.compile(
    r"exif:UserComment\s*=\s*(?:\"([^\"]{2,400000})\"|'([^']{2,400000})')"
)
_USER_COMMENT_START, _USER_COMMENT_END = "<exif:UserComment>", "</exif:UserComment>"
_XML_TAGS = re.compile(r"</?rdf:[^<>]{0,200}>")

Keys = tuple[str, ...]


@dataclass(frozen=True)
class FlatProgram:
    """A program that writes flat settings; of several keys the first that is there counts.

    Attributes:
        program: Its name.
        find: What returns its settings, an empty object where there are none.
        has_lora_tags: Whether it reads `<lora:x:1>` in its prompt.
        clip_counting: What it makes of Clip skip with SDXL. Draw Things reads SDXL at 2 or deeper;
            of Tensor.Art nothing is known, so it counts as the same.
    """

    program: str
    find: Callable[[ImageMetadata], dict[str, Any]]
    prompt: Keys
    negative_prompt: Keys
    steps: Keys
    guidance: Keys
    seed: Keys
    sampler: Keys
    model: Keys
    schedule: Keys = ()
    width: Keys = ()
    height: Keys = ()
    size: Keys = ()
    clip_skip: Keys = ()
    model_hash: Keys = ()
    vae: Keys = ()
    seed_mode: Keys = ()
    loras: Keys = ()
    has_lora_tags: bool = False
    clip_counting: ClipSkipCounting = "Forge"

    def get(self, data: dict[str, Any], keys: Keys) -> Any:
        """Return the first value that there is."""
        return next((data[key] for key in keys if data.get(key) is not None), None)

    @property
    def source(self) -> RecipeSource:
        """The program as one that can be asked."""
        return RecipeSource(
            self.program, lambda metadata: bool(self.find(metadata)), self._read_settings
        )

    def _read_settings(self, metadata: ImageMetadata) -> Recipe:
        data = self.find(metadata)
        if not data:
            raise ValueError(f"it contains no {self.program} settings.")
        draft = RecipeDraft(self.program)
        draft.show(data)
        draft.take_prompt("prompt", self.get(data, self.prompt), has_lora_tags=self.has_lora_tags)
        draft.take_prompt("negative_prompt", self.get(data, self.negative_prompt))
        for name, keys in (("steps", self.steps), ("guidance", self.guidance)):
            value = self.get(data, keys)
            if value is not None:
                draft.take_number(name, value)
        self._take_clip_skip(self.get(data, self.clip_skip), draft)
        self._take_seed(data, draft)
        size = as_size(self.get(data, self.size))
        draft.take_size(*(size or (self.get(data, self.width), self.get(data, self.height))))
        draft.take_sampler(self.get(data, self.sampler), self.get(data, self.schedule))
        draft.add_model(self.get(data, self.model), self.get(data, self.model_hash))
        draft.add_vae(self.get(data, self.vae))
        self._take_loras(self.get(data, self.loras), draft)
        known = {key for keys in vars(self).values() if isinstance(keys, tuple) for key in keys}
        draft.note_unused(key for key, value in data.items() if key not in known and value)
        return draft.recipe

    def _take_seed(self, data: dict[str, Any], draft: RecipeDraft) -> None:
        mode = as_text(self.get(data, self.seed_mode)) or _CPU_SEED_MODE
        draft.take_seed(self.get(data, self.seed), is_cpu_noise=mode == _CPU_SEED_MODE)
        if mode == _NVIDIA_SEED_MODE and draft.take("noise_source", "NV"):
            return
        if mode != _CPU_SEED_MODE:
            draft.note(
                f"Its noise is generated in its own way ({mode:.40}): the image will differ."
            )

    def _take_clip_skip(self, value: Any, draft: RecipeDraft) -> None:
        """Take a number, or whether the last layer is skipped (Easy Diffusion)."""
        if isinstance(value, bool | str) and str(value) in _SKIP_WORDS:
            value = 2 if _SKIP_WORDS[str(value)] else None
        if value is not None:
            draft.take_clip_skip(value, self.clip_counting)

    def _take_loras(self, value: Any, draft: RecipeDraft) -> None:
        for item in as_list(value)[:MAX_LORA_SLOTS]:
            entry = as_object(item)
            name = next((entry[key] for key in _LORA_NAMES if isinstance(entry.get(key), str)), "")
            digest = as_text(entry.get("hash")) or ""
            draft.add_lora(name, entry.get("weight", 1.0), digest=digest)


# How Draw Things makes noise of a seed.
_CPU_SEED_MODE, _NVIDIA_SEED_MODE = "Torch Cpu Compatible", "Nvidia Gpu Compatible"
_SKIP_WORDS = {"True": True, "False": False, "true": True, "false": False}
_LORA_NAMES = ("file", "model", "name", "modelFileName", "loraFileName")


def _list_texts(metadata: ImageMetadata) -> Iterator[str]:
    for key in ("parameters", "Comment", "UserComment"):
        yield metadata.chunks.get(key, "")
    yield metadata.user_comment
    yield metadata.comment
    yield metadata.sidecars.get(".json", "")


def find_easy_diffusion(metadata: ImageMetadata) -> dict[str, Any]:
    """Return Easy Diffusion's settings: a chunk for each, or one JSON."""
    keys = ("use_stable_diffusion_model", "Stable Diffusion model")
    if any(key in metadata.chunks for key in keys):
        return dict(metadata.chunks)
    for text in _list_texts(metadata):
        if any(key in text for key in keys) and any(
            key in (data := parse_object(text)) for key in keys
        ):
            return data
    return {}


def find_draw_things(metadata: ImageMetadata) -> dict[str, Any]:
    """Return Draw Things' settings: a JSON within XMP."""
    xmp = metadata.xmp[:MAX_XMP_CHARS]
    texts = [match[1] or match[2] for match in _USER_COMMENT_ATTRIBUTE.finditer(xmp)]
    texts += [_XML_TAGS.sub("", text) for text in _list_user_comments(xmp)]
    for text in (*(html.unescape(text) for text in texts), *_list_texts(metadata)):
        if '"uc"' not in text:
            continue
        data = parse_object(text)
        if isinstance(data.get("c"), str) and "uc" in data and "steps" in data:
            data.pop("profile", None)
            settings = as_object(data.pop("v2", None))
            if settings.get("clipSkip") is not None:
                data["clip_skip"] = settings["clipSkip"]
            return data
    return {}


def _list_user_comments(xmp: str) -> Iterator[str]:
    """Yield what stands in the elements of EXIF's UserComment."""
    for part in xmp.split(_USER_COMMENT_START)[1:]:
        text, end, _ = part.partition(_USER_COMMENT_END)
        if end:
            yield text


def find_tensor_art(metadata: ImageMetadata) -> dict[str, Any]:
    """Return Tensor.Art's settings."""
    data = parse_object(metadata.chunks.get("generation_data", ""))
    model = as_object(data.pop("baseModel", None))
    if data:
        data["model"], data["model_hash"] = model.get("modelFileName"), model.get("hash")
        data["loras"] = as_list(data.pop("models", None))
    return data


def find_stability_matrix(metadata: ImageMetadata) -> dict[str, Any]:
    """Return Stability Matrix' settings."""
    return parse_object(metadata.chunks.get("parameters-json", ""))


def find_space(metadata: ImageMetadata) -> dict[str, Any]:
    """Return the settings of a Space of Hugging Face that paints with diffusers."""
    for text in _list_texts(metadata):
        data = parse_object(text) if "num_inference_steps" in text else {}
        if "prompt" in data and "num_inference_steps" in data and "Model" in data:
            return data
    return {}


EASY_DIFFUSION = FlatProgram(
    "Easy Diffusion",
    find_easy_diffusion,
    prompt=("prompt", "Prompt"),
    negative_prompt=("negative_prompt", "Negative Prompt"),
    steps=("num_inference_steps", "Steps"),
    guidance=("guidance_scale", "Guidance Scale"),
    seed=("seed", "Seed"),
    sampler=("sampler_name", "Sampler"),
    schedule=("scheduler_name", "Scheduler"),
    width=("width", "Width"),
    height=("height", "Height"),
    model=("use_stable_diffusion_model", "Stable Diffusion model"),
    vae=("use_vae_model", "VAE model"),
    clip_skip=("clip_skip", "Clip Skip"),
    clip_counting="A1111",
    has_lora_tags=True,
)
DRAW_THINGS = FlatProgram(
    "Draw Things",
    find_draw_things,
    prompt=("c",),
    negative_prompt=("uc",),
    steps=("steps",),
    guidance=("scale",),
    seed=("seed",),
    sampler=("sampler",),
    size=("size",),
    model=("model",),
    clip_skip=("clip_skip",),
    seed_mode=("seed_mode",),
    loras=("lora",),
)
TENSOR_ART = FlatProgram(
    "Tensor.Art",
    find_tensor_art,
    prompt=("prompt",),
    negative_prompt=("negativePrompt",),
    steps=("steps",),
    guidance=("cfgScale",),
    seed=("seed",),
    sampler=("samplerName", "sampler", "ksamplerName"),
    schedule=("schedule", "scheduler"),
    width=("width",),
    height=("height",),
    clip_skip=("clipSkip",),
    model=("model",),
    model_hash=("model_hash",),
    vae=("sdVae", "vae"),
    loras=("loras",),
)
STABILITY_MATRIX = FlatProgram(
    "Stability Matrix",
    find_stability_matrix,
    prompt=("PositivePrompt",),
    negative_prompt=("NegativePrompt",),
    steps=("Steps",),
    guidance=("CfgScale",),
    seed=("Seed",),
    sampler=("Sampler",),
    width=("Width",),
    height=("Height",),
    model=("ModelName",),
    model_hash=("ModelHash",),
    has_lora_tags=True,
)
SPACE = FlatProgram(
    "a Space of Hugging Face",
    find_space,
    prompt=("prompt",),
    negative_prompt=("negative_prompt",),
    steps=("num_inference_steps",),
    guidance=("guidance_scale",),
    seed=("seed",),
    sampler=("sampler",),
    size=("resolution",),
    model=("Model",),
    model_hash=("Model hash",),
)
FLAT_PROGRAMS = (EASY_DIFFUSION, DRAW_THINGS, TENSOR_ART, STABILITY_MATRIX, SPACE)
SOURCES = tuple(program.source for program in FLAT_PROGRAMS)
