"""A layer of a network with adapters on it, of any kinds, each off or on with a weight.

Knows: which adapters of the layer are on. Does not know: what they compute (one file per kind),
whose they are and when they are switched (lora.py).

With none on, it only calls the network's own layer, bit for bit as before.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import AdapterModule

Factor = float | torch.Tensor  # for all rows of a call, or one for each (rows,)


class AdaptedLayer(torch.nn.Module):
    """Takes the place of a network's layer, which it keeps as `base_layer`."""

    def __init__(self, base_layer: Any) -> None:
        """Wrap a layer without any adapter."""
        super().__init__()
        self.base_layer = base_layer
        self.adapters = torch.nn.ModuleDict()  # content hash → ModuleList
        self.training = base_layer.training
        self.active: list[tuple[AdapterModule, Factor]] = []  # those that are on

    @property
    def weight(self) -> torch.Tensor:
        """The network's own weights."""
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The network's own bias."""
        return self.base_layer.bias

    def add(self, content_hash: str, adapter: AdapterModule) -> None:
        """Add an adapter of a file, switched off."""
        if content_hash not in self.adapters:
            self.adapters[content_hash] = torch.nn.ModuleList()
        self.get_adapters(content_hash).append(adapter)

    def get_adapters(self, content_hash: str) -> Any:
        """Return the adapters of a file."""
        return self.adapters[content_hash]

    def switch_on(self, adapter: AdapterModule, factor: Factor) -> None:
        """Let an adapter take part, with its factor."""
        self.active.append((adapter, factor))
        # Those that need the plain output come first: others may change it in place.
        self.active.sort(key=lambda entry: not entry[0].reads_output)

    def switch_off(self) -> None:
        """Let no adapter take part."""
        self.active = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer gives, plus what each adapter that is on adds."""
        output = self.base_layer(x)
        result = output
        for adapter, factor in self.active:
            if isinstance(factor, torch.Tensor):
                result = adapter.add_rows(result, x, output, self.base_layer, factors=factor)
            else:
                result = result + adapter(x, output, self.base_layer) * factor
        return result
