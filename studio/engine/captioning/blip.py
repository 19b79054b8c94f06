"""BLIP (arXiv:2201.12086): `Salesforce/blip-image-captioning-base` and `-large`.

Knows: that its text goes on with the opening words. Does not know: how it is called (local.py).
"""

from __future__ import annotations

import torch
from transformers import BlipForConditionalGeneration, BlipProcessor

from studio.engine.captioning.transformers_captioner import Local


class Captioner(Local):
    """BLIP."""

    MODEL, READER = BlipForConditionalGeneration, BlipProcessor

    def words(self, instruction: str) -> dict[str, torch.Tensor]:
        """The opening words between the tokenizer's marks, which `generate` puts right; alone it begins by itself."""
        if not instruction:
            return {}
        told = self.reader.tokenizer(instruction, return_tensors="pt")
        return {name: told[name] for name in ("input_ids", "attention_mask")}
