"""Trains the parts of the pocket in the order in which they need each other.

Knows: which parts there are and which function makes each.
Does not know: how; each takes a RunContext, may be stopped, and goes on when called again.
"""

import importlib
from collections.abc import Sequence

from studio.pocket.train_loop import RunContext

# part -> module and function that make it, in order
PARTS: dict[str, tuple[str, str]] = {
    "tokenizer": ("tokenizer", "train_tokenizer"),
    "vae": ("autoencoder", "train_autoencoder"),
    "judge": ("judge", "train_judge"),
    "diffusion": ("diffusion", "train_diffusion"),
    "polish": ("autoencoder", "finetune_decoder"),
    "clip": ("clip", "train_clip"),
    "captioner": ("captioner", "train_captioner"),
    "upscaler": ("upscaler", "train_upscaler"),
}


def train_parts(parts: Sequence[str], context: RunContext) -> bool:
    """Train parts in order, all if none is named; return whether all of them are finished.

    It stops at the first that does not finish inside the budget.
    """
    for part in parts or tuple(PARTS):
        module_name, function_name = PARTS[part]
        module = importlib.import_module(f"studio.pocket.{module_name}")
        is_finished = bool(getattr(module, function_name)(context))
        status = "finished" if is_finished else "not finished; run again to go on"
        print(f"{part}: {status}", flush=True)
        if not is_finished:
            return False
    return True
