"""Helpers for tests that paint: trajectories in one batch, without job or gallery."""

from __future__ import annotations

import torch

from studio.core.generation.request import GenerationRequest
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import Trajectory
from studio.engine.models.families import Parts
from studio.engine.models.prompt_encoding import condition


def together(parts: Parts, *requests: GenerationRequest) -> list[torch.Tensor]:
    """The latents of resolved requests painted in one batch, in the order of the requests."""
    each = [Trajectory(parts, request, condition(parts, request)) for request in requests]
    came = {one: latents for one, latents, _ in Batcher(parts, len(each)).paint(each)}
    for latents in came.values():
        if not isinstance(latents, torch.Tensor):
            raise latents
    return [latents for one in each if isinstance(latents := came[one], torch.Tensor)]
