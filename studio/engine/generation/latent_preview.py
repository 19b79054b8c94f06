"""Previews: latents → a small JPEG, for a hundredth of what the autoencoder would cost.

Knows: that colour is nearly linear in latents, and how to find that line for any autoencoder.
Does not know: when to show one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image

from studio.engine.models.families import Parts

SIDE = 256  # pixels; small latents are enlarged to about this
SAMPLES, CELLS, SPREAD = (
    16,
    16,
    1.5,
)  # fitted on 16 smooth random pictures of 16 × 16 latents, about as strong as real ones


@torch.inference_mode()
def jpeg(parts: Parts, latents: Sequence[torch.Tensor]) -> bytes:
    """Pictures side by side, as they look so far."""
    colours = _colours(parts)
    pictures = []
    for one in latents:
        flat = torch.cat(
            [one[0].float().flatten(1), torch.ones(1, one[0, 0].numel(), device=one.device)]
        )
        rgb = (colours @ flat).view(3, *one.shape[2:]).clamp(-1, 1)
        pictures.append(((rgb + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width = pictures[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for k, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (k % columns * width, k // columns * height))
    enlarge = max(1, SIDE // max(sheet.size))
    out = io.BytesIO()
    sheet.resize((sheet.width * enlarge, sheet.height * enlarge), Image.Resampling.BICUBIC).save(
        out, "JPEG", quality=80
    )
    return out.getvalue()


def _colours(parts: Parts) -> torch.Tensor:
    """(3, channels + 1): latents and a one → red, green, blue in -1 … 1. Fitted at the first preview of a model."""
    if parts.colours is None:
        parts.colours = _fit(parts)
    return parts.colours


def _fit(parts: Parts) -> torch.Tensor:
    """Least squares between smooth random latents and what the autoencoder shows, averaged over each latent's pixels."""
    seeds = (
        torch.randn(SAMPLES, parts.channels, 4, 4, generator=torch.Generator().manual_seed(0))
        * SPREAD
    )
    latents = torch.nn.functional.interpolate(seeds, size=CELLS, mode="bilinear")
    shown = torch.cat(
        [parts.decode(one[None].to(parts.device.torch)).float().cpu() for one in latents]
    )
    colours = (
        torch.nn.functional.avg_pool2d(shown, parts.scale)
        .clamp(-1, 1)
        .movedim(1, -1)
        .reshape(-1, 3)
    )
    points = latents.movedim(1, -1).reshape(-1, parts.channels)
    points = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    return torch.linalg.lstsq(points, colours).solution.T.contiguous().to(parts.device.torch)
