"""Florence-2 (arXiv:2311.06242) as transformers has it: `florence-community/Florence-2-*`.

Knows: its three caption tasks.
Does not know: how it is called (transformers_captioner.py); folders of `microsoft/Florence-2-*`,
which bring programs of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from studio.engine.captioning.transformers_captioner import TransformersCaptioner

TASK_PROMPTS = {
    "": "<CAPTION>",
    "caption": "<CAPTION>",
    "detailed caption": "<DETAILED_CAPTION>",
    "more detailed caption": "<MORE_DETAILED_CAPTION>",
}
BLANK_IMAGE = Image.new("RGB", (8, 8))


class Captioner(TransformersCaptioner):
    """Florence-2."""

    MODEL_CLASS = Florence2ForConditionalGeneration
    PROCESSOR_CLASS = Florence2Processor

    def tokenize_prompt(self, instruction: str) -> dict[str, torch.Tensor]:
        """Return the task's question, after the image's tokens: as many for every image."""
        tokens = self.processor(
            text=TASK_PROMPTS[instruction], images=BLANK_IMAGE, return_tensors="pt"
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def count_free_tokens(self, prompt_inputs: Mapping[str, torch.Tensor]) -> int:
        """Return how many tokens fit; the encoder reads the question, so it takes none of them."""
        return int(self.model.config.get_text_config(decoder=True).max_position_embeddings) - 2
