"""What Stable Diffusion's families share: a U-Net, CLIP's text encoders, noise by diffusion.

Knows: the U-Net's inputs and how rows are stacked into one call, what controls add to it, guidance
as an input of distilled models. Does not know: how prompts are read (clip_prompts.py), the loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from studio.core.generation.family_rules import resolve_noise_schedule
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.models.families import clip_prompts
from studio.engine.models.loaded_model import Conditioning, LoadedModel, Row
from studio.engine.models.noise_levels import LevelRange
from studio.engine.models.noise_process import DiffusionProcess, NoiseProcess
from studio.engine.models.schedulers import build_scheduler

# Names of a row's tensors that go to the U-Net as `added_cond_kwargs`, by diffusers' names.
_ADDED_CONDITIONS = {"pooled_prompt_embeds": "text_embeds", "time_ids": "time_ids"}
# What a control adds inside the U-Net (arXiv:2302.05543): a tuple of tensors, and a tensor.
DOWN_RESIDUALS = "down_block_additional_residuals"
MID_RESIDUAL = "mid_block_additional_residual"


class UNetModel(LoadedModel):
    """A model with a U-Net; a row has `prompt_embeds` (1, tokens, width), and what families add."""

    denoiser_class = UNet2DConditionModel

    def encode_prompts(self, request: GenerationRequest) -> Conditioning:
        return clip_prompts.encode_prompts(self, request)

    @property
    def is_distilled(self) -> bool:
        return self.denoiser.config.time_cond_proj_dim is not None

    def build_noise_process(self, request: ResolvedRequest) -> NoiseProcess:
        scheduler = build_scheduler(
            request.scheduler,
            resolve_noise_schedule(request.noise_schedule, request.scheduler, self.family),
            self.scheduler_config,
            request.steps,
            request.seed,
            optimized_levels=self.family.optimized_levels,
            level_range=_read_level_range(request),
        )
        return DiffusionProcess(scheduler, step_options=_read_step_options(request))

    def build_row(self, prompt: Row, request: ResolvedRequest) -> Row:
        row = dict(prompt)
        if self.is_distilled:
            # As latent consistency models read it (arXiv:2310.04378); the method uses no pipeline.
            embedding = StableDiffusionPipeline.get_guidance_scale_embedding(
                None,
                torch.tensor([max(request.guidance, 1.0) - 1]),
                embedding_dim=self.denoiser.config.time_cond_proj_dim,
            )
            row["timestep_cond"] = embedding.to(self.device.torch_device, self.device.dtype)
        return row

    def get_row_key(self, row: Row) -> tuple[Any, ...]:
        return (row["prompt_embeds"].shape[1], *sorted(row))

    def stack_rows(self, rows: Sequence[Row]) -> Row:
        stacked: dict[str, Any] = {}
        for name, value in rows[0].items():
            values = [row[name] for row in rows]
            if isinstance(value, tuple):
                stacked[name] = tuple(torch.cat(tensors) for tensors in zip(*values, strict=True))
            else:
                stacked[name] = torch.cat(values)
        return stacked

    def call_denoiser(
        self, latents: torch.Tensor, timesteps: torch.Tensor, stacked: Row
    ) -> torch.Tensor:
        added = {
            added_name: stacked[name]
            for name, added_name in _ADDED_CONDITIONS.items()
            if name in stacked
        }
        further = {
            name: stacked[name]
            for name in ("timestep_cond", DOWN_RESIDUALS, MID_RESIDUAL)
            if name in stacked
        }
        prediction: torch.Tensor = self.denoiser(
            latents,
            timesteps,
            encoder_hidden_states=stacked["prompt_embeds"],
            added_cond_kwargs=added or None,
            return_dict=False,
            **further,
        )[0]
        return prediction


def _read_level_range(request: ResolvedRequest) -> LevelRange:
    values = {"lowest": "sigma_min", "highest": "sigma_max", "rho": "rho"}
    active = {key: name for key, name in values.items() if name not in request.inactive_fields}
    return LevelRange(**{key: getattr(request, name) for key, name in active.items()})


def _read_step_options(request: ResolvedRequest) -> dict[str, Any]:
    """Return what a scheduler's step is told beside its own defaults."""
    options: dict[str, Any] = {}
    if "eta" not in request.inactive_fields and request.eta is not None:
        options["eta"] = request.eta
    if "s_noise" not in request.inactive_fields:
        options["s_noise"] = request.s_noise
    if "s_tmin" not in request.inactive_fields:
        options["s_churn"] = request.s_churn
        options["s_tmin"] = request.s_tmin
        options["s_tmax"] = request.s_tmax or math.inf
    return options
