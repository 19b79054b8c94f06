"""ComfyUI's encoders whose text also loads LoRAs: ltdrdata's Impact and Inspire packs.

Knows: their tags, which of their texts was encoded. Does not know: the graph around them.

    <lora:name:0.8:0.6:LBW=…>   weights in the picture and in the text encoder; one alone is both

Source: the README of ltdrdata/ComfyUI-Impact-Pack (ImpactWildcardEncode) and its tutorial on
wildcards. Facts, no code.
"""

from __future__ import annotations

import re

from studio.core.generation.recipes.comfyui_graph import Node
from studio.core.generation.recipes.comfyui_values import GraphValues
from studio.core.generation.recipes.json_text import as_number

LORA_TAG = re.compile(r"<lora:([^<>]{1,500})>")
MAX_TAGS = 50


def read_tagged_text(values: GraphValues, node: Node) -> str | None:
    """Return the text that such a node encoded: with its wildcards filled in where that is there.

    Returns None where none is in the graph.
    """
    texts = [values.read_text(node.inputs.get(key)) for key in ("populated_text", "wildcard_text")]
    return next((text for text in texts if text), texts[0])


def list_tagged_loras(text: str | None) -> list[tuple[str, float, float]]:
    """Return the LoRAs of a text's tags with both weights; of one that is there twice the first."""
    loras: dict[str, tuple[str, float, float]] = {}
    for match in LORA_TAG.finditer(text or ""):
        name, *rest = match[1].strip(":").split(":")
        weights = [number for item in rest if (number := as_number(item)) is not None]
        unet = weights[0] if weights else 1.0
        encoder = weights[1] if len(weights) > 1 else unet
        loras.setdefault(name, (name, unet, encoder))
        if len(loras) >= MAX_TAGS:
            break
    return list(loras.values())


def has_block_weights(text: str | None) -> bool:
    """Return whether a tag gives a LoRA's weight by blocks."""
    return any("LBW=" in match[1] for match in LORA_TAG.finditer(text or ""))
