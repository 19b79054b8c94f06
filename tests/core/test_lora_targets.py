"""The layers that a LoRA sits on: from plain numbers, equal to the real networks built on the meta device."""

from __future__ import annotations

import functools
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.core.families.registry import FAMILIES
from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import (
    ModelShape,
    Targets,
    count_modules,
    list_modules,
    parse_model_shape,
    select_modules,
)
from studio.core.training.network_shapes import count_parameters
from studio.errors import InvalidSpec, UnknownFamily
from studio.settings import shipped
from support.sentences import refused

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CLASSIC: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": [CROSS] * 3 + [PLAIN],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
UNETS: dict[str, dict[str, Any]] = {  # the published configs, as far as they decide layers
    "sd1": CLASSIC,
    "sd2": CLASSIC
    | {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
ENCODERS: dict[str, list[dict[str, Any]]] = {
    "sd1": [CLIP_L],
    "sd2": [
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
        }
    ],
    "sdxl": [
        CLIP_L,
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
        },
    ],
}
COUNTS: dict[tuple[str, Targets], tuple[int, int]] = {
    ("sd1", "attention"): (128, 48),
    ("sd1", "attention + feed-forward"): (192, 72),
    ("sd1", "attention + feed-forward + convolutions"): (278, 72),
    ("sd2", "attention + feed-forward"): (192, 138),
    ("sdxl", "attention"): (560, 176),
    ("sdxl", "attention + feed-forward"): (722, 264),
    ("sdxl", "attention + feed-forward + convolutions"): (788, 264),
}


def layers(network: torch.nn.Module) -> dict[str, tuple[int, int, int]]:
    """Every linear layer and convolution of a real network: inputs, outputs, kernel."""
    found = {}
    for path, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear):
            found[path] = (layer.in_features, layer.out_features, 0)
        elif isinstance(layer, torch.nn.Conv2d):
            found[path] = (layer.in_channels, layer.out_channels, layer.kernel_size[0])
    return found


@functools.cache
def real(family: str) -> tuple[torch.nn.Module, ...]:
    with torch.device("meta"):
        encoders = [
            (CLIPTextModelWithProjection if number else CLIPTextModel)(CLIPTextConfig(**one))
            for number, one in enumerate(ENCODERS[family])
        ]
        return UNet2DConditionModel(**UNETS[family]), *encoders


def covered(unet: torch.nn.Module, convolutions: bool) -> set[str]:
    """What kohya's networks.lora takes from a U-Net, said by the classes of the real one."""
    kinds = {"Transformer2DModel"} | (
        {"ResnetBlock2D", "Downsample2D", "Upsample2D"} if convolutions else set()
    )
    owners = [path for path, module in unet.named_modules() if type(module).__name__ in kinds]
    return {path for path in layers(unet) if any(path.startswith(f"{owner}.") for owner in owners)}


@pytest.mark.parametrize("family", [family.name for family in FAMILIES.values() if family.shape])
def test_names_and_shapes_are_those_of_the_real_networks(family: str) -> None:
    every = list_modules(FAMILIES[family].shape)
    assert parse_model_shape(UNETS[family], ENCODERS[family]) == FAMILIES[family].shape
    for part, network in zip(("unet", "text_encoder", "text_encoder_2"), real(family)):
        ours = {
            module.path: (module.in_features, module.out_features, module.kernel_size)
            for module in every
            if module.part == part
        }
        theirs = layers(network)
        if part == "unet":
            assert set(ours) == covered(network, convolutions=True)
            plain = {
                module.path
                for module in select_modules(FAMILIES[family].shape, "attention + feed-forward")
                if module.part == "unet"
            }
            assert plain == covered(network, convolutions=False)
        else:
            assert set(ours) == {path for path in theirs if path != "text_projection"}
        assert ours == {path: theirs[path] for path in ours}
    assert len({module.name for module in every}) == len(every)


@pytest.mark.parametrize(("family", "targets"), COUNTS)
def test_counts_are_those_of_kohyas_log(family: str, targets: Targets) -> None:
    unet, encoders = COUNTS[family, targets]
    assert count_modules(select_modules(FAMILIES[family].shape, targets)) == {
        "unet": unet,
        "text_encoders": encoders,
    }
    assert count_modules(
        select_modules(FAMILIES[family].shape, targets, train_text_encoders=False)
    ) == {
        "unet": unet,
        "text_encoders": 0,
    }
    assert count_modules(select_modules(FAMILIES[family].shape, targets, train_unet=False)) == {
        "unet": 0,
        "text_encoders": encoders,
    }


@pytest.mark.parametrize(("family", "millions"), [("sd1", (13.6, 0)), ("sdxl", (85.1, 5.3, 23.6))])
def test_numbers_at_rank_32(family: str, millions: tuple[float, ...]) -> None:
    chosen = select_modules(FAMILIES[family].shape, "attention + feed-forward")
    for part, expected in zip(("unet", "text_encoder", "text_encoder_2"), millions):
        if expected:
            of_part = [module for module in chosen if module.part == part]
            config = TrainingConfig(dataset="-", name="-", rank=32)
            found = count_parameters(config, of_part) / 1e6
            assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["pocket"])
