"""Texts of A1111 and its relatives, by hand after what is public of each; personal details are invented.

Each cites where its structure is to be seen: the programs' issues and pull requests hold texts of real images.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.base import validate
from studio.core.generation.fields import SEED_LIMIT
from studio.core.generation.recipes import sources
from studio.core.generation.recipes.a1111 import parse_infotext
from studio.core.generation.recipes.file_names import clean_file_name, hide_paths
from studio.core.generation.recipes.recipe import FileReference, ImageMetadata, Recipe
from studio.core.generation.recipes.seeds import read_seed
from studio.core.generation.request import GenerationRequest
from studio.core.valid_values import merge_valid
from support.sentences import refused

# AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py: the docstring of its parser shows one.
MODERN = """a girl by a lake, <lora:ink:0.8>
Negative prompt: fog
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, \
Model: dreamshaper_8, VAE hash: 735e4c3a44, VAE: vae-ft-mse-840000-ema-pruned.safetensors, Clip skip: 2, ENSD: 31337, \
Lora hashes: "ink: 1c5d5a9d4f3e", TI hashes: "bad-hands-5: AA7651BE154C", Version: v1.10.1"""
# The same repository's issue 2614 (October 2022): first pass size, a hash of eight digits, no model's name.
OF_2022 = """a castle, best quality
Steps: 85, Sampler: Euler a, CFG scale: 7, Seed: 906431877, Size: 512x768, Model hash: e6e8e1fc, Denoising strength: 0.65, \
First pass size: 256x384"""
# zixaphir/Stable-Diffusion-Webui-Civitai-Helper issue 100: what Civitai's own generator writes.
CIVITAI = """a lighthouse
Negative prompt: people
Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 7, Size: 832x1216, Clip skip: 2, \
Created Date: 2024-04-17T10:00:00.0000000Z, Civitai resources: [{"type":"checkpoint","modelVersionId":290640},\
{"type":"lora","weight":0.4,"modelVersionId":135867},{"type":"embed","weight":1,"modelVersionId":380277}], Civitai metadata: {}"""
# civitai/sd_civitai_extension: it appends "Hashes" with JSON that is not quoted.
HASHES = """a boat <lora:moon:0.5>
Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Model: ink, \
Hashes: {"vae": "735e4c3a44", "model": "5f06c94cde", "lora:moon": "aabbccddeeff", "embed:hands": "66a7279a88"}, Version: v1.6.0"""
# vladmandic/sdnext: its infotext names the app; "Hires scale" and "Hires strength" in place of A1111's.
SDNEXT = """a boat
Negative prompt: fog
Steps: 20, Size: 512x512, Sampler: Euler a, Seed: 5000000007, CFG scale: 6, Hires scale: 2, Hires strength: 0.3, \
Hires upscaler: None, Sampler sigma: karras, App: SD.Next, Version: 4f4ea77, Operations: hires"""
# adieyal/sd-dynamic-prompts issue 177: lines behind the settings.
TEMPLATE = """a red boat
Negative prompt: fog
Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.6.0
Template: a {red|blue} boat, (a:1.1), (b:1.2)
Negative Template: fog"""
# LykosAI/StabilityMatrix, GenerationParameters.cs: the same lines, sampler and schedule in one name.
STABILITY_MATRIX = """a boat
Negative prompt: fog
Steps: 30, Sampler: Euler Ancestral Karras, CFG scale: 5, Seed: 3, Size: 1024x1024, Model hash: 31e35c80fc, \
Model: sd_xl_base_1.0"""


def read(text: str) -> Recipe:
    return sources.read_recipe(ImageMetadata(chunks={"parameters": text}))


def values(text: str) -> dict[str, Any]:
    return read(text).values


def test_todays_a1111() -> None:
    recipe = read(MODERN)
    assert recipe.program == "A1111"
    assert {
        "prompt": "a girl by a lake,",
        "negative_prompt": "fog",
        "steps": 20,
        "guidance": 6.5,
        "seed": 965400086,
        "width": 512,
        "height": 768,
        "scheduler": "DPM++ 2M",
        "noise_schedule": "Karras",
        "clip_skip": 2,
        "model": "dreamshaper_8",
        "vae": "vae-ft-mse-840000-ema-pruned",
        "loras": [{"name": "ink", "unet": 0.8, "text_encoder": 0.8}],
    }.items() <= recipe.values.items()
    assert recipe.files == [
        FileReference("model", "dreamshaper_8", "45dee52b"),
        FileReference("vae", "vae-ft-mse-840000-ema-pruned", "735e4c3a44"),
        FileReference("lora", "ink", "1c5d5a9d4f3e", (0.8, 0.8)),
        FileReference("embedding", "bad-hands-5", "aa7651be154c"),
    ]
    is_here = "ensd" in GenerationRequest.model_fields
    assert ("Not loaded: ENSD." in recipe.notes) != is_here


def test_a_seed_of_a_graphics_card() -> None:
    """A1111 draws there if nothing is said: the same noise where there is its formula, else a note."""
    recipe = read(MODERN)
    if "noise_source" in GenerationRequest.model_fields:
        assert recipe.values["noise_source"] == "NV"
        assert values(MODERN.replace("ENSD: 31337", "RNG: CPU"))["noise_source"] == "CPU"
    else:
        assert any("graphics card" in note for note in recipe.notes)


def test_the_first_pass_of_2022() -> None:
    found = values(OF_2022)
    assert {
        "width": 256,
        "height": 384,
        "hires_scale": 2.0,
        "hires_strength": 0.65,
        "hires_resize": "pixel",
    }.items() <= found.items()
    assert read(OF_2022).files[0] == FileReference("model", "", "e6e8e1fc")
    # nothing chosen: of about 512 × 512 pixels, in steps of 64
    found = values(OF_2022.replace("256x384", "0x0").replace("512x768", "1024x1024"))
    assert (found["width"], found["height"], found["hires_scale"]) == (512, 512, 2.0)


def test_civitais_generator() -> None:
    recipe = read(CIVITAI)
    assert recipe.program == "Civitai"
    assert (recipe.values["scheduler"], recipe.values["noise_schedule"]) == ("DPM++ 2M", "Karras")
    assert recipe.files == [
        FileReference("model", "", "", (1.0, 1.0), "290640"),
        FileReference("lora", "", "", (0.4, 0.4), "135867"),
        FileReference("embedding", "", "", (1.0, 1.0), "380277"),
    ]
    named = read(CIVITAI.replace('"modelVersionId":135867', '"modelName":"Ink"'))
    assert named.files[1] == FileReference("lora", "Ink", "", (0.4, 0.4))


def test_hashes_as_json_among_the_settings() -> None:
    recipe = read(HASHES)
    assert recipe.files == [
        FileReference("model", "ink", "5f06c94cde"),
        FileReference("lora", "moon", "aabbccddeeff", (0.5, 0.5)),
        FileReference("embedding", "hands", "66a7279a88"),
    ]
    assert not [note for note in recipe.notes if "Not loaded" in note]
    broken = read(
        HASHES.replace('{"vae"', '{"vae')
    )  # no JSON: the other settings are read all the same
    assert broken.values["seed"] == 1


def test_sdnext() -> None:
    recipe = read(SDNEXT)
    assert recipe.program == "SD.Next"
    # all 20 steps run there: 67 at strength 0.3 are 20 here
    assert {"hires_scale": 2.0, "hires_strength": 0.3, "hires_steps": 67}.items() <= (
        recipe.values.items()
    )
    # its noise is the graphics card's, which counts every bit of a seed
    assert recipe.values["noise_source"] == "NV"
    assert "seed" not in recipe.values
    assert any("Seed 5000000007" in note for note in recipe.notes)
    assert any("'karras' does not work with Euler a" in note for note in recipe.notes)
    assert not any("another image, which" in note for note in recipe.notes)


def test_templates_behind_the_settings() -> None:
    recipe = read(TEMPLATE)
    assert (recipe.values["prompt"], recipe.values["negative_prompt"]) == ("a red boat", "fog")
    assert (recipe.values["steps"], recipe.values["seed"]) == (20, 1)
    assert any("template" in note for note in recipe.notes)


def test_stability_matrix() -> None:
    found = values(STABILITY_MATRIX)
    assert found["scheduler"] == "Euler a"
    assert found["model"] == "sd_xl_base_1.0"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (MODERN.replace("v1.10.1", "f2.0.1v1.10.1-previous-659-gc055f2d4"), "Forge"),
        (MODERN.replace("v1.10.1", "neo"), "Forge"),
        (MODERN.replace("v1.10.1", "ComfyUI"), "ComfyUI, as A1111's text"),
        (MODERN.replace("v1.10.1", "Fooocus v2.5.5"), "Fooocus"),
    ],
)
def test_who_wrote_it(text: str, program: str) -> None:
    assert read(text).program == program


@pytest.mark.parametrize(
    "text",
    [
        MODERN + "   \n \n",
        MODERN.replace("CFG scale", "CFG Scale").replace("Steps", "steps").replace("Seed", "SEED"),
        MODERN.replace("\n", "\r\n"),
        MODERN.replace("Negative prompt", "negative prompt"),
        MODERN.replace("Size: 512x768", "Size: 512 x 768").replace("Steps: 20", "Steps: 20.0"),
        MODERN.replace("DPM++ 2M, Schedule type: Karras", "dpmpp_2m, Scheduler: karras"),
    ],
)
def test_every_spelling_says_the_same(text: str) -> None:
    assert values(text) == values(MODERN)


def test_prompts_without_settings() -> None:
    assert values("a boat\nNegative prompt: fog") == {
        **{name: value for name, value in values(MODERN).items() if name == "prompt_syntax"},
        "prompt": "a boat",
        "negative_prompt": "fog",
        "loras": [],
    } | {
        name: value
        for name, value in values("a\nNegative prompt: b").items()
        if name == "noise_source"
    }
    # weights look like settings, and are none
    found = values("a boat\nNegative prompt: fog,\n(rain fall:1.2), (bad art:1.3), (wet dog:1.1)")
    assert found["negative_prompt"].endswith("(wet dog:1.1)")


def test_an_empty_prompt_empties_nothing() -> None:
    settings = MODERN.split("\n")[-1]
    assert not {"prompt", "negative_prompt"} & values(settings).keys()
    assert "prompt" not in values("Negative prompt: fog\n" + settings)
    assert values("Negative prompt: fog\n" + settings)["negative_prompt"] == "fog"
    assert values("a boat\n" + settings)["negative_prompt"] == ""  # A1111 writes all others


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"prompt": "a boat", "steps": 4, "seed": 3, "sampler": "euler"}),
        json.dumps({"a b": {"c d": 1}, "Steps": 20, "Seed": 5, "Sampler": "Euler"}, indent=1),
        "[" * 100_000 + "]" * 100_000,
        '{"a": ' * 50_000 + "1" + "}" * 50_000,
    ],
    ids=lambda text: text[:12],
)
def test_json_is_not_taken_for_a1111s_text(text: str) -> None:
    with refused(ValueError):
        parse_infotext(text)


def test_nobodys_folders_are_told() -> None:
    folders = ["C:\\Users\\jane\\models\\", "/home/jane/sd/models/", "\\\\server\\share\\", "~/sd/"]
    for folder in folders:
        text = MODERN.replace("Model: dreamshaper_8", f"Model: {folder}dreamshaper_8.safetensors")
        text = text.replace("ENSD: 31337", f'Refiner: "{folder}x", Mask file: {folder}y')
        recipe = read(text)
        told = json.dumps([recipe.values, recipe.notes, recipe.text, str(recipe.files)])
        assert recipe.values["model"] == "dreamshaper_8"
        assert "jane" not in told
        assert "share" not in told.replace("dreamshaper", "")
    assert hide_paths("a <lora:x/y:1>, and/or 1/2 km") == "a <lora:x/y:1>, and/or 1/2 km"
    assert clean_file_name("D:\\sd\\ink.v2.SAFETENSORS") == "ink.v2"


@pytest.mark.parametrize(
    ("seed", "is_cpu", "expected"),
    [
        ("7", False, 7),
        (7.0, False, 7),
        (-5, False, -1),
        (SEED_LIMIT, True, 0),
        (SEED_LIMIT, False, None),
        (2**64, True, None),
        ("nan", True, None),
        (True, True, None),
        ("9" * 5000, True, None),
    ],
)
def test_seeds(seed: object, is_cpu: bool, expected: int | None) -> None:
    number, note = read_seed(seed, is_cpu)
    assert number == expected
    assert bool(note) == (expected is None)


def test_texts_in_other_places() -> None:
    places = (
        ImageMetadata(user_comment=MODERN),
        ImageMetadata(comment=MODERN),
        ImageMetadata(exif={"ImageDescription": MODERN}),
        ImageMetadata(hidden=MODERN),
        ImageMetadata(sidecars={".txt": MODERN}),
        ImageMetadata(chunks={"parameters": "{}"}, user_comment=MODERN),
    )
    for metadata in places:
        assert sources.read_recipe(metadata).values == values(MODERN)
    with refused(ValueError):
        sources.read_recipe(ImageMetadata(sidecars={".txt": "a girl by a lake, tag, other tag"}))


WHOLE = [MODERN, OF_2022, CIVITAI, HASHES, SDNEXT, TEMPLATE, STABILITY_MATRIX]
PIECES = st.sampled_from(
    [
        '"',
        "\\",
        "{",
        "[",
        "]}",
        ": ",
        ", ",
        "\n",
        "NaN",
        "1e999",
        "x",
        "Steps: ",
        "🙂",
        "\0",
        "Hashes: {",
    ]
)


@given(st.sampled_from(WHOLE), st.data())
def test_mutated_texts_are_read_or_refused(text: str, data: st.DataObject) -> None:
    """Never a traceback, never an emptied prompt, and what is taken is valid or named."""
    for _ in range(data.draw(st.integers(1, 6))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 40)))
        text = text[:begin] + data.draw(PIECES) + text[end:]
    try:
        recipe = read(text)
    except ValueError:
        return
    assert recipe.values.get("prompt") != ""
    accepted, faults = merge_valid(GenerationRequest, {}, recipe.values)
    validate(GenerationRequest, accepted)
    assert len(accepted) + len(faults) >= len(recipe.values) - 1


@pytest.mark.parametrize(
    "text",
    [
        "x\n" + "ab: [" * 150_000,
        "x\nSteps: 1, " + "ab: {" * 100_000,
        "Steps: 1\n" * 90_000,
        "C:\\" + "a" * 900_000 + "\nNegative prompt: x",
        "\\".join(["a"] * 300_000) + "\nNegative prompt: x",
        'a\nSteps: 20, Seed: 1, Sampler: Euler, TI hashes: "' + "a: " * 200_000 + '"',
    ],
    ids=lambda text: text[:14],
)
def test_long_nonsense_takes_no_time(text: str) -> None:
    begin = time.process_time()
    with suppress(ValueError):
        read(text)
    assert time.process_time() - begin < 10
