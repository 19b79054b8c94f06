"""The words of a prompt that stand for files: embeddings listed, they and LoRA tags completed.

Knows: which of them go with a model, what is said of each. Does not know: how typing is watched
(static/prompt_words.js), what an embedding is (storage/models/embeddings.py), where on the page
this stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from studio.core.generation.lora_use import LoraUse
from studio.storage.models.embedding_index import EmbeddingInfo
from studio.storage.models.library import Library, LoraInfo, ModelInfo
from studio.ui.views.templates import render_macro

MAX_LISTED = 40  # embeddings with a button of their own; of more the first


def list_words(
    library: Library, model: ModelInfo | None, loras: Sequence[LoraInfo], max_words: int
) -> list[dict[str, Any]]:
    """List what a prompt for a model can be completed with.

    Args:
        library: Where the embeddings are.
        model: The model; without one there are no embeddings, for they go with its family.
        loras: Those that go with it.
        max_words: Of each kind; a page carries few until somebody types.

    Returns:
        Of each its "kind" (embedding or lora), "name", the "text" to put into the prompt, and what
        it is "about".
    """
    words = []
    if model:
        index = library.index_embeddings(model)
        words = [
            {"kind": "embedding", "name": name, "text": _escape(name), "about": _describe(info)}
            for name, info in index.list_fitting()[:max_words]
        ]
    return words + [
        {"kind": "lora", "name": lora.name, "text": _format_tag(lora), "about": "LoRA"}
        for lora in loras[:max_words]
    ]


def render_words(words: Sequence[dict[str, Any]]) -> str:
    """Render the list of embeddings, and for the page's script all that there is to complete."""
    embeddings = [word for word in words if word["kind"] == "embedding"]
    return render_macro(
        "components.html",
        "prompt_words",
        words=list(words),
        embeddings=embeddings[:MAX_LISTED],
        num_embeddings=len(embeddings),
    )


def _format_tag(lora: LoraInfo) -> str:
    weight = lora.usual_weight
    return LoraUse(name=lora.name, unet=weight, text_encoder=weight).tag


def _escape(name: str) -> str:
    """Return a name as a prompt takes it: a bracket in it is no emphasis."""
    return re.sub(r"([()\[\]])", r"\\\1", name)


def _describe(info: EmbeddingInfo) -> str:
    if not info.num_vectors:
        return "embedding"
    plural = "" if info.num_vectors == 1 else "s"
    return f"embedding, {info.num_vectors} vector{plural}"
