"""A file of weights is named from its header: kind, family, prediction, contents, what is wrong."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.cli.inspect import inspect_file
from studio.errors import BadFile
from studio.settings import load
from studio.storage.models.header_rules import RULES
from studio.storage.models.library import Library, Unusable
from studio.storage.models.lora_file import read_lora_info
from studio.storage.models.model_file import ModelFile, identify_file
from support.examples import examples
from support.pickles import read_pickles_here
from support.sentences import refused
from support.weights import (
    CROSS,
    SD1,
    SD2,
    SDXL,
    UNET,
    VAE_FILE,
    WHOLE,
    Shapes,
    kohya_lora,
    write_gguf,
    write_weights,
)

Z_IMAGE: Shapes = {
    "layers.0.adaLN_modulation.0.weight": [15360, 256],
    "cap_embedder.1.weight": [3840, 2560],
}
FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": [128],
    "img_in.weight": [3072, 64],
    "guidance_in.in_layer.weight": [3072, 256],
}


def identify(tmp_path: Path, shapes: Shapes, **kwargs: Any) -> ModelFile:
    return identify_file(write_weights(tmp_path / "file.safetensors", shapes, **kwargs))


LOHA = {f"hada_w{k}_{side}": [4, 4] for k in (1, 2) for side in "ab"}


@pytest.mark.parametrize(
    ("shapes", "adapter", "family"),
    [
        (kohya_lora(CROSS), "LoRA", "sd1"),
        (kohya_lora(CROSS, width=2048), "LoRA", "sdxl"),
        ({"unet:0:up": [8, 4], "unet:0:down": [4, 8]}, "LoRA", ""),
        (kohya_lora(CROSS, **LOHA), "LoHa", ""),
        (kohya_lora(CROSS, lokr_w1=[4, 4], lokr_w2=[8, 8], alpha=[]), "LoKr", ""),
        (
            kohya_lora(
                CROSS, lora_down__weight=[4, 768], lora_up__weight=[320, 4], dora_scale=[1, 768]
            ),
            "DoRA",
            "sd1",
        ),
        (kohya_lora(CROSS, oft_blocks=[4, 8, 8]), "OFT", ""),
        (
            kohya_lora(CROSS, weight=[320], on_input=[1]) | kohya_lora("x", on_input=[1]),
            "(IA)³",
            "",
        ),
        (kohya_lora(CROSS, diff=[320, 768]), "full difference", ""),
        (
            {
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": [4, 3072],
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": [9216, 4],
            },
            "LoRA",
            "flux1",
        ),
        (
            {
                "lora_unet_single_blocks_0_linear1.lora_down.weight": [4, 3072],
                "lora_unet_single_blocks_0_linear1.lora_up.weight": [21504, 4],
            },
            "LoRA",
            "flux1",
        ),
        (  # klein 4B: as wide as FLUX.1, with a wider feed-forward
            {
                "lora_unet_single_blocks_0_linear1.lora_down.weight": [4, 3072],
                "lora_unet_single_blocks_0_linear1.lora_up.weight": [27648, 4],
            },
            "LoRA",
            "flux2",
        ),
        (
            {
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": [4, 4096],
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": [12288, 4],
            },
            "LoRA",
            "flux2",
        ),
        (
            {
                "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight": [
                    4,
                    8,
                ],
                "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_B.weight": [
                    8,
                    4,
                ],
            },
            "LoRA",
            "flux2",
        ),
        (
            {
                "diffusion_model.blocks.0.self_attn.q.lora_A.weight": [4, 8],
                "diffusion_model.blocks.0.self_attn.q.lora_B.weight": [8, 4],
            },
            "LoRA",
            "wan",
        ),
    ],
)
def test_relatives_of_lora(tmp_path: Path, shapes: Shapes, adapter: str, family: str) -> None:
    identified = identify(tmp_path, shapes)
    assert identified.kind == "lora"
    assert ("belongs in loras" in identified.sentence) is (family in ("", "sd1", "sdxl"))
    assert (identified.adapter, identified.family) == (adapter, family)


@pytest.mark.parametrize(
    ("shapes", "metadata", "prediction"),
    [
        (SDXL, {}, "epsilon"),
        (SDXL | {"v_pred": []}, {}, "v"),
        (SDXL | {f"{UNET}v_pred": []}, {"modelspec.prediction_type": "epsilon"}, "v"),
        (SDXL, {"modelspec.prediction_type": "v"}, "v"),
        (SDXL, {"modelspec.prediction_type": "velocity"}, "v"),
        (
            SDXL,
            {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "True"},
            "epsilon",
        ),
        (SDXL, {"ss_v_parameterization": "True"}, "v"),
        (SDXL, {"ss_v_parameterization": "False"}, "epsilon"),
        (Z_IMAGE, {}, "flow"),
    ],
)
def test_prediction(
    tmp_path: Path, shapes: Shapes, metadata: dict[str, str], prediction: str
) -> None:
    assert identify(tmp_path, shapes, metadata=metadata).prediction == prediction


def test_a_config_beside_the_file_says_its_prediction(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert identify(tmp_path, SD2).prediction == "v"


@pytest.mark.parametrize(("spread", "prediction"), [(0.01, "epsilon"), (0.2, "v")])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_sd2_tells_by_one_tensor(
    tmp_path: Path, dtype: str, spread: float, prediction: str
) -> None:
    name = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    path = write_weights(tmp_path / "file.safetensors", SD2 | {name: [320]}, dtype)
    values = [spread if k % 2 else -spread for k in range(320)]
    match dtype:
        case "F32":
            data = struct.pack("<320f", *values)
        case "F16":
            data = struct.pack("<320e", *values)
        case _:
            data = b"".join(struct.pack("<f", value)[2:] for value in values)
    with open(path, "r+b") as file:
        file.seek(-len(data), 2)
        file.write(data)
    assert identify_file(path).prediction == prediction


@pytest.mark.parametrize(
    ("shapes", "metadata", "is_zero_snr"),
    [
        (SDXL | {"v_pred": [], "ztsnr": []}, {}, True),
        (SDXL, {"ss_zero_terminal_snr": "True"}, True),
        (SDXL, {"ss_zero_terminal_snr": "False"}, False),
    ],
)
def test_zero_terminal_snr(
    tmp_path: Path, shapes: Shapes, metadata: dict[str, str], is_zero_snr: bool
) -> None:
    assert identify(tmp_path, shapes, metadata=metadata).is_zero_snr is is_zero_snr


def test_a_pipe_instead_of_a_config_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file.yaml")
    assert identify(tmp_path, SD2).prediction == "epsilon"


def test_inpainting(tmp_path: Path) -> None:
    shapes = SD1 | {f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}
    assert identify(tmp_path, shapes).is_inpainting


def test_contents_and_dtype(tmp_path: Path) -> None:
    identified = identify(tmp_path, SD1 | WHOLE, dtype="BF16")
    assert identified.contents == ("denoiser", "autoencoder", "text encoder")
    assert identified.dtype == "BF16"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"GGUF\3\0\0\0", "GGUF file that was cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"PK\3\4aaaa", "pickle"),
        (b"\x80\x02\x8a\nl", "pickle"),
        (b"\x80\x04\x95aaaa", "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf\n <html><p>Log in", "web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied', "XML"),
        (b'{"error": "no"}', "JSON"),
        (b"\x10\0\0\0\0\0\0\0{", "cut off"),
        (b"only words, and enough of them", "not a safetensors file"),
        (b"\2\0\0\0\0\0\0\0{}", "no tensors"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_is_no_safetensors_file(tmp_path: Path, data: bytes, words: str, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    identified = identify_file(path)
    assert identified.kind == "unknown"
    if suffix == ".ckpt" and words in ("cut off", "not a safetensors file", "no tensors"):
        words = "pickle" if words != "no tensors" else words
    assert words in identified.problem


@pytest.mark.parametrize("length", [640, 896, 0x7B20, 0x7B, 0x3C80, 0x4B50])
def test_the_length_of_a_header_is_no_signature(tmp_path: Path, length: int) -> None:
    """640 is written as a pickle begins, 0x7b20 as a JSON text."""
    header = {"decoder.conv_in.weight": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    data = json.dumps(header).encode().ljust(length)
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", length) + data + b"\0")
    assert identify_file(path).kind == "vae"


def test_a_safetensors_file_under_the_name_of_a_pickle(tmp_path: Path) -> None:
    identified = identify_file(write_weights(tmp_path / "file.ckpt", SDXL | WHOLE))
    assert identified.kind == "checkpoint"
    assert "rename it" in identified.problem


@pytest.mark.parametrize(
    ("shape", "offsets", "words"),
    [
        ([2], [0, 2], "wrong number of bytes"),
        ([2, 2**40], [0, 4], "wrong number of bytes"),
        ([2], [4, 0], "does not say how large"),
        ([-1], [0, 4], "does not say how large"),
        ([2], [0, 2**63], "cut off"),
        ([1], [0, 2], "more bytes than its header says"),
    ],
)
def test_a_lying_header(tmp_path: Path, shape: list[int], offsets: list[int], words: str) -> None:
    data = json.dumps({"emb_params": {"dtype": "F16", "shape": shape, "data_offsets": offsets}})
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data.encode() + bytes(4))
    assert words in identify_file(path).problem


TWO = {"dtype": "F16", "shape": [1]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            {"a": TWO | {"data_offsets": [0, 2]}, "b": TWO | {"data_offsets": [0, 2]}},
            "not contiguous",
        ),
        (
            {"a": TWO | {"data_offsets": [0, 2]}, "b": TWO | {"data_offsets": [1, 3]}},
            "not contiguous",
        ),
        ({"a": TWO | {"data_offsets": [2, 4]}}, "not contiguous"),
        ({"a": TWO | {"data_offsets": [0, 2], "dtype": ["F16"]}}, "which type of numbers"),
        ({"a": TWO | {"data_offsets": [2, 4]}, "b": TWO | {"data_offsets": [0, 2]}}, ""),
    ],
)
def test_tensors_lie_one_after_the_other(
    tmp_path: Path, header: dict[str, Any], words: str
) -> None:
    data = json.dumps(header).encode()
    num_bytes = max(entry["data_offsets"][1] for entry in header.values())
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(num_bytes))
    problem = identify_file(path).problem
    assert words in problem
    assert bool(problem) is bool(words)


def test_what_predicts_as_edm_is_said_to(tmp_path: Path) -> None:
    for marker, prediction in (("edm_vpred.sigma_max", "EDM v"), ("edm_mean", "EDM")):
        facts = inspect_file(write_weights(tmp_path / "edm.safetensors", SDXL | {marker: [1]}))
        assert facts["prediction"] == prediction
        assert "epsilon" not in facts["sentence"]


def test_a_piece_of_a_model_belongs_to_the_others(tmp_path: Path) -> None:
    piece = identify_file(write_weights(tmp_path / "u-00001-of-00002.safetensors", SDXL))
    assert piece.family == "sdxl"
    assert "one of several pieces" in piece.sentence
    assert "models/" not in piece.sentence


def test_a_single_file_of_a_family_without_is_said_to_be_none(tmp_path: Path) -> None:
    assert identify(tmp_path, SDXL | WHOLE).sentence.endswith("it belongs in models/.")
    flux = {"double_blocks.0.img_attn.norm.key_norm.scale": [128], "img_in.weight": [3072, 64]}
    z_image = {
        "layers.0.adaLN_modulation.0.weight": [8, 8],
        "cap_embedder.1.weight": [3840, 8],
    }
    assert "does not support models of that family" in identify(tmp_path, flux).sentence
    assert "only open as folders in diffusers layout" in identify(tmp_path, z_image).sentence


def test_a_text_under_the_name_of_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "it.gguf").write_text("only words, and enough of them")
    assert identify_file(tmp_path / "it.gguf").problem == "is not a GGUF file, despite its name"


def test_a_gguf_file_says_what_it_predicts_and_takes(tmp_path: Path) -> None:
    tensors = [
        ("input_blocks.0.0.weight", [320, 9, 3, 3], 1),
        ("input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", [640, 2048], 1),
        ("v_pred", [1], 1),
    ]
    found = identify_file(write_gguf(tmp_path / "inpaint.gguf", tensors, "sdxl"))
    assert (found.family, found.is_inpainting, found.prediction) == ("sdxl", True, "v")


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "file.safetensors", SD1 | WHOLE)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert "cut off" in identify_file(path).problem


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        identify_file(tmp_path / "nowhere.safetensors")


def test_one_sentence_says_where_it_belongs(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "moon.safetensors", kohya_lora(CROSS))
    assert identify_file(path).sentence == (
        "moon.safetensors is a LoRA for SD 1.x (float16); it belongs in loras/."
    )


NAMES = st.sampled_from(
    sorted(
        {name.replace("*", "x") for rule in RULES for name in rule.names}
        | {name for rule in RULES for name, _, _ in rule.sizes}
        | {*kohya_lora(CROSS), *SD1, *WHOLE, "v_pred", "__metadata__", ""}
    )
)
ODD = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "BF16", "U8", "X"]) | ODD,
        "shape": st.lists(st.integers(0, 5000), max_size=4) | ODD,
        "data_offsets": st.lists(st.integers(0, 9), min_size=2, max_size=2).map(sorted) | ODD,
    }
)


@settings(max_examples=examples(120), deadline=None)
@given(
    st.dictionaries(NAMES, ENTRIES | ODD, max_size=6), st.binary(max_size=9), st.integers(0, 200)
)
def test_lying_and_cut_headers_are_answered(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], tail: bytes, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.safetensors"
    data = json.dumps(header).encode()
    whole = struct.pack("<Q", len(data)) + data + tail
    for content in (whole, whole[:cut]):
        path.write_bytes(content)
        sentence = identify_file(path).sentence
        assert sentence.startswith("odd.safetensors ")
        assert sentence.endswith(".")
        assert sentence.isprintable()


# ---- where it is said ----


def test_a_file_among_the_models_is_listed_with_what_it_is(tmp_path: Path) -> None:
    home = load(home=tmp_path, device="cpu")
    write_weights(home.models / "big.safetensors", SDXL | WHOLE)
    listed = {model.name: model for model in Library(home).scan_models()}
    assert isinstance(listed["big.safetensors"], Unusable)
    assert "checkpoint of SDXL" in listed["big.safetensors"].problem


def test_another_file_at_its_place_is_looked_at_anew(tmp_path: Path) -> None:
    home = load(home=tmp_path, device="cpu")
    library = Library(home)
    problems = []
    for shapes in (SDXL | WHOLE, SD1):
        write_weights(home.models / "big.safetensors", shapes)
        (item,) = [item for item in library.scan_models() if isinstance(item, Unusable)]
        problems.append(item.problem)
    assert "SDXL" in problems[0]
    assert "SD 1.x" in problems[1]


def test_a_checkpoint_among_the_loras_is_called_one(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "big.safetensors", SDXL | WHOLE)
    with refused(BadFile):
        read_lora_info(path)


def test_inspect_says_it(tmp_path: Path) -> None:
    facts = inspect_file(write_weights(tmp_path / "big.safetensors", SDXL | WHOLE | {"v_pred": []}))
    assert (facts["kind"], facts["family"], facts["prediction"]) == ("checkpoint", "sdxl", "v")


def test_inspect_of_a_lora_says_rank_and_family(tmp_path: Path) -> None:
    facts = inspect_file(write_weights(tmp_path / "moon.safetensors", kohya_lora(CROSS)))
    assert (facts["kind"], facts["adapter"], facts["rank"]) == ("lora", "LoRA", 4)


@pytest.mark.parametrize(
    ("shapes", "folder"),
    [(kohya_lora(CROSS), "loras"), (SDXL | WHOLE, "models"), (VAE_FILE, "vae")],
)
def test_inspect_says_where_it_belongs(tmp_path: Path, shapes: Shapes, folder: str | None) -> None:
    assert inspect_file(write_weights(tmp_path / "FILE.SAFETENSORS", shapes))["folder"] == folder


def test_inspect_of_a_gguf_file_says_what_is_in_it(tmp_path: Path) -> None:
    tensors = [("double_blocks.0.img_attn.norm.key_norm.scale", [128], 0), ("x", [32, 32], 12)]
    facts = inspect_file(write_gguf(tmp_path / "flux.gguf", tensors, "flux"))
    assert (facts["kind"], facts["family"], facts["dtype"]) == ("denoiser", "flux1-schnell", "Q4_K")


@pytest.mark.parametrize("name", ["old.ckpt", "OLD.PT", "old.bin"])
def test_inspect_does_not_open_pickles(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4" + bytes(100))
    with refused(BadFile):
        inspect_file(tmp_path / name)


def test_inspect_names_a_pickle_where_those_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    path = tmp_path / "embeddings/style.pt"
    path.parent.mkdir()
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "style"}, path)
    facts = inspect_file(path)
    assert (facts["kind"], facts["folder"], facts["family"]) == ("embedding", "embeddings", "sd1")
    assert facts["sentence"].startswith("style.pt is ")
    assert list(path.parent.iterdir()) == [path]
    torch.save({"x": torch.zeros(2)}, path)
    with refused(BadFile):
        inspect_file(path)


def test_inspect_refuses_what_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "page.safetensors").write_text("<!doctype html><p>Log in first")
    with refused(BadFile):
        inspect_file(tmp_path / "page.safetensors")
