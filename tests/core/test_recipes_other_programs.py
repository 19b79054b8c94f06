"""Files of many programs: who made them, each field right, each thing that is not here named."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.generation.fields import RequestFields
from studio.core.generation.recipes import fooocus, novelai, swarmui
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe
from studio.core.generation.recipes.sources import SOURCES, read_recipe
from support.comfyui_graphs import BASIC, changed, dump, node
from support.examples import examples
from support.further_recipe_files import FOOOCUS_TITLES, FURTHER_FILES
from support.recipe_files import FILES as FIRST_FILES
from support.recipe_files import RecipeFile, copy_metadata, wrap_xmp
from support.recipe_texts import CIVITAI, DRAW_THINGS, SWARM

pytestmark = pytest.mark.smoke
FILES = FIRST_FILES | FURTHER_FILES
# How words and noise are meant: asked apart.
READING_FIELDS = {"prompt_syntax", "emphasis", "noise_source"}


read = read_recipe


@pytest.mark.parametrize("file", FILES.values(), ids=list(FILES))
def test_a_file_says_who_made_it(file: RecipeFile) -> None:
    assert read(file.metadata).program == file.program


@pytest.mark.parametrize("file", FILES.values(), ids=list(FILES))
def test_each_field_is_right_and_no_other_is_there(file: RecipeFile) -> None:
    values = read(file.metadata).values
    if "prompt" not in file.values and file.values:
        values.pop("prompt"), values.pop("negative_prompt", None)  # asked apart
        file.values.pop("negative_prompt", None)
    if "noise_schedule" not in file.values:
        values.pop("noise_schedule", None)  # what the model has: the catalog's word for it
    assert {name: values[name] for name in values if name not in READING_FIELDS} == file.values


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.notes])
def test_what_is_not_here_is_named(name: str) -> None:
    file = FILES[name]
    assert tuple(read(file.metadata).notes) == file.notes


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.files])
def test_the_files_that_a_recipe_names(name: str) -> None:
    file = FILES[name]
    files = read(file.metadata).files
    assert tuple((item.kind, item.name, item.digest) for item in files) == file.files


@pytest.mark.parametrize(
    "metadata",
    [
        ImageMetadata(
            chunks={"Description": "a boat like Midjourney's"},
            user_comment="holiday, painted with gemini colours",
        ),
        ImageMetadata(chunks={"Author": "Gemini Alvarez", "Software": "GIMP 2.10"}),
        ImageMetadata(exif={"Artist": "Max.Ai", "Make": "Gemini", "Model": "Gemini 4G"}),
        ImageMetadata(exif={"Software": "Firefly Grok's darkroom", "Artist": "Grok"}),
        ImageMetadata(iptc={"2:80": "Midjourney", "2:110": "Gemini Press", "2:115": "Max.Ai"}),
        ImageMetadata(xmp=wrap_xmp(dc_creator="Imagen Heap", photoshop_Credit="Leonardo Ai")),
        ImageMetadata(xmp="<dc:creator><rdf:li>Dalle Grok</rdf:li></dc:creator>"),
        ImageMetadata(xmp=wrap_xmp(photoshop_Credit="Gemini", photoshop_Source="OpenAI")),
        ImageMetadata(exif={"ImageDescription": "notes on Job ID: none"}),
        ImageMetadata(xmp=wrap_xmp(Iptc4xmpExt_DigitalSourceType="algorithmicMedia, said Grok")),
    ],
    ids=range(10),
)
def test_nobody_is_named_where_nobody_is_known(metadata: ImageMetadata) -> None:
    assert [source.program for source in SOURCES if source.recognises(metadata)] == []


@pytest.mark.parametrize(
    ("metadata", "program"),
    [
        (ImageMetadata(exif={"Software": "Midjourney v6.1"}), "Midjourney"),
        (ImageMetadata(xmp=wrap_xmp(xmp_CreatorTool="Adobe Firefly 3 (beta)")), "Adobe Firefly"),
        (ImageMetadata(xmp=wrap_xmp(stEvt_softwareAgent="DALL·E 3")), "ChatGPT (DALL·E)"),
        (ImageMetadata(xmp=wrap_xmp(c2pa_claim_generator="OpenAI-API")), "ChatGPT (DALL·E)"),
        (ImageMetadata(iptc={"2:110": "Made with Google AI"}), "Google's Gemini or Imagen"),
        (ImageMetadata(iptc={"2:65": "NightCafe Studio"}), "NightCafe"),
        (ImageMetadata(exif={"Make": "Midjourney"}), "Midjourney"),
    ],
    ids=range(7),
)
def test_a_program_is_told_by_its_whole_name(metadata: ImageMetadata, program: str) -> None:
    assert read(metadata).program == program


def test_civitais_numbers_name_files() -> None:
    recipe = read(ImageMetadata(user_comment=json.dumps(CIVITAI)))
    assert [(file.kind, file.version, file.weights) for file in recipe.files] == [
        ("lora", "135867", (1.2, 1.0)),
        ("model", "128078", (1.0, 1.0)),
    ]


@pytest.mark.parametrize(
    "name", ["SwarmUI PNG", "Fooocus PNG", "Ruined Fooocus", "Space", "ComfyUI"]
)
def test_a_pasted_text_is_read_as_its_file(name: str) -> None:
    chunks = FILES[name].metadata.chunks
    text = chunks.get("parameters") or chunks["prompt"]
    recipe = read(ImageMetadata(chunks={"parameters": text}, sidecars={".json": text}))
    assert recipe.program == FILES[name].program
    assert recipe.values == read(FILES[name].metadata).values


def test_nobodys_folders_are_shown() -> None:
    for file in FILES.values():
        recipe = read(file.metadata)
        shown = [recipe.text, *recipe.notes, json.dumps(recipe.values)]
        assert [text for text in shown if "Users" in text] == []


def test_a_text_beside_a_graph_counts_where_the_graph_has_no_words() -> None:
    graph = changed(BASIC, n6={"text": ["40", 0]}, n40=node("LLM", model="x", temperature=0.5))
    text = "a fox\nNegative prompt: fog\nSteps: 7, Sampler: Euler, CFG scale: 7, Seed: 1"
    recipe = read(ImageMetadata(chunks={"prompt": dump(graph), "parameters": text}))
    assert (recipe.values["prompt"], recipe.values["steps"]) == ("a fox", 7)


def test_fooocus_lays_its_prompts_end_to_end() -> None:
    values = read(FILES["Fooocus PNG"].metadata).values
    assert values["prompt"] == " BREAK ".join(
        ["cinematic still a red boat . shallow", "a red boat, intricate"]
    )
    assert values["negative_prompt"] == " BREAK ".join(["fog", "blurry, lowres"])


@pytest.mark.parametrize(
    ("performance", "steps"), [("Quality", 60), ("Speed", 30), ("Lightning", 4), ("Hyper-SD", 4)]
)
def test_a_performance_of_fooocus_is_its_steps(performance: str, steps: int) -> None:
    data = {"prompt": "a", "base_model": "tiny", "performance": performance, "steps": -1}
    recipe = fooocus.SOURCE.read(ImageMetadata(chunks={"parameters": json.dumps(data)}))
    assert recipe.values["steps"] == steps


def test_what_fooocus_does_beside_is_named() -> None:
    recipe = read(FILES["Fooocus by titles"].metadata)
    assert recipe.notes[-4:] == [
        "Refiner 'paint.safetensors' from 80% of the steps on is not available here; the model runs to the end.",
        "Performance 'Extreme Speed' uses the LoRA sdxl_lcm_lora, which is needed here too.",
        "Not available here: Fooocus' sharpness, ADM guidance; the image will differ.",
        "Not loaded: Fooocus V2 Expansion.",
    ]


def test_a_performances_lora_is_taken_once() -> None:
    data = FOOOCUS_TITLES | {"LoRA 2": "sdxl_lcm_lora.safetensors : 0.9"}
    recipe = fooocus.SOURCE.read(ImageMetadata(chunks={"parameters": json.dumps(data)}))
    weights = {use["name"]: use["unet"] for use in recipe.values["loras"]}
    assert weights == {"inkXL": 0.5, "sdxl_lcm_lora": 0.9}


@pytest.mark.parametrize(
    ("name", "number", "counting"),
    [
        ("Fooocus by titles", 2, "ComfyUI"),
        ("SwarmUI 0.6", 2, "ComfyUI"),
        ("Draw Things", 2, "Forge"),
        ("Easy Diffusion, clip skip", 2, "A1111"),
    ],
)
def test_how_a_program_counts_clip_skip(name: str, number: int, counting: str) -> None:
    clip_skip = read(FILES[name].metadata).clip_skip
    assert clip_skip is not None
    assert (clip_skip.number, clip_skip.counting) == (number, counting)


def test_the_unknown_is_named_within_bounds() -> None:
    unknown = {f"unknown_{number}": 1 for number in range(500)}
    for key, data in (
        ("invokeai_metadata", {"positive_prompt": "a"}),
        ("parameters", {"prompt": "a", "base_model": "t"}),
        ("Comment", {"prompt": "a", "uc": "b", "sampler": "k_euler", "uncond_scale": 1}),
    ):
        recipe = read(ImageMetadata(chunks={key: json.dumps(data | unknown)}))
        (note,) = [note for note in recipe.notes if note.startswith("Not loaded: unknown_0, ")]
        assert len(note) < 330


def test_a_resolution_is_no_program_that_is_run() -> None:
    data = {"prompt": "a", "base_model": "t", "resolution": "__import__('os').abort()", "steps": 5}
    recipe = fooocus.SOURCE.read(ImageMetadata(chunks={"parameters": json.dumps(data)}))
    assert recipe.values == {"prompt": "a", "steps": 5, "model": "t"} | {
        name: recipe.values[name] for name in READING_FIELDS & recipe.values.keys()
    }


def test_swarmuis_marks_in_a1111s_grammar() -> None:
    prompt = read(FILES["SwarmUI PNG"].metadata).values["prompt"]
    assert prompt == r"a (red:1.2) boat BREAK at \[sea\], [dawn:dusk:0.4]"


@pytest.mark.parametrize(
    ("words", "adapted"),
    [
        ("a <segment:face> a smile", "a"),
        ("a <random:b|c> d", "a b|c d"),
        ("a <lora:ink:0.5>", "a <lora:ink:0.5>"),
        ("<alternate:a, b>", "[a|b]"),
    ],
)
def test_other_marks_of_swarmui(words: str, adapted: str) -> None:
    draft = RecipeDraft("SwarmUI")
    assert swarmui.read_prompt(words, draft, is_in_list=False) == adapted


def test_a_variation_of_a_seed() -> None:
    """Structure: the ids of SwarmUI's parameters "Variation Seed" and its strength."""
    params = {"prompt": "a", "seed": 3, "variationseed": 9, "variationseedstrength": "0.25"}
    recipe = read(ImageMetadata(user_comment=json.dumps({"sui_image_params": params})))
    assert (recipe.values["variation_seed"], recipe.values["variation_strength"]) == (9, 0.25)


