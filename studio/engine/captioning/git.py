"""GIT (arXiv:2205.14100), which the embedded captioner is: `microsoft/git-base-coco`, `git-large-textcaps` and the like.

Knows: that its text begins with one token and goes on with the opening words. Does not know: how it is called (local.py).
"""

from __future__ import annotations

import torch
from transformers import GitForCausalLM, GitProcessor

from studio.engine.captioning.transformers_captioner import Local


class Captioner(Local):
    """GIT."""

    MODEL, READER = GitForCausalLM, GitProcessor

    def words(self, instruction: str) -> dict[str, torch.Tensor]:
        """The opening words, if there are any; alone it begins by itself."""
        if not instruction:
            return {}
        ids = self.reader.tokenizer(instruction, add_special_tokens=False)["input_ids"]
        return {"input_ids": torch.tensor([[self.model.config.bos_token_id, *ids]])}
