"""Switches of a ComfyUI graph: nodes that hand on one of several inputs, as if they were not there.

Knows: which input a switch hands on. Does not know: what any other node does.

    Any Switch (rgthree)     the first that is connected
    ImpactSwitch …           the one with a number
    ComfySwitchNode …        one if a value is true, else another

Sources: the inputs' names of rgthree/rgthree-comfy, ltdrdata/ComfyUI-Impact-Pack,
Suzie1/ComfyUI_Comfyroll_CustomNodes, crystian/comfyui-crystools, yolain/ComfyUI-Easy-Use and of
comfyanonymous/ComfyUI itself. Facts, no code.
"""

from __future__ import annotations

from typing import Any

from studio.core.generation.recipes.comfyui_graph import Link, Node
from studio.core.generation.recipes.json_text import as_whole_number

_FIRST_OF = {"Any Switch (rgthree)": "any_"}
# Where the number stands, and what stands before it in the inputs' names.
_BY_NUMBER = {
    "ImpactSwitch": ("select", "input"),
    "easy anythingIndexSwitch": ("index", "value"),
    "CR Text Input Switch": ("Input", "text"),
    "CR Model Input Switch": ("Input", "model"),
    "CR Clip Input Switch": ("Input", "clip"),
    "CR Conditioning Input Switch": ("Input", "conditioning"),
    "CR Latent Input Switch": ("Input", "latent"),
    "CR Image Input Switch": ("Input", "image"),
    "CR VAE Input Switch": ("Input", "VAE"),
}
_CRYSTOOLS = ("boolean", "on_true", "on_false")
_BY_TRUTH = {
    "ComfySwitchNode": ("switch", "on_true", "on_false"),
    "ImpactConditionalBranch": ("cond", "tt_value", "ff_value"),
    "easy ifElse": ("boolean", "on_true", "on_false"),
    "Switch any [Crystools]": _CRYSTOOLS,
    "Switch conditioning [Crystools]": _CRYSTOOLS,
    "Switch image [Crystools]": _CRYSTOOLS,
    "Switch latent [Crystools]": _CRYSTOOLS,
    "Switch string [Crystools]": _CRYSTOOLS,
}
_VALUE_KEYS = ("value", "boolean", "int", "Value")


def skip_switches(nodes: dict[str, Node]) -> None:
    """Link every node to what comes through switches; one that cannot be told stays."""
    passed: dict[str, Any] = {}
    for node in nodes.values():
        for name, value in node.inputs.items():
            if isinstance(value, Link) and _is_switch(nodes.get(value.node_id)):
                node.inputs[name] = _follow(nodes, value, passed)


def _is_switch(node: Node | None) -> bool:
    return node is not None and (
        node.kind in _FIRST_OF or node.kind in _BY_NUMBER or node.kind in _BY_TRUTH
    )


def _follow(nodes: dict[str, Node], link: Link, passed: dict[str, Any]) -> Any:
    """Return what comes through a switch, and through those before it; each is asked once."""
    path: list[str] = []
    value: Any = link
    while isinstance(value, Link) and value.slot == 0:
        node = nodes.get(value.node_id)
        if node is None or not _is_switch(node):
            break
        if node.node_id in passed:
            value = passed[node.node_id]
            break
        passed[node.node_id] = value  # a circle, or one that cannot be told, stays
        choice = _choose_input(nodes, node)
        if choice is None:
            break
        path.append(node.node_id)
        value = choice
    for node_id in path:
        passed[node_id] = value
    return value


def _choose_input(nodes: dict[str, Node], node: Node) -> Any:
    """Return the input that a switch hands on; None where that cannot be told."""
    inputs = node.inputs
    if node.kind in _FIRST_OF:
        prefix = _FIRST_OF[node.kind]
        names = sorted(name for name in inputs if name.startswith(prefix))
        return next((inputs[name] for name in names if inputs[name] is not None), None)
    if node.kind in _BY_NUMBER:
        key, prefix = _BY_NUMBER[node.kind]
        number = as_whole_number(_read_value(nodes, inputs.get(key)))
        return None if number is None else inputs.get(f"{prefix}{number}")
    key, true_key, false_key = _BY_TRUTH[node.kind]
    is_true = _read_value(nodes, inputs.get(key))
    return inputs.get(true_key if is_true else false_key) if isinstance(is_true, bool) else None


def _read_value(nodes: dict[str, Node], value: Any) -> Any:
    """Return a value, also one that a node beside holds."""
    node = nodes.get(value.node_id) if isinstance(value, Link) else None
    if node is None:
        return None if isinstance(value, Link) else value
    return next((node.inputs[key] for key in _VALUE_KEYS if key in node.inputs), None)
