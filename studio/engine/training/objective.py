"""The training objective: the noise, what the denoiser has to predict, how losses are weighted.

Knows: noise, timesteps, min-SNR weights. Does not know: how noise is added
(models/noise_process.py), networks, optimizers, where batches come from (data_loader.py).

Noise and timestep are pure functions of (seed, batch, sample); nothing is drawn from global state.

Min-SNR: arXiv:2303.09556.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.engine.models import devices
from studio.engine.models.noise_process import DiffusionProcess
from studio.engine.models.schedulers import build_scheduler
from studio.engine.training import rng
from studio.engine.training.data_loader import Batch
from studio.errors import UnknownFamily, quote


class TrainingObjective:
    """The noise schedule of a model, and what its U-Net predicts."""

    def __init__(self, scheduler_config: Any, prediction_type: str, device: torch.device) -> None:
        """Read the noise schedule.

        Args:
            scheduler_config: The config of the model's own scheduler.
            prediction_type: What the U-Net predicts, "epsilon" or "v_prediction".
            device: Where noise, timesteps and targets are computed.

        Raises:
            UnknownFamily: If the model predicts something else.
        """
        if prediction_type not in ("epsilon", "v_prediction"):
            raise UnknownFamily(
                f"A model that predicts {quote(prediction_type)} cannot be trained; "
                "epsilon and v_prediction can."
            )
        scheduler = build_scheduler("DDPM", "Model default", scheduler_config, 1, 0)
        self.device = device
        self._process = DiffusionProcess(scheduler, device)
        self.alphas_cumprod = self._process.alphas_cumprod
        self.num_train_timesteps = len(self.alphas_cumprod)
        self.is_v_prediction = prediction_type == "v_prediction"

    def draw_noise(self, batch: Batch, seed: int, noise_offset: float = 0.0) -> torch.Tensor:
        """Draw a batch's noise, shaped as its latents.

        `noise_offset` is the standard deviation of a constant that is added to each channel.
        """
        shape = tuple(batch.latents.shape[1:])
        noise = rng.draw_normal(shape, seed, batch.step, batch.sample_keys, "noise")
        if noise_offset:
            noise += noise_offset * rng.draw_normal(
                (shape[0], 1, 1), seed, batch.step, batch.sample_keys, "noise offset"
            )
        return devices.copy_to(self.device, noise)

    def draw_timesteps(self, batch: Batch, seed: int) -> torch.Tensor:
        """Draw a timestep for each sample of a batch, uniformly, as (samples,)."""
        timesteps = []
        for key in batch.sample_keys:
            timesteps.append(
                rng.draw_index(self.num_train_timesteps, seed, batch.step, key, "timestep")
            )
        return devices.copy_to(self.device, torch.tensor(timesteps))

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add noise to latents.

        Args:
            latents: (samples, channels, height, width), scaled for the U-Net.
            noise: Normal noise of the same shape.
            timesteps: (samples,), from 0 to `num_train_timesteps` - 1.

        Returns:
            The noisy latents, and the target that the U-Net has to predict from them.
        """
        return self._process.training_pair(latents, noise, timesteps)

    def compute_loss_weights(
        self, timesteps: torch.Tensor, min_snr_gamma: float | None
    ) -> torch.Tensor:
        """Return the min-SNR weights of losses at `timesteps`; without gamma all are 1."""
        alphas_cumprod = self.alphas_cumprod[timesteps]
        if min_snr_gamma is None:
            return torch.ones_like(alphas_cumprod)
        snr = alphas_cumprod / (1 - alphas_cumprod)
        if self.is_v_prediction:
            return snr.clamp(max=min_snr_gamma) / (snr + 1)
        return (min_snr_gamma / snr).clamp(max=1)
