"""LoRAs on lent networks: attached once, switched by weight, never fused.

Knows: which of a network's layers a LoRA's layer is for, under diffusers' names and under SDXL's own (sgm); peft's layers.
Does not know: names of files and tags (storage/models/lora_file.py, core/generation/lora_use.py), when to attach and to throw out (manager.py).

An attached adapter that is off costs nothing and leaves the network bit for bit as it was: its layers only call the base layer.
Names are looked up among the network's own modules, so a layer fits exactly or is counted as left out; diffusers' conversion
replaces strings, and silently loses what it has no string for. The arithmetic is peft's, and bit for bit that of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from safetensors import SafetensorError, safe_open

from studio.core.generation.request import GenerationRequest
from studio.engine.models.families import Parts
from studio.errors import BadFile, LoraMismatch
from studio.storage.models import lora_file as store
from studio.storage.models.lora_file import Layer, LoraInfo

NAMED = 5  # layers that a note names
# A residual block's layers under sgm's names.
_INSIDE = {
    "_conv1": "_in_layers_2",
    "_conv2": "_out_layers_3",
    "_time_emb_proj": "_emb_layers_1",
    "_conv_shortcut": "_skip_connection",
}


@dataclass(eq=False)
class Adapter:
    """One LoRA on one model's networks; peft knows it by its content hash. `note` says what of it does not fit, if anything."""

    content: str
    layers: dict[tuple[str, str], Any]  # (network, path) → peft's layer
    weights: list[torch.nn.Module]  # all that it adds to memory
    note: str

    @property
    def reads(self) -> bool:
        """Whether it changes what the text encoders say."""
        return any(network != "unet" for network, _ in self.layers)


@dataclass(frozen=True)
class Active:
    """A LoRA that is on, as long as it has an adapter. `unet` is its weight there, or one for each row of a U-Net call."""

    name: str
    content: str
    unet: float | tuple[float, ...]
    text_encoder: float
    adapter: Adapter | None


@dataclass(frozen=True)
class PerRow:
    """A weight for each row of whatever comes, of any rank: numbers in a layer are multiplied by it as by a number.

    (A tensor shaped for one rank would be broadcast wrongly over another without an error.)
    """

    weights: torch.Tensor

    def __rmul__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * self.weights.to(rows).view(-1, *(1,) * (rows.ndim - 1))


def networks(parts: Parts) -> dict[str, Any]:
    """The networks that a LoRA can change, by the names that files use."""
    return {"unet": parts.unet} | dict(zip(("text_encoder", "text_encoder_2"), parts.text_encoders))


def attach(parts: Parts, info: LoraInfo, content: str) -> Adapter:
    """Put a LoRA on a model, off. Raises LoraMismatch if no layer fits, BadFile for a file with no numbers in it."""
    found, left = _fitting(parts, info)
    adapter = Adapter(content, {}, [], _note(parts, info, len(found), left))
    config, whole = LoraConfig(init_lora_weights=False, inference_mode=True), False
    try:
        with safe_open(info.path, "pt") as file:
            for (network, path), layer in found.items():
                held = _add(networks(parts)[network], path, content, layer, config)
                adapter.layers[network, path] = held
                base = held.get_base_layer().weight
                flat = (1,) * (base.ndim - 2)
                for added, key, shape in (
                    (held.lora_A, layer.down, (layer.rank, *base.shape[1:])),
                    (held.lora_B, layer.up, (layer.outputs, layer.rank, *flat)),
                ):
                    tensor = _finite(file.get_tensor(key).reshape(shape), base, info, layer)
                    added[content].weight = torch.nn.Parameter(tensor, requires_grad=False)
                    adapter.weights.append(added[content])
        whole = True
    except (SafetensorError, OSError) as error:
        raise BadFile(
            f"{info.path.name} cannot be read ({type(error).__name__}: {error!s:.100}). Copy it again."
        ) from error
    finally:
        if not whole:
            detach(parts, adapter)
    return adapter


def detach(parts: Parts, adapter: Adapter) -> None:
    """Take a LoRA off again; a layer without any is the model's own one again."""
    for (network, path), held in adapter.layers.items():
        held.delete_adapter(adapter.content)
        if not held.lora_A:
            networks(parts)[network].set_submodule(path, held.get_base_layer())


