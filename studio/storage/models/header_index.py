"""What each file of weights is, remembered until the file changes, in memory and on disk.

Knows: paths and stamps, the cache file, that a first look at thousands of files takes minutes and
may go on in the background, that a pickle is what it was converted to. Does not know: what a header
says (model_file.py, lora_file.py); which files there are (folder_scan.py); how pickles are read
(pickles.py).

The cache only saves work: what is lost, broken or of another version is read anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.storage import odd_files
from studio.storage.models import lora_file, model_file
from studio.storage.models.embedding_file import FileEmbedding
from studio.storage.models.folder_scan import ScannedFile, Stamp, read_stamp
from studio.storage.models.lora_file import LoraInfo
from studio.storage.models.model_file import ModelFile
from studio.storage.models.pickles import Pickles
from studio.storage.models.sidecars import Sidecar, read_sidecar
from studio.storage.odd_files import explain_odd_file

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 256 * 2**20
MAX_ENTRIES = 60_000  # of files that are gone too: their disk may only be unplugged
# What takes less time to read anew is not worth writing down.
WORTH_KEEPING_SECONDS = 0.5
SAVE_INTERVAL_SECONDS = 20.0
# How long a list waits for files that nobody has read, where the rest is read in the background.
PATIENCE_SECONDS = 0.3


@dataclass
class FileFacts:
    """What is known of a file with this stamp; `lora` is its LoRA, or why it is none."""

    stamp: Stamp
    model_file: ModelFile
    sidecar: Sidecar = field(default_factory=Sidecar)
    lora: LoraInfo | str | None = None


class HeaderIndex:
    """What the headers of one home's files said when they were last read; any thread may call."""

    def __init__(self, cache_file: Path | None = None, pickles: Pickles | None = None) -> None:
        """Open the index.

        Args:
            cache_file: Where it is kept for the next process; None keeps it in memory alone.
            pickles: Those that were read; None takes none of them.
        """
        self._pickles = pickles
        self._cache_file = cache_file
        self._facts: dict[str, FileFacts] | None = None
        self._unreadable: dict[str, Stamp] = {}
        self._lock = threading.RLock()
        self._unsaved_seconds = 0.0
        self._reads_in_background = False
        self._reader: threading.Thread | None = None
        self._num_waiting = 0

    def identify(self, path: Path, stamp: Stamp | None = None) -> ModelFile:
        """Return what a file is, without the texts in its header. Raises BadFile."""
        return self.read_facts(path, stamp).model_file

    def read_facts(self, path: Path, stamp: Stamp | None = None) -> FileFacts:
        """Return what is known of a file; it is read if it has changed.

        Args:
            path: The file.
            stamp: As `folder_scan` gives it; without one the disk is asked.

        Raises:
            BadFile: The file cannot be read.
        """
        with explain_odd_file(path):
            stamp = stamp or read_stamp(path)
            facts = self._load().get(str(path))
            if facts is not None and facts.stamp == stamp:
                return self._resolve_pickle(facts)
            begin = time.monotonic()
            identified = model_file.identify_file(path)
            # Trainers write megabytes of texts into headers.
            facts = FileFacts(stamp, replace(identified, metadata={}), read_sidecar(path))
            self._remember(path, facts, time.monotonic() - begin)
            return self._resolve_pickle(facts)

    def _resolve_pickle(self, facts: FileFacts) -> FileFacts:
        """Return of a pickle what is known of what it was converted to; else why it was not."""
        identified = facts.model_file
        if not self._pickles or not identified.is_pickle:
            return facts
        converted = self._pickles.get_converted(identified.path)
        if converted:
            content = self.read_facts(converted).model_file
            return replace(
                facts, model_file=replace(content, path=identified.path, converted=converted)
            )
        problem = self._pickles.get_problem(identified.path)
        if problem:
            return replace(facts, model_file=replace(identified, problem=problem))
        return facts

    def read_scanned(self, file: ScannedFile) -> FileFacts:
        """Return what is known of a file that was just looked at. Raises BadFile."""
        facts = self._load().get(file.text)
        if facts is not None and facts.stamp == file.stamp:
            return self._resolve_pickle(facts)
        return self.read_facts(file.path, file.stamp)

    def find_facts(self, path: Path) -> FileFacts | None:
        """Return what was known of a file when somebody last looked, without asking the disk."""
        return self._load().get(str(path))

    def read_lora(self, path: Path, stamp: Stamp | None = None) -> LoraInfo | str:
        """Return the LoRA in a file by its stem, or why there is none. Raises BadFile."""
        facts = self.read_facts(path, stamp)
        if facts.lora is None:
            begin = time.monotonic()
            lora = _read_lora_or_problem(path)
            if isinstance(lora, LoraInfo):
                lora = _add_sidecar(lora, facts.sidecar)
            facts.lora = lora
            self._remember(path, facts, time.monotonic() - begin)
        return facts.lora

    def select_read(self, files: Sequence[ScannedFile]) -> list[ScannedFile]:
        """Return the files that are known; those that are not are read first.

        After `read_in_background` that waits only a moment: what is not read by then is left out,
        and read by a thread.
        """
        facts = self._load()
        unread = [file for file in files if not self._is_known(file, facts)]
        if not unread:
            return list(files)
        deadline = time.monotonic() + PATIENCE_SECONDS if self._reads_in_background else None
        num_read = self._read_files(unread, deadline)
        if num_read < len(unread):
            self._start_reader(unread[num_read:])
            waiting = {file.text for file in unread[num_read:]}
            return [file for file in files if file.text not in waiting]
        self.save()
        return list(files)

    def read_in_background(self) -> None:
        """Have lists leave out what is not read yet, instead of waiting for it."""
        self._reads_in_background = True

    @property
    def num_waiting(self) -> int:
        """How many files the lists leave out because nobody has read them yet."""
        return self._num_waiting

    def save(self, *, force: bool = False) -> None:
        """Write what was read to the cache file, if that took long enough to be worth it."""
        with self._lock:
            if self._cache_file is None or (
                self._unsaved_seconds < WORTH_KEEPING_SECONDS and not force
            ):
                return
            self._unsaved_seconds = 0.0
            # Another process may have written meanwhile.
            merged = list((_read_cache(self._cache_file) | self._load()).items())
            entries = {path: _encode(facts) for path, facts in merged[-MAX_ENTRIES:]}
        data = json.dumps({"version": get_reader_version(), "files": entries}, ensure_ascii=True)
        odd_files.write_cache(self._cache_file, data.encode())

    def _load(self) -> dict[str, FileFacts]:
        if self._facts is None:
            with self._lock:
                if self._facts is None:
                    self._facts = _read_cache(self._cache_file) if self._cache_file else {}
        return self._facts

    def _remember(self, path: Path, facts: FileFacts, seconds: float) -> None:
        with self._lock:
            self._load()[str(path)] = facts
            self._unsaved_seconds += seconds

    def _is_known(self, file: ScannedFile, facts: dict[str, FileFacts]) -> bool:
        known = facts.get(file.text)
        if known is None or known.stamp != file.stamp:
            return self._unreadable.get(file.text) == file.stamp
        return known.lora is not None or known.model_file.kind != "lora"

    def _read_files(self, files: Sequence[ScannedFile], deadline: float | None = None) -> int:
        """Read files until a time; return how many were read."""
        for number, file in enumerate(files):
            if deadline is not None and time.monotonic() > deadline:
                return number
            try:
                facts = self.read_facts(file.path, file.stamp)
                if facts.model_file.kind == "lora":
                    self.read_lora(file.path, file.stamp)
            except StudioError:  # whoever asks for this file is told
                self._unreadable[file.text] = file.stamp
        return len(files)

    def _start_reader(self, files: Sequence[ScannedFile]) -> None:
        with self._lock:
            self._num_waiting = len(files)
            if self._reader and self._reader.is_alive():
                return
            self._reader = threading.Thread(
                target=self._read_rest, args=(list(files),), name="header-reader", daemon=True
            )
            self._reader.start()

    def _read_rest(self, files: Sequence[ScannedFile]) -> None:
        saved_at = time.monotonic()
        try:
            for number, file in enumerate(files):
                self._read_files([file])
                self._num_waiting = len(files) - number - 1
                if time.monotonic() > saved_at + SAVE_INTERVAL_SECONDS:
                    self.save(force=True)
                    saved_at = time.monotonic()
            self.save()
        except Exception:
            log.exception("reading the headers of files stopped")
        finally:
            self._num_waiting = 0


