"""Z-Image and Z-Image-Turbo (arXiv:2511.22699): a transformer that follows a flow.

Knows: its parts, sizes, guidance and noise levels, how its configs are recognised.
Does not know: how it is computed (engine/models/families/z_image.py), its LoRAs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from studio.core.families.family import ConfigFacts, Family, TextEncoderPart
from studio.core.families.unet_config import get_vae_scale_factor
from studio.errors import BadFile, UnknownFamily

NATIVE_SIZE_PX = 1024
MAX_WIDTH = 10**5  # real transformers have 3,840
PATCH_SIDE = 2  # latents along one side of a token
# Numbers that a block holds at once for each token, in widths of the network: queries, keys,
# values, the two halves of the feed-forward (8/3 each), residuals and norms.
ELEMENTS_PER_TOKEN_AND_WIDTH = 12
TURBO_SHIFT = 3.0  # of the shipped noise schedule; the base model's is 6


def read_z_image_config(
    transformer_config: Mapping[str, Any], vae_config: Mapping[str, Any]
) -> ConfigFacts:
    """Read what the configs of the transformer and the autoencoder say.

    Raises:
        UnknownFamily: The two do not go together.
        BadFile: A size is none that can be.
    """
    try:
        channels = int(transformer_config.get("in_channels", 16))
        width = int(transformer_config.get("dim", 3840))
        latent_channels = int(vae_config.get("latent_channels", 4))
        if not 1 <= width <= MAX_WIDTH:
            raise ValueError(width)
    except (TypeError, ValueError, OverflowError):
        raise BadFile("its transformer's config gives no valid widths.") from None
    if channels != latent_channels:
        raise UnknownFamily(
            f"its transformer takes {channels} channels but its autoencoder makes "
            f"{latent_channels}; they belong to different models."
        )
    pixels_per_token = (get_vae_scale_factor(vae_config) * PATCH_SIDE) ** 2
    elements = ELEMENTS_PER_TOKEN_AND_WIDTH * width / pixels_per_token
    return ConfigFacts(NATIVE_SIZE_PX, max(1, math.ceil(elements)))


def recommend_z_image_settings(scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that its authors give: few steps without guidance for Turbo."""
    settings: dict[str, Any] = {"scheduler": "Euler", "noise_schedule": "Automatic"}
    if scheduler_config.get("shift") == TURBO_SHIFT:
        return settings | {"steps": 8, "guidance": 1.0}
    return settings | {"steps": 28, "guidance": 5.0}


Z_IMAGE = Family(
    name="z-image",
    title="Z-Image",
    pipeline_classes=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
    denoiser="transformer",
    text_encoders=(TextEncoderPart("tokenizer", "text_encoder"),),
    read_config=read_z_image_config,
    recommend_settings=recommend_z_image_settings,
    native_size=NATIVE_SIZE_PX,
    common_sizes=(
        (1024, 1024),
        (832, 1216),
        (1216, 832),
        (896, 1152),
        (1152, 896),
        (720, 1280),
        (1280, 720),
    ),
    size_multiple=16,
    noise_process="flow",
    guidance="cfg from positive",
    # Those that end at no noise along a flow; the others leave some, or know no flow at all.
    noise_schedules={
        "Euler": ("Model default", "Karras", "Exponential", "Beta"),
        "Euler a": ("Model default",),
        "Heun": ("Model default",),
        "DPM++ 2M": ("Model default",),
        "DPM++ 2M SDE": ("Model default",),
        "UniPC": ("Model default",),
        "LCM": ("Model default",),
    },
    weighs_words=False,
    max_clip_skip=1,
)
