"""How much memory a request takes, from the sizes of its model's files and of its image.

Knows: what weights take in another number format, what denoising and decoding hold.
Does not know: how much there is, what is done about it (core/generation/memory_policy.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.core.families.family import DENOISER, TEXT_ENCODERS, VAE
from studio.core.families.registry import FAMILIES
from studio.core.generation.memory_policy import FP8_SHARE, ModelBytes
from studio.core.generation.request import ResolvedRequest
from studio.core.generation.rules import plan_passes
from studio.storage.models.library import ModelInfo

BYTES_PER_NUMBER = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1}
BRANCHES = 2  # rows of one image: for the prompt and for the negative one
MAX_TILE_PIXELS = 512 * 512  # of one that the autoencoder works on at a time (tiled_vae.py)


def measure_request(
    info: ModelInfo,
    requests: Iterable[ResolvedRequest],
    *,
    dtype_bytes: int,
    vae_dtype_bytes: int,
    adapter_bytes: int = 0,
) -> ModelBytes:
    """Return what a model and its work on the largest of some requests take.

    Args:
        info: The model.
        requests: One of its images at a time is made.
        dtype_bytes: Bytes of a number of the text encoders and the denoiser.
        vae_dtype_bytes: The same of the autoencoder.
        adapter_bytes: What their LoRAs take.
    """
    parts = {
        part: measure_part(info, part, dtype_bytes=vae_dtype_bytes if part == VAE else dtype_bytes)
        for part in (TEXT_ENCODERS, DENOISER, VAE)
    }
    pixels = max(count_pixels(request) for request in requests)
    decode_bytes_per_pixel = info.decode_elements_per_pixel * vae_dtype_bytes
    return ModelBytes(
        text_encoders=parts[TEXT_ENCODERS],
        denoiser=parts[DENOISER],
        vae=parts[VAE],
        denoiser_fp8=int(parts[DENOISER] * FP8_SHARE) // dtype_bytes,
        adapters=adapter_bytes,
        denoise=BRANCHES * info.activation_elements_per_pixel * pixels * dtype_bytes,
        decode=decode_bytes_per_pixel * pixels,
        tiled_decode=decode_bytes_per_pixel * min(MAX_TILE_PIXELS, pixels),
    )


def count_pixels(request: ResolvedRequest) -> int:
    """Return the pixels of a request's largest pass, or of what it enlarges."""
    width, height = request.size
    areas = [area for _, area in plan_passes(request, request.size)]
    return int(width * height * max(1.0, *areas))


def measure_part(info: ModelInfo, part: str, *, dtype_bytes: int) -> int:
    """Return the bytes of a part's weights in memory.

    Args:
        info: The model, with the sizes of its files.
        part: DENOISER, TEXT_ENCODERS or VAE.
        dtype_bytes: Bytes of a number there.
    """
    folders = FAMILIES[info.family].part_folders[part]
    saved_bytes = sum(info.component_bytes.get(folder, 0) for folder in folders)
    return saved_bytes * dtype_bytes // BYTES_PER_NUMBER.get(info.dtype, 4)
