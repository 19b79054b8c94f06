"""ComfyUI's graph in the form that is drawn, as the one that it is run as.

Knows: reroutes, primitives, pairs of nodes that set and get by a name, muted and bypassed nodes,
widgets by their place. Does not know: what any node does (comfyui_nodes.py).

    workflow    {"nodes": [{"id": 3, "type": "KSampler", "inputs": [{"name": "model", "link": 1}],
                 "widgets_values": [7, "fixed", 20, …]}], "links": [[1, 4, 0, 3, 0, "MODEL"]]}

Sources: the schema of ComfyUI's frontend (comfyWorkflowSchema.ts) and how it makes the form that is
run; kijai/ComfyUI-KJNodes (SetNode, GetNode), yolain/ComfyUI-Easy-Use (the same under its own
names). Facts, no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from studio.core.generation.recipes.comfyui_graph import MAX_NODES, Link, Node
from studio.core.generation.recipes.comfyui_nodes import WIDGETS
from studio.core.generation.recipes.json_text import as_list

_MUTED, _BYPASSED = 2, 4  # a drawn node's mode
_SEED_WIDGETS = ("seed", "noise_seed")
# Efficiency's samplers have nothing where others say how the next seed is made.
_SEED_MODES = ("fixed", "increment", "decrement", "randomize", None)
# Drawn only: the graph that is run is without them.
_REROUTE_TYPES = ("Reroute", "Reroute (rgthree)", "ReroutePrimitive|pysssss")
_SET_TYPES = ("SetNode", "easy setNode")
_GET_TYPES = ("GetNode", "easy getNode")
_DRAWN_ONLY_TYPES = (*_REROUTE_TYPES, *_SET_TYPES, *_GET_TYPES)
_BROADCAST_WORD = "Everywhere"  # of chrisgoringe/cg-use-everywhere: links that are not drawn
_MAX_TITLES = 5


def parse_drawn_graph(data: Any) -> tuple[dict[str, Node], list[str]]:
    """Return the nodes of a graph in the form that is drawn, and what to say of it.

    Nested graphs (subgraphs, group nodes) are not opened. Muted nodes are left out, bypassed ones
    hand on what comes in.
    """
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        return {}, []
    items = [item for item in data["nodes"][:MAX_NODES] if _is_drawn_node(item)]
    wires = _Wires(items, as_list(data.get("links")))
    nodes: dict[str, Node] = {}
    for item in items:
        if item.get("mode") in (_MUTED, _BYPASSED) or item["type"] in _DRAWN_ONLY_TYPES:
            continue
        inputs = _name_widgets(item)
        for entry in as_list(item.get("inputs")):
            name = entry.get("name") if isinstance(entry, dict) else None
            link = wires.find_source(entry.get("link")) if isinstance(name, str) else None
            if link:
                inputs[str(name)] = wires.read_primitive(link)
        node_id = str(item["id"])
        nodes[node_id] = Node(node_id, str(item["type"]), inputs)
    return nodes, _list_notes(data, nodes)


def _list_notes(data: dict[str, Any], nodes: Mapping[str, Node]) -> list[str]:
    """Return a sentence for each kind of node whose links are not drawn with the others."""
    nested = _collect_nested(data)
    titles = {
        nested.get(node.kind, node.kind) for node in nodes.values() if _is_nested(node, nested)
    }
    broadcasts = {node.kind for node in nodes.values() if _BROADCAST_WORD in node.kind}
    notes = []
    for sentence, names in (
        ("Nodes that contain a workflow of their own are not opened", titles),
        ("Links that are not drawn are not followed, those of", broadcasts),
    ):
        if names:
            words = ", ".join(f"{name:.60}" for name in sorted(names)[:_MAX_TITLES])
            notes.append(f"{sentence}: {words}.")
    return notes


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


class _Wires:
    """Where links come from, through nodes that only hand on; each link is followed once."""

    def __init__(self, items: list[dict[str, Any]], links: list[Any]) -> None:
        self._origins = dict(_read_drawn_links(links))
        self._items = {str(item["id"]): item for item in items}
        self._sources: dict[int, Link | None] = {}
        self._links_by_type: dict[str, dict[Any, Any]] = {}
        self._set_links: dict[str, Any] = {}
        for item in items:
            if item["type"] in _SET_TYPES and item.get("mode") != _MUTED:
                self._set_links.setdefault(_read_name(item), self._get_first_link(item))

    def find_source(self, number: Any) -> Link | None:
        """Return where a link comes from; None where nothing does."""
        path: list[int] = []
        source = None
        while isinstance(number, int):
            if number in self._sources:
                source = self._sources[number]
                break
            self._sources[number] = None  # a circle ends here
            path.append(number)
            link = self._origins.get(number)
            item = self._items.get(link.node_id) if link else None
            if link is None or item is None or item.get("mode") == _MUTED:
                break
            if item["type"] not in _DRAWN_ONLY_TYPES and item.get("mode") != _BYPASSED:
                source = link
                break
            number = self._find_passed_link(item, link.slot)
        for passed in path:
            self._sources[passed] = source
        return source

    def read_primitive(self, link: Link) -> Any:
        """Return the value of a primitive, which is drawn only; any other link as it is."""
        item = self._items[link.node_id]
        if item["type"] != "PrimitiveNode":
            return link
        values = as_list(item.get("widgets_values"))
        return values[0] if values else None

    def _find_passed_link(self, item: dict[str, Any], slot: int) -> Any:
        """Return the number of the link that a node hands on."""
        if item["type"] in _GET_TYPES:
            return self._set_links.get(_read_name(item))
        if item["type"] in _DRAWN_ONLY_TYPES:
            return self._get_first_link(item)
        return self._find_bypassing_link(item, slot)

    def _get_first_link(self, item: dict[str, Any]) -> Any:
        links = self._group_links(item)
        return next(iter(links.values()), None)

    def _find_bypassing_link(self, item: dict[str, Any], slot: int) -> Any:
        """Return what a bypassed node hands on: its input of the output's type.

        The one in the same place where that fits (two conditionings), else the first.
        """
        inputs, outputs = as_list(item.get("inputs")), as_list(item.get("outputs"))
        output = outputs[slot] if 0 <= slot < len(outputs) else None
        kind = output.get("type") if isinstance(output, dict) else None
        beside = inputs[slot] if 0 <= slot < len(inputs) else None
        if isinstance(beside, dict) and beside.get("type") == kind:
            return beside.get("link")
        return self._group_links(item).get(kind) if isinstance(kind, str) else None

    def _group_links(self, item: dict[str, Any]) -> dict[Any, Any]:
        """Return a node's first link of each type, in the order of its inputs."""
        node_id = str(item["id"])
        if node_id not in self._links_by_type:
            links: dict[Any, Any] = {}
            for entry in as_list(item.get("inputs")):
                if isinstance(entry, dict) and entry.get("link") is not None:
                    links.setdefault(str(entry.get("type")), entry["link"])
            self._links_by_type[node_id] = links
        return self._links_by_type[node_id]


def _read_name(item: dict[str, Any]) -> str:
    """Return the name by which a node sets or gets."""
    values = as_list(item.get("widgets_values"))
    return str(values[0])[:200] if values else ""


def _read_drawn_links(links: list[Any]) -> Iterator[tuple[int, Link]]:
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
        value = values[place] if place < len(values) else ""
        if name in _SEED_WIDGETS and (value is None or value in _SEED_MODES):
            place += 1
