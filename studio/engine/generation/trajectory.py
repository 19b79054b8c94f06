"""The one denoising loop.

Knows: how a picture goes from noise to latents. Does not know: prompts, files, pixels, which scheduler it is, who calls the
U-Net and what else it is asked in the same call (batcher.py).

A picture is a trajectory: a coroutine that asks the U-Net about latents at a timestep and is sent predictions.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from studio.engine.pipelines.families import Parts
from studio.engine.pipelines.loras import active
from studio.engine.pipelines.prompts import Conditioning
from studio.engine.pipelines.schedulers import build
from studio.errors import StudioError
from studio.spec.request import GenerationRequest

Prediction = tuple[torch.Tensor | None, torch.Tensor]  # for the negative prompt (None if unguided) and for the prompt


@dataclass(frozen=True)
class Ask:
    """What a trajectory wants to know: the noise in these latents (scaled as the U-Net expects) at this timestep."""

    latents: torch.Tensor
    timestep: torch.Tensor


class Trajectory:
    """One picture on its way. Its noise comes from its own seed alone, whatever runs beside it."""

    def __init__(self, parts: Parts, request: GenerationRequest, conditioning: Conditioning) -> None:
        """`request` is one picture's, resolved."""
        width, height = request.width or parts.info.side, request.height or parts.info.side
        self.request, self.conditioning = request, conditioning
        self.shape = parts.latent_shape(width, height)
        self.added = (parts.added(conditioning.negative_pooled, width, height), parts.added(conditioning.pooled, width, height))
        self.loras = active(parts, request)
        self._parts = parts
        self._scheduler = build(request.scheduler, request.schedule, parts.shipped, request.steps, request.seed)
        self._last: tuple[Ask, torch.Tensor] | None = None

    @property
    def asks(self) -> int:
        """How many times it asks the U-Net; a second-order scheduler about twice a step."""
        return len(self._scheduler.timesteps)

    @property
    def rows(self) -> int:
        """U-Net rows of each of its asks: the prompt's, and the negative one's if it is guided."""
        return 2 if self.request.guided else 1

    def run(self) -> Generator[Ask, Prediction, torch.Tensor]:
        """The coroutine; returns the finished latents. Raises StudioError if they are no numbers."""
        generator = torch.Generator().manual_seed(self.request.seed)  # on the CPU: the same noise on every device
        own = {"generator": generator} if "generator" in inspect.signature(self._scheduler.step).parameters else {}
        device = self._parts.device
        latents = randn_tensor(self.shape, generator, device.torch, device.dtype) * self._scheduler.init_noise_sigma
        for timestep in self._scheduler.timesteps:
            ask = Ask(self._scheduler.scale_model_input(latents, timestep), timestep)
            negative, positive = yield ask
            noise = positive if negative is None else negative + self.request.guidance * (positive - negative)
            self._last = ask, noise
            latents = self._scheduler.step(noise, timestep, latents, **own, return_dict=False)[0].to(device.dtype)
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(f"The picture of seed {self.request.seed} broke: {self.request.scheduler} on {self.request.schedule} "
                              f"came to no numbers in {self.request.steps} steps with {device.dtype_name}. Choose other steps, "
                              "another scheduler or --precision float32.")
        return latents

    def estimate(self) -> torch.Tensor | None:
        """What the latents would be if the last prediction were right; None before the first."""
        if self._last is None:
            return None
        (ask, noise), kind = self._last, self._scheduler.config.prediction_type
        kept = self._scheduler.alphas_cumprod[int(ask.timestep)].item()
        signal, spread = kept ** 0.5, (1 - kept) ** 0.5
        if kind == "epsilon":
            return (ask.latents - spread * noise) / max(signal, 1e-3)
        return noise if kind == "sample" else signal * ask.latents - spread * noise
