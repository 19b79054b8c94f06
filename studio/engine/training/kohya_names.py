"""kohya's names for the layers of a LoRA.

Knows: the prefix of each network, and for SDXL's U-Net the names of SDXL's own code (SGM: Stability
AI's generative-models), which kohya follows.
Does not know: the matrices, the file.

    lora_unet_down_blocks_0_attentions_0_…_to_q          SD 1.x and 2.x
    lora_unet_input_blocks_4_1_…_to_q                    SDXL
    lora_te_text_model_encoder_layers_0_…_q_proj         SD 1.x and 2.x
    lora_te1_text_model_…, lora_te2_text_model_…         SDXL
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.families.sgm_names import build_sgm_blocks, to_sgm_path


def get_kohya_names(
    paths: Iterable[tuple[str, str]], family: FamilyName, unet_config: Mapping[str, Any]
) -> dict[tuple[str, str], str]:
    """Return kohya's name of each layer.

    Args:
        paths: Layers as (network, path of the module in it), in diffusers' names.
        family: The model family.
        unet_config: The U-Net's block types and layers per block; read for SDXL only.

    Raises:
        KeyError: If a network is none of the family's.
        ValueError: If a module of SDXL's U-Net has no name in SDXL's own code.
    """
    naming = FAMILIES[family].lora_naming
    assert naming
    sgm_blocks = _build_sgm_blocks(unet_config) if naming.uses_sgm_names else {}
    names = {}
    for network, path in paths:
        module_path = path.removeprefix("text_model.")
        if network == "unet" and naming.uses_sgm_names:
            module_path = to_sgm_path(module_path, sgm_blocks)
        names[network, path] = naming.prefixes[network] + module_path.replace(".", "_")
    return names


def _build_sgm_blocks(unet_config: Mapping[str, Any]) -> dict[str, str]:
    layers_per_block = unet_config["layers_per_block"]
    if isinstance(layers_per_block, int):
        layers_per_block = [layers_per_block] * len(unet_config["down_block_types"])
    has_attention = ["Attn" in block_type for block_type in unet_config["up_block_types"]]
    return build_sgm_blocks(layers_per_block, has_attention)
