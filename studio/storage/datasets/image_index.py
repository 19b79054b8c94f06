"""What is known of picture files without opening them again: size, content, why one cannot be used.

Knows: that a file whose size and times are the same is the same file; a glance (its header) from a full look (decoded and
hashed). Does not know: captions, layouts. The index in home/looks.sqlite may be deleted: it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from studio.errors import BadPicture
from studio.imaging import decode
from studio.settings import Settings
from studio.storage.datasets.caption_files import shown

LEAST_SIDE = 64
AT_ONCE = 4  # pictures that are decoded at the same time
BATCH = 256  # looks that are remembered together: a kill loses no more
SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (folder BLOB, name BLOB, size INTEGER, modified INTEGER, changed INTEGER, said TEXT,
                                  PRIMARY KEY (folder, name)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Width and height of the upright picture, the sha256 of its file, notes, or the reason why it cannot be used.

    `content` is empty after a glance, which reads the header only. `bytes` is the file's size.
    """

    size: tuple[int, int] = (0, 0)
    content: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""
    bytes: int = 0

    @property
    def full(self) -> bool:
        return bool(self.content or self.reason)


Stamp = tuple[int, int, int]


class Looks:
    """The index of a home, or one that lasts as long as the process. One connection behind one lock."""

    def __init__(self, settings: Settings | None = None) -> None:
        where = settings.home / "looks.sqlite" if settings else ":memory:"
        self._lock = threading.Lock()
        self._db = sqlite3.connect(where, isolation_level=None, check_same_thread=False, timeout=10)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # what is lost is looked at again
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    def of(
        self,
        paths: Sequence[Path],
        full: bool = True,
        report: Callable[[int, int], None] | None = None,
    ) -> list[Look]:
        """A look at each path, in their order; only those that changed are opened, several at once.

        Without `full` a glance does where no full look is known. `report(done, of how many)` hears of those that are opened; what
        it raises ends the work, and what was looked at is remembered.
        """
        names = [os.path.abspath(path) for path in paths]
        known = self._known({os.path.dirname(name) for name in names})
        stamps = [_stamp(name) for name in names]
        found: list[Look | None] = []
        for name, stamp in zip(names, stamps):
            kept = known.get(name)
            good = (
                kept is not None
                and stamp is not None
                and kept[0] == stamp
                and (kept[1].full or not full)
            )
            found.append(kept[1] if good and kept else None)
        todo = [place for place, look in enumerate(found) if look is None]
        for done, batch in enumerate(_batches(todo)):
            if report:
                report(done * BATCH, len(todo))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                looks = list(pool.map(look if full else glance, [paths[place] for place in batch]))
            for place, one in zip(batch, looks):
                found[place] = one
            self._remember([(names[place], stamps[place], one) for place, one in zip(batch, looks)])
        if report and todo:
            report(len(todo), len(todo))
        return [one for one in found if one is not None]

    def _known(self, folders: Iterable[str]) -> dict[str, tuple[Stamp, Look]]:
        known: dict[str, tuple[Stamp, Look]] = {}
        for folder in folders:
            with self._lock:
                rows = self._db.execute(
                    "SELECT name, size, modified, changed, said FROM looks WHERE folder = ?",
                    (os.fsencode(folder),),
                ).fetchall()
            for name, size, modified, changed, said in rows:
                width, height, content, notes, reason = json.loads(said)
                known[os.path.join(folder, os.fsdecode(name))] = (
                    (size, modified, changed),
                    Look((width, height), content, tuple(notes), reason, size),
                )
        return known

    def _remember(self, looks: Sequence[tuple[str, Stamp | None, Look]]) -> None:
        rows = [
            (
                os.fsencode(os.path.dirname(name)),
                os.fsencode(os.path.basename(name)),
                *stamp,
                json.dumps([*one.size, one.content, one.notes, one.reason]),
            )
            for name, stamp, one in looks
            if stamp and not one.reason.startswith("cannot be read")
        ]
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")


def look(path: Path) -> Look:
    """Decode a picture once, from the same bytes that are hashed. The sentence of a refusal goes on after the file's name."""
    name = shown(path.name)
    try:
        size = path.stat().st_size
        if not path.is_file():
            return Look(reason="is no file.")
        data = path.read_bytes() if size <= decode.MOST_BYTES else path
        loaded = decode.load(data, name)
    except BadPicture as error:
        return Look(reason=str(error).removeprefix(f"{name} "))
    except OSError as error:
        return Look(reason=f"cannot be read ({error.strerror or error}).")
    assert isinstance(data, bytes)
    return _sized(loaded.image.size, hashlib.sha256(data).hexdigest(), loaded.notes, len(data))


def glance(path: Path) -> Look:
    """A picture's size from its header; `content` stays empty."""
    name = shown(path.name)
    try:
        size = path.stat().st_size
        if not path.is_file():
            return Look(reason="is no file.")
        return _sized(decode.measure(path, name), "", (), size)
    except BadPicture as error:
        return Look(reason=str(error).removeprefix(f"{name} "))
    except OSError as error:
        return Look(reason=f"cannot be read ({error.strerror or error}).")


def _sized(size: tuple[int, int], content: str, notes: tuple[str, ...], many: int) -> Look:
    if min(size) < LEAST_SIDE:
        return Look(
            reason=f"is only {size[0]} x {size[1]} pixels large; each side needs {LEAST_SIDE}.",
            bytes=many,
        )
    return Look(size, content, notes, "", many)


def _stamp(path: str) -> Stamp | None:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _batches(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), BATCH):
        yield places[start : start + BATCH]
