"""A layer of a network with the adapter that is trained on it, and the adapter's first values.

Knows: how LoRA, LoHa, LoKr, DoRA and norms begin; where the dropouts act; the limit of a norm.
Does not know: what an adapter computes (engine/models/adapters/, the same modules that generate
with the finished file), which layers are trained (lora_network.py), steps.

First values, drawn from the seed and the layer's name, so that the first step is the model itself:

    LoRA  down kaiming-uniform with a = √5, up 0                (kohya, peft)
    LoHa  w1_a normal of 0.1, w1_b and w2_b normal of 1, w2_a 0 (LyCORIS)
    LoKr  the last of the second factor 0, all others kaiming   (LyCORIS)
    DoRA  the magnitudes of the layer's own weights             (the paper)
    norm  0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import TargetModule
from studio.core.training.network_shapes import list_tensor_shapes
from studio.engine.models.adapters.adapted_layer import AdaptedLayer
from studio.engine.models.adapters.adapter_module import AdapterModule
from studio.engine.models.adapters.dora import DoRA
from studio.engine.models.adapters.kinds import build_adapter
from studio.engine.training import rng
from studio.engine.training.lora_dropout import SeededDropout
from studio.storage.models.adapter_kinds import DIFFERENCE, LOHA, LOKR, LORA, measure_layer
from studio.storage.models.adapter_layers import Layer

_KINDS = {"LoRA": LORA, "LoHa": LOHA, "LoKr": LOKR}
_NORMAL_STD = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}
_ZEROS = ("up", "hada_w2_a", "lokr_w2", "lokr_w2_b", "w_norm", "b_norm")
# What a role in files is called in the modules, where that differs.
_PARAMETER_NAMES = {"dora_scale": "magnitude", "w_norm": "weight", "b_norm": "bias"}


class TrainedLayer(AdaptedLayer):
    """Takes the place of a network's layer; its adapter is always on.

    Attributes:
        adapter: What is added to the layer's output.
        alpha: What the file says; None where it has none, as of norms.
    """

    def __init__(
        self, base_layer: Any, config: TrainingConfig, module: TargetModule, dropout: SeededDropout
    ) -> None:
        """Put a fresh adapter on a layer, in float32 whatever the layer is in."""
        super().__init__(base_layer)
        self.layer_name = f"{module.part} {module.path}"
        self.dropout = dropout
        self.is_norm = module.is_norm
        self.shapes = list_tensor_shapes(config, module)
        _, alpha = config.get_rank_and_alpha(module)
        self.alpha = None if module.is_norm else alpha
        kind = DIFFERENCE if module.is_norm else _KINDS[config.network_type]
        shape = measure_layer(kind, {role: list(sides) for role, sides in self.shapes.items()})
        assert shape
        layer = Layer(
            stem=module.name,
            network=module.part,
            name=module.path,
            kind=kind,
            tensors={role: role for role in self.shapes},
            shape=shape,
            alpha=alpha,
        )
        tensors = _draw_tensors(self.shapes, base_layer, config.seed, self.layer_name)
        self.adapter = build_adapter(layer, tensors, base_layer)
        self.adapter.to(base_layer.weight.device).requires_grad_(True)
        if config.rank_dropout and not module.is_norm:
            self.product.rank_dropout = partial(
                dropout.drop_channels, layer_name=self.layer_name, raises_rest=kind == LORA
            )

    @property
    def product(self) -> AdapterModule:
        """The adapter, or what is within its magnitudes."""
        return self.adapter.direction if isinstance(self.adapter, DoRA) else self.adapter

    def get_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return what is trained, by its role in files, always in the same order."""
        parameters = dict(self.product.named_parameters()) | dict(
            self.adapter.named_parameters(recurse=False)
        )
        return {role: parameters[_PARAMETER_NAMES.get(role, role)] for role in self.shapes}

    def get_tensors(self) -> dict[str, torch.Tensor]:
        """Return the values as files hold them, by role."""
        return {
            role: parameter.detach().view(self.shapes[role])
            for role, parameter in self.get_parameters().items()
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer gives, plus what its adapter adds."""
        output = self.base_layer(x)
        if not self.is_norm:
            x = self.dropout.drop_inputs(x, self.layer_name)
        given = output
        if x.dtype != torch.float32 and not torch.is_autocast_enabled(x.device.type):
            # Samples are painted without autocast: what is trained is float32.
            x, given = x.float(), output.float()
        change = self.adapter(x, given, self.base_layer) * self.adapter.get_factor(1.0)
        return output + self.dropout.drop_layer(change, self.layer_name).to(output.dtype)

    @torch.no_grad()
    def limit_norm(self, max_norm: float) -> None:
        """Scale the product down where the change of the weights is larger than `max_norm`.

        As kohya and LyCORIS do it, all its tensors share the scaling. Magnitudes and norms are left
        alone.
        """
        if self.is_norm:
            return
        delta = self.product.compute_delta_weight() * self.product.get_factor(1.0)
        norm = torch.linalg.vector_norm(delta)
        ratio = (max_norm / norm.clamp(min=max_norm)).clamp(max=1.0)
        parameters = list(self.product.parameters())
        for parameter in parameters:
            parameter.mul_(ratio ** (1 / len(parameters)))


def _draw_tensors(
    shapes: Mapping[str, tuple[int, ...]], base_layer: Any, seed: int, layer_name: str
) -> dict[str, torch.Tensor]:
    """Return the first values by role, float32 on the CPU."""
    generator = rng.make_generator(seed, 0, layer_name, "beginning")
    tensors = {}
    for role, shape in shapes.items():
        tensor = torch.zeros(shape)
        if role == "dora_scale":
            weight = base_layer.weight.detach().to("cpu", torch.float32)
            # As DoRA takes it, so that at first their ratio is exactly 1.
            axes = list(range(1, weight.ndim))
            tensor = torch.linalg.vector_norm(weight, dim=axes).view(shape)
        elif role in _NORMAL_STD:
            tensor.normal_(0.0, _NORMAL_STD[role], generator=generator)
        elif role not in _ZEROS:
            torch.nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
        tensors[role] = tensor
    return tensors
