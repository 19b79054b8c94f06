"""The one denoising loop.

Knows: how an image goes from noise to latents. Does not know: prompts, files, pixels, how noise is
added and taken away (models/noise_process.py), how a prediction is guided (guidance.py), which
network predicts, who calls it and what else shares the call (batcher.py).

An image is a trajectory: a coroutine that yields latents at a timestep and is sent predictions. One
that starts from an image skips the first steps; one with a mask restores the image around it after
each step (or, with a model made for inpainting, gives the denoiser both). The draws from its
generator come in the order of diffusers' own pipelines.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch

from studio.core.catalog import SCHEDULERS
from studio.core.generation.geometry import MaskedContent, count_effective_steps
from studio.core.generation.request import ResolvedRequest
from studio.engine.generation.guidance import build_guidance
from studio.engine.generation.noise import Noise
from studio.engine.models.adapters.lora import select_adapters
from studio.engine.models.loaded_model import Conditioning, LoadedModel, Row
from studio.errors import StudioError

# The denoiser's output for each row: of the negative prompt, if it is asked, and the branches.
Prediction = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class ModelInput:
    """What the denoiser shall predict for: latents as it expects them, and their timestep.

    The timestep is (1,), float32, on the device. `rows` is what else is given to it, of the
    negative prompt first, if that is asked, and of each branch: prompts, sizes, what controls add.
    It may change from step to step; rows that stay the same objects are stacked once.
    """

    latents: torch.Tensor
    timestep: torch.Tensor
    rows: tuple[Row, ...]


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
    # A denoiser for inpainting also takes the mask and the masked image's latents.
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
            conditioning: The request's encoded prompts, of this pass.
            init_image: Its strength must leave at least one step.

        Raises:
            InvalidSpec: The scheduler cannot take so many steps.
        """
        self.request = request
        self.latent_shape = model.latent_shape(*request.size)
        self._weights = conditioning.weights
        prompts = (conditioning.negative, *conditioning.positives)
        self._negative, *self._positives = (
            prompt.change(lambda row: model.build_row(row, request)) for prompt in prompts
        )
        self.active_adapters = select_adapters(model, request)
        self._model = model
        self._process = model.build_noise_process(request)
        self._init_image = init_image
        if init_image is not None:
            effective_steps = count_effective_steps(request.steps, init_image.strength)
            self._process.begin_at(request.steps - effective_steps)
        self.guidance = build_guidance(
            model,
            request,
            conditioning.weights,
            num_skipped_calls=self._process.num_skipped_calls,
        )
        # The denoiser's input, timestep, and the guided prediction for them.
        self._last_step: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @property
    def num_model_calls(self) -> int:
        """How many predictions it takes; a second-order scheduler about two a step."""
        return len(self._process.timesteps)

    @property
    def last_input(self) -> tuple[torch.Tensor, float]:
        """The denoiser's last input, latents and timestep. Only after the first prediction."""
        assert self._last_step
        latents, timestep, _ = self._last_step
        return latents, float(timestep)

    @property
    def first_rows(self) -> tuple[Row, ...]:
        """The rows of the first step that runs."""
        return self._get_rows(self._first_step)

    @property
    def _first_step(self) -> int:
        return SCHEDULERS[self.request.scheduler].find_step(self._process.num_skipped_calls)

    def _get_rows(self, step: int) -> tuple[Row, ...]:
        """Return the rows of a step; prompts count from the first that runs."""
        positives = tuple(prompt.get(step - self._first_step) for prompt in self._positives)
        if not self.guidance.asks_negative(step):
            return positives
        return (self._negative.get(step - self._first_step), *positives)

    def run(self) -> Generator[ModelInput, Prediction, torch.Tensor]:
        """Denoise, as a coroutine that yields the denoiser's input and is sent its prediction.

        Returns:
            The finished latents (1, channels, rows, columns).

        Raises:
            StudioError: They are not finite.
        """
        noise = Noise(self.request, self._model)
        process = self._process
        info = SCHEDULERS[self.request.scheduler]
        state = self._prepare_latents(noise)
        latents = state.latents
        noise.plant_tree(process.scheduler, latents)
        # One copy for all steps: each would make the device wait.
        device_timesteps = process.timesteps.float().to(self._model.device.torch_device).split(1)
        for index, timestep in enumerate(process.timesteps):
            scaled_latents = process.model_input(latents, timestep)
            model_latents = scaled_latents
            if state.inpaint_cond:
                model_latents = torch.cat([scaled_latents, *state.inpaint_cond], dim=1)
            step = info.find_step(process.num_skipped_calls + index)
            rows = self._get_rows(step)
            predictions = yield ModelInput(model_latents, device_timesteps[index], rows)
            prediction = self._combine(predictions, step)
            self._last_step = (scaled_latents, timestep, prediction)
            with noise.lend_to_step() as generator:
                latents = process.step(prediction, timestep, latents, generator)
            latents = self._restore_unmasked(latents.to(self._model.latent_dtype), state, index)
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(
                f"The image with seed {self.request.seed} failed: {self.request.scheduler} with "
                f"{self.request.noise_schedule} gave invalid numbers in {self.request.steps} "
                f"steps with {self._model.device.dtype_name}. Choose other steps, another sampler "
                "or --precision float32."
            )
        return latents

    def _combine(self, predictions: Prediction, step: int) -> torch.Tensor:
        """Return the guided prediction of the rows' predictions, in their order."""
        negative = predictions[0] if self.guidance.asks_negative(step) else None
        positives = predictions[-len(self._weights) :]
        return self.guidance.combine(negative, positives, self._weights, step)

    def estimate_x0(self) -> torch.Tensor | None:
        """Return the latents if the last prediction were right; None before the first."""
        if self._last_step is None:
            return None
        return self._process.estimate_x0(*self._last_step)

    def _restore_unmasked(
        self, latents: torch.Tensor, state: _InitialState, index: int
    ) -> torch.Tensor:
        """Put the init image, as noisy as the next step's latents, back around the mask."""
        mask = self._init_image.latent_mask if self._init_image else None
        if mask is None or state.image_latents is None or state.inpaint_cond:
            return latents
        known_latents = state.image_latents
        next_timestep = self._process.timesteps[index + 1 : index + 2]
        if len(next_timestep):
            known_latents = self._process.renoise(known_latents, state.noise, next_timestep)
        return (1 - mask) * known_latents + mask * latents

    def _prepare_latents(self, noise_source: Noise) -> _InitialState:
        """Draw and encode what the loop starts with; the order of draws is diffusers'."""
        init_image = self._init_image
        mask = init_image.latent_mask if init_image else None
        from_noise_alone = init_image is None or (
            init_image.strength == 1 and (mask is not None or self._model.is_inpainting)
        )
        generator = noise_source.encode_generator
        image_latents = self._encode_init_image(generator, from_noise_alone)
        noise = noise_source.draw_initial()
        inpaint_cond: tuple[torch.Tensor, ...] = ()
        if self._model.is_inpainting:
            inpaint_cond = self._encode_inpaint_cond(generator)
        elif mask is not None:
            noise_source.draw_unused()  # stock pipelines encode the masked image here
        if (
            init_image is not None
            and mask is not None
            and image_latents is not None
            and init_image.masked_content.startswith("latent")
        ):
            content: torch.Tensor | float = 0.0
            if init_image.masked_content == "latent noise":
                content = noise_source.draw()
            image_latents = (1 - mask) * image_latents + mask * content
        if from_noise_alone or image_latents is None:
            latents = self._process.initial(noise)
        else:
            latents = self._process.renoise(image_latents, noise, self._process.timesteps[:1])
        return _InitialState(latents, noise, image_latents, inpaint_cond)

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
        """Return the mask and the masked image's latents for a denoiser made for inpainting.

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
        mask = torch.ones(1, 1, rows, columns)
        mask = mask.to(self._model.device.torch_device, self._model.latent_dtype)
        return mask, self._model.encode(blank, generator)
