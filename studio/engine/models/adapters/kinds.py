"""The kinds of adapters, as one table: what builds each from the tensors of a file.

Knows: which class is for which kind. Does not know: what they compute (one file each).
A new kind is its class, a row here, and the names of its tensors in
storage/models/adapter_kinds.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import NORMS, AdapterModule
from studio.engine.models.adapters.difference import Difference
from studio.engine.models.adapters.dora import DoRA
from studio.engine.models.adapters.ia3 import IA3
from studio.engine.models.adapters.loha import LoHa
from studio.engine.models.adapters.lokr import LoKr
from studio.engine.models.adapters.low_rank import LowRank
from studio.engine.models.adapters.oft import OFT
from studio.storage.models import adapter_kinds
from studio.storage.models.adapter_layers import Layer

KINDS: dict[str, type[AdapterModule]] = {
    adapter_kinds.LORA: LowRank,
    adapter_kinds.LOHA: LoHa,
    adapter_kinds.LOKR: LoKr,
    adapter_kinds.OFT: OFT,
    adapter_kinds.IA3: IA3,
    adapter_kinds.DIFFERENCE: Difference,
}
ADAPTABLE = (torch.nn.Linear, torch.nn.Conv2d, *NORMS)


def can_adapt(layer: Layer, base: Any) -> bool:
    """Whether what a file says of a layer can be put on a network's layer."""
    if not isinstance(base, ADAPTABLE) or base.weight is None:
        return False
    if isinstance(base, torch.nn.Conv2d) and (base.groups != 1 or base.padding_mode != "zeros"):
        return False
    if not KINDS[layer.kind].fits(layer, base):
        return False
    return not layer.shape.num_magnitudes or DoRA.fits(layer, base)


def build_adapter(layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> AdapterModule:
    """Build what a file adds to a layer.

    Args:
        layer: What the file's header says.
        tensors: By role, in float32.
        base: The network's own layer; `can_adapt` says that it fits.
    """
    if layer.shape.num_magnitudes:
        return DoRA(layer, tensors, base, KINDS[layer.kind])
    return KINDS[layer.kind](layer, tensors, base)
