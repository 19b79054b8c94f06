"""LoRAs on lent networks: attached once, switched by weight, never fused.

Knows: which layer of a network a LoRA's layer is for, under diffusers' names and SDXL's own (sgm);
peft's layers. Does not know: names of files and tags (storage/models/lora_file.py,
core/generation/lora_use.py), when to attach and to evict (manager.py).

An attached adapter that is off costs nothing and leaves the network bit for bit as it was: its
layers only call the base layer. Names are looked up among the network's own modules, so a layer
fits exactly or is counted as unmatched; diffusers' conversion replaces strings, and silently loses
what it has no string for. The arithmetic is peft's, and bit for bit that of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from safetensors import SafetensorError, safe_open

from studio.core.families.sgm_names import build_sgm_blocks, to_sgm_path
from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.private_peft import (
    reset_forward,
    set_active_adapters,
    set_forward,
)
from studio.engine.models.loaded_model import LoadedModel
from studio.errors import BadFile, LoraMismatch
from studio.storage.models import lora_file
from studio.storage.models.lora_file import Layer, LoraInfo

MAX_LISTED_LAYERS = 5  # layers that a warning names


@dataclass(eq=False)
class Adapter:
    """One LoRA on one model's networks; peft knows it by its content hash."""

    content_hash: str
    networks: dict[str, Any]  # those that it is on
    layers: dict[tuple[str, str], Any]  # (network, path) → peft's layer
    modules: list[torch.nn.Module]  # all that it adds to memory
    warning: str  # which of its layers do not fit; empty if all do

    @property
    def affects_text_encoder(self) -> bool:
        """Whether it changes a text encoder's output."""
        return any(network != "unet" for network, _ in self.layers)


@dataclass(frozen=True)
class ActiveAdapter:
    """A LoRA that is on, as long as it has an adapter."""

    name: str
    content_hash: str
    unet_weight: float | tuple[float, ...]  # for all rows of a U-Net call, or one for each
    text_encoder_weight: float
    adapter: Adapter | None


@dataclass(frozen=True)
class RowWeights:
    """A weight for each row of activations of any rank, which are multiplied by it as by a number.

    (A tensor shaped for one rank would be broadcast wrongly over another without an error.)
    """

    weights: torch.Tensor

    def __rmul__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * self.weights.to(rows).view(-1, *(1,) * (rows.ndim - 1))


def get_networks(model: LoadedModel) -> dict[str, Any]:
    """Return the networks that a LoRA can change, by the names that files use."""
    encoder_names = [part.encoder for part in model.family.text_encoders]
    return {model.family.denoiser: model.denoiser, **dict(zip(encoder_names, model.text_encoders))}


def hold_networks(model: LoadedModel, info: LoraInfo) -> dict[str, Any]:
    """Return those of a model's networks that a LoRA changes, loaded for as long as it is lent."""
    denoiser = model.family.denoiser
    if set(info.networks) <= {denoiser}:
        return {denoiser: model.denoiser}
    return get_networks(model)


def attach(model: LoadedModel, info: LoraInfo, content_hash: str) -> Adapter:
    """Attach a LoRA to a model, switched off.

    Args:
        model: Its networks get peft's layers.
        info: The LoRA's file.
        content_hash: The hash of its content, which becomes the adapter's name in peft.

    Raises:
        LoraMismatch: No layer fits the model.
        BadFile: The file is broken, or holds values that are not finite.
    """
    networks = hold_networks(model, info)
    matched, unmatched = _match_layers(model, networks, info)
    warning = _describe_unmatched(model, info, len(matched), unmatched)
    adapter = Adapter(content_hash, networks, {}, [], warning)
    config = LoraConfig(init_lora_weights=False, inference_mode=True)
    with ExitStack() as rollback:
        rollback.callback(detach, adapter)
        try:
            with safe_open(info.path, "pt") as file:
                for (network, path), layer in matched.items():
                    lora_layer = _add_lora_layer(
                        networks[network], path, content_hash, layer, config
                    )
                    adapter.layers[network, path] = lora_layer
                    adapter.modules += _load_weights(file, info, layer, lora_layer, content_hash)
        except (SafetensorError, OSError) as error:
            raise BadFile(
                f"{info.path.name} cannot be read ({type(error).__name__}: {error!s:.100}). "
                "Copy it again."
            ) from error
        rollback.pop_all()
    return adapter


def detach(adapter: Adapter) -> None:
    """Take a LoRA off again; where none remains, the network's own layer comes back."""
    for (network, path), layer in adapter.layers.items():
        layer.delete_adapter(adapter.content_hash)
        if not layer.lora_A:
            adapter.networks[network].set_submodule(path, layer.get_base_layer())


def select_adapters(model: LoadedModel, request: GenerationRequest) -> tuple[ActiveAdapter, ...]:
    """Return a request's LoRAs with the weights it gives them.

    Args:
        model: Borrowed for this request (among others), so that its adapters are attached.
        request: Its LoRAs, also those in its prompts, are returned in order.
    """
    selected = []
    for use in request.with_inline_loras().loras:
        content_hash, adapter = model.adapters[use.name]
        if use.is_inactive:
            adapter = None
        selected.append(ActiveAdapter(use.name, content_hash, use.unet, use.text_encoder, adapter))
    return tuple(selected)


