"""The library of models and LoRAs as HTML cards, and what each worker runs on.

Knows: how the library looks (templates/models.html). Does not know: gradio, where models come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.ui.views.common import format_bytes
from studio.ui.views.templates import render_macro

MAX_CHIPS = 12  # trigger words and tags that a card shows


def render_models(
    cards: Sequence[Mapping[str, Any]], workers: Mapping[str, Mapping[str, Any]], is_owner: bool
) -> str:
    """Render the models as cards under a line for each worker.

    Args:
        cards: For each model `name` and either `problem`, `file` and `move_to` (a folder; empty if
            it cannot be moved), or `family`, `side` (px), `dtype`, `prediction`, `bytes`,
            `loaded` (bytes in memory, if any) and `notes` (sentences).
        workers: What each worker reports, by its name.
        is_owner: Whether the visitor may take models out of memory and move files.
    """
    worker_lines = [
        (
            str(status.get("state")),
            str(status.get("device", name)),
            str(status.get("dtype", "")),
            _format_free_memory(status),
        )
        for name, status in workers.items()
    ]
    return render_macro(
        "models.html", "models", cards=cards, workers=worker_lines, is_owner=is_owner
    )


def render_loras(cards: Sequence[Mapping[str, Any]], is_owner: bool) -> str:
    """Render the LoRAs as cards; nothing if there are none.

    Args:
        cards: For each LoRA `name` and either `problem`, `file` and `move_to` as `render_models`
            takes them, or `about`, `title`, `base`, `words` (trigger words) and `tags` as
            (tag, count).
        is_owner: Whether the visitor may move files.
    """
    if not cards:
        return ""
    return render_macro("models.html", "loras", cards=cards, max_chips=MAX_CHIPS, is_owner=is_owner)


def render_model_notes(notes: Sequence[str]) -> str:
    """Render what is to be known of a model, a line each; nothing where there is nothing."""
    return render_macro("models.html", "notes", notes=notes) if notes else ""


def _format_free_memory(worker_status: Mapping[str, Any]) -> str:
    memory = worker_status.get("memory") or {}
    if not {"free", "total"} <= set(memory):
        return ""
    return f" · {format_bytes(memory['free'])} of {format_bytes(memory['total'])} free"
