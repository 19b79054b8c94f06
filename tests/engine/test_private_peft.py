"""What studio.engine.models.adapters.private_peft relies on in peft, on a layer of peft's own."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear

from studio.engine.models.adapters.private_peft import (
    reset_forward,
    set_active_adapters,
    set_forward,
)

ADAPTERS = ("first", "second")


@pytest.fixture
def layer() -> Linear:
    """A linear layer with two adapters of rank 2 and scale 1, each with random weights."""
    torch.manual_seed(0)
    config = LoraConfig(init_lora_weights=False)
    layer = Linear(torch.nn.Linear(5, 3), ADAPTERS[0], config, r=2, lora_alpha=2)
    layer.update_layer(ADAPTERS[1], 2, lora_alpha=2, config=config)
    return layer.eval()


def base_plus(layer: Linear, x: torch.Tensor, *names: str) -> torch.Tensor:
    """The definition: W x + b + the sum of B A x."""
    output = layer.base_layer(x)
    for name in names:
        output = output + x @ layer.lora_A[name].weight.T @ layer.lora_B[name].weight.T
    return output


@pytest.mark.parametrize("names", [(), ("first",), ("second",), ("second", "first")])
def test_exactly_the_active_adapters_are_added(layer: Linear, names: tuple[str, ...]) -> None:
    x = torch.randn(4, 5)
    set_active_adapters(layer, names)
    torch.testing.assert_close(layer(x), base_plus(layer, x, *names))


def test_without_active_adapters_the_output_is_the_base_layers_bit_for_bit(layer: Linear) -> None:
    x = torch.randn(4, 5)
    set_active_adapters(layer, [])
    assert torch.equal(layer(x), layer.base_layer(x))


def test_active_adapters_are_read_back_in_order(layer: Linear) -> None:
    set_active_adapters(layer, ["second", "first"])
    assert layer.active_adapters == ["second", "first"]


def test_switching_leaves_requires_grad_alone(layer: Linear) -> None:
    layer.requires_grad_(False)
    set_active_adapters(layer, ["first"])
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_the_own_forward_replaces_the_class_forward_of_one_layer(layer: Linear) -> None:
    x = torch.randn(4, 5)
    neighbour = Linear(torch.nn.Linear(5, 3), "first", LoraConfig(), r=2, lora_alpha=2)
    expected = neighbour(x)
    set_forward(layer, lambda x: x + 1)
    assert torch.equal(layer(x), x + 1)
    assert torch.equal(neighbour(x), expected)


def test_resetting_brings_the_class_forward_back(layer: Linear) -> None:
    x = torch.randn(4, 5)
    expected = layer(x)
    set_forward(layer, lambda x: x + 1)
    reset_forward(layer)
    assert torch.equal(layer(x), expected)


def test_resetting_an_unchanged_layer_does_nothing(layer: Linear) -> None:
    x = torch.randn(4, 5)
    expected = layer(x)
    reset_forward(layer)
    assert torch.equal(layer(x), expected)


def test_the_last_adapter_can_be_deleted_while_none_is_active(layer: Linear) -> None:
    set_active_adapters(layer, [])
    for name in ADAPTERS:
        layer.delete_adapter(name)
    assert not layer.lora_A
