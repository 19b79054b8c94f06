"""A1111's settings text: written as A1111 writes it, read back without loss, others' texts as far as the studio can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import __version__
from studio.core.base import validate
from studio.core.catalog import SCHEDULERS
from studio.core.generation import infotext
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.core.generation.used_files import UsedFile, UsedFiles, shorten_name
from support.request_fields import IMAGE_TASK_VALUES, OTHER_VALUES
from support.sentences import refused

REQUEST = GenerationRequest(
    prompt="a red boat, by a lake", negative_prompt="fog, rain", width=128, height=192, seed=7
)

A1111 = """portrait of a woman, (detailed:1.2), city
at night
Negative prompt: blurry, [bad], text,
watermark
Steps: 28, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6.5, Seed: 2943857261, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, VAE: vae-ft-mse-840000.safetensors, Denoising strength: 0.4, Clip skip: 2, \
Lora hashes: "moon: 1c5d5a9d4f3e, add: 7c6bad76eb54", Hires upscale: 2, Batch size: 4, Batch pos: 1, Version: v1.10.1"""
OLD = """a cat
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: abc"""
FORGE = """a castle
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: SGM Uniform, CFG scale: 5, Distilled CFG Scale: 3.5, Seed: 11, \
Size: 1024x1024, Model hash: 31e35c80fc, Model: sd_xl_base_1.0, Version: f2.0.1v1.10.1-previous-659-gc055f2d4"""
SDNEXT = """a lighthouse
Negative prompt: people
Steps: 25, Size: 768x768, Sampler: UniPC, Seed: 99, CFG scale: 6, CFG rescale: 0.7, App: SD.Next, Version: 4f4ea77, \
Operations: txt2img, Parser: native, Model: juggernaut, Model hash: 7a4dbba12f, Pipeline: StableDiffusionPipeline"""

NASTY = st.lists(
    st.sampled_from(
        [
            "Steps: 20, Sampler: Euler, Seed: 1",
            "Negative prompt:",
            "Negative prompt: x",
            "\u2028",
            'Prompt: "no"',
            "\n",
            "\r\n",
            "\r",
            ",",
            '"',
            "\\\\",
            ":",
            " ",
            "\t",
            "a boat",
            "größe",
            "\x85",
            "\x1f",
            "\U0001f680",
            "Version: studio 9",
            "Model: other, Size: 8x8",
        ]
    )
    | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0()[]<.\\"), max_size=2
    ),
    max_size=8,
).map("".join)
PAIRS = st.sampled_from(
    [
        (scheduler, schedule)
        for scheduler, info in SCHEDULERS.items()
        for schedule in info.noise_schedules
    ]
)
MODELS = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
) | st.sampled_from(['"', '"a"', '"a', " a ", "a, Steps: 3", "a\nb", "a\\", "\\", "None", "v1:5"])

WEIGHTS = st.floats(-4, 4)
USES = st.builds(
    LoraUse,
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>:"),
        min_size=1,
        max_size=9,
    ).filter(lambda name: name == name.strip()),
    unet=WEIGHTS,
    text_encoder=WEIGHTS,
)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Any single picture's resolved request."""
    scheduler, schedule = draw(PAIRS)
    values: dict[str, Any] = {
        "prompt": draw(NASTY),
        "negative_prompt": draw(NASTY),
        "model": draw(MODELS),
        "scheduler": scheduler,
        "noise_schedule": schedule,
        "width": draw(st.integers(8, 256)) * 8,
        "height": draw(st.integers(8, 256)) * 8,
        "steps": draw(st.integers(1, 150)),
        "guidance": draw(st.floats(1, 30)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "batch_size": draw(st.integers(1, 16)),
        "clip_skip": draw(st.integers(1, 12)),
        "loras": draw(st.lists(USES, max_size=3, unique_by=lambda use: use.name)),
    }
    return validate(
        GenerationRequest,
        values | draw(st.one_of(st.just({}), on_a_picture(draw(st.sampled_from(TASKS))))),
    )


SHA = "0123456789abcdef" * 4
TASKS = ("txt2img", "img2img", "inpaint", "outpaint")
SIDE, SHARE, EIGHTS = (
    st.integers(0, 64),
    st.floats(0.3, 1),
    st.integers(1, 128).map(lambda k: 8 * k),
)


@st.composite
def on_a_picture(draw: st.DrawFn, task: str) -> dict[str, Any]:
    """Settings of work on a picture, all that count and none that does not."""
    given: dict[str, Any] = {"steps": draw(st.integers(10, 150))}
    if task in ("txt2img", "img2img"):
        tile = draw(st.sampled_from([0, 64, 512]))
        given |= {
            "width": 256,
            "height": 512,
            "hires_scale": draw(st.floats(1.1, 4)),
            "hires_steps": draw(st.integers(10, 150)),
            "hires_strength": draw(SHARE),
            "hires_tile": tile,
            "hires_resize": "pixel" if tile else draw(st.sampled_from(["pixel", "latent"])),
        }
        given |= {"hires_overlap": draw(st.integers(0, 4)) * 8} if tile else {}
    if task != "txt2img":
        given |= {"image": SHA, "strength": draw(SHARE)}
    if task == "img2img":
        given["resize_mode"] = draw(st.sampled_from(["stretch", "crop", "fill"]))
    if task in ("inpaint", "outpaint"):
        given["inpaint_area"] = draw(st.sampled_from(["whole picture", "only masked"]))
        given |= {"mask_padding": draw(SIDE)} if given["inpaint_area"] == "only masked" else {}
    if task == "inpaint":
        contents = st.sampled_from(["original", "fill", "latent noise", "latent nothing"])
        given |= {
            "mask": SHA[::-1],
            "mask_blur": draw(SIDE),
            "mask_grow": draw(st.integers(-64, 64)),
            "invert_mask": draw(st.booleans()),
            "masked_content": draw(contents),
        }
    if task == "outpaint":
        fill = draw(st.sampled_from(["edge", "mirror", "noise", "colour"]))
        given |= {
            "extend_left": draw(EIGHTS),
            "extend_bottom": draw(EIGHTS),
            "extend_fill": fill,
            "seam_blur": draw(SIDE),
        }
        given |= {"extend_colour": "#00ff7f"} if fill == "colour" else {}
    return given


@pytest.mark.parametrize(
    "name", sorted({*OTHER_VALUES, *IMAGE_TASK_VALUES} - {"num_images", "styles"})
)
def test_every_field_comes_back(name: str) -> None:
    needed, value = IMAGE_TASK_VALUES.get(name) or ({}, OTHER_VALUES[name])
    request = validate(GenerationRequest, {"num_images": 3, **needed, name: value})
    image = request.resolve(64, 7, (64, 64)).split()[0]
    parsed = infotext.parse_infotext(infotext.format_infotext(image))
    assert getattr(validate(GenerationRequest, parsed.values), name) == getattr(image, name)


def values(text: str) -> dict[str, Any]:
    return infotext.parse_infotext(text).values


def test_written_as_a1111_writes_it() -> None:
    model = UsedFile(kind="model", name="pocket", sha256="6ce0161689b3853a" * 4)
    assert infotext.format_infotext(REQUEST, UsedFiles(files=(model,))) == (
        "a red boat, by a lake\nNegative prompt: fog, rain\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 7, "
        f"Seed: 7, Size: 128x192, Model hash: 6ce0161689, Model: pocket, RNG: CPU, "
        f'Hashes: {{"model": "6ce0161689"}}, Version: studio {__version__}'
    )
    more = {
        "negative_prompt": "",
        "model": "v1.5: mine",
        "guidance": 6.5,
        "clip_skip": 2,
        "batch_size": 4,
        "noise_schedule": "Automatic",
    }
    assert infotext.format_infotext(REQUEST.model_copy(update=more)) == (
        "a red boat, by a lake\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 6.5, Seed: 7, Size: 128x192, "
        f'Model: "v1.5: mine", Clip skip: 2, Batch size: 4, RNG: CPU, Version: studio {__version__}'
    )


def test_automatic_in_texts_of_before_is_the_models_own() -> None:
    """It was written for As shipped; texts of today say where the noise is from."""
    text = infotext.format_infotext(REQUEST.model_copy(update={"noise_schedule": "Automatic"}))
    assert values(text)["noise_schedule"] == "Automatic"
    assert values(text.replace(", RNG: CPU", ""))["noise_schedule"] == "Model default"


def test_names_of_before_and_of_others_are_schedules_of_today() -> None:
    text = infotext.format_infotext(REQUEST)
    for written, meant in (
        ("As shipped", "Model default"),
        ("Normal", "Uniform"),
        ("Polyexponential", "Exponential"),
        ("KL Optimal", "KL Optimal"),
    ):
        assert (
            values(text.replace("type: Automatic", f"type: {written}"))["noise_schedule"] == meant
        )


def test_work_on_a_picture_as_a1111_writes_it() -> None:
    def told(**more: Any) -> str:
        made = validate(GenerationRequest, {"width": 128, "height": 128, "seed": 7} | more)
        return (
            infotext.format_infotext(made)
            .split("Model: pocket")[1]
            .removesuffix(f", Version: studio {__version__}")
            .replace(", RNG: CPU", "")
        )

    assert told() == told(strength=0.3, mask_blur=9) == ""  # nothing that changes nothing
    # 8 of 20 steps: A1111 runs one more than the share
    assert told(image=SHA, strength=0.4) == (
        f", Init image: {SHA}, Denoising strength: 0.35, Studio: strength=0.4"
    )
    assert told(image=SHA, strength=0.4, scheduler="DDIM").endswith(", Denoising strength: 0.4")
    assert told(
        image=SHA,
        mask=SHA,
        inpaint_area="only masked",
        invert_mask=True,
        masked_content="latent noise",
    ) == (
        f", Init image: {SHA}, Mask: {SHA}, Denoising strength: 0.7, Mask blur: 4, Mask mode: Inpaint not masked, Masked content: "
        "latent noise, Inpaint area: Only masked, Masked area padding: 32, Studio: strength=0.75"
    )
    assert told(image=SHA, extend_right=64) == (
        f", Init image: {SHA}, Denoising strength: 0.7, Extend right: 64, Studio: strength=0.75"
    )
    # 7 of 10 steps run, and A1111 runs all that it is told
    assert told(hires_scale=2, hires_resize="latent", hires_steps=10) == (
        ", Hires upscale: 2, Hires upscaler: Latent, Hires steps: 7, Denoising strength: 0.7, "
        "Studio: hires_steps=10"
    )


def test_work_on_a_picture_as_others_write_it() -> None:
    found = infotext.parse_infotext(
        OLD.replace(
            ", Model hash: abc",
            ", Denoising strength: 0.4, Mask blur: 8, Inpaint area: Only masked, "
            "Masked area padding: 48, Masked content: fill, Mask mode: Inpaint not masked",
        )
    )
    assert {
        "strength": 0.45,  # 9 steps: one more than the share of 20
        "mask_blur": 8,
        "inpaint_area": "only masked",
        "mask_padding": 48,
        "masked_content": "fill",
        "invert_mask": True,
    }.items() <= found.values.items()
    assert found.notes == ["It was made from another image, which is not in the text."]
    found = infotext.parse_infotext(
        OLD.replace(
            ", Model hash: abc",
            ", Denoising strength: 0.6, Hires resize: 1024x1024, Hires steps: 15, Hires upscaler: R-ESRGAN 4x+",
        )
    )
    assert {
        "hires_scale": 2.0,
        "hires_strength": 0.6,
        "hires_steps": 25,
        "hires_resize": "pixel",
        "hires_upscaler": "RealESRGAN_x4plus",
    }.items() <= found.values.items()
    assert found.notes == []
    assert infotext.parse_infotext(
        OLD.replace("abc", "abc, Hires upscaler: Latent (nearest), Mask blur: soft")
    ).notes == [
        "Hires upscaler 'Latent (nearest)' is not available here; latent is used.",
        "Mask blur: 'soft' is not a number; left unchanged.",
    ]


@given(requests(), st.booleans())
def test_nothing_is_lost(request: GenerationRequest, has_hashes: bool) -> None:
    """But folders of names, which A1111 does not know."""
    files = [UsedFile(kind="lora", name=use.name, tensors_sha256=SHA) for use in request.loras]
    model = UsedFile(kind="model", name=request.model, sha256=SHA)
    used_files = UsedFiles(files=(model, *files)) if has_hashes else UsedFiles()
    found = infotext.parse_infotext(infotext.format_infotext(request, used_files))
    uses = tuple(infotext._shorten_loras(request))
    expected = {"model": shorten_name(request.model), "loras": uses}
    assert validate(GenerationRequest, found.values) == request.model_copy(update=expected)
    assert found.notes == []


@given(requests())
def test_words_cannot_forge_settings_elsewhere(request: GenerationRequest) -> None:
    """What A1111 reads is the last line, and that begins with ours."""
    last = infotext.format_infotext(request).split("\n")[-1]
    assert last.startswith((f"Steps: {request.steps}, ", 'Prompt: "'))
    assert last.endswith(f"Version: studio {__version__}")


def test_reads_a1111() -> None:
    found = infotext.parse_infotext(A1111)
    assert found.values == {
        "prompt": "portrait of a woman, (detailed:1.2), city\nat night",
        "negative_prompt": "blurry, [bad], text,\nwatermark",
        "steps": 28,
        "guidance": 6.5,
        "seed": 2943857261,
        "width": 512,
        "height": 768,
        "scheduler": "Euler a",
        "noise_schedule": "Automatic",
        "clip_skip": 2,
        "model": "v1-5-pruned-emaonly",
        "loras": [],
        "hires_scale": 2.0,
        "hires_strength": 0.4,
        "hires_steps": 70,  # all 28 run there
        "vae": "vae-ft-mse-840000",
    }
    assert not found.notes
    validate(GenerationRequest, found.values)


@pytest.mark.parametrize("words", ["None", "Automatic"])
def test_a_word_for_the_models_own_vae_is_no_name(words: str) -> None:
    assert values(A1111.replace("vae-ft-mse-840000.safetensors", words))["vae"] == ""


def test_tags_of_loras_are_read_and_written_as_a1111_does() -> None:
    text = A1111.replace(
        "(detailed:1.2), city", "(detailed:1.2), <lora:moon:0.8> <lora:style/add:0.5:1>, city"
    )
    found = values(text)
    assert found["prompt"] == "portrait of a woman, (detailed:1.2),  , city\nat night"
    assert found["loras"] == [
        {"name": "moon", "unet": 0.8, "text_encoder": 0.8},
        {"name": "style/add", "unet": 1.0, "text_encoder": 0.5},
    ]
    request = REQUEST.model_copy(
        update={
            "loras": (LoraUse(name="moon", unet=0.8, text_encoder=0.8), LoraUse(name="b", unet=0.5))
        }
    )
    assert (
        infotext.format_infotext(request).split("\n")[0]
        == "a red boat, by a lake <lora:moon:0.8> <lora:b:1:0.5>"
    )
    assert (
        infotext.format_infotext(request.model_copy(update={"prompt": ""})).split("\n")[0]
        == "<lora:moon:0.8> <lora:b:1:0.5>"
    )
    broken = infotext.parse_infotext(A1111.replace("city", "<lora:moon:x>"))
    assert broken.values["prompt"].startswith("portrait of a woman")
    assert broken.values["loras"] == [{"name": "moon", "unet": 1.0, "text_encoder": 1.0}]
    assert broken.notes == ["LoRA 'moon': x has no meaning here; the image will look different."]


def test_reads_forge_and_sdnext() -> None:
    forge, sdnext = infotext.parse_infotext(FORGE), infotext.parse_infotext(SDNEXT)
    assert (forge.values["scheduler"], forge.values["noise_schedule"]) == (
        "DPM++ 2M SDE",
        "SGM Uniform",
    )
    assert (forge.values["prompt"], forge.values["negative_prompt"]) == ("a castle", "")
    assert forge.notes == ["Not loaded: Distilled CFG Scale."]
    assert (sdnext.values["scheduler"], sdnext.values["width"], sdnext.values["seed"]) == (
        "UniPC",
        768,
        99,
    )
    assert sdnext.values["prompt"] == "a lighthouse"
    assert sdnext.values["negative_prompt"] == "people"
    assert sdnext.values["guidance_rescale"] == 0.7
    assert sdnext.notes == []


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("DPM++ 2M Karras", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Exponential", ("DPM++ 2M SDE", "Exponential")),
        ("DPM2 a Karras", ("DPM2 a", "Karras")),
        ("DPM++ 2M", ("DPM++ 2M", "Uniform")),  # Karras was said in the name
        ("euler A", ("Euler a", "Automatic")),
        ("DPM++ 2M SDE", ("DPM++ 2M SDE", "Uniform")),
        ("Euler", ("Euler", "Automatic")),
        ("UniPC", ("UniPC", "Automatic")),
        ("LCM", ("LCM", "Automatic")),
    ],
)
def test_samplers_before_schedules_had_a_name(sampler: str, expected: tuple[str, str]) -> None:
    found = infotext.parse_infotext(OLD.replace("DPM++ 2M Karras", sampler))
    assert (found.values["scheduler"], found.values["noise_schedule"]) == expected
    assert found.notes == []


