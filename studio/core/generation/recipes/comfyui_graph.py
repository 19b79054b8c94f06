"""ComfyUI's graphs: the one that was run ("prompt") and the one that was drawn ("workflow").

Knows: both forms, reroutes, primitives, bypassed nodes. Does not know: what any node does
(comfyui_nodes.py), what an image was made with (comfyui_models.py).

    prompt      {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}
    workflow    {"nodes": [{"id": 3, "type": "KSampler", "inputs": [{"name": "model", "link": 1}],
                 "widgets_values": [7, "fixed", 20, …]}], "links": [[1, 4, 0, 3, 0, "MODEL"]]}

Sources: the schema of ComfyUI's frontend (comfyWorkflowSchema.ts), what comfyanonymous/ComfyUI's
execution takes. Facts, no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.core.generation.recipes.comfyui_nodes import WIDGETS
from studio.core.generation.recipes.json_text import as_list

MAX_NODES = 200_000
MAX_REROUTES = 1_000  # one after the other
_MUTED, _BYPASSED = 2, 4  # a drawn node's mode
_SEED_WIDGETS = ("seed", "noise_seed")
_SEED_MODES = ("fixed", "increment", "decrement", "randomize")
# Drawn only: the run graph is without them.
_REROUTE_TYPES = ("Reroute", "Reroute (rgthree)", "ReroutePrimitive|pysssss")


@dataclass(frozen=True)
class Link:
    """An output of a node."""

    node_id: str
    slot: int


@dataclass
class Node:
    """A node with its inputs: values, and links to other nodes' outputs."""

    node_id: str
    kind: str
    inputs: dict[str, Any] = field(default_factory=dict)


Graph = Mapping[str, Node]


def parse_run_graph(data: Any) -> dict[str, Node]:
    """Return the nodes of a graph in the form that is run; empty where it is none."""
    nodes: dict[str, Node] = {}
    if not isinstance(data, dict):
        return nodes
    for node_id, item in data.items():
        kind = item.get("class_type") if isinstance(item, dict) else None
        if not isinstance(kind, str) or not isinstance(item.get("inputs", {}), dict):
            continue
        inputs = {
            name: _read_link(value) if isinstance(value, list) else value
            for name, value in item.get("inputs", {}).items()
        }
        nodes[str(node_id)] = Node(str(node_id), kind, inputs)
        if len(nodes) >= MAX_NODES:
            break
    return nodes


def _read_link(value: list[Any]) -> Any:
    """Return a link for ["4", 0], any other list as it is."""
    if len(value) != 2:
        return value
    node_id, slot = value
    is_link = isinstance(node_id, str | int) and isinstance(slot, int) and slot >= 0
    if not is_link or isinstance(node_id, bool) or isinstance(slot, bool):
        return value
    return Link(str(node_id), slot)


def parse_drawn_graph(data: Any) -> tuple[dict[str, Node], list[str]]:
    """Return the nodes of a graph in the form that is drawn, and the titles of nested graphs.

    Nested graphs (subgraphs, group nodes) are not opened. Muted nodes are left out, bypassed ones
    hand on what comes in.
    """
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        return {}, []
    items = [item for item in data["nodes"][:MAX_NODES] if _is_drawn_node(item)]
    origins = dict(_read_drawn_links(as_list(data.get("links"))))
    kinds = {str(item["id"]): item for item in items}
    nested = _collect_nested(data)
    nodes: dict[str, Node] = {}
    for item in items:
        if item.get("mode") in (_MUTED, _BYPASSED) or item["type"] in _REROUTE_TYPES:
            continue
        inputs = _name_widgets(item)
        for entry in as_list(item.get("inputs")):
            name = entry.get("name") if isinstance(entry, dict) else None
            link = _follow(entry.get("link"), origins, kinds) if isinstance(name, str) else None
            if link:
                inputs[str(name)] = _read_primitive(link, kinds)
        node_id = str(item["id"])
        nodes[node_id] = Node(node_id, str(item["type"]), inputs)
    titles = [
        nested.get(node.kind, node.kind) for node in nodes.values() if _is_nested(node, nested)
    ]
    return nodes, titles


