"""Makes the parts of the pocket in the order in which they need each other.

Knows: which parts there are and which function makes each. Does not know: how; each takes a `Place`, may be stopped, and goes on when called again.
"""

import importlib
from collections.abc import Sequence

from studio.pocket.train_loop import Place

# part -> module and function that make it, in order
PARTS: dict[str, tuple[str, str]] = {
    "tokenizer": ("tokenizer", "make"),
    "vae": ("autoencoder", "make"),
    "judge": ("judge", "make"),
    "diffusion": ("diffusion", "make"),
    "polish": ("autoencoder", "polish"),
    "clip": ("clip", "make"),
    "captioner": ("captioner", "make"),
}


def make(parts: Sequence[str], place: Place) -> bool:
    """Make the parts in order; stops at the first that did not finish inside the budget. True when all are finished."""
    for part in parts or tuple(PARTS):
        module, function = PARTS[part]
        done = bool(getattr(importlib.import_module(f"studio.pocket.{module}"), function)(place))
        print(f"{part}: {'finished' if done else 'not finished; run again to go on'}", flush=True)
        if not done:
            return False
    return True
