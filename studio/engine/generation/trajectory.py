"""The one denoising loop.

Knows: how a picture goes from noise to latents. Does not know: prompts, files, pixels, which scheduler it is, who calls the
U-Net and what else it is asked in the same call (batcher.py).

A picture is a trajectory: a coroutine that asks the U-Net about latents at a timestep and is sent predictions. One that starts
from a picture leaves out the first steps; one with a mask puts the picture back around it after each step (or, with a model made
for inpainting, shows the U-Net both). The draws from its generator come in the order of diffusers' own pipelines.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from studio.core.generation.geometry import MaskedContent, steps_run
from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.lora import active
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import Conditioning
from studio.engine.models.schedulers import build
from studio.errors import StudioError

Prediction = tuple[
    torch.Tensor | None, torch.Tensor
]  # for the negative prompt (None if unguided) and for the prompt


@dataclass(frozen=True)
class Ask:
    """What a trajectory wants to know: the noise in these latents (scaled as the U-Net expects) at this timestep."""

    latents: torch.Tensor
    timestep: torch.Tensor


@dataclass(frozen=True)
class Start:
    """The picture that a trajectory starts from, at the size that is painted.

    `pixels` (1, 3, height, width) in -1 … 1, or latents that are there already. `hidden` is 1 for each pixel that is masked
    (1, 1, height, width) and `mask` the same for each latent; without them all is repainted.
    """

    strength: float
    pixels: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    content: MaskedContent = "original"


class Trajectory:
    """One picture on its way. Its noise comes from its own seed alone, whatever runs beside it."""

    def __init__(
        self,
        parts: Parts,
        request: GenerationRequest,
        conditioning: Conditioning,
        start: Start | None = None,
    ) -> None:
        """`request` is one picture's, resolved. `start` has a strength of at least one step."""
        width, height = request.width or parts.info.side, request.height or parts.info.side
        self.request, self.conditioning = request, conditioning
        self.shape = parts.latent_shape(width, height)
        self.added = (
            parts.added(conditioning.negative_pooled, width, height),
            parts.added(conditioning.pooled, width, height),
        )
        self.loras = active(parts, request)
        self._parts = parts
        self._scheduler = build(
            request.scheduler, request.schedule, parts.shipped, request.steps, request.seed
        )
        self._start, self._timesteps = start, self._scheduler.timesteps
        if start is not None:
            first = (
                request.steps - steps_run(request.steps, start.strength)
            ) * self._scheduler.order
            self._timesteps = self._timesteps[first:]
            if hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(first)
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = (
            None  # latents, timestep, and the noise found in them
        )

    @property
    def asks(self) -> int:
        """How many times it asks the U-Net; a second-order scheduler about twice a step."""
        return len(self._timesteps)

    @property
    def shown(self) -> tuple[torch.Tensor, float]:
        """The latents that the U-Net was shown last, and their timestep. Only once it was asked."""
        assert self._last
        return self._last[0], float(self._last[1])

    @property
    def rows(self) -> int:
        """U-Net rows of each of its asks: the prompt's, and the negative one's if it is guided."""
        return 2 if self.request.guided else 1

    def run(self) -> Generator[Ask, Prediction, torch.Tensor]:
        """The coroutine; returns the finished latents. Raises StudioError if they are no numbers."""
        generator = torch.Generator().manual_seed(
            self.request.seed
        )  # on the CPU: the same noise on every device
        own = (
            {"generator": generator}
            if "generator" in inspect.signature(self._scheduler.step).parameters
            else {}
        )
        device, mask = self._parts.device, self._start.mask if self._start else None
        latents, noise, picture, seen = self._begin(generator)
        for k, timestep in enumerate(self._timesteps):
            shown = self._scheduler.scale_model_input(latents, timestep)
            negative, positive = yield Ask(
                torch.cat([shown, *seen], dim=1) if seen else shown, timestep
            )
            found = (
                positive
                if negative is None
                else negative + self.request.guidance * (positive - negative)
            )
            self._last = shown, timestep, found
            latents = self._scheduler.step(found, timestep, latents, **own, return_dict=False)[
                0
            ].to(device.dtype)
            if mask is not None and picture is not None and not seen:
                if k + 1 < len(self._timesteps):
                    around = self._scheduler.add_noise(
                        picture, noise, self._timesteps[k + 1 : k + 2]
                    )
                else:
                    around = picture
                latents = (1 - mask) * around + mask * latents
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(
                f"The picture of seed {self.request.seed} broke: {self.request.scheduler} on {self.request.schedule} "
                f"came to no numbers in {self.request.steps} steps with {device.dtype_name}. Choose other steps, "
                "another scheduler or --precision float32."
            )
        return latents

    def estimate(self) -> torch.Tensor | None:
        """What the latents would be if the last prediction were right; None before the first."""
        if self._last is None:
            return None
        (latents, timestep, noise), kind = self._last, self._scheduler.config.prediction_type
        kept = self._scheduler.alphas_cumprod[int(timestep)].item()
        signal, spread = kept**0.5, (1 - kept) ** 0.5
        if kind == "epsilon":
            return (latents - spread * noise) / max(signal, 1e-3)
        return noise if kind == "sample" else signal * latents - spread * noise

    def _begin(
        self, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """The first latents; the noise in them; the picture's own; what the U-Net is shown besides."""
        parts, start = self._parts, self._start
        where = {"device": parts.device.torch, "dtype": parts.device.dtype}
        alone = start is None or (
            start.strength == 1 and (start.mask is not None or parts.sees_mask)
        )  # noise and nothing else
        picture = start.latents if start else None
        if start and start.pixels is not None and not (alone and parts.sees_mask):
            picture = parts.encode(start.pixels, generator)
            picture = (
                picture.contiguous() if start.mask is not None else picture
            )  # the last bits depend on the order in memory
        noise = randn_tensor(self.shape, generator, **where)
        seen: tuple[torch.Tensor, ...] = ()
        if parts.sees_mask:
            seen = self._seen(generator)
        elif start and start.mask is not None:
            randn_tensor(
                self.shape, generator, **where
            )  # stock pipelines encode what is left of the picture here, unused
        if (
            picture is not None
            and start
            and start.mask is not None
            and start.content.startswith("latent")
        ):
            other = (
                randn_tensor(self.shape, generator, **where)
                if start.content == "latent noise"
                else 0.0
            )
            picture = (1 - start.mask) * picture + start.mask * other
        if alone or picture is None:
            return noise * self._scheduler.init_noise_sigma, noise, picture, seen
        return self._scheduler.add_noise(picture, noise, self._timesteps[:1]), noise, picture, seen

    def _seen(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """For a U-Net made for inpainting: the mask, and the latents of what is left of the picture; without a mask nothing is."""
        _, _, height, width = self.shape
        device, start = self._parts.device, self._start
        if (
            start
            and start.mask is not None
            and start.hidden is not None
            and start.pixels is not None
        ):
            return start.mask, self._parts.encode(start.pixels * (start.hidden < 0.5), generator)
        nothing = torch.zeros(1, height * self._parts.scale, width * self._parts.scale, 3).movedim(
            -1, 1
        )  # as pictures lie
        return torch.ones(1, 1, height, width).to(device.torch, device.dtype), self._parts.encode(
            nothing, generator
        )
