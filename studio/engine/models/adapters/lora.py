"""Adapters on lent networks: attached once, switched by weight, never fused.

Knows: which adapters of a model are on, and with which weights; reading their tensors.
Does not know: what a kind computes (one file each), how layers are named (layer_names.py), names of
files and tags (storage/models/lora_file.py, core/generation/lora_use.py), when to attach and to
evict (manager.py).

An attached adapter that is off costs nothing and leaves the network bit for bit as it was: its
layers only call the base layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.adapted_layer import AdaptedLayer, Factor
from studio.engine.models.adapters.adapter_module import AdapterModule
from studio.engine.models.adapters.kinds import build_adapter, can_adapt
from studio.engine.models.adapters.layer_names import map_layer_names, map_numbers
from studio.engine.models.loaded_model import LoadedModel
from studio.errors import BadFile, LoraMismatch
from studio.storage.models import lora_file
from studio.storage.models.adapter_kinds import parse_adapter_key
from studio.storage.models.adapter_layers import Layer
from studio.storage.models.lora_file import LoraInfo

MAX_LISTED_LAYERS = 5  # layers that a warning names


@dataclass(eq=False)
class Adapter:
    """One LoRA, or relative of it, on one model's networks."""

    content_hash: str
    networks: dict[str, Any]  # those that it is on
    layers: dict[tuple[str, str], AdaptedLayer]  # (network, path) → layer that it is on
    modules: list[AdapterModule]  # all that it adds to memory
    warning: str  # which of its layers do not fit, or that it does nothing; empty if all is well

    @property
    def affects_text_encoder(self) -> bool:
        """Whether it changes a text encoder's output."""
        return any(network.startswith("text_encoder") for network, _ in self.layers)


@dataclass(frozen=True)
class ActiveAdapter:
    """A LoRA that is on, as long as it has an adapter."""

    name: str
    content_hash: str
    unet_weight: float | tuple[float, ...]  # for all rows of a U-Net call, or one for each
    text_encoder_weight: float
    adapter: Adapter | None


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
    """Attach a LoRA, or a relative of it, to a model, switched off.

    Args:
        model: Its networks get layers that hold adapters.
        info: The LoRA's file.
        content_hash: The hash of its content.

    Raises:
        LoraMismatch: No layer fits the model.
        BadFile: The file is broken, or holds values that are not finite.
    """
    networks = hold_networks(model, info)
    matched, unmatched, stray_tensors = _match_layers(model, networks, info)
    warning = _describe_unmatched(model, info, matched, unmatched, stray_tensors)
    adapter = Adapter(content_hash, networks, {}, [], warning)
    with ExitStack() as rollback:
        rollback.callback(detach, adapter)
        try:
            with safe_open(info.path, "pt") as file:
                for (network, path), layers in matched.items():
                    adapted_layer = _wrap_layer(networks[network], path)
                    adapter.layers[network, path] = adapted_layer
                    for layer in layers:
                        module = _load_adapter(file, info, layer, adapted_layer.base_layer, model)
                        adapted_layer.add(content_hash, module)
                        adapter.modules.append(module)
        except (SafetensorError, OSError) as error:
            raise BadFile(
                f"{info.path.name} cannot be read ({type(error).__name__}: {error!s:.100}). "
                "Copy it again."
            ) from error
        rollback.pop_all()
    if all(module.is_neutral for module in adapter.modules):
        adapter.warning = (
            f"The LoRA {info.name} does nothing: all its alphas or weights are 0. {adapter.warning}"
        ).strip()
    return adapter


def detach(adapter: Adapter) -> None:
    """Take a LoRA off again; where none remains, the network's own layer comes back."""
    for (network, path), layer in adapter.layers.items():
        if adapter.content_hash in layer.adapters:
            layer.adapters.pop(adapter.content_hash)
        if not layer.adapters:
            adapter.networks[network].set_submodule(path, layer.base_layer)


