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

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES

FileKind = Literal[
    "checkpoint",
    "denoiser",
    "lora",
    "vae",
    "text encoder",
    "image encoder",
    "embedding",
    "controlnet",
    "ip-adapter",
    "upscaler",
    "unknown",
]

# What each kind is called in a sentence, and its folder in a home; none while it has no use there.
KIND_TITLES: dict[FileKind, str] = {
    "checkpoint": "checkpoint",
    "denoiser": "denoiser",
    "lora": "LoRA",
    "vae": "autoencoder (VAE)",
    "text encoder": "text encoder",
    "image encoder": "image encoder (CLIP vision)",
    "embedding": "textual inversion",
    "controlnet": "ControlNet",
    "ip-adapter": "IP-Adapter",
    "upscaler": "upscaler",
    "unknown": "safetensors file of an unknown kind",
}
KIND_FOLDERS: dict[FileKind, str] = {
    "lora": "loras",
    "checkpoint": "models",
    "denoiser": "models",
    "vae": "vae",
    "text encoder": "text_encoders",
    "embedding": "embeddings",
    "upscaler": "upscalers",
}
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
    "wan": "Wan",
}
FLOW_FAMILIES = frozenset(FAMILY_TITLES) - {"sd1", "sd2", "sdxl", "sdxl-refiner"}

# Width of the text embeddings that the U-Net reads.
FAMILY_BY_CROSS_ATTENTION_DIM: dict[int, FamilyName] = {
    family.shape.unet.cross_attention_dim: family.name
    for family in FAMILIES.values()
    if family.shape
}
# Width of the text encoder of families that have only one.
FAMILY_BY_TEXT_ENCODER_WIDTH: dict[int, FamilyName] = {
    family.shape.text_encoders[0].hidden_size: family.name
    for family in FAMILIES.values()
    if family.shape and len(family.text_encoders) == 1
}
# Parts of what trainers write about the base model; the first that occurs counts.
FAMILY_BY_VERSION: dict[str, FamilyName] = {
    family.lora_naming.version_mark: family.name
    for family in reversed(FAMILIES.values())
    if family.lora_naming
}
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
    "text_encoder.": "text encoder",
    "model_ema.": "moving average (EMA)",
}


# Begin the names of an autoencoder's tensors.
VAE_PREFIXES = ("", "first_stage_model.", "vae.")
# Endings of tensors that stand beside weights of few bits and give them their meaning.
QUANTISED_ENDINGS = (
    ".comfy_quant",  # ComfyUI
    ".weight_scale_2",
    ".absmax",  # bitsandbytes
    ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
    ".qweight",  # GPTQ, AWQ, SVDQuant
    ".wscales",
)


@dataclass(frozen=True)
class Rule:
    """One row of the table: a file is of that kind if all `names` occur and all `sizes` fit.

    Attributes:
        kind: What the file is.
        names: Names of tensors, the denoiser's prefix taken off; `a.*` is any that begins so,
            `*.a` any that ends so.
        family: Of which family; empty where it is not said by this row.
        sizes: (name of a tensor, axis, size in elements) of tensors that have to be of that size;
            of `*.a` the first that ends so.
        variant: What it is called where the kind's title is not exact enough.
        problem: Why the studio cannot use it, as the end of a sentence; empty if nothing speaks
            against it.
    """

    kind: FileKind
    names: tuple[str, ...]
    family: str = ""
    sizes: tuple[tuple[str, int, int], ...] = ()
    variant: str = ""
    problem: str = ""


def _by_context(
    kind: FileKind, names: tuple[str, ...], tensor: str, variant: str = "", problem: str = ""
) -> list[Rule]:
    """Return a row for each family by the width of the text that `tensor` takes, one for others."""
    rules = [
        Rule(kind, names, family, ((tensor, 1, width),), variant, problem)
        for width, family in FAMILY_BY_CROSS_ATTENTION_DIM.items()
    ]
    return [*rules, Rule(kind, names, variant=variant, problem=problem)]


