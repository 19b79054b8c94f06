"""ComfyUI's graphs that are odd, hostile or huge: a sentence at the worst, and in time."""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.generation.recipes import (
    comfyui,
    invokeai,
    named_programs,
    novelai,
    swarmui,
)
from studio.core.generation.recipes.comfyui_prompts import adapt_words
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe
from support.comfyui_graphs import BASIC, DRAWN, FLUX, HIRES, changed, dump, node
from support.examples import examples


def test_circles_end() -> None:
    graph = changed(
        BASIC,
        n3={"model": ["40", 0], "latent_image": ["41", 0], "seed": ["42", 0]},
        n6={"text": ["43", 0]},
        n40=node("LoraLoader", lora_name="ink", strength_model=1, strength_clip=1, model=["40", 0]),
        n41=node("VAEEncode", pixels=["8", 0]),
        n42=node("Int", value=["42", 0]),
        n43=node("JoinStrings", string1=["43", 0], string2=["43", 0]),
        n7=node("ConditioningCombine", conditioning_1=["7", 0], conditioning_2=["7", 0]),
    )
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"prompt": dump(graph)}))
    assert recipe.values["steps"] == 20
    assert {"prompt", "negative_prompt", "seed"}.isdisjoint(recipe.values)


@pytest.mark.parametrize(
    ("kind", "num_nodes", "seconds"),
    [
        ("wide", 4_000, 4),
        ("deep", 20_000, 4),
        ("samplers", 4_000, 4),
        pytest.param("wide", 20_000, 20, marks=pytest.mark.slow),
        pytest.param("deep", 100_000, 20, marks=pytest.mark.slow),
        pytest.param("samplers", 20_000, 20, marks=pytest.mark.slow),
    ],
)
def test_a_large_graph_takes_seconds(kind: str, num_nodes: int, seconds: float) -> None:
    graph = copy.deepcopy(BASIC)
    for number in range(100, num_nodes):
        source = str(number + 1) if kind == "deep" else "4"
        graph[str(number)] = (
            copy.deepcopy(BASIC["3"])
            if kind == "samplers" and number < 5_000
            else node("Reroute", model=[source, 0], samples=[source, 0], text=[source, 0])
        )
    graph["3"]["inputs"]["model"] = ["100", 0]
    graph["3"]["inputs"]["latent_image"] = ["100", 0]
    graph["6"]["inputs"]["text"] = ["100", 0]
    text = dump(graph)
    start = time.process_time()
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"prompt": text}))
    assert recipe.values["steps"] == 20
    assert time.process_time() - start < seconds


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([["3", 0], ["4", 1], ["99", 0], ["8", -1], "1e999", "((((a", "[a:b"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=examples(160), deadline=None)
@given(st.data())
def test_no_graph_raises_anything_but_a_sentence(data: st.DataObject) -> None:
    drawn = data.draw(st.booleans())
    graph: Any = copy.deepcopy(DRAWN if drawn else data.draw(st.sampled_from([BASIC, FLUX, HIRES])))
    for _ in range(data.draw(st.integers(1, 6))):
        _mutate(graph, data)
    key = "workflow" if drawn else "prompt"
    metadata = ImageMetadata(chunks={key: json.dumps(graph)})
    if not comfyui.SOURCE.recognises(metadata):
        return
    recipe = Recipe("ComfyUI")
    with suppress(ValueError):  # a sentence: there is no sampler
        recipe = comfyui.SOURCE.read(metadata)
    texts = json.dumps(graph)
    for name in ("prompt", "negative_prompt"):
        if recipe.values.get(name) == "":
            assert '""' in texts or "ZeroOut" in texts or _has_blank(graph)


def _has_blank(item: Any) -> bool:
    """Whether there is a text that is empty but for signs that are no words."""
    if isinstance(item, dict):
        return any(_has_blank(value) for value in item.values())
    if isinstance(item, list):
        return any(_has_blank(value) for value in item)
    return isinstance(item, str) and not item.strip("\0\ufeff ")


def _mutate(graph: Any, data: st.DataObject) -> None:
    """Replace or take out something somewhere in a graph."""
    item = graph
    while True:
        keys = list(item) if isinstance(item, dict) else list(range(len(item)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        child = item[key]
        if isinstance(child, dict | list) and child and data.draw(st.integers(0, 3)):
            item = child
            continue
        if data.draw(st.booleans()):
            item[key] = data.draw(VALUES)
        else:
            del item[key]
        return


@pytest.mark.parametrize(
    "text",
    [
        "((a:" + "1" * 100_000 + "x))",
        "(" * 50_000 + ":1.2)" * 10_000,
        "[" * 100_000,
        "(a " * 20_000 + ":1.2)" * 8_000,
        "<alt:" * 20_000,
        "<fromto[0.5]:" + "a," * 50_000,
        "{" * 100_000,
        "1::" * 30_000,
        '"[' * 50_000,
        ": " * 50_000 + "))",
    ],
    ids=range(10),
)
def test_hostile_prompts_take_no_time(text: str) -> None:
    start = time.process_time()
    adapt_words(text)
    novelai.convert_weights(text)
    swarmui.read_prompt(text, RecipeDraft("SwarmUI"), is_in_list=False)
    for source in (invokeai.SOURCE, named_programs.SOURCE):
        metadata = ImageMetadata(chunks={"Dream": text, "Description": text + " Job ID: "})
        with suppress(ValueError):
            source.read(metadata)
    assert time.process_time() - start < 10
