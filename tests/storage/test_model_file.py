"""A file of weights is named from its header: kind, family, prediction, contents, what is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.cli.inspect import inspect_file
from studio.errors import BadFile
from studio.settings import load
from studio.storage.models.header_rules import FAMILY_TITLES, KIND_TITLES, RULES
from studio.storage.models.library import Library, Unusable
from studio.storage.models.lora_file import read_lora_info
from studio.storage.models.model_file import ModelFile, identify_file
from support.examples import examples
from support.sentences import refused

Shapes = dict[str, list[int]]
UNET = "model.diffusion_model."
CONTEXT_1 = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CONTEXT_4 = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
VAE = "first_stage_model.decoder.conv_in.weight"
SD1: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_1: [320, 768]}
SD2: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_1: [320, 1024]}
SDXL: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_4: [640, 2048]}
WHOLE: Shapes = {VAE: [512, 4, 3, 3], CLIP: [49408, 768]}
Z_IMAGE: Shapes = {
    "layers.0.adaLN_modulation.0.weight": [15360, 256],
    "cap_embedder.1.weight": [3840, 2560],
}
FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": [128],
    "img_in.weight": [3072, 64],
    "guidance_in.in_layer.weight": [3072, 256],
}


def write(
    path: Path, shapes: Shapes, dtype: str = "F16", metadata: dict[str, str] | None = None
) -> Path:
    """Write a file of such tensors, all zeros; on most disks it takes no room."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        begin, size = end, {"F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
        for side in shape:
            size *= side
        end = begin + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    data = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + end)
    return path


def identify(tmp_path: Path, shapes: Shapes, **kwargs: Any) -> ModelFile:
    return identify_file(write(tmp_path / "file.safetensors", shapes, **kwargs))


def kohya(layer: str, rank: int = 4, width: int = 768, **endings: list[int]) -> Shapes:
    pair = endings or {"lora_down.weight": [rank, width], "lora_up.weight": [320, rank]}
    return {
        f"lora_unet_{layer}.{ending.replace('__', '.')}": shape for ending, shape in pair.items()
    }


CROSS = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LOHA = {f"hada_w{k}_{side}": [4, 4] for k in (1, 2) for side in "ab"}


@pytest.mark.parametrize(
    ("shapes", "kind", "family"),
    [
        (SD1 | WHOLE, "checkpoint", "sd1"),
        (SD2 | WHOLE, "checkpoint", "sd2"),
        (SDXL | WHOLE, "checkpoint", "sdxl"),
        (SD1, "denoiser", "sd1"),
        ({name.removeprefix(UNET): shape for name, shape in SDXL.items()}, "denoiser", "sdxl"),
        (
            {
                "down_blocks.0.resnets.0.conv1.weight": [320, 320, 3, 3],
                "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": [640, 2048],
                "conv_in.weight": [320, 4, 3, 3],
            },
            "denoiser",
            "sdxl",
        ),
        (Z_IMAGE, "denoiser", "z-image"),
        (FLUX, "denoiser", "flux1-dev"),
        ({**FLUX, "img_in.weight": [3072, 384]}, "denoiser", "flux1-fill"),
        ({**FLUX, "distilled_guidance_layer.in_proj.weight": [8, 8]}, "denoiser", "chroma"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": [8, 8]}, "denoiser", "sd3"),
        ({"decoder.conv_in.weight": [512, 4, 3, 3]}, "vae", ""),
        ({VAE: [512, 4, 3, 3]}, "vae", ""),
        (
            {"text_model.embeddings.token_embedding.weight": [49408, 768]},
            "text encoder",
            "",
        ),
        (
            {
                "model.layers.0.self_attn.q_proj.weight": [8, 8],
                "model.embed_tokens.weight": [151936, 2560],
            },
            "text encoder",
            "",
        ),
        ({"emb_params": [8, 768]}, "embedding", "sd1"),
        ({"<moon>": [1024]}, "embedding", "sd2"),
        ({"clip_l": [2, 768], "clip_g": [2, 1280]}, "embedding", "sdxl"),
        ({"control_model.input_hint_block.0.weight": [16, 3, 3, 3]}, "controlnet", ""),
        (
            {
                "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
                "add_embedding.linear_1.weight": [8, 8],
            },
            "controlnet",
            "sdxl",
        ),
        (
            {"image_proj.proj.weight": [8, 8], "ip_adapter.1.to_k_ip.weight": [8, 8]},
            "ip-adapter",
            "",
        ),
        ({"body.0.weight": [64, 3, 3, 3], "body.1.weight": [64]}, "upscaler", ""),
        ({"conv_first.weight": [64, 3, 3, 3], "conv_last.weight": [3, 64, 3, 3]}, "upscaler", ""),
    ],
)
def test_kind_and_family(tmp_path: Path, shapes: Shapes, kind: str, family: str) -> None:
    identified = identify(tmp_path, shapes)
    assert (identified.kind, identified.family, identified.problem) == (kind, family, "")


@pytest.mark.parametrize(
    ("shapes", "adapter", "family"),
    [
        (kohya(CROSS), "LoRA", "sd1"),
        (kohya(CROSS, width=2048), "LoRA", "sdxl"),
        ({"unet:0:up": [8, 4], "unet:0:down": [4, 8]}, "LoRA", ""),
        (kohya(CROSS, **LOHA), "LoHa", ""),
        (kohya(CROSS, lokr_w1=[4, 4], lokr_w2=[8, 8], alpha=[]), "LoKr", ""),
        (
            kohya(CROSS, lora_down__weight=[4, 768], lora_up__weight=[320, 4], dora_scale=[1, 768]),
            "DoRA",
            "sd1",
        ),
        (kohya(CROSS, oft_blocks=[4, 8, 8]), "OFT", ""),
        (kohya(CROSS, weight=[320], on_input=[1]) | kohya("x", on_input=[1]), "(IA)³", ""),
        (kohya(CROSS, diff=[320, 768]), "full difference", ""),
        (
            {
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": [4, 8],
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": [8, 4],
            },
            "LoRA",
            "flux1",
        ),
    ],
)
def test_relatives_of_lora(tmp_path: Path, shapes: Shapes, adapter: str, family: str) -> None:
    identified = identify(tmp_path, shapes)
    assert identified.kind == "lora"
    assert (identified.adapter, identified.family) == (adapter, family)


@pytest.mark.parametrize(
    ("shapes", "metadata", "prediction"),
    [
        (SDXL, {}, "epsilon"),
        (SDXL | {"v_pred": []}, {}, "v"),
        (SDXL, {"modelspec.prediction_type": "v"}, "v"),
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
    path = write(tmp_path / "file.safetensors", SD2 | {name: [320]}, dtype)
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


def test_zero_terminal_snr(tmp_path: Path) -> None:
    assert identify(tmp_path, SDXL | {"v_pred": [], "ztsnr": []}).is_zero_snr


def test_inpainting(tmp_path: Path) -> None:
    shapes = SD1 | {f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}
    assert identify(tmp_path, shapes).is_inpainting


def test_contents_and_dtype(tmp_path: Path) -> None:
    identified = identify(tmp_path, SD1 | WHOLE, dtype="BF16")
    assert identified.contents == ("denoiser", "autoencoder", "text encoder")
    assert identified.dtype == "BF16"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (SD1 | {f"{UNET}x.scale_weight": [1], f"{UNET}scaled_fp8": [0]}, "8-bit"),
        (SD1 | {f"{UNET}x.comfy_quant": [4]}, "quantised"),
        (SDXL | {"edm_mean": [1]}, "Playground"),
        (SD1 | {f"{UNET}input_blocks.0.0.weight": [320, 8, 3, 3]}, "InstructPix2Pix"),
        (
            SDXL | {CONTEXT_4: [640, 1280], f"{UNET}label_emb.0.0.weight": [1536, 2560]},
            "refines",
        ),
        ({"model_ema.diffusion_model.x": [4], "model_ema.decay": [1]}, "EMA"),
        ({"lllite_unet_x.weight": [4]}, "LLLite"),
    ],
)
def test_why_it_cannot_be_used(tmp_path: Path, shapes: Shapes, words: str) -> None:
    identified = identify(tmp_path, shapes)
    assert words in identified.problem
    assert identified.folder == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"PK\3\4aaaa", "pickle"),
        (b"\x80\x04\x95aaaa", "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": "no"}', "JSON"),
        (b"\x10\0\0\0\0\0\0\0{", "cut off"),
        (b"only words, and enough of them", "no safetensors file"),
    ],
)
def test_what_is_no_safetensors_file(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    assert words in identify_file(path).problem


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "file.safetensors", SD1 | WHOLE)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert "cut off" in identify_file(path).problem


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        identify_file(tmp_path / "nowhere.safetensors")


