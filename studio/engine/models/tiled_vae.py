"""An autoencoder in tiles, where memory does not suffice for an image in one piece.

Knows: how large tiles are, and how diffusers is told. Does not know: when memory is full
(loaded_model.py).

Each tile has group-norm statistics of its own, so colours differ a little from tile to tile:
never where the whole image fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_TILE_SIDE = 64  # latents; of SD's autoencoder such a tile takes 0.75 GiB in float32
# A quarter of a tile overlaps the next one, which has to be a whole number of latents.
TILE_SIDE_MULTIPLE = 8


@contextmanager
def use_tiles(vae: Any, latent_side: int, scale_factor: int) -> Iterator[None]:
    """Encode and decode in tiles until the block is left.

    Args:
        vae: An autoencoder of diffusers; without tiles before and afterwards.
        latent_side: The longer side of the image's latents; a tile is half of it at most.
        scale_factor: Pixels along one side of a latent.
    """
    half = latent_side // 2 // TILE_SIDE_MULTIPLE * TILE_SIDE_MULTIPLE
    tile_side = min(MAX_TILE_SIDE, max(TILE_SIDE_MULTIPLE, half))
    previous = vae.tile_latent_min_size, vae.tile_sample_min_size
    vae.tile_latent_min_size = tile_side
    vae.tile_sample_min_size = tile_side * scale_factor
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()
        vae.tile_latent_min_size, vae.tile_sample_min_size = previous
