"""What upscalers are called, here and elsewhere.

Knows: the formulas, the embedded network, the names that A1111 has for files. Does not know: which
upscalers there are (storage/models/upscalers.py).
"""

from __future__ import annotations

import re

LANCZOS = "Lanczos"
NEAREST = "Nearest"
# Upscalers that are no network, under A1111's names.
INTERPOLATIONS = (LANCZOS, NEAREST)
POCKET_UPSCALER = "pocket-x4"  # the embedded network, made for the embedded model's pictures

# A1111's titles for the files that it fetches, which the files themselves do not carry.
A1111_TITLES = {
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
    "SwinIR 4x": "SwinIR_4x",
    "ScuNET GAN": "scunet_color_real_gan",
    "ScuNET PSNR": "scunet_color_real_psnr",
}
_TITLES_BY_STEM = {stem: title for title, stem in A1111_TITLES.items()}
_NAMES_BY_FOLDED = {
    **{name.casefold(): name for name in INTERPOLATIONS},
    "none": LANCZOS,  # A1111's for no network: it resizes by Lanczos all the same
    **{title.casefold(): stem for title, stem in A1111_TITLES.items()},
}
# A1111's "Latent", "Latent (nearest)" and their like are formulas, all other names are files'.
_LATENT_FORMULA = re.compile(r"latent( \([\w -]+\))?", re.IGNORECASE)


def is_latent_formula(name: str) -> bool:
    """Return whether A1111 calls an enlarging of latents so."""
    return bool(_LATENT_FORMULA.fullmatch(name.strip()))


def normalize_upscaler_name(name: str) -> str:
    """Return the studio's name for what somebody calls an upscaler: A1111's titles mean files."""
    stripped = name.strip()
    return _NAMES_BY_FOLDED.get(stripped.casefold(), stripped)


def get_upscaler_title(name: str) -> str:
    """Return what A1111 calls an upscaler: its own title, or the file's name without folders."""
    stem = name.rpartition("/")[2]
    return _TITLES_BY_STEM.get(stem, stem)
