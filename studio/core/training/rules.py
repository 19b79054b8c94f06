"""Which settings of a training run do not go together: what would be overridden, or would do nothing, is refused in words.

Knows: the rules, each with the fields it is about. Does not know: limits of single fields (`training`), how a run is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.core.catalog import FAMILIES, Family
from studio.errors import InvalidSpec

if TYPE_CHECKING:
    from studio.core.training.config import TrainingConfig

Conflict = tuple[
    tuple[str, ...], str
]  # the fields it is about, and what follows the title of the first


def conflicts(config: TrainingConfig) -> Iterator[Conflict]:
    """Everything that does not go together."""
    yield from _length(config)
    yield from _parts(config)
    yield from _optimizer(config)
    yield from _schedule(config)
    yield from _pictures(config)
    yield from _buckets(config)
    yield from _watching(config)


def for_family(config: TrainingConfig, family: Family, inpainting: bool = False) -> None:
    """Raise InvalidSpec for what does nothing in models of this family, and for models made for inpainting."""
    faults = []
    if (
        inpainting
    ):  # its U-Net would have to be shown a mask and the rest of the picture at every step
        faults.append(
            f"Model: {config.model:.80} is made for inpainting, and a LoRA is trained on a model that paints whole "
            "pictures; choose one of those (the LoRA can be used with both)."
        )
    if family == "sdxl" and config.clip_skip > 1:
        faults.append(
            f"Clip skip: {FAMILIES[family].title} always reads the last layer but one; leave it at 1 "
            f"(not {config.clip_skip})."
        )
    if faults:
        raise InvalidSpec(faults)


def _length(config: TrainingConfig) -> Iterator[Conflict]:
    if config.steps is not None and config.epochs is not None:
        yield (
            ("steps", "epochs"),
            f"{config.steps} steps and {config.epochs} epochs both decide the length; leave one empty.",
        )
    if config.steps is None and config.epochs is None:
        yield ("steps", "epochs"), "is needed, or epochs instead."


def _parts(config: TrainingConfig) -> Iterator[Conflict]:
    convolutions = "convolutions" in config.targets
    if not config.train_unet and not config.train_text_encoder:
        yield (
            ("train_unet", "train_text_encoder"),
            "nothing would be trained; switch it or the text encoders on.",
        )
    elif not config.train_unet and convolutions:
        yield (
            ("targets", "train_unet"),
            "only the U-Net has convolutions, and it is not trained; choose attention + feed-forward.",
        )
    if config.text_encoder_rate is not None and not config.train_text_encoder:
        yield (
            ("text_encoder_rate", "train_text_encoder"),
            "they are not trained; leave it empty or train them.",
        )
    elif config.text_encoder_rate is not None and not config.train_unet:
        yield (
            ("text_encoder_rate", "train_unet"),
            "where only they are trained the learning rate is theirs; leave this one empty.",
        )
    for name in ("conv_rank", "conv_alpha"):
        if getattr(config, name) is not None and not convolutions and config.targets != "patterns":
            yield (
                (name, "targets"),
                f"{config.targets} has no 3 × 3 convolutions; leave it empty or choose other targets.",
            )
    if config.targets == "patterns" and not config.patterns.strip(" ,\n"):
        yield ("patterns", "targets"), "is needed; which layers shall be trained?"
    if config.targets != "patterns" and config.patterns:
        yield ("patterns", "targets"), f"count only with targets = patterns (not {config.targets})."


def _optimizer(config: TrainingConfig) -> Iterator[Conflict]:
    if config.optimizer == "Adafactor (relative step)":
        for name in ("learning_rate", "text_encoder_rate"):
            if (rate := getattr(config, name)) is not None:
                yield (
                    (name, "optimizer"),
                    f"Adafactor with relative step finds its own; leave it empty (not {rate:g}).",
                )
        if config.schedule != "constant":
            yield (
                ("schedule", "optimizer"),
                f"Adafactor with relative step has its own; choose constant (not {config.schedule}).",
            )
    elif config.learning_rate is None:
        yield ("learning_rate", "optimizer"), f"{config.optimizer} needs one, such as 0.0001."
    adam = config.optimizer.startswith("AdamW")
    for name in ("beta1", "beta2", "eps"):
        if getattr(config, name) is not None and not adam:
            yield (name, "optimizer"), "only AdamW has it; leave it empty."
    if config.scale_parameter is not None and adam:
        yield ("scale_parameter", "optimizer"), "only Adafactor has it; leave it empty."


def _schedule(config: TrainingConfig) -> Iterator[Conflict]:
    warmup, total = config.warmup, config.steps
    if config.schedule == "constant" and warmup:
        yield (
            ("warmup", "schedule"),
            f"the constant schedule has none (not {warmup:g}); choose constant with warm-up, or 0.",
        )
    elif config.schedule == "constant with warm-up" and not warmup:
        yield ("warmup", "schedule"), "is needed; without one choose the schedule constant."
    if warmup >= 1 and warmup != math.floor(warmup):
        yield ("warmup",), f"has to be a share below 1 or a whole number of steps (not {warmup:g})."
    elif (
        warmup and total is not None and not 1 <= (warmup * total if warmup < 1 else warmup) < total
    ):
        yield (
            ("warmup", "steps"),
            f"has to be at least 1 step and fewer than all {total} (not {warmup:g}).",
        )
    if config.cycles is not None and config.schedule != "cosine with restarts":
        yield (
            ("cycles", "schedule"),
            f"{config.schedule} has none; leave it empty (not {config.cycles}).",
        )
    if config.power is not None and config.schedule != "polynomial":
        yield (
            ("power", "schedule"),
            f"only the polynomial schedule has it; leave it empty (not {config.power:g}).",
        )
    if config.schedule == "polynomial" and (config.learning_rate or 1) <= 1e-7:
        yield (
            ("learning_rate", "schedule"),
            f"polynomial falls to 1e-7; it has to be above (not {config.learning_rate:g}).",
        )


def _pictures(config: TrainingConfig) -> Iterator[Conflict]:
    if config.class_pictures and not config.class_word:
        yield (
            ("class_word", "class_pictures"),
            "is needed for class pictures; what kind of thing is it?",
        )
    if config.prior_weight is not None and not config.class_pictures:
        yield (
            ("prior_weight", "class_pictures"),
            "there are no class pictures; leave it empty or ask for some.",
        )
    if config.keep_tokens and not config.shuffle_caption:
        yield (
            ("keep_tokens", "shuffle_caption"),
            "captions are not shuffled; switch that on, or choose 0.",
        )
    if config.crop == "random" and config.cache_latents != "off":
        yield (
            ("crop", "cache_latents"),
            (
                "kept latents are of one crop, so it cannot be random; switch keep latents off, "
                "or crop the center."
            ),
        )


def _buckets(config: TrainingConfig) -> Iterator[Conflict]:
    """What can be judged before the resolution is known."""
    least, most, step, side = (
        config.bucket_min,
        config.bucket_max,
        config.bucket_step,
        config.resolution,
    )
    if not config.buckets:
        for name in ("bucket_min", "bucket_max", "bucket_step"):
            if getattr(config, name) is not None:
                yield (name, "buckets"), "there are no buckets; switch them on or leave it empty."
        if config.bucket_no_upscale:
            yield (
                ("bucket_no_upscale", "buckets"),
                "counts only with buckets; switch them on or this off.",
            )
        return
    for name, value in (("bucket_min", least), ("bucket_max", most)):
        if value is not None and config.bucket_no_upscale:
            yield (
                (name, "bucket_no_upscale"),
                (
                    f"counts only where small pictures are enlarged; leave it empty, or switch never "
                    f"enlarge off (not {value})."
                ),
            )
        elif value is not None and step is not None and value % step:
            yield (
                (name, "bucket_step"),
                f"has to be a multiple of the bucket step {step} (not {value}).",
            )
    if config.bucket_no_upscale:
        return
    if least is not None and most is not None and least > most:
        yield (
            ("bucket_min", "bucket_max"),
            f"has to be at most the longest side {most} (not {least}).",
        )
    if side is not None and least is not None and least > side:
        yield (
            ("bucket_min", "resolution"),
            f"has to be at most the resolution {side} (not {least}).",
        )
    if side is not None and most is not None and most < side:
        yield (
            ("bucket_max", "resolution"),
            f"has to be at least the resolution {side} (not {most}).",
        )


def _watching(config: TrainingConfig) -> Iterator[Conflict]:
    for in_steps, in_epochs in (
        ("sample_every", "sample_every_epochs"),
        ("checkpoint_every", "checkpoint_every_epochs"),
    ):
        if getattr(config, in_steps) is not None and getattr(config, in_epochs) is not None:
            yield (in_steps, in_epochs), "is given in steps and in epochs; leave one of them empty."
    sampled = config.sample_every is not None or config.sample_every_epochs is not None
    if config.samples and not sampled:
        yield (
            ("sample_every", "sample_every_epochs", "sample_prompts"),
            "is needed to paint the sample prompts; how often?",
        )
    if sampled and not config.samples:
        yield (
            ("sample_prompts", "sample_every", "sample_every_epochs"),
            "there are none to paint; write one a line.",
        )
    if (
        config.keep_checkpoints is not None
        and config.checkpoint_every is None
        and config.checkpoint_every_epochs is None
    ):
        yield (
            ("keep_checkpoints", "checkpoint_every", "checkpoint_every_epochs"),
            ("there is only the last; say how often one is saved, or leave it empty."),
        )
    if config.validate_every is not None and not config.validation_share:
        yield (
            ("validate_every", "validation_share"),
            "no pictures are put aside; give a validation share or leave it empty.",
        )
