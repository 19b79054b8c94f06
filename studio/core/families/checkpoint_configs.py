"""The configs that a single-file checkpoint comes without, from the shapes of its tensors.

Knows: what CLIP's text encoders of Stable Diffusion are built like, what their families agree on
(noise, sizes, padding). Does not know: files; U-Nets (unet_shapes.py); autoencoders
(vae_shapes.py).

Sources: the configs of the repositories on the hub of SD 1.5, 2.1 and SDXL, open_clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.families.family import FamilyName
from studio.core.families.unet_shapes import Shapes
from studio.errors import BadFile

# CLIP's own vocabulary (49,408 tokens). Old configs say 2 for the end of a text, for which
# transformers looks for the largest id: wrong as soon as tokens are added.
BOS_TOKEN_ID, EOS_TOKEN_ID = 49_406, 49_407
HEAD_SIZE = 64
MAX_LAYERS = 100
# Of OpenCLIP-H's 24 layers SD 2.x reads the last but one, and its final norm after that.
MAX_SD2_LAYERS = 23
GELU, QUICK_GELU = "gelu", "quick_gelu"


@dataclass(frozen=True)
class CheckpointFacts:
    """What the single files of a family leave to be known.

    Attributes:
        scaling_factor: Of the autoencoder's latents.
        pad_tokens: Of each tokenizer.
        text_widths: Of each text encoder.
        native_size: Side in pixels of the images that it was trained on.
        native_size_v: The same of models that predict v.
    """

    scaling_factor: float
    pad_tokens: tuple[str, ...]
    text_widths: tuple[int, ...]
    native_size: int
    native_size_v: int

    def get_native_size(self, prediction_type: str) -> int:
        """Return the side in pixels for what the denoiser predicts, by diffusers' names."""
        return self.native_size_v if prediction_type == "v_prediction" else self.native_size


_END = "<|endoftext|>"
CHECKPOINT_FACTS: dict[FamilyName, CheckpointFacts] = {
    "sd1": CheckpointFacts(0.18215, (_END,), (768,), 512, 512),
    "sd2": CheckpointFacts(0.18215, ("!",), (1024,), 512, 768),
    "sdxl": CheckpointFacts(0.13025, (_END, "!"), (768, 1280), 1024, 1024),
}


def build_scheduler_config(prediction_type: str, is_zero_snr: bool) -> dict[str, Any]:
    """Return the noise of Stable Diffusion's families, with what a denoiser predicts of it."""
    return {
        "_class_name": "EulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": is_zero_snr,
    }


def build_clip_config(shapes: Shapes, has_projection: bool) -> dict[str, Any]:
    """Return transformers' config of a text encoder by its names there.

    Args:
        shapes: Of its tensors, from `text_model.` on.
        has_projection: Whether it also gives a pooled prompt.

    Raises:
        BadFile: They are not those of a whole text encoder; a sentence that begins with "its".
    """
    words = shapes.get("text_model.embeddings.token_embedding.weight", ())
    positions = shapes.get("text_model.embeddings.position_embedding.weight", ())
    inner = shapes.get("text_model.encoder.layers.0.mlp.fc1.weight", ())
    layers = _count(shapes, "text_model.encoder.layers.{}.mlp.fc1.weight")
    return _build_text_config(
        words,
        positions,
        inner,
        layers=layers,
        activation=QUICK_GELU if len(words) > 1 and words[1] == 768 else GELU,
        projection_dim=_get_side(shapes, "text_projection.weight", 0) if has_projection else 0,
    )


def build_open_clip_config(shapes: Shapes, has_projection: bool) -> dict[str, Any]:
    """Return transformers' config of a text encoder by OpenCLIP's names.

    Args:
        shapes: Of its tensors, from `transformer.resblocks` on.
        has_projection: Whether it also gives a pooled prompt.

    Raises:
        BadFile: They are not those of a whole text encoder; a sentence that begins with "its".
    """
    layers = _count(shapes, "transformer.resblocks.{}.mlp.c_fc.weight")
    return _build_text_config(
        shapes.get("token_embedding.weight", ()),
        shapes.get("positional_embedding", ()),
        shapes.get("transformer.resblocks.0.mlp.c_fc.weight", ()),
        layers=layers if has_projection else min(layers, MAX_SD2_LAYERS),
        activation=GELU,
        projection_dim=_get_side(shapes, "text_projection", 1) if has_projection else 0,
    )


def _build_text_config(
    words: Any, positions: Any, inner: Any, *, layers: int, activation: str, projection_dim: int
) -> dict[str, Any]:
    if not (len(words) == len(positions) == len(inner) == 2 and layers):
        raise BadFile("its text encoder lacks whole layers; copy the file again.")
    width = words[1]
    return {
        "vocab_size": words[0],
        "hidden_size": width,
        "intermediate_size": inner[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_SIZE),
        "max_position_embeddings": positions[0],
        "hidden_act": activation,
        "projection_dim": projection_dim or width,
        "bos_token_id": BOS_TOKEN_ID,
        "eos_token_id": EOS_TOKEN_ID,
    }


def get_text_width(shapes: Shapes) -> int:
    """Return the width of a CLIP text encoder by either program's names; 0 of all else."""
    for name in ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"):
        shape = shapes.get(name, ())
        if len(shape) == 2:
            return shape[1]
    return 0


def _get_side(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    if len(shape) != 2:
        raise BadFile(f"its text encoder lacks {name}; copy the file again.")
    return shape[axis]


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return next((n for n in range(MAX_LAYERS) if pattern.format(n) not in shapes), MAX_LAYERS)