def test_the_embedded_model_from_its_configs(name: str) -> None:
    folder = shipped("assets") / name
    unet, encoder = (
        json.loads((folder / part / "config.json").read_text()) for part in ("unet", "text_encoder")
    )
    chosen = select_modules(
        parse_model_shape(unet, [encoder]), "attention + feed-forward + convolutions"
    )
    with torch.device("meta"):
        network = UNet2DConditionModel(
            **{key: value for key, value in unet.items() if not key.startswith("_")}
        )
    found = layers(network)
    ours = {
        module.path: (module.in_features, module.out_features, module.kernel_size)
        for module in chosen
        if module.part == "unet"
    }
    assert ours == {path: found[path] for path in covered(network, convolutions=True)}
    assert count_modules(chosen)["text_encoders"] == 18


def test_diffusers_finds_every_sgm_name() -> None:
    """What diffusers makes of our SDXL names is our paths."""
    of = FAMILIES["sdxl"].shape
    chosen = [module for module in list_modules(of) if module.part == "unet"]
    given = {f"{module.name}.lora_down.weight": module.path for module in chosen}
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(given), SimpleNamespace(layers_per_block=2))
    names = {
        "in_layers_2": "conv1",
        "emb_layers_1": "time_emb_proj",
        "out_layers_3": "conv2",
        "skip_connection": "conv_shortcut",
        "downsamplers_0_op": "downsamplers_0_conv",
        "input_blocks": "down_blocks",
        "middle_block": "mid_block",
        "output_blocks": "up_blocks",
    }
    for name, path in mapped.items():
        for old, new in names.items():
            name = name.replace(old, new)
        assert name == f"lora_unet_{path.replace('.', '_')}.lora_down.weight"
    assert len(mapped) == len(chosen) == 788


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_a_file_of_these_names(family: str) -> None:
    """Its converter leads every key to the layer that we mean, for attention and feed-forward in all parts."""
    chosen = select_modules(FAMILIES[family].shape, "attention + feed-forward")
    file = {}
    for module in chosen:
        wide = (1, 1) if module.kernel_size else ()
        file[f"{module.name}.lora_down.weight"] = torch.empty(
            2, module.in_features, *wide, device="meta"
        )
        file[f"{module.name}.lora_up.weight"] = torch.empty(
            module.out_features, 2, *wide, device="meta"
        )
        file[f"{module.name}.alpha"] = torch.tensor(1.0)
    if family == "sdxl":
        file = _maybe_map_sgm_blocks_to_diffusers(file, SimpleNamespace(layers_per_block=2))
    found, _ = _convert_non_diffusers_lora_to_diffusers(file)
    read = {
        re.sub(r"(_lora|\.lora(_linear_layer)?)\.(up|down)\.weight$", "", key).replace(
            ".processor", ""
        )
        for key in found
    }
    paths = {f"{module.part}.{module.path}" for module in chosen}
    old = {
        ".self_attn.q_proj": ".self_attn.to_q",
        ".self_attn.k_proj": ".self_attn.to_k",
        ".self_attn.v_proj": ".self_attn.to_v",
        ".self_attn.out_proj": ".self_attn.to_out",
        ".to_out.0": ".to_out",
        ".text_model": "",
    }  # names it uses in between
    for long, short in old.items():
        paths = {path.replace(long, short) for path in paths}
    assert {path.replace(".text_model", "") for path in read} == paths
    assert len(paths) == len(chosen)


def test_patterns() -> None:
    of = FAMILIES["sd1"].shape
    chosen = select_modules(
        of, "patterns", "unet.*.attn2.to_k, unet.*.attn2.to_v,text_encoder.*.0.mlp.fc?"
    )
    assert count_modules(chosen) == {"unet": 32, "text_encoders": 2}
    with refused(InvalidSpec, "Layer patterns"):
        select_modules(of, "patterns", "unet.*, unet.attn3")
    with refused(InvalidSpec, "Target layers"):
        select_modules(of, "patterns", "unet.*.to_k", train_unet=False)
    with refused(InvalidSpec, "Layer patterns"):
        select_modules(of, "patterns", "*," * 51)
    with refused(InvalidSpec, "Layer patterns"):
        select_modules(of, "patterns", "*a" * 900 + "b")  # no pattern takes long


@pytest.mark.parametrize(
    "change",
    [
        {"down_block_types": ["AttnDownBlock2D"] * 4},
        {"up_block_types": ["UpBlock2D"] * 4},
        {"block_out_channels": "wide"},
        {"cross_attention_dim": None},
        {"mid_block_type": None},
        {"transformer_layers_per_block": [1]},
        {"down_block_types": 5},
    ],
)
def test_another_build_is_refused_in_words(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownFamily):
        parse_model_shape(CLASSIC | change, [CLIP_L])
    with pytest.raises(UnknownFamily):
        parse_model_shape(CLASSIC, [{}])


def test_shapes_are_plain_values() -> None:
    assert isinstance(FAMILIES["sd1"].shape, ModelShape)
    assert hash(FAMILIES["sd1"].shape) != hash(FAMILIES["sdxl"].shape)
