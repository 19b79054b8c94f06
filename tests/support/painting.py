"""Helpers for tests that paint: trajectories in one batch, without job or gallery, or a job on a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import generate
from studio.engine.generation.trajectory import Trajectory
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from support.stock import PROMPT, SEED, STEPS


def together(parts: LoadedModel, *requests: GenerationRequest) -> list[torch.Tensor]:
    """The latents of resolved requests painted in one batch, in the order of the requests."""
    each = [Trajectory(parts, request, encode_prompts(parts, request)) for request in requests]
    came = {one: latents for one, latents, _ in Batcher(parts, len(each)).denoise(each)}
    for latents in came.values():
        if not isinstance(latents, torch.Tensor):
            raise latents
    return [latents for one in each if isinstance(latents := came[one], torch.Tensor)]


def made(
    bench: WorkerContext,
    picture: Image.Image | None,
    mask: Image.Image | None = None,
    /,
    **spec: Any,
) -> np.ndarray:
    """The pixels that the studio makes of them."""
    inputs = bench.home.library.inputs
    given = {"image": inputs.add(picture).sha256} if picture else {}
    given |= {"mask": inputs.add_mask(mask).sha256} if mask else {}
    told = (
        {
            "prompt": PROMPT,
            "seed": SEED,
            "steps": STEPS,
            "guidance": 6,
            "noise_schedule": "Model default",
        }
        | given
        | spec
    )
    return np.asarray(
        Image.open(generate(bench, told, lambda progress: None)["pictures"][0]["path"])
    )
