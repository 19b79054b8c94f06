"""Stable Diffusion XL, as it is computed: two text encoders, a pooled prompt and the sizes."""

from __future__ import annotations

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.models.families import clip_prompts
from studio.engine.models.families.unet import UNetModel
from studio.engine.models.loaded_model import Conditioning, Row, read_json


class Model(UNetModel):
    """A row also has `pooled_prompt_embeds` (1, width) and `time_ids` (1, 6)."""

    @property
    def text_encoder_classes(self) -> tuple[type, ...]:
        return (CLIPTextModel, CLIPTextModelWithProjection)

    @property
    def force_zeros_for_empty_prompt(self) -> bool:
        """Whether an empty negative prompt is zeros instead of the encoded empty text."""
        index = read_json(self.info.path / "model_index.json")
        return bool(index.get("force_zeros_for_empty_prompt", True))

    def encode_prompts(self, request: GenerationRequest) -> Conditioning:
        if request.negative_prompt or not self.force_zeros_for_empty_prompt:
            return super().encode_prompts(request)
        positive = clip_prompts.encode_text(self, request.prompt, request.clip_skip)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in positive.items()}
        return Conditioning(zeros, positive)

    def build_row(self, prompt: Row, request: ResolvedRequest) -> Row:
        width, height = request.size
        # Original size, crop offset, target size.
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.device.dtype)
        time_ids = sizes.to(self.device.torch_device)
        return {**super().build_row(prompt, request), "time_ids": time_ids}