def merge_row_adapters(rows: Sequence[tuple[ActiveAdapter, ...]]) -> tuple[ActiveAdapter, ...]:
    """Merge the adapters of all rows of a U-Net call; each gets a tuple of one weight per row.

    Args:
        rows: For each row its adapters. Returned unchanged if all rows are equal.
    """
    if all(row == rows[0] for row in rows):
        return rows[0]
    by_hash = {active.content_hash: active for row in rows for active in row if active.adapter}
    return tuple(
        replace(
            active,
            unet_weight=tuple(_sum_unet_weights(row, content_hash) for row in rows),
            text_encoder_weight=0.0,
        )
        for content_hash, active in by_hash.items()
    )


@contextmanager
def use_adapters(model: LoadedModel, adapters: Sequence[ActiveAdapter]) -> Iterator[None]:
    """Switch on exactly these LoRAs until the block is left, then the previous ones again."""
    previous_adapters = model.active_adapters
    try:
        set_adapters(model, tuple(adapters))
        yield
    finally:
        set_adapters(model, previous_adapters)


def list_text_encoder_adapters(model: LoadedModel) -> tuple[tuple[str, float], ...]:
    """Return content hash and weight of the LoRAs that change how a prompt is encoded now."""
    return tuple(
        (active.content_hash, active.text_encoder_weight)
        for active in model.active_adapters
        if active.adapter and active.adapter.affects_text_encoder and active.text_encoder_weight
    )


def set_adapters(model: LoadedModel, adapters: tuple[ActiveAdapter, ...]) -> None:
    """Switch on exactly these LoRAs.

    Args:
        model: Their adapters are attached to it.
        adapters: Several of one content add up.
    """
    if adapters == model.active_adapters:
        return
    for active in model.active_adapters:
        if active.adapter:
            for layer in active.adapter.layers.values():
                set_active_adapters(layer, [])
                reset_forward(layer)
    model.active_adapters = adapters
    for adapter in dict.fromkeys(active.adapter for active in adapters if active.adapter):
        same_content = [active for active in adapters if active.adapter is adapter]
        _switch_on(adapter, same_content)


def _switch_on(adapter: Adapter, uses: Sequence[ActiveAdapter]) -> None:
    """Switch an adapter on in its layers, with the sum of its uses' weights."""
    text_encoder_weight = sum(use.text_encoder_weight for use in uses)
    unet_weight: float | RowWeights
    if len(uses) == 1 and isinstance(uses[0].unet_weight, tuple):
        unet_weight = RowWeights(torch.tensor(uses[0].unet_weight))
    else:
        unet_weight = _sum_unet_weights(uses, adapter.content_hash)
    for (network, _), layer in adapter.layers.items():
        weight = unet_weight if network == "unet" else text_encoder_weight
        if weight:  # 0 is off, not a product with 0
            _set_weight(layer, adapter.content_hash, weight)
            set_active_adapters(layer, [*layer.active_adapters, adapter.content_hash])


def _sum_unet_weights(adapters: Sequence[ActiveAdapter], content_hash: str) -> float:
    """Return the sum of the weights of the adapters with this content that are on."""
    total = 0.0
    for active in adapters:
        if active.content_hash == content_hash and active.adapter:
            # Only what `merge_row_adapters` returns has a weight for each row.
            assert not isinstance(active.unet_weight, tuple)
            total += active.unet_weight
    return total


def _set_weight(layer: Any, name: str, weight: float | RowWeights) -> None:
    if isinstance(weight, RowWeights):
        layer.set_scale(name, 1.0)
        layer.scaling[name] = RowWeights(weight.weights * layer.scaling[name])
        set_forward(layer, partial(_forward_row_weights, layer))
    else:
        layer.set_scale(name, weight)


