"""Where a fetched file or model goes: by what its own header says, and never over another.

Knows: the folders of a home by kind, names that are taken, what is kept beside a file.
Does not know: the network; how a header is read (model_file.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.downloads.plan import DownloadPlan
from studio.errors import BadFile, StudioError
from studio.settings import Settings, shipped
from studio.storage import atomic
from studio.storage.downloads.pickle_names import classify_pickle
from studio.storage.models import model_file
from studio.storage.models.header_rules import KIND_FOLDERS, KIND_TITLES, FileKind
from studio.storage.models.shelf import walk_weights

CARD_NAME = (
    "source.json"  # where it came from: NAME.source.json, or source.json in a model's folder
)
CIVITAI_SUFFIX = ".civitai.info"
MAX_NAME_TRIES = 1000


@dataclass(frozen=True)
class Placed:
    """What became of a download.

    Attributes:
        name: What it is called here.
        folder: In which folder of the home it lies.
        path: Where it lies.
        title: What it is, in a few words.
        was_there: Whether it was there already, so that nothing was fetched or written.
    """

    name: str
    folder: str
    path: Path
    title: str
    was_there: bool = False


def identify_start(start: bytes, total_bytes: int, folder: Path, name: str) -> model_file.ModelFile:
    """Return what a file will be of which only the header has come.

    Args:
        start: The header of a safetensors file with the eight bytes before it.
        total_bytes: Of the whole file.
        folder: Where a file may lie for a moment: the header, and then nothing up to that size.
        name: What it is called.

    Raises:
        BadFile: It is nothing that the studio can use.
    """
    path = folder / name
    try:
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(total_bytes)
        identified = model_file.identify_file(path)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    if identified.problem or not identified.folder:
        raise BadFile(f"{identified.sentence[:-1]}, so it is not downloaded.")
    return identified


class Places:
    """The folders of a home, as downloads see them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folders = {
            "models": settings.models,
            "loras": settings.loras,
            "vae": settings.vaes,
            "text_encoders": settings.text_encoders,
            "embeddings": settings.embeddings,
            "upscalers": settings.upscalers,
        }

    def check_file_name(self, folder: str, name: str, suffix: str) -> None:
        """Raise BadFile if a name is taken in a folder; the message proposes one that is free."""
        if self._find_taken(folder, name, suffix):
            free = self._find_free_name(folder, name, suffix)
            raise BadFile(
                f"There is already a different {name} in {folder}/. Choose another name, such as "
                f"{free}."
            )

    def find_same_file(self, folder: str, name: str, suffix: str, sha256: str) -> Path | None:
        """Return the file of that name if its content is the same."""
        path = self._folders[folder] / f"{name}{suffix}"
        if not path.is_file():
            return None
        try:
            with open(path, "rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return None
        return path if same else None

    def begins_alike(self, folder: str, file_name: str, start: bytes, total_bytes: int) -> bool:
        """Return whether the file of that name may be the same: its size and header are."""
        path = self._folders[folder] / file_name
        try:
            with open(path, "rb") as file:
                return path.stat().st_size == total_bytes and file.read(len(start)) == start
        except OSError:
            return False

    def check_model_name(self, plan: DownloadPlan) -> Placed | None:
        """Return the model if it is there already.

        Raises BadFile if its name belongs to another; the message proposes a free one.
        """
        path = self._settings.models / plan.name
        if not os.path.lexists(path) and not (shipped("assets") / plan.name).is_dir():
            return None
        if _read_card(path / CARD_NAME) == _build_identity(plan):
            return Placed(plan.name, "models", path, "model", was_there=True)
        free = self._find_free_name("models", plan.name, "")
        raise BadFile(
            f"There is already a different model {plan.name}. Choose another name, such as {free}."
        )

    def place_file(self, plan: DownloadPlan, source: Path, sha256: str) -> Placed:
        """Move a file that is whole to the folder of its kind, with what is known of it beside.

        Raises:
            BadFile: It is nothing that the studio can use, or its name is taken.
            DiskError: The disk does not take it.
        """
        try:
            kind, title = _identify(source)
        except BadFile:
            source.unlink(missing_ok=True)
            raise
        folder, suffix = KIND_FOLDERS[kind], source.suffix.lower()
        same = self.find_same_file(folder, plan.name, suffix, sha256)
        if same:
            return Placed(plan.name, folder, same, title, was_there=True)
        self.check_file_name(folder, plan.name, suffix)
        target = self._folders[folder] / f"{plan.name}{suffix}"
        beside = {f".{CARD_NAME}": _build_card(plan, sha256)}
        if plan.details:
            beside[CIVITAI_SUFFIX] = dict(plan.details)
        written: list[Path] = []
        try:
            for ending, values in beside.items():
                path = target.with_name(f"{plan.name}{ending}")
                if not os.path.lexists(path):
                    atomic.write(path, _dump(values), replace=False)
                    written.append(path)
            _move(source, target)
        except BaseException:
            for path in written:
                with suppress(OSError):
                    path.unlink()
            raise
        return Placed(plan.name, folder, target, title)

    def place_model(self, plan: DownloadPlan, source: Path) -> Placed:
        """Move a folder that is whole to the models.

        Raises:
            BadFile: The name was taken meanwhile.
            DiskError: The disk does not take it.
        """
        there = self.check_model_name(plan)
        if there:
            return there
        target = self._settings.models / plan.name
        atomic.write(source / CARD_NAME, _dump(_build_card(plan)))
        try:
            if os.stat(source).st_dev != os.stat(target.parent).st_dev:
                unique = f"{os.getpid()}-{threading.get_ident()}"
                copied = target.with_name(f".{target.name}.{unique}.tmp")
                shutil.copytree(source, copied)
                source = copied
            os.rename(source, target)  # which fails for a folder that is there and not empty
            atomic.fsync_folder(target.parent)
        except OSError as error:
            raise atomic.write_error(target, error) from error
        return Placed(plan.name, "models", target, "model")

    def _find_taken(self, folder: str, name: str, suffix: str) -> bool:
        path = self._folders[folder]
        if not suffix:
            return os.path.lexists(path / name) or (shipped("assets") / name).is_dir()
        stems = {file.stem.casefold() for file in walk_weights(path)}
        return name.casefold() in stems or os.path.lexists(path / f"{name}{suffix}")

    def _find_free_name(self, folder: str, name: str, suffix: str) -> str:
        for number in range(2, MAX_NAME_TRIES):
            if not self._find_taken(folder, f"{name}-{number}", suffix):
                return f"{name}-{number}"
        return f"{name}-new"


def _identify(path: Path) -> tuple[FileKind, str]:
    """Return the kind of a whole file, and what it is in words. Raises BadFile."""
    if path.suffix.lower() != ".safetensors":
        kind = classify_pickle(path)
        if not kind:
            raise BadFile(
                f"{path.name} is a pickle that is neither an embedding nor an upscaler; look for "
                "it as .safetensors."
            )
        return kind, KIND_TITLES[kind]
    identified = model_file.identify_file(path)
    if identified.problem or not identified.folder:
        raise BadFile(identified.sentence)
    return identified.kind, identified.title


def _move(source: Path, target: Path) -> None:
    """Move a file, never over another one, also to another disk."""
    atomic.make_folder(target.parent, mode=0o777)
    try:
        atomic.transfer_file(source, target)
    except FileExistsError:
        raise BadFile(f"There is already a {target.name} in {target.parent.name}/.") from None
    except StudioError:
        raise
    except OSError as error:
        raise atomic.write_error(target, error) from error


def _build_identity(plan: DownloadPlan) -> dict[str, Any]:
    return {"source": plan.source, "title": plan.title, "version": plan.version} | {
        "variant": plan.variant
    }


def _build_card(plan: DownloadPlan, sha256: str = "") -> dict[str, Any]:
    files = [
        {"path": file.path, "size": file.size_bytes, "sha256": file.sha256 or sha256}
        for file in plan.files
    ]
    return _build_identity(plan) | {
        "page": plan.page,
        "licence": plan.licence,
        "files": files,
    }


def _read_card(path: Path) -> dict[str, Any] | None:
    try:
        card = json.loads(path.read_bytes())
        return {key: card[key] for key in ("source", "title", "version", "variant")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _dump(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True, indent=1).encode()
