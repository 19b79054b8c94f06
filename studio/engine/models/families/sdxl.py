"""Stable Diffusion XL, as it is computed.

Knows: its two text encoders, the pooled prompt, the sizes and what an empty negative prompt is.
Does not know: what it shares with SD 1.x (unet.py), how prompts are read (clip_prompts.py).
"""

from __future__ import annotations

from functools import cached_property

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.models.families import clip_prompts
from studio.engine.models.families.unet import UNetModel
from studio.engine.models.loaded_model import Conditioning, Row, RowSchedule
from studio.storage.models.model_configs import INDEX, read_config


class Model(UNetModel):
    """A row also has `pooled_prompt_embeds` (1, width) and `time_ids` (1, 6)."""

    text_classes = (
        (CLIPTokenizer, CLIPTextModel),
        (CLIPTokenizer, CLIPTextModelWithProjection),
    )

    @cached_property
    def force_zeros_for_empty_prompt(self) -> bool:
        """Whether an empty negative prompt is zeros instead of the encoded empty text."""
        index = read_config(self.info, INDEX)
        return bool(index.get("force_zeros_for_empty_prompt", True))

    def encode_plan(self, plan: PassPlan, request: GenerationRequest) -> Conditioning:
        if request.negative_prompt or not self.force_zeros_for_empty_prompt:
            return super().encode_plan(plan, request)
        positives = clip_prompts.encode_branches(self, plan, request.clip_skip)
        row = positives[0].get(0)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in row.items()}
        return Conditioning(RowSchedule((zeros,)), positives, plan.weights)

    def build_row(self, prompt: Row, request: ResolvedRequest) -> Row:
        width, height = request.size
        # Original size, crop offset, target size.
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.device.dtype)
        time_ids = sizes.to(self.device.torch_device)
        return {**super().build_row(prompt, request), "time_ids": time_ids}