def _read_lora_or_problem(path: Path) -> LoraInfo | str:
    try:
        with explain_odd_file(path):
            return lora_file.read_lora_info(path)
    except StudioError as error:
        return str(error)


def _add_sidecar(lora: LoraInfo, sidecar: Sidecar) -> LoraInfo:
    """Return a LoRA with what its sidecar says; the person's words count before the trainer's."""
    return replace(
        lora,
        trigger_words=sidecar.trigger_words or lora.trigger_words,
        base_model=lora.base_model or sidecar.base_model,
        title=lora.title or sidecar.title,
        usual_weight=sidecar.preferred_weight or lora.usual_weight,
    )


@cache
def get_reader_version() -> str:
    """Return what changes with the code that reads headers: other answers need another look."""
    here = Path(__file__).resolve().parent
    sources = sorted([*here.glob("*.py"), *(here.parents[1] / "core" / "families").glob("*.py")])
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _encode(facts: FileFacts) -> dict[str, Any]:
    model_facts = vars(facts.model_file).copy()
    del model_facts["path"], model_facts["metadata"]
    lora = facts.lora
    if isinstance(lora, LoraInfo):
        lora_facts: Any = asdict(lora)
        del lora_facts["path"]
    else:
        lora_facts = lora
    return {
        "stamp": facts.stamp,
        "file": model_facts,
        "sidecar": asdict(facts.sidecar),
        "lora": lora_facts,
    }


def _decode(path: Path, entry: dict[str, Any]) -> FileFacts:
    model_facts = entry["file"] | {"contents": tuple(entry["file"]["contents"])}
    sidecar = entry["sidecar"] | {"trigger_words": tuple(entry["sidecar"]["trigger_words"])}
    lora = entry["lora"]
    if isinstance(lora, dict):
        lora = LoraInfo(
            **lora
            | {
                "path": path,
                "networks": tuple(lora["networks"]),
                "trigger_words": tuple(lora["trigger_words"]),
                "tags": tuple((tag, count) for tag, count in lora["tags"]),
                "embeddings": tuple(_decode_embedding(facts) for facts in lora["embeddings"]),
            }
        )
    return FileFacts(
        tuple(entry["stamp"]), ModelFile(path=path, **model_facts), Sidecar(**sidecar), lora
    )


def _decode_embedding(facts: dict[str, Any]) -> FileEmbedding:
    return FileEmbedding(
        **facts | {"tensors": tuple(facts["tensors"]), "widths": tuple(facts["widths"])}
    )


def _read_cache(cache_file: Path) -> dict[str, FileFacts]:
    """Return what a cache file holds; nothing of one that is broken or of another version."""
    try:
        stored = odd_files.read_json(cache_file, MAX_CACHE_BYTES)
        if stored.get("version") != get_reader_version():
            return {}
        return {text: _decode(Path(text), entry) for text, entry in stored["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s is read again (%s)", cache_file.name, type(error).__name__)
        return {}
