"""Florence-2 (arXiv:2311.06242) as transformers has it: `florence-community/Florence-2-base`, `-large` and `-ft`.

Knows: its three caption tasks. Does not know: how it is called (local.py); folders of `microsoft/Florence-2-*`, which bring
programs of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from studio.engine.captioning.transformers_captioner import Local

TASKS = {
    "": "<CAPTION>",
    "caption": "<CAPTION>",
    "detailed caption": "<DETAILED_CAPTION>",
    "more detailed caption": "<MORE_DETAILED_CAPTION>",
}
BLANK = Image.new("RGB", (8, 8))


class Captioner(Local):
    """Florence-2."""

    MODEL, READER = Florence2ForConditionalGeneration, Florence2Processor

    def words(self, instruction: str) -> dict[str, torch.Tensor]:
        """The task's question, after the places that the picture takes: as many for every picture."""
        told = self.reader(text=TASKS[instruction], images=BLANK, return_tensors="pt")
        return {name: told[name] for name in ("input_ids", "attention_mask")}

    def room(self, words: Mapping[str, torch.Tensor]) -> int:
        """The question is read by the encoder: it takes nothing from the answer."""
        return int(self.model.config.get_text_config(decoder=True).max_position_embeddings) - 2
