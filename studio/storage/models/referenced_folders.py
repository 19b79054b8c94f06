"""Folders of models that other programs have, used where they lie: never copied, never written.

Knows: home/folders.json, which of them were added there and which studio.toml names, what may not
be added. Does not know: whose folder it is (folder_layouts.py); what is in a file.

A folder that is not there, as on a disk that is not connected, has no files; it stays in the list.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import BadFile, Busy, list_alternatives, quote
from studio.settings import Settings
from studio.storage import atomic, odd_files
from studio.storage.locks import Lock
from studio.storage.models.folder_layouts import PLAIN_TITLE, detect_layout
from studio.storage.models.folder_scan import scan_folder
from studio.storage.models.roots import Root

MAX_FOLDERS = 50
MAX_FILE_BYTES = 2**20
LOCK_SECONDS = 5.0
_NAME = re.compile(r"\w[\w.+-]{0,39}")
_SETTING = re.compile(rf"({_NAME.pattern})=(.+)", re.DOTALL)
_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
# Names of things would read as if they lay in the home.
RESERVED_NAMES = ("models", "loras", "vae", "text_encoders", "embeddings", "upscalers")
_NAME_ADVICE = "write 1 to 40 letters, digits, dots, plus or minus signs, such as a1111"


@dataclass(frozen=True)
class ReferencedFolder:
    """A folder elsewhere whose files are used.

    Attributes:
        name: What the names of its files begin with.
        path: Where it is.
        layout: Whose it is, as far as it looks.
        is_there: Whether it can be read now.
        is_setting: Whether studio.toml names it, and not the list that this module keeps.
        problem: What is wrong with it; empty if nothing is.
        is_refused: Whether it may not be used at all, and so is in nobody's way.
    """

    name: str
    path: Path
    layout: str
    is_there: bool = True
    is_setting: bool = False
    problem: str = ""
    is_refused: bool = False


class ReferencedFolders:
    """The folders of one home. Every call looks at the disk; any thread may call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.home / "folders.json"
        self._lock = threading.Lock()

    def list_folders(self) -> list[ReferencedFolder]:
        """List the folders: those that studio.toml names first."""
        return [folder for folder, _ in self._describe_all()]

    def list_roots(self) -> list[Root]:
        """List the folders whose files are used, each with what their names begin with."""
        roots: list[Root] = []
        for folder, own_roots in self._describe_all():
            if not folder.is_there or folder.is_refused:
                continue
            for root in own_roots:
                if self._find_own_obstacle(root.path):  # a list of ComfyUI's may name any
                    continue
                title = "/".join(filter(None, (folder.name, root.title)))
                roots.append(replace(root, title=title))
        return roots

    def _describe_all(self) -> list[tuple[ReferencedFolder, list[Root]]]:
        """Return the folders in the order of the list, each with those of it that hold files."""
        described: list[tuple[ReferencedFolder, list[Root]]] = []
        for text in self._settings.folders:
            match = _SETTING.fullmatch(text)
            name, path_text = (match[1], match[2]) if match else ("", text)
            path = Path(os.path.abspath(os.path.expanduser(path_text)))
            folders = [folder for folder, _ in described]
            folder, roots = self._describe(name, path, [folder.name for folder in folders])
            folder = replace(folder, is_setting=True)
            if obstacle := self._find_obstacle(path, folders):
                folder = replace(folder, problem=obstacle, is_refused=True)
            described.append((folder, roots))
        described += [self._describe(name, path, []) for name, path in self._read().items()]
        return described

    def _describe(
        self, name: str, path: Path, taken_names: list[str]
    ) -> tuple[ReferencedFolder, list[Root]]:
        """Return what a folder is, and the folders of it whose files are used.

        Without a name it gets that of the program whose it is.
        """
        if not os.path.exists(path):
            problem = "It does not exist; connect its disk, or remove it from the list."
            name = name or _to_name(path.name)
            return ReferencedFolder(name, path, "", False, problem=problem), []
        layout, roots = detect_layout(path)
        if not name:
            name = base = _to_name(layout.name)
            taken = {*map(str.casefold, taken_names), *RESERVED_NAMES}
            number = 2
            while name.casefold() in taken:
                name = f"{base}-{number}"
                number += 1
        # The folder's own obstacle is said where it is added.
        obstacles = [self._find_own_obstacle(root.path) for root in roots if root.path != path]
        problem = " ".join(filter(None, (layout.problem, *map(_write_left_out, obstacles))))
        return ReferencedFolder(name, path, layout.title, problem=problem), roots

    def add(self, path_text: str, name: str = "") -> ReferencedFolder:
        """Use a folder's files where they lie.

        Args:
            path_text: The folder, or ComfyUI's `extra_model_paths.yaml`; `~` is the user's folder.
            name: What names of its files are to begin with; by default that of the program whose
                folder it is.

        Raises:
            BadFile: It is not there, has no models, holds what may not be added, or the name is
                taken or no name.
        """
        text = check_path_text(path_text)
        path = Path(os.path.abspath(os.path.expanduser(text)))
        is_list = path.suffix.lower() in (".yaml", ".yml") and path.is_file()
        if not is_list and not os.path.isdir(path):
            raise BadFile(
                f"There is no folder {quote(odd_files.make_printable(str(path)), 200)}; write the "
                "full path of one on this machine."
            )
        if not os.access(path, os.R_OK):
            raise BadFile(f"The folder {path.name} cannot be read; give this user permission.")
        with self._changing() as entries:
            folders = self.list_folders()
            obstacle = self._find_obstacle(path, folders)
            if obstacle:
                raise BadFile(obstacle)
            if len(folders) >= MAX_FOLDERS:
                raise BadFile(f"There are already {MAX_FOLDERS} folders; remove one first.")
            names = [folder.name for folder in folders]
            folder, roots = self._describe(name.strip(), path, names)
            self._check_name(folder.name, folders)
            if is_list and folder.problem:
                raise BadFile(folder.problem)
            if folder.layout == PLAIN_TITLE and not any(map(_holds_weights, roots)):
                raise BadFile(f"{path} contains no models; choose the folder that does.")
            entries[folder.name] = path
        return folder

    def remove(self, name: str) -> ReferencedFolder:
        """Use a folder's files no longer; nothing is deleted.

        Raises:
            BadFile: There is none of that name, or studio.toml names it.
        """
        with self._changing() as entries:
            folders = {folder.name: folder for folder in self.list_folders()}
            folder = folders.get(name)
            if folder is None:
                raise BadFile(
                    f"There is no folder {quote(name)} in the list; available: "
                    f"{list_alternatives([], list(folders))}."
                )
            if folder.is_setting:
                raise BadFile(
                    f"The folder {name} is set in studio.toml; remove it from `folders` there."
                )
            del entries[name]
        return folder

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Path]]:
        """Yield the entries, and write them after the block; one process at a time."""
        with self._lock:
            lock = Lock(self._settings.home, "folders")
            try:
                if not lock.acquire(LOCK_SECONDS):
                    raise Busy("Another command is changing the list of folders; try again.")
                entries = self._read(strict=True)
                yield entries
                stored = [{"name": name, "path": str(path)} for name, path in entries.items()]
                atomic.write(self._file, json.dumps({"folders": stored}, indent=2).encode())
                lock.release()
            finally:
                lock.close()

    def _read(self, *, strict: bool = False) -> dict[str, Path]:
        """Return the entries of the list by name.

        Raises BadFile for a list that cannot be read, if `strict`; else that one has none.
        """
        try:
            stored = odd_files.read_json(self._file, MAX_FILE_BYTES)["folders"]
            return {str(entry["name"]): Path(str(entry["path"])) for entry in stored}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError):
            if strict:
                raise BadFile(
                    f"{self._file} cannot be read; fix it or move it away, then add your folders "
                    "again."
                ) from None
            return {}

    @property
    def problem(self) -> str:
        """What is wrong with the list itself; empty if nothing is."""
        try:
            self._read(strict=True)
        except BadFile as error:
            return str(error)
        return ""

    def _find_obstacle(self, path: Path, folders: list[ReferencedFolder]) -> str:
        """Return why a folder may not be added to these; empty if it may."""
        obstacle = self._find_own_obstacle(path)
        if obstacle:
            return obstacle
        real_path = Path(os.path.realpath(path))
        for folder in folders:
            if folder.is_refused:
                continue
            other = Path(os.path.realpath(folder.path))
            if other == real_path:
                return f"{path} is already in the list, as {folder.name}."
            if real_path.is_relative_to(other):
                return f"{path} is inside {folder.path}, which is in the list as {folder.name}."
            if other.is_relative_to(real_path):
                return (
                    f"{path} contains {folder.path}, which is in the list as {folder.name}; "
                    "remove that one first."
                )
        return ""

    def _find_own_obstacle(self, path: Path) -> str:
        """Return why a folder may never be used from elsewhere; empty if it may."""
        real_path = Path(os.path.realpath(path))
        home = Path(os.path.realpath(self._settings.home))
        if real_path.parent == real_path:
            return f"{path} is the whole disk; choose the folder with the models."
        if real_path.is_relative_to(home):
            return f"{path} is inside the studio's own folder, whose files are used anyway."
        if home.is_relative_to(real_path):
            return f"{path} contains the studio's own folder; choose the folder with the models."
        return ""

    def _check_name(self, name: str, folders: list[ReferencedFolder]) -> None:
        if not _NAME.fullmatch(name):
            raise BadFile(f"{quote(name)} is not a valid folder name; {_NAME_ADVICE}.")
        if name.casefold() in RESERVED_NAMES:
            raise BadFile(f"{name} is the name of one of the studio's own folders; choose another.")
        if name.casefold() in {folder.name.casefold() for folder in folders}:
            raise BadFile(f"The list already has a folder named {name}; choose another name.")
        settings = self._settings
        for own in (settings.models, settings.loras, settings.vaes, settings.embeddings):
            if (own / name).is_dir():
                raise BadFile(
                    f"The studio's own folder already has {own.name}/{name}, so names would be "
                    "ambiguous; choose another name."
                )


