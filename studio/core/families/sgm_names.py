"""The names of SDXL's U-Net layers in Stability's own code (sgm), by diffusers' names.

Knows: both ways to count blocks. Does not know: any weights; LoRA files.

    down_blocks.1.attentions.0.proj_in    input_blocks.4.1.proj_in
    up_blocks.0.resnets.2.conv1           output_blocks.2.0.in_layers.2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SINGLE_BLOCKS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def build_sgm_blocks(
    layers_per_block: Sequence[int], up_block_has_attention: Sequence[bool]
) -> dict[str, str]:
    """Return sgm's names of a U-Net's blocks, by diffusers' names.

    Args:
        layers_per_block: Residual blocks in each block on the way down.
        up_block_has_attention: Whether each block on the way up has transformers.
    """
    names = dict(_SINGLE_BLOCKS)
    index = 1
    for level, count in enumerate(layers_per_block):
        for layer in range(count):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{index}.0"
            names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{index}.1"
            index += 1
        if level < len(layers_per_block) - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
    index = 0
    for level, count in enumerate(reversed(layers_per_block)):
        for layer in range(count + 1):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{index}.0"
            names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{index}.1"
            index += 1
        place = 2 if up_block_has_attention[level] else 1
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{index - 1}.{place}.conv"
    return names


def to_sgm_path(path: str, blocks: Mapping[str, str]) -> str:
    """Return sgm's path of a layer. Raises ValueError for one that sgm has not.

    Args:
        path: diffusers' path, such as "mid_block.attentions.0.proj_in".
        blocks: What `build_sgm_blocks` returned.
    """
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        block = ".".join(parts[:count])
        if block in blocks:
            rest = ".".join(parts[count:])
            return f"{blocks[block]}.{_RESNET_LAYERS.get(rest, rest)}".removesuffix(".")
    raise ValueError(f"{path} has no name in SDXL's own code")
