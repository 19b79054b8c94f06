"""Stable Diffusion 1.x (arXiv:2112.10752).

Knows: its parts, sizes and prediction, its names in LoRA files, how its configs are recognised.
Does not know: how it is computed (engine/models/families/sd1.py), its siblings.
"""

from __future__ import annotations

from functools import partial

from studio.core.families.family import Family, LoraNaming, TextEncoderPart
from studio.core.families.shapes import CLIP_L, ModelShape, UNetShape
from studio.core.families.unet_config import read_unet_config

SD_SIZES = ((512, 512), (512, 768), (768, 512), (512, 640), (640, 512))
SD_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
SD_TEXT_ENCODERS = (TextEncoderPart("tokenizer", "text_encoder"),)
SD_LORA_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}

SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline_classes=SD_PIPELINES,
    text_encoders=SD_TEXT_ENCODERS,
    read_config=partial(read_unet_config, native_size=512),
    native_size=512,
    common_sizes=SD_SIZES,
    shape=ModelShape(UNetShape((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 2, 768, False), (CLIP_L,)),
    lora_naming=LoraNaming(
        SD_LORA_PREFIXES,
        uses_sgm_names=False,
        architecture="stable-diffusion-v1",
        base_model_version="sd_v1",
        version_mark="v1",
        implementation="diffusers",
    ),
    name_pattern=r"sd[-_]?v?1|diffusion-v?1|v1[-_.]?[45]",
)
