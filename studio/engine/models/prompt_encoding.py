"""Prompts: from a request to what the denoiser is given.

Knows: that nothing is trained meanwhile. Does not know: how a family reads (families/), the loop.
"""

from __future__ import annotations

import torch

from studio.core.generation.request import GenerationRequest
from studio.engine.models.loaded_model import Conditioning, LoadedModel


# Not inference_mode: the results are remembered, and training may use them later.
@torch.no_grad()
def encode_prompts(model: LoadedModel, request: GenerationRequest) -> Conditioning:
    """Encode both prompts of a request.

    Args:
        model: Borrowed for the request; its LoRAs that are on take part.
        request: The prompts, and how they shall be read.

    Raises:
        InvalidSpec: The text encoder cannot do what the request asks for.
    """
    return model.encode_prompts(request)