def _forward_row_weights(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Compute peft's sum with a weight for each row.

    The weights scale the small activations between the two matrices, and the sum is in place: two
    passes over the output fewer for each layer. It rounds differently, which rows in one call do
    anyway.
    """
    result = layer.base_layer(x)
    for name in layer.active_adapters:
        hidden = layer.lora_A[name](x) * layer.scaling[name]
        up = layer.lora_B[name]
        if isinstance(up, torch.nn.Linear):
            result.view(-1, result.shape[-1]).addmm_(hidden.flatten(0, -2), up.weight.t())
        else:
            result += up(hidden)
    return result


def _add_lora_layer(network: Any, path: str, name: str, layer: Layer, config: Any) -> Any:
    """Return peft's layer at `path` with one more adapter, still off and without values."""
    module = network.get_submodule(path)
    alpha: Any = layer.alpha  # peft takes a float too
    with torch.device("meta"):
        if isinstance(module, LoraLayer):
            module.update_layer(name, r=layer.rank, lora_alpha=alpha, config=config)
        else:
            layer_class = Linear if isinstance(module, torch.nn.Linear) else Conv2d
            module = layer_class(module, name, config, r=layer.rank, lora_alpha=alpha).eval()
            set_active_adapters(module, [])
            network.set_submodule(path, module)
    module.use_rslora[name] = layer.use_rslora
    return module


def _load_weights(
    file: Any, info: LoraInfo, layer: Layer, lora_layer: Any, name: str
) -> list[torch.nn.Module]:
    """Read an adapter's two matrices into peft's layer; return the modules that hold them."""
    base = lora_layer.get_base_layer().weight
    up_kernel = (1,) * (base.ndim - 2)
    down = file.get_tensor(layer.down_key).reshape(layer.rank, *base.shape[1:])
    lora_layer.lora_A[name].weight = _to_parameter(down, base, info, layer)
    up = file.get_tensor(layer.up_key).reshape(layer.out_features, layer.rank, *up_kernel)
    lora_layer.lora_B[name].weight = _to_parameter(up, base, info, layer)
    return [lora_layer.lora_A[name], lora_layer.lora_B[name]]


def _to_parameter(
    tensor: torch.Tensor, base: torch.Tensor, info: LoraInfo, layer: Layer
) -> torch.nn.Parameter:
    """Cast to the base's number format. Raises BadFile for values that are not finite."""
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    cast_tensor = tensor.to(base)
    if not bool(torch.isfinite(cast_tensor).all()):
        problem = "values that are no numbers"
        if bool(torch.isfinite(tensor).all()):
            problem = f"values too large for {str(base.dtype).removeprefix('torch.')}"
        raise BadFile(
            f"{info.path.name} holds {problem}, in {layer.stem:.100}; it would spoil every picture."
        )
    return torch.nn.Parameter(cast_tensor, requires_grad=False)


def _match_layers(
    model: LoadedModel, networks: dict[str, Any], info: LoraInfo
) -> tuple[dict[tuple[str, str], Layer], list[str]]:
    """Return the layers that fit, by network and path, and the names of all others.

    Raises LoraMismatch if none fits.
    """
    layers, unmatched = lora_file.read_layers(info.path)
    paths_by_network = {name: _map_kohya_names(network) for name, network in networks.items()}
    unet_paths = list(paths_by_network["unet"].values())
    paths_by_network["unet"] |= _map_sgm_names(model.denoiser, unet_paths)
    matched: dict[tuple[str, str], Layer] = {}
    for layer in layers:
        path = paths_by_network.get(layer.network, {}).get(layer.name, "")
        if (
            path
            and (layer.network, path) not in matched
            and _fits(networks[layer.network].get_submodule(path), layer)
        ):
            matched[layer.network, path] = layer
        else:
            unmatched.append(layer.stem)
    if not matched:
        examples = ", ".join(f"{name:.80}" for name in unmatched[:2])
        raise LoraMismatch(
            f"None of the {len(layers)} layers of the LoRA {info.name} fits {model.info.name}; "
            f"it was made for another kind of model. Such as {examples}."
        )
    return matched, unmatched


def _fits(module: Any, layer: Layer) -> bool:
    """Return whether the shapes of a network's layer and of a LoRA's are the same."""
    base: Any = module.get_base_layer() if isinstance(module, LoraLayer) else module
    if getattr(base, "groups", 1) != 1:
        return False
    out_features, *input_shape = base.weight.shape
    if set(input_shape[1:]) <= {1}:  # a 1 × 1 convolution is as good as a linear layer
        input_shape = input_shape[:1]
    return (out_features, *input_shape) == (layer.out_features, *layer.input_shape)


def _map_kohya_names(network: torch.nn.Module) -> dict[str, str]:
    """Return the paths of all layers that a LoRA can be on, by kohya's names."""
    paths = [
        path.removesuffix(".base_layer")
        for path, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in path
    ]
    return {path.removeprefix("text_model.").replace(".", "_"): path for path in paths}


def _map_sgm_names(unet: Any, paths: Sequence[str]) -> dict[str, str]:
    """Return the paths by the names that SDXL's own code gives them, with underscores."""
    blocks = build_sgm_blocks(
        [len(block.resnets) for block in unet.down_blocks],
        [hasattr(block, "attentions") for block in unet.up_blocks],
    )
    names = {}
    for path in paths:
        with suppress(ValueError):  # sgm has no such layer
            names[to_sgm_path(path, blocks).replace(".", "_")] = path
    return names


def _describe_unmatched(
    model: LoadedModel, info: LoraInfo, num_matched: int, unmatched: list[str]
) -> str:
    if not unmatched:
        return ""
    names = ", ".join(f"{name:.80}" for name in unmatched[:MAX_LISTED_LAYERS])
    if len(unmatched) > MAX_LISTED_LAYERS:
        names += f" and {len(unmatched) - MAX_LISTED_LAYERS} more"
    return (
        f"Of the LoRA {info.name}, {num_matched} of {num_matched + len(unmatched)} layers fit "
        f"{model.info.name}; left out: {names}."
    )
