"""Every kind of file that people have is named from its header: one row for each, none but names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.storage.models.header_rules import FAMILY_TITLES, KIND_FOLDERS, KIND_TITLES, RULES
from studio.storage.models.model_file import identify_file
from support import upscalers
from support.weights import (
    CONTEXT_1,
    CONTEXT_4,
    CROSS,
    SD1,
    SD2,
    SDXL,
    UNET,
    VAE,
    VAE_FILE,
    WHOLE,
    Shapes,
    kohya_lora,
    write_weights,
)

pytestmark = pytest.mark.smoke
CONV_IN = f"{UNET}input_blocks.0.0.weight"
BARE_SD1 = {name.removeprefix(UNET): shape for name, shape in SD1.items()}
BARE_SDXL = {name.removeprefix(UNET): shape for name, shape in SDXL.items()}
DIFFUSERS_CONTEXT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": [128],
    "img_in.weight": [3072, 64],
}
GUIDED: Shapes = {"guidance_in.in_layer.weight": [3072, 256]}
FLUX2 = "single_stream_modulation.lin.weight"
NEXTDIT: Shapes = {
    "layers.0.adaLN_modulation.0.weight": [15360, 256],
    "layers.0.feed_forward.w1.weight": [8, 8],
}
COSMOS: Shapes = {"blocks.0.mlp.layer1.weight": [8, 8], "blocks.0.cross_attn.q_proj.weight": [8, 8]}
LLM = {"model.layers.0.self_attn.q_proj.weight": [8, 8]}
IP: Shapes = {"image_proj.proj.weight": [8, 8], "ip_adapter.1.to_k_ip.weight": [8, 768]}
FACE_LORA: Shapes = {
    f"ip_adapter.0.to_{part}_lora.{half}.weight": [8, 8]
    for part in ("q", "k", "v", "out")
    for half in ("down", "up")
}


def put(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def diffusers_unet(width: int) -> Shapes:
    return {
        "conv_in.weight": [320, 4, 3, 3],
        "down_blocks.0.resnets.0.conv1.weight": [320, 320, 3, 3],
        DIFFUSERS_CONTEXT: [640, width],
    }


def language_model(words: int, width: int) -> Shapes:
    return {**LLM, "model.embed_tokens.weight": [words, width]}


# What the file is called, and its tensors.
ROWS: list[tuple[str, str, Shapes]] = [
    # ---- LoRA and its relatives: more of them in test_model_file.py ----
    ("lora", "LoRA for SD 1.x", kohya_lora(CROSS)),
    # ---- checkpoints and bare U-Nets ----
    ("checkpoint", "checkpoint of SD 1.x", SD1 | WHOLE),
    ("checkpoint", "checkpoint of SD 2.x", SD2 | WHOLE),
    ("checkpoint", "checkpoint of SDXL", SDXL | WHOLE),
    ("checkpoint", "checkpoint of SDXL", SDXL | {VAE: [512, 4, 3, 3]}),
    (
        "checkpoint",
        "checkpoint of SDXL",
        put("unet.", diffusers_unet(2048)) | {"vae.decoder.conv_in.weight": [512, 4, 3, 3]},
    ),
    ("checkpoint", "checkpoint of SD 1.x for inpainting", SD1 | WHOLE | {CONV_IN: [320, 9, 3, 3]}),
    ("denoiser", "denoiser of SD 1.x", SD1),
    ("denoiser", "denoiser of SD 1.x", SD1 | {"model_ema.decay": [1]}),
    ("denoiser", "denoiser of SDXL", BARE_SDXL),
    ("denoiser", "denoiser of SD 1.x", diffusers_unet(768)),
    ("denoiser", "denoiser of SD 2.x", diffusers_unet(1024)),
    ("denoiser", "denoiser of SDXL", diffusers_unet(2048)),
    # ---- transformers ----
    ("denoiser", "denoiser of Z-Image", NEXTDIT | {"cap_embedder.1.weight": [3840, 2560]}),
    (
        "denoiser",
        "denoiser of Z-Image",
        put(UNET, NEXTDIT | {"cap_embedder.1.weight": [3840, 2560]}),
    ),
    ("denoiser", "denoiser of Lumina 2", NEXTDIT | {"cap_embedder.0.weight": [2304]}),
    (
        "denoiser",
        "denoiser of Anima",
        put("net.", COSMOS | {"llm_adapter.blocks.0.cross_attn.q_proj.weight": [8, 8]}),
    ),
    ("denoiser", "denoiser of FLUX.2 klein 4B", {FLUX2: [8, 8], "img_in.weight": [3072, 128]}),
    ("denoiser", "denoiser of FLUX.2 klein 9B", {FLUX2: [8, 8], "img_in.weight": [4096, 128]}),
    ("denoiser", "denoiser of FLUX.2 dev", {FLUX2: [8, 8], "img_in.weight": [6144, 128]}),
    ("denoiser", "denoiser of FLUX.2", {FLUX2: [8, 8], "img_in.weight": [96, 128]}),
    (
        "denoiser",
        "denoiser of FLUX.3 klein base",
        {"early_stream_modulations.image.lin.weight": [8, 8]},
    ),
    (
        "denoiser",
        "denoiser of FLUX.3 klein",
        {"early_stream_modulations.image.lin.weight": [8, 8], "ref_time_in.weight": [8, 8]},
    ),
    ("denoiser", "denoiser of Krea 2", {"txtfusion.projector.weight": [1, 12]}),
    (
        "denoiser",
        "denoiser of Chroma",
        FLUX | {"distilled_guidance_layer.in_proj.weight": [5120, 64]},
    ),
    ("denoiser", "denoiser of FLUX.1 dev", FLUX | GUIDED),
    ("denoiser", "denoiser of FLUX.1 schnell", FLUX),
    ("denoiser", "denoiser of FLUX.1 Fill", FLUX | GUIDED | {"img_in.weight": [3072, 384]}),
    (
        "denoiser",
        "denoiser of FLUX.1 Depth or Canny",
        FLUX | GUIDED | {"img_in.weight": [3072, 128]},
    ),
    (
        "denoiser",
        "denoiser of Qwen-Image",
        {"transformer_blocks.0.attn.add_q_proj.weight": [8, 8], "txt_norm.weight": [3584]},
    ),
    ("denoiser", "denoiser of Qwen-Image-2.1", {"txt_in.text_norm.weight": [4096]}),
    (
        "denoiser",
        "denoiser of SD 3",
        put(UNET, {"joint_blocks.0.x_block.attn.qkv.weight": [8, 8], "pos_embed": [1]}),
    ),
    # ---- parts of a model ----
    ("vae", "autoencoder (VAE)", VAE_FILE),
    ("vae", "autoencoder (VAE)", {VAE: [512, 16, 3, 3]}),
    ("vae", "autoencoder (VAE)", {"vae.decoder.conv_in.weight": [384, 16, 3, 3, 3]}),
    (
        "vae",
        "autoencoder (VAE) of FLUX.2",
        {"decoder.conv_in.weight": [512, 32, 3, 3], "bn.running_mean": [128]},
    ),
    *(
        (
            "text encoder",
            f"text encoder {name}",
            {"text_model.embeddings.token_embedding.weight": [49408, width]},
        )
        for width, name in ((768, "CLIP-L"), (1024, "OpenCLIP-H"), (1280, "OpenCLIP-G"))
    ),
    (
        "text encoder",
        "text encoder",
        {
            "token_embedding.weight": [49408, 1280],
            "transformer.resblocks.0.attn.in_proj_weight": [3840, 1280],
        },
    ),
    (
        "text encoder",
        "text encoder T5-XXL",
        {
            "encoder.block.0.layer.0.SelfAttention.q.weight": [8, 8],
            "shared.weight": [32128, 4096],
        },
    ),
    ("text encoder", "text encoder Qwen3-4B", language_model(151_936, 2560)),
    (
        "text encoder",
        "text encoder Qwen3-0.6B",
        {"layers.0.self_attn.q_proj.weight": [8, 8], "embed_tokens.weight": [151_936, 1024]},
    ),
    ("text encoder", "text encoder", language_model(1000, 64)),
    (
        "image encoder",
        "image encoder (CLIP vision)",
        {"vision_model.embeddings.patch_embedding.weight": [1280, 3, 14, 14]},
    ),
    # ---- textual inversion ----
    ("embedding", "textual inversion for SD 1.x", {"emb_params": [8, 768]}),
    ("embedding", "textual inversion for SD 2.x", {"<moon>": [1024]}),
    ("embedding", "textual inversion for SDXL", {"clip_l": [2, 768], "clip_g": [2, 1280]}),
    ("embedding", "textual inversion for SDXL", {"clip_g": [2, 1280]}),
    ("embedding", "textual inversion", {"string_to_param.*": [5, 320]}),
    # ---- ControlNets ----
    (
        "controlnet",
        "ControlNet for SD 1.x",
        put("control_model.", {**BARE_SD1, "input_hint_block.0.weight": [16, 3, 3, 3]}),
    ),
    (
        "controlnet",
        "ControlNet for SDXL",
        put("control_model.", {**BARE_SDXL, "label_emb.0.0.weight": [1280, 2816]}),
    ),
    ("controlnet", "ControlNet for SD 1.x", {**BARE_SD1, "input_hint_block.0.weight": [16, 3]}),
    (
        "controlnet",
        "ControlNet for SD 2.x",
        diffusers_unet(1024) | {"controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3]},
    ),
    (
        "controlnet",
        "ControlNet for SDXL",
        {
            "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
            "add_embedding.linear_1.weight": [8, 8],
        },
    ),
    (
        "controlnet",
        "union ControlNet for SDXL",
        {
            "task_embedding": [6, 320],
            "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
            "add_embedding.linear_1.weight": [8, 8],
        },
    ),
    ("controlnet", "ControlNet for FLUX.1", FLUX | {"controlnet_blocks.0.weight": [8, 8]}),
    # ---- IP-Adapters ----
    ("ip-adapter", "IP-Adapter for SD 1.x", IP),
    ("ip-adapter", "IP-Adapter for SDXL", IP | {"ip_adapter.1.to_k_ip.weight": [8, 2048]}),
    (
        "ip-adapter",
        "IP-Adapter Plus for SD 1.x",
        IP | {"image_proj.latents": [1, 16, 768]},
    ),
    ("ip-adapter", "IP-Adapter FaceID for SD 1.x", IP | FACE_LORA),
    (
        "ip-adapter",
        "IP-Adapter FaceID Plus for SD 1.x",
        IP | FACE_LORA | {"image_proj.perceiver_resampler.proj_in.weight": [8, 8]},
    ),
    # ---- upscalers ----
    ("upscaler", "upscaler (compact)", upscalers.list_shapes(upscalers.compact())),
    ("upscaler", "ESRGAN upscaler", upscalers.list_shapes(upscalers.rrdb())),
    (
        "upscaler",
        "ESRGAN upscaler",
        upscalers.list_shapes(upscalers.in_first_names(upscalers.rrdb())),
    ),
    ("upscaler", "upscaler", {"conv_first.weight": [60, 3, 3, 3], "conv_last.weight": [3, 64]}),
    # ---- what nobody knows ----
    ("unknown", KIND_TITLES["unknown"], {"model.weight": [4, 4]}),
]
# What is named, and refused: a word of the reason.
REFUSED: list[tuple[str, str, str, Shapes]] = [
    ("vae", "autoencoder (VAE)", "lacks", {"decoder.conv_in.weight": [512, 4, 3, 3]}),
    (
        "upscaler",
        "upscaler (compact)",
        "compact upscaler",
        {"body.0.weight": [64, 3, 3, 3], "body.1.weight": [64]},
    ),
    (
        "upscaler",
        "ESRGAN upscaler",
        "lacks conv_last.weight",
        {"conv_first.weight": [64, 3, 3, 3], "body.0.rdb1.conv1.weight": [32, 64, 3, 3]},
    ),
    (
        "upscaler",
        "ESRGAN upscaler",
        "lacks",
        {"model.0.weight": [64, 3, 3, 3], "model.1.sub.0.RDB1.conv1.0.weight": [32, 64, 3, 3]},
    ),
    (
        "denoiser",
        "denoiser of the SDXL refiner",
        "refines",
        SDXL | {CONTEXT_4: [768, 1280], f"{UNET}label_emb.0.0.weight": [1536, 2560]},
    ),
    ("denoiser", "denoiser", "does not know", SD1 | {CONTEXT_1: [320, 640]}),
    ("denoiser", "denoiser", "does not know", diffusers_unet(1280)),
    ("denoiser", "denoiser", "does not know", NEXTDIT | {"cap_embedder.1.weight": [96, 8]}),
    ("denoiser", "denoiser of Cosmos-Predict2", "does not support", put("net.", COSMOS)),
    ("denoiser", "denoiser of SD 1.x", "InstructPix2Pix", SD1 | {CONV_IN: [320, 8, 3, 3]}),
    ("denoiser", "denoiser of SD 2.x", "takes 5 channels", SD2 | {CONV_IN: [320, 5, 3, 3]}),
    ("denoiser", "denoiser of SD 1.x", "takes 7 channels", SD1 | {CONV_IN: [320, 7, 3, 3]}),
    ("denoiser", "denoiser of SDXL", "Playground", SDXL | {"edm_mean": [4]}),
    ("denoiser", "denoiser of SDXL", "Playground", SDXL | {"edm_std": [4]}),
    ("denoiser", "denoiser of SDXL", "CosXL", SDXL | {"edm_vpred.sigma_max": []}),
    ("denoiser", "denoiser", "guidance", SD1 | {f"{UNET}time_embed_cond.weight": [8, 8]}),
    (
        "denoiser",
        "denoiser",
        "guidance",
        diffusers_unet(768) | {"time_embedding.cond_proj.weight": [8, 8]},
    ),
    (
        "denoiser",
        "denoiser of SD 1.x",
        "quantised",
        SD1 | {f"{UNET}x.scale_weight": [1], f"{UNET}scaled_fp8": [0]},  # of no weight
    ),
    (
        "text encoder",
        "text encoder T5-XXL",
        "quantised",
        {
            "encoder.block.0.layer.0.SelfAttention.q.weight": [8, 8],
            "encoder.block.0.layer.0.SelfAttention.q.scale_weight": [4],  # of parts of rows
            "shared.weight": [32128, 4096],
        },
    ),
    ("denoiser", "denoiser of SD 1.x", "quantised", SD1 | {f"{UNET}x.comfy_quant": [4]}),
    ("denoiser", "denoiser of SD 1.x", "quantised", SD1 | {f"{UNET}x.weight_scale": []}),
    (
        "denoiser",
        "denoiser of FLUX.1 schnell",
        "quantised",
        FLUX | {"img_in.weight.quant_state.bitsandbytes__nf4": [4]},
    ),
    (
        "controlnet",
        "Control-LoRA for SDXL",
        "works differently",
        {
            "lora_controlnet": [0],
            "input_hint_block.0.weight": [16, 3, 3, 3],
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": [4, 2048],
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.up": [640, 4],
        },
    ),
    (
        "controlnet",
        "ControlNet-LLLite",
        "works differently",
        {
            "lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight": [4, 8],
            "lllite_unet_input_blocks_4_1_attn1_to_q.up.0.weight": [8, 4],
        },
    ),
    *(
        (
            "controlnet",
            f"T2I-Adapter for {family}",
            "works differently",
            {
                f"{prefix}{tensor}": [320, channels, 3, 3],
                f"{prefix}body.0.resnets.0.block1.weight": [8, 8, 3, 3],
            },
        )
        for prefix, tensor, channels, family in (
            ("adapter.", "conv_in.weight", 192, "SD 1.x"),
            ("", "conv_in.weight", 64, "SD 1.x"),
            ("", "conv_in.weight", 768, "SDXL"),
            ("", "body.0.in_conv.weight", 192, "SD 1.x"),
        )
    ),
    (
        "unknown",
        KIND_TITLES["unknown"],
        "EMA",
        {"model_ema.diffusion_model.x": [4], "model_ema.decay": [1]},
    ),
]


def name_row(row: tuple[object, ...]) -> str:
    return " ".join(str(part) for part in row[1:-1])


@pytest.mark.parametrize("row", ROWS, ids=name_row)
def test_what_it_is(tmp_path: Path, row: tuple[str, str, Shapes]) -> None:
    kind, title, shapes = row
    identified = identify_file(write_weights(tmp_path / "file.safetensors", shapes))
    assert (identified.kind, identified.title, identified.problem) == (kind, title, "")


@pytest.mark.parametrize("row", REFUSED, ids=name_row)
def test_why_it_cannot_be_used(tmp_path: Path, row: tuple[str, str, str, Shapes]) -> None:
    kind, title, words, shapes = row
    identified = identify_file(write_weights(tmp_path / "file.safetensors", shapes))
    assert (identified.kind, identified.title) == (kind, title)
    assert words in identified.problem


@pytest.mark.parametrize("channels", [4, 16, 32])
def test_channels_of_an_autoencoder(tmp_path: Path, channels: int) -> None:
    path = write_weights(tmp_path / "file.safetensors", {VAE: [512, channels, 3, 3]})
    assert identify_file(path).contents == (f"{channels} latent channels",)


def test_the_header_says_that_it_is_quantised(tmp_path: Path) -> None:
    path = write_weights(
        tmp_path / "file.safetensors", SD1, metadata={"_quantization_metadata": "{}"}
    )
    assert "quantised" in identify_file(path).problem


@pytest.mark.parametrize(
    ("shapes", "facts"),
    [
        (SD1, "without autoencoder and text encoder"),
        (SDXL | {VAE: [512, 4, 3, 3]}, "denoiser, autoencoder, without text encoder"),
        (SD1 | {"cond_stage_model.x": [4]}, "denoiser, text encoder, without autoencoder"),
        (SD1 | WHOLE | {"model_ema.x": [4]}, "moving average (EMA)"),
    ],
)
def test_pruned_and_ema(tmp_path: Path, shapes: Shapes, facts: str) -> None:
    identified = identify_file(write_weights(tmp_path / "file.safetensors", shapes))
    assert facts in identified.description
    assert identified.problem == ""


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_plain_fp8_is_allowed_and_said(tmp_path: Path, dtype: str) -> None:
    identified = identify_file(write_weights(tmp_path / "file.safetensors", SD1 | WHOLE, dtype))
    assert identified.problem == ""
    assert "8 bit" in identified.description


def test_every_rule_names_a_kind_and_a_family() -> None:
    assert {rule.kind for rule in RULES} <= KIND_TITLES.keys()
    assert {rule.family for rule in RULES} - {""} <= FAMILY_TITLES.keys()
    assert KIND_FOLDERS.keys() <= KIND_TITLES.keys()
