"""The one denoising loop.

Knows: how a picture goes from noise to latents, and how several do it together in one U-Net call.
Does not know: prompts, files, pixels, which scheduler it is.

A picture is a trajectory: a coroutine that asks the U-Net about latents at a timestep and is sent predictions. A U-Net
takes a timestep per sample, so trajectories with different schedulers, step counts and guidance share its calls. One alone
is bit for bit the stock pipeline's picture; together they differ from it by rounding (1e-6).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from studio.engine.pipelines.families import Parts
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
        self._parts = parts
        self._scheduler = build(request.scheduler, request.schedule, parts.shipped, request.steps, request.seed)
        self._last: tuple[Ask, torch.Tensor] | None = None

    @property
    def asks(self) -> int:
        """How many times it asks the U-Net; a second-order scheduler about twice a step."""
        return len(self._scheduler.timesteps)

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


@torch.inference_mode()
def drive(parts: Parts, trajectories: Sequence[Trajectory], on_step: Callable[[int], Any]) -> list[torch.Tensor]:
    """Run trajectories together, each until its own end; their latents in the same order.

    After each U-Net call `on_step` gets how many calls there were; what it raises ends the drive.
    """
    running = {k: trajectory.run() for k, trajectory in enumerate(trajectories)}
    asks = {k: next(run) for k, run in running.items()}
    done: dict[int, torch.Tensor] = {}
    calls, told_for = 0, frozenset[int]()
    while asks:
        if told_for != asks.keys():  # otherwise the rows are those of the call before
            told, told_for = _told(trajectories, list(asks)), frozenset(asks)
        predictions = _predict(parts, trajectories, asks, told)
        calls += 1
        for k, prediction in predictions.items():
            try:
                asks[k] = running[k].send(prediction)
            except StopIteration as end:
                done[k] = end.value
                del asks[k]
        on_step(calls)
    return [done[k] for k in range(len(trajectories))]


def _told(trajectories: Sequence[Trajectory], who: list[int]) -> dict[str, Any]:
    """The prompts' rows of one U-Net call: for each trajectory its negative one, if it is guided, then its prompt's."""
    prompts, added = [], []
    for trajectory in (trajectories[k] for k in who):
        if trajectory.request.guided:
            prompts.append(trajectory.conditioning.negative)
            added.append(trajectory.added[0])
        prompts.append(trajectory.conditioning.positive)
        added.append(trajectory.added[1])
    together = {name: torch.cat([row[name] for row in added]) for name in added[0]}
    return {"encoder_hidden_states": torch.cat(prompts), "added_cond_kwargs": together or None}


def _predict(parts: Parts, trajectories: Sequence[Trajectory], asks: dict[int, Ask], told: dict[str, Any]) -> dict[int, Prediction]:
    """One U-Net call for all that is asked."""
    rows = [(k, ask) for k, ask in asks.items() for _ in range(2 if trajectories[k].request.guided else 1)]
    timesteps = torch.tensor([float(ask.timestep) for _, ask in rows]).to(parts.device.torch)
    out = iter(parts.unet(torch.cat([ask.latents for _, ask in rows]), timesteps, return_dict=False, **told)[0].split(1))
    return {k: (next(out) if trajectories[k].request.guided else None, next(out)) for k in asks}
