"""gradio's style sheets of all components that a page has, as one.

Knows: how gradio's scripts name the sheets that they load. Does not know: what a sheet says; how it
is served (ui/private_gradio.py) and gets into the page (ui/page_html.py).

gradio's page asks for a sheet for each kind of component, forty for the studio's, and looks at all
of its elements again after each that comes. What a page has is known before, so it begins with one
sheet that has them all. A sheet that is on the page already is not asked for again, and one that
is marked as disabled is not fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.ui.gradio_script import ASSETS_FOLDER, SCRIPT_PATTERN

FIRST_PATTERN = "index-*.js"  # what the page begins with, which loads all else
_LIST_OF_FILES = re.compile(r"m\.f=\[(.*?)\]\)")
_IMPORT = re.compile(r"import\(`\./([^`]+)`\)[^,]*,__vite__mapDeps\(\[([\d,]*)\]\)")
# What is loaded to show a component: not `example`, of a table that the studio has none of.
_PART = re.compile(r"(?:component|base):\(\)=>\w+\(\(\)=>import\(`\./([^`]+)`\)")


@dataclass(frozen=True)
class StyleBundle:
    """The sheets of a page: their names, and the text of all of them in that order."""

    names: tuple[str, ...]
    text: str

    @property
    def file_name(self) -> str:
        """Another for another text."""
        return f"studio-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}.css"


def bundle_styles(kinds: Collection[str], folder: Path = ASSETS_FOLDER) -> StyleBundle | None:
    """Return the sheets of a page that has components of these kinds; None if there is none.

    A sheet that is not found is loaded by gradio itself, as without this.

    Args:
        kinds: As gradio's `get_block_name` says them.
        folder: Of gradio's files.
    """
    named = dict.fromkeys(_list_names(kinds, folder))
    names = [name for name in named if (folder / name).is_file()]
    names.sort(key=lambda name: not name.startswith("index-"))  # the page's own come first
    texts = [(folder / name).read_text("utf-8") for name in names]
    return StyleBundle(tuple(names), "\n".join(texts)) if names else None


def _list_names(kinds: Collection[str], folder: Path) -> Iterator[str]:
    """Yield the names of the sheets, each perhaps more than once, in the order of loading."""
    for first in sorted(folder.glob(FIRST_PATTERN)):
        files = _read_files_by_import(first.read_text("utf-8"))
        yield from _keep_sheets(file for listed in files.values() for file in listed)
        for script in files:  # what shows the page loads its own
            path = folder / script
            if not script.startswith(SCRIPT_PATTERN.partition("*")[0]) and path.is_file():
                listed = _read_files_by_import(path.read_text("utf-8"))
                yield from _keep_sheets(file for files in listed.values() for file in files)
    for core in sorted(folder.glob(SCRIPT_PATTERN)):
        text = core.read_text("utf-8")
        files = _read_files_by_import(text)
        for kind in sorted(kinds):
            for script in _PART.findall(_find_entry(text, kind)):
                yield from _keep_sheets(files.get(script, ()))


def _read_files_by_import(text: str) -> dict[str, list[str]]:
    """Return the files that a script loads along with each that it imports."""
    found = _LIST_OF_FILES.search(text)
    if not found:
        return {}
    files = [name.strip('"').removeprefix("./") for name in found[1].split(",")]
    return {
        imported: [files[int(index)] for index in indices.split(",") if index]
        for imported, indices in _IMPORT.findall(text)
    }


def _keep_sheets(files: Iterable[str]) -> Iterator[str]:
    return (name for name in files if name.endswith(".css"))


def _find_entry(text: str, kind: str) -> str:
    """Return what the table of components says of a kind, without its last brace."""
    found = re.search(rf'[{{,]"?{re.escape(kind)}"?:\{{(?=(?:component|base|example):)', text)
    if not found:
        return ""
    depth = 1
    for end in range(found.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[found.end() : end]
    return ""
