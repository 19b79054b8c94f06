"""The home's wildcards and styles: `wildcards/` with lists, `styles*.csv` and `styles/*.csv`.

Knows: which files are lists, how large they may be, that none may lead outside of the folder, that
an odd one hides no other. Does not know: what a list's lines and a style mean
(core/generation/templates), who may use them.

Lists are read when they are asked for and kept until their file changes. A link is taken if it
leads to a file inside of its folder.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from studio.core.generation.templates.prompt_files import Style, WildcardLine
from studio.core.generation.templates.styles import (
    MAX_NAME_CHARS,
    format_styles,
    parse_styles,
)
from studio.core.generation.templates.wildcard_lists import collect_lists, parse_text_list
from studio.errors import BadFile, InvalidSpec, StudioError, quote
from studio.storage import atomic
from studio.storage.odd_files import explain_odd_file, make_printable, read_file

MAX_TEXT_BYTES = 8 * 2**20  # the largest of the collections that people share has 2 MB
MAX_YAML_BYTES = 2**20
MAX_YAML_DEPTH = 24
MAX_FILES = 20_000
MAX_FOLDER_DEPTH = 12
LIST_SUFFIXES = (".txt", ".json", ".yaml", ".yml")
_Lists = dict[str, list[WildcardLine]]


# libyaml's is thirty times as fast; both read plain values alone.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class HomePromptFiles:
    """Wildcards and styles of one home; see `PromptFiles`. Any thread may call."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.wildcards_folder = home / "wildcards"
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[tuple[int, int], Any]] = {}  # by path: stat, what it holds

    # ---- wildcards -------------------------------------------------------------------------------

    def list_wildcards(self) -> Sequence[str]:
        """Return the names of all lists, sorted: `colours`, `animals/cats`."""
        return sorted(self._index_lists())

    def read_wildcard(self, name: str) -> Sequence[WildcardLine]:
        """Return the lines of a list that there is. Raises KeyError for another."""
        return self._index_lists()[name]

    def _index_lists(self) -> _Lists:
        with self._lock:
            return self._index_lists_anew()[0]

    def _index_lists_anew(self) -> tuple[_Lists, list[str]]:
        """Return the lists by name, and a sentence for each file that is none."""
        lists: _Lists = {}
        faults: list[str] = []
        for path in self._iter_list_files(faults):
            folder = path.parent.relative_to(self.wildcards_folder).as_posix()
            prefix = "" if folder == "." else f"{folder}/"
            try:
                contents = self._read_once(path, _read_lists)
            except StudioError as error:
                faults.append(str(error))
                continue
            lists |= {make_printable(prefix + name): lines for name, lines in contents.items()}
        return lists, faults

    def _iter_list_files(self, faults: list[str]) -> Iterator[Path]:
        """Yield the files of lists, in order; none that leads outside of the folder.

        Args:
            faults: Takes a sentence for each that is left out.
        """
        root = self.wildcards_folder
        real_root = os.path.realpath(root)
        num_files = 0
        for folder, folder_names, file_names in os.walk(root):
            depth = len(Path(folder).relative_to(root).parts)
            folder_names[:] = sorted(
                name for name in folder_names if name[:1] != "." and depth < MAX_FOLDER_DEPTH
            )
            for name in sorted(file_names):
                path = Path(folder, name)
                if name.startswith(".") or path.suffix.lower() not in LIST_SUFFIXES:
                    continue
                real_path = os.path.realpath(path)
                if path.is_symlink() and not real_path.startswith(real_root + os.sep):
                    faults.append(
                        f"wildcards/{make_printable(name)} is a link that leads outside the "
                        "folder; copy the file there."
                    )
                    continue
                num_files += 1
                if num_files > MAX_FILES:
                    faults.append(f"wildcards has more than {MAX_FILES:,} files.")
                    return
                yield path

    def _read_once(self, path: Path, read: Any) -> Any:
        """Return what a file holds, read anew where it changed. Raises BadFile."""
        with explain_odd_file(path, make_printable(path.relative_to(self.home).as_posix())):
            status = path.stat()
            state = status.st_mtime_ns, status.st_size
            known = self._files.get(path)
            if known is None or known[0] != state:
                try:
                    known = state, read(path, status.st_size)
                except BadFile as error:
                    known = state, error
                self._files[path] = known
        if isinstance(known[1], BadFile):
            raise BadFile(str(known[1]))
        return known[1]

    # ---- styles ----------------------------------------------------------------------------------

    def list_styles(self) -> Sequence[str]:
        """Return the names of all styles, in the order of the files."""
        return list(self._index_styles())

    def get_style(self, name: str) -> Style:
        """Return a style that there is. Raises KeyError for another."""
        return self._index_styles()[name]

    @property
    def own_styles_file(self) -> Path:
        """Where styles are saved."""
        return self.home / "styles.csv"

    def save_style(self, style: Style) -> None:
        """Add a style to styles.csv of the home, or write one of that name anew.

        Raises:
            InvalidSpec: It cannot be named so, or has no words.
            BadFile: The file cannot be read, and is left alone.
        """
        name = " ".join(style.name.split())
        if not name or len(name) > MAX_NAME_CHARS or name.startswith("#"):
            raise InvalidSpec(
                [
                    f"Style: the name must have 1 to {MAX_NAME_CHARS} characters and not begin "
                    f"with # (you entered {quote(name)})."
                ]
            )
        if not style.prompt.strip() and not style.negative_prompt.strip():
            raise InvalidSpec(["Style: has no words; write a prompt first."])
        path = self.own_styles_file
        styles: dict[str, Style] = {}
        if path.exists():
            known, faults = self._read_once(path, _read_styles)
            if faults:
                raise BadFile(f"{faults[0]} Fix the file, then save the style.")
            styles = {known_style.name: known_style for known_style in known}
        styles[name] = Style(name, style.prompt, style.negative_prompt)
        atomic.write(path, format_styles(styles.values()).encode())

    def _index_styles(self) -> dict[str, Style]:
        with self._lock:
            styles: dict[str, Style] = {}
            for path in self._list_style_files():
                try:
                    known, _ = self._read_once(path, _read_styles)
                except StudioError:
                    continue
                for style in known:
                    styles.setdefault(style.name, style)
            return styles

    def list_faults(self) -> list[str]:
        """Return a sentence for each thing in all these files that cannot be used."""
        with self._lock:
            return [*self._list_style_faults(), *self._index_lists_anew()[1]]

    def _list_style_faults(self) -> list[str]:
        faults = []
        for path in self._list_style_files():
            try:
                faults += self._read_once(path, _read_styles)[1]
            except StudioError as error:
                faults.append(str(error))
        return faults

    def _list_style_files(self) -> list[Path]:
        paths = [*sorted(self.home.glob("styles*.csv")), *sorted(self.home.glob("styles/*.csv"))]
        real_home = os.path.realpath(self.home) + os.sep
        return [path for path in paths if os.path.realpath(path).startswith(real_home)]