_LDM = "input_blocks.0.0.weight"
_DIFFUSERS_UNET = "down_blocks.0.resnets.0.conv1.weight"
_CONTEXT = "*.attn2.to_k.weight"
_FLUX1 = "double_blocks.0.img_attn.norm.key_norm.scale"
_FLUX1_DIFFUSERS = ("single_transformer_blocks.0.attn.to_q.weight", "time_text_embed.*")
_FLUX2 = "single_stream_modulation.lin.weight"
_FLUX2_DIFFUSERS = "single_stream_modulation.linear.weight"
_FLUX2_WIDTHS = {3072: "flux2-klein-4b", 4096: "flux2-klein-9b", 6144: "flux2-dev"}
_NEEDS_GUIDANCE = (
    "wants the guidance as an input (a distilled model); take the model's LCM LoRA instead"
)
_UNKNOWN_FAMILY = "belongs to a family the studio does not know"
_NO_CONTROLNET = "works differently from a ControlNet, and the studio cannot use it"
_T2I_TENSORS = ("conv_in.weight", "body.0.in_conv.weight")  # the full one, the light one
# What takes pixels in blocks of 8 or 16 px a side, of grey or coloured pictures.
_T2I_FAMILIES = {64: "sd1", 192: "sd1", 256: "sdxl", 768: "sdxl"}
_CLIP = "text_model.embeddings.token_embedding.weight"
_CLIP_NAMES = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "OpenCLIP-G"}
# Language models that families read prompts with: (words, width) of their embeddings.
_LANGUAGE_MODELS = {
    (151_936, 1024): "Qwen3-0.6B",
    (151_936, 2560): "Qwen3-4B",
    (151_936, 4096): "Qwen3-8B",
    (152_064, 3584): "Qwen2.5-VL-7B",
    (256_000, 2304): "Gemma 2 2B",
    (128_256, 4096): "Llama 3 8B",
    (131_072, 5120): "Mistral Small 3",
    (32_128, 4096): "T5-XXL",
    (256_384, 4096): "UMT5-XXL",
}
# Names in their files: of transformers (decoders, T5), and of llama.cpp in GGUF (the same).
_LANGUAGE_MODEL_TENSORS = (
    ("*layers.0.self_attn.q_proj.weight", "*embed_tokens.weight"),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"),
    ("blk.0.attn_q.weight", "token_embd.weight"),
    ("enc.blk.0.attn_q.weight", "token_embd.weight"),
)

