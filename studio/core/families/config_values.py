"""Whether the numbers in a model's config files are numbers that can be.

Knows: which keys of diffusers' and transformers' configs are numbers, and how large they may be.
Does not know: what they mean (unet_config.py), files.

The libraries take a word for a number without a look and fail somewhere inside, or try to allocate
what no machine has; here the file and the key are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.errors import BadFile, quote

MAX_LIST_NUMBERS = 100_000
MAX_DEPTH = 2  # a list for each level holds a list for each layer at most
_SIZE = (0, 1_000_000)  # of a width, a side, a vocabulary
_COUNT = (0, 1_000)  # of layers, heads, groups
_FACTOR = (-1_000_000, 1_000_000)
_SHARE = (0, 1)
# By key: the least and the most that can be. A key may hold one number, or a list of them.
NUMBER_LIMITS: dict[str, tuple[float, float]] = {
    # schedulers
    "num_train_timesteps": (2, 100_000),
    "beta_start": _SHARE,
    "beta_end": _SHARE,
    "trained_betas": _SHARE,
    "steps_offset": (0, 1_000),
    "original_inference_steps": (1, 1_000),
    "shift": (0, 1_000),
    "base_shift": _FACTOR,
    "max_shift": _FACTOR,
    "base_image_seq_len": _SIZE,
    "max_image_seq_len": _SIZE,
    "shift_terminal": _FACTOR,
    # networks of diffusers
    "in_channels": _SIZE,
    "out_channels": _SIZE,
    "block_out_channels": _SIZE,
    "layers_per_block": _COUNT,
    "transformer_layers_per_block": _COUNT,
    "cross_attention_dim": _SIZE,
    "attention_head_dim": _SIZE,
    "norm_num_groups": _SIZE,
    "norm_eps": _SHARE,
    "downsample_padding": _COUNT,
    "mid_block_scale_factor": _FACTOR,
    "dropout": _SHARE,
    "sample_size": _SIZE,
    "time_cond_proj_dim": _SIZE,
    "addition_time_embed_dim": _SIZE,
    "projection_class_embeddings_input_dim": _SIZE,
    "latent_channels": _SIZE,
    "scaling_factor": _FACTOR,
    "shift_factor": _FACTOR,
    "latents_mean": _FACTOR,
    "latents_std": _FACTOR,
    "dim": _SIZE,
    "n_layers": _COUNT,
    "n_heads": _COUNT,
    # text encoders
    "hidden_size": _SIZE,
    "intermediate_size": _SIZE,
    "num_hidden_layers": _COUNT,
    "num_attention_heads": _COUNT,
    "projection_dim": _SIZE,
    "layer_norm_eps": _SHARE,
    "attention_dropout": _SHARE,
    "vocab_size": (0, 10_000_000),
    "max_position_embeddings": (0, 10_000_000),
}
# Keys that hold a word.
WORD_KEYS = ("beta_schedule", "prediction_type", "timestep_spacing", "time_shift_type")


def check_config_values(file: str, config: Mapping[str, Any]) -> None:
    """Check the values of a config that are numbers or words; null stands for one not given.

    Args:
        file: What the sentence calls it, such as unet/config.json.
        config: What is in it.

    Raises:
        BadFile: Names the file, the key and the value.
    """
    for key, (least, most) in NUMBER_LIMITS.items():
        value = config.get(key)
        if value is not None and not _is_number(value, least, most, MAX_DEPTH):
            raise BadFile(
                f"its {file} says {quote(value)} for {key}; that must be a number from {least:,} "
                f"to {most:,}."
            )
    for key in WORD_KEYS:
        value = config.get(key)
        if value is not None and not isinstance(value, str):
            raise BadFile(f"its {file} says {quote(value)} for {key}; that must be a word.")


def _is_number(value: Any, least: float, most: float, depth: int) -> bool:
    if isinstance(value, list):
        return (
            depth > 0
            and 0 < len(value) <= MAX_LIST_NUMBERS
            and all(item is None or _is_number(item, least, most, depth - 1) for item in value)
        )
    # NaN is in no range
    return type(value) in (int, float) and bool(least <= value <= most)
