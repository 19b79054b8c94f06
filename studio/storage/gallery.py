"""Pictures that were made: saved with their request inside, listed, searched.

Knows: PNG text, thumbnails, an index that can be rebuilt from the files. Does not know: how a picture was computed.

A PNG carries two texts: `parameters`, which A1111 and its relatives read, and `studio`, our JSON, which loses nothing.
The index lies outside the folders that the page serves.
"""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ConfigDict, Field

from studio.core.base import Value, check
from studio.core.generation import infotext, rules
from studio.core.generation.request import GenerationRequest
from studio.errors import BadPicture, InvalidSpec
from studio.imaging import decode
from studio.settings import Settings
from studio.storage import atomic

THUMB = 320  # pixels, the longer side
SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
    path TEXT PRIMARY KEY, digest TEXT NOT NULL, created REAL NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL,
    words TEXT NOT NULL, said TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_time ON pictures (created);
CREATE INDEX IF NOT EXISTS by_digest ON pictures (digest);
CREATE INDEX IF NOT EXISTS by_model ON pictures (model, created);
"""


class Said(Value):
    """What a PNG says of itself; what a later studio adds is passed over."""

    model_config = ConfigDict(extra="ignore")

    request: GenerationRequest
    digest: str = Field(min_length=1, max_length=200)
    contents: dict[str, str]
    seconds: float = Field(ge=0)
    owner: str
    created: float = Field(ge=0, lt=1e11)


@dataclass(frozen=True)
class Picture:
    """A picture and where it came from. `contents` are the hashes and names that its digest was made over."""

    path: Path
    thumb: Path
    request: GenerationRequest
    digest: str
    contents: Mapping[str, str]
    seconds: float
    owner: str
    created: float

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the file, which a second pass or outpainting makes larger than what was painted; None without it."""
        try:
            with Image.open(self.path) as opened:
                return opened.size
        except OSError:
            return None