def active(parts: Parts, request: GenerationRequest) -> tuple[Active, ...]:
    """The LoRAs of a request, as they are on for it. It is one of those that the parts were borrowed for."""
    return tuple(
        Active(use.name, content, use.unet, use.text_encoder, None if use.off else adapter)
        for use in request.untagged().loras
        for content, adapter in [parts.adapters[use.name]]
    )


def by_row(rows: Sequence[tuple[Active, ...]]) -> tuple[Active, ...]:
    """LoRAs for a U-Net call whose rows have different ones or weights; if all have the same ones, just these."""
    if all(row == rows[0] for row in rows):
        return rows[0]
    known = {one.content: one for row in rows for one in row if one.adapter}
    return tuple(
        replace(
            one,
            unet=tuple(
                sum(_number(use) for use in row if use.content == content and use.adapter)
                for row in rows
            ),
            text_encoder=0.0,
        )
        for content, one in known.items()
    )


@contextmanager
def switched(parts: Parts, on: Sequence[Active]) -> Iterator[None]:
    """These LoRAs on, and no others, until the block is left; then those that were on before."""
    before = parts.loras
    try:
        switch(parts, tuple(on))
        yield
    finally:
        switch(parts, before)


def reading(parts: Parts) -> tuple[tuple[str, float], ...]:
    """What of the present LoRAs changes the reading of a prompt: conditionings are remembered by it."""
    return tuple(
        (one.content, one.text_encoder)
        for one in parts.loras
        if one.adapter and one.adapter.reads and one.text_encoder
    )


def switch(parts: Parts, on: tuple[Active, ...]) -> None:
    """These LoRAs on, and no others."""
    if on == parts.loras:
        return
    for one in parts.loras:
        for held in one.adapter.layers.values() if one.adapter else ():
            held._active_adapter = []
            held.__dict__.pop("forward", None)
    parts.loras = on
    for adapter in dict.fromkeys(one.adapter for one in on if one.adapter):
        same = [
            one for one in on if one.adapter is adapter
        ]  # one file under two names: their weights add up
        encoder = sum(one.text_encoder for one in same)
        given = same[0].unet if len(same) == 1 else sum(_number(one) for one in same)
        unet = PerRow(torch.tensor(given)) if isinstance(given, tuple) else given
        for (network, _), held in adapter.layers.items():
            if weight := unet if network == "unet" else encoder:  # 0 is off, not a product with 0
                _set(held, adapter.content, weight)
                held._active_adapter = [*held.active_adapters, adapter.content]


def _number(use: Active) -> float:
    assert not isinstance(
        use.unet, tuple
    )  # only what `by_row` has merged has a weight for each row
    return use.unet


def _set(held: Any, name: str, weight: float | PerRow) -> None:
    if isinstance(weight, PerRow):
        held.set_scale(name, 1.0)
        held.scaling[name] = PerRow(weight.weights * held.scaling[name])
        held.forward = partial(_by_row, held)
    else:
        held.set_scale(name, weight)


def _by_row(held: Any, x: torch.Tensor) -> torch.Tensor:
    """peft's sum, with the rows' weights on the few numbers between the two halves and all of it added in place: two passes
    over the output fewer for each layer. It rounds differently, which rows in one call do anyway."""
    result = held.base_layer(x)
    for name in held.active_adapters:
        between, up = held.lora_A[name](x) * held.scaling[name], held.lora_B[name]
        if isinstance(up, torch.nn.Linear):
            result.view(-1, result.shape[-1]).addmm_(between.flatten(0, -2), up.weight.t())
        else:
            result += up(between)
    return result


def _add(network: Any, path: str, name: str, layer: Layer, config: Any) -> Any:
    """peft's layer at `path` with one more adapter, still without numbers, and no more active than before."""
    module = network.get_submodule(path)
    more: dict[str, Any] = {"r": layer.rank, "lora_alpha": layer.alpha}
    with torch.device("meta"):
        if isinstance(module, LoraLayer):
            module.update_layer(name, config=config, **more)
        else:
            kind = Linear if isinstance(module, torch.nn.Linear) else Conv2d
            module = kind(module, name, config, **more).eval()
            module._active_adapter = []
            network.set_submodule(path, module)
    module.use_rslora[name] = layer.rslora
    return module


