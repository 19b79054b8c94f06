"""Graphs that the studio writes for ComfyUI, read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.base import PLACEHOLDER_SHA256, validate
from studio.core.generation.comfyui_writer import build_graph
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.recipes import comfyui
from studio.core.generation.recipes.recipe import ImageMetadata
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.used_files import UsedFile, UsedFiles

FILES = UsedFiles(
    files=(
        UsedFile(kind="model", name="tiny", file_name="tiny.safetensors", sha256="7" * 64),
        UsedFile(kind="lora", name="art/ink", file_name="ink.safetensors"),
    )
)
# What the graph says; how often a hires pass would run from pure noise follows from its steps.
COMPARED = {
    *("prompt", "negative_prompt", "model", "width", "height", "steps", "guidance", "scheduler"),
    *("noise_schedule", "seed", "clip_skip", "strength", "hires_scale", "hires_strength"),
    *("hires_effective_steps", "effective_steps", "hires_upscaler", "guidance_rescale", "vae"),
}


def resolve(**values: Any) -> ResolvedRequest:
    known = {"prompt": "a red boat", "model": "tiny", "seed": 7, "noise_schedule": "Karras"}
    request = validate(GenerationRequest, known | values)
    return request.resolve(512, 0, (512, 512) if request.image else None)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"negative_prompt": "fog", "width": 768, "guidance": 5.5, "steps": 33, "clip_skip": 2},
        {"prompt": "a (red:1.3) [boat], \\(film\\)", "negative_prompt": "((fog))"},
        {"scheduler": "Euler a", "noise_schedule": "Uniform"},
        {"scheduler": "DPM++ 2M SDE", "noise_schedule": "SGM Uniform"},
        {"hires_scale": 2.0, "hires_resize": "latent", "hires_strength": 0.6, "hires_steps": 15},
        {"hires_scale": 1.5, "hires_resize": "pixel", "hires_upscaler": "4x-Grain"},
        {"image": PLACEHOLDER_SHA256, "strength": 0.4, "steps": 25},
        {"guidance_rescale": 0.7, "vae": "sharp"},
        {"loras": ["art/ink:0.5:0.8"]},
    ],
    ids=str,
)
def test_what_a_graph_says_is_read_back(values: dict[str, Any]) -> None:
    request = resolve(**values)
    graph = build_graph(request, FILES).nodes
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"prompt": json.dumps(graph)}))
    base = {"image": request.image}
    read_request = validate(GenerationRequest, base | recipe.values).resolve(512, 0, (512, 512))
    compared = COMPARED - ({"steps", "hires_steps"} if request.image else set())
    if request.emphasis != read_request.emphasis or "(" in request.prompt:
        compared -= {"prompt", "negative_prompt"}
        assert read_words(read_request.prompt) == read_words(request.prompt)
    assert {name: getattr(read_request, name) for name in compared} == {
        name: getattr(request, name) for name in compared
    }
    assert [(use.name, use.unet, use.text_encoder) for use in read_request.loras] == [
        (use.name.rpartition("/")[2], use.unet, use.text_encoder) for use in request.loras
    ]


def read_words(prompt: str) -> list[tuple[str, float]]:
    (wording,) = plan_prompt(prompt, syntax="A1111").wordings
    return [
        (letter, round(fragment.weight, 4))
        for fragment in wording.fragments
        for letter in fragment.text
    ]
