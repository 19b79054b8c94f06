"""The same small picture by the studio and by a stock pipeline, to compare LoRAs and their relatives in."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from support import lora_makers as makers
from support.painting import together

PROMPT, SEED, GUIDANCE = "a red boat by a lake", 3, 5.0
QUICK: dict[str, Any] = {
    "prompt": PROMPT,
    "negative_prompt": "fog",
    "steps": 2,
    "width": 64,
    "height": 64,
    "guidance": GUIDANCE,
    "seed": SEED,
    "scheduler": "Euler",
    "noise_schedule": "Uniform",
}


def paint_ours(bench: WorkerContext, model: str = "pocket", **values: Any) -> torch.Tensor:
    """The latents of a request."""
    request = GenerationRequest(model=model, **QUICK | values)
    with bench.pipelines.borrow(request) as parts:
        return together(parts, request.resolve(parts.info.native_size, 0))[0]


def paint_stock(pipe: Any) -> torch.Tensor:
    """The same by a stock call, its weights as ours for inference: torch multiplies those that want a gradient another way."""
    for network in makers.networks(pipe).values():
        network.requires_grad_(False)
    shipped = {
        key: value for key, value in pipe.scheduler.config.items() if key != "use_karras_sigmas"
    }
    pipe.scheduler = EulerDiscreteScheduler.from_config(shipped, timestep_spacing="linspace")
    return pipe(
        PROMPT,
        negative_prompt="fog",
        num_inference_steps=2,
        guidance_scale=GUIDANCE,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
