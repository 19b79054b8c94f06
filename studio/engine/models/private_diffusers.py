"""The private parts of diffusers that we use, under names of our own.

Knows: how diffusers 0.42 stores a scheduler's config. Does not know: which schedulers there are.
"""

from __future__ import annotations

import copy
from typing import Any

_CONFIG_ATTRIBUTE = "_internal_dict"


def copy_scheduler(scheduler: Any) -> Any:
    """Return an independent copy of a scheduler. The two share the config, which is frozen."""
    duplicate = copy.copy(scheduler)
    duplicate.__dict__ = {
        name: value if name == _CONFIG_ATTRIBUTE else copy.deepcopy(value)
        for name, value in vars(scheduler).items()
    }
    return duplicate
