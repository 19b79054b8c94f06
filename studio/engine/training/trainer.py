"""The training loop: from a batch to a loss, from a loss to a step, and what happens on the way.

Knows: noise, timesteps, what the U-Net is to predict, how losses are weighed, steps, numbers that break, a stop. Does not know:
where batches come from (data.py), layers (network.py), files (checkpoint.py), how a run begins and ends (run.py).

Noise, timestep and dropout are pure functions of (seed, batch, sample); nothing is drawn from global state, so whatever else this
process does between two steps changes nothing. The loss stays on the device and is read every few steps. What is trained is
float32; the frozen model may be smaller (autocast; float16 with a scaled loss). Plain torch: accelerate picks the device itself and
keeps its precision for the whole process, and a worker serves one device with runs of every precision.

DDPM: arXiv:2006.11239. v-prediction: arXiv:2202.00512. Min-SNR: arXiv:2303.09556.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from studio.core.training.config import TrainingConfig
from studio.engine.models.schedulers import build
from studio.engine.training import optim, rng, text_encoding
from studio.engine.training.data_loader import Batch, Data
from studio.engine.training.lora_network import Network
from studio.errors import Cancelled, StudioError, UnknownFamily

READ_EVERY = 10  # steps between two looks at the losses where a look makes the device wait
SMOOTH = 0.98  # share of the smoothed loss that stays from step to step


class Noising:
    """How a model's pictures become noise, and what its U-Net says of them."""

    def __init__(self, shipped: Any, prediction: str, device: torch.device) -> None:
        """Raises UnknownFamily for a model that predicts something else."""
        if prediction not in ("epsilon", "v_prediction"):
            raise UnknownFamily(
                f"A model that predicts {prediction!r:.40} cannot be trained; epsilon and v_prediction can."
            )
        self.kept = build("DDPM", "As shipped", shipped, 1, 0).alphas_cumprod.to(
            device, torch.float32
        )
        self.steps, self.velocity = len(self.kept), prediction == "v_prediction"

    def noisy(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the U-Net sees, and what it ought to say."""
        kept = self.kept[timesteps].view(-1, 1, 1, 1)
        signal, spread = kept**0.5, (1 - kept) ** 0.5
        return (
            signal * latents + spread * noise,
            signal * noise - spread * latents if self.velocity else noise,
        )

    def weights(self, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """Of the losses at these noise levels (min-SNR); without gamma all are alike."""
        kept = self.kept[timesteps]
        if gamma is None:
            return torch.ones_like(kept)
        snr = kept / (1 - kept)
        return snr.clamp(max=gamma) / (snr + 1) if self.velocity else (gamma / snr).clamp(max=1)


@dataclass
class Pending:
    """Steps that were taken and not looked at yet."""

    steps: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    pictures: int = 0
    seconds: float = 0.0


class Broken(Exception):
    """Numbers that are none, first seen in this step."""

    def __init__(self, step: int, pictures: list[str]) -> None:
        super().__init__(f"step {step}")
        self.step, self.pictures = step, pictures


class Trainer:
    """A network, its optimizer and how far they are. `done` counts finished steps, `skipped` are steps that were left out."""

    def __init__(self, network: Network, data: Data, config: TrainingConfig, total: int) -> None:
        """`config` is resolved."""
        self.network, self.data, self.config, self.total = network, data, config, total
        self.parts, self.device = network.parts, network.parts.device
        self.noising = Noising(self.parts.shipped, self.parts.info.prediction, self.device.torch)
        self.weights = network.parameters
        self.optimizer = optim.make(config, network.groups, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.kind, enabled=self.device.dtype == torch.float16
        )
        self.done, self.skipped = 0, set[int]()
        self.smoothed = 0.0
        self.read_every = 1 if self.device.kind == "cpu" else READ_EVERY
        self.pending = Pending()
        self._ids: dict[str, list[torch.Tensor]] = {}  # token numbers of captions

    # ---- a step -------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> torch.Tensor:
        """How far the U-Net is off, for each sample, weighed."""
        config, seed, at = self.config, self.config.seed, (batch.step, batch.keys)
        self.network.dropout.step, self.network.dropout.keys = at
        noise = rng.normal(tuple(batch.latents.shape[1:]), seed, *at, "noise")
        if config.noise_offset:
            noise += config.noise_offset * rng.normal(
                (noise.shape[1], 1, 1), seed, *at, "noise offset"
            )
        times = torch.tensor(
            [
                rng.choice(self.noising.steps, seed, batch.step, key, "timestep")
                for key in batch.keys
            ]
        )
        noise, times = (
            tensor.to(self.device.torch, non_blocking=True) for tensor in (noise, times)
        )
        return (
            self.errors(batch, noise, times)
            * self.noising.weights(times, config.min_snr_gamma)
            * batch.weights
        )

    def errors(self, batch: Batch, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Mean square error of the U-Net's words about this noise, for each sample."""
        unet, dtype = self.parts.unet, self.device.dtype
        seen, wanted = self.noising.noisy(batch.latents, noise, times)
        with torch.autocast(self.device.kind, dtype) if dtype != torch.float32 else nullcontext():
            rows, pooled = batch.rows, batch.pooled
            if rows is None:
                rows, pooled = text_encoding.encode(
                    self.parts.info.family,
                    self.parts.text_encoders,
                    self._tokens(batch.captions),
                    self.config.clip_skip,
                )
            added = (
                None
                if pooled is None or batch.time_ids is None
                else {"text_embeds": pooled, "time_ids": batch.time_ids}
            )
            said = unet(seen.to(dtype), times, rows, added_cond_kwargs=added, return_dict=False)[0]
        return (said.float() - wanted).square().mean(dim=(1, 2, 3))

    def step(self, on_batch: Callable[[], Any] = lambda: None) -> None:
        """One step of the optimizer, from one batch or several, with `on_batch` between them."""
        config, many = self.config, self.config.accumulation
        total = torch.zeros((), device=self.device.torch)
        for number in range(many):
            if number:
                on_batch()
            began = time.perf_counter()
            batch = self.data.batch(self.done * many + number)
            loss = self.losses(batch).mean()
            self.scaler.scale(loss / many).backward()
            total += loss.detach() / many
            self.pending.pictures += len(batch.samples)
            self.pending.seconds += time.perf_counter() - began
        began = time.perf_counter()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(
            [weight.grad for weight in self.weights if weight.grad is not None]
        )
        if config.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.weights, config.max_grad_norm, norm)
        if (
            not self.scaler.is_enabled()
        ):  # a scaled loss overflows now and then; that step is left out by itself
            total = total + 0 * norm
        optim.set_rates(self.optimizer, config, self.done, self.total)
        if self.done + 1 not in self.skipped:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        self.pending.steps.append(self.done)
        self.pending.losses.append(total)
        self.pending.seconds += time.perf_counter() - began

    def read(self) -> list[dict[str, float]]:
        """Look at the steps since the last look: a row for the log each. Raises Broken for the first that is no number."""
        began, pending, self.pending = time.perf_counter(), self.pending, Pending()
        if not pending.steps:
            return []
        found = torch.stack(pending.losses).tolist()  # here the device is waited for
        speed = pending.pictures / max(1e-9, pending.seconds + time.perf_counter() - began)
        rows, rate = [], optim.rate(self.optimizer)
        for step, loss in zip(pending.steps, found):
            if step in self.skipped:
                continue
            if not abs(loss) < float("inf"):
                raise Broken(step, self.pictures(step))
            before = self.smoothed * (1 - SMOOTH ** (step - 1))
            self.smoothed = (SMOOTH * before + (1 - SMOOTH) * loss) / (
                1 - SMOOTH**step
            )  # as if it had begun with this loss
            rows.append(
                {
                    "step": step,
                    "loss": loss,
                    "smoothed": self.smoothed,
                    "rate": rate,
                    "speed": speed,
                }
            )
        return rows

    def _tokens(self, captions: list[str]) -> list[torch.Tensor]:
        for caption in captions:
            if caption not in self._ids:
                self._ids[caption] = text_encoding.tokens(
                    self.parts.tokenizers, [caption], self.data.plan.options.chunks
                )
        return [torch.cat(each) for each in zip(*(self._ids[caption] for caption in captions))]

    def pictures(self, step: int) -> list[str]:
        """Names of the pictures of a step, counted from 1."""
        batches = range((step - 1) * self.config.accumulation, step * self.config.accumulation)
        return [sample.item.path.name for number in batches for sample in self.data.plan.at(number)]

    @torch.no_grad()
    def validate(self, data: Data, times: tuple[float, ...]) -> float:
        """Mean error on pictures that are not trained on, with the same noise at the same noise levels each time."""
        found = []
        self.network.dropout.keys = ()
        for number in range(data.plan.batches_per_epoch):
            batch = data.batch(number)
            for level in times:
                noise = rng.normal(
                    tuple(batch.latents.shape[1:]),
                    self.config.seed,
                    0,
                    batch.keys,
                    f"validation {level}",
                )
                at = torch.full(
                    (len(batch.samples),), int(level * self.noising.steps), device=self.device.torch
                )
                found.append(self.errors(batch, noise.to(self.device.torch), at))
        return float(torch.cat(found).mean())