def check_path_text(path_text: str) -> str:
    """Return what somebody wrote for a path, without quotes around it.

    Raises BadFile for nothing, for a link, and for what is no whole path on this machine.
    """
    text = path_text.strip().strip("\"'")
    if not text or "\0" in text:
        raise BadFile("Write the path of a folder, such as /data/stable-diffusion-webui.")
    shown = quote(odd_files.make_printable(text), 200)
    scheme = _LINK.match(text)
    if scheme and scheme[1].lower() in ("http", "https"):
        raise BadFile(f'{shown} is a link; paste it under "Add by link", or give it to studio get.')
    if scheme or not os.path.isabs(os.path.expanduser(text)):
        raise BadFile(
            f"{shown} is not a full path on this machine; write one such as "
            "/data/stable-diffusion-webui."
        )
    return text


def _holds_weights(root: Root) -> bool:
    scan = scan_folder(root.path, is_repository=root.is_repository)
    return bool(scan.files or scan.model_folders)


def _write_left_out(obstacle: str) -> str:
    return f"One of the folders it lists is left out: {obstacle}" if obstacle else ""


def _to_name(text: str) -> str:
    """Return a folder's name made of one that may have any characters."""
    cleaned = re.sub(r"[^\w.+-]+", "-", odd_files.make_printable(text)).strip(".+-")
    return cleaned[:40] or "folder"
