"""What a ComfyUI graph does to the picture behind its last sampler.

Knows: which nodes stand between a sampler and what is saved, what the common ones do. Does not
know: samplers, what they were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.core.generation.recipes.comfyui_graph import Graph, Link, Node
from studio.core.generation.recipes.comfyui_nodes import (
    NEUTRAL_RESULT_WORDS,
    OUTPUT_WORDS,
    RESULT_WORDS,
)
from studio.core.generation.recipes.draft import RecipeDraft, get_file_name
from studio.core.generation.recipes.json_text import as_text

MAX_NAMED = 8


class ResultReader:
    """Reads the ways from samplers to what is saved; the graph is turned round once."""

    def __init__(self, graph: Graph) -> None:
        """Take a graph."""
        self._graph = graph
        self._users: dict[str, list[str]] = {}
        for node in graph.values():
            for value in node.inputs.values():
                if isinstance(value, Link):
                    self._users.setdefault(value.node_id, []).append(node.node_id)
        self._before_outputs = self._find_before_outputs()

    def note_result(self, sampler: Node, draft: RecipeDraft) -> None:
        """Note what was done to the picture of a graph's last sampler."""
        phrases = dict.fromkeys(self._describe(node) for node in self._list_later(sampler))
        words = [phrase for phrase in phrases if phrase]
        if words:
            others = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
            draft.note(
                "The image was edited afterwards, which is not loaded: "
                f"{', '.join(words[:MAX_NAMED])}{others}."
            )

    def _find_before_outputs(self) -> set[str]:
        """Return the nodes that come into what is saved; all where nothing is."""
        waiting = [
            node.node_id
            for node in self._graph.values()
            if any(word in node.kind for word in OUTPUT_WORDS)
        ]
        if not waiting:
            return set(self._graph)
        reached = set(waiting)
        while waiting:
            node = self._graph[waiting.pop()]
            for value in node.inputs.values():
                if not isinstance(value, Link) or value.node_id in reached:
                    continue
                if value.node_id in self._graph:
                    reached.add(value.node_id)
                    waiting.append(value.node_id)
        return reached

    def _list_later(self, sampler: Node) -> Iterable[Node]:
        """Yield the nodes behind a sampler on the way to what is saved, the nearest first."""
        seen = {sampler.node_id}
        layer = [sampler.node_id]
        while layer:
            following: list[str] = []
            for node_id in layer:
                for user in self._users.get(node_id, ()):
                    if user not in seen and user in self._before_outputs:
                        seen.add(user)
                        following.append(user)
                        yield self._graph[user]
            layer = following

    def _describe(self, node: Node) -> str:
        """Return what a node does, with its kind; empty where it does nothing to a picture."""
        words = RESULT_WORDS.get(node.kind, "")
        if not words and any(word in node.kind for word in NEUTRAL_RESULT_WORDS):
            return ""
        link = node.inputs.get("upscale_model")
        loader = self._graph.get(link.node_id) if isinstance(link, Link) else None
        path = as_text(loader.inputs.get("model_name")) if loader else None
        file = f" {get_file_name(path)!r:.60}" if path else ""
        return f"{words}{file} ({node.kind:.60})" if words else f"{node.kind:.60}{file}"
