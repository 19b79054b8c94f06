"""GIT (arXiv:2205.14100), which the embedded captioner is: `microsoft/git-base-coco` and the like.

Knows: that its text begins with one token and goes on with the opening words.
Does not know: how it is called (transformers_captioner.py).
"""

from __future__ import annotations

import torch
from transformers import GitForCausalLM, GitProcessor

from studio.engine.captioning.transformers_captioner import TransformersCaptioner


class Captioner(TransformersCaptioner):
    """GIT."""

    MODEL_CLASS = GitForCausalLM
    PROCESSOR_CLASS = GitProcessor

    def tokenize_prompt(self, instruction: str) -> dict[str, torch.Tensor]:
        """Return the opening words, if there are any; without them it begins by itself."""
        if not instruction:
            return {}
        token_ids = self.processor.tokenizer(instruction, add_special_tokens=False)["input_ids"]
        return {"input_ids": torch.tensor([[self.model.config.bos_token_id, *token_ids]])}
