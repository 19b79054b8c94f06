"""What a training takes, memory and seconds, measured with a few tries that leave no trace.

Knows: what is saved for the backward pass, what gradients and optimizer take, which settings to
lower.
Does not know: the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from studio.core.training.config import TrainingConfig
from studio.engine.models import devices
from studio.engine.models.cache import GIB, measure_bytes
from studio.engine.training import optim
from studio.engine.training.batch_plan import BatchPlan
from studio.engine.training.data_loader import Batch
from studio.engine.training.trainer import Trainer
from studio.errors import OutOfMemory

MAX_TIMED_STEPS = 3
LONG_STEP_SECONDS = 5.0  # after a step as long as this no further one is timed
MAX_SEARCHED_BATCHES = 256  # batches among which the largest is looked for
MEMORY_SAFETY_FACTOR = 1.25  # for tensors that live only for a moment


@dataclass(frozen=True)
class TrainingCost:
    """What a training takes.

    `model` are the model's bytes, `working` the bytes that a step takes beyond them, `room` the
    bytes that are free for it; `seconds` is the time of a step, `total` that of all steps.
    """

    model: int
    working: int
    room: int
    seconds: float
    total: float

    def to_dict(self) -> dict[str, Any]:
        """Return the measured numbers by name, as a run's record keeps them."""
        return asdict(self)


def measure_cost(
    trainer: Trainer, get_free_bytes: Callable[[], int], before_step: Callable[[], Any]
) -> TrainingCost:
    """Try a few backward passes without updating a weight.

    Args:
        trainer: The trainer; its state is not changed.
        get_free_bytes: Returns the bytes that are free on the device.
        before_step: Called before each try; it may raise to stop.

    Raises:
        OutOfMemory: Before anything is tried that would not fit.
    """
    config = trainer.config
    batch = trainer.loader.load_batch(_find_largest_batch(trainer.loader.plan))
    free_bytes = get_free_bytes()
    sample_bytes = measure_activation_bytes(trainer, _take_first_sample(batch))
    working_bytes = int(MEMORY_SAFETY_FACTOR * sample_bytes * len(batch.samples))
    num_weights = sum(weight.numel() for weight in trainer.parameters)
    working_bytes += optim.estimate_bytes(config, num_weights)
    if working_bytes > free_bytes:
        raise build_out_of_memory(config, working_bytes, free_bytes)
    held_bytes = trainer.device.reset_peak_memory()
    times: list[float] = []
    while len(times) < MAX_TIMED_STEPS and (not times or times[-1] < LONG_STEP_SECONDS):
        before_step()
        times.append(_time_backward_pass(trainer, batch))
    if held_bytes is not None:
        # What checkpointing computes again is saved by no hook that was counted.
        measured_bytes = trainer.device.get_peak_memory() - held_bytes
        working_bytes = max(
            working_bytes, measured_bytes + optim.estimate_bytes(config, num_weights)
        )
    seconds = min(times) * config.gradient_accumulation_steps
    return TrainingCost(
        model=measure_bytes(trainer.model),
        working=working_bytes,
        room=free_bytes,
        seconds=seconds,
        total=seconds * trainer.total_steps,
    )


def _find_largest_batch(plan: BatchPlan) -> int:
    """Return the step, among the first of an epoch, whose batch has the most pixels."""

    def count_pixels(step: int) -> int:
        samples = plan.get_batch(step)
        width, height = samples[0].fit.bucket
        return len(samples) * width * height

    return max(range(min(plan.batches_per_epoch, MAX_SEARCHED_BATCHES)), key=count_pixels)


def _time_backward_pass(trainer: Trainer, batch: Batch) -> float:
    """Return the seconds of a forward and backward pass; the gradients are dropped."""
    started = time.perf_counter()
    with devices.fast_float32(trainer.device.torch_device):
        trainer.scaler.scale(trainer.weighted_loss(batch).mean()).backward()
    gradient = trainer.parameters[0].grad
    if gradient is not None:
        float(gradient.sum())  # wait for the device
    trainer.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def measure_activation_bytes(trainer: Trainer, batch: Batch) -> int:
    """Return the bytes that a forward pass saves for the backward pass, beside the weights."""
    weight_pointers = set()
    for network in (trainer.model.denoiser, *trainer.model.text_encoders):
        for tensor in (*network.parameters(), *network.buffers()):
            weight_pointers.add(tensor.untyped_storage().data_ptr())
    storage_bytes: dict[int, int] = {}

    def record_storage(tensor: torch.Tensor) -> None:
        # Nothing is kept: a graph that holds its own tensor is never freed, and with it the model.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weight_pointers:
            storage_bytes[storage.data_ptr()] = storage.nbytes()

    def refuse(_: None) -> torch.Tensor:
        raise RuntimeError("what was only measured has no backward pass")

    with torch.autograd.graph.saved_tensors_hooks(record_storage, refuse):
        trainer.weighted_loss(batch)
    return sum(storage_bytes.values())


def build_out_of_memory(
    config: TrainingConfig, needed_bytes: int = 0, free_bytes: int = 0
) -> OutOfMemory:
    """Build the error for a training that does not fit; it says which settings to change."""
    lowerable = [f"the resolution (now {config.resolution})", f"the rank (now {config.rank})"]
    if config.train_batch_size > 1:
        lowerable.insert(0, f"the batch (now {config.train_batch_size})")
    remedies = [f"lower {', '.join(lowerable[:-1])} or {lowerable[-1]}"]
    if not config.gradient_checkpointing:
        remedies.append("turn on gradient checkpointing")
    if config.train_text_encoder and config.train_unet:
        remedies.append("leave out the text encoders")
    figures = ""
    if needed_bytes:
        figures = (
            f" It needs about {needed_bytes / GIB:.2f} GiB in addition to the "
            f"model, and {free_bytes / GIB:.2f} GiB are free."
        )
    return OutOfMemory(
        "There is not enough memory for this training."
        f"{figures} {', '.join(remedies).capitalize()}."
    )


def _take_first_sample(batch: Batch) -> Batch:
    """Return a batch of the first sample alone."""

    def take_first(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[:1]

    return replace(
        batch,
        samples=batch.samples[:1],
        captions=batch.captions[:1],
        latents=batch.latents[:1],
        loss_weights=batch.loss_weights[:1],
        prompt_embeds=take_first(batch.prompt_embeds),
        pooled_prompt_embeds=take_first(batch.pooled_prompt_embeds),
        time_ids=take_first(batch.time_ids),
    )
