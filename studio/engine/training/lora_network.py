"""The LoRA that is being trained, on a model of its own.

Knows: which layers get a LoRA and how it is initialized, which networks it changes, its dropout,
gradient checkpointing, which parts of the model are on the device while it is trained.
Does not know: the loss, optimizers, data, files.

The layers are peft's; their initial weights (kaiming down, zeros up: as kohya and peft) are drawn
from the seed and the layer's name. LoRA: arXiv:2106.09685. Nothing here touches a model that is
lent to anybody else.
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

from studio.core.families.registry import FAMILIES
from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import TargetModule, parse_model_shape, select_modules
from studio.engine.models import devices
from studio.engine.models.adapters.lora import get_networks
from studio.engine.models.devices import Device
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.training import rng
from studio.engine.training.lora_export import LoraMatrices
from studio.errors import BadFile, InvalidSpec
from studio.storage.models.library import ModelInfo

ADAPTER_NAME = "trained"  # peft's name for the LoRA
# For precision "auto": bfloat16 has float32's range, so that no loss has to be scaled against
# underflow.
DEFAULT_DTYPES = {
    "cuda": torch.bfloat16,
    "xpu": torch.bfloat16,
    "mps": torch.float32,
    "cpu": torch.float32,
}
# What the exporter needs of the U-Net's config to name its blocks.
UNET_CONFIG_KEYS = ("down_block_types", "up_block_types", "layers_per_block")


def select_device(config: TrainingConfig, device: Device) -> Device:
    """Return the device with the dtype that a training computes in.

    Raises:
        InvalidSpec: If the device cannot compute in the chosen precision.
    """
    if config.precision != "auto":
        dtype = devices.DTYPES[config.precision]
    else:
        dtype = DEFAULT_DTYPES[device.kind]
        if device.kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = torch.float16
    if device.kind == "cpu" and dtype == torch.float16:
        raise InvalidSpec(["Precision: a CPU cannot compute in float16; use float32."])
    return Device(device.torch_device, dtype, is_training=True)


def select_target_modules(
    config: TrainingConfig, info: ModelInfo
) -> tuple[tuple[TargetModule, ...], dict[str, Any]]:
    """Select the layers that get a LoRA, from the model's config files alone.

    Returns:
        The target modules, and the keys of the U-Net's config that name its blocks.

    Raises:
        BadFile: If a config cannot be read.
        InvalidSpec: If the settings select no layer.
        UnknownFamily: If the model has networks that cannot be trained.
    """
    text_encoder_configs = []
    family = FAMILIES[info.family]
    for part in family.text_encoders:
        text_encoder_configs.append(_read_component_config(info, part.encoder))
    unet_config = _read_component_config(info, family.denoiser)
    target_modules = select_modules(
        parse_model_shape(unet_config, text_encoder_configs),
        config.targets,
        config.target_modules,
        train_unet=config.train_unet,
        train_text_encoders=config.train_text_encoder,
    )
    block_config = {name: unet_config[name] for name in UNET_CONFIG_KEYS if name in unet_config}
    return target_modules, block_config


def _read_component_config(info: ModelInfo, component: str) -> dict[str, Any]:
    try:
        return dict(json.loads((info.path / component / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(
            f"The {component} of {info.name} cannot be read ({type(error).__name__}). "
            "Copy the model again."
        ) from None


class LoraNetwork:
    """A model with a fresh LoRA on it. The model must not be lent to anybody else."""

    def __init__(
        self, model: LoadedModel, config: TrainingConfig, target_modules: Sequence[TargetModule]
    ) -> None:
        self.model = model
        self.config = config
        self.dropout = SeededDropout(config.dropout, config.seed)
        # Whether captions have to be encoded anew at every step.
        self.trains_text_encoder = any(module.part != "unet" for module in target_modules)
        self.layers: dict[tuple[str, str], Any] = {}
        networks = get_networks(model)
        for module in target_modules:
            layer = self._attach_lora(networks[module.part], module)
            self.layers[module.part, module.path] = layer
        if config.gradient_checkpointing:
            for name, network in networks.items():
                if name == "unet" or self.trains_text_encoder:
                    _enable_gradient_checkpointing(network)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Return all trained weights, always in the same order."""
        return [weight for group in self.parameter_groups for weight in group]

    @property
    def parameter_groups(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """Return the U-Net's and the text encoders' weights, whose learning rates differ."""
        unet_weights: list[torch.nn.Parameter] = []
        text_encoder_weights: list[torch.nn.Parameter] = []
        for (network, _), layer in self.layers.items():
            weights = unet_weights if network == "unet" else text_encoder_weights
            weights.append(layer.lora_A[ADAPTER_NAME].weight)
            weights.append(layer.lora_B[ADAPTER_NAME].weight)
        return unet_weights, text_encoder_weights

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the LoRA's weights as network|path|down and network|path|up."""
        tensors = {}
        for (network, path), layer in self.layers.items():
            down, up = layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME]
            tensors[f"{network}|{path}|down"] = down.weight.detach()
            tensors[f"{network}|{path}|up"] = up.weight.detach()
        return tensors

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy weights into the LoRA. Raises BadFile if they are another LoRA's."""
        weights = self.state_dict()
        shapes = {name: weight.shape for name, weight in weights.items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise BadFile(
                "The checkpoint is of another LoRA: its layers are not those of the settings."
            )
        for name, weight in weights.items():
            weight.copy_(tensors[name])

    @contextmanager
    def eval_mode(self) -> Iterator[LoadedModel]:
        """Lend the model as it generates at this moment, for samples during training.

        All of it is on the device, and nothing is dropped out.
        """
        sample_keys = self.dropout.sample_keys
        self.dropout.sample_keys = ()
        try:
            self._cast_inputs(True)  # nothing else does, without autocast
            self.onload()
            yield replace(self.model, prompt_cache=OrderedDict())
        finally:
            self.dropout.sample_keys = sample_keys
            self._cast_inputs(not self.uses_autocast)
            self.offload()

    @property
    def uses_autocast(self) -> bool:
        """Whether steps are taken under autocast, for which no layer has to cast its inputs."""
        return self.model.device.dtype != torch.float32

    def _cast_inputs(self, enabled: bool) -> None:
        """Let peft cast each layer's inputs to float32, the LoRA's format, or leave them alone."""
        for layer in self.layers.values():
            layer.cast_input_dtype_enabled = enabled

    def offload(self) -> None:
        """Move what no step needs into the machine's main memory."""
        if self.model.device.kind != "cpu":
            for network in self._list_offloadable():
                network.to("cpu")
            self.model.device.empty_cache()

    def onload(self) -> None:
        """Move everything that was offloaded back onto the device."""
        for network in self._list_offloadable():
            network.to(self.model.device.torch_device)

    def _list_offloadable(self) -> list[torch.nn.Module]:
        """List the autoencoder unless every step encodes, and frozen text encoders."""
        networks: list[torch.nn.Module] = []
        if self.config.cache_latents != "off":
            networks.append(self.model.vae)
        if not self.trains_text_encoder:
            networks.extend(self.model.text_encoders)
        return networks

    def _attach_lora(self, network: Any, module: TargetModule) -> Any:
        """Put a LoRA layer in the place of a module, and return it."""
        layer_name = f"{module.part} {module.path}"
        base_layer = network.get_submodule(module.path)
        layer_class = Linear if isinstance(base_layer, torch.nn.Linear) else Conv2d
        rank, alpha = self.config.get_rank_and_alpha(module)
        with torch.device("meta"):
            lora_config = LoraConfig(init_lora_weights=False)
            layer = layer_class(
                base_layer,
                ADAPTER_NAME,
                lora_config,
                r=rank,
                lora_alpha=alpha,  # type: ignore[arg-type]
            )
        generator = rng.make_generator(self.config.seed, 0, layer_name, "beginning")
        down = torch.empty(layer.lora_A[ADAPTER_NAME].weight.shape)  # type: ignore[arg-type]
        torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        up = torch.zeros(layer.lora_B[ADAPTER_NAME].weight.shape)  # type: ignore[arg-type]
        # Float32, whatever dtype the model is in.
        torch_device = self.model.device.torch_device
        layer.cast_input_dtype_enabled = not self.uses_autocast
        layer.lora_A[ADAPTER_NAME].weight = torch.nn.Parameter(down.to(torch_device))
        layer.lora_B[ADAPTER_NAME].weight = torch.nn.Parameter(up.to(torch_device))
        if self.config.dropout:
            layer.lora_dropout[ADAPTER_NAME] = self.dropout.make_module(layer_name)
        network.set_submodule(module.path, layer.eval())
        return layer


def build_layers(
    tensors: Mapping[str, torch.Tensor], alphas: Mapping[str, float]
) -> dict[tuple[str, str], LoraMatrices]:
    """Convert a checkpoint's tensors into the form that the exporter takes."""
    layers = {}
    for name in dict.fromkeys(key.rpartition("|")[0] for key in tensors):
        network, _, path = name.partition("|")
        layers[network, path] = LoraMatrices(
            tensors[f"{name}|down"], tensors[f"{name}|up"], alphas[name]
        )
    return layers


class SeededDropout:
    """The LoRA's dropout: its masks depend on (seed, step, sample, layer) and on nothing else.

    `step` and `sample_keys` are those of the present batch; without keys nothing is dropped.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        self.seed = seed
        self.step = 0
        self.sample_keys: Sequence[str] = ()

    def make_module(self, layer_name: str) -> torch.nn.Module:
        """Make the module that peft calls in front of a layer."""
        return _DropoutModule(self, layer_name)

    def make_mask(self, inputs: torch.Tensor, layer_name: str) -> torch.Tensor:
        """Draw a mask of zeros and 1 / (1 - probability), shaped as `inputs`.

        A sample has one row of `inputs`, or several that follow each other.
        """
        rows = inputs.shape[0] // len(self.sample_keys)
        shape = (rows, *inputs.shape[1:])
        masks = []
        for key in self.sample_keys:
            seed_source = rng.make_generator(self.seed, self.step, f"{key} {layer_name}", "dropout")
            # Drawn on the device, because masks are large.
            generator = torch.Generator(inputs.device).manual_seed(seed_source.initial_seed())
            draws = torch.rand(shape, generator=generator, device=inputs.device)
            masks.append(draws >= self.probability)
        return torch.cat(masks).to(inputs.dtype) / (1 - self.probability)


class _DropoutModule(torch.nn.Module):
    def __init__(self, dropout: SeededDropout, layer_name: str) -> None:
        super().__init__()
        self._dropout = dropout
        self._layer_name = layer_name

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self._dropout.sample_keys:
            return inputs
        return inputs * self._dropout.make_mask(inputs, self._layer_name)


def _enable_gradient_checkpointing(network: Any) -> None:
    """Switch gradient checkpointing on.

    transformers wants its layers to be in training mode, but not their children: dropout inside
    them would draw from the global random state.
    """
    if not hasattr(network, "activation_checkpointing_enable"):
        network.enable_gradient_checkpointing()
        return
    network.activation_checkpointing_enable({"use_reentrant": False})
    for module in network.modules():
        if getattr(module, "gradient_checkpointing", None) is True:
            module.training = True
