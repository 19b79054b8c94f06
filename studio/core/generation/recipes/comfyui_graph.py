"""ComfyUI's graph in the form that is run: nodes with values, and links to other nodes' outputs.

Knows: the form that is run. Does not know: the form that is drawn (comfyui_drawn.py), what any node
does (comfyui_nodes.py).

    prompt      {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}

Source: what comfyanonymous/ComfyUI's execution takes. Facts, no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 200_000


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
