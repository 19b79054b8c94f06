"""The configs of Stable Diffusion's U-Nets and autoencoders.

Knows: what their numbers say of a model's size and use. Does not know: families, files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from studio.core.families.family import ConfigFacts
from studio.errors import BadFile, UnknownFamily, quote

MAX_NATIVE_SIZE_PX = 16_384
MAX_ELEMENTS_PER_PIXEL = 10**6  # SDXL has about 800
MAX_LEVELS = 16  # real autoencoders have 4
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 9  # the latents, the mask and the masked image's latents


def read_unet_config(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any], native_size: int
) -> ConfigFacts:
    """Read what the configs of a U-Net and its autoencoder say.

    Args:
        unet_config: The U-Net's config.json.
        vae_config: The autoencoder's.
        native_size: The side in pixels that the family was made for.

    Raises:
        UnknownFamily: The U-Net has another number of inputs than we can give it.
        BadFile: A size is none that can be.
    """
    in_channels = unet_config.get("in_channels")
    if in_channels not in (LATENT_CHANNELS, INPAINTING_CHANNELS):
        raise UnknownFamily(
            f"its U-Net takes {quote(in_channels)} channels; the studio supports 4, and 9 for "
            "inpainting."
        )
    return ConfigFacts(
        _read_native_size(unet_config, vae_config, native_size),
        _estimate_activation_elements(unet_config, vae_config),
        is_inpainting=in_channels == INPAINTING_CHANNELS,
    )


def estimate_decode_elements(vae_config: Mapping[str, Any]) -> int:
    """Estimate how many numbers the autoencoder holds at once per pixel when it decodes.

    At its widest it has the second level's channels at the image's full size: a residual, the same
    normalised and activated, and on a card once more as its convolution lays it out (measured on an
    H100: 4 GiB for Stable Diffusion's at 1024² in float32; a CPU holds three). The picture's three
    are added.
    """
    try:
        channels = [int(width) for width in vae_config.get("block_out_channels", (128, 256))]
        return _check_elements(4 * channels[min(1, len(channels) - 1)] + 3)
    except (TypeError, ValueError, IndexError, OverflowError):
        raise BadFile("its autoencoder's config gives no valid widths.") from None


def get_vae_scale_factor(vae_config: Mapping[str, Any]) -> int:
    """Return image pixels per latent pixel and side: each level but the last halves the size.

    Raises BadFile for an autoencoder that can be none.
    """
    widths = vae_config.get("block_out_channels", (1, 2, 3, 4))
    if not isinstance(widths, list | tuple) or not 1 <= len(widths) <= MAX_LEVELS:
        raise BadFile("its autoencoder's config gives no valid widths.")
    return 1 << (len(widths) - 1)


def _check_elements(number: int) -> int:
    """Return how many numbers a pixel takes. Raises ValueError where no memory holds them."""
    if not 1 <= number <= MAX_ELEMENTS_PER_PIXEL:
        raise ValueError(number)
    return number


def _read_native_size(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any], native_size: int
) -> int:
    """Return the side in pixels of the images that a model was trained on."""
    try:
        latent_side = int(unet_config.get("sample_size") or native_size // 8)
        side = latent_side * get_vae_scale_factor(vae_config)
    except (TypeError, ValueError, OverflowError):
        side = 0
    if not 8 <= side <= MAX_NATIVE_SIZE_PX:
        raise BadFile("the configs of its U-Net and autoencoder give no valid image size.")
    return side


def _estimate_activation_elements(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any]
) -> int:
    """Estimate how many activations the U-Net holds at once per image pixel; rather too many.

    At its widest it holds the gated feed-forward of the first level's attention (about 20 × its
    channels) and the skip connections of all levels.
    """
    try:
        channels = [
            int(width) for width in unet_config.get("block_out_channels", (320, 640, 1280, 1280))
        ]
        layers = int(unet_config.get("layers_per_block", 2))
        skips = sum((layers + 1) * width / 4.0**level for level, width in enumerate(channels))
        per_latent_pixel = 20 * channels[0] + skips
        elements = math.ceil(per_latent_pixel / get_vae_scale_factor(vae_config) ** 2)
        return _check_elements(max(1, elements))
    except (TypeError, ValueError, IndexError, OverflowError):
        raise BadFile("its U-Net's config gives no valid widths.") from None
