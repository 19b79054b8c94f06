"""An exported LoRA: kohya's key lists, the same scale everywhere, a header that other programs read, never half a file."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from studio.core.generation.request import GenerationRequest, LoraUse
from studio.engine.context import WorkerContext
from studio.engine.training import lora_export
from studio.engine.training.kohya_names import get_kohya_names
from studio.engine.training.lora_export import (
    AdapterTensors,
    LoraExportInfo,
    read_settings,
    write_lora,
)
from studio.errors import BadFile, StudioError
from studio.storage import atomic
from studio.storage.models import lora_file
from support import lora_makers as makers
from support.benches import open_toy_bench
from support.models import POCKET
from support.painting import together
from support.sentences import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SD1: dict[str, Any] = {"cross_attention_dim": 768}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
INNER = [
    *(f"attn{k}_to_{what}" for k in (1, 2) for what in ("q", "k", "v", "out_0")),
    "ff_net_0_proj",
    "ff_net_2",
]
READ = [*(f"self_attn_{what}_proj" for what in "qkv"), "self_attn_out_proj", "mlp_fc1", "mlp_fc2"]


# --- names -------------------------------------------------------------------------------------------------------------------


def transformer(stem: str, blocks: int) -> list[str]:
    return [f"{stem}_{proj}" for proj in ("proj_in", "proj_out")] + [
        f"{stem}_transformer_blocks_{k}_{inner}" for k in range(blocks) for inner in INNER
    ]


def reader(prefix: str, layers: int) -> list[str]:
    return [
        f"{prefix}_text_model_encoder_layers_{k}_{what}" for k in range(layers) for what in READ
    ]


def kohyas(family: str) -> list[str]:
    """The layers that kohya's networks.lora writes by default, from the published structure of the two models."""
    if family == "sd1":
        places = (
            [f"down_blocks_{k}_attentions_{n}" for k in (0, 1, 2) for n in (0, 1)]
            + ["mid_block_attentions_0"]
            + [f"up_blocks_{k}_attentions_{n}" for k in (1, 2, 3) for n in (0, 1, 2)]
        )
        unet = [name for place in places for name in transformer(f"lora_unet_{place}", 1)]
        return unet + reader("lora_te", 12)
    depths = {
        "input_blocks_4_1": 2,
        "input_blocks_5_1": 2,
        "input_blocks_7_1": 10,
        "input_blocks_8_1": 10,
        "middle_block_1": 10,
        **{f"output_blocks_{k}_1": 10 if k < 3 else 2 for k in range(6)},
    }
    unet = [
        name for place, depth in depths.items() for name in transformer(f"lora_unet_{place}", depth)
    ]
    return unet + reader("lora_te1", 12) + reader("lora_te2", 32)


