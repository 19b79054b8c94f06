"""What A1111 and its relatives mean by their texts, age by age and program by program; what costs nothing else when odd.

Facts of public sources: A1111's setup_img2img_steps and its CompVis samplers, its
create_infotext (`Schedule type` always, since 1.9), its wiki on extra networks; Fooocus' meta_parser (scheme
"a1111"); SD.Next's calculate_base_steps and "Generator device"; Forge's `Module 1`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.generation.geometry import count_effective_steps, find_strength
from studio.core.generation.infotext import format_infotext, parse_infotext
from studio.core.generation.recipes import sources
from studio.core.generation.recipes.a1111_passes import (
    MAX_STEPS,
    count_a1111_steps,
    find_a1111_strength,
    scale_steps,
)
from studio.core.generation.recipes.clip_skip import ClipSkip
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.note_words import list_names, shorten
from studio.core.generation.recipes.recipe import ImageMetadata, NothingFound, Recipe
from studio.core.generation.request import GenerationRequest
from studio.core.generation.used_files import UsedFiles
from support.sentences import refused


def read(text: str) -> Recipe:
    return sources.read_recipe(ImageMetadata(chunks={"parameters": text}))


def text_of(prompt: str = "a boat", negative: str = "fog", **settings: Any) -> str:
    pairs = {"Steps": 20, "Sampler": "Euler", "CFG scale": 7, "Seed": 1, "Size": "512x512"}
    pairs |= {key.replace("_", " "): value for key, value in settings.items()}
    line = ", ".join(f"{key}: {value}" for key, value in pairs.items())
    return f"{prompt}\nNegative prompt: {negative}\n{line}"


# ---- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "loras", "word"),
    [
        ("<lora:x:0.5:lbw=OUTALL>", [("x", 0.5, 0.5)], "lbw=OUTALL"),
        ("<lora:x:0.5:1:OUTALL>", [("x", 1.0, 0.5)], "OUTALL"),
        ("<lora:x:5>", [("x", 4.0, 4.0)], "5 is limited to 4"),
        ("<lora:x:-9>", [("x", -4.0, -4.0)], "-9 is limited to -4"),
        ("<lora:x:te=1:unet=0.5>", [("x", 0.5, 1.0)], ""),
        ("<lora:x:0.25:unet=1>", [("x", 1.0, 0.25)], ""),
        ("<lyco:x:0.5>", [("x", 0.5, 0.5)], ""),
        ("<lora:x:0.5> <lora:x:0.25>", [("x", 0.75, 0.75)], ""),  # counts twice there
        ("<lora:x:heavy>", [("x", 1.0, 1.0)], "heavy"),
        ("<hypernet:mood:1>", [], "mood"),
        ("<lora>", [], "<lora>"),
        ("<lora::1>", [], "<lora::1>"),
        ("<lora:x:0.5", [("x", 0.5, 0.5)], ""),  # never closed
        ("<lora:x:0>", [], ""),
        ("<lo<lora:y:1>ra:x:0.5>", [("y", 1.0, 1.0), ("x", 0.5, 0.5)], ""),
    ],
)
def test_an_odd_tag_costs_no_other_word(
    tag: str, loras: list[tuple[str, float, float]], word: str
) -> None:
    recipe = read(text_of(f"a boat, {tag}"))
    assert recipe.values["prompt"].rstrip() == "a boat,"
    found = [(use["name"], use["unet"], use["text_encoder"]) for use in recipe.values["loras"]]
    assert found == loras
    assert bool(recipe.notes) == bool(word)
    assert word in " ".join(recipe.notes)


def test_a_tag_in_the_negative_prompt_is_only_words_there() -> None:
    recipe = read(text_of(negative="fog <lora:x:1>"))
    assert (recipe.values["negative_prompt"], recipe.values["loras"]) == ("fog", [])
    assert recipe.notes == ["<lora:x:1> is left out: A1111 does not read it there."]


def test_more_loras_than_can_be_are_named() -> None:
    recipe = read(text_of(" ".join(f"<lora:x{number}:1>" for number in range(40)) + " a boat"))
    assert recipe.values["prompt"] == "a boat"
    assert len(recipe.values["loras"]) == 16
    assert recipe.notes == ["At most 16 LoRAs are used: the others are left out."]


# ---- ages and programs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "sampler", "expected"),
    [
        ("v1.8.0", "DPM++ 2M", "Uniform"),
        ("v1.8.0", "DPM++ 2M Karras", "Karras"),
        ("v1.8.0", "DPM++ SDE", "Uniform"),
        ("v1.8.0", "DPM2 a", "Uniform"),
        ("v1.8.0", "Euler a", "Automatic"),  # the same
        ("v1.8.0", "UniPC", "Automatic"),  # has timesteps of its own
        ("v1.9.0", "DPM++ 2M", "Automatic"),
        ("v1.10.1", "DPM++ 2M", "Automatic"),
        ("20ae71fa", "DPM++ 2M", "Uniform"),
        ("", "DPM++ 2M", "Uniform"),
        ("f0.0.17v1.8.0rc-latest-276-g29be1da7", "DPM++ 2M", "Uniform"),
        ("f2.0.1v1.10.1-previous-659-gc055f2d4", "DPM++ 2M", "Automatic"),
        ("f2.0.1", "DPM++ 2M", "Automatic"),
        ("neo", "DPM++ 2M", "Automatic"),
    ],
)
def test_a_bare_sampler_by_the_age_of_its_text(version: str, sampler: str, expected: str) -> None:
    settings = {"Sampler": sampler} | ({"Version": version} if version else {})
    assert read(text_of(**settings)).values["noise_schedule"] == expected
    named = read(text_of(**settings, Schedule_type="Automatic")).values["noise_schedule"]
    assert named == ("Karras" if sampler.endswith("Karras") else "Automatic")


def test_sdnext_draws_on_the_graphics_card_and_counts_clip_skip_as_here() -> None:
    recipe = read(text_of(Sampler="DPM++ 2M", App="SD.Next", Clip_skip=2, Version="4f4ea77"))
    assert recipe.values["noise_source"] == "NV"
    assert recipe.values["noise_schedule"] == "Model default"
    assert recipe.clip_skip is None
    karras = read(text_of(Sampler="DPM++ 2M", App="SD.Next", Sampler_sigma="karras"))
    assert karras.values["noise_schedule"] == "Karras"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"Version": "v1.10.1"}, ClipSkip(2, "A1111")),
        ({"Version": "f2.0.1v1.10.1"}, ClipSkip(2, "Forge")),
        ({"Version": "ComfyUI"}, ClipSkip(2, "ComfyUI")),
        ({"Version": "Fooocus v2.5.5"}, ClipSkip(2, "ComfyUI")),
        ({"Civitai_resources": "[]"}, ClipSkip(2, "Forge")),
    ],
)
def test_how_each_program_counts_clip_skip(settings: dict[str, str], expected: ClipSkip) -> None:
    recipe = read(text_of(Clip_skip=2, **settings))
    assert (recipe.values["clip_skip"], recipe.clip_skip) == (2, expected)


def test_our_own_text_says_what_a1111_and_forge_mean_and_comes_back() -> None:
    request = GenerationRequest(width=64, height=64, seed=7, clip_skip=2)
    sdxl, sd1 = (format_infotext(request, UsedFiles(family=name)) for name in ("sdxl", "sd1"))
    assert "Clip skip: 3, " in sdxl
    assert "Clip skip: 2, " in sd1
    for text in (sdxl, sd1):
        assert parse_infotext(text).values["clip_skip"] == 2
        assert read(text).clip_skip is None
    usual = format_infotext(request.model_copy(update={"clip_skip": 1}), UsedFiles(family="sdxl"))
    assert "Clip skip" not in usual
    # what no text of ours names is at its default as well
    assert parse_infotext(usual).defaults["clip_skip"] == 1
    assert "styles" in parse_infotext(usual).defaults
    assert not parse_infotext("a boat\nNegative prompt: fog").defaults  # says nothing of settings


def test_fooocus_a1111_scheme() -> None:
    recipe = read(
        text_of(
            Sampler="DPM++ 2M SDE Karras",
            Scheduler="karras",
            VAE="Default (model)",
            Refiner="None",
            Performance="Speed",
            Sharpness=2,
            Lora_hashes='"ink: 4852686128"',
            Lora_weights='"ink: 0.25, C:\\\\\\\\me\\\\\\\\moon.safetensors: 0.5"',
            Version="Fooocus v2.5.5",
        )
    )
    assert recipe.program == "Fooocus"
    assert [(use["name"], use["unet"]) for use in recipe.values["loras"]] == [
        ("ink", 0.25),
        ("moon", 0.5),
    ]
    assert {file.digest for file in recipe.files if file.name == "ink"} == {"4852686128"}
    assert recipe.values["vae"] == ""
    assert recipe.notes == ["Not loaded: Sharpness."]


def test_forges_modules_and_what_is_the_same_as_in_the_first_pass() -> None:
    recipe = read(
        text_of(
            Module_1="sdxl_vae",
            Module_2="clip_l",
            Hires_Module_1="Use same choices",
            Hires_sampler="Use same sampler",
            Schedule_max_sigma=30,
            Version="f2.0.1",
        )
    )
    assert recipe.values["vae"] == "sdxl_vae"
    assert recipe.notes == [
        "Highest noise level 30.0 affects Euler there, but not here; the image will look different.",
        "Not loaded: Module 2.",
    ]


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"Sampler": "DPM++ 2M", "Eta": 0.5}, "Eta 0.5 has no effect with DPM++ 2M."),
        ({"Sampler": "DPM++ 2M", "ENSD": 31337}, "has no effect with DPM++ 2M."),
        ({"Sampler": "DPM++ 2M SDE", "ENSD": 31337}, "has no effect with DPM++ 2M SDE."),
        ({"Sampler": "Euler a", "Eta": 0.5}, "affects Euler a there, but not here"),
        ({"Sampler": "Heun", "Sigma churn": 4}, "affects Heun there, but not here"),
        ({"Sampler": "Euler a", "ENSD": 31337}, ""),
        ({"Sampler": "DDIM", "Eta DDIM": 0.5}, ""),
        ({"Sampler": "Euler", "Schedule type": "Karras", "Schedule max sigma": 12}, ""),
    ],
)
def test_what_has_no_effect_is_not_said_to_be_taken(settings: dict[str, Any], note: str) -> None:
    recipe = read(text_of(**settings, Version="v1.10.1"))
    assert bool(recipe.notes) == bool(note)
    assert note in " ".join(recipe.notes)
    fields = {"eta", "ensd", "s_churn", "sigma_max"} & recipe.values.keys()
    assert bool(fields) == (not note)


# ---- passes ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, MAX_STEPS), st.floats(0.01, 0.999))
def test_as_many_steps_run_as_were_asked_for(run_steps: int, strength: float) -> None:
    assert count_effective_steps(scale_steps(run_steps, strength), strength) == run_steps


@given(st.integers(1, MAX_STEPS), st.floats(0, 1), st.sampled_from(["Euler", "DDIM"]))
def test_a_share_runs_as_many_steps_here_as_there(
    steps: int, strength: float, scheduler: str
) -> None:
    run_steps = count_a1111_steps(steps, strength, scheduler)
    assert 0 <= find_strength(steps, run_steps) <= 1
    assert count_effective_steps(steps, find_strength(steps, run_steps)) == run_steps
    ours = count_effective_steps(steps, strength)
    written = find_a1111_strength(steps, strength, scheduler)
    if ours and not (scheduler == "DDIM" and ours == steps):  # there 0.999 is the most
        assert count_a1111_steps(steps, written, scheduler) == ours


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"hires_steps": 40}),  # none named: all 20 of the first
        ({"Hires_steps": 10}, {"hires_steps": 0}),  # 20 at 0.5: as many as the first pass has
        ({"Hires_steps": 15}, {"hires_steps": 30}),
        ({"Hires_steps": 15, "Denoising_strength": 1}, {"hires_steps": 15}),
        ({"Hires_resize": "1024x0"}, {"hires_scale": 2.0}),
        ({"Hires_resize": "0x768"}, {"hires_scale": 1.5}),
        ({"Hires_resize": "0x0"}, {}),
    ],
)
def test_the_second_pass_runs_all_its_steps(
    settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    size = {} if "Hires_resize" in settings else {"Hires_upscale": 2}
    recipe = read(text_of(**{"Denoising_strength": 0.5, **size, **settings}))
    assert expected.items() <= recipe.values.items()
    assert not [note for note in recipe.notes if "shape" in note]


def test_more_steps_than_can_be_are_said() -> None:
    recipe = read(text_of(Hires_upscale=2, Hires_steps=60, Denoising_strength=0.2))
    assert recipe.values["hires_steps"] == MAX_STEPS
    (note,) = recipe.notes
    assert "all 60 run there, which takes 300 at strength 0.2 here" in note
    assert "30 run" in note
    draft = RecipeDraft("X")
    assert draft.take("hires_steps", MAX_STEPS)
    assert not draft.take("hires_steps", MAX_STEPS + 1)


@pytest.mark.parametrize(
    ("settings", "steps", "strength"),
    [
        ({}, 20, 0.55),  # 11 steps
        ({"Sampler": "DDIM"}, 20, 0.5),
        ({"App": "SD.Next"}, 41, 0.5),
        ({"Version": "ComfyUI"}, 40, 0.5),
    ],
)
def test_steps_on_another_picture(settings: dict[str, str], steps: int, strength: float) -> None:
    recipe = read(text_of(Denoising_strength=0.5, **settings))
    assert (recipe.values["steps"], recipe.values["strength"]) == (steps, strength)


# ---- places ---------------------------------------------------------------------------------------------------------

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/">
<{tag}><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></{tag}></rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize(
    "metadata",
    [
        ImageMetadata(xmp=XMP.format(tag="dc:description", text=text_of())),
        ImageMetadata(xmp=XMP.format(tag="exif:UserComment", text=text_of())),
        ImageMetadata(iptc={"2:120": text_of()}),
        ImageMetadata(chunks={"Description": text_of()}),
        ImageMetadata(chunks={"Comment": text_of()}),
        ImageMetadata(exif={"XPComment": text_of()}),
    ],
    ids=["dc", "exif-in-xmp", "iptc", "description", "comment", "xp"],
)
def test_a_text_that_was_moved_is_found(metadata: ImageMetadata) -> None:
    assert sources.read_recipe(metadata).values == read(text_of()).values


def test_a_description_that_is_none_is_not_taken_for_one() -> None:
    for words in ("A boat. Negative prompt: none", "Steps: 3, then left", "Steps: up, x: y, z: a"):
        with refused(NothingFound):
            sources.read_recipe(ImageMetadata(chunks={"Description": words}, iptc={"2:120": words}))


# ---- notes and bounds -----------------------------------------------------------------------------------------------


def test_notes_are_not_cut_within_a_name() -> None:
    recipe = read(text_of(**{f"Key number {number}": 1 for number in range(30)}))
    (note,) = recipe.notes
    assert note.endswith("Key number 19 and 18 more.")
    assert list_names([]) == ""
    assert list_names(["b", "a", "b"]) == "b, a"
    assert shorten("word " * 200, 20) == "word word word word …"
    assert shorten("x" * 50, 20) == "x" * 20 + " …"


def test_a_prompt_that_is_none_is_said() -> None:
    recipe = read(text_of("a" * 200_000))
    assert "prompt" not in recipe.values
    assert "Prompt: 200,000 characters are too long for a prompt; left unchanged." in recipe.notes


@pytest.mark.parametrize(
    "text",
    [
        text_of("<lora:x:1>" * 90_000),
        text_of("<lora:" * 150_000),
        text_of("<" + " " * 900_000),
        text_of("a b c " * 160_000 + ":"),
        text_of("/a" * 400_000),
        text_of(**{f"k{number}": 1 for number in range(80_000)}),
        "Steps: 1, Sampler: x, Seed: 1\n" * 30_000 + "y",
        text_of(Lora_weights='"' + "a: 1, " * 160_000 + '"'),
        text_of(Lora_hashes='"' + "a: 12345678, " * 70_000 + '"'),
        text_of(More='"' + '\\"' * 400_000),
        " - " * 330_000 + ": x\nNegative prompt: x",
    ],
    ids=lambda text: text[:14],
)
def test_a_megabyte_is_read_within_seconds(text: str) -> None:
    """On an idle machine within one."""
    begin = time.process_time()
    with suppress(ValueError):
        read(text)
    assert time.process_time() - begin < 3
