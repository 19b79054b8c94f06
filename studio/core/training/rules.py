"""Which settings of a training run do not go together.

What would be overridden, or would do nothing, is refused in words.

Knows: the rules, each with the fields it is about.
Does not know: limits of single fields (fields.py), what empty ones stand for (config.py), how a run
is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.training.fields import ADAFACTOR_RELATIVE_STEP, TrainingFields
from studio.errors import InvalidSpec

# The fields that it is about, and the problem: the rest of a sentence after the first one's title.
Conflict = tuple[tuple[str, ...], str]


def find_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    """Find all settings that do not go together.

    Yields:
        The names of the fields, and what is wrong: the rest of a sentence that begins with the
        title of the first of them.
    """
    yield from _find_length_conflicts(config)
    yield from _find_part_conflicts(config)
    yield from _find_network_conflicts(config)
    yield from _find_optimizer_conflicts(config)
    yield from _find_lr_schedule_conflicts(config)
    yield from _find_image_conflicts(config)
    yield from _find_bucket_conflicts(config)
    yield from _find_monitoring_conflicts(config)


def check_family(config: TrainingFields, family: FamilyName, is_inpainting: bool = False) -> None:
    """Check the settings that depend on the model.

    Args:
        config: The settings of the run.
        family: The family of its model.
        is_inpainting: Whether the model is made for inpainting: its U-Net would have to be shown a
            mask and the rest of the image at every step.

    Raises:
        InvalidSpec: A setting does nothing in models of this family, or the model is made for
            inpainting.
    """
    faults = []
    if is_inpainting:
        faults.append(
            f"Model: LoRAs cannot be trained on the inpainting model {config.model:.80}; choose "
            "a standard model. The LoRA will work with both."
        )
    if not FAMILIES[family].is_trainable:
        titles = ", ".join(one.title for one in FAMILIES.values() if one.is_trainable)
        faults.append(
            f"Model: {config.model:.80} is a {FAMILIES[family].title} model, which cannot be "
            f"trained here; choose a model of one of these families: {titles}."
        )
    if not FAMILIES[family].training_clip_skip and config.clip_skip > 1:
        faults.append(
            f"Clip skip: {FAMILIES[family].title} always uses the second-to-last layer; leave it "
            f"at 1 (you entered {config.clip_skip})."
        )
    if faults:
        raise InvalidSpec(faults)


def _find_length_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    if config.steps is not None and config.epochs is not None:
        yield (
            ("steps", "epochs"),
            f"{config.steps} steps and {config.epochs} epochs are both set; leave one of them "
            "empty.",
        )
    if config.steps is None and config.epochs is None:
        yield ("steps", "epochs"), "required, unless you set Epochs."


def _find_part_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    convolutions = "convolutions" in config.targets
    if not config.train_unet and not config.train_text_encoder:
        yield (
            ("train_unet", "train_text_encoder"),
            "nothing would be trained; turn this on, or Train the text encoders.",
        )
    elif not config.train_unet and convolutions:
        yield (
            ("targets", "train_unet"),
            "only the U-Net has convolutions, and it is not trained; choose attention + "
            "feed-forward, or turn on Train the U-Net.",
        )
    if config.text_encoder_lr is not None and not config.train_text_encoder:
        yield (
            ("text_encoder_lr", "train_text_encoder"),
            "the text encoders are not trained; leave it empty, or turn on Train the text "
            "encoders.",
        )
    elif config.text_encoder_lr is not None and not config.train_unet:
        yield (
            ("text_encoder_lr", "train_unet"),
            "only the text encoders are trained, and they use Learning rate; leave this empty.",
        )
    for name in ("conv_rank", "conv_alpha"):
        if getattr(config, name) is not None and not convolutions and config.targets != "patterns":
            yield (
                (name, "targets"),
                f"{config.targets} includes no 3 × 3 convolutions; leave it empty, or choose "
                "Target layers with convolutions.",
            )
    if config.targets == "patterns" and not config.target_modules.strip(" ,\n"):
        yield ("target_modules", "targets"), "required when Target layers is patterns."
    if config.targets != "patterns" and config.target_modules:
        yield (
            ("target_modules", "targets"),
            f"used only when Target layers is patterns (you chose {config.targets}); leave it "
            "empty.",
        )


def _find_network_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    is_lokr = config.network_type == "LoKr"
    if config.lokr_factor is not None and not is_lokr:
        yield (
            ("lokr_factor", "network_type"),
            f"used only with LoKr; leave it empty (you entered {config.lokr_factor}), or choose "
            "LoKr as LoRA type.",
        )
    if config.lokr_factors != "second by rank" and not is_lokr:
        yield (
            ("lokr_factors", "network_type"),
            f"used only with LoKr; choose second by rank (you chose {config.lokr_factors}), or "
            "choose LoKr as LoRA type.",
        )
    if is_lokr and config.lokr_factors == "both whole":
        for name in ("alpha", "conv_rank", "conv_alpha"):
            if getattr(config, name) is not None:
                yield (
                    (name, "lokr_factors"),
                    "used only where LoKr has a rank; leave it empty, or set LoKr matrices to "
                    "second by rank.",
                )
        if config.use_rslora:
            yield (
                ("use_rslora", "lokr_factors"),
                "LoKr has no rank when both matrices are whole; turn this off, or set LoKr "
                "matrices to second by rank.",
            )
    if config.train_norm and not config.train_unet:
        yield (
            ("train_norm", "train_unet"),
            "the norm layers are in the U-Net, which is not trained; turn this off, or turn on "
            "Train the U-Net.",
        )
    elif config.train_norm and config.targets == "attention":
        yield (
            ("train_norm", "targets"),
            "attention alone has no norm layers; turn this off, or choose attention + "
            "feed-forward.",
        )


def _find_optimizer_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    if config.optimizer == ADAFACTOR_RELATIVE_STEP:
        for name in ("learning_rate", "text_encoder_lr"):
            rate = getattr(config, name)
            if rate is not None:
                yield (
                    (name, "optimizer"),
                    f"Adafactor (relative step) finds its own; leave it empty (you entered "
                    f"{rate:g}).",
                )
        if config.lr_scheduler != "constant":
            yield (
                ("lr_scheduler", "optimizer"),
                "Adafactor (relative step) has its own; choose constant (you chose "
                f"{config.lr_scheduler}).",
            )
    elif config.learning_rate is None:
        yield ("learning_rate", "optimizer"), f"required with {config.optimizer}, e.g. 0.0001."
    adam = config.optimizer.startswith("AdamW")
    for name in ("beta1", "beta2", "eps"):
        if getattr(config, name) is not None and not adam:
            yield (name, "optimizer"), "used only with AdamW; leave it empty."
    if config.scale_parameter is not None and adam:
        yield ("scale_parameter", "optimizer"), "used only with Adafactor; leave it empty."


def _find_lr_schedule_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    warmup = config.lr_warmup
    total = config.steps
    if config.lr_scheduler == "constant" and warmup:
        yield (
            ("lr_warmup", "lr_scheduler"),
            f"the constant schedule has no warm-up; choose constant with warm-up, or enter 0 "
            f"(you entered {warmup:g}).",
        )
    elif config.lr_scheduler == "constant with warm-up" and not warmup:
        yield (
            ("lr_warmup", "lr_scheduler"),
            "required; for training without one, choose the schedule constant.",
        )
    if warmup >= 1 and warmup != math.floor(warmup):
        yield (
            ("lr_warmup",),
            f"must be a share below 1 or a whole number of steps (you entered {warmup:g}).",
        )
    elif warmup and total is not None:
        warmup_steps = warmup * total if warmup < 1 else warmup
        if not 1 <= warmup_steps < total:
            yield (
                ("lr_warmup", "steps"),
                f"must be at least 1 step and fewer than all {total} (you entered {warmup:g}).",
            )
    if config.lr_scheduler_num_cycles is not None and config.lr_scheduler != "cosine with restarts":
        yield (
            ("lr_scheduler_num_cycles", "lr_scheduler"),
            "used only with cosine with restarts; leave it empty (you entered "
            f"{config.lr_scheduler_num_cycles}).",
        )
    if config.lr_scheduler_power is not None and config.lr_scheduler != "polynomial":
        yield (
            ("lr_scheduler_power", "lr_scheduler"),
            "used only with polynomial; leave it empty (you entered "
            f"{config.lr_scheduler_power:g}).",
        )
    if config.lr_scheduler == "polynomial" and (config.learning_rate or 1) <= 1e-7:
        yield (
            ("learning_rate", "lr_scheduler"),
            f"must be above 1e-7, where polynomial ends (you entered {config.learning_rate:g}).",
        )


def _find_image_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    if config.num_class_images and not config.class_word:
        yield (
            ("class_word", "num_class_images"),
            "required for class images; enter what kind of thing it is, such as plush toy.",
        )
    if config.prior_loss_weight is not None and not config.num_class_images:
        yield (
            ("prior_loss_weight", "num_class_images"),
            "there are no class images; leave it empty, or set Class images.",
        )
    if config.keep_tokens and not config.shuffle_caption:
        yield (
            ("keep_tokens", "shuffle_caption"),
            "used only when captions are shuffled; enter 0, or turn on Shuffle captions.",
        )
    if config.crop == "random" and config.cache_latents != "off":
        yield (
            ("crop", "cache_latents"),
            "cached latents hold a single crop, so it cannot be random; set Cache latents to off, "
            "or choose center.",
        )


def _find_bucket_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    """Find what can be judged before the resolution is known."""
    if not config.buckets:
        yield from _find_unused_bucket_settings(config)
        return
    min_side = config.bucket_min
    max_side = config.bucket_max
    step = config.bucket_step
    resolution = config.resolution
    for name, side in (("bucket_min", min_side), ("bucket_max", max_side)):
        if side is not None and config.bucket_no_upscale:
            yield (
                (name, "bucket_no_upscale"),
                "used only when small images are enlarged; leave it empty (you entered "
                f"{side}), or turn off Do not enlarge.",
            )
        elif side is not None and step is not None and side % step:
            yield (
                (name, "bucket_step"),
                f"must be a multiple of Bucket step, {step} (you entered {side}).",
            )
    if config.bucket_no_upscale:
        return
    if min_side is not None and max_side is not None and min_side > max_side:
        yield (
            ("bucket_min", "bucket_max"),
            f"must not exceed Longest bucket side, {max_side} (you entered {min_side}).",
        )
    if resolution is not None and min_side is not None and min_side > resolution:
        yield (
            ("bucket_min", "resolution"),
            f"must not exceed Resolution, {resolution} (you entered {min_side}).",
        )
    if resolution is not None and max_side is not None and max_side < resolution:
        yield (
            ("bucket_max", "resolution"),
            f"must not be below Resolution, {resolution} (you entered {max_side}).",
        )


def _find_unused_bucket_settings(config: TrainingFields) -> Iterator[Conflict]:
    for name in ("bucket_min", "bucket_max", "bucket_step"):
        if getattr(config, name) is not None:
            yield (
                (name, "buckets"),
                "used only with buckets; leave it empty, or turn on Aspect ratio buckets.",
            )
    if config.bucket_no_upscale:
        yield (
            ("bucket_no_upscale", "buckets"),
            "used only with buckets; turn this off, or turn on Aspect ratio buckets.",
        )


def _find_monitoring_conflicts(config: TrainingFields) -> Iterator[Conflict]:
    for in_steps, in_epochs in (
        ("sample_every", "sample_every_epochs"),
        ("checkpoint_every", "checkpoint_every_epochs"),
    ):
        if getattr(config, in_steps) is not None and getattr(config, in_epochs) is not None:
            yield (in_steps, in_epochs), "set in both steps and epochs; leave one of them empty."
    has_interval = config.sample_every is not None or config.sample_every_epochs is not None
    if config.sample_prompt_list and not has_interval:
        yield (
            ("sample_every", "sample_every_epochs", "sample_prompts"),
            "enter how often the sample prompts are generated.",
        )
    if has_interval and not config.sample_prompt_list:
        yield (
            ("sample_prompts", "sample_every", "sample_every_epochs"),
            "enter at least one prompt, one per line.",
        )
    if (
        config.checkpoints_total_limit is not None
        and config.checkpoint_every is None
        and config.checkpoint_every_epochs is None
    ):
        yield (
            ("checkpoints_total_limit", "checkpoint_every", "checkpoint_every_epochs"),
            "only the last checkpoint is saved; leave it empty, or set Checkpoint every.",
        )
    if config.validate_every is not None and not config.validation_split:
        yield (
            ("validate_every", "validation_split"),
            "no images are held out; leave it empty, or set Validation share.",
        )
