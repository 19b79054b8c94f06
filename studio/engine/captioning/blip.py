"""BLIP (arXiv:2201.12086): `Salesforce/blip-image-captioning-base` and `-large`.

Knows: that its text goes on with the opening words.
Does not know: how it is called (transformers_captioner.py).
"""

from __future__ import annotations

import torch
from transformers import BlipForConditionalGeneration, BlipProcessor

from studio.engine.captioning.transformers_captioner import TransformersCaptioner


class Captioner(TransformersCaptioner):
    """BLIP."""

    MODEL_CLASS = BlipForConditionalGeneration
    PROCESSOR_CLASS = BlipProcessor

    def tokenize_prompt(self, instruction: str) -> dict[str, torch.Tensor]:
        """Return the opening words between the tokenizer's marks, which `generate` puts right.

        Without opening words it begins by itself.
        """
        if not instruction:
            return {}
        tokens = self.processor.tokenizer(instruction, return_tensors="pt")
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}