# The first row that fits counts.
RULES: tuple[Rule, ...] = (
    # ---- beside a model ----
    *_by_context(
        "controlnet",
        ("lora_controlnet",),
        "*.attn2.to_k.down",
        variant="Control-LoRA",
        problem=_NO_CONTROLNET,
    ),
    Rule("controlnet", ("lllite_*",), variant="ControlNet-LLLite", problem=_NO_CONTROLNET),
    Rule("controlnet", ("task_embedding",), "sdxl", variant="union ControlNet"),
    Rule("controlnet", ("control_model.task_embedding",), "sdxl", variant="union ControlNet"),
    Rule("controlnet", ("control_model.label_emb.0.0.weight",), "sdxl"),
    *_by_context("controlnet", ("control_model.*",), _CONTEXT),
    Rule("controlnet", ("controlnet_cond_embedding.*", "add_embedding.*"), "sdxl"),
    *_by_context("controlnet", ("controlnet_cond_embedding.*",), _CONTEXT),
    Rule("controlnet", ("input_hint_block.*", "label_emb.0.0.weight"), "sdxl"),
    *_by_context("controlnet", ("input_hint_block.*",), _CONTEXT),
    Rule("controlnet", ("controlnet_blocks.0.*", "double_blocks.0.*"), "flux1"),
    Rule("controlnet", ("controlnet_blocks.0.*", "controlnet_single_blocks.0.*"), "flux1"),
    Rule("controlnet", ("controlnet_blocks.0.*", "txt_norm.weight"), "qwen-image"),
    Rule("controlnet", ("controlnet_blocks.0.*", "pos_embed_input.*"), "sd3"),
    Rule("controlnet", ("controlnet_blocks.0.*",)),
    Rule("controlnet", ("control_layers.0.*", "control_all_x_embedder.*"), "z-image"),
    *(
        Rule(
            "controlnet",
            (prefix + tensor, f"{prefix}body.0.*"),
            family,
            ((prefix + tensor, 1, channels),),
            variant="T2I-Adapter",
            problem=_NO_CONTROLNET,
        )
        for prefix in ("", "adapter.")
        for tensor in _T2I_TENSORS
        for channels, family in _T2I_FAMILIES.items()
    ),
    *(
        rule
        for names, variant in (
            (("image_proj.perceiver_resampler.*",), "IP-Adapter FaceID Plus"),
            (("ip_adapter.0.to_q_lora.*",), "IP-Adapter FaceID"),
            (("image_proj.latents",), "IP-Adapter Plus"),
            ((), ""),
        )
        for rule in _by_context(
            "ip-adapter",
            ("image_proj.*", "ip_adapter.*", *names),
            "*.to_k_ip.weight",
            variant=variant,
        )
    ),
    Rule("ip-adapter", ("ip_adapter_proj_model.*",), "flux1"),
    Rule("embedding", ("emb_params",)),
    Rule("embedding", ("string_to_param.*",)),
    Rule("embedding", ("clip_l", "clip_g"), "sdxl"),
    Rule("embedding", ("clip_g",), "sdxl"),
    # ---- U-Nets in the names of LDM and sgm, and in those of diffusers ----
    Rule("denoiser", (_LDM, "time_embed_cond.*"), problem=_NEEDS_GUIDANCE),
    Rule(
        "denoiser",
        (_LDM,),
        "sdxl-refiner",
        ((_CONTEXT, 1, 1280), ("label_emb.0.0.weight", 1, 2560)),
        problem="only refines what SDXL has started, and cannot make images on its own",
    ),
    Rule("denoiser", (_DIFFUSERS_UNET, "time_embedding.cond_proj.*"), problem=_NEEDS_GUIDANCE),
    Rule(
        "denoiser",
        (_DIFFUSERS_UNET,),
        "sdxl-refiner",
        ((_CONTEXT, 1, 1280), ("add_embedding.linear_1.weight", 1, 2560)),
        problem="only refines what SDXL has started, and cannot make images on its own",
    ),
    *(
        Rule("denoiser", (first,), family, ((_CONTEXT, 1, width),))
        for first in (_LDM, _DIFFUSERS_UNET)
        for width, family in FAMILY_BY_CROSS_ATTENTION_DIM.items()
    ),
    Rule("denoiser", (_LDM,), problem=_UNKNOWN_FAMILY),
    Rule("denoiser", (_DIFFUSERS_UNET,), problem=_UNKNOWN_FAMILY),
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
    Rule("denoiser", ("layers.0.adaLN_modulation.*", "cap_embedder.*"), problem=_UNKNOWN_FAMILY),
    Rule("denoiser", ("llm_adapter.blocks.0.cross_attn.q_proj.weight",), "anima"),
    Rule(
        "denoiser",
        ("blocks.0.mlp.layer1.weight", "blocks.0.cross_attn.*"),
        "cosmos-predict2",
        problem="belongs to a family the studio does not support",
    ),
    *(
        Rule("denoiser", (_FLUX2,), family, (("img_in.weight", 0, width),))
        for width, family in _FLUX2_WIDTHS.items()
    ),
    *(
        Rule("denoiser", (_FLUX2_DIFFUSERS,), family, (("x_embedder.weight", 0, width),))
        for width, family in _FLUX2_WIDTHS.items()
    ),
    Rule("denoiser", (_FLUX2,), "flux2"),
    Rule("denoiser", (_FLUX2_DIFFUSERS,), "flux2"),
    Rule(
        "denoiser",
        ("early_stream_modulations.image.lin.weight", "ref_time_in.*"),
        "flux3-klein",
    ),
    Rule("denoiser", ("early_stream_modulations.image.lin.weight",), "flux3-klein-base"),
    Rule("denoiser", ("txtfusion.projector.weight",), "krea2"),
    Rule("denoiser", ("text_fusion.projector.weight",), "krea2"),
    Rule("denoiser", ("distilled_guidance_layer.*",), "chroma"),
    Rule("denoiser", (_FLUX1,), "flux1-fill", (("img_in.weight", 1, 384),)),
    Rule("denoiser", (_FLUX1,), "flux1-control", (("img_in.weight", 1, 128),)),
    Rule("denoiser", (_FLUX1, "guidance_in.*"), "flux1-dev"),
    Rule("denoiser", (_FLUX1,), "flux1-schnell"),
    Rule("denoiser", _FLUX1_DIFFUSERS, "flux1-fill", (("x_embedder.weight", 1, 384),)),
    Rule("denoiser", _FLUX1_DIFFUSERS, "flux1-control", (("x_embedder.weight", 1, 128),)),
    Rule(
        "denoiser",
        (*_FLUX1_DIFFUSERS, "time_text_embed.guidance_embedder.*"),
        "flux1-dev",
        (("x_embedder.weight", 1, 64),),
    ),
    Rule("denoiser", _FLUX1_DIFFUSERS, "flux1-schnell", (("x_embedder.weight", 1, 64),)),
    Rule(
        "denoiser",
        ("transformer_blocks.0.attn.add_q_proj.weight", "txt_norm.weight"),
        "qwen-image",
    ),
    Rule("denoiser", ("txt_in.text_norm.weight",), "qwen-image-2.1"),
    Rule("denoiser", ("joint_blocks.0.*",), "sd3"),
    Rule(
        "denoiser",
        ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"),
        "sd3",
    ),
    # ---- parts of a model ----
    *(
        Rule("vae", (f"{prefix}decoder.conv_in.weight", f"{prefix}bn.running_mean"), "flux2")
        for prefix in VAE_PREFIXES
    ),
    *(Rule("vae", (f"{prefix}decoder.conv_in.weight",)) for prefix in VAE_PREFIXES),
    Rule("vae", ("decoder.middle.0.residual.0.gamma",)),
    *(
        Rule("text encoder", (prefix + _CLIP,), "", sizes, variant)
        for prefix in ("", "transformer.")
        for sizes, variant in (
            *(
                (((prefix + _CLIP, 1, width),), f"text encoder {name}")
                for width, name in _CLIP_NAMES.items()
            ),
            ((), ""),
        )
    ),
    Rule("text encoder", ("token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight")),
    *(
        Rule(
            "text encoder",
            (first, words),
            sizes=((words, 0, vocabulary), (words, 1, width)),
            variant=f"text encoder {name}",
        )
        for first, words in _LANGUAGE_MODEL_TENSORS
        for (vocabulary, width), name in _LANGUAGE_MODELS.items()
    ),
    *(Rule("text encoder", names) for names in _LANGUAGE_MODEL_TENSORS),
    Rule("image encoder", ("vision_model.embeddings.patch_embedding.weight",)),
    # ---- upscalers: SRVGG, then RRDB in its new and its old names, others with a body between ----
    Rule(
        "upscaler",
        ("body.0.weight", "body.1.weight"),
        sizes=(("body.0.weight", 1, 3),),
        variant="upscaler (compact)",
    ),
    Rule("upscaler", ("conv_first.weight", "body.0.rdb1.conv1.weight"), variant="ESRGAN upscaler"),
    Rule("upscaler", ("conv_first.weight", "conv_last.weight")),
    Rule(
        "upscaler",
        ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        variant="ESRGAN upscaler",
    ),
)
# Kinds that have names of LoRAs in them too, and are asked about first.
KINDS_BEFORE_LORA: frozenset[FileKind] = frozenset({"controlnet", "ip-adapter"})

