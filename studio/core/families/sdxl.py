"""Stable Diffusion XL (arXiv:2307.01952).

Knows: its parts with both text encoders, sizes, its names in LoRA files, how its configs are
recognised. Does not know: how it is computed (engine/models/families/sdxl.py).
"""

from __future__ import annotations

from functools import partial

from studio.core.families.family import Family, LoraNaming, TextEncoderPart
from studio.core.families.shapes import CLIP_L, ModelShape, TextEncoderShape, UNetShape
from studio.core.families.unet_config import read_unet_config

SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline_classes=("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline"),
    text_encoders=(
        TextEncoderPart("tokenizer", "text_encoder"),
        TextEncoderPart("tokenizer_2", "text_encoder_2"),
    ),
    read_config=partial(read_unet_config, native_size=1024),
    native_size=1024,
    common_sizes=(
        (1024, 1024),
        (832, 1216),
        (1216, 832),
        (896, 1152),
        (1152, 896),
        (768, 1344),
        (1344, 768),
    ),
    penultimate_layer=True,
    usual_clip_skip=2,
    pooled_prompt=True,
    training_clip_skip=False,
    shape=ModelShape(
        UNetShape((320, 640, 1280), (0, 2, 10), 10, 2, 2048, True),
        (CLIP_L, TextEncoderShape(32, 1280, 5120, True)),
    ),
    lora_naming=LoraNaming(
        {
            "unet": "lora_unet_",
            "text_encoder": "lora_te1_text_model_",
            "text_encoder_2": "lora_te2_text_model_",
        },
        uses_sgm_names=True,
        architecture="stable-diffusion-xl-v1-base",
        base_model_version="sdxl_base_v1-0",
        version_mark="xl",
        implementation="https://github.com/Stability-AI/generative-models",
        says_prediction=False,
    ),
    optimized_levels=(
        *(14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    ),
    name_pattern=r"xl(?![a-z])",
)
