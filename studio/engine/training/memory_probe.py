"""What a training will take: memory and seconds, from a few tries that leave no trace.

Knows: what is kept for the way back through the networks, what gradients and optimizer take, how to say what to lower.
Does not know: the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from studio.core.training.config import TrainingConfig
from studio.engine.models.cache import GIB, measure
from studio.engine.training import optim
from studio.engine.training.data_loader import Batch
from studio.engine.training.trainer import Trainer
from studio.errors import OutOfMemory

TRIES, LONG = 3, 5.0  # steps that are timed; after one as long as this many seconds no more
SPARE = 1.25  # for what lives only for a moment


@dataclass(frozen=True)
class Cost:
    """`working` are bytes that a step takes beyond what lies there; `room` is what is free for them; `seconds` is one step's."""

    model: int
    working: int
    room: int
    seconds: float
    total: float

    def told(self) -> dict[str, Any]:
        return asdict(self)


def measured(trainer: Trainer, room: Callable[[], int], ready: Callable[[], Any]) -> Cost:
    """Try a few steps without taking one. Raises OutOfMemory before anything that would not fit. `ready` is called in between."""
    config, plan = trainer.config, trainer.data.plan
    many = min(plan.batches_per_epoch, 256)
    largest = max(
        range(many),
        key=lambda k: len(plan.at(k)) * plan.at(k)[0].fit.bucket[0] * plan.at(k)[0].fit.bucket[1],
    )
    batch, free = trainer.data.batch(largest), room()
    working = int(SPARE * kept(trainer, _one(batch)) * len(batch.samples))
    working += optim.bytes_of(config, sum(weight.numel() for weight in trainer.weights))
    if working > free:
        raise too_much(config, working, free)
    times: list[float] = []
    while len(times) < TRIES and (not times or times[-1] < LONG):
        ready()
        began = time.perf_counter()
        trainer.scaler.scale(trainer.losses(batch).mean()).backward()
        float(trainer.weights[0].grad.sum()) if trainer.weights[
            0
        ].grad is not None else None  # wait for the device
        trainer.optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    seconds = min(times) * config.accumulation
    return Cost(measure(trainer.parts), working, free, seconds, seconds * trainer.total)


def kept(trainer: Trainer, batch: Batch) -> int:
    """Bytes that a batch leaves behind for the way back, beside the weights."""
    weights = {
        tensor.untyped_storage().data_ptr()
        for network in (trainer.parts.unet, *trainer.parts.text_encoders)
        for tensor in (*network.parameters(), *network.buffers())
    }
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        trainer.losses(batch)
    return sum(found.values())


def too_much(config: TrainingConfig, needed: int = 0, free: int = 0) -> OutOfMemory:
    """The sentence for a training that does not fit."""
    lower = [f"the batch (now {config.batch})"] * (config.batch > 1) + [
        f"the resolution (now {config.resolution})",
        f"the rank (now {config.rank})",
    ]
    ways = [f"lower {', '.join(lower[:-1])} or {lower[-1]}"]
    ways += ["switch gradient checkpointing on"] * (not config.gradient_checkpointing)
    ways += ["leave the text encoders out"] * (config.train_text_encoder and config.train_unet)
    figures = (
        f" It needs about {needed / GIB:.2f} GiB beside the model, and {free / GIB:.2f} GiB are free."
        if needed
        else ""
    )
    return OutOfMemory(
        f"The memory does not suffice for this training.{figures} {', '.join(ways).capitalize()}."
    )


def _one(batch: Batch) -> Batch:
    """The first sample alone."""

    def first(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[:1]

    return replace(
        batch,
        samples=batch.samples[:1],
        captions=batch.captions[:1],
        latents=batch.latents[:1],
        weights=batch.weights[:1],
        rows=first(batch.rows),
        pooled=first(batch.pooled),
        time_ids=first(batch.time_ids),
    )