class Gallery:
    """All pictures of a home. One connection behind one lock; worker and web process each open their own."""

    def __init__(self, settings: Settings) -> None:
        self.outputs, self.thumbs = settings.outputs.resolve(), settings.thumbs
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            settings.home / "gallery.sqlite",
            isolation_level=None,
            check_same_thread=False,
            timeout=5,
        )
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    def save(
        self,
        image: Image.Image,
        request: GenerationRequest,
        digest: str,
        contents: Mapping[str, str],
        seconds: float,
        owner: str,
    ) -> Picture:
        """Write the PNG and its thumbnail, then the index. `request` is one picture's, resolved."""
        now = time.time()
        said = {
            "request": request.model_dump(mode="json"),
            "digest": digest,
            "contents": dict(contents),
            "seconds": round(seconds, 3),
            "owner": owner,
            "created": round(now, 3),
        }
        info = PngInfo()
        info.add_itxt("parameters", infotext.write(request, contents.get("model", "")))
        info.add_itxt("studio", json.dumps(said, ensure_ascii=False))
        out = io.BytesIO()
        image.save(out, "PNG", pnginfo=info)
        day = self.outputs / time.strftime("%Y-%m-%d", time.localtime(now))
        stem = f"{time.strftime('%H%M%S', time.localtime(now))}-{request.seed}-{digest[:8]}"
        path = self._write_new(day, stem, out.getvalue())
        self._thumb(path, image)
        return self._enter(path, said)

    def search(
        self, words: str = "", owner: str | None = None, limit: int = 60, offset: int = 0
    ) -> list[Picture]:
        """Pictures whose prompts, model or scheduler hold all the words; the newest first."""
        sql, values = self._where(words, owner)
        rows = self._do(
            f"SELECT * FROM pictures {sql} ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            offset,
        )
        return [self._picture(Path(row["path"]), json.loads(row["said"])) for row in rows]

    def count(self, words: str = "", owner: str | None = None) -> int:
        sql, values = self._where(words, owner)
        return int(self._do(f"SELECT count(*) AS n FROM pictures {sql}", *values)[0]["n"])

    def get(self, path: str | Path) -> Picture | None:
        """The picture of that path if it is one of ours."""
        rows = self._do("SELECT * FROM pictures WHERE path = ?", str(path))
        return self._picture(Path(rows[0]["path"]), json.loads(rows[0]["said"])) if rows else None

    def with_digest(self, digest: str, owner: str | None = None) -> Picture | None:
        """A picture (of that owner) that was made exactly so, if there is one."""
        for row in self._do(
            "SELECT * FROM pictures WHERE digest = ? AND owner = coalesce(?, owner) ORDER BY created DESC",
            digest,
            owner,
        ):
            if Path(row["path"]).is_file():
                return self._picture(Path(row["path"]), json.loads(row["said"]))
        return None

    def rate(self, model: str, together: bool = False) -> float | None:
        """Seconds for a million pixels through the U-Net once, as last measured with this model, several at once or single."""
        sql = """SELECT said FROM pictures WHERE model = ? AND (json_extract(said, '$.request.batch') > 1) = ?
                 ORDER BY created DESC LIMIT 1"""
        for row in self._do(sql, model, together):
            said = json.loads(row["said"])
            request = GenerationRequest.model_validate(said["request"])
            return float(said["seconds"]) / max(1e-9, work(request))
        return None

    def said(self, page: int = 1000) -> Iterator[str]:
        """What every picture says of itself, as JSON."""
        last = 0
        while rows := self._do(
            "SELECT rowid AS id, said FROM pictures WHERE rowid > ? ORDER BY rowid LIMIT ?",
            last,
            page,
        ):
            last = rows[-1]["id"]
            yield from (row["said"] for row in rows)

    def delete(self, path: Path) -> None:
        """Remove a picture, its thumbnail and its row."""
        picture = atomic.inside(self.outputs, path)
        picture.unlink()
        self._thumb_of(picture).unlink(missing_ok=True)
        self._do("DELETE FROM pictures WHERE path = ?", str(picture))

    def sync(self) -> tuple[int, int]:
        """Make the index agree with the files; (added, removed). A killed worker may have left a file unlisted."""
        listed = {row["path"] for row in self._do("SELECT path FROM pictures")}
        there = {
            str(path): path for path in self.outputs.rglob("*.png") if not path.name.startswith(".")
        }
        for gone in listed - there.keys():
            self._do("DELETE FROM pictures WHERE path = ?", gone)
        added = 0
        for path in sorted(there.keys() - listed):
            try:
                loaded = decode.load(there[path])
                said = check(Said, _said(loaded.text)).model_dump(mode="json")
            except (BadPicture, InvalidSpec):
                continue  # not one of ours: left alone and not listed
            self._thumb(there[path], loaded.image)
            self._enter(there[path], said)
            added += 1
        return added, len(listed - there.keys())

    def _do(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    @staticmethod
    def _where(words: str, owner: str | None) -> tuple[str, list[str]]:
        parts = [
            word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            for word in words.split()
        ]
        sql = " AND ".join(
            [r"words LIKE ? ESCAPE '\'"] * len(parts) + ["owner = ?"] * (owner is not None)
        )
        return (f"WHERE {sql}" if sql else ""), [f"%{part}%" for part in parts] + (
            [owner] if owner is not None else []
        )

    def _write_new(self, folder: Path, stem: str, data: bytes) -> Path:
        for number in range(10_000):
            path = folder / (f"{stem}-{number}.png" if number else f"{stem}.png")
            try:
                atomic.write(path, data, replace=False)
            except FileExistsError:
                continue
            return path.resolve()
        raise BadPicture(f"{folder} already holds ten thousand pictures named {stem}.")

    def _thumb_of(self, path: Path) -> Path:
        return self.thumbs / path.resolve().relative_to(self.outputs.resolve()).with_suffix(".webp")

    def _thumb(self, path: Path, image: Image.Image) -> None:
        small = image.copy()
        small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "WEBP", quality=88)
        atomic.write(self._thumb_of(path), out.getvalue())

    def _enter(self, path: Path, said: dict[str, Any]) -> Picture:
        request = said["request"]
        words = " ".join(
            [
                *(
                    str(request.get(name, ""))
                    for name in ("prompt", "negative_prompt", "model", "scheduler", "seed")
                ),
                *(str(use["name"]) for use in request.get("loras", ())),
            ]
        )
        self._do(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)",
            str(path),
            said["digest"],
            said["created"],
            said["owner"],
            request["model"],
            words,
            json.dumps(said),
        )
        return self._picture(path, said)

    def _picture(self, path: Path, said: dict[str, Any]) -> Picture:
        return Picture(
            path,
            self._thumb_of(path),
            GenerationRequest.model_validate(said["request"]),
            said["digest"],
            said["contents"],
            said["seconds"],
            said["owner"],
            said["created"],
        )


def _said(text: Mapping[str, str]) -> dict[str, Any]:
    """Our JSON in a PNG, not yet checked. Raises BadPicture where there is none."""
    written = text.get("studio", "")
    try:
        said = json.loads(written) if len(written) <= infotext.LONGEST else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("request"), dict):
        raise BadPicture("It carries no settings of this studio.")
    return said


def work(request: GenerationRequest) -> float:
    """How much one picture asks of the U-Net: millions of pixels times rows."""
    return rules.work(request, request.width or 512, request.height or 512)


@dataclass(frozen=True)
class Recipe:
    """Settings read back from a picture file: values of a request's fields, where from, and what could not be taken."""

    values: Mapping[str, Any]
    source: str
    text: str
    notes: tuple[str, ...] = field(default=())


def recipe(path: Path, name: str = "") -> Recipe:
    """The settings that a picture file carries: ours first, else A1111's text. Raises BadPicture where there are none."""
    loaded = decode.load(path, name)
    text = loaded.text.get("parameters", "")
    try:
        return Recipe(
            check(GenerationRequest, _said(loaded.text)["request"]).model_dump(mode="json"),
            "studio",
            text,
        )
    except (BadPicture, InvalidSpec):
        pass  # not ours, a later studio's, or tampered with: A1111's text may still be good
    try:
        found = infotext.read(text)
    except ValueError as error:
        raise BadPicture(f"{name or path.name} carries no settings of a picture: {error}") from None
    return Recipe(found.values, "A1111", text, tuple(found.notes))
