"""The model families that the studio runs.

Knows: which there are, and how a model folder's configs tell one from another.
Does not know: what is in a family (sd1.py and its neighbours); files.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import Any

from studio.core.families.family import Family
from studio.core.families.sd1 import SD1
from studio.core.families.sd2 import SD2
from studio.core.families.sdxl import SDXL
from studio.core.families.z_image import Z_IMAGE

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2, SDXL, Z_IMAGE)}


def get_family(name: str) -> Family:
    """Return the family of a name. Raises KeyError."""
    return FAMILIES[name]


# A copy of a family is the family: there is one value for each.
copyreg.pickle(Family, lambda family: (get_family, (family.name,)))


def find_families(pipeline_class: str) -> list[Family]:
    """Return the families that a pipeline of diffusers may be of."""
    return [family for family in FAMILIES.values() if pipeline_class in family.pipeline_classes]


def detect_family(pipeline_class: str, denoiser_config: Mapping[str, Any]) -> Family | None:
    """Return the family of a model folder, or None if it is none of the studio's.

    Args:
        pipeline_class: `_class_name` in its model_index.json.
        denoiser_config: The config.json of its denoiser.
    """
    families = find_families(pipeline_class)
    width = denoiser_config.get("cross_attention_dim")
    for family in families:
        if family.cross_attention_dim is not None and family.cross_attention_dim == width:
            return family
    return next((family for family in families if family.cross_attention_dim is None), None)
