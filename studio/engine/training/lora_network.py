"""The LoRA that is being trained, on a model of its own.

Knows: which layers get a LoRA, which networks it changes, gradient checkpointing, which parts of
the model are on the device while it is trained.
Does not know: its kind and its first values (trained_layer.py), the loss, optimizers, data, files.

Nothing here touches a model that is lent to anybody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import TargetModule, select_modules
from studio.engine.models import devices
from studio.engine.models.adapters.lora import get_networks
from studio.engine.models.devices import Device
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.training.lora_dropout import SeededDropout
from studio.engine.training.lora_export import AdapterTensors
from studio.engine.training.trained_layer import TrainedLayer
from studio.errors import BadFile, InvalidSpec
from studio.storage.models.library import ModelInfo
from studio.storage.models.model_shape import read_model_shape

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
    shape, unet_config = read_model_shape(info)
    target_modules = select_modules(
        shape,
        config.targets,
        config.target_modules,
        train_unet=config.train_unet,
        train_text_encoders=config.train_text_encoder,
        train_norm=config.train_norm,
    )
    block_config = {name: unet_config[name] for name in UNET_CONFIG_KEYS if name in unet_config}
    return target_modules, block_config


class LoraNetwork:
    """A model with a fresh LoRA on it. The model must not be lent to anybody else."""

    def __init__(
        self, model: LoadedModel, config: TrainingConfig, target_modules: Sequence[TargetModule]
    ) -> None:
        self.model = model
        self.config = config
        self.dropout = SeededDropout(config)
        # Whether captions have to be encoded anew at every step.
        self.trains_text_encoder = any(module.part != "unet" for module in target_modules)
        self.layers: dict[tuple[str, str], TrainedLayer] = {}
        networks = get_networks(model)
        for module in target_modules:
            network = networks[module.part]
            base_layer = network.get_submodule(module.path)
            layer = TrainedLayer(base_layer, config, module, self.dropout).eval()
            network.set_submodule(module.path, layer)
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
            weights.extend(layer.get_parameters().values())
        return unet_weights, text_encoder_weights

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the LoRA's weights as network|path|role, such as unet|…to_q|down."""
        return {
            f"{network}|{path}|{role}": tensor
            for (network, path), layer in self.layers.items()
            for role, tensor in layer.get_tensors().items()
        }

    @property
    def alphas(self) -> dict[str, float]:
        """Return the alphas as network|path; norms have none."""
        return {
            f"{network}|{path}": layer.alpha
            for (network, path), layer in self.layers.items()
            if layer.alpha is not None
        }

    def limit_norms(self, max_norm: float) -> None:
        """Let no layer be changed by more than `max_norm`, without waiting for the device."""
        for layer in self.layers.values():
            layer.limit_norm(max_norm)

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy weights into the LoRA. Raises BadFile if they are another LoRA's."""
        weights = self.state_dict()
        shapes = {name: weight.shape for name, weight in weights.items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise BadFile(
                "The checkpoint belongs to another LoRA: its layers do not match the settings."
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
            self.onload()
            yield replace(self.model, prompt_cache=OrderedDict())
        finally:
            self.dropout.sample_keys = sample_keys
            self.offload()

    @property
    def uses_autocast(self) -> bool:
        """Whether steps are taken under autocast, for which no layer has to cast its inputs."""
        return self.model.device.dtype != torch.float32

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


def build_layers(
    tensors: Mapping[str, torch.Tensor], alphas: Mapping[str, float]
) -> dict[tuple[str, str], AdapterTensors]:
    """Convert a checkpoint's tensors into the form that the exporter takes."""
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, role = key.rpartition("|")
        by_name.setdefault(name, {})[role] = tensor
    layers = {}
    for name, roles in by_name.items():
        network, _, path = name.partition("|")
        is_norm = "w_norm" in roles
        layers[network, path] = AdapterTensors(roles, None if is_norm else alphas[name])
    return layers


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