def _read_text(path: Path, num_bytes: int, max_bytes: int) -> str:
    if num_bytes > max_bytes:
        raise BadFile(
            f"{make_printable(path.name)} is larger than {max_bytes // 2**20} MiB: too large for a "
            "list; split it."
        )
    content = read_file(path, max_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # what old editors on Windows write


def _read_lists(path: Path, num_bytes: int) -> _Lists:
    """Return the lists of a file by name. Raises BadFile."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return {path.stem: parse_text_list(_read_text(path, num_bytes, MAX_TEXT_BYTES))}
    is_yaml = suffix != ".json"
    text = _read_text(path, num_bytes, MAX_YAML_BYTES if is_yaml else MAX_TEXT_BYTES)
    try:
        data = _load_yaml(text) if is_yaml else json.loads(text)
        return collect_lists(data, path.stem)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadFile(f"{make_printable(path.name)} cannot be read as a list: {reason}.") from None


def _load_yaml(text: str) -> Any:
    """Return plain values. Raises YAMLError, also for aliases: those can stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, _YAML_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or depth > MAX_YAML_DEPTH:
            raise yaml.YAMLError("aliases and very deep maps are not read")
    return yaml.load(text, _YAML_LOADER)


def _read_styles(path: Path, num_bytes: int) -> tuple[list[Style], list[str]]:
    text = _read_text(path, num_bytes, MAX_TEXT_BYTES)
    return parse_styles(text, make_printable(path.name))
