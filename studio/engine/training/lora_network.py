"""The LoRA that is being trained, on a model of its own.

Knows: which layers get one and with what numbers they begin, which networks it changes, its dropout, gradient checkpointing, what
of the model lies where while it is trained. Does not know: the loss, optimizers, data, files.

The layers are peft's; the numbers they begin with (kaiming down, zeros up: as kohya and peft) are drawn from the seed and the
layer's name. LoRA: arXiv:2106.09685. Nothing here touches a model that is lent to anybody else.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d, Linear

from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import Module, modules, shape
from studio.engine.models import devices
from studio.engine.models.adapters.lora import networks
from studio.engine.models.devices import Device
from studio.engine.models.families import ENCODERS, Parts
from studio.engine.training import rng
from studio.engine.training.lora_export import Pair
from studio.errors import BadFile, InvalidSpec
from studio.storage.models.library import ModelInfo

NAME = "trained"  # peft's name for it
# Where nobody asks for another format: bfloat16 has float32's range, so that nothing has to be scaled against underflow.
USUAL = {"cuda": torch.bfloat16, "xpu": torch.bfloat16, "mps": torch.float32, "cpu": torch.float32}


def device_for(config: TrainingConfig, there: Device) -> Device:
    """Where and in which number format a training computes. Raises InvalidSpec for one that the device cannot do."""
    if config.precision != "auto":
        dtype = devices.FORMATS[config.precision]
    else:
        dtype = USUAL[there.kind]
        if there.kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = torch.float16
    if there.kind == "cpu" and dtype == torch.float16:
        raise InvalidSpec(["Precision: a CPU cannot compute in float16; use float32."])
    return Device(there.torch, dtype)


def targets(config: TrainingConfig, info: ModelInfo) -> tuple[tuple[Module, ...], dict[str, Any]]:
    """The layers that get a LoRA, from the model's configs alone, and of the U-Net's what says how its blocks lie.

    Raises InvalidSpec, UnknownFamily.
    """

    def read(part: str) -> dict[str, Any]:
        try:
            return dict(json.loads((info.path / part / "config.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise BadFile(
                f"The {part} of {info.name} cannot be read ({type(error).__name__}). Copy the model again."
            ) from None

    encoders, unet = [read(encoder) for _, encoder, _ in ENCODERS[info.family]], read("unet")
    chosen = modules(
        shape(unet, encoders),
        config.targets,
        config.patterns,
        unet=config.train_unet,
        encoders=config.train_text_encoder,
    )
    return chosen, {
        name: unet[name]
        for name in ("down_block_types", "up_block_types", "layers_per_block")
        if name in unet
    }


class Network:
    """A model's parts with a fresh LoRA on them. `parts` have to be its own."""

    def __init__(self, parts: Parts, config: TrainingConfig, chosen: Sequence[Module]) -> None:
        self.parts, self.config = parts, config
        self.dropout = Dropout(config.dropout, config.seed)
        self.reads = any(
            module.part != "unet" for module in chosen
        )  # whether captions have to be read anew at every step
        self.layers: dict[tuple[str, str], Any] = {}
        every = networks(parts)
        for module in chosen:
            rank, alpha = config.rank_and_alpha(module)
            self.layers[module.part, module.path] = self._put(
                every[module.part], module, rank, alpha
            )
        if config.gradient_checkpointing:
            for name, network in every.items():
                if name == "unet" or self.reads:
                    _checkpointed(network)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All that is trained, always in the same order."""
        return [weight for group in self.groups for weight in group]

    @property
    def groups(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """The U-Net's and the text encoders', which have rates of their own."""
        found: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]] = ([], [])
        for (network, _), layer in self.layers.items():
            found[network != "unet"].extend((layer.lora_A[NAME].weight, layer.lora_B[NAME].weight))
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """The LoRA's numbers by names that need no network: part|path|down and …|up."""
        return {
            f"{network}|{path}|{role}": held[NAME].weight.detach()
            for (network, path), layer in self.layers.items()
            for role, held in (("down", layer.lora_A), ("up", layer.lora_B))
        }

    @torch.no_grad()
    def set(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take numbers back. Raises BadFile if they are not of this LoRA."""
        mine = self.tensors()
        if mine.keys() != tensors.keys() or any(
            mine[name].shape != tensors[name].shape for name in mine
        ):
            raise BadFile(
                "The checkpoint is of another LoRA: its layers are not those of the settings."
            )
        for name, weight in mine.items():
            weight.copy_(tensors[name])

    @contextmanager
    def showing(self) -> Iterator[Parts]:
        """The model as it paints at this moment, for pictures on the way: all of it on the device, nothing dropped out."""
        before, self.dropout.keys = self.dropout.keys, ()
        self.unpark()
        try:
            yield replace(self.parts, remembered=OrderedDict())
        finally:
            self.dropout.keys = before
            self.park()

    def park(self) -> None:
        """Put what no step needs into the machine's own memory."""
        if self.parts.device.kind != "cpu":
            for part in self._idle():
                part.to("cpu")
            self.parts.device.empty_cache()

    def unpark(self) -> None:
        for part in self._idle():
            part.to(self.parts.device.torch)

    def _idle(self) -> list[torch.nn.Module]:
        """The autoencoder unless pictures are encoded at every step, and encoders that are not trained."""
        vae = [] if self.config.cache_latents == "off" else [self.parts.vae]
        return vae + ([] if self.reads else list(self.parts.text_encoders))

    def _put(self, network: Any, module: Module, rank: int, alpha: float) -> Any:
        base = network.get_submodule(module.path)
        kind = Linear if isinstance(base, torch.nn.Linear) else Conv2d
        with torch.device("meta"):
            layer = kind(base, NAME, LoraConfig(init_lora_weights=False), r=rank, lora_alpha=alpha)  # type: ignore[arg-type]
        chance = rng.generator(self.config.seed, 0, f"{module.part} {module.path}", "beginning")
        down = torch.empty(layer.lora_A[NAME].weight.shape)  # type: ignore[arg-type]
        torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=chance)
        up = torch.zeros(layer.lora_B[NAME].weight.shape)  # type: ignore[arg-type]
        for held, numbers in ((layer.lora_A, down), (layer.lora_B, up)):
            held[NAME].weight = torch.nn.Parameter(
                numbers.to(self.parts.device.torch)
            )  # float32, whatever the model is in
        if self.config.dropout:
            layer.lora_dropout[NAME] = self.dropout.of(f"{module.part} {module.path}")
        network.set_submodule(module.path, layer.eval())
        return layer