def meta(family: str) -> tuple[Any, dict[str, torch.nn.Module]]:
    """The real models' shapes, without numbers."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet = UNet2DConditionModel(**(SD1 if family == "sd1" else SDXL))
        small = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_attention_heads=12,
                num_hidden_layers=12,
            )
        )
        networks = {"unet": unet, "text_encoder": small}
        if family == "sdxl":
            networks["text_encoder_2"] = CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=1280,
                    intermediate_size=5120,
                    num_attention_heads=20,
                    num_hidden_layers=32,
                    projection_dim=1280,
                )
            )
    return unet.config, networks


def targets(networks: dict[str, torch.nn.Module], convs: bool = False) -> list[tuple[str, str]]:
    """What kohya trains: linear layers and 1x1 convolutions inside transformers; LoCon also the other convolutions."""
    found = []
    for network, module in networks.items():
        names = (
            (makers.ATTENTION + makers.CONVS[:3] * convs + makers.CONVS[3:6] * convs)
            if network == "unet"
            else makers.READER
        )
        found += [
            (network, path)
            for path, layer in module.named_modules()
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
            and any(path.endswith(f".{name}") for name in names)
        ]
    return found


@pytest.mark.parametrize(("family", "unet", "text"), [("sd1", 192, 72), ("sdxl", 722, 264)])
def test_names_are_kohyas(family: Any, unet: int, text: int) -> None:
    config, networks = meta(family)
    named = get_kohya_names(targets(networks), family, config)
    assert sorted(named.values()) == sorted(kohyas(family))
    counts = [
        sum(network == "unet" for network, _ in named),
        sum(network != "unet" for network, _ in named),
    ]
    assert counts == [unet, text]


@pytest.mark.parametrize(("family", "convs"), [("sd1", False), ("sdxl", False), ("sdxl", True)])
def test_diffusers_finds_every_layer_again(family: Any, convs: bool) -> None:
    """Its own conversion of kohya's files leads back to the very path that was exported. (LoCon of SD 1.x it cannot read.)"""
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    config, networks = meta(family)
    state, expected = {}, {}
    for number, ((network, path), stem) in enumerate(
        get_kohya_names(targets(networks, convs), family, config).items()
    ):
        kernel = isinstance(networks[network].get_submodule(path), torch.nn.Conv2d)
        state[f"{stem}.lora_down.weight"] = torch.full(
            (1, 1, 1, 1) if kernel else (1, 1), float(number)
        )
        state[f"{stem}.lora_up.weight"] = torch.zeros((1, 1, 1, 1) if kernel else (1, 1))
        state[f"{stem}.alpha"] = torch.tensor(0.25)
        expected[number] = (network, path)
    if family == "sdxl":
        state = _maybe_map_sgm_blocks_to_diffusers(state, type("Config", (), dict(config)))
    found, alphas = _convert_non_diffusers_lora_to_diffusers(state)
    back = {}
    for key, tensor in found.items():
        if not key.endswith((".up.weight", ".lora_B.weight", "up.weight")):
            network, _, path = key.partition(".")
            for ending in (".down.weight", ".lora_A.weight"):
                path = path.removesuffix(ending)
            path = (
                path.replace(".processor", "")
                .removesuffix(".lora")
                .removesuffix("_lora")
                .removesuffix(".lora_linear_layer")
            )
            back[int(tensor.flatten()[0])] = (network, path)
    assert len(alphas) == len(expected) == len(back)

    def plain(where: tuple[str, str]) -> tuple[str, str]:
        path = (
            where[1]
            .removeprefix("text_model.")
            .replace(".to_", "_to_")
            .replace("to_out.0", "to_out")
        )
        for now, before in (
            ("q_proj", "q"),
            ("k_proj", "k"),
            ("v_proj", "v"),
            ("out_proj", "out"),
        ):  # its older names of CLIP's
            path = path.replace(f"self_attn.{now}", f"self_attn_to_{before}")
        return where[0], path

    assert {number: plain(where) for number, where in back.items()} == {
        number: plain(where) for number, where in expected.items()
    }


def test_a_layer_without_a_name_is_a_fault() -> None:
    with pytest.raises(ValueError, match="encoder_hid_proj has no name"):
        get_kohya_names([("unet", "encoder_hid_proj")], "sdxl", SDXL | {"layers_per_block": 2})
    with pytest.raises(KeyError):
        get_kohya_names([("text_encoder_2", "encoder.layers.0.mlp.fc1")], "sd1", {})


# --- the same scale everywhere -----------------------------------------------------------------------------------------------

PROMPT, SEED = "a red boat by a lake", 3


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, toys: Path) -> Iterator[Any]:
    bench = open_toy_bench(tmp_path_factory.mktemp("export"), toys)
    yield bench
    bench.home.gallery.close()


def ours(bench: WorkerContext, model: str, **values: Any) -> torch.Tensor:
    request = GenerationRequest(
        model=model,
        scheduler="Euler",
        noise_schedule="Uniform",
        prompt=PROMPT,
        negative_prompt="fog",
        steps=2,
        width=64,
        height=64,
        guidance=5.0,
        seed=SEED,
        **values,
    )
    with bench.pipelines.borrow(request) as parts:
        one = request.resolve(parts.info.native_size, 0)
        return together(parts, one)[0]


