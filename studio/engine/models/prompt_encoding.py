"""Prompts: from a request to what the denoiser is given.

Knows: that nothing is trained meanwhile. Does not know: how a family reads (families/), the loop.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from studio.core.generation.prompt_plans import plan_hires_pass, plan_pass
from studio.core.generation.request import GenerationRequest
from studio.engine.models.loaded_model import Conditioning, LoadedModel


# Not inference_mode: the results are remembered, and training may use them later.
@torch.no_grad()
def encode_prompts(model: LoadedModel, request: GenerationRequest) -> Conditioning:
    """Encode both prompts of a request, for each of its passes.

    Args:
        model: Borrowed for the request; its LoRAs that are on take part.
        request: The prompts, and how they shall be read.

    Raises:
        InvalidSpec: The text encoder cannot do what the request asks for.
    """
    conditioning = model.encode_plan(plan_pass(request), request)
    if not request.has_hires_pass:
        return conditioning
    return replace(conditioning, hires=model.encode_plan(plan_hires_pass(request), request))
