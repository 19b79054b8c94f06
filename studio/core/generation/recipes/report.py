"""A recipe as command line and API print it.

Knows: the keys. Does not know: how it was read, which files the library has.
"""

from __future__ import annotations

from typing import Any

from studio.core.generation.recipes.file_names import hide_paths
from studio.core.generation.recipes.recipe import FileReference, Recipe


def report_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return what the command line and the endpoint `inspect` say of an image."""
    return {
        "kind": "picture",
        "source": recipe.program,
        "request": dict(recipe.values),
        "text": hide_paths(recipe.text),
        "notes": list(recipe.notes),
        "files": [_report_file(file) for file in recipe.files],
        "choices": [
            {"title": title, "request": dict(choice.values), "notes": list(choice.notes)}
            for title, choice in recipe.choices
        ],
    }


def _report_file(file: FileReference) -> dict[str, Any]:
    report: dict[str, Any] = {"kind": file.kind, "name": file.name}
    if file.digest:
        report["hash"] = file.digest
    if file.version:
        report["civitai_version"] = file.version
    return report