def theirs(pipe: Any) -> torch.Tensor:
    from diffusers import EulerDiscreteScheduler

    shipped = {
        key: value for key, value in pipe.scheduler.config.items() if key != "use_karras_sigmas"
    }
    pipe.scheduler = EulerDiscreteScheduler.from_config(shipped, timestep_spacing="linspace")
    return pipe(
        PROMPT,
        negative_prompt="fog",
        num_inference_steps=2,
        guidance_scale=5.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images


@pytest.mark.parametrize(
    ("model", "family", "kind"),
    [
        pytest.param("pocket", "sd1", {}, marks=pytest.mark.slow),
        pytest.param("pocket", "sd1", {"convs": True}, marks=pytest.mark.slow),
        ("toy-sdxl", "sdxl", {"convs": True}),
        pytest.param("toy-sd2", "sd2", {"only": "text"}, marks=pytest.mark.slow),
    ],
)
def test_rank_32_alpha_8_is_a_quarter_everywhere(
    bench: WorkerContext, toys: Path, model: str, family: Any, kind: dict[str, Any]
) -> None:
    """peft as it was trained, stock load_lora_weights and the studio's loader: the same latents, bit for bit."""
    folder = POCKET if model == "pocket" else toys / model
    donor = makers.stock(folder)
    base = theirs(donor)
    makers.add(donor, rank=32, alpha=8, **kind)
    trained = theirs(donor)
    layers = {
        path: AdapterTensors({"down": down, "up": up}, alpha)
        for path, (down, up, alpha) in makers.collect_pairs(donor).items()
    }
    assert all(layer.alpha == 8 and layer.rank == 32 for layer in layers.values())
    name = f"{model} {' '.join(map(str, kind.values()))}".strip()
    path = bench.settings.loras / f"{name}.safetensors"
    about = LoraExportInfo(name, family, model, (64, 64))
    sha = write_lora(path, layers, info=about, unet_config=donor.unet.config, dtype=torch.float32)
    assert sha == hashlib.sha256(path.read_bytes()).hexdigest()
    info = bench.home.library.get_lora(path.stem)
    assert (info.rank, info.alpha, info.layers) == (32, 8, len(layers))
    assert not torch.equal(trained, base)
    assert torch.equal(ours(bench, model, loras=[LoraUse(name=path.stem)]), trained)
    if (
        model == "toy-sdxl" or "convs" not in kind
    ):  # diffusers cannot read LoCon of SD 1.x in kohya's names
        pipe = makers.stock(folder)
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
        scales = {
            scale
            for network in makers.networks(pipe).values()
            for layer in network.modules()
            for scale in getattr(layer, "scaling", {}).values()
        }
        assert scales == {0.25}
        assert torch.equal(theirs(pipe), trained)


# --- the file ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers() -> dict[tuple[str, str], AdapterTensors]:
    """A few layers of SDXL."""
    chance = torch.Generator().manual_seed(0)
    shapes = {
        ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"): (
            (4, 640),
            (640, 4),
            2.0,
        ),
        ("unet", "mid_block.attentions.0.proj_in"): ((4, 1280), (1280, 4), 2.0),
        ("unet", "up_blocks.0.resnets.0.conv1"): ((8, 16, 3, 3), (24, 8, 1, 1), 1.5),
        ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"): ((4, 768), (768, 4), 2.0),
        ("text_encoder_2", "encoder.layers.0.mlp.fc1"): ((4, 1280), (5120, 4), 2.0),
    }
    return {
        key: AdapterTensors(
            {
                "down": torch.randn(down, generator=chance),
                "up": torch.randn(up, generator=chance),
            },
            alpha,
        )
        for key, (down, up, alpha) in shapes.items()
    }


ABOUT = LoraExportInfo(
    "mjesec",
    "sdxl",
    "sdxl-base",
    (1024, 768),
    trigger="mjesec",
    description="The Moon, “as it is”",
    date="2026-11-21",
    settings={"rank": 4, "trigger": "mjesec", "nested": {"list": [1, 2.5, None, True]}},
    tag_frequency={"moon": {"a moon": 3, "měsíc": 1}},
    extra_metadata={"steps": 1600, "seed": 7, "vae_name": None},
)
UNET = {
    "down_block_types": SDXL["down_block_types"],
    "up_block_types": SDXL["up_block_types"],
    "layers_per_block": 2,
}


