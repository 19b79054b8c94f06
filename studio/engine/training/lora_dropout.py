"""What a LoRA leaves out at random while it is trained, as a pure function of what it is for.

Knows: dropout of what a layer takes, of ranks (kohya's for LoRA, LyCORIS' for LoHa and LoKr), and
of whole layers (both). Does not know: the layers.

The masks depend on (seed, step, sample, layer) and on nothing else. kohya and LyCORIS draw once for
a batch where a whole layer or an output is left out; here each sample is drawn for, which is the
same at batch 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from studio.core.training.config import TrainingConfig
from studio.engine.models.adapters.adapter_module import spread_rows
from studio.engine.training import rng


class SeededDropout:
    """The dropouts of a training.

    `step` and `sample_keys` are those of the present batch; without keys nothing is dropped.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.seed = config.seed
        self.inputs_probability = config.dropout
        self.rank_probability = config.rank_dropout
        self.layer_probability = config.module_dropout
        self.step = 0
        self.sample_keys: Sequence[str] = ()

    def drop_inputs(self, inputs: torch.Tensor, layer_name: str) -> torch.Tensor:
        """Return what a layer takes with some of it left out, and the rest raised instead."""
        if not self.inputs_probability or not self.sample_keys:
            return inputs
        inputs = inputs.float()  # a mask of 1 / (1 - probability) is no number of half precision
        return inputs * self.make_mask(inputs, layer_name)

    def drop_channels(
        self, values: torch.Tensor, layer_name: str, raises_rest: bool
    ) -> torch.Tensor:
        """Return values (rows, …) with the same channels of a row left out everywhere.

        Args:
            values: (rows, …, channels), or (rows, channels, height, width) of a convolution.
            layer_name: The layer's name.
            raises_rest: Whether the others are raised by 1 / (1 - probability) instead.
        """
        if not self.sample_keys:
            return values
        axis = 1 if values.ndim == 4 else -1
        probability = self.rank_probability
        keeps = self._draw((values.shape[axis],), values, layer_name, "rank dropout") >= probability
        mask = keeps.to(values.dtype) / (1 - probability) if raises_rest else keeps.to(values.dtype)
        middle = (1,) * (values.ndim - 2)
        shape = (*mask.shape, *middle) if axis == 1 else (mask.shape[0], *middle, mask.shape[1])
        return values * mask.view(shape)

    def drop_layer(self, change: torch.Tensor, layer_name: str) -> torch.Tensor:
        """Return what a layer's LoRA adds, with nothing for the samples that go without it."""
        if not self.layer_probability or not self.sample_keys:
            return change
        draws = self._draw((), change, layer_name, "module dropout", shared_by_rows=True)
        keeps = (draws >= self.layer_probability).to(change.dtype)
        return change * spread_rows(keeps, change)

    def make_mask(self, inputs: torch.Tensor, layer_name: str) -> torch.Tensor:
        """Draw a mask of zeros and 1 / (1 - probability), shaped as `inputs`.

        A sample has one row of `inputs`, or several that follow each other.
        """
        keeps = self._draw(inputs.shape[1:], inputs, layer_name, "dropout")
        keeps = keeps >= self.inputs_probability
        return keeps.to(inputs.dtype) / (1 - self.inputs_probability)

    def _draw(
        self,
        shape: Sequence[int],
        like: torch.Tensor,
        layer_name: str,
        purpose: str,
        *,
        shared_by_rows: bool = False,
    ) -> torch.Tensor:
        """Return numbers from 0 to 1, (rows of `like`, *shape), on its device."""
        num_rows = like.shape[0] // len(self.sample_keys)
        draws = []
        for key in self.sample_keys:
            seed_source = rng.make_generator(self.seed, self.step, f"{key} {layer_name}", purpose)
            # Drawn on the device, because masks are large.
            generator = torch.Generator(like.device).manual_seed(seed_source.initial_seed())
            rows = 1 if shared_by_rows else num_rows
            drawn = torch.rand((rows, *shape), generator=generator, device=like.device)
            draws.append(drawn.repeat_interleave(num_rows, 0) if shared_by_rows else drawn)
        return torch.cat(draws)