def test_one_sentence_says_where_it_belongs(tmp_path: Path) -> None:
    path = write(tmp_path / "moon.safetensors", kohya(CROSS))
    assert identify_file(path).sentence == (
        "moon.safetensors is a LoRA for SD 1.x (float16); it belongs in loras/."
    )


def test_every_rule_names_a_kind_and_a_family() -> None:
    assert {rule.kind for rule in RULES} <= KIND_TITLES.keys()
    assert {rule.family for rule in RULES} - {""} <= FAMILY_TITLES.keys()


NAMES = st.sampled_from(
    sorted(
        {name.replace("*", "x") for rule in RULES for name in rule.names}
        | {name for rule in RULES for name, _, _ in rule.sizes}
        | {*kohya(CROSS), *SD1, *WHOLE, "v_pred", "__metadata__", ""}
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


@settings(max_examples=examples(300), deadline=None)
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
    write(home.models / "big.safetensors", SDXL | WHOLE)
    listed = {model.name: model for model in Library(home).scan_models()}
    assert isinstance(listed["big.safetensors"], Unusable)
    assert "checkpoint of SDXL" in listed["big.safetensors"].problem


def test_another_file_at_its_place_is_looked_at_anew(tmp_path: Path) -> None:
    home = load(home=tmp_path, device="cpu")
    library = Library(home)
    problems = []
    for shapes in (SDXL | WHOLE, SD1):
        write(home.models / "big.safetensors", shapes)
        (item,) = [item for item in library.scan_models() if isinstance(item, Unusable)]
        problems.append(item.problem)
    assert "SDXL" in problems[0]
    assert "SD 1.x" in problems[1]


def test_a_checkpoint_among_the_loras_is_called_one(tmp_path: Path) -> None:
    path = write(tmp_path / "big.safetensors", SDXL | WHOLE)
    with refused(BadFile):
        read_lora_info(path)


def test_inspect_says_it(tmp_path: Path) -> None:
    facts = inspect_file(write(tmp_path / "big.safetensors", SDXL | WHOLE | {"v_pred": []}))
    assert (facts["kind"], facts["family"], facts["prediction"]) == ("checkpoint", "sdxl", "v")


def test_inspect_of_a_lora_says_rank_and_family(tmp_path: Path) -> None:
    facts = inspect_file(write(tmp_path / "moon.safetensors", kohya(CROSS)))
    assert (facts["kind"], facts["adapter"], facts["rank"]) == ("lora", "LoRA", 4)


def test_inspect_refuses_what_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "page.safetensors").write_text("<!doctype html><p>Log in first")
    with refused(BadFile):
        inspect_file(tmp_path / "page.safetensors")
