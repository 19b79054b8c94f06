"""How many steps a training run has, and the learning rate at each of them.

Knows: epochs as kohya rounds them, schedules as diffusers and transformers have them.
Does not know: images, optimizers, time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from studio.core.training.config import TrainingConfig
from studio.errors import InvalidSpec

POLYNOMIAL_END_LR = 1e-7  # where a polynomial decay ends, in diffusers and transformers


def count_steps(
    config: TrainingConfig,
    image_counts: int | Mapping[str, tuple[int, int]],
    bucket_counts: Iterable[int] = (),
) -> int:
    """Count the optimizer steps of a run.

    They are given, or epochs × images × repeats ÷ batch ÷ accumulation, rounded as kohya does. A
    batch holds images of one bucket, so each bucket rounds up for itself.

    Args:
        config: The settings of the run.
        image_counts: How many images are trained on; or folder → (count, the folder's repeats).
        bucket_counts: How many images, repeats included, each bucket has. Without it all count as
            one bucket; with several and a batch above 1 the run may then be a little longer.

    Raises:
        InvalidSpec: There are no images to count epochs of.
    """
    if config.steps is not None:
        return config.steps
    folders = [(image_counts, 1)] if isinstance(image_counts, int) else list(image_counts.values())
    samples = sum(count * repeats for count, repeats in folders) * config.repeats
    if samples < 1:
        raise InvalidSpec([f"Dataset: {config.dataset} has no images to count epochs of."])
    sample_counts = list(bucket_counts) or [samples]
    batches = sum(math.ceil(count / config.train_batch_size) for count in sample_counts)
    return (config.epochs or 1) * math.ceil(batches / config.gradient_accumulation_steps)


def count_warmup_steps(config: TrainingConfig, total_steps: int) -> int:
    """Return the steps of the warm-up: below 1 it is a share of all, as kohya's lr_warmup_steps."""
    if config.lr_warmup < 1:
        return int(config.lr_warmup * total_steps)
    return int(config.lr_warmup)


def compute_lr_factor(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Return the factor of the learning rate at a step.

    The same as get_scheduler of diffusers and transformers. For Adafactor's relative step it is 1
    throughout: that finds its rate itself, max(0.001, RMS of the weights) × min(0.01, 1 ÷ √step) in
    each layer (arXiv:1804.04235).

    Args:
        config: The settings of the run.
        step: The optimizer step, from 0.
        total_steps: How many there are.
    """
    if config.lr_scheduler == "constant":
        return 1.0
    warmup = count_warmup_steps(config, total_steps)
    if step < warmup:
        return step / max(1, warmup)
    decay_steps = max(1, total_steps - warmup)
    progress = (step - warmup) / decay_steps
    match config.lr_scheduler:
        case "linear":
            return max(0.0, (total_steps - step) / decay_steps)
        case "cosine":
            return _cosine_factor(progress)
        case "cosine with restarts":
            cycles = config.lr_scheduler_num_cycles or 1
            return 0.0 if progress >= 1 else _cosine_factor((cycles * progress) % 1)
        case "polynomial":
            base_lr = config.learning_rate or 1.0
            remaining = 0.0
            if total_steps > warmup and step <= total_steps:
                remaining = 1 - progress
            decay = math.pow(remaining, config.lr_scheduler_power or 1.0)
            return ((base_lr - POLYNOMIAL_END_LR) * decay + POLYNOMIAL_END_LR) / base_lr
    return 1.0  # constant with warm-up, after it


def _cosine_factor(progress: float) -> float:
    return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