def pairs(
    tensors: Mapping[str, torch.Tensor], alphas: Mapping[str, float]
) -> dict[tuple[str, str], Pair]:
    """A checkpoint's numbers as the exporter takes them."""
    names = dict.fromkeys(name.rpartition("|")[0] for name in tensors)
    return {
        (name.partition("|")[0], name.partition("|")[2]): Pair(
            tensors[f"{name}|down"], tensors[f"{name}|up"], alphas[name]
        )
        for name in names
    }


class Dropout:
    """The LoRA's dropout: which inputs are left out depends on (seed, step, sample, layer) and on nothing else.

    `step` and `keys` are those of the present batch; without keys nothing is left out.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.seed, self.step = share, seed, 0
        self.keys: Sequence[str] = ()

    def of(self, layer: str) -> torch.nn.Module:
        """What peft is to call in front of a layer."""
        return _Dropped(self, layer)

    def mask(self, inputs: torch.Tensor, layer: str) -> torch.Tensor:
        """Zeros, and 1 / (1 - share); a sample has one row of `inputs`, or several that follow each other."""
        rows = inputs.shape[0] // len(self.keys)
        masks = []
        for key in self.keys:
            seed = rng.generator(self.seed, self.step, f"{key} {layer}", "dropout").initial_seed()
            chance = torch.Generator(inputs.device).manual_seed(
                seed
            )  # on the device: masks are large
            masks.append(
                torch.rand((rows, *inputs.shape[1:]), generator=chance, device=inputs.device)
                >= self.share
            )
        return torch.cat(masks).to(inputs.dtype) / (1 - self.share)


class _Dropped(torch.nn.Module):
    def __init__(self, dropout: Dropout, layer: str) -> None:
        super().__init__()
        self._dropout, self._layer = dropout, layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self._dropout.mask(inputs, self._layer) if self._dropout.keys else inputs


def _checkpointed(network: Any) -> None:
    """Gradient checkpointing on. transformers wants its layers to be in training, which their children are not to be: dropout
    inside them would draw from the global state."""
    if hasattr(network, "activation_checkpointing_enable"):
        network.activation_checkpointing_enable({"use_reentrant": False})
        for module in network.modules():
            if getattr(module, "gradient_checkpointing", None) is True:
                module.training = True
    else:
        network.enable_gradient_checkpointing()
