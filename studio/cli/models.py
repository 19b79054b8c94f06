"""`studio models`: what the library has, and folders of other programs whose files are used.

Knows: what is printed of an entry. Does not know: what is in a file; which folders may be added.
"""

from __future__ import annotations

import argparse
import os

from studio.cli.runner import COMMAND_LINE, load_settings, log, print_json
from studio.core.families.registry import FAMILIES
from studio.errors import InvalidSpec, list_alternatives, quote
from studio.services.model_catalog import (
    KIND_NAMES,
    CatalogEntry,
    CatalogFilter,
    ModelCatalog,
    report_entry,
)
from studio.storage.home import Home
from studio.storage.odd_files import make_printable
from studio.ui.views.common import format_bytes


def run(arguments: argparse.Namespace) -> None:
    """List the library, or add or remove a folder."""
    catalog = ModelCatalog(Home(load_settings(arguments)))
    match arguments.action:
        case "add-folder":
            path = arguments.path
            if os.path.exists(path):  # in a shell, a path may begin where one stands
                path = os.path.abspath(path)
            print(catalog.add_path(path, COMMAND_LINE, arguments.name), flush=True)
        case "remove-folder":
            folder = catalog.remove_folder(arguments.name, COMMAND_LINE)
            print(f"{folder.path} is no longer used; nothing was deleted.", flush=True)
        case _:
            _list_entries(catalog, arguments)


def _list_entries(catalog: ModelCatalog, arguments: argparse.Namespace) -> None:
    """Print a line for each entry, or one JSON object with all of them."""
    for flag, value, names in (
        ("--kind", arguments.kind, KIND_NAMES),
        ("--family", arguments.family, FAMILIES),
    ):
        if value and value not in names:
            raise InvalidSpec(
                [
                    (
                        f"{flag}: must be one of {list_alternatives(list(names), [])} "
                        f"(you entered {quote(value)})."
                    )
                ]
            )
    chosen = CatalogFilter(kind=arguments.kind, family=arguments.family)
    entries = chosen.select(catalog.list_entries(COMMAND_LINE))
    folders = catalog.list_folders()
    if problem := catalog.home.library.folders.problem:
        log(problem)
    if arguments.json:
        print_json(
            {
                "models": [report_entry(entry, COMMAND_LINE) for entry in entries],
                "folders": [
                    {
                        "name": folder.name,
                        "path": make_printable(str(folder.path)),
                        "layout": folder.layout,
                        "problem": folder.problem,
                    }
                    for folder in folders
                ],
            }
        )
        return
    for entry in entries:
        print(_format_entry(entry))
    for folder in folders:
        status = folder.problem or folder.layout
        print(f"{'folder':<13}{folder.name}  {make_printable(str(folder.path))}  ({status})")


def _format_entry(entry: CatalogEntry) -> str:
    if entry.problem:
        return f"{'not usable':<13}{entry.name}  {entry.problem}"
    facts = (entry.family_title, *entry.facts, format_bytes(entry.size_bytes), entry.place)
    return f"{entry.kind:<13}{entry.name}  {' · '.join(filter(None, facts))}"
