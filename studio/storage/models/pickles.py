"""Pickles of weights (.pt, .pth, .bin, .ckpt), each read once in a child process.

Knows: which pickles are read at all, where their tensors lie as safetensors, what was said of those
that cannot be read. Does not know: torch, and how a pickle is read (engine/models/pickle_reader.py
does it, in a process of its own); who asks.

    home/cache/converted/<sha256 of the pickle>.safetensors
    home/cache/converted/index.json      path → stamp, sha256, problem

The pickle itself is never written, moved or removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from studio.errors import DiskError, StudioError
from studio.settings import Settings
from studio.storage import atomic, odd_files
from studio.storage.models import model_file
from studio.storage.models.header_rules import FileKind

MIB = 2**20
EMBEDDINGS, UPSCALERS = "embedding", "upscaler"
MAX_BYTES: dict[str, int] = {EMBEDDINGS: 20 * MIB, UPSCALERS: 300 * MIB}
# Folders whose pickles are read, in the names of all programs.
FOLDERS = {
    "embeddings": EMBEDDINGS,
    "textual_inversion": EMBEDDINGS,
    "upscalers": UPSCALERS,
    "upscale_models": UPSCALERS,
    "esrgan": UPSCALERS,
    "realesrgan": UPSCALERS,
    "swinir": UPSCALERS,
    "dat": UPSCALERS,
}
# Upscalers of all architectures are kept: what cannot be run is said where it is used.
KEPT_KINDS: dict[str, tuple[FileKind, ...]] = {
    EMBEDDINGS: ("embedding",),
    UPSCALERS: ("upscaler", "unknown"),
}
FILE_SECONDS = 120.0  # for one file, the start of the child included
MODULE = "studio.engine.models.pickle_reader"
_UNREAD = "is a pickle that has not been read yet; try again in a moment"
_TOO_LARGE = "is a pickle of more than {} MB and is not opened"
_BROKE_OFF = "is a pickle that needs too much memory or time, and was not opened"


class Pickles:
    """The pickles of a home that were read. Several processes may convert at once."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "cache" / "converted"
        self._index_file = self._folder / "index.json"
        self._index_stamp: tuple[int, int] | None = None
        self._index: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def get_converted(self, path: Path) -> Path | None:
        """Return the safetensors file with a pickle's tensors, if it was read; does no work."""
        entry = self._get_entry(path)
        if not entry or entry.get("problem"):
            return None
        target = self._get_target(str(entry.get("sha256")))
        return target if target.is_file() else None

    def get_problem(self, path: Path) -> str:
        """Return what keeps a pickle from being used, as the end of a sentence with its name.

        Empty for one that was read, and for files whose kind is not read at all.
        """
        if find_use(path) is None or self.get_converted(path):
            return ""
        entry = self._get_entry(path)
        return str(entry.get("problem") or _UNREAD) if entry else _UNREAD

    def is_unread(self, path: Path) -> bool:
        """Whether a file is a pickle that would be read, and was not yet."""
        if find_use(path) is None or not path.is_file() or self.get_converted(path):
            return False
        entry = self._get_entry(path)
        return not (entry and entry.get("problem"))

    def is_embedding(self, path: Path) -> bool:
        """Whether a pickle lies where embeddings do."""
        return find_use(path) == EMBEDDINGS

    def is_upscaler(self, path: Path) -> bool:
        """Whether a pickle lies where upscalers do."""
        return find_use(path) == UPSCALERS

    def convert(self, paths: Iterable[Path]) -> dict[Path, Path | str]:
        """Read pickles in a child process, those that were read before excepted.

        Returns:
            Of each the safetensors file with its tensors, or a sentence that says why there is
            none.

        Raises:
            DiskError: The home does not take what has to be written.
        """
        results: dict[Path, Path | str] = {}
        unread: dict[str, list[Path]] = {}
        for path in dict.fromkeys(paths):
            converted = self.get_converted(path)
            use = find_use(path)
            if converted:
                results[path] = converted
            elif use is None:
                results[path] = (
                    f"{path.name} is a pickle, which can contain programs; it is not opened."
                )
            elif problem := (self._get_entry(path) or {}).get("problem"):
                results[path] = f"{path.name} {problem}."
            else:
                unread.setdefault(use, []).append(path)
        for use, files in unread.items():
            results |= self._convert(files, use)
        return results

    def _convert(self, paths: Sequence[Path], use: str) -> dict[Path, Path | str]:
        """Read pickles of one use; each ends with an entry in the index."""
        entries = {path: _describe_pickle(path, MAX_BYTES[use]) for path in paths}
        atomic.make_folder(self._folder)
        waiting = [
            path
            for path, entry in entries.items()
            if not entry["problem"] and not self._get_target(entry["sha256"]).is_file()
        ]
        while waiting:
            problems = self._run_child(waiting, entries, MAX_BYTES[use])
            # The first without an answer ended the child; those behind it get another one.
            for path, problem in zip(waiting, [*problems, _BROKE_OFF]):
                entries[path]["problem"] = problem
            waiting = waiting[len(problems) + 1 :]
        for entry in entries.values():
            entry["problem"] = entry["problem"] or self._find_misfit(entry["sha256"], use)
        self._remember(entries)
        return {
            path: f"{path.name} {entry['problem']}."
            if entry["problem"]
            else self._get_target(entry["sha256"])
            for path, entry in entries.items()
        }

    def _run_child(
        self, paths: Sequence[Path], entries: dict[Path, dict[str, Any]], max_bytes: int
    ) -> list[str]:
        """Return the problems of the first files, as many as the child answered."""
        files = [[str(path), str(self._get_target(entries[path]["sha256"]))] for path in paths]
        question = json.dumps({"files": files, "max_bytes": max_bytes})
        child = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            text=True,
        )
        timer = threading.Timer(FILE_SECONDS, child.kill)
        timer.start()
        problems: list[str] = []
        try:
            assert child.stdin
            assert child.stdout
            child.stdin.write(question)
            child.stdin.close()
            for line in child.stdout:
                timer.cancel()
                timer = threading.Timer(FILE_SECONDS, child.kill)
                timer.start()
                answer = json.loads(line)
                if answer.get("disk"):
                    raise DiskError(answer["disk"])
                problems.append(answer["problem"])
        except (BrokenPipeError, ValueError):
            pass  # it ended in the midst of a line
        finally:
            timer.cancel()
            child.kill()
            child.wait()
            assert child.stdout
            child.stdout.close()
        return problems[: len(paths)]

    def _find_misfit(self, sha256: str, use: str) -> str:
        """Return what speaks against the tensors of a pickle where it lies."""
        target = self._get_target(sha256)
        identified = model_file.identify_file(target)
        if identified.kind in KEPT_KINDS[use] and not (identified.problem and use == EMBEDDINGS):
            return ""
        target.unlink(missing_ok=True)
        noun = "textual inversion" if use == EMBEDDINGS else "upscaler"
        return f"is a pickle that contains no {noun}; nothing else is read from pickles"

    def _get_target(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.safetensors"

    # ---- the index -------------------------------------------------------------------------------

    def _get_entry(self, path: Path) -> dict[str, Any] | None:
        """Return what is known of a file as it is now."""
        entry = self._load_index().get(str(path))
        if entry is None:
            return None
        try:
            return entry if entry.get("stamp") == _stamp(path) else None
        except OSError:
            return None

    def _load_index(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            try:
                status = self._index_file.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                if stamp != self._index_stamp:
                    entries = odd_files.read_json(self._index_file)
                    self._index = {
                        path: entry for path, entry in entries.items() if isinstance(entry, dict)
                    }
                    self._index_stamp = stamp
            except (OSError, ValueError):
                self._index, self._index_stamp = {}, None  # what is lost is read again
            return self._index

    def _remember(self, entries: dict[Path, dict[str, Any]]) -> None:
        index = {**self._load_index(), **{str(path): entry for path, entry in entries.items()}}
        atomic.write(self._index_file, json.dumps(index).encode())


def find_use(path: Path) -> str | None:
    """Return what a pickle is read for, by the folder it lies in; None where it is not read."""
    if path.suffix.lower() not in model_file.PICKLE_SUFFIXES:
        return None
    for parent in path.parents:
        use = FOLDERS.get(parent.name.casefold())
        if use:
            return use
    return None


def _describe_pickle(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return a pickle's entry as far as it can be told without opening it."""
    entry: dict[str, Any] = {"stamp": None, "sha256": "", "problem": ""}
    try:
        with odd_files.explain_odd_file(path, "it"):
            entry["stamp"] = _stamp(path)
            if entry["stamp"][0] > max_bytes:
                entry["problem"] = _TOO_LARGE.format(max_bytes // MIB)
                return entry
            identified = model_file.identify_file(path)
            if not identified.is_pickle:
                entry["problem"] = identified.problem or "is not a pickle"
                return entry
            with odd_files.open_file(path) as file:
                entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    except StudioError as error:
        entry["problem"] = str(error).removeprefix("it ").removeprefix(path.name).strip(" .")
    return entry


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
