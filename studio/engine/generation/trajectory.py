"""The one denoising loop.

Knows: how an image goes from noise to latents. Does not know: prompts, files, pixels, which
scheduler it is, who calls the U-Net and what else shares the call (batcher.py).

An image is a trajectory: a coroutine that yields latents at a timestep and is sent predictions. One
that starts from an image skips the first steps; one with a mask restores the image around it after
each step (or, with a model made for inpainting, gives the U-Net both). The draws from its generator
come in the order of diffusers' own pipelines.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from studio.core.generation.geometry import MaskedContent, count_effective_steps
from studio.core.generation.request import ResolvedRequest
from studio.engine.models.adapters.lora import select_adapters
from studio.engine.models.families import LoadedModel
from studio.engine.models.prompt_encoding import Conditioning
from studio.engine.models.schedulers import build_scheduler
from studio.errors import StudioError

# The U-Net's output for the negative prompt (None if unguided) and for the prompt.
Prediction = tuple[torch.Tensor | None, torch.Tensor]


@dataclass(frozen=True)
class ModelInput:
    """Latents, scaled as the U-Net expects, and the timestep at which it shall predict."""

    latents: torch.Tensor
    timestep: torch.Tensor


@dataclass(frozen=True)
class InitImage:
    """The image that a trajectory starts from, at its size, as pixels or as latents.

    Without masks all of it is repainted.
    """

    strength: float  # 0 to 1
    pixels: torch.Tensor | None = None  # (1, 3, height, width) in -1 … 1
    latents: torch.Tensor | None = None  # (1, channels, rows, columns)
    mask_pixels: torch.Tensor | None = None  # (1, 1, height, width), 1 where masked
    latent_mask: torch.Tensor | None = None  # (1, 1, rows, columns), 1 where masked
    masked_content: MaskedContent = "original"


@dataclass(frozen=True)
class _InitialState:
    """What the loop starts with."""

    latents: torch.Tensor
    noise: torch.Tensor
    image_latents: torch.Tensor | None  # of the init image
    # A U-Net for inpainting also takes the mask and the masked image's latents.
    inpaint_cond: tuple[torch.Tensor, ...]


class Trajectory:
    """One image on its way. Its noise comes from its own seed alone, whatever runs beside it."""

    def __init__(
        self,
        model: LoadedModel,
        request: ResolvedRequest,
        conditioning: Conditioning,
        init_image: InitImage | None = None,
    ) -> None:
        """Prepare the scheduler; draw nothing yet.

        Args:
            model: Borrowed for this request.
            request: Of a single image.
            conditioning: The request's encoded prompts.
            init_image: Its strength must leave at least one step.

        Raises:
            InvalidSpec: The scheduler cannot take so many steps.
        """
        width, height = request.size
        self.request = request
        self.conditioning = conditioning
        self.latent_shape = model.latent_shape(width, height)
        self.added_cond_kwargs = (
            model.added_cond_kwargs(conditioning.negative_pooled, width, height),
            model.added_cond_kwargs(conditioning.pooled, width, height),
        )
        self.active_adapters = select_adapters(model, request)
        self._model = model
        self._scheduler = build_scheduler(
            request.scheduler,
            request.noise_schedule,
            model.scheduler_config,
            request.steps,
            request.seed,
        )
        self._init_image = init_image
        self._timesteps = self._scheduler.timesteps
        if init_image is not None:
            effective_steps = count_effective_steps(request.steps, init_image.strength)
            begin_index = (request.steps - effective_steps) * self._scheduler.order
            self._timesteps = self._timesteps[begin_index:]
            if hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(begin_index)
        # Scaled latents, timestep, and the guided prediction for them.
        self._last_step: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @property
    def num_model_calls(self) -> int:
        """How many predictions it takes; a second-order scheduler about two a step."""
        return len(self._timesteps)

    @property
    def last_input(self) -> tuple[torch.Tensor, float]:
        """The U-Net's last input, latents and timestep. Only after the first prediction."""
        assert self._last_step
        latents, timestep, _ = self._last_step
        return latents, float(timestep)

    @property
    def branches(self) -> int:
        """U-Net rows per prediction: the prompt's, and the negative prompt's if it is guided."""
        return 2 if self.request.is_guided else 1

    def run(self) -> Generator[ModelInput, Prediction, torch.Tensor]:
        """Denoise, as a coroutine that yields the U-Net's input and is sent its prediction.

        Returns:
            The finished latents (1, channels, rows, columns).

        Raises:
            StudioError: They are not finite.
        """
        # On the CPU: the same noise on every device.
        generator = torch.Generator().manual_seed(self.request.seed)
        step_kwargs: dict[str, Any] = {"return_dict": False}
        if "generator" in inspect.signature(self._scheduler.step).parameters:
            step_kwargs["generator"] = generator
        state = self._prepare_latents(generator)
        latents = state.latents
        for index, timestep in enumerate(self._timesteps):
            scaled_latents = self._scheduler.scale_model_input(latents, timestep)
            unet_latents = scaled_latents
            if state.inpaint_cond:
                unet_latents = torch.cat([scaled_latents, *state.inpaint_cond], dim=1)
            negative, positive = yield ModelInput(unet_latents, timestep)
            prediction = positive
            if negative is not None:
                prediction = negative + self.request.guidance * (positive - negative)
            self._last_step = (scaled_latents, timestep, prediction)
            output = self._scheduler.step(prediction, timestep, latents, **step_kwargs)
            latents = self._restore_unmasked(output[0].to(self._model.device.dtype), state, index)
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(
                f"The picture of seed {self.request.seed} broke: {self.request.scheduler} on "
                f"{self.request.noise_schedule} came to no numbers in {self.request.steps} steps "
                f"with {self._model.device.dtype_name}. Choose other steps, another scheduler or "
                "--precision float32."
            )
        return latents

    def estimate_x0(self) -> torch.Tensor | None:
        """Return the latents if the last prediction were right; None before the first."""
        if self._last_step is None:
            return None
        latents, timestep, prediction = self._last_step
        alpha_cumprod = self._scheduler.alphas_cumprod[int(timestep)].item()
        signal = alpha_cumprod**0.5
        sigma = (1 - alpha_cumprod) ** 0.5
        prediction_type = self._scheduler.config.prediction_type
        if prediction_type == "epsilon":
            return (latents - sigma * prediction) / max(signal, 1e-3)
        if prediction_type == "sample":
            return prediction
        return signal * latents - sigma * prediction

    def _restore_unmasked(
        self, latents: torch.Tensor, state: _InitialState, index: int
    ) -> torch.Tensor:
        """Put the init image, as noisy as the next step's latents, back around the mask."""
        mask = self._init_image.latent_mask if self._init_image else None
        if mask is None or state.image_latents is None or state.inpaint_cond:
            return latents
        known_latents = state.image_latents
        next_timestep = self._timesteps[index + 1 : index + 2]
        if len(next_timestep):
            known_latents = self._scheduler.add_noise(known_latents, state.noise, next_timestep)
        return (1 - mask) * known_latents + mask * latents

    def _prepare_latents(self, generator: torch.Generator) -> _InitialState:
        """Draw and encode what the loop starts with; the order of draws is diffusers'."""
        init_image = self._init_image
        mask = init_image.latent_mask if init_image else None
        from_noise_alone = init_image is None or (
            init_image.strength == 1 and (mask is not None or self._model.is_inpainting)
        )
        image_latents = self._encode_init_image(generator, from_noise_alone)
        noise = self._draw_noise(generator)
        inpaint_cond: tuple[torch.Tensor, ...] = ()
        if self._model.is_inpainting:
            inpaint_cond = self._encode_inpaint_cond(generator)
        elif mask is not None:
            self._draw_noise(generator)  # stock pipelines encode the masked image here, unused
        if (
            init_image is not None
            and mask is not None
            and image_latents is not None
            and init_image.masked_content.startswith("latent")
        ):
            content: torch.Tensor | float = 0.0
            if init_image.masked_content == "latent noise":
                content = self._draw_noise(generator)
            image_latents = (1 - mask) * image_latents + mask * content
        if from_noise_alone or image_latents is None:
            latents = noise * self._scheduler.init_noise_sigma
        else:
            latents = self._scheduler.add_noise(image_latents, noise, self._timesteps[:1])
        return _InitialState(latents, noise, image_latents, inpaint_cond)

    def _draw_noise(self, generator: torch.Generator) -> torch.Tensor:
        device = self._model.device
        return randn_tensor(
            self.latent_shape, generator, device=device.torch_device, dtype=device.dtype
        )

    def _encode_init_image(
        self, generator: torch.Generator, from_noise_alone: bool
    ) -> torch.Tensor | None:
        init_image = self._init_image
        if init_image is None:
            return None
        if init_image.pixels is None or (from_noise_alone and self._model.is_inpainting):
            return init_image.latents
        latents = self._model.encode(init_image.pixels, generator)
        if init_image.latent_mask is None:
            return latents
        return latents.contiguous()  # the last bits depend on the order in memory

    def _encode_inpaint_cond(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mask and the masked image's latents for a U-Net made for inpainting.

        Without a mask all is masked.
        """
        init_image = self._init_image
        if (
            init_image is not None
            and init_image.latent_mask is not None
            and init_image.mask_pixels is not None
            and init_image.pixels is not None
        ):
            masked_pixels = init_image.pixels * (init_image.mask_pixels < 0.5)
            return init_image.latent_mask, self._model.encode(masked_pixels, generator)
        _, _, rows, columns = self.latent_shape
        scale = self._model.vae_scale_factor
        # Channels last in memory, like an image's.
        blank = torch.zeros(1, rows * scale, columns * scale, 3).movedim(-1, 1)
        device = self._model.device
        mask = torch.ones(1, 1, rows, columns).to(device.torch_device, device.dtype)
        return mask, self._model.encode(blank, generator)
