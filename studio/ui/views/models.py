"""The library as HTML: cards, folders beside the home, what cannot be used, what workers run on.

Knows: how the library looks (templates/models.html). Does not know: gradio; where its entries come
from (services/model_catalog.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.services.model_catalog import CatalogEntry
from studio.storage.models.referenced_folders import ReferencedFolder
from studio.storage.odd_files import make_printable
from studio.ui.views.common import format_bytes
from studio.ui.views.templates import render_macro

MAX_CHIPS = 12  # trigger words and tags that a card shows
# A training notes where its base model lay; that says whose machine it was.
_ABSOLUTE_FOLDER = re.compile(r"^(?:[A-Za-z]:)?[\\/].*[\\/]")
# What one of each kind is called on its card.
KIND_LABELS = {
    "model": "Model",
    "lora": "LoRA",
    "vae": "VAE",
    "embedding": "Embedding",
    "upscaler": "Upscaler",
    "text encoder": "Text encoder",
}


@dataclass(frozen=True)
class LibraryPage:
    """What the tab shows at a time.

    Attributes:
        cards: Entries that can be used.
        unusable: Some of those that cannot.
        num_found: How many fit the search on all pages, but for those that cannot be used.
        num_unusable: How many cannot be used in all.
        page: Counts from 0.
        num_pages: How many there are.
        num_waiting: Files that nobody has read yet.
        is_filtered: Whether something is searched for.
        folders: Folders beside the home; none for guests.
        workers: What each worker reports, by its name.
        previews: Addresses of preview images, by path of the entry.
        loaded_bytes: Of the models in memory, by name.
        usable_kinds: Kinds whose card has a button that uses it.
        problem: What is wrong with the list of folders.
    """

    cards: Sequence[CatalogEntry]
    unusable: Sequence[CatalogEntry] = ()
    num_found: int = 0
    num_unusable: int = 0
    page: int = 0
    num_pages: int = 1
    num_waiting: int = 0
    is_filtered: bool = False
    folders: Sequence[ReferencedFolder] = ()
    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    previews: Mapping[Path, str] = field(default_factory=dict)
    loaded_bytes: Mapping[str, int] = field(default_factory=dict)
    usable_kinds: Sequence[str] = ()
    problem: str = ""


def render_library(page: LibraryPage, is_owner: bool) -> str:
    """Render a page of the library; only the owner gets buttons that change it, and paths."""
    worker_lines = [
        (
            str(status.get("state")),
            str(status.get("device", name)),
            str(status.get("dtype", "")),
            _format_free_memory(status),
        )
        for name, status in page.workers.items()
    ]
    cards = [_build_card(entry, page, is_owner) for entry in page.cards]
    unusable = [_build_card(entry, page, is_owner) for entry in page.unusable]
    folders = [
        {
            "name": folder.name,
            "path": make_printable(str(folder.path)),
            "layout": folder.layout,
            "problem": folder.problem,
            "is_setting": folder.is_setting,
        }
        for folder in page.folders
    ]
    return render_macro(
        "models.html",
        "library",
        page=page,
        cards=cards,
        unusable=unusable,
        folders=folders,
        workers=worker_lines,
        is_owner=is_owner,
        max_chips=MAX_CHIPS,
    )


def _build_card(entry: CatalogEntry, page: LibraryPage, is_owner: bool) -> dict[str, Any]:
    """Return what a card shows of an entry."""
    size = format_bytes(entry.size_bytes) if entry.size_bytes else ""
    loaded = page.loaded_bytes.get(entry.name) if entry.kind == "model" else None
    about = [part for part in (entry.family_title, *entry.facts, size) if part]
    return {
        "key": entry.key,
        "kind": entry.kind,
        "label": KIND_LABELS.get(entry.kind, entry.kind),
        "name": entry.name,
        "about": " · ".join(about),
        "title": entry.title,
        "base": _ABSOLUTE_FOLDER.sub("", entry.base),
        "words": entry.trigger_words,
        "tags": entry.tags,
        "notes": entry.notes,
        "warnings": entry.warnings,
        "place": entry.place,
        "path": make_printable(str(entry.path)) if is_owner else "",
        "preview": page.previews.get(entry.path, ""),
        "is_favourite": entry.is_favourite,
        "loaded_bytes": loaded,
        "usual_weight": entry.usual_weight,
        "may_use": entry.kind in page.usable_kinds and not entry.problem,
        "problem": entry.problem,
        "file": entry.file,
        "move_to": entry.move_to,
    }


def render_model_notes(notes: Sequence[str]) -> str:
    """Render what is to be known of a model, a line each; nothing where there is nothing."""
    return render_macro("models.html", "notes", notes=notes) if notes else ""


def _format_free_memory(worker_status: Mapping[str, Any]) -> str:
    memory = worker_status.get("memory") or {}
    if not {"free", "total"} <= set(memory):
        return ""
    return f" · {format_bytes(memory['free'])} of {format_bytes(memory['total'])} free"