def test_what_is_not_here_is_noted() -> None:
    found = infotext.parse_infotext(OLD.replace("DPM++ 2M Karras", "DPM adaptive"))
    assert "scheduler" not in found.values
    assert found.notes == [
        "Sampler 'DPM adaptive' is not available here: it chooses its own number of steps, which diffusers cannot do; the sampler is left unchanged."
    ]
    found = infotext.parse_infotext(
        OLD.replace("DPM++ 2M Karras", "Euler a, Schedule type: Karras").replace(
            "Steps: 20", "Steps: many"
        )
    )
    assert found.values["noise_schedule"] == "Automatic"
    assert "steps" not in found.values
    assert found.notes == [
        "Steps: 'many' is not a number; left unchanged.",
        "Schedule type 'Karras' does not work with Euler a here; Automatic is used.",
    ]


def test_lines_as_windows_ends_them_and_words_within_a_line() -> None:
    assert values(A1111.replace("\n", "\r\n")) == values(A1111)
    assert (
        values(OLD.replace("a cat", "a sign, Negative prompt: yes"))["prompt"]
        == "a sign, Negative prompt: yes"
    )
    assert values("Negative prompt: fog\n" + OLD.split("\n")[1])["negative_prompt"] == "fog"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a boat",
        "Steps: 20",
        "a: b, c: d, e: f",
        "a boat\nSteps: 20, Seed: 5",
        "a" * 1_000_000,
        "Steps:" + " " * 999_000,
        " " * 999_000 + "x",
        'ab: "' * 190_000,
        "x" * 1_000_001,
    ],
    ids=lambda text: f"{text[:6]}… {len(text)}",
)
def test_nonsense_is_refused(text: str) -> None:
    """The long ones would run for hours if the pattern went back and forth."""
    with refused(ValueError):
        infotext.parse_infotext(text)