class Watch(Protocol):
    """What a loop reports to."""

    def ready(self, trainer: Trainer) -> None:
        """Before each step and each batch: report, hear a stop (Cancelled), let a short job in between."""

    def due(self, step: int) -> bool:
        """Whether something is to be done after this step; always after the last."""

    def rows(self, rows: list[dict[str, float]]) -> None:
        """For the log."""

    def reached(self, trainer: Trainer) -> None:
        """After a step for which something is due, its numbers known to be sound: validate, paint, save, unless that is done."""

    def save(self, trainer: Trainer) -> None:
        """Keep all there is."""

    def back(self, trainer: Trainer, broken: Broken) -> None:
        """Put the trainer back to the last sound state."""


def fit(trainer: Trainer, watch: Watch) -> None:
    """Train to the end.

    A stop leaves all as it was after the last whole step, and saves it. Where numbers break the training goes back once, and goes
    on without the step that broke; the second time it fails in words, and what was sound is still there.
    """
    try:
        if watch.due(trainer.done):
            watch.reached(trainer)  # the untrained model; or what a kill left undone
        while trainer.done < trainer.total:
            try:
                watch.ready(trainer)
                trainer.step(lambda: watch.ready(trainer))
                due = watch.due(trainer.done)
                if due or trainer.done % trainer.read_every == 0:
                    watch.rows(trainer.read())
                if due:
                    watch.reached(trainer)
            except Broken as broken:
                _back(trainer, watch, broken)
    except Cancelled:
        trainer.optimizer.zero_grad(set_to_none=True)  # of batches that have not become a step
        try:
            watch.rows(trainer.read())
        except Broken:
            raise Cancelled from None  # the last checkpoint is the last that is sound
        watch.save(trainer)
        raise


def _back(trainer: Trainer, watch: Watch, broken: Broken) -> None:
    shown = ", ".join(broken.pictures[:4]) + (
        f" and {len(broken.pictures) - 4} more" if len(broken.pictures) > 4 else ""
    )
    if trainer.skipped:
        raise StudioError(
            f"The training broke a second time, in step {broken.step} (pictures {shown}): the loss is no number. "
            "What was saved before is sound. Choose a lower learning rate, or float32 as precision."
        )
    trainer.pending = Pending()
    watch.back(trainer, broken)
    trainer.skipped.add(broken.step)