def test_noise_as_a_graphics_card_makes_it() -> None:
    data = DRAW_THINGS | {"seed_mode": "Nvidia Gpu Compatible"}
    recipe = read(ImageMetadata(user_comment=json.dumps(data)))
    assert (recipe.program, recipe.values["noise_source"]) == ("Draw Things", "NV")


def test_a_lora_tag_counts_once_where_the_settings_list_it_too() -> None:
    recipe = read(ImageMetadata(chunks={"parameters": json.dumps(SWARM)}))
    assert "<lora" not in recipe.values["prompt"]


@pytest.mark.parametrize(
    ("words", "converted"),
    [
        ("{a}", "(a:1.05)"),
        ("{{a}} [b]", "(a:1.1025) (b:0.9524)"),
        ("1.5::a, b:: c", "(a, b:1.5) c"),
        ("-1::a::", "(a:-1)"),
        ("{a", "(a:1.05)"),
        ("a (b)", r"a \(b\)"),
        ("2::a 0.5::b", "(a :2)(b:0.5)"),
        ("AND", "and"),
        ("999::a::", "(a:10)"),
        ("a::b", "ab"),
    ],
)
def test_novelais_weights_in_a1111s_grammar(words: str, converted: str) -> None:
    assert novelai.convert_weights(words) == converted