PARTS = st.sampled_from(
    ["Steps: ", "Size: 9x9", "Seed: 1e9", ", ", '"', "\\", "Sampler: ", "Karras", "\n"]
)


@given(st.text() | NASTY | st.lists(PARTS).map("".join))
def test_never_anything_but_a_value_error(text: str) -> None:
    try:
        found = infotext.parse_infotext(text)
    except ValueError:
        return
    assert isinstance(found.values.get("prompt", ""), str)
    assert all(isinstance(note, str) for note in found.notes)


def test_the_hashes_of_embeddings() -> None:
    """A1111's key and number of digits; names with commas and colons come back."""
    hashes = {"EasyNegative": "c74b4e810b030f6b" * 4, "a, b: c": "12345678" * 8}
    files = [UsedFile(kind="embedding", name=name, sha256=sha) for name, sha in hashes.items()]
    text = infotext.format_infotext(REQUEST, UsedFiles(files=tuple(files)))
    assert 'TI hashes: "EasyNegative: c74b4e810b03, a, b: c: 123456781234", Hashes' in text
    parsed = infotext.parse_infotext(text)
    assert parsed.embedding_hashes == {"EasyNegative": "c74b4e810b03", "a, b: c": "123456781234"}
    assert not parsed.notes
    assert "TI hashes" not in infotext.format_infotext(REQUEST)


def test_the_hashes_of_an_image_from_a1111() -> None:
    text = 'a boat\nSteps: 20, Sampler: Euler, Seed: 1, TI hashes: "bad-hands-5: AA7651BE154C", Version: v1.10.1'
    parsed = infotext.parse_infotext(text)
    assert parsed.embedding_hashes == {"bad-hands-5": "aa7651be154c"}
    assert not [note for note in parsed.notes if "TI hashes" in note]


def test_an_upscaler_whose_name_begins_as_a1111s_formula_is_a_file() -> None:
    request = GenerationRequest(
        prompt="a boat", width=64, height=64, seed=3, hires_scale=2, hires_upscaler="LatentPlus"
    )
    parsed = infotext.parse_infotext(infotext.format_infotext(request))
    assert parsed.values["hires_upscaler"] == "LatentPlus"
    assert not parsed.notes