def get_batching_key(adapters: Sequence[ActiveAdapter]) -> frozenset[str]:
    """Return what has to be equal for rows with these adapters to share a U-Net call.

    It is the set of contents: every kind adds its part to the output of a layer as it was without
    adapters, so that each row has a weight of its own, DoRA, OFT and (IA)³ included.
    """
    return frozenset(active.content_hash for active in adapters)


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
                layer.switch_off()
    model.active_adapters = adapters
    for adapter in dict.fromkeys(active.adapter for active in adapters if active.adapter):
        same_content = [active for active in adapters if active.adapter is adapter]
        _switch_on(model, adapter, same_content)


def _switch_on(model: LoadedModel, adapter: Adapter, uses: Sequence[ActiveAdapter]) -> None:
    """Switch an adapter on in its layers, with the sum of its uses' weights."""
    text_encoder_weight = sum(use.text_encoder_weight for use in uses)
    unet_weight: float | tuple[float, ...]
    if len(uses) == 1 and isinstance(uses[0].unet_weight, tuple):
        unet_weight = uses[0].unet_weight
        rows = torch.tensor(unet_weight).to(model.device.torch_device)
    else:
        unet_weight = _sum_unet_weights(uses, adapter.content_hash)
        rows = torch.empty(0)
    row_factors: dict[float, torch.Tensor] = {}  # one for all layers of a scale
    for (network, _), layer in adapter.layers.items():
        weight = unet_weight if network == "unet" else text_encoder_weight
        if not weight:  # 0 is off, not a product with 0
            continue
        for module in layer.get_adapters(adapter.content_hash):
            factor: Factor
            if isinstance(weight, tuple):
                scale = module.get_factor(1.0)
                if scale not in row_factors:
                    row_factors[scale] = (rows * scale).to(model.device.dtype)
                factor = row_factors[scale]
            else:
                factor = module.get_factor(weight)
            layer.switch_on(module, factor)


def _sum_unet_weights(adapters: Sequence[ActiveAdapter], content_hash: str) -> float:
    """Return the sum of the weights of the adapters with this content that are on."""
    total = 0.0
    for active in adapters:
        if active.content_hash == content_hash and active.adapter:
            # Only what `merge_row_adapters` returns has a weight for each row.
            assert not isinstance(active.unet_weight, tuple)
            total += active.unet_weight
    return total


def _wrap_layer(network: Any, path: str) -> AdaptedLayer:
    """Return the layer at `path` as one that holds adapters, with those that are there already."""
    module = network.get_submodule(path)
    if not isinstance(module, AdaptedLayer):
        module = AdaptedLayer(module)
        network.set_submodule(path, module)
    return module


def _load_adapter(
    file: Any, info: LoraInfo, layer: Layer, base: Any, model: LoadedModel
) -> AdapterModule:
    """Read what a file does to one layer.

    In the end it is in the number format to compute in: the base's own may be one that is only
    stored in. All is checked before it is moved, since each look at a value on another device waits
    for it; what is computed from the tensors and the base is computed in float32.
    """
    tensors = {}
    for role, key in layer.tensors.items():
        tensors[role] = file.get_tensor(key).float()
        _check_finite(tensors[role], model.device.dtype, info, layer)
    module = build_adapter(layer, tensors, base).eval()
    module.is_neutral = module.has_no_effect()
    module.to(model.device.torch_device)
    module.prepare(base)
    return module.to(model.device.dtype)


def _check_finite(tensor: torch.Tensor, dtype: torch.dtype, info: LoraInfo, layer: Layer) -> None:
    """Raise BadFile if values are not finite, or would not be in another number format."""
    if bool(torch.isfinite(tensor.to(dtype)).all()):
        return
    problem = "values that are not numbers"
    if bool(torch.isfinite(tensor).all()):
        problem = f"values too large for {str(dtype).removeprefix('torch.')}"
    raise BadFile(
        f"{info.path.name} contains {problem}, in {layer.stem:.100}, which would spoil every image."
    )


Matched = dict[tuple[str, str], list[Layer]]  # (network, path) → what is put on that layer


