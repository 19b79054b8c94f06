"""A training run's settings as one value, checked together.

Knows: what empty settings stand for, that fields which do not go together are refused.
Does not know: torch, files, what is in a dataset, which family a model is of (`rules.check_family`
is told), how long a run is (steps.py).

One rule for the length: `steps` or `epochs` decides, never both; giving both is refused, so nothing
is overridden in silence. An empty setting (`None`) stands for what is usual beside the others;
where a setting would do nothing it has to be empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from studio.core.base import guest_limit_faults
from studio.core.captions.text import has_words
from studio.core.generation.request import SEED_LIMIT
from studio.core.training.fields import (
    ADAFACTOR_RELATIVE_STEP,
    BASIC_FIELDS,
    LRSchedule,
    Optimizer,
    Precision,
    TrainingFields,
)
from studio.core.training.lora_targets import TargetModule
from studio.core.training.rules import find_conflicts
from studio.errors import InvalidSpec

__all__ = [
    "ADAFACTOR_RELATIVE_STEP",
    "BASIC_FIELDS",
    "SETTINGS_METADATA_KEY",
    "BucketLimits",
    "LRSchedule",
    "Optimizer",
    "Precision",
    "TrainingConfig",
]


# Where a LoRA of this studio carries the settings it was trained with.
SETTINGS_METADATA_KEY = "studio.training"


@dataclass(frozen=True)
class BucketLimits:
    """The sides of buckets, in pixels; with `no_upscale` the two limits have no effect."""

    min_side: int
    max_side: int
    step: int
    no_upscale: bool


class TrainingConfig(TrainingFields):
    """A LoRA before it is trained. `resolve` and the properties fill in what is empty or -1."""

    @model_validator(mode="wrap")
    @classmethod
    def _validate_combination(cls, data: Any, handler: Callable[[Any], Self]) -> Self:
        """Report bad fields and fields that do not go together in one go."""
        if not isinstance(data, Mapping):
            return handler(data)
        values = _apply_dependent_defaults(data)
        errors: list[InitErrorDetails] = []
        bad_fields: set[str] = set()
        try:
            config = handler(values)
        except ValidationError as error:
            errors = [_copy_error(details) for details in error.errors()]
            bad_fields = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
            # Conflicts of the good fields are still found, with placeholders for required ones.
            good_values = {key: value for key, value in values.items() if key not in bad_fields}
            config = handler({"dataset": "-", "name": "-"} | good_values)
        for fields, problem in find_conflicts(config):
            if bad_fields.isdisjoint(fields):
                sentence = f"{cls.model_fields[fields[0]].title}: {problem}"
                errors.append(_build_conflict_error(sentence))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return config

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW's decay rates of the gradient's two running means (beta 1 and 2)."""
        return (
            0.9 if self.beta1 is None else self.beta1,
            0.999 if self.beta2 is None else self.beta2,
        )

    @property
    def effective_weight_decay(self) -> float:
        """The weight decay; where it is empty, the optimizer's usual."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.01 if self.optimizer.startswith("AdamW") else 0.0

    @property
    def effective_scale_parameter(self) -> bool:
        """Whether Adafactor scales its steps by the size of the weights."""
        if self.scale_parameter is not None:
            return self.scale_parameter
        return self.optimizer == ADAFACTOR_RELATIVE_STEP

    @property
    def learning_rates(self) -> tuple[float | None, float | None]:
        """The rates of the U-Net and the text encoders; None where Adafactor finds its own."""
        text_encoder_lr = self.text_encoder_lr
        if text_encoder_lr is None:
            text_encoder_lr = self.learning_rate
        return self.learning_rate, text_encoder_lr

    @property
    def checkpoint_limit(self) -> int:
        """How many of the last checkpoints are kept; 0 is all."""
        return 3 if self.checkpoints_total_limit is None else self.checkpoints_total_limit

    @property
    def class_prompt(self) -> str:
        """The prompt that class images are generated from and trained with."""
        return f"a photo of a {self.class_word}" if self.class_word else ""

    def resolve(self, native_size: int, seed: int) -> Self:
        """Return the config with a resolution and a seed.

        Args:
            native_size: The side of the model's own square, in pixels; for an empty resolution.
            seed: Taken for -1.
        """
        return self.model_copy(
            update={
                "resolution": self.resolution or native_size,
                "seed": seed % SEED_LIMIT if self.seed < 0 else self.seed,
            }
        )

    def get_rank_and_alpha(self, module: TargetModule) -> tuple[int, float]:
        """Return rank and alpha of one layer's LoRA: it works at alpha ÷ rank of its strength.

        As in kohya, convolutions wider than 1 × 1 have values of their own. Where it is to work at
        alpha ÷ √rank, the alpha is that much larger, as LyCORIS writes it: whoever reads the file
        divides by the rank.
        """
        rank = self.rank
        alpha = self.alpha
        has_conv_values = self.conv_rank is not None or self.conv_alpha is not None
        if module.kernel_size > 1 and has_conv_values:
            rank = self.conv_rank or self.rank
            alpha = self.conv_alpha
        alpha = float(rank) if alpha is None else alpha
        return rank, alpha * math.sqrt(rank) if self.use_rslora else alpha

    @property
    def is_lycoris(self) -> bool:
        """Whether only LyCORIS, and not kohya's own module, trains such a LoRA."""
        return self.network_type != "LoRA" or self.use_dora or self.use_rslora or self.train_norm

    def resolve_bucket_limits(self) -> BucketLimits | None:
        """Return the buckets' limits in pixels, or None for squares.

        Raises:
            ValueError: The config is not resolved.
        """
        if self.resolution is None:
            raise ValueError("bucketing() needs a resolved config: its resolution is still open")
        if not self.buckets:
            return None
        step = self.bucket_step or min(64, max(8, self.resolution // 64 * 8))
        half = max(1, self.resolution // 2 // step) * step
        min_side = self.bucket_min or min(256, half)
        max_side = self.bucket_max or 2 * self.resolution
        return BucketLimits(min_side, max_side, step, self.bucket_no_upscale)

    def compose_caption(self, caption: str = "", folder_concept: str = "") -> str:
        """Return the text that an image is trained with; empty if nothing is known of it.

        Args:
            caption: Its own caption.
            folder_concept: The concept in its folder's name; counts only without a caption, as in
                kohya.
        """
        concept = self.class_word
        if self.trigger and self.class_word:
            concept = f"a photo of {self.trigger} {self.class_word}"
        text = caption or concept or folder_concept or self.trigger
        if not self.trigger:
            return text
        return text if has_words(text, self.trigger) else f"{self.trigger}, {text}"

    def check_guest(self) -> None:
        """Check that a visitor who is not the owner may start this run.

        Raises:
            InvalidSpec: Settings go beyond a guest's limits.
        """
        faults = guest_limit_faults(self)
        if self.lokr_factors == "both whole":  # without a rank there is no other limit
            faults.append(
                f"LoKr matrices: guests may not choose {self.lokr_factors}; choose second by rank "
                "or both by rank."
            )
        if faults:
            raise InvalidSpec(faults)


def _apply_dependent_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Empty the defaults that a given setting excludes: epochs empty the steps."""
    values = dict(data)
    if values.get("epochs") is not None:
        values.setdefault("steps", None)
    if values.get("optimizer") == ADAFACTOR_RELATIVE_STEP:
        values.setdefault("learning_rate", None)
    return values


def _copy_error(details: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=details["type"],
        loc=details["loc"],
        ctx=details.get("ctx", {}),
        input=None if details["type"] == "missing" else details["input"],
    )


def _build_conflict_error(sentence: str) -> InitErrorDetails:
    error = PydanticCustomError("conflict", "{sentence}", {"sentence": sentence})
    return InitErrorDetails(type=error, loc=(), input=None)