def _is_drawn_node(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), int | str)
        and isinstance(item.get("type"), str)
    )


def _is_nested(node: Node, nested: Mapping[str, str]) -> bool:
    return node.kind in nested or node.kind.startswith(("workflow>", "workflow/"))


def _collect_nested(data: dict[str, Any]) -> dict[str, str]:
    """Return the names of subgraphs by the type that a node has which stands for one."""
    definitions = data.get("definitions")
    items = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    return {
        str(item["id"]): str(item.get("name", "Subgraph"))
        for item in as_list(items)
        if isinstance(item, dict) and "id" in item
    }


def _read_drawn_links(links: list[Any]) -> Iterator[tuple[Any, Link]]:
    """Yield each link's number with where it comes from."""
    for link in links:
        if isinstance(link, list) and len(link) >= 4:
            number, node_id, slot = link[:3]
        elif isinstance(link, dict):
            number, node_id, slot = (link.get(key) for key in ("id", "origin_id", "origin_slot"))
        else:
            continue
        if isinstance(slot, int) and isinstance(node_id, int | str) and isinstance(number, int):
            yield number, Link(str(node_id), slot)


def _follow(number: Any, origins: Mapping[Any, Link], kinds: Mapping[str, Any]) -> Link | None:
    """Return where a link comes from, through reroutes and bypassed nodes."""
    for _ in range(MAX_REROUTES):
        link = origins.get(number) if isinstance(number, int) else None
        item = kinds.get(link.node_id) if link else None
        if link is None or item is None or item.get("mode") == _MUTED:
            return None
        if item["type"] not in _REROUTE_TYPES and item.get("mode") != _BYPASSED:
            return link
        number = _find_passed_link(item, link.slot)
    return None


def _find_passed_link(item: dict[str, Any], slot: int) -> Any:
    """Return the number of the link that a node hands on: its first input of the output's type."""
    entries = [entry for entry in as_list(item.get("inputs")) if isinstance(entry, dict)]
    outputs = as_list(item.get("outputs"))
    output = outputs[slot] if slot < len(outputs) else None
    kind = output.get("type") if isinstance(output, dict) else None
    same = [entry for entry in entries if entry.get("type") == kind]
    candidates = entries if item["type"] in _REROUTE_TYPES else same
    return next((entry.get("link") for entry in candidates if entry.get("link") is not None), None)


def _read_primitive(link: Link, kinds: Mapping[str, Any]) -> Any:
    """Return the value of a primitive, which is drawn only; any other link as it is."""
    item = kinds[link.node_id]
    if item["type"] != "PrimitiveNode":
        return link
    values = as_list(item.get("widgets_values"))
    return values[0] if values else None


def _name_widgets(item: dict[str, Any]) -> dict[str, Any]:
    """Return a drawn node's own values by name.

    Core nodes' names are known by their place; newer files name all widgets among the inputs.
    """
    values = item.get("widgets_values")
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items()}
    values = as_list(values)
    names = WIDGETS.get(item["type"]) or [
        str(entry["widget"].get("name", ""))
        for entry in as_list(item.get("inputs"))
        if isinstance(entry, dict) and isinstance(entry.get("widget"), dict)
    ]
    if item["type"] == "Power Lora Loader (rgthree)":
        return {f"lora_{place}": value for place, value in enumerate(values)}
    if not names and len(values) == 1:
        return {"value": values[0]}
    return dict(_pair_widgets(list(names), values))


def _pair_widgets(names: list[str], values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield names with values; after a seed stands how the next is made, which has no name."""
    place = 0
    for name in names:
        if place >= len(values):
            return
        yield name, values[place]
        place += 1
        is_seed = name in _SEED_WIDGETS
        if is_seed and place < len(values) and values[place] in _SEED_MODES:
            place += 1
