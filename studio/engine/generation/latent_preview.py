"""Previews: latents → a small JPEG, for a hundredth of what the autoencoder would cost.

Knows: that colour is nearly linear in latents, and how to fit that line for any autoencoder.
Does not know: when to show a preview.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from studio.engine.models.loaded_model import LoadedModel

PREVIEW_SIDE_PX = 256  # small latents are enlarged to about this
# Fitted on 16 smooth random images of 16 × 16 latents, about as strong as real ones.
FIT_SAMPLES = 16
FIT_LATENT_SIDE = 16
FIT_LATENT_STD = 1.5


@torch.inference_mode()
def render_jpeg(model: LoadedModel, latents: Sequence[torch.Tensor]) -> bytes:
    """Render a preview of several images in one sheet.

    Args:
        model: Whose autoencoder the latents belong to.
        latents: One image's each, (1, channels, rows, columns), all of one size.

    Returns:
        A JPEG file.
    """
    matrix = _get_preview_matrix(model)
    images = [_to_rgb(matrix, image_latents) for image_latents in latents]
    num_columns = math.ceil(math.sqrt(len(images)))
    num_rows = math.ceil(len(images) / num_columns)
    height, width = images[0].shape[:2]
    sheet = Image.new("RGB", (num_columns * width, num_rows * height))
    for index, image in enumerate(images):
        row, column = divmod(index, num_columns)
        sheet.paste(Image.fromarray(image), (column * width, row * height))
    scale = max(1, PREVIEW_SIDE_PX // max(sheet.size))
    sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _to_rgb(matrix: torch.Tensor, latents: torch.Tensor) -> np.ndarray:
    """Return bytes (rows, columns, 3) of latents (1, channels, rows, columns)."""
    flat = latents[0].float().flatten(1)
    flat = torch.cat([flat, torch.ones_like(flat[:1])])
    rgb = (matrix @ flat).view(3, *latents.shape[2:]).clamp(-1, 1)
    return ((rgb + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _get_preview_matrix(model: LoadedModel) -> torch.Tensor:
    """Return (3, channels + 1): latents and a one → RGB in -1 … 1; fitted at the first preview."""
    if model.preview_matrix is None:
        model.preview_matrix = _fit_preview_matrix(model)
    return model.preview_matrix


def _fit_preview_matrix(model: LoadedModel) -> torch.Tensor:
    """Fit by least squares smooth random latents to what the autoencoder decodes them to.

    The decoded colours are averaged over each latent's pixels.
    """
    device = model.device.torch_device
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(FIT_SAMPLES, model.latent_channels, 4, 4, generator=generator)
    latents = torch.nn.functional.interpolate(
        coarse * FIT_LATENT_STD, size=FIT_LATENT_SIDE, mode="bilinear"
    )
    pixels = torch.cat([model.decode(sample[None].to(device)).float().cpu() for sample in latents])
    colours = torch.nn.functional.avg_pool2d(pixels, model.vae_scale_factor).clamp(-1, 1)
    colours = colours.movedim(1, -1).reshape(-1, 3)
    points = latents.movedim(1, -1).reshape(-1, model.latent_channels)
    points = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    return torch.linalg.lstsq(points, colours).solution.T.contiguous().to(device)