def _match_layers(
    model: LoadedModel, networks: dict[str, Any], info: LoraInfo
) -> tuple[Matched, list[str], list[str]]:
    """Return the layers that fit, by network and path, the names of all others, and of tensors.

    Layers of which a part is missing are among the others; the tensors belong to no layer, or are
    of no use to theirs. Words that were trained with it are neither: prompts use them.

    Raises LoraMismatch if none fits.
    """
    layers, stray_keys = lora_file.read_layers(info.path)
    word_keys = {key for embedding in info.embeddings for key in embedding.tensors}
    stray_keys = [key for key in stray_keys if key not in word_keys]
    unmatched, stray_tensors = _find_incomplete_layers(layers, stray_keys)
    paths = _map_paths(networks, layers)
    matched: Matched = {}
    for layer in layers:
        path = paths.get(layer.network, {}).get(layer.name, "")
        neighbours = matched.get((layer.network, path), [])
        is_taken = any(neighbour.kind == layer.kind for neighbour in neighbours)
        if path and not is_taken and _fits(networks[layer.network], layer, path):
            matched[layer.network, path] = [*neighbours, layer]
        else:
            unmatched.append(layer.stem)
    if not matched:
        examples = ", ".join(f"{name:.80}" for name in unmatched[:2])
        raise LoraMismatch(
            f"None of the {len(layers)} layers of the LoRA {info.name} fit {model.info.name}; it "
            f"was made for another kind of model. Examples: {examples}."
        )
    return matched, unmatched, stray_tensors


def _find_incomplete_layers(
    layers: Sequence[Layer], stray_keys: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the names of layers of which a part is missing, and of tensors that are of none."""
    stems = {layer.stem for layer in layers}
    incomplete: dict[str, None] = {}
    stray_tensors = []
    for key in stray_keys:
        parsed = parse_adapter_key(key)
        if parsed and parsed[0] not in stems:
            incomplete[parsed[0]] = None
        else:
            stray_tensors.append(key)
    return list(incomplete), stray_tensors


def _map_paths(networks: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, dict[str, str]]:
    """Return for each network the paths of its layers by the names that a file has for them."""
    paths = {}
    for name, network in networks.items():
        numbered = [layer for layer in layers if layer.network == name and layer.numbered_in]
        if numbered:
            paths[name] = map_numbers(network, numbered, partial(_fits, network))
        else:
            paths[name] = map_layer_names(network, is_unet=name == "unet")
    return paths


def _fits(network: Any, layer: Layer, path: str) -> bool:
    """Whether what a file says of a layer can be put on the network's layer at `path`."""
    module = network.get_submodule(path)
    return can_adapt(layer, module.base_layer if isinstance(module, AdaptedLayer) else module)


def _describe_unmatched(
    model: LoadedModel,
    info: LoraInfo,
    matched: Matched,
    unmatched: Sequence[str],
    stray_tensors: Sequence[str],
) -> str:
    """Return what of a LoRA is left out, in a sentence for layers and one for tensors."""
    sentences = []
    if unmatched:
        num_matched = len({layer.stem for layers in matched.values() for layer in layers})
        num_layers = num_matched + len(unmatched)
        sentences.append(
            f"{num_matched} of {num_layers} layers of the LoRA {info.name} fit {model.info.name}; "
            f"ignored: {_list_names(unmatched)}."
        )
    if stray_tensors:
        noun = "tensor is" if len(stray_tensors) == 1 else "tensors are"
        sentences.append(
            f"Of the LoRA {info.name}, {len(stray_tensors)} {noun} of no layer that the studio "
            f"can adapt; left out: {_list_names(stray_tensors)}."
        )
    return " ".join(sentences)


def _list_names(names: Sequence[str]) -> str:
    text = ", ".join(f"{name:.80}" for name in names[:MAX_LISTED_LAYERS])
    surplus = len(names) - MAX_LISTED_LAYERS
    return f"{text} and {surplus} more" if surplus > 0 else text
