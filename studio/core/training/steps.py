"""How long a training run is, and how fast at each step.

Knows: epochs as kohya rounds them, schedules as diffusers and transformers have them. Does not know: pictures, optimizers, clocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from studio.core.training.config import TrainingConfig
from studio.errors import InvalidSpec

LOWEST_RATE = 1e-7  # where a polynomial decay ends, in diffusers and transformers


def steps(
    config: TrainingConfig,
    pictures: int | Mapping[str, tuple[int, int]],
    buckets: Iterable[int] = (),
) -> int:
    """How many steps a run has: the given ones, or epochs × pictures × repeats ÷ batch ÷ accumulation, rounded as kohya does.

    `pictures` is how many are trained on, or folder → (count, its own repeats). A batch holds pictures of one bucket, so each
    bucket rounds up for itself; what is in which bucket is known only from the pictures. Without `buckets` (how many pictures,
    repeats included, each has) all are taken for one: with more than one bucket and a batch above 1 the run may be a little longer.
    """
    if config.steps is not None:
        return config.steps
    folders = [(pictures, 1)] if isinstance(pictures, int) else list(pictures.values())
    together = sum(count * repeats for count, repeats in folders) * config.repeats
    if together < 1:
        raise InvalidSpec([f"Dataset: {config.dataset} has no pictures to count epochs of."])
    batches = sum(math.ceil(many / config.batch) for many in (list(buckets) or [together]))
    return (config.epochs or 1) * math.ceil(batches / config.accumulation)


def warmup_steps(config: TrainingConfig, total: int) -> int:
    """A share of all steps below 1, else steps; as kohya's lr_warmup_steps."""
    return int(config.warmup * total) if config.warmup < 1 else int(config.warmup)


def lr_at(config: TrainingConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied with at a step, from 0: the same as diffusers' and transformers' get_scheduler.

    1 throughout for Adafactor's relative step, which finds its rate itself: max(0.001, RMS of the weights) × min(0.01, 1 ÷ √step)
    in each layer (arXiv:1804.04235).
    """
    warmup = warmup_steps(config, total)
    if config.schedule == "constant":
        return 1.0
    if step < warmup:
        return step / max(1, warmup)
    done = (step - warmup) / max(1, total - warmup)
    match config.schedule:
        case "linear":
            return max(0.0, (total - step) / max(1, total - warmup))
        case "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
        case "cosine with restarts":
            return (
                0.0
                if done >= 1
                else max(0.0, 0.5 * (1 + math.cos(math.pi * (((config.cycles or 1) * done) % 1))))
            )
        case "polynomial":
            rate = config.learning_rate or 1.0
            left = (
                1 - (step - warmup) / (total - warmup) if total > warmup and step <= total else 0.0
            )
            return ((rate - LOWEST_RATE) * math.pow(left, config.power or 1.0) + LOWEST_RATE) / rate
    return 1.0  # constant with warm-up, after it
