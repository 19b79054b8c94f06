"""The parts of a model, put where a memory plan says: in 8 bits, or layer by layer.

Knows: how diffusers is told, what 8 bits cannot hold. Does not know: plans' sizes and choice
(core/generation/memory_policy.py), files, when parts come and go (manager.py).

Layer by layer, and not block by block: of SDXL's U-Net the blocks that diffusers takes together
are 63 % at once, the largest layer 1.1 %. The same bytes are moved either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

from studio.core.generation.memory_policy import MemoryPlan
from studio.engine.models.devices import Device

FP8 = torch.float8_e4m3fn
HOST = torch.device("cpu")


def place_networks(
    networks: Sequence[torch.nn.Module], part: str, plan: MemoryPlan, device: Device
) -> None:
    """Put the networks of a part, as they were read, where a plan says.

    Args:
        networks: On the host where the plan has a form for the part, else on the device.
        part: DENOISER, TEXT_ENCODERS or VAE.
        plan: The plan.
        device: Where they compute, and in which number format.
    """
    for network in networks:
        form = plan.describe_form(part)
        if form == "fp8":
            store_in_fp8(network, device.dtype)
            network.to(device.torch_device)
        elif form == "streamed":
            apply_group_offloading(
                network, device.torch_device, HOST, offload_type="leaf_level", use_stream=False
            )


def store_in_fp8(network: Any, compute_dtype: torch.dtype) -> None:
    """Keep a denoiser's layers in 8 bits; each is unpacked while it computes.

    Layers with numbers that 8 bits cannot hold (over 448) stay as they are: they would become no
    numbers.
    """
    kept_whole = [
        f"^{re.escape(name)}$"
        for name, module in network.named_modules()
        if any(_exceeds_fp8(parameter) for parameter in module.parameters(recurse=False))
    ]
    network.enable_layerwise_casting(
        storage_dtype=FP8,
        compute_dtype=compute_dtype,
        skip_modules_pattern=(*DEFAULT_SKIP_MODULES_PATTERN, *kept_whole),
    )


def _exceeds_fp8(parameter: torch.nn.Parameter) -> bool:
    low, high = torch.aminmax(parameter.detach())
    return max(-float(low), float(high)) > torch.finfo(FP8).max
