"""The training loop: from a batch to a loss, from a loss to a step, and what happens on the way.

Knows: the U-Net's call, steps, losses that are not finite, a stop.
Does not know: noise and targets (objective.py), where batches come from (data_loader.py), layers
(lora_network.py), files (checkpoint.py), how a run begins and ends (job.py).

Noise, timestep and dropout are pure functions of (seed, batch, sample); nothing is drawn from
global state, so whatever else this process does between two steps changes nothing. The loss stays
on the device and is read every few steps. The trained weights are float32; the frozen model may be
smaller (autocast; float16 with a scaled loss). Plain torch: accelerate picks the device itself and
keeps its precision for the whole process, and a worker serves one device with runs of every
precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from studio.core.training.config import TrainingConfig
from studio.engine.models import devices
from studio.engine.training import optim, rng, text_encoding
from studio.engine.training.data_loader import Batch, BatchLoader
from studio.engine.training.lora_network import LoraNetwork
from studio.engine.training.objective import TrainingObjective
from studio.errors import Cancelled, StudioError

LOG_EVERY_STEPS = 10  # steps between two reads of the losses where a read makes the device wait
LOSS_EMA_DECAY = 0.98  # share of the smoothed loss that stays from step to step
MAX_NAMED_IMAGES = 4  # image names in the message of a training that broke twice


@dataclass
class PendingSteps:
    """Steps that were taken, and whose losses were not read yet."""

    steps: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    num_images: int = 0
    seconds: float = 0.0


class NonFiniteLoss(Exception):
    """A loss or gradient that is not finite, first seen in `step`, counted from 1."""

    def __init__(self, step: int, image_names: list[str]) -> None:
        super().__init__(f"step {step}")
        self.step = step
        self.image_names = image_names


class Trainer:
    """A network, its optimizer and their progress.

    `global_step` counts finished steps; `skipped_steps` are steps whose update is left out.
    """

    def __init__(
        self, network: LoraNetwork, loader: BatchLoader, config: TrainingConfig, total_steps: int
    ) -> None:
        """Build the optimizer and the objective. `config` is resolved."""
        self.network = network
        self.loader = loader
        self.config = config
        self.total_steps = total_steps
        self.model = network.model
        self.device = network.model.device
        self.objective = TrainingObjective(
            self.model.scheduler_config, self.model.info.prediction_type, self.device.torch_device
        )
        self.parameters = network.parameters
        self.optimizer = optim.build_optimizer(config, network.parameter_groups, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.kind, enabled=self.device.dtype == torch.float16
        )
        self.global_step = 0
        self.skipped_steps: set[int] = set()
        self.smoothed_loss = 0.0
        self.log_every = 1 if self.device.kind == "cpu" else LOG_EVERY_STEPS
        self.pending = PendingSteps()
        self._token_ids: dict[str, list[torch.Tensor]] = {}  # by caption, for each encoder

    # ---- a step ---------------------------------------------------------------------------------

    def weighted_loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of each sample, weighted, as (samples,)."""
        config = self.config
        self.network.dropout.step = batch.step
        self.network.dropout.sample_keys = batch.sample_keys
        noise = self.objective.draw_noise(batch, config.seed, config.noise_offset)
        timesteps = self.objective.draw_timesteps(batch, config.seed)
        losses = self.denoising_loss(batch, noise, timesteps)
        snr_weights = self.objective.compute_loss_weights(timesteps, config.min_snr_gamma)
        return losses * snr_weights * batch.loss_weights

    def denoising_loss(
        self, batch: Batch, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean squared error of the U-Net's prediction for each sample, as (samples,).

        Args:
            batch: The latents, and the captions or their embeddings.
            noise: Normal noise, shaped as the latents.
            timesteps: (samples,), the noise levels.
        """
        dtype = self.device.dtype
        noisy_latents, target = self.objective.add_noise(batch.latents, noise, timesteps)
        use_autocast = self.network.uses_autocast
        with torch.autocast(self.device.kind, dtype) if use_autocast else nullcontext():
            prompt_embeds, pooled = batch.prompt_embeds, batch.pooled_prompt_embeds
            if prompt_embeds is None:
                prompt_embeds, pooled = text_encoding.encode_tokens(
                    self.model.family,
                    self.model.text_encoders,
                    self._tokenize(batch.captions),
                    self.config.clip_skip,
                )
            row = {"prompt_embeds": prompt_embeds}
            if pooled is not None and batch.time_ids is not None:
                row |= {"pooled_prompt_embeds": pooled, "time_ids": batch.time_ids}
            prediction = self.model.call_denoiser(noisy_latents.to(dtype), timesteps, row)
        return (prediction.float() - target).square().mean(dim=(1, 2, 3))

    def step(self, on_batch: Callable[[], Any] = lambda: None) -> None:
        """Take one optimizer step, from one batch or several, and call `on_batch` between them."""
        # 1. Accumulate gradients over the batches of the step.
        num_batches = self.config.gradient_accumulation_steps
        step_loss = torch.zeros((), device=self.device.torch_device)
        for index in range(num_batches):
            if index:
                on_batch()
            started = time.perf_counter()
            batch = self.loader.load_batch(self.global_step * num_batches + index)
            with devices.fast_float32(self.device.torch_device):
                loss = self.weighted_loss(batch).mean()
                self.scaler.scale(loss / num_batches).backward()
            step_loss += loss.detach() / num_batches
            self.pending.num_images += len(batch.samples)
            self.pending.seconds += time.perf_counter() - started

        # 2. Measure and clip the gradients.
        started = time.perf_counter()
        self.scaler.unscale_(self.optimizer)
        gradients = [weight.grad for weight in self.parameters if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, norm)
        # A norm that is not finite makes the loss NaN, so that `collect_metrics` sees it. A scaled
        # loss overflows now and then; the scaler leaves that step out by itself.
        if not self.scaler.is_enabled():
            step_loss = step_loss + 0 * norm

        # 3. Update the weights.
        optim.set_learning_rates(self.optimizer, self.config, self.global_step, self.total_steps)
        if self.global_step + 1 not in self.skipped_steps:
            self.scaler.step(self.optimizer)
            if self.config.scale_weight_norms:
                self.network.limit_norms(self.config.scale_weight_norms)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1

        # 4. Note the loss without reading it: the device is not waited for.
        self.pending.steps.append(self.global_step)
        self.pending.losses.append(step_loss)
        self.pending.seconds += time.perf_counter() - started

    def collect_metrics(self) -> list[dict[str, float]]:
        """Read the losses of the steps since the last call, and return a log row for each step.

        Raises:
            NonFiniteLoss: For the first step whose loss is not finite.
        """
        started = time.perf_counter()
        pending, self.pending = self.pending, PendingSteps()
        if not pending.steps:
            return []
        losses = torch.stack(pending.losses).tolist()  # waits for the device
        seconds = pending.seconds + time.perf_counter() - started
        speed = pending.num_images / max(1e-9, seconds)
        rate = optim.get_learning_rate(self.optimizer)
        rows = []
        for step, loss in zip(pending.steps, losses):
            if step in self.skipped_steps:
                continue
            if not abs(loss) < float("inf"):
                raise NonFiniteLoss(step, self.list_image_names(step))
            self._update_smoothed_loss(step, loss)
            rows.append(
                {
                    "step": step,
                    "loss": loss,
                    "smoothed": self.smoothed_loss,
                    "rate": rate,
                    "speed": speed,
                }
            )
        return rows

    def _update_smoothed_loss(self, step: int, loss: float) -> None:
        """Update the moving average, corrected as if it had begun with the first loss."""
        biased = self.smoothed_loss * (1 - LOSS_EMA_DECAY ** (step - 1))
        biased = LOSS_EMA_DECAY * biased + (1 - LOSS_EMA_DECAY) * loss
        self.smoothed_loss = biased / (1 - LOSS_EMA_DECAY**step)

    def _tokenize(self, captions: list[str]) -> list[torch.Tensor]:
        """Return token ids for each encoder, as (captions, chunks, 77)."""
        for caption in captions:
            if caption not in self._token_ids:
                self._token_ids[caption] = text_encoding.tokenize(
                    self.model.tokenizers, [caption], self.loader.plan.options.num_chunks
                )
        ids_by_caption = [self._token_ids[caption] for caption in captions]
        return [torch.cat(ids_of_encoder) for ids_of_encoder in zip(*ids_by_caption)]

    def list_image_names(self, step: int) -> list[str]:
        """List the file names of the images of a step, counted from 1."""
        num_batches = self.config.gradient_accumulation_steps
        names = []
        for batch_index in range((step - 1) * num_batches, step * num_batches):
            samples = self.loader.plan.get_batch(batch_index)
            names += [sample.image.path.name for sample in samples]
        return names

    @torch.no_grad()
    def validate(self, loader: BatchLoader, noise_levels: tuple[float, ...]) -> float:
        """Return the mean loss on images that are not trained on.

        Args:
            loader: The batches to validate with.
            noise_levels: Shares of the timesteps, 0 … 1; the noise is the same at each call.
        """
        self.network.dropout.sample_keys = ()
        device = self.device.torch_device
        losses = []
        for batch_index in range(loader.plan.batches_per_epoch):
            batch = loader.load_batch(batch_index)
            shape = tuple(batch.latents.shape[1:])
            for level in noise_levels:
                noise = rng.draw_normal(
                    shape, self.config.seed, 0, batch.sample_keys, f"validation {level}"
                )
                timestep = int(level * self.objective.num_train_timesteps)
                timesteps = torch.full((len(batch.samples),), timestep, device=device)
                noise = devices.copy_to(device, noise)
                losses.append(self.denoising_loss(batch, noise, timesteps))
        return float(torch.cat(losses).mean())


class TrainingCallback(Protocol):
    """What `fit` reports to."""

    def on_batch_begin(self, trainer: Trainer) -> None:
        """Report before each batch, raise Cancelled to stop, let a short job in between."""

    def is_due(self, step: int) -> bool:
        """Return whether `on_step_end` has work after this step; always after the last."""

    def log_metrics(self, rows: list[dict[str, float]]) -> None:
        """Append rows to the log."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Validate, generate samples and save, as far as due and not done yet.

        It is called after a step for which `is_due`, when its loss is known to be finite.
        """

    def save_checkpoint(self, trainer: Trainer) -> None:
        """Save the trainer's state."""

    def rollback(self, trainer: Trainer, error: NonFiniteLoss) -> None:
        """Put the trainer back to the last sound state."""


def fit(trainer: Trainer, callback: TrainingCallback) -> None:
    """Train to the last step.

    A stop leaves everything as it was after the last complete step, and saves it. After a loss that
    is not finite the training goes back once, and on without the step that broke; the second time
    it fails, and the checkpoints before are sound.

    Args:
        trainer: The trainer, at whatever step it has reached.
        callback: What logs, validates, saves, and raises Cancelled to stop.

    Raises:
        Cancelled: If the callback raised it; everything is saved.
        StudioError: If the loss was not finite a second time.
    """
    try:
        if callback.is_due(trainer.global_step):
            callback.on_step_end(trainer)  # the untrained model, or what a kill interrupted
        while trainer.global_step < trainer.total_steps:
            try:
                callback.on_batch_begin(trainer)
                trainer.step(lambda: callback.on_batch_begin(trainer))
                is_due = callback.is_due(trainer.global_step)
                if is_due or trainer.global_step % trainer.log_every == 0:
                    callback.log_metrics(trainer.collect_metrics())
                if is_due:
                    callback.on_step_end(trainer)
            except NonFiniteLoss as error:
                _roll_back(trainer, callback, error)
    except Cancelled:
        # Gradients of batches that have not become a step.
        trainer.optimizer.zero_grad(set_to_none=True)
        try:
            callback.log_metrics(trainer.collect_metrics())
        except NonFiniteLoss:
            raise Cancelled from None  # the newest checkpoint is the last sound state
        callback.save_checkpoint(trainer)
        raise


def _roll_back(trainer: Trainer, callback: TrainingCallback, error: NonFiniteLoss) -> None:
    """Go back to the last sound state and skip the step that broke; fail the second time."""
    if trainer.skipped_steps:
        image_names = ", ".join(error.image_names[:MAX_NAMED_IMAGES])
        num_unnamed = len(error.image_names) - MAX_NAMED_IMAGES
        if num_unnamed > 0:
            image_names += f" and {num_unnamed} more"
        raise StudioError(
            f"The training diverged a second time, in step {error.step} (images {image_names}): "
            "the loss is not a number. Earlier checkpoints are intact. Choose a lower learning "
            "rate, or float32 as Precision."
        )
    trainer.pending = PendingSteps()
    callback.rollback(trainer, error)
    trainer.skipped_steps.add(error.step)
