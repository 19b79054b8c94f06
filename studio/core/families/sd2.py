"""Stable Diffusion 2.x: SD 1.x with OpenCLIP's text encoder, many of its models predicting v.

Knows: what differs from sd1.py and how its configs are recognised.
Does not know: how it is computed (engine/models/families/sd2.py).
"""

from __future__ import annotations

from functools import partial

from studio.core.families.family import Family, LoraNaming
from studio.core.families.sd1 import SD_LORA_PREFIXES, SD_PIPELINES, SD_SIZES, SD_TEXT_ENCODERS
from studio.core.families.shapes import ModelShape, TextEncoderShape, UNetShape
from studio.core.families.unet_config import read_unet_config

SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    pipeline_classes=SD_PIPELINES,
    cross_attention_dim=1024,
    usual_clip_skip=2,  # of 24 layers; diffusers' encoder ends with the 23rd
    text_encoders=SD_TEXT_ENCODERS,
    read_config=partial(read_unet_config, native_size=768),
    native_size=768,
    common_sizes=SD_SIZES,
    shape=ModelShape(
        UNetShape((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 2, 1024, True),
        (TextEncoderShape(23, 1024, 4096),),
    ),
    lora_naming=LoraNaming(
        SD_LORA_PREFIXES,
        uses_sgm_names=False,
        architecture="stable-diffusion-v2",
        base_model_version="sd_v2",
        version_mark="v2",
        implementation="diffusers",
    ),
    name_pattern=r"sd[-_]?v?2|diffusion-v?2|v2-1",
)
