"""Values and texts of a ComfyUI graph, through the nodes that only hand them on.

Knows: primitives, joined texts, pipes; bounds of work. Does not know: prompts' grammar
(comfyui_prompts.py), models, samplers.
"""

from __future__ import annotations

from typing import Any

from studio.core.generation.recipes.comfyui_graph import Graph, Link, Node
from studio.core.generation.recipes.comfyui_nodes import JOINING_NODES, TEXT_KEYS
from studio.core.generation.recipes.json_text import as_size, as_text

MAX_STEPS = 20_000  # of looking, for one recipe: a step is a node
_INPUTS_PER_STEP = 10
_CHARS_PER_STEP = 200
MAX_CHAIN = 1_000  # nodes one behind the other
MAX_NESTING = 40  # joined texts and conditionings within each other
_VALUE_KEYS = ("value", "Value", "int", "float", "number", "INT", "FLOAT", "Number", "a")
_ALIASES = {"seed": ("noise_seed",), "noise_seed": ("seed",), "steps": ("steps_total",)}
_SIZE_KEYS = ("dimensions", "resolution", "size", "preset")
PIPE_KEYS = ("pipe", "basic_pipe", "base_ctx", "ctx", "context", "opt_context", "script")


class WorkLimitReached(Exception):
    """A graph asks for more looking than a recipe is worth."""


class GraphValues:
    """Reads values of one graph, for one recipe."""

    def __init__(self, graph: Graph, max_steps: int = MAX_STEPS) -> None:
        """Take a graph, and how much may be looked at."""
        self.graph = graph
        self._steps_left = max_steps

    def get_node(self, link: Any) -> Node | None:
        """Return the node that a link comes from; None where there is none."""
        if not isinstance(link, Link):
            return None
        node = self.graph.get(link.node_id)
        self.spend(1 + (len(node.inputs) // _INPUTS_PER_STEP if node else 0))
        return node

    def spend(self, steps: int) -> None:
        """Count work. Raises WorkLimitReached."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise WorkLimitReached

    def spend_on_text(self, text: str) -> None:
        """Count work on a text. Raises WorkLimitReached."""
        self.spend(len(text) // _CHARS_PER_STEP)

    def resolve(self, value: Any, key: str) -> Any:
        """Return a value, through links to nodes that hold one; None where none can be read.

        Args:
            value: What stands at an input: a value or a link.
            key: The input's name: a node that has it too means the same by it.
        """
        for _ in range(MAX_CHAIN):
            node = self.get_node(value)
            if node is None:
                return None if isinstance(value, Link) else value
            inputs = node.inputs
            if key in ("width", "height"):
                size = next((as_size(inputs[name]) for name in _SIZE_KEYS if name in inputs), None)
                if size:
                    return size[key == "height"]
            names = (key, *_ALIASES.get(key, ()), *_VALUE_KEYS)
            value = next((inputs[name] for name in names if name in inputs), None)
            if value is None and len(inputs) == 1:
                value = next(iter(inputs.values()))
        return None

    def find_input(self, node: Node, key: str) -> Any:
        """Return a node's input, or that of the pipe it is fed by."""
        current: Node | None = node
        for _ in range(MAX_NESTING):
            if current is None:
                return None
            if current.inputs.get(key) is not None:
                return current.inputs[key]
            pipe = next(
                (current.inputs[name] for name in PIPE_KEYS if name in current.inputs), None
            )
            source = self.get_node(pipe)
            if source and key in ("model", "clip") and "ckpt_name" in source.inputs:
                return pipe
            current = source
        return None

    def read_text(self, value: Any, depth: int = 0) -> str | None:
        """Return a text, through links to nodes that hold or join texts; None where none is."""
        if isinstance(value, str):
            return as_text(value)
        node = self.get_node(value)
        if node is None or depth > MAX_NESTING:
            return None
        if node.kind in JOINING_NODES and node.inputs.get("action", "append") == "append":
            return self._join_texts(node, depth)
        display = node.inputs.get("text_0")
        if isinstance(display, str):  # what a "ShowText" node showed
            return as_text(display)
        for key in (*TEXT_KEYS, *(name for name in node.inputs if "text" in name.casefold())):
            text = self.read_text(node.inputs.get(key), depth + 1)
            if text is not None:
                return text
        links = [item for item in node.inputs.values() if isinstance(item, Link)]
        return self.read_text(links[0], depth + 1) if len(links) == 1 else None

    def _join_texts(self, node: Node, depth: int) -> str | None:
        keys, delimiter_key = JOINING_NODES[node.kind]
        delimiter = self.resolve(node.inputs.get(delimiter_key, ""), delimiter_key)
        parts = []
        for key in keys:
            if node.inputs.get(key) is None:
                continue
            part = self.read_text(node.inputs[key], depth + 1)
            if part is None:  # half a prompt is none
                return None
            parts.append(part)
        mark = as_text(delimiter) or ""
        joined = mark.replace("\\n", "\n").join(part for part in parts if part)
        self.spend_on_text(joined)
        return as_text(joined)
