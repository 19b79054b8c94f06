"""How noise is added to an image, and what a denoiser says about it: by diffusion, or by a flow.

Knows: the formulas that sampling, previews, inpainting, image to image and training share. Does not
know: which scheduler it is (schedulers.py), networks, the loop.

    diffusion   x = √ᾱ · image + √(1 - ᾱ) · noise; the denoiser predicts the noise, the image or v
                (arXiv:2006.11239, arXiv:2202.00512)
    flow        x = (1 - σ) · image + σ · noise; it predicts noise - image (arXiv:2210.02747)
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch


class NoiseProcess(ABC):
    """A scheduler on its way: it holds the timesteps and the state of one image.

    `timesteps` are those that are left, one for each call of the denoiser.
    """

    def __init__(self, scheduler: Any, step_options: Mapping[str, Any] | None = None) -> None:
        """Take a diffusers scheduler with its timesteps set.

        Args:
            scheduler: Nobody else may use it.
            step_options: What its `step` is given beside the prediction: eta, churn.
        """
        self.scheduler = scheduler
        self.timesteps: torch.Tensor = scheduler.timesteps
        self._step_options = dict(step_options or {})
        self.num_skipped_calls = 0  # of the denoiser, by `begin_at`
        self._takes_generator = "generator" in inspect.signature(scheduler.step).parameters

    def begin_at(self, step: int) -> None:
        """Leave out the first steps, as for an image that is not repainted from noise alone."""
        begin_index = step * self.scheduler.order
        self.num_skipped_calls = begin_index
        self.timesteps = self.timesteps[begin_index:]
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin_index)

    def step(
        self,
        prediction: torch.Tensor,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Return the latents after a step, by the guided prediction for them.

        Args:
            prediction: Of the denoiser, shaped as the latents.
            timestep: The one of `timesteps` it was made at.
            latents: (1, channels, rows, columns), as the last step left them.
            generator: Source of the noise of a stochastic scheduler.
        """
        kwargs = dict(self._step_options)
        if self._takes_generator:
            kwargs["generator"] = generator
        output = self.scheduler.step(prediction, timestep, latents, return_dict=False, **kwargs)
        after: torch.Tensor = output[0]
        return after

    @abstractmethod
    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        """Return what an image that is painted from noise alone starts with."""

    @abstractmethod
    def model_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return latents as the denoiser expects them."""

    @abstractmethod
    def renoise(
        self, image: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return an image's latents as noisy as those at a timestep, given as (1,)."""

    @abstractmethod
    def estimate_x0(
        self, model_input: torch.Tensor, timestep: torch.Tensor, prediction: torch.Tensor
    ) -> torch.Tensor:
        """Return the image's latents if a prediction were right."""

    @abstractmethod
    def training_pair(
        self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return noisy latents, and what the denoiser has to predict from them.

        Args:
            image: The images' latents (samples, channels, rows, columns), scaled.
            noise: Normal noise of the same shape.
            timesteps: (samples,), of those that the denoiser was trained on.
        """


class DiffusionProcess(NoiseProcess):
    """Noise by diffusion; `alphas_cumprod` is ᾱ at each timestep of the training."""

    def __init__(
        self,
        scheduler: Any,
        device: torch.device | None = None,
        step_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a diffusers scheduler with its timesteps set.

        Args:
            scheduler: Nobody else may use it.
            device: Where `training_pair` computes; nothing else needs it.
            step_options: What its `step` is given beside the prediction.
        """
        super().__init__(scheduler, step_options)
        self.alphas_cumprod = scheduler.alphas_cumprod.to(device, torch.float32)
        self._predicts_v = scheduler.config.prediction_type == "v_prediction"

    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = noise * self.scheduler.init_noise_sigma
        return latents

    def model_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def renoise(
        self, image: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        noisy: torch.Tensor = self.scheduler.add_noise(image, noise, timestep)
        return noisy

    def estimate_x0(
        self, model_input: torch.Tensor, timestep: torch.Tensor, prediction: torch.Tensor
    ) -> torch.Tensor:
        alpha_cumprod = self.scheduler.alphas_cumprod[int(timestep)].item()
        signal = alpha_cumprod**0.5
        sigma = (1 - alpha_cumprod) ** 0.5
        prediction_type = self.scheduler.config.prediction_type
        if prediction_type == "epsilon":
            return (model_input - sigma * prediction) / max(signal, 1e-3)
        if prediction_type == "sample":
            return prediction
        return signal * model_input - sigma * prediction

    def training_pair(
        self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        alphas_cumprod = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        signal_scale = alphas_cumprod**0.5
        noise_scale = (1 - alphas_cumprod) ** 0.5
        noisy_latents = signal_scale * image + noise_scale * noise
        if not self._predicts_v:
            return noisy_latents, noise
        return noisy_latents, signal_scale * noise - noise_scale * image


class FlowProcess(NoiseProcess):
    """Noise along a straight line."""

    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,  # noqa: ARG002 (nothing is scaled)
    ) -> torch.Tensor:
        return latents

    def renoise(
        self, image: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        noisy: torch.Tensor
        if hasattr(self.scheduler, "scale_noise"):
            noisy = self.scheduler.scale_noise(image, timestep, noise)
        else:
            noisy = self.scheduler.add_noise(image, noise, timestep)
        return noisy

    def estimate_x0(
        self, model_input: torch.Tensor, timestep: torch.Tensor, prediction: torch.Tensor
    ) -> torch.Tensor:
        sigma = float(timestep) / self.scheduler.config.num_train_timesteps
        return model_input - sigma * prediction

    def training_pair(
        self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sigmas = (timesteps / self.scheduler.config.num_train_timesteps).view(-1, 1, 1, 1)
        return (1 - sigmas) * image + sigmas * noise, noise - image
