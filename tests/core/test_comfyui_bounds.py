"""ComfyUI's graphs that are odd, hostile or huge: a sentence at the worst, and in time."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
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
from studio.core.generation.recipes.sources import read_recipe
from support.comfyui_graphs import BASIC, DRAWN, FLUX, HIRES, changed, dump, node
from support.examples import examples

MAX_SECONDS = 4  # of a processor that others use too; alone none takes much more than one
# Quick tests read a quarter of what is hostile: what never ends is seen there; what takes the square of its size, in
# the slow ones.
SHARES = pytest.mark.parametrize(
    "share", [pytest.param(4, id="quarter"), pytest.param(1, id="whole", marks=pytest.mark.slow)]
)


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
        ("wide", 4_000, 2),
        ("deep", 4_000, 2),
        ("samplers", 4_000, 2),
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


def _build_samplers(share: int) -> dict[str, Any]:
    """20,000 samplers, all with a result of their own."""
    return BASIC | {str(number): BASIC["3"] for number in range(100, 100 + 20_000 // share)}


def _build_saved_samplers(share: int) -> dict[str, Any]:
    graph = _build_samplers(share)
    images = {f"image{number}": [str(number), 0] for number in range(100, 100 + 20_000 // share)}
    return graph | {"9": node("SaveImage", images=["8", 0], **images)}


def _build_chained_samplers(share: int) -> dict[str, Any]:
    graph = _build_samplers(share)
    for number in range(100, 100 + 20_000 // share):
        inputs = BASIC["3"]["inputs"] | {"latent_image": [str(number + 1), 0]}
        graph[str(number)] = node("KSampler", **inputs)
    return graph


def _build_combined_prompts(share: int) -> dict[str, Any]:
    """A prompt of 99,000 signs that is joined with itself, 40 times one within the other."""
    graph = changed(
        BASIC, n3={"positive": ["100", 0]}, n6={"text": "((a:1.2) b)" * (9_000 // share)}
    )
    for number in range(100, 140):
        link = [str(number + 1), 0] if number < 139 else ["6", 0]
        graph[str(number)] = node("ConditioningCombine", conditioning_1=link, conditioning_2=link)
    return graph


def _build_joined_texts(share: int) -> dict[str, Any]:
    graph = changed(BASIC, n6={"text": ["100", 0]})
    for number in range(100, 140):
        links = {f"string_{place}": [str(number + 1), 0] for place in range(1, 11)}
        graph[str(number)] = node("JoinStringMulti", delimiter=",", **links)
    return graph | {"140": node("PrimitiveString", value="a" * (9_000 // share))}


def _build_texts_in_a_circle(share: int) -> dict[str, Any]:
    links = {f"text{number}": ["100", 0] for number in range(50_000 // share)}
    return changed(BASIC, n6={"text": ["100", 0]}, n100=node("Words", **links))


def _build_switches(share: int) -> dict[str, Any]:
    """One of 50,000 inputs that 50,000 ask, and 50,000 behind each other."""
    inputs = {f"any_{number:06}": ["4", 0] for number in range(50_000 // share)}
    users = {f"x{number}": ["100", 0] for number in range(50_000 // share)}
    graph = changed(
        BASIC,
        n3={"model": ["1000", 0]},
        n100=node("Any Switch (rgthree)", **inputs),
        n101=node("Users", **users),
    )
    for number in range(1000, 1000 + 50_000 // share):
        graph[str(number)] = node("Any Switch (rgthree)", any_01=[str(number + 1), 0])
    return graph


def _build_lora_stacks(share: int) -> dict[str, Any]:
    graph = changed(BASIC, n3={"model": ["3000", 0]})
    loras = {f"lora_{place:02}": "x.safetensors" for place in range(1, 50)}
    for number in range(1000, 1000 + 1000 // share):
        graph[str(number)] = node("LoRA Stack", lora_stack=[str(number + 1), 0], **loras)
        model = [str(number + 2001), 0]
        graph[str(number + 2000)] = node("Apply", model=model, lora_stack=["1000", 0])
    return graph


def _build_later_nodes(share: int) -> dict[str, Any]:
    end = 100 + 60_000 // share
    graph = changed(BASIC, n9={"images": [str(end - 1), 0]})
    for number in range(100, end):
        image = [str(number - 1), 0] if number > 100 else ["8", 0]
        graph[str(number)] = node(f"Kind {number}", image=image)
    return graph


@SHARES
@pytest.mark.parametrize(
    "build",
    [
        _build_samplers,
        _build_saved_samplers,
        _build_chained_samplers,
        _build_combined_prompts,
        _build_joined_texts,
        _build_texts_in_a_circle,
        _build_switches,
        _build_lora_stacks,
        _build_later_nodes,
    ],
)
def test_a_hostile_graph_takes_no_time(build: Callable[[int], dict[str, Any]], share: int) -> None:
    text = dump(build(share))
    start = time.process_time()
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"prompt": text}))
    assert time.process_time() - start < MAX_SECONDS
    assert recipe.values["seed"] == 8566257
    assert len(json.dumps(recipe.values)) < 300_000


def _draw_reroutes(num_links: int) -> list[dict[str, Any]]:
    """40,000 behind each other, each asked by another node."""
    reroutes = [
        {"id": 1000 + number, "type": "Reroute", "inputs": [{"type": "*", "link": 101 + number}]}
        for number in range(num_links)
    ]
    users = [
        {"id": 90_000 + number, "type": "X", "inputs": [{"name": "model", "link": 100 + number}]}
        for number in range(num_links)
    ]
    return [*reroutes, *users]


def _draw_wide_bypass(num_links: int) -> list[dict[str, Any]]:
    kinds = [f"T{number}" for number in range(num_links)]
    inputs = [{"name": kind, "type": kind, "link": 1} for kind in kinds]
    outputs = [{"type": kind} for kind in reversed(kinds)]
    return [{"id": 1000, "type": "X", "mode": 4, "inputs": inputs, "outputs": outputs}]


def _draw_setters(num_links: int) -> list[dict[str, Any]]:
    getters = [
        {"id": 1000 + number, "type": "GetNode", "widgets_values": ["a"]}
        for number in range(num_links)
    ]
    return getters + [{"id": 99_000, "type": "SetNode", "widgets_values": ["a"]}] * num_links


@SHARES
@pytest.mark.parametrize("draw", [_draw_reroutes, _draw_wide_bypass, _draw_setters])
def test_a_hostile_drawing_takes_no_time(
    draw: Callable[[int], list[dict[str, Any]]], share: int
) -> None:
    num_links = 40_000 // share
    drawn = copy.deepcopy(DRAWN)
    is_wide = draw is _draw_wide_bypass
    links = [
        [100 + number, 1000 if is_wide else 1000 + number, number if is_wide else 0, 3, 0, "MODEL"]
        for number in range(num_links)
    ]
    users = [
        {"id": 200_000 + number, "type": "X", "inputs": [{"name": "x", "link": 100 + number}]}
        for number in range(num_links)
    ]
    drawn["nodes"] += [*draw(num_links), *users]
    drawn["links"] += links
    text = dump(drawn)
    start = time.process_time()
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"workflow": text}))
    assert time.process_time() - start < MAX_SECONDS
    assert recipe.values["steps"] == 20


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
        " " * 99_000,
        (" " * 300 + "<break") * 300,
        "(a:" + " " * 99_000,
        ("--no" + " " * 2_000) * 10,
        "<lora:" * 16_000,
    ],
    ids=range(15),
)
def test_hostile_prompts_take_no_time(text: str) -> None:
    start = time.process_time()
    adapt_words(text)
    novelai.convert_weights(text)
    swarmui.read_prompt(text, RecipeDraft("SwarmUI"), is_in_list=False)
    chunks = {"Dream": text, "Description": text + " Job ID: ", "Software": "Midjourney"}
    for source in (invokeai.SOURCE, named_programs.SOURCE):
        for metadata in (ImageMetadata(chunks=chunks), ImageMetadata(xmp=text * 10)):
            with suppress(ValueError):
                source.read(metadata)
    assert time.process_time() - start < MAX_SECONDS


@pytest.mark.parametrize(
    "xmp",
    [
        "<exif:UserComment>" * 55_000,
        "exif:UserComment=\"exif:UserComment='" * 25_000,
        ("exif:UserComment" + " " * 1_000) * 900,
        "Credit " * 140_000,
        "CreatorTool='" + "-1" * 150 + "x'",
        "urn:x-studio:picture:1/" + "<x:RDF " * 400_000,
        "urn:x-studio:picture:1/<RDF>" + "<a>" * 50_000 + "</a>" * 50_000 + "</RDF>",
        pytest.param(
            "urn:x-studio:picture:1/<RDF>" + "<a>" * 200_000 + "</a>" * 200_000 + "</RDF>",
            marks=pytest.mark.slow,
        ),
    ],
    ids=range(8),
)
def test_a_hostile_packet_takes_no_time(xmp: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="no settings"):
        read_recipe(ImageMetadata(xmp=xmp))
    assert time.process_time() - start < MAX_SECONDS


@SHARES
def test_json_that_many_programs_might_have_written_takes_no_time(share: int) -> None:
    """Each looks into what it might have written; only graphs are larger than two million signs."""
    marks = ["sui_image_params", "positive_prompt", "extraMetadata", "num_inference_steps"]
    keys = ["uc", "base_model", "use_stable_diffusion_model", "class_type", "inputs"]
    data = {"marks": marks, "NovelAI": 1, **dict.fromkeys(keys, 1)}
    for size in (100_000 // share, 600_000 // min(share, 3)):  # below and above
        text = json.dumps(data | {"numbers": [{"a": number} for number in range(size)]})
        chunks = dict.fromkeys(("prompt", "parameters", "Comment"), text)
        start = time.process_time()
        with suppress(ValueError):
            read_recipe(ImageMetadata(chunks=chunks, user_comment=text))
        assert time.process_time() - start < 2 * MAX_SECONDS