def _finite(tensor: torch.Tensor, base: torch.Tensor, info: LoraInfo, layer: Layer) -> torch.Tensor:
    """In the base's number format. Raises BadFile for what is no number, or none there."""
    given = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    tensor = given.to(base)
    if not bool(torch.isfinite(tensor).all()):
        what = (
            f"values too large for {str(base.dtype).removeprefix('torch.')}"
            if bool(torch.isfinite(given).all())
            else ("values that are no numbers")
        )
        raise BadFile(
            f"{info.path.name} holds {what}, in {layer.stem:.100}; it would spoil every picture."
        )
    return tensor


def _fitting(parts: Parts, info: LoraInfo) -> tuple[dict[tuple[str, str], Layer], list[str]]:
    """The layers that fit, by where they go, and the names of all that does not. Raises LoraMismatch if none does."""
    layers, left = store.read(info.path)
    known = {name: _names(network) for name, network in networks(parts).items()}
    known["unet"] |= _sgm(parts.unet, known["unet"])
    found: dict[tuple[str, str], Layer] = {}
    for layer in layers:
        path = known.get(layer.network, {}).get(layer.name, "")
        base = networks(parts)[layer.network].get_submodule(path) if path else None
        base = base.get_base_layer() if isinstance(base, LoraLayer) else base
        if base is not None and _fits(base, layer) and (layer.network, path) not in found:
            found[layer.network, path] = layer
        else:
            left.append(layer.stem)
    if not found:
        raise LoraMismatch(
            f"None of the {len(layers)} layers of the LoRA {info.name} fits {parts.info.name}; it was made for "
            f"another kind of model. Such as {', '.join(f'{name:.80}' for name in left[:2])}."
        )
    return found, left


def _fits(base: Any, layer: Layer) -> bool:
    outputs, *inputs = base.weight.shape
    inputs = inputs[:1] if set(inputs[1:]) <= {1} else inputs
    return (outputs, *inputs) == (layer.outputs, *layer.shape) and getattr(base, "groups", 1) == 1


def _names(network: torch.nn.Module) -> dict[str, str]:
    """kohya's name → path, of all layers that a LoRA can be on."""
    paths = [
        path.removesuffix(".base_layer")
        for path, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in path
    ]
    return {path.removeprefix("text_model.").replace(".", "_"): path for path in paths}


def _sgm(unet: Any, names: dict[str, str]) -> dict[str, str]:
    """The same layers by the names that SDXL's own code gives them."""
    blocks = {
        "time_embed_0": "time_embedding_linear_1",
        "time_embed_2": "time_embedding_linear_2",
        "label_emb_0_0": "add_embedding_linear_1",
        "label_emb_0_2": "add_embedding_linear_2",
        "input_blocks_0_0": "conv_in",
        "out_2": "conv_out",
        "middle_block_0": "mid_block_resnets_0",
        "middle_block_1": "mid_block_attentions_0",
        "middle_block_2": "mid_block_resnets_1",
    }
    at = 1
    for k, block in enumerate(unet.down_blocks):
        for which in range(len(block.resnets)):
            blocks |= {
                f"input_blocks_{at}_0": f"down_blocks_{k}_resnets_{which}",
                f"input_blocks_{at}_1": f"down_blocks_{k}_attentions_{which}",
            }
            at += 1
        if block.downsamplers:
            blocks[f"input_blocks_{at}_0_op"] = f"down_blocks_{k}_downsamplers_0_conv"
            at += 1
    at = 0
    for k, block in enumerate(unet.up_blocks):
        for which in range(len(block.resnets)):
            blocks |= {
                f"output_blocks_{at}_0": f"up_blocks_{k}_resnets_{which}",
                f"output_blocks_{at}_1": f"up_blocks_{k}_attentions_{which}",
            }
            at += 1
        if block.upsamplers:
            blocks[f"output_blocks_{at - 1}_{1 + hasattr(block, 'attentions')}_conv"] = (
                f"up_blocks_{k}_upsamplers_0_conv"
            )
    found = {}
    for theirs, ours in blocks.items():
        for name, path in names.items():
            if name == ours or name.startswith(f"{ours}_"):
                rest = name.removeprefix(ours)
                found[theirs + _INSIDE.get(rest, rest)] = path
    return found


def _note(parts: Parts, info: LoraInfo, fit: int, left: list[str]) -> str:
    if not left:
        return ""
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return (
        f"Of the LoRA {info.name}, {fit} of {fit + len(left)} layers fit {parts.info.name}; left out: "
        f"{', '.join(f'{name:.80}' for name in left[:NAMED])}{more}."
    )