def test_tensors_and_header(tmp_path: Path, layers: Any) -> None:
    path = tmp_path / "deep" / "it.safetensors"
    write_lora(path, layers, info=ABOUT, unet_config=UNET)
    tensors = load_file(path)
    assert sorted({key.partition(".")[0] for key in tensors}) == [
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_output_blocks_0_0_in_layers_2",
    ]
    stem = "lora_unet_output_blocks_0_0_in_layers_2"
    pair = layers["unet", "up_blocks.0.resnets.0.conv1"]
    assert torch.equal(tensors[f"{stem}.lora_down.weight"], pair.tensors["down"].half())
    assert tensors[f"{stem}.alpha"].item() == 1.5
    assert torch.equal(tensors[f"{stem}.lora_up.weight"], pair.tensors["up"].half())
    assert tensors[f"{stem}.alpha"].shape == ()
    with safe_open(path, "pt") as file:
        told = file.metadata()
    expected = {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
        "ss_output_name": "mjesec",
        "ss_sd_model_name": "sdxl-base",
        "ss_resolution": "(1024, 768)",
        "ss_steps": "1600",
        "ss_seed": "7",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": "mjesec",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.resolution": "1024x768",
        "modelspec.trigger_phrase": "mjesec",
        "modelspec.prediction_type": "epsilon",
        "modelspec.date": "2026-11-21",
    }
    assert {key: told.get(key) for key in expected} == expected
    assert json.loads(told["ss_network_args"]) == {"conv_dim": "8", "conv_alpha": "1.5"}
    assert json.loads(told["ss_tag_frequency"]) == ABOUT.tag_frequency
    assert read_settings(path) == json.loads(told["studio.training"]) == ABOUT.settings
    assert "lora_adapter_metadata" not in told
    assert "ss_vae_name" not in told
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    assert told["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()
    assert told["modelspec.hash_sha256"] == f"0x{told['sshs_model_hash']}"
    info = lora_file.read_lora_info(path)
    assert (info.family, info.title, info.trigger_words, info.base_model) == (
        "sdxl",
        "mjesec",
        ("mjesec",),
        "sdxl-base",
    )
    assert info.tags == (("a moon", 3), ("měsíc", 1))


def test_the_same_run_makes_the_same_bytes(tmp_path: Path, layers: Any) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    backwards = dict(reversed(layers.items()))
    assert write_lora(one, layers, info=ABOUT, unet_config=UNET) == write_lora(
        other, backwards, info=ABOUT, unet_config=UNET
    )
    assert one.read_bytes() == other.read_bytes()
    assert (
        write_lora(other, layers, info=replace(ABOUT, name="x"), unet_config=UNET)
        != hashlib.sha256(one.read_bytes()).hexdigest()
    )
    assert lora_file.read_lora_info(other).title == "x"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [one.name, other.name]


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture", "kind"),
    [
        ("sd1", "epsilon", "sd_v1", "stable-diffusion-v1/lora", "epsilon"),
        ("sd1", "v_prediction", "sd_v1_v", "stable-diffusion-v1/lora", "v"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora", "epsilon"),
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "v"),
        ("sdxl", "v_prediction", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "v"),
    ],
)
def test_family_and_prediction_are_told(
    tmp_path: Path,
    layers: Any,
    family: Any,
    prediction: str,
    version: str,
    architecture: str,
    kind: str,
) -> None:
    path = tmp_path / "it.safetensors"
    some = {key: pair for key, pair in layers.items() if key[0] == "text_encoder"}
    write_lora(
        path,
        some,
        info=replace(ABOUT, family=family, prediction_type=prediction),
        unet_config=UNET,
        dtype=torch.bfloat16,
    )
    told = atomic.read_safetensors_header(path)["__metadata__"]
    assert (
        told["ss_base_model_version"],
        told["modelspec.architecture"],
        told["modelspec.prediction_type"],
    ) == (version, architecture, kind)
    assert told["ss_v2"] == str(family == "sd2")