def test_each_program_says_how_its_words_are_meant() -> None:
    syntaxes = {
        name: read(file.metadata).values.get("prompt_syntax")
        for name, file in FILES.items()
        if name in ("ComfyUI", "InvokeAI 5", "NovelAI 4", "Fooocus PNG", "SwarmUI PNG")
    }
    assert syntaxes == {
        "ComfyUI": "A1111",
        "InvokeAI 5": "compel",
        "NovelAI 4": "A1111",
        "Fooocus PNG": "A1111",
        "SwarmUI PNG": "A1111",
    }


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["9" * 5000, "1e999", "{" * 2000, "[" * 5000, "<lora:", '"', "\ud800", " --no "]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_no_file_raises_anything_but_a_sentence(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    parts = copy_metadata(FILES[name].metadata)
    for part in ("chunks", "exif"):
        parts[part] = {key: _change(text, data) for key, text in parts[part].items()}
    for part in ("user_comment", "hidden"):
        parts[part] = _change(parts[part], data)
    metadata = ImageMetadata(**parts)
    for source in SOURCES:
        if not source.recognises(metadata):
            continue
        with suppress(ValueError):
            recipe = source.read(metadata)
            _check(recipe)


def _check(recipe: Recipe) -> None:
    for field_name, value in recipe.values.items():
        assert field_name in RequestFields.model_fields
        assert value is not None
    json.dumps(recipe.values)
    assert all(isinstance(note, str) and len(note) < 700 for note in recipe.notes)
    assert all("somebody" not in file.name for file in recipe.files)


def _change(text: str, data: st.DataObject) -> str:
    """Change a JSON here and there; cut any other text."""
    try:
        item = json.loads(text.strip("\0"))
    except ValueError:
        return text[: data.draw(st.integers(0, len(text)))]
    if isinstance(item, dict):
        for _ in range(data.draw(st.integers(0, 4))):
            _mutate(item, data)
    return json.dumps(item)


def _mutate(item: Any, data: st.DataObject) -> None:
    while True:
        keys = list(item) if isinstance(item, dict) else list(range(len(item)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(item[key], dict | list) and item[key] and data.draw(st.booleans()):
            item = item[key]
            continue
        item[key] = data.draw(VALUES)
        return


@pytest.mark.parametrize("file", FILES.values(), ids=list(FILES))
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_prompt_that_is_not_said_is_not_emptied(file: RecipeFile, name: str) -> None:
    """Every text of every file is taken out once: no prompt becomes empty that was not."""
    if read(file.metadata).values.get(name) in (None, ""):
        return
    parts = copy_metadata(file.metadata)
    for part in ("chunks", "exif"):
        for key, text in parts[part].items():
            with suppress(ValueError):
                _check_without(parts | {part: parts[part] | {key: _drop_prompts(text)}}, name)
    if parts["user_comment"]:
        _check_without(parts | {"user_comment": _drop_prompts(parts["user_comment"])}, name)


def _drop_prompts(text: str) -> str:
    data = json.loads(text.strip("\0"))
    if not isinstance(data, dict):
        return text
    return json.dumps({key: value for key, value in data.items() if "rompt" not in key})


def _check_without(parts: dict[str, Any], name: str) -> None:
    metadata = ImageMetadata(**parts)
    for source in SOURCES:
        if source.recognises(metadata):
            with suppress(ValueError):
                assert source.read(metadata).values.get(name) != ""
