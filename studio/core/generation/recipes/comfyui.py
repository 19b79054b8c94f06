"""ComfyUI's images: the graph that made them, read from its samplers backwards.

Knows: where the graph stands in a file, which samplers count, how one or two of them become a
request. Does not know: the graph's forms (comfyui_graph.py, comfyui_drawn.py), prompts
(comfyui_prompts.py), models (comfyui_models.py), what a sampler says (comfyui_samplers.py).

    PNG            chunks "prompt" and "workflow"
    WebP           EXIF's Make and Model: "workflow:{…}", "prompt:{…}"
    others         EXIF's UserComment: {"prompt": {…}, "workflow": {…}}, or the graph itself

ComfyUI draws its noise on the CPU, as the studio does: the same seed is the same start.

Sources: comfyanonymous/ComfyUI (its nodes SaveImage and SaveAnimatedWEBP); the README of
kaanyalova/ComfyUI_ExtendedImageFormats (UserComment). Facts, no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from studio.core.generation.recipes.comfyui_drawn import parse_drawn_graph
from studio.core.generation.recipes.comfyui_graph import (
    Graph,
    Link,
    Node,
    parse_run_graph,
)
from studio.core.generation.recipes.comfyui_models import ModelReader
from studio.core.generation.recipes.comfyui_nodes import OUTPUT_WORDS
from studio.core.generation.recipes.comfyui_passes import take_first_pass, take_second_pass
from studio.core.generation.recipes.comfyui_prompts import PromptReader
from studio.core.generation.recipes.comfyui_results import ResultReader
from studio.core.generation.recipes.comfyui_samplers import (
    is_sampler,
    read_pass,
    trace_origin,
)
from studio.core.generation.recipes.comfyui_switches import skip_switches
from studio.core.generation.recipes.comfyui_values import (
    MAX_STEPS,
    GraphValues,
    WorkLimitReached,
)
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import as_object, parse_json
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

PROGRAM = "ComfyUI"
MAX_CHOICES = 12
MAX_PASSES = 6
MAX_FURTHER_STEPS = MAX_STEPS // 4  # of looking, for each choice but the first
MAX_SHOWN_CHARS = 20_000


def recognises_graph(metadata: ImageMetadata) -> bool:
    """Return whether a file holds a graph of ComfyUI, in either form."""
    return any(_looks_like_graph(text) for text in _list_texts(metadata))


def read_graph(metadata: ImageMetadata) -> Recipe:
    """Return the recipe of the graph in a file.

    Raises ValueError where no sampler of it can be read.
    """
    graph, notes, text = find_graph(metadata)
    recipe = read_recipe(graph, PROGRAM, text, metadata.size)
    if "prompt" not in recipe.values and "Steps: " in metadata.chunks.get("parameters", ""):
        raise ValueError("the prompt is not in its workflow, but in a text beside it.")
    recipe.notes.extend(notes)
    return recipe


def find_graph(metadata: ImageMetadata) -> tuple[Graph, list[str], str]:
    """Return the nodes of a file's graph, what to say of it, and the graph's text.

    The one that was run is taken before the one that was drawn.
    """
    graph, notes, text = _find_raw_graph(metadata)
    skip_switches(graph)
    return graph, notes, text


def _find_raw_graph(metadata: ImageMetadata) -> tuple[dict[str, Node], list[str], str]:
    drawn: tuple[dict[str, Node], list[str], str] = ({}, [], "")
    for text in _list_texts(metadata):
        if not _looks_like_graph(text):
            continue
        data = parse_json(text)
        for item in _list_graphs(data):
            graph = parse_run_graph(item)
            if graph:
                return graph, [], text
            if not drawn[0]:
                drawn = (*parse_drawn_graph(item), text)
    return drawn


def _list_graphs(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for key in ("prompt", "workflow", "extra_pnginfo"):
            nested = as_object(data.get(key))
            yield nested
            yield as_object(nested.get("workflow")) if key == "extra_pnginfo" else {}
        yield data


def _list_texts(metadata: ImageMetadata) -> Iterator[str]:
    """Yield the texts that may hold a graph, without the word before it."""
    for key in ("prompt", "workflow", "parameters", "Comment", "UserComment"):
        yield metadata.chunks.get(key, "")
    yield metadata.user_comment
    for text in (*metadata.exif.values(), metadata.comment, metadata.hidden):
        head, colon, _ = text[:12].partition(":")
        is_named = colon and head.strip().casefold() in ("prompt", "workflow")
        yield text[len(head) + 1 :] if is_named else text
    yield metadata.sidecars.get(".json", "")


def _looks_like_graph(text: str) -> bool:
    if not text.lstrip("\0 \t\r\n\ufeff").startswith("{"):
        return False
    is_run = "class_type" in text and "inputs" in text
    return is_run or ('"nodes"' in text and '"links"' in text and '"type"' in text)


def read_recipe(
    graph: Graph, program: str, text: str, image_size: tuple[int, int] | None
) -> Recipe:
    """Return the recipe of a graph; where several samplers end in it, all of them as choices.

    Raises ValueError where it has no sampler.
    """
    samplers = _find_last_samplers(graph)
    if not samplers:
        raise ValueError(
            f"it was made with {program}, but its workflow contains no sampler known here."
        )
    choices: list[tuple[str, Recipe]] = []
    results = ResultReader(graph)
    for node in samplers[:MAX_CHOICES]:
        draft = RecipeDraft(program, text[:MAX_SHOWN_CHARS])
        try:
            max_steps = MAX_FURTHER_STEPS if choices else MAX_STEPS
            _read_sampler_chain(GraphValues(graph, max_steps), node, draft, image_size)
            results.note_result(node, draft)
        except WorkLimitReached:
            draft.note(
                "The workflow is too large to be followed to its end; some of it is missing."
            )
        choices.append((_title(node, draft), draft.recipe))
    recipe = choices[0][1]
    if len(choices) > 1:
        recipe = replace(
            recipe,
            notes=[
                f"The workflow has {len(samplers)} samplers with their own results; the first is "
                "used.",
                *recipe.notes,
            ],
            choices=choices,
        )
    return recipe


def _title(node: Node, draft: RecipeDraft) -> str:
    values = draft.values
    known = [f"{name} {values[name]}" for name in ("seed", "steps") if name in values]
    return f"{node.kind:.40} {node.node_id:.20}" + (f" ({', '.join(known)})" if known else "")


def _find_last_samplers(graph: Graph) -> list[Node]:
    """Return the samplers whose result no other sampler goes on with, those that are saved."""
    samplers = {node.node_id for node in graph.values() if is_sampler(node)}
    outputs = [node for node in graph.values() if any(word in node.kind for word in OUTPUT_WORDS)]
    saved = _find_nearest(graph, outputs, samplers) if outputs else set()
    candidates = saved or samplers
    if len(candidates) > 1:
        sources = [graph[node_id] for node_id in candidates]
        candidates = (candidates - _find_nearest(graph, sources, candidates)) or candidates
    return [graph[node_id] for node_id in sorted(candidates, key=lambda name: (len(name), name))]


def _find_nearest(graph: Graph, nodes: list[Node], samplers: set[str]) -> set[str]:
    """Return the samplers that nodes come from, without going on behind any of them."""
    seen: set[str] = set()
    waiting = list(nodes)
    nearest: set[str] = set()
    while waiting:
        node = waiting.pop()
        for value in node.inputs.values():
            if not isinstance(value, Link) or value.node_id in seen:
                continue
            seen.add(value.node_id)
            source = graph.get(value.node_id)
            if source is None:
                continue
            if value.node_id in samplers:
                nearest.add(value.node_id)
            else:
                waiting.append(source)
    return nearest


def _read_sampler_chain(
    values: GraphValues, last: Node, draft: RecipeDraft, image_size: tuple[int, int] | None
) -> None:
    """Read a sampler and those before it: the first paints, the second is a hires pass."""
    chain = [(last, trace_origin(values, last))]
    while chain[-1][1].kind == "sampler" and len(chain) < MAX_PASSES:
        node = chain[-1][1].node
        if node is None or any(node is known for known, _ in chain):
            break
        chain.append((node, trace_origin(values, node)))
    first, origin = chain[-1]
    settings = read_pass(values, first)
    take_first_pass(settings, origin, draft, is_continued=len(chain) > 1)
    model = ModelReader(values, draft)
    prompts = PromptReader(values, draft)
    prompts.take_prompts(settings.positive, settings.negative)
    model.take_model(settings.model, prompts.clip)
    model.take_vae(_find_vae(values.graph, last))
    if prompts.guidance is not None:
        draft.note(f"Flux's own guidance {prompts.guidance:g} is not loaded.")
    if len(chain) > 1:
        take_second_pass(values, settings, chain[-2], draft, image_size)
    if len(chain) > 2:
        draft.note(f"It was made in {len(chain)} passes; two are used.")


def _find_vae(graph: Graph, sampler: Node) -> Any:
    """Return where the autoencoder comes from that decodes a sampler's result."""
    for node in graph.values():
        samples = node.inputs.get("samples")
        if (
            isinstance(samples, Link)
            and samples.node_id == sampler.node_id
            and "vae" in node.inputs
        ):
            return node.inputs["vae"]
    return sampler.inputs.get("optional_vae", sampler.inputs.get("vae"))


SOURCE = RecipeSource(PROGRAM, recognises_graph, read_graph)