def test_no_numbers_are_refused(tmp_path: Path, layers: Any) -> None:
    path = tmp_path / "it.safetensors"
    key = next(iter(layers))
    for bad in (
        float("nan"),
        float("inf"),
        1e6,
    ):
        up = layers[key].tensors["up"].clone()
        up[3, 1] = bad
        with refused(StudioError):
            write_lora(
                path,
                layers | {key: replace(layers[key], tensors=layers[key].tensors | {"up": up})},
                info=ABOUT,
                unet_config=UNET,
            )
    assert not list(tmp_path.iterdir())
    write_lora(
        path,
        layers | {key: replace(layers[key], tensors=layers[key].tensors | {"up": up})},
        info=ABOUT,
        unet_config=UNET,
        dtype=torch.bfloat16,
    )


@pytest.mark.parametrize("harm", ["bit", "cut", "header", "alpha"])
def test_what_comes_back_differently_replaces_nothing(
    tmp_path: Path, layers: Any, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.safetensors"
    path.write_bytes(b"the old one")
    inner = lora_export._verify_file

    def on_a_bad_disk(aside: Path, *more: Any) -> None:
        data = bytearray(aside.read_bytes())
        if harm == "bit":
            data[-5] ^= 16
        if harm == "header":
            data = bytearray(bytes(data).replace(b'"mjesec"', b'"mjesex"', 1))
        if harm == "alpha":
            (length,) = struct.unpack("<Q", data[:8])
            data[8 + length + 3] ^= 1
        aside.write_bytes(data[:-4] if harm == "cut" else data)
        inner(aside, *more)

    monkeypatch.setattr(lora_export, "_verify_file", on_a_bad_disk)
    with refused(BadFile):
        write_lora(path, layers, info=ABOUT, unet_config=UNET)
    assert path.read_bytes() == b"the old one"
    assert len(list(tmp_path.iterdir())) == 1


def test_many_tags_are_cut_to_the_most_frequent(
    tmp_path: Path, layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_export, "MAX_TAGS", 3)
    path = tmp_path / "it.safetensors"
    write_lora(
        path,
        layers,
        info=replace(
            ABOUT,
            tag_frequency={"a": {str(k): k for k in range(9)}, "b": {"x": 100}, "c": {"y": 0}},
        ),
        unet_config=UNET,
    )
    told = json.loads(atomic.read_safetensors_header(path)["__metadata__"]["ss_tag_frequency"])
    assert told == {"a": {"8": 8, "7": 7}, "b": {"x": 100}, "c": {}}


def test_settings_of_other_files(tmp_path: Path, layers: Any) -> None:
    path = tmp_path / "it.safetensors"
    makers.kohya(
        path,
        {"unet": {"a.lora_A.weight": torch.zeros(1, 2), "a.lora_B.weight": torch.zeros(2, 1)}},
        1,
    )
    assert read_settings(path) is None
    for told in ("[1]", "{"):
        makers.kohya(
            path,
            {"unet": {"a.lora_A.weight": torch.zeros(1, 2), "a.lora_B.weight": torch.zeros(2, 1)}},
            1,
            **{"studio.training": told},
        )
        if told == "{":
            with refused(BadFile):
                read_settings(path)
        else:
            assert read_settings(path) is None
    path.write_bytes(b"x")
    with pytest.raises(BadFile):
        read_settings(path)


def test_nothing_is_no_lora(tmp_path: Path, layers: Any) -> None:
    with pytest.raises(ValueError, match="0 layers"):
        write_lora(tmp_path / "it.safetensors", {}, info=ABOUT, unet_config=UNET)
    double = layers | {
        ("text_encoder", "encoder.layers.0.self_attn.q_proj"): next(iter(layers.values()))
    }
    with pytest.raises(ValueError, match="6 layers came to 15 tensors"):
        write_lora(tmp_path / "it.safetensors", double, info=ABOUT, unet_config=UNET)
