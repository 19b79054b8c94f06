"""The plan of a training before it begins: images, steps, minutes and memory, all that is wrong.

Knows: the datasets, the costs measured by dry runs and earlier runs.
Does not know: components; how anything is trained.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from studio.core.jobs import TRAINING_DRY_RUN
from studio.core.training.advice import list_warnings
from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import select_modules
from studio.core.training.network_shapes import count_parameters, estimate_file_bytes
from studio.core.training.steps import count_steps
from studio.errors import DatasetError, StudioError
from studio.imaging import decode
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.datasets.training_set import TrainingSet
from studio.storage.models.model_shape import read_model_shape
from studio.ui.views import sweep, training
from studio.ui.views.common import format_bytes, format_duration

MAX_THUMBNAILS = 8
THUMBNAIL_SIDE_PX = 104
# What the time and memory of a step depend on; the other settings change neither.
COST_FIELDS = frozenset(
    {
        "model",
        "dataset",
        "train_batch_size",
        "gradient_accumulation_steps",
        "network_type",
        "use_dora",
        "lokr_factor",
        "lokr_factors",
        "train_norm",
        "rank_dropout",
        "module_dropout",
        "scale_weight_norms",
        "rank",
        "targets",
        "target_modules",
        "conv_rank",
        "dropout",
        "train_unet",
        "train_text_encoder",
        "optimizer",
        "resolution",
        "buckets",
        "bucket_min",
        "bucket_max",
        "bucket_step",
        "bucket_no_upscale",
        "precision",
        "gradient_checkpointing",
        "num_class_images",
        "validation_split",
    }
)


def render_plan(services: Services, config: TrainingConfig, visitor: Visitor) -> str:
    """Render the plan of a training that can begin.

    Raises:
        StudioError: what `Services.check_training` raises.
    """
    training_set = services.check_training(config, visitor)
    num_images, num_validation, total_steps = count_images_and_steps(config, training_set)
    cost = find_step_cost(services, config, visitor)
    # Each bucket's last batch may be short: images of several sizes take a few more steps.
    image_sizes = {(image.width, image.height) for image in training_set.images}
    is_bucketed = config.buckets and config.train_batch_size > 1 and len(image_sizes) > 1
    plan_html = training.render_plan(
        config,
        num_images,
        num_validation=num_validation,
        total_steps=total_steps,
        layers=describe_layers(services, config),
        cost=describe_cost(cost, total_steps),
        is_estimate=config.steps is None and is_bucketed,
    )
    warnings = list_warnings(config)
    return plan_html + (sweep.render_faults(warnings) if warnings else "")


def count_images_and_steps(
    config: TrainingConfig, training_set: TrainingSet
) -> tuple[int, int, int]:
    """Count images and steps of a training.

    Returns:
        Images in an epoch (without the config's repeats), images held out for validation, and
        optimizer steps.
    """
    images_per_epoch = training_set.images_per_epoch
    num_images = len(training_set.images)
    num_validation = 0
    if config.validation_split:
        num_validation = max(round(config.validation_split * num_images), 1)
        num_validation = min(num_validation, num_images - 1)
        images_per_epoch = max(1, round(images_per_epoch * (1 - num_validation / num_images)))
    return images_per_epoch, num_validation, count_steps(config, images_per_epoch)


def find_step_cost(
    services: Services, config: TrainingConfig, visitor: Visitor
) -> Mapping[str, Any] | None:
    """Look up the measured cost of a step, from a dry run or a run with the same costly settings.

    Returns:
        `seconds` a step, memory `working` and `room` in bytes; None if nothing was measured.
    """
    costly_settings = config.model_dump(mode="json", include=set(COST_FIELDS))
    # What was measured before a field was there had its default.
    defaults = {name: TrainingConfig.model_fields[name].default for name in COST_FIELDS}
    for settings, cost in _iter_step_costs(services, visitor):
        if {name: settings.get(name, defaults[name]) for name in COST_FIELDS} == costly_settings:
            return cost
    return None


def _iter_step_costs(
    services: Services, visitor: Visitor
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield (settings, cost) of the visitor's dry runs and runs, newest first."""
    for job in services.home.jobs.list_recent(200, visitor.owner_filter):
        if (
            job.kind == TRAINING_DRY_RUN.name
            and job.state == "done"
            and isinstance(job.result, dict)
        ):
            yield job.spec.get("config") or {}, job.result.get("cost") or {}
    for run in services.home.runs.list_runs(visitor.owner_filter)[:50]:
        if isinstance(run.start_info.get("cost"), dict):
            yield run.config.model_dump(mode="json"), run.start_info["cost"]


def describe_layers(services: Services, config: TrainingConfig) -> str:
    """Say how many layers learn, how many numbers that are, and how large the file will be.

    Raises:
        StudioError: The settings fit no layer of the model, or its configs cannot be read.
    """
    shape, _ = read_model_shape(services.home.library.get_model(config.model))
    modules = select_modules(
        shape,
        config.targets,
        config.target_modules,
        train_unet=config.train_unet,
        train_text_encoders=config.train_text_encoder,
        train_norm=config.train_norm,
    )
    kind = f"{config.network_type} with DoRA" if config.use_dora else config.network_type
    file_size = format_bytes(estimate_file_bytes(config, modules))
    return (
        f"{kind} on {len(modules):,} layers · {count_parameters(config, modules):,} parameters · "
        f"file size about {file_size}"
    )


def describe_cost(cost: Mapping[str, Any] | None, total_steps: int) -> str:
    """Say how many minutes and how much memory a training takes."""
    if not cost or not {"seconds", "working", "room"} <= cost.keys():
        return "The time is not known yet. Select Estimate time to measure a few steps."
    total_time = format_duration(cost["seconds"] * total_steps)
    step_time = format_duration(cost["seconds"])
    needed_memory = format_bytes(cost["working"])
    free_memory = format_bytes(cost["room"])
    return (
        f"About {total_time} ({step_time} per step) · "
        f"needs {needed_memory} of {free_memory} free memory in addition to the model"
    )


def render_dataset(services: Services, dataset_name: Any, visitor: Visitor) -> str:
    """Render what is in a dataset, or why it cannot be opened; "" without a name."""
    if not dataset_name:
        return ""
    try:
        training_set = services.open_training_set(str(dataset_name), visitor)
    except DatasetError as error:
        return sweep.render_faults([str(error)])
    images = training_set.images
    num_thumbnails = min(len(images), MAX_THUMBNAILS)
    thumbnails = []
    for index in range(num_thumbnails):  # spread over the whole dataset
        image = images[index * len(images) // num_thumbnails]
        url = encode_thumbnail(image.path, image.content_hash)
        if url:
            thumbnails.append((url, image.caption))
    return training.render_dataset(training_set, thumbnails)


@lru_cache(maxsize=512)
def encode_thumbnail(path: Path, content_hash: str) -> str:
    """Encode a thumbnail as a data URL, so that no dataset has to be served.

    Args:
        path: the image file.
        content_hash: hash of the file's content, which makes the cache forget a changed file.

    Returns:
        The URL; "" if the image cannot be read.
    """
    try:
        with decode.take_turn_for(path):
            image = decode.load_image(path.read_bytes(), path.name).image.convert("RGB")
            image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
    except (StudioError, OSError):
        return ""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=72)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
