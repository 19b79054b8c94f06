"""What a training is, before anything is loaded: from the settings to model, layers, pictures, order, number of steps.

Knows: how settings become the data's options, what a run's identity is. Does not know: weights, the loop, files of a run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from studio.core.training import steps
from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import Module
from studio.core.training.rules import for_family
from studio.engine.context import Bench
from studio.engine.models.devices import Device
from studio.engine.training import class_images, lora_network, optim
from studio.engine.training.batch_plan import DataOptions, Plan, split
from studio.errors import DatasetError
from studio.storage.datasets.training_set import Dataset, Item
from studio.storage.jobs import Progress
from studio.storage.models.library import ModelInfo

Report = Callable[[Progress], None]
# What changes neither weights nor order: a run may go on although one of these is another.
NO_MATTER = {
    "name",
    "save_precision",
    "sample_prompts",
    "sample_every",
    "sample_every_epochs",
    "checkpoint_every",
    "checkpoint_every_epochs",
    "keep_checkpoints",
    "cache_latents",
    "validate_every",
    "gradient_checkpointing",
}


@dataclass(frozen=True)
class Setup:
    """A training that can begin. `held` is what it is validated with; `notes` are what its owner should know."""

    config: TrainingConfig
    info: ModelInfo
    content: str
    device: Device
    unet: Mapping[str, Any]  # of its config what the exporter needs
    modules: tuple[Module, ...]
    dataset: Dataset
    plan: Plan
    held: Plan | None
    total: int
    notes: tuple[str, ...]

    @property
    def per_epoch(self) -> int:
        """Steps in which every picture is seen once."""
        return math.ceil(self.plan.batches_per_epoch / self.config.accumulation)

    @property
    def identity(self) -> str:
        """sha256 over all that decides the run's steps."""
        said = self.config.model_dump(mode="json", exclude=NO_MATTER)
        fingerprints = [
            self.plan.fingerprint,
            self.held.fingerprint if self.held else "",
            self.content,
            self.total,
        ]
        return hashlib.sha256(json.dumps([said, fingerprints], sort_keys=True).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """For the run's about.json: all that the exporter will want to know, whatever becomes of model and pictures."""
        own = [sample for sample in self.plan.samples if not sample.prior]
        return {
            "model": self.info.name,
            "model_content": self.content,
            "family": self.info.family,
            "prediction": self.info.prediction,
            "resolution": self.config.resolution,
            "steps": self.total,
            "steps_per_epoch": self.per_epoch,
            "batches_per_epoch": self.plan.batches_per_epoch,
            "pictures": len({sample.item.content for sample in own}),
            "showings": len(own),
            "class_pictures": len(
                {sample.item.content for sample in self.plan.samples if sample.prior}
            ),
            "validation_pictures": len({sample.item.content for sample in self.held.samples})
            if self.held
            else 0,
            "modules": {
                part: sum(module.part == part for module in self.modules)
                for part in dict.fromkeys(module.part for module in self.modules)
            },
            "buckets": {
                f"{width}x{height}": len(samples)
                for (width, height), samples in sorted(self.plan.of_bucket.items())
            },
            "dataset_content": self.dataset.content,
            "tag_frequency": self.dataset.tag_frequency(),
            "unet": self.unet,
            "precision": self.device.dtype_name,
            "device": self.device.title,
            "notes": list(self.notes),
        }


def prepare(bench: Bench, config: TrainingConfig, report: Report) -> Setup:
    """Look at everything that a training needs; class pictures that are missing are painted.

    Raises what names the fault: ModelNotFound, DatasetError, InvalidSpec, UnknownFamily.
    """
    info = bench.library.model(config.model)
    for_family(config, info.family, info.inpainting)
    device = lora_network.device_for(config, bench.pipelines.device)
    optim.check(config, device)
    chosen, unet = lora_network.targets(config, info)
    config = config.resolved(info.side, 0)
    dataset = bench.datasets.open(config.dataset)
    items = [_item(config, item) for item in dataset.items]
    shown, aside = split(items, config.validation_share, config.seed)
    if config.validation_share and not aside:
        raise DatasetError(
            f"{dataset.name} has only one picture, so none can be put aside to validate with; "
            "choose 0 as validation share."
        )
    opts = options(config)
    Plan(shown, opts)  # what cannot be trained on is said before class pictures are painted
    prior = class_images.pictures(bench, config, info, report)
    plan = Plan(shown, opts, prior, 1.0 if config.prior_weight is None else config.prior_weight)
    held = Plan([replace(item, repeats=1) for item in aside], opts.still) if aside else None
    total = steps.steps(
        config, len(plan.samples), [len(samples) for samples in plan.of_bucket.values()]
    )
    left = [f"{path.name} {why}" for each in (plan, held) if each for path, why in each.left_out]
    broken = [f"{name} {why}" for name, why in dataset.broken]
    return Setup(
        config,
        info,
        bench.library.content(info),
        device,
        unet,
        chosen,
        dataset,
        plan,
        held,
        total,
        (*broken, *left, *dataset.notes),
    )


def options(config: TrainingConfig) -> DataOptions:
    """The data's options. `config` is resolved."""
    assert config.resolution
    limits = config.bucketing()
    sizes = (
        {}
        if limits is None
        else {
            "least_bucket": limits.least,
            "most_bucket": limits.most,
            "bucket_step": limits.step,
            "no_upscale": limits.no_upscale,
        }
    )
    return DataOptions(
        resolution=(config.resolution, config.resolution),
        buckets=limits is not None,
        batch=config.batch,
        seed=config.seed,
        flip=config.flip,
        crop="random" if config.crop == "random" else "centre",
        trigger=config.trigger,
        shuffle_caption=config.shuffle_caption,
        keep_tokens=config.keep_tokens,
        caption_dropout=config.caption_dropout,
        clip_skip=config.clip_skip,
        cache="disk" if config.cache_latents == "disk" else "memory",
        **sizes,  # type: ignore[arg-type]
    )


def _item(config: TrainingConfig, item: Item) -> Item:
    """As it is trained on: its caption, or what is known without one, and its repeats."""
    written = "" if item.caption == item.concept else item.caption
    return replace(
        item, caption=config.caption(written, item.concept), repeats=item.repeats * config.repeats
    )
