"""The shapes of U-Nets and text encoders, from which the layers that a LoRA can sit on follow.

Knows: which sizes tell one build from another. Does not know: the layers (core/training), weights.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UNetShape:
    """The sizes of a U-Net, of its blocks from the first to the deepest."""

    block_out_channels: tuple[int, ...]
    transformer_depths: tuple[int, ...]  # layers of each block's transformers; 0 is none
    mid_transformer_depth: int
    layers_per_block: int
    cross_attention_dim: int
    use_linear_projection: bool  # in the transformers; else 1 × 1 convolutions


@dataclass(frozen=True)
class TextEncoderShape:
    """The sizes of a CLIP text encoder; with a projection its layers are a level deeper."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    has_projection: bool = False


@dataclass(frozen=True)
class ModelShape:
    """A U-Net and its text encoders; two encoders make it an SDXL, with sgm's names."""

    unet: UNetShape
    text_encoders: tuple[TextEncoderShape, ...]


CLIP_L = TextEncoderShape(12, 768, 3072)
