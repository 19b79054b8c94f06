"""What a ComfyUI graph paints with: checkpoint, LoRAs, VAE, clip skip.

Knows: chains of loaders, stacks of LoRAs, what patches a model on its way to the sampler. Does not
know: prompts, samplers.

Sources: the inputs' names of comfyanonymous/ComfyUI, rgthree/rgthree-comfy (Power Lora Loader),
jags111/efficiency-nodes-comfyui, Suzie1/ComfyUI_Comfyroll_CustomNodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from studio.core.generation.recipes.comfyui_graph import Link, Node
from studio.core.generation.recipes.comfyui_nodes import (
    KNOWN_MODEL_WORDS,
    LORA_TAG_ENCODERS,
    MODEL_PATCHES,
)
from studio.core.generation.recipes.comfyui_tags import list_tagged_loras, read_tagged_text
from studio.core.generation.recipes.comfyui_values import MAX_CHAIN, PIPE_KEYS, GraphValues
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import as_number, as_whole_number

MAX_STACK = 50  # LoRAs of one node
_LOADER_KEYS = ("ckpt_name", "unet_name", "base_ckpt_name", "model_name", "checkpoint")
_ON_WORDS = (True, "On", "on", "True", "Enable", "enable")


@dataclass(frozen=True)
class LoadedLora:
    """A LoRA of a node: its file and both weights."""

    path: Any
    unet: Any
    text_encoder: Any


class ModelReader:
    """Reads what the model of a sampler is made of."""

    def __init__(self, values: GraphValues, draft: RecipeDraft) -> None:
        """Take a graph and the recipe that everything is noted in."""
        self._values = values
        self._draft = draft

    def take_model(self, model: Any, clip: Any) -> None:
        """Read the checkpoint and the LoRAs on the way to both: the denoiser and the text encoder.

        Args:
            model: Where the sampler's model comes from.
            clip: Where the prompt's text encoder comes from; None where that is not known.
        """
        model_nodes = list(self._walk(model, "model"))
        clip_nodes = list(self._walk(clip, "clip"))
        has_clip = bool(clip_nodes)
        for node in model_nodes:
            self._take_patches(node)
        for node in [*clip_nodes, *model_nodes]:
            if self._take_clip_skip(node):
                break
        clip_ids = {node.node_id for node in clip_nodes}
        model_ids = {node.node_id for node in model_nodes}
        others = [node for node in clip_nodes if node.node_id not in model_ids]
        for node in [*reversed(model_nodes), *reversed(others)]:
            for lora in self._list_loras(node):
                in_clip = node.node_id in clip_ids or not has_clip
                self._draft.add_lora(
                    lora.path,
                    lora.unet if node.node_id in model_ids else 0.0,
                    lora.text_encoder if in_clip else 0.0,
                )
        for node in model_nodes:
            path = self._find_checkpoint(node)
            if path:
                self._draft.add_model(path)
                return

    def take_vae(self, link: Any) -> None:
        """Read the autoencoder; the checkpoint's own is said by an empty name."""
        for node in self._walk(link, "vae"):
            path = node.inputs.get("vae_name")
            if isinstance(path, str):
                if path in ("Baked VAE", "baked VAE", "Baked-VAE"):
                    break
                self._draft.add_vae(path)
                return
            if self._find_checkpoint(node):
                break
        else:
            return
        self._draft.take("vae", "")

    def _walk(self, link: Any, key: str) -> Iterator[Node]:
        """Yield the nodes behind a link, each once, along the inputs of one name."""
        seen: set[str] = set()
        for _ in range(MAX_CHAIN):
            node = self._values.get_node(link)
            if node is None or node.node_id in seen:
                return
            seen.add(node.node_id)
            yield node
            names = (key, f"{key}1", f"{key}_opt", f"opt_{key}", *PIPE_KEYS, "*", "value")
            links = (node.inputs.get(name) for name in names)
            link = next((item for item in links if isinstance(item, Link)), None)

    def _find_checkpoint(self, node: Node) -> str:
        for key in _LOADER_KEYS:
            value = self._values.resolve(node.inputs.get(key), key)
            if isinstance(value, dict):  # pysssss' loaders: {"content": name, "image": …}
                value = value.get("content")
            if isinstance(value, str) and value:
                return value
        return ""

    def _take_patches(self, node: Node) -> None:
        inputs, kind = node.inputs, node.kind
        if kind == "RescaleCFG":
            self._draft.take_number(
                "guidance_rescale", self._values.resolve(inputs.get("multiplier"), "")
            )
        elif kind == "ModelSamplingDiscrete":
            self._draft.note(
                "The model's prediction type was set to "
                f"{inputs.get('sampling')!r:.30}"
                f"{', with zero SNR' if inputs.get('zsnr') is True else ''}; "
                "set that under Model settings."
            )
        elif kind in MODEL_PATCHES:
            self._draft.note(f"Not available here: {MODEL_PATCHES[kind]}; the image will differ.")
        elif kind.startswith("ModelMerge") or "model2" in inputs:
            self._draft.note("It was made with a merge of models; only one is named here.")
        elif "IPAdapter" in kind:
            self._draft.note("IP-Adapter is not available here: the image will differ.")
        elif not any(word in kind for word in KNOWN_MODEL_WORDS) and "lora_stack" not in inputs:
            self._draft.note(f"Node {kind!r:.80} changes the model in a way unknown here.")

    def _take_clip_skip(self, node: Node) -> bool:
        for key in ("stop_at_clip_layer", "clip_skip"):
            layer = as_whole_number(self._values.resolve(node.inputs.get(key), key))
            if layer is not None and layer:
                self._draft.take_clip_skip(layer)
                return True
        return False

    def _list_loras(self, node: Node) -> Iterator[LoadedLora]:
        """Yield the LoRAs of a node, those of its stack first."""
        stack = node.inputs.get("lora_stack") or node.inputs.get("optional_lora_stack")
        seen: set[str] = {node.node_id}
        nodes = [node]
        for _ in range(MAX_CHAIN):
            stacked = self._values.get_node(stack)
            if stacked is None or stacked.node_id in seen:
                break
            seen.add(stacked.node_id)
            nodes.insert(0, stacked)
            stack = stacked.inputs.get("lora_stack")
        for item in nodes:
            yield from self._list_own_loras(item.inputs)
        if node.kind in LORA_TAG_ENCODERS:
            for name, unet, encoder in list_tagged_loras(read_tagged_text(self._values, node)):
                yield LoadedLora(name, unet, encoder)

    def _list_own_loras(self, inputs: dict[str, Any]) -> Iterator[LoadedLora]:
        name = inputs.get("lora_name")
        if isinstance(name, dict):
            name = name.get("content")
        if isinstance(name, str):
            unet = self._read_weight(inputs, "strength_model", "lora_model_strength", "strength")
            encoder = self._read_weight(inputs, "strength_clip", "lora_clip_strength")
            is_model_only = "strength_model" in inputs and "strength_clip" not in inputs
            yield LoadedLora(name, unet, 0.0 if is_model_only else encoder)
        rows = (value for value in inputs.values() if isinstance(value, dict) and "lora" in value)
        for value in islice(rows, MAX_STACK):  # rgthree's Power Lora Loader
            if value.get("on") in _ON_WORDS:
                unet = value.get("strength", 1.0)
                encoder = value.get("strengthTwo")
                yield LoadedLora(value["lora"], unet, unet if encoder is None else encoder)
        for place in range(1, MAX_STACK + 1):  # stacks, with numbered inputs
            path = inputs.get(f"lora_name_{place}", inputs.get(f"lora_{place:02}"))
            is_on = inputs.get(f"switch_{place}", True) in _ON_WORDS
            if isinstance(path, str) and is_on and place <= self._count_stack(inputs):
                keys = (f"model_weight_{place}", f"model_str_{place}", f"lora_wt_{place}")
                unet = self._read_weight(inputs, *keys, f"strength_{place:02}")
                encoder = self._read_weight(inputs, f"clip_weight_{place}", f"clip_str_{place}")
                yield LoadedLora(path, unet, encoder)

    def _count_stack(self, inputs: dict[str, Any]) -> int:
        count = as_whole_number(inputs.get("lora_count"))
        return MAX_STACK if count is None else count

    def _read_weight(self, inputs: dict[str, Any], *keys: str) -> float | None:
        """Return the first of several inputs that there is; None where there is none."""
        for key in keys:
            if key in inputs:
                return as_number(self._values.resolve(inputs[key], key))
        return None
