"""How model files are told apart: by names and shapes of tensors, as one table.

Knows: what the weights of each kind and family are called. Does not know: how a header is read, or
what is done with the answer (model_file.py); what the tensors of a LoRA and its relatives are
called (adapter_kinds.py); torch.

Sources: the state dicts of the original repositories (CompVis, Stability, Black Forest Labs,
Alibaba's Tongyi), of diffusers, transformers and kohya-ss/sd-scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.core.catalog import Family

FileKind = Literal[
    "checkpoint",
    "denoiser",
    "lora",
    "vae",
    "text encoder",
    "embedding",
    "controlnet",
    "ip-adapter",
    "upscaler",
    "unknown",
]

# What each kind is called in a sentence, and its folder in a home; empty while there is none.
KIND_TITLES: dict[FileKind, str] = {
    "checkpoint": "checkpoint",
    "denoiser": "denoiser without autoencoder and text encoders",
    "lora": "LoRA",
    "vae": "autoencoder (VAE)",
    "text encoder": "text encoder",
    "embedding": "textual inversion",
    "controlnet": "ControlNet",
    "ip-adapter": "IP-Adapter",
    "upscaler": "upscaler",
    "unknown": "safetensors file of a kind that the studio does not know",
}
KIND_FOLDERS: dict[FileKind, str] = {"lora": "loras", "checkpoint": "models", "denoiser": "models"}
FAMILY_TITLES = {
    "sd1": "SD 1.x",
    "sd2": "SD 2.x",
    "sdxl": "SDXL",
    "sdxl-refiner": "the SDXL refiner",
    "sd3": "SD 3",
    "flux1-dev": "FLUX.1 dev",
    "flux1-schnell": "FLUX.1 schnell",
    "flux1-fill": "FLUX.1 Fill",
    "flux1-control": "FLUX.1 Depth or Canny",
    "flux1": "FLUX.1",
    "flux2": "FLUX.2",
    "flux2-klein-4b": "FLUX.2 klein 4B",
    "flux2-klein-9b": "FLUX.2 klein 9B",
    "flux2-dev": "FLUX.2 dev",
    "flux3-klein": "FLUX.3 klein",
    "flux3-klein-base": "FLUX.3 klein base",
    "chroma": "Chroma",
    "z-image": "Z-Image",
    "lumina2": "Lumina 2",
    "anima": "Anima",
    "cosmos-predict2": "Cosmos-Predict2",
    "krea2": "Krea 2",
    "qwen-image": "Qwen-Image",
    "qwen-image-2.1": "Qwen-Image-2.1",
}
FLOW_FAMILIES = frozenset(FAMILY_TITLES) - {"sd1", "sd2", "sdxl", "sdxl-refiner"}

# Width of the text embeddings that the U-Net reads.
FAMILY_BY_CROSS_ATTENTION_DIM: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
# Width of the text encoder of families that have only one.
FAMILY_BY_TEXT_ENCODER_WIDTH: dict[int, Family] = {768: "sd1", 1024: "sd2"}
# Parts of what trainers write about the base model; the first that occurs counts.
FAMILY_BY_VERSION: dict[str, Family] = {"xl": "sdxl", "v2": "sd2", "v1": "sd1"}
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}

# Prefixes under which a denoiser's tensors lie in a file with other parts, or in ComfyUI's names.
DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "unet.")
# Begin the names of the other parts of a checkpoint.
PART_PREFIXES = {
    "first_stage_model.": "autoencoder",
    "vae.": "autoencoder",
    "cond_stage_model.": "text encoder",
    "conditioner.": "text encoders",
    "text_encoders.": "text encoders",
    "model_ema.": "moving average (EMA)",
}


@dataclass(frozen=True)
class Rule:
    """One row of the table: a file is of that kind if all `names` occur and all `sizes` fit.

    Attributes:
        kind: What the file is.
        names: Names of tensors, the denoiser's prefix taken off; `a.*` is any that begins so.
        family: Of which family; empty where it is not said by this row.
        sizes: (name of a tensor, axis, size in elements) of tensors that have to be of that size.
        problem: Why the studio cannot use it, as the end of a sentence; empty if nothing speaks
            against it.
    """

    kind: FileKind
    names: tuple[str, ...]
    family: str = ""
    sizes: tuple[tuple[str, int, int], ...] = ()
    problem: str = ""


_LDM = "input_blocks.0.0.weight"
_LDM_CONTEXT = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_LDM_CONTEXT_SD = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_DIFFUSERS_CONTEXT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_DIFFUSERS_UNET = "down_blocks.0.resnets.0.conv1.weight"
_FLUX1 = "double_blocks.0.img_attn.norm.key_norm.scale"
_FLUX2 = "single_stream_modulation.lin.weight"
_NEEDS_GUIDANCE = (
    "wants the guidance as an input (a distilled model); take the model's LCM LoRA instead"
)

# The first row that fits counts.
RULES: tuple[Rule, ...] = (
    # ---- beside a model ----
    Rule("controlnet", ("lora_controlnet",), problem="is a Control-LoRA"),
    Rule("controlnet", ("lllite_*",), problem="is a ControlNet-LLLite"),
    Rule("controlnet", ("task_embedding",), "sdxl"),
    Rule("controlnet", ("control_model.*", "control_model.label_emb.0.0.weight"), "sdxl"),
    Rule("controlnet", ("control_model.*",)),
    Rule("controlnet", ("controlnet_cond_embedding.*", "add_embedding.*"), "sdxl"),
    Rule("controlnet", ("controlnet_cond_embedding.*",)),
    Rule("controlnet", ("input_hint_block.*",)),
    Rule("ip-adapter", ("image_proj.*", "ip_adapter.*")),
    Rule("embedding", ("emb_params",)),
    Rule("embedding", ("string_to_param.*",)),
    Rule("embedding", ("clip_l", "clip_g"), "sdxl"),
    Rule("embedding", ("clip_g",), "sdxl"),
    # ---- U-Nets in the names of LDM and sgm ----
    Rule("denoiser", (_LDM, "time_embed_cond.*"), problem=_NEEDS_GUIDANCE),
    Rule("denoiser", (_LDM,), "sd1", ((_LDM_CONTEXT_SD, 1, 768),)),
    Rule("denoiser", (_LDM,), "sd2", ((_LDM_CONTEXT_SD, 1, 1024),)),
    Rule("denoiser", (_LDM,), "sdxl", ((_LDM_CONTEXT, 1, 2048),)),
    Rule(
        "denoiser",
        (_LDM,),
        "sdxl-refiner",
        ((_LDM_CONTEXT, 1, 1280), ("label_emb.0.0.weight", 1, 2560)),
        problem="only refines what SDXL has begun, and cannot paint by itself",
    ),
    Rule("denoiser", (_LDM,), problem="is of a family that the studio does not know"),
    # ---- U-Nets in the names of diffusers ----
    Rule("denoiser", (_DIFFUSERS_UNET, "time_embedding.cond_proj.*"), problem=_NEEDS_GUIDANCE),
    Rule("denoiser", (_DIFFUSERS_UNET,), "sd1", ((_DIFFUSERS_CONTEXT, 1, 768),)),
    Rule("denoiser", (_DIFFUSERS_UNET,), "sd2", ((_DIFFUSERS_CONTEXT, 1, 1024),)),
    Rule("denoiser", (_DIFFUSERS_UNET,), "sdxl", ((_DIFFUSERS_CONTEXT, 1, 2048),)),
    # ---- transformers ----
    Rule(
        "denoiser",
        ("layers.0.adaLN_modulation.0.weight", "cap_embedder.*"),
        "z-image",
        (("cap_embedder.1.weight", 0, 3840),),
    ),
    Rule(
        "denoiser",
        ("layers.0.feed_forward.w1.weight", "cap_embedder.*"),
        "lumina2",
        (("cap_embedder.0.weight", 0, 2304),),
    ),
    Rule("denoiser", ("llm_adapter.blocks.0.cross_attn.q_proj.weight",), "anima"),
    Rule("denoiser", ("blocks.0.mlp.layer1.weight", "blocks.0.cross_attn.*"), "cosmos-predict2"),
    Rule("denoiser", (_FLUX2,), "flux2-klein-4b", (("img_in.weight", 0, 3072),)),
    Rule("denoiser", (_FLUX2,), "flux2-klein-9b", (("img_in.weight", 0, 4096),)),
    Rule("denoiser", (_FLUX2,), "flux2-dev", (("img_in.weight", 0, 6144),)),
    Rule(
        "denoiser",
        ("early_stream_modulations.image.lin.weight", "ref_time_in.*"),
        "flux3-klein",
    ),
    Rule("denoiser", ("early_stream_modulations.image.lin.weight",), "flux3-klein-base"),
    Rule("denoiser", ("txtfusion.projector.weight",), "krea2"),
    Rule("denoiser", ("distilled_guidance_layer.*",), "chroma"),
    Rule("denoiser", (_FLUX1,), "flux1-fill", (("img_in.weight", 1, 384),)),
    Rule("denoiser", (_FLUX1,), "flux1-control", (("img_in.weight", 1, 128),)),
    Rule("denoiser", (_FLUX1, "guidance_in.*"), "flux1-dev"),
    Rule("denoiser", (_FLUX1,), "flux1-schnell"),
    Rule(
        "denoiser",
        ("transformer_blocks.0.attn.add_q_proj.weight", "txt_norm.weight"),
        "qwen-image",
    ),
    Rule("denoiser", ("txt_in.text_norm.weight",), "qwen-image-2.1"),
    Rule("denoiser", ("joint_blocks.0.*",), "sd3"),
    Rule("denoiser", ("single_transformer_blocks.0.*",), "flux1"),
    # ---- parts of a model ----
    Rule("vae", ("decoder.conv_in.weight",)),
    Rule("vae", ("first_stage_model.decoder.conv_in.weight",)),
    Rule("vae", ("vae.decoder.conv_in.weight",)),
    Rule("text encoder", ("text_model.embeddings.token_embedding.weight",)),
    Rule("text encoder", ("transformer.text_model.embeddings.token_embedding.weight",)),
    Rule("text encoder", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    Rule("text encoder", ("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight")),
    Rule("text encoder", ("layers.0.self_attn.q_proj.weight", "embed_tokens.weight")),
    # ---- upscalers: SRVGG, then RRDB in its new and its old names ----
    Rule("upscaler", ("body.0.weight", "body.1.weight"), sizes=(("body.0.weight", 1, 3),)),
    Rule("upscaler", ("conv_first.weight", "conv_last.weight")),
    Rule("upscaler", ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight")),
)

# What layer names of an adapter show of its family; the first that occurs counts.
ADAPTER_FAMILIES: dict[str, str] = {
    r"lora_te2_|text_encoder_2\.": "sdxl",
    r"double_blocks[._]0[._]img_attn|single_transformer_blocks[._]": "flux1",
    r"joint_blocks[._]|joint_transformer_blocks[._]": "sd3",
    r"layers[._]\d+[._](?:attention[._](?:qkv|to_q|out)|feed_forward[._]w1)": "z-image",
    r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj": "qwen-image",
    r"llm_adapter[._]": "anima",
}
