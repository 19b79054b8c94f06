"""What is written of an image: hashes as others compute them, the XMP packet, what files carry."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import __version__
from studio.core.base import validate
from studio.core.generation.carried import CarryOptions, Making, build_texts
from studio.core.generation.infotext import format_infotext, parse_infotext
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.recipes.xmp import build_packet, find_studio_json
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import NO_FILES, UsedFile, UsedFiles
from support.request_fields import IMAGE_TASK_VALUES, OTHER_VALUES

pytestmark = pytest.mark.smoke
# Civitai's and A1111's own patterns: civitai/sd_civitai_extension and its readers look for these.
CIVITAI_HASHES = re.compile(r", Hashes:\s*({[^}]+})")
LORA_HASHES = re.compile(r', Lora hashes:\s*"([^"]+)"')
SHA = {name: digit * 64 for name, digit in zip(("model", "vae", "ink", "moon", "bad"), "12345")}
FILES = UsedFiles(
    files=(
        UsedFile(kind="model", name="a1111/foo", file_name="foo.ckpt", sha256=SHA["model"]),
        UsedFile(kind="vae", name="b/mse", file_name="mse.safetensors", sha256=SHA["vae"]),
        UsedFile(
            kind="lora",
            name="a1111/ink",
            file_name="ink.safetensors",
            sha256="f" * 64,
            tensors_sha256=SHA["ink"],
        ),
        UsedFile(kind="lora", name='mo"o{n}, x', tensors_sha256=SHA["moon"]),
        UsedFile(kind="embedding", name="bad", sha256=SHA["bad"]),
    ),
    overrides=(("prediction_type", "v_prediction"), ("zero_snr", "True")),
)
REQUEST = ResolvedRequest(
    prompt="a boat, bad",
    model="a1111/foo",
    vae="b/mse",
    width=64,
    height=64,
    seed=7,
    loras=(LoraUse(name="a1111/ink", unet=0.5), LoraUse(name='mo"o{n}, x')),
)


def test_hashes_as_a1111_and_civitai_read_them() -> None:
    text = format_infotext(REQUEST, FILES)
    assert text.split("\n")[1] == (
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 7, Seed: 7, Size: 64x64, "
        f"Model hash: {'1' * 10}, Model: foo, RNG: CPU, VAE hash: {'2' * 10}, VAE: mse.safetensors, "
        f'Lora hashes: "ink: {"3" * 12}, moon x: {"4" * 12}", TI hashes: "bad: {"5" * 12}", '
        "Prediction type: v_prediction, Noise Schedule: Zero Terminal SNR, "
        f'Hashes: {{"model": "{"1" * 10}", "vae": "{"2" * 10}", "lora:ink": "{"3" * 12}", '
        f'"lora:moon x": "{"4" * 12}", "embed:bad": "{"5" * 12}"}}, Version: studio {__version__}'
    )
    found = CIVITAI_HASHES.search(text)
    assert found
    assert json.loads(found[1])["lora:ink"] == "3" * 12
    loras = LORA_HASHES.search(text)
    assert loras
    assert loras[1] == f"ink: {'3' * 12}, moon x: {'4' * 12}"


def test_folders_of_names_are_not_written() -> None:
    """But where two LoRAs would share a name."""
    text = format_infotext(REQUEST, FILES)
    assert text.startswith('a boat, bad <lora:ink:1:0.5> <lora:mo"o{n}, x:1>\n')
    values = parse_infotext(text).values
    assert (values["model"], values["vae"], values["loras"][0]["name"]) == ("foo", "mse", "ink")
    twins = tuple(LoraUse(name=name) for name in ("a/ink", "b/ink", "b/moon"))
    text = format_infotext(REQUEST.model_copy(update={"loras": twins}), FILES)
    assert "<lora:a/ink:1> <lora:b/ink:1> <lora:moon:1>" in text


def test_nothing_is_said_that_is_not_known() -> None:
    text = format_infotext(REQUEST)
    assert "hash" not in text.casefold()
    assert "VAE: mse, Version" in text


def test_zero_snr_that_was_taken_back() -> None:
    files = UsedFiles(overrides=(("zero_snr", "False"),))
    assert "Noise Schedule: Default, Version" in format_infotext(REQUEST, files)


# Styles are words of the prompts by then.
@pytest.mark.parametrize(
    "name", sorted({*OTHER_VALUES, *IMAGE_TASK_VALUES} - {"num_images", "styles"})
)
def test_every_field_comes_back_from_a1111s_text_with_hashes(name: str) -> None:
    needed, value = IMAGE_TASK_VALUES.get(name) or ({}, OTHER_VALUES[name])
    request = validate(GenerationRequest, {**needed, name: value})
    image = request.resolve(64, 7, (64, 64)).split()[0]
    parsed = parse_infotext(
        format_infotext(image, FILES.model_copy(update={"files": FILES.files[2:]}))
    )
    assert getattr(validate(GenerationRequest, parsed.values), name) == getattr(image, name)
    assert not parsed.notes


# ---- the XMP packet -------------------------------------------------------------------------------------------------

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


@given(st.text(), st.sampled_from(["", "trainedAlgorithmicMedia"]))
def test_json_comes_back_from_a_packet(words: str, source_type: Any) -> None:
    text = json.dumps({"request": {"prompt": words}}, ensure_ascii=False)
    packet = build_packet(text, source_type)
    assert json.loads(find_studio_json(packet)) == json.loads(text)
    assert json.loads(find_studio_json(packet.encode().decode())) == json.loads(text)


def test_long_json_is_compressed() -> None:
    text = json.dumps({"prompt": "größe " * 50_000}, ensure_ascii=False)
    packet = build_packet(text, "")
    assert len(packet.encode()) < 10_000
    assert find_studio_json(packet) == text
    bomb = build_packet(json.dumps("a" * 2_000_000), "")
    assert find_studio_json(bomb) == ""


def test_a_packet_that_another_program_wrote_anew() -> None:
    """Under another prefix, as an attribute, without the frame."""
    tree = ElementTree.fromstring(
        build_packet('{"a": "<&>\\""}', "").split("?>", 1)[1].rsplit("<?", 1)[0]
    )
    again = ElementTree.tostring(tree, encoding="unicode")
    assert "studio:" not in again.replace("x-studio:", "")
    assert find_studio_json(again) == '{"a": "<&>\\""}'
    attribute = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:s="urn:x-studio:picture:1/" s:Metadata="{&quot;a&quot;: 1}"/></rdf:RDF></x:xmpmeta>'
    )
    assert find_studio_json(attribute) == '{"a": 1}'


@pytest.mark.parametrize(
    "packet",
    [
        "",
        "urn:x-studio:picture:1/",
        "<x:xmpmeta urn:x-studio:picture:1/",
        '<!DOCTYPE a [<!ENTITY b "c">]><x:xmpmeta xmlns:s="urn:x-studio:picture:1/"><!ENTITY '
        "></x:xmpmeta>",
        '<x:xmpmeta xmlns:x="a" xmlns:s="urn:x-studio:picture:1/">' + "<s:b>" * 90_000,
        '<x:xmpmeta xmlns:x="a" xmlns:s="urn:x-studio:picture:1/"><s:MetadataDeflated>!!'
        "</s:MetadataDeflated></x:xmpmeta>",
        "urn:x-studio:picture:1/" * 400_000,
    ],
    ids=range(7),
)
def test_a_hostile_packet_says_nothing(packet: str) -> None:
    assert find_studio_json(packet) == ""


def test_iptcs_source_type() -> None:
    packet = build_packet("", "compositeWithTrainedAlgorithmicMedia")
    document = packet[packet.index("<x:xmpmeta") : packet.rindex("<?xpacket")]
    (element,) = ElementTree.fromstring(document).iter(f"{IPTC}DigitalSourceType")
    assert element.text == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )
    assert build_packet("", "") == ""


# ---- what files carry -----------------------------------------------------------------------------------------------

METADATA = {"request": {}, "digest": "1"}


@pytest.mark.parametrize(
    ("carry", "has_text", "has_json"),
    [("everything", True, True), ("text", True, False), ("nothing", False, False)],
)
def test_what_is_chosen_is_carried(carry: Any, has_text: bool, has_json: bool) -> None:
    making = Making(REQUEST, FILES, metadata=METADATA)
    for ai_mark in (True, False):
        texts = build_texts(making, CarryOptions(carry=carry, ai_mark=ai_mark))
        assert texts.parameters == (format_infotext(REQUEST, FILES) if has_text else "")
        assert texts.studio_json == (json.dumps(METADATA) if has_json else "")
        assert texts.source_type == ("trainedAlgorithmicMedia" if ai_mark else "")
        assert texts.comfyui_prompt == ""


def test_whose_pixels_they_are() -> None:
    drawn = REQUEST.model_copy(update={"image": "a" * 64})
    options = CarryOptions()
    assert build_texts(Making(drawn, NO_FILES), options).source_type == (
        "compositeWithTrainedAlgorithmicMedia"
    )
    photo = UpscaleRecord(image="a" * 64, upscaler="Lanczos", scale=2, has_settings=False)
    assert build_texts(Making(drawn, NO_FILES, photo), options).source_type == ""