# What layer names of an adapter show of its family; the first that occurs counts.
ADAPTER_FAMILIES: dict[str, str] = {
    r"lora_te2_|text_encoder_2\.": "sdxl",
    # FLUX.2 fuses what FLUX.1 has apart, and has one modulation for all blocks.
    r"single_transformer_blocks[._]\d+[._]attn[._]to_qkv_mlp_proj|_stream_modulation[._]": "flux2",
    r"double_blocks[._]0[._]img_attn|single_blocks[._]\d+[._]linear1": "flux1",
    r"single_transformer_blocks[._]": "flux1",
    r"joint_blocks[._]|joint_transformer_blocks[._]": "sd3",
    r"layers[._]\d+[._](?:attention[._](?:qkv|to_q|out)|feed_forward[._]w1)": "z-image",
    r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj": "qwen-image",
    r"llm_adapter[._]": "anima",
    r"(?:^|[._])blocks[._]\d+[._](?:self|cross)_attn[._][qkvo][._]": "wan",
}
# (tensor of an adapter, axis, size in elements) that every FLUX.1 has; in the same names FLUX.2 has
# other widths, or wider layers in its single blocks.
FLUX1_SIZES = (
    (r"double_blocks[._]\d+[._](?:img|txt)_attn[._]qkv\b.*(?:down|lora_A)", 1, 3072),
    (r"single_blocks[._]\d+[._]linear1\b.*(?:up|lora_B)", 0, 7 * 3072),
)
# Families whose LoRAs can be put on a model.
ADAPTABLE_FAMILIES = frozenset(family.name for family in FAMILIES.values() if family.lora_naming)
