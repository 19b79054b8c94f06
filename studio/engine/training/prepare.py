"""What a training is before anything is loaded: model, layers, images, order and number of steps.

Knows: how settings become the data's options, what a run's identity is.
Does not know: weights, the loop, files of a run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from studio.core.training import steps
from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import TargetModule
from studio.core.training.rules import check_family
from studio.engine.context import WorkerContext
from studio.engine.models.devices import Device
from studio.engine.progress import ProgressCallback
from studio.engine.training import class_images, lora_network, optim
from studio.engine.training.batch_plan import BatchPlan, DataOptions, Sample, split_validation
from studio.errors import DatasetError
from studio.storage.content_hashes import compute_short_hash
from studio.storage.datasets.training_set import TrainingImage, TrainingSet
from studio.storage.models.library import ModelInfo

# Fields that change neither weights nor order: a run may be resumed although one of them differs.
NON_IDENTITY_FIELDS = {
    "name",
    "save_precision",
    "sample_prompts",
    "sample_every",
    "sample_every_epochs",
    "checkpoint_every",
    "checkpoint_every_epochs",
    "checkpoints_total_limit",
    "cache_latents",
    "validate_every",
    "gradient_checkpointing",
}


@dataclass(frozen=True)
class TrainingSetup:
    """A training that can begin.

    `validation_plan` are the batches that it is validated with; `notes` are what its owner should
    know, such as images that are left out.
    """

    config: TrainingConfig
    model_info: ModelInfo
    content_hash: str
    device: Device
    unet_config: Mapping[str, Any]  # the keys that the exporter needs
    target_modules: tuple[TargetModule, ...]
    dataset: TrainingSet
    plan: BatchPlan
    validation_plan: BatchPlan | None
    total_steps: int
    notes: tuple[str, ...]
    # Of a single-file model, by kohya's names.
    base_model_hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps in which every sample is seen once."""
        return math.ceil(self.plan.batches_per_epoch / self.config.gradient_accumulation_steps)

    @property
    def identity(self) -> str:
        """Return the sha256 over everything that decides the run's steps."""
        validation = self.validation_plan
        fingerprints = [
            self.plan.fingerprint,
            validation.fingerprint if validation else "",
            self.content_hash,
            self.total_steps,
        ]
        settings = self.config.stable_dump(NON_IDENTITY_FIELDS)
        text = json.dumps([settings, fingerprints], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def summarize(self) -> dict[str, Any]:
        """Return the facts for the run's about.json.

        They are all that the exporter needs, whatever becomes of model and images.
        """
        samples = [sample for sample in self.plan.samples if not sample.is_class_image]
        class_samples = [sample for sample in self.plan.samples if sample.is_class_image]
        validation_samples = self.validation_plan.samples if self.validation_plan else ()
        bucket_sizes = {}
        for (width, height), bucket_samples in sorted(self.plan.samples_by_bucket.items()):
            bucket_sizes[f"{width}x{height}"] = len(bucket_samples)
        return {
            "model": self.model_info.name,
            "model_content": self.content_hash,
            "base_model_hashes": dict(self.base_model_hashes),
            "family": self.model_info.family,
            "prediction": self.model_info.prediction_type,
            "resolution": self.config.resolution,
            "steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "batches_per_epoch": self.plan.batches_per_epoch,
            "pictures": _count_images(samples),
            "showings": len(samples),
            "class_pictures": _count_images(class_samples),
            "validation_pictures": _count_images(validation_samples),
            "modules": dict(Counter(module.part for module in self.target_modules)),
            "buckets": bucket_sizes,
            "dataset_content": self.dataset.content_hash,
            "tag_frequency": self.dataset.tag_frequency(),
            "unet": self.unet_config,
            "precision": self.device.dtype_name,
            "device": self.device.title,
            "notes": list(self.notes),
        }


def prepare_training(
    context: WorkerContext, config: TrainingConfig, report: ProgressCallback
) -> TrainingSetup:
    """Look up and check everything that a training needs; missing class images are generated.

    Args:
        context: The worker's library, datasets and pipelines.
        config: The settings, not yet resolved.
        report: Called while class images are generated; it raises Cancelled to stop.

    Raises:
        ModelNotFound: If there is no such model.
        DatasetError: If the dataset has no image to train on, or none to validate with.
        InvalidSpec: If settings do not fit the model or the device.
        UnknownFamily: If the model cannot be trained.
    """
    # 1. The model, the device and the layers that get a LoRA.
    info = context.home.library.get_model(config.model)
    check_family(config, info.family, info.is_inpainting)
    device = lora_network.select_device(config, context.pipelines.device)
    optim.check_optimizer(config, device)
    target_modules, unet_config = lora_network.select_target_modules(config, info)
    config = config.resolve(info.native_size, 0)

    # 2. The images to train on and to validate with.
    dataset = context.home.training_sets.load_training_set(config.dataset)
    images = [prepare_image(config, image) for image in dataset.images]
    training_images, validation_images = split_validation(
        images, config.validation_split, config.seed
    )
    if config.validation_split and not validation_images:
        raise DatasetError(
            f"Validation share: {dataset.name} has only one image, so none can be held out; "
            "enter 0."
        )

    # 3. The class images. A dataset that cannot be trained on is refused before they are generated.
    options = build_data_options(config)
    BatchPlan(training_images, options)
    prior_images = class_images.ensure_class_images(context, config, info, report)
    prior_loss_weight = config.prior_loss_weight
    if prior_loss_weight is None:
        prior_loss_weight = 1.0

    # 4. The order of batches and the number of steps.
    plan = BatchPlan(training_images, options, prior_images, prior_loss_weight)
    validation_plan = None
    if validation_images:
        validation_images = [replace(image, repeats=1) for image in validation_images]
        validation_plan = BatchPlan(validation_images, options.deterministic)
    samples_per_bucket = [len(samples) for samples in plan.samples_by_bucket.values()]
    total_steps = steps.count_steps(config, len(plan.samples), samples_per_bucket)
    return TrainingSetup(
        config=config,
        model_info=info,
        content_hash=context.home.library.get_content_hash(info),
        device=device,
        unet_config=unet_config,
        target_modules=target_modules,
        dataset=dataset,
        plan=plan,
        validation_plan=validation_plan,
        total_steps=total_steps,
        notes=_list_notes(dataset, plan, validation_plan),
        base_model_hashes=_hash_base_model(context, info),
    )


def _hash_base_model(context: WorkerContext, info: ModelInfo) -> dict[str, str]:
    """Return the hashes of a single-file model as kohya writes them into a LoRA; else none."""
    if not info.is_file:
        return {}
    return {
        "sd_model_hash": compute_short_hash(info.path),
        "new_sd_model_hash": context.home.library.get_own_hash(info),
    }


def build_data_options(config: TrainingConfig) -> DataOptions:
    """Build the data's options. `config` is resolved."""
    assert config.resolution
    limits = config.resolve_bucket_limits()
    options = DataOptions(
        resolution=(config.resolution, config.resolution),
        enable_buckets=limits is not None,
        batch_size=config.train_batch_size,
        seed=config.seed,
        random_flip=config.random_flip,
        crop="random" if config.crop == "random" else "centre",
        trigger=config.trigger,
        shuffle_caption=config.shuffle_caption,
        keep_tokens=config.keep_tokens,
        caption_dropout=config.caption_dropout,
        clip_skip=config.clip_skip,
        cache="disk" if config.cache_latents == "disk" else "memory",
    )
    if limits is None:
        return options
    return replace(
        options,
        min_bucket_side=limits.min_side,
        max_bucket_side=limits.max_side,
        bucket_step=limits.step,
        no_upscale=limits.no_upscale,
    )


def prepare_image(config: TrainingConfig, image: TrainingImage) -> TrainingImage:
    """Return an image with the caption and the repeats that it is trained with."""
    # The folder's concept stands in for a caption where there is none.
    written_caption = "" if image.caption == image.concept else image.caption
    return replace(
        image,
        caption=config.compose_caption(written_caption, image.concept),
        repeats=image.repeats * config.repeats,
    )


def _count_images(samples: tuple[Sample, ...] | list[Sample]) -> int:
    return len({sample.image.content_hash for sample in samples})


def _list_notes(
    dataset: TrainingSet, plan: BatchPlan, validation_plan: BatchPlan | None
) -> tuple[str, ...]:
    """List broken images, images that fit no bucket, and the dataset's own notes."""
    notes = [f"{name} {reason}" for name, reason in dataset.broken]
    for batch_plan in (plan, validation_plan):
        if batch_plan:
            notes += [f"{path.name} {reason}" for path, reason in batch_plan.excluded_images]
    return (*notes, *dataset.notes)
