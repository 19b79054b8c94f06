r"""Images of Civitai's own generator: a graph of ComfyUI with the settings beside it.

Knows: Civitai's settings, its names of files by number. Does not know: the graph (comfyui.py), the
A1111 text that Civitai writes for other images (a1111.py).

    UserComment     {"6": {"class_type": …}, …, "extraMetadata": "{\"prompt\": \"a boat\", …}"}
    extraMetadata   the same text as a PNG's chunk
    urn:air:sdxl:lora:civitai:122359@135867     a file: model 122359, version 135867

Sources: enslo/sd-metadata (comfyui-civitai), civitai/civitai (utils/metadata/comfy.metadata).
Facts, no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from studio.core.generation.recipes.comfyui import find_graph, read_recipe
from studio.core.generation.recipes.comfyui_graph import Graph
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import as_list, as_object, parse_object
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource
from studio.errors import quote

PROGRAM = "Civitai"
_KEY = "extraMetadata"
_URN = "urn:air:"
_NUMBER_FIELDS = {"steps": "steps", "cfgScale": "guidance"}
MAX_RESOURCES = 50


def _list_texts(metadata: ImageMetadata) -> Iterator[str]:
    yield metadata.user_comment
    for key in ("prompt", "parameters", "Comment"):
        yield metadata.chunks.get(key, "")
    yield metadata.comment
    yield metadata.sidecars.get(".json", "")


def find_settings(metadata: ImageMetadata) -> dict[str, Any]:
    """Return Civitai's settings; empty where there are none."""
    settings = parse_object(metadata.chunks.get(_KEY, ""))
    for text in _list_texts(metadata):
        if not settings and _KEY in text:
            settings = as_object(parse_object(text).get(_KEY))
    return settings


def recognises_settings(metadata: ImageMetadata) -> bool:
    """Return whether Civitai's generator made an image."""
    texts = list(_list_texts(metadata))
    has_graph = any(_URN in text and "class_type" in text for text in texts)
    return has_graph or bool(find_settings(metadata))


def read_settings(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of an image of Civitai's generator.

    Raises ValueError where there is none.
    """
    draft = RecipeDraft(PROGRAM)
    graph, _, text = find_graph(metadata)
    settings = find_settings(metadata)
    if graph:
        _take_graph(graph, text, metadata, draft)
    if not settings and not draft.values:
        raise ValueError("its Civitai settings cannot be read.")
    _take_settings(settings, draft)
    if settings:
        draft.show(settings)
    return draft.recipe


def _take_graph(graph: Graph, text: str, metadata: ImageMetadata, draft: RecipeDraft) -> None:
    """Read what the graph says; of the settings beside it counts what they say too."""
    try:
        draft.recipe = read_recipe(graph, PROGRAM, text, metadata.size)
    except ValueError:
        draft.note(
            "None of the samplers in its workflow are known here; the settings beside it are used."
        )


def _take_settings(settings: dict[str, Any], draft: RecipeDraft) -> None:
    draft.take_prompt("prompt", settings.get("prompt"), has_lora_tags=True)
    draft.take_prompt("negative_prompt", settings.get("negativePrompt"))
    draft.take_named(settings, _NUMBER_FIELDS)
    if settings.get("clipSkip") is not None:
        draft.take_clip_skip(settings["clipSkip"])
    if settings.get("seed") is not None:
        draft.take_seed(settings["seed"])
    draft.take_size(settings.get("width"), settings.get("height"))
    draft.take_sampler(settings.get("sampler"))
    known = {file.version for file in draft.recipe.files}
    for item in as_list(settings.get("resources"))[:MAX_RESOURCES]:
        resource = as_object(item)
        version = str(resource.get("modelVersionId", ""))[:20]
        if version and version not in known:
            draft.note(f"A file is only named by its Civitai number: version {version}.")
    for item in as_list(settings.get("transformations")):
        kind = quote(as_object(item).get("type"))
        draft.note(f"Not available here: {kind} of the finished image.")


SOURCE = RecipeSource(PROGRAM, recognises_settings, read_settings)
