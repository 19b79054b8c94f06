"""Z-Image, as it is computed: a transformer over image and text tokens, and Qwen3 as text encoder.

Knows: the chat template and the layer that prompts are read with, the transformer's inputs and its
sign. Does not know: the loop.

The transformer pads texts of any length itself, so that rows with different prompts share a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from transformers import AutoTokenizer, Qwen3Model

from studio.core.families.z_image import PATCH_SIDE
from studio.core.generation.family_rules import resolve_noise_schedule
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.models.flow_schedulers import build_flow_scheduler
from studio.engine.models.loaded_model import Conditioning, LoadedModel, Row
from studio.engine.models.noise_process import FlowProcess, NoiseProcess

MAX_TOKENS = 512  # of a prompt, with the template
TEXT_LAYER = -2  # the hidden state that the transformer was trained on


class Model(LoadedModel):
    """A row has `cap_feats` (tokens, width), of as many tokens as its prompt has."""

    denoiser_class = ZImageTransformer2DModel
    text_classes = ((AutoTokenizer, Qwen3Model),)

    @property
    def latent_dtype(self) -> torch.dtype:
        return torch.float32

    def encode_prompts(self, request: GenerationRequest) -> Conditioning:
        positive = self._encode_text(request.prompt)
        if not request.is_guided:
            return Conditioning(positive, positive)
        return Conditioning(self._encode_text(request.negative_prompt), positive)

    def _encode_text(self, text: str) -> Row:
        plain_text = plan_prompt(text).wordings[0].plain_text

        def encode() -> Row:
            with self.lend_text_encoders() as parts:
                (tokenizer,), (encoder,) = parts.tokenizers, parts.encoders
                message = tokenizer.apply_chat_template(
                    [{"role": "user", "content": plain_text}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=True,
                )
                tokens = tokenizer(
                    [message],
                    padding="max_length",
                    max_length=MAX_TOKENS,
                    truncation=True,
                    return_tensors="pt",
                )
                mask = tokens.attention_mask.to(self.device.torch_device).bool()
                states = encoder(
                    input_ids=tokens.input_ids.to(self.device.torch_device),
                    attention_mask=mask,
                    output_hidden_states=True,
                ).hidden_states[TEXT_LAYER]
            return {"cap_feats": states[0][mask[0]]}

        row: Row = self.remember((plain_text,), encode)
        return row

    def build_noise_process(self, request: ResolvedRequest) -> NoiseProcess:
        _, _, rows, columns = self.latent_shape(*request.size)
        scheduler = build_flow_scheduler(
            request.scheduler,
            resolve_noise_schedule(request.noise_schedule, request.scheduler, self.family),
            self.scheduler_config,
            request.steps,
            num_tokens=(rows // PATCH_SIDE) * (columns // PATCH_SIDE),
            sigmas=torch.linspace(1.0, 1 / request.steps, request.steps).tolist(),
        )
        return FlowProcess(scheduler)

    def build_row(self, prompt: Row, request: ResolvedRequest) -> Row:  # noqa: ARG002
        return prompt

    def get_row_key(self, row: Row) -> tuple[Any, ...]:  # noqa: ARG002
        return ()  # prompts of any length go together

    def stack_rows(self, rows: Sequence[Row]) -> Row:
        return {"cap_feats": [row["cap_feats"] for row in rows]}

    def call_denoiser(
        self, latents: torch.Tensor, timesteps: torch.Tensor, stacked: Row
    ) -> torch.Tensor:
        # It takes images as videos of one frame, and time from 0 (noise) to 1.
        images = list(latents.to(self.device.dtype).unsqueeze(2).unbind(0))
        outputs = self.denoiser(
            images, (1000 - timesteps) / 1000, stacked["cap_feats"], return_dict=False
        )[0]
        # It predicts image - noise.
        return -torch.stack([output.float() for output in outputs]).squeeze(2)
