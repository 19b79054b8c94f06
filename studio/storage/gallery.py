"""Generated images: saved with their request inside, listed, searched.

Knows: PNG text, thumbnails, an index that can be rebuilt from the files. Does not know: how an
image was computed.

A PNG carries two texts: `parameters`, which A1111 and its relatives read, and `studio`, our JSON,
which loses nothing; or less, as the owner chose (picture_options.py). The index knows all, and lies
outside the folders that the page serves.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ConfigDict, Field

from studio.core.base import Spec, validate, validate_stored
from studio.core.generation import rules
from studio.core.generation.carried import Making, build_texts
from studio.core.generation.recipes import sources
from studio.core.generation.recipes.own import OWN_CHUNK, parse_own_json
from studio.core.generation.recipes.recipe import NothingFound, Recipe
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import NO_FILES, UsedFiles
from studio.errors import BadPicture, InvalidSpec, StudioError
from studio.imaging import decode
from studio.imaging.encode import encode_png
from studio.imaging.image_metadata import (
    SIDECAR_SUFFIXES,
    read_image_metadata,
    read_text_file,
    wrap_text,
)
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.database import Database, Row
from studio.storage.odd_files import explain_odd_file
from studio.storage.picture_options import PictureOptions

log = logging.getLogger(__name__)

THUMBNAIL_SIDE_PX = 320  # the longer side
MAX_SAME_NAMES = 10_000
SEARCHED_FIELDS = ("prompt", "negative_prompt", "model", "scheduler", "seed")
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS pictures (
        path TEXT PRIMARY KEY, digest TEXT NOT NULL, created REAL NOT NULL, owner TEXT NOT NULL,
        model TEXT NOT NULL, words TEXT NOT NULL, said TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_time ON pictures (created);
    CREATE INDEX IF NOT EXISTS by_digest ON pictures (digest);
    CREATE INDEX IF NOT EXISTS by_model ON pictures (model, created);
    """,
    """
    ALTER TABLE pictures RENAME TO images;
    ALTER TABLE images RENAME COLUMN words TO search_text;
    ALTER TABLE images RENAME COLUMN said TO metadata;
    """,
)


class PngMetadata(Spec):
    """The `studio` text of a PNG; what a later studio adds is ignored."""

    model_config = ConfigDict(extra="ignore")

    request: ResolvedRequest
    digest: str = Field(min_length=1, max_length=200)
    contents: dict[str, str]
    seconds: float = Field(ge=0)
    owner: str
    created: float = Field(ge=0, lt=1e11)
    upscale: UpscaleRecord | None = None
    used_files: UsedFiles = NO_FILES

    @classmethod
    def complete_stored(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        request = ResolvedRequest.complete_stored(values["request"])
        return super().complete_stored({**values, "request": request})


@dataclass(frozen=True)
class GeneratedImage:
    """A saved image and its provenance.

    Attributes:
        path: The PNG.
        thumbnail: A small WebP.
        request: What it was made from.
        digest: The sha256 over everything that decides its pixels.
        content_hashes: Hashes and names that the digest was made over.
        seconds: How long it took.
        owner: Whose it is.
        created: Unix time.
        upscale: How it was made larger afterwards; None where it was not.
        used_files: The files of weights, as other programs know them.
    """

    path: Path
    thumbnail: Path
    request: ResolvedRequest
    digest: str
    content_hashes: Mapping[str, str]
    seconds: float
    owner: str
    created: float
    upscale: UpscaleRecord | None = None
    used_files: UsedFiles = NO_FILES

    @property
    def settings(self) -> ResolvedRequest | None:
        """What it was made from; None for an upscaled image of which that is not known."""
        return None if self.upscale and not self.upscale.has_settings else self.request

    @property
    def source_image(self) -> str:
        """The sha256 of the input that it was made from; empty without one."""
        return self.upscale.image if self.upscale else self.request.image

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the file in pixels; None where it is gone or damaged.

        A second pass or outpainting makes it larger than the request's size.
        """
        try:
            return decode.read_image_size(self.path)
        except BadPicture:
            return None


class Gallery:
    """All images of a home, behind one connection; worker and web process each open their own."""

    def __init__(self, settings: Settings) -> None:
        self.outputs = settings.outputs.resolve()
        self.thumbs = settings.thumbs
        self.options = PictureOptions(settings)
        self._database = Database(
            settings.home / "gallery.sqlite",
            MIGRATIONS,
            rebuildable=True,
            holds="the list of your pictures",
        )
        if self._database.notice:
            self.sync()

    def close(self) -> None:
        """Close the index."""
        self._database.close()

    def save(
        self,
        image: Image.Image,
        request: ResolvedRequest,
        *,
        digest: str,
        content_hashes: Mapping[str, str],
        seconds: float,
        owner: str,
        upscale: UpscaleRecord | None = None,
        used_files: UsedFiles = NO_FILES,
    ) -> GeneratedImage:
        """Write the PNG and its thumbnail, then the index.

        Args:
            image: The pixels.
            request: The resolved request of this one image.
            digest: `request.digest(content_hashes)`.
            content_hashes: Hashes and names of what was used.
            seconds: How long it took.
            owner: Whose it is.
            upscale: How it was made larger, if it was.
            used_files: The files of weights, as other programs know them.

        Raises:
            BadFile: The disk does not take it.
        """
        created = time.time()
        metadata: dict[str, Any] = {
            "request": request.model_dump(mode="json"),
            "digest": digest,
            "contents": dict(content_hashes),
            "seconds": round(seconds, 3),
            "owner": owner,
            "created": round(created, 3),
        }
        if upscale:
            metadata["upscale"] = upscale.model_dump(mode="json")
        if used_files != NO_FILES:
            metadata["used_files"] = used_files.model_dump(mode="json")
        making = Making(request, used_files, upscale, metadata)
        data = encode_png(image, build_texts(making, self.options.load()))
        local_time = time.localtime(created)
        folder = self.outputs / time.strftime("%Y-%m-%d", local_time)
        stem = f"{time.strftime('%H%M%S', local_time)}-{request.seed}-{digest[:8]}"
        path = self._write_new_file(folder, stem, data)
        self._write_thumbnail(path, image)
        return self._add_to_index(path, metadata)

    def search(
        self, query: str = "", owner: str | None = None, limit: int = 60, offset: int = 0
    ) -> list[GeneratedImage]:
        """Return images whose prompts, model, scheduler, seed or LoRAs hold all the words.

        Args:
            query: Words with blanks between them.
            owner: Whose images; None is everybody's.
            limit: How many at most, the newest first.
            offset: How many of the newest are skipped.
        """
        sql, values = self._where_clause(query, owner)
        rows = self._database.execute(
            f"SELECT * FROM images {sql} ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            offset,
        )
        images = [self._image_from_row(row) for row in rows]
        return [image for image in images if image is not None]

    def count(self, query: str = "", owner: str | None = None) -> int:
        """Return how many images `search` would find without a limit."""
        sql, values = self._where_clause(query, owner)
        rows = self._database.execute(f"SELECT count(*) AS n FROM images {sql}", *values)
        return int(rows[0]["n"])

    def get(self, path: str | Path) -> GeneratedImage | None:
        """Return the image at a path, or None if it is not in the index."""
        rows = self._database.execute("SELECT * FROM images WHERE path = ?", str(path))
        return self._image_from_row(rows[0]) if rows else None

    def find_by_digest(self, digest: str, owner: str | None = None) -> GeneratedImage | None:
        """Return the newest image of that digest whose file exists, or None.

        Args:
            digest: The digest of a resolved request.
            owner: Whose image; None is anybody's.
        """
        sql = """SELECT * FROM images WHERE digest = ? AND owner = coalesce(?, owner)
                 ORDER BY created DESC"""
        for row in self._database.execute(sql, digest, owner):
            image = self._image_from_row(row)
            if image is not None and image.path.is_file():
                return image
        return None

    def get_seconds_per_megapixel(self, model: str, batched: bool = False) -> float | None:
        """Return the seconds of a U-Net row of a million pixels, as last measured with a model.

        Args:
            model: The model's name.
            batched: Whether to take an image of a batch or a single one.

        Returns:
            None where nothing was measured.
        """
        sql = """SELECT * FROM images WHERE model = ?
                 AND CASE WHEN json_valid(metadata) THEN
                       json_extract(metadata, '$.upscale') IS NULL AND
                       (coalesce(json_extract(metadata, '$.request.batch_size'),
                                 json_extract(metadata, '$.request.batch')) > 1) = ? END
                 ORDER BY created DESC LIMIT 1"""
        rows = self._database.execute(sql, model, batched)
        if not rows:
            return None
        image = self._image_from_row(rows[0])
        if image is None:
            return None
        return image.seconds / max(1e-9, estimate_unet_work(image.request))

    def iter_metadata(self, page_size: int = 1000) -> Iterator[str]:
        """Yield the metadata of every image as JSON text."""
        sql = "SELECT rowid AS id, metadata FROM images WHERE rowid > ? ORDER BY rowid LIMIT ?"
        last_id = 0
        while rows := self._database.execute(sql, last_id, page_size):
            last_id = rows[-1]["id"]
            for row in rows:
                yield row["metadata"]

    def delete(self, path: Path) -> None:
        """Delete an image, its thumbnail and its row. Raises BadFile for any other path."""
        image_path = atomic.resolve_inside(self.outputs, path)
        image_path.unlink()
        self._thumbnail_path(image_path).unlink(missing_ok=True)
        self._database.execute("DELETE FROM images WHERE path = ?", str(image_path))

    def sync(self) -> tuple[int, int]:
        """Make the index agree with the files; return how many rows were added and removed.

        A killed worker may have written a file that is not in the index.
        """
        indexed = {row["path"] for row in self._database.execute("SELECT path FROM images")}
        files = {str(path) for path in self.outputs.rglob("*.png") if path.name[0] != "."}
        missing = indexed - files
        for path_text in missing:
            self._database.execute("DELETE FROM images WHERE path = ?", path_text)
        num_added = 0
        for path_text in sorted(files - indexed):
            path = Path(path_text)
            try:
                with explain_odd_file(path):
                    metadata = self._read_unlisted_image(path)
                    self._add_to_index(path, metadata.model_dump(mode="json"))
            except StudioError:
                continue  # not one of ours, or damaged: it stays, and is not indexed
            num_added += 1
        return num_added, len(missing)

    def _read_unlisted_image(self, path: Path) -> PngMetadata:
        """Return what a PNG says of itself, and make the thumbnail that it lacks.

        Where there is a thumbnail no pixel is decoded: a lost index is made again at a thousand
        images a second instead of forty.

        Raises StudioError.
        """
        if self._thumbnail_path(path).is_file():
            chunks = decode.read_text_chunks(path)
            return validate_stored(PngMetadata, parse_studio_chunk(chunks))
        loaded = decode.load_image(path)
        metadata = validate_stored(PngMetadata, parse_studio_chunk(loaded.text_chunks))
        self._write_thumbnail(path, loaded.image)
        return metadata

    @staticmethod
    def _where_clause(query: str, owner: str | None) -> tuple[str, list[str]]:
        conditions = []
        values = []
        for word in query.split():
            escaped = word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            conditions.append(r"search_text LIKE ? ESCAPE '\'")
            values.append(f"%{escaped}%")
        if owner is not None:
            conditions.append("owner = ?")
            values.append(owner)
        if not conditions:
            return "", []
        return f"WHERE {' AND '.join(conditions)}", values

    def _write_new_file(self, folder: Path, stem: str, data: bytes) -> Path:
        """Write a file under the first free name of `stem`, `stem-1`, …; return its path."""
        for number in range(MAX_SAME_NAMES):
            path = folder / (f"{stem}-{number}.png" if number else f"{stem}.png")
            try:
                atomic.write(path, data, replace=False)
            except FileExistsError:
                continue
            return path.resolve()
        raise BadPicture(f"{folder} already holds ten thousand pictures named {stem}.")

    def _thumbnail_path(self, path: Path) -> Path:
        relative_path = path.resolve().relative_to(self.outputs.resolve())
        return self.thumbs / relative_path.with_suffix(".webp")

    def _write_thumbnail(self, path: Path, image: Image.Image) -> None:
        thumbnail = image.copy()
        thumbnail.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        thumbnail.save(buffer, "WEBP", quality=88)
        atomic.write(self._thumbnail_path(path), buffer.getvalue())

    def _add_to_index(self, path: Path, metadata: dict[str, Any]) -> GeneratedImage:
        request = metadata["request"]
        upscale = metadata.get("upscale")
        words: list[str] = []
        model = str(request["model"])
        if upscale:
            words = ["upscaled", str(upscale["upscaler"])]
        if upscale and not upscale["has_settings"]:
            model = ""
        else:
            words += [str(request.get(name, "")) for name in SEARCHED_FIELDS]
            words += [str(use["name"]) for use in request.get("loras", ())]
        self._database.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)",
            str(path),
            metadata["digest"],
            metadata["created"],
            metadata["owner"],
            model,
            " ".join(words),
            json.dumps(metadata),
        )
        return self._image_from_metadata(path, metadata)

    def _image_from_row(self, row: Row) -> GeneratedImage | None:
        """Return the image of a row; None for one that is damaged, which the log names."""
        try:
            path = Path(row["path"])
            with explain_odd_file(path):
                return self._image_from_metadata(path, json.loads(row["metadata"]))
        except (StudioError, TypeError, ValueError) as error:
            log.warning("A row of the gallery is left out: %s", error)
            return None

    def _image_from_metadata(self, path: Path, metadata: dict[str, Any]) -> GeneratedImage:
        upscale = metadata.get("upscale")
        return GeneratedImage(
            path=path,
            thumbnail=self._thumbnail_path(path),
            request=validate_stored(ResolvedRequest, metadata["request"]),
            digest=metadata["digest"],
            content_hashes=metadata["contents"],
            seconds=_check_number(metadata["seconds"]),
            owner=str(metadata["owner"]),
            created=_check_number(metadata["created"]),
            upscale=UpscaleRecord.model_validate(upscale) if upscale else None,
            used_files=_read_used_files(metadata),
        )


def _read_used_files(metadata: Mapping[str, Any]) -> UsedFiles:
    """Return the files that metadata names; none where it does not, or not as it should."""
    try:
        return validate(UsedFiles, metadata.get("used_files") or {})
    except (InvalidSpec, TypeError, ValueError):
        return NO_FILES


def _check_number(value: Any) -> float:
    """Return a number of metadata. Raises ValueError for one that no clock gives."""
    if type(value) not in (int, float) or not 0 <= value < 1e11:
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)


def parse_studio_chunk(text_chunks: Mapping[str, str]) -> dict[str, Any]:
    """Return our JSON in a PNG, not yet validated. Raises BadPicture where there is none."""
    try:
        return parse_own_json(text_chunks.get(OWN_CHUNK, ""))
    except ValueError as error:
        raise BadPicture(str(error)) from None


def estimate_unet_work(request: ResolvedRequest) -> float:
    """Return how much one image asks of the U-Net: millions of pixels times rows."""
    return rules.estimate_unet_megapixels(request, request.size)


def read_image_settings(
    path: Path, name: str = "", max_pixels: int | None = None, *, with_sidecars: bool = False
) -> Recipe:
    """Return the settings that an image file carries, whoever made it.

    Pixels are decoded only where its texts hold none: for what may be hidden in them.

    Args:
        path: The file; also a text or JSON alone.
        name: What errors call it, where that is not the file's name.
        max_pixels: How many a guest's may have; None where the owner brought it.
        with_sidecars: Whether files of the same name beside it count; only for the owner's paths.

    Raises:
        BadPicture: It is no image, or carries no settings.
    """
    name = name or path.name
    if Path(name).suffix.lower() in SIDECAR_SUFFIXES:
        return read_text_settings(_read_text(path, name), name)
    metadata = read_image_metadata(path, name, with_sidecars=with_sidecars)
    try:
        return sources.read_recipe(metadata)
    except ValueError as error:
        sentence = _explain_unread(name, error)
    with decode.take_turn_for(path, max_pixels):
        hidden = read_image_metadata(path, name, with_hidden=True, max_pixels=max_pixels).hidden
    if hidden:
        with suppress(ValueError):
            return sources.read_recipe(replace(metadata, hidden=hidden))
    raise BadPicture(sentence)


def read_text_settings(text: str, name: str = "the text") -> Recipe:
    """Return the settings in a text alone, pasted or of a file. Raises BadPicture."""
    try:
        return sources.read_recipe(wrap_text(text))
    except ValueError as error:
        raise BadPicture(_explain_unread(name, error)) from None


def _explain_unread(name: str, error: ValueError) -> str:
    """Return a sentence on a file whose settings cannot be read, or that holds none."""
    if isinstance(error, NothingFound):
        return f"No generation settings found in {name}."
    return f"The settings in {name} cannot be read: {error}"


def _read_text(path: Path, name: str) -> str:
    try:
        return read_text_file(path)
    except OSError as error:
        raise BadPicture(f"{name} cannot be read ({error.strerror or error}).") from None


def read_request(
    path: Path, name: str = "", max_pixels: int | None = None
) -> GenerationRequest | None:
    """Return the request that an image file was made from; None where it does not carry one.

    Args:
        path: The file.
        name: What it is called, where that is not the file's name.
        max_pixels: How many a guest's may have; None where the owner brought it.
    """
    try:
        return validate(GenerationRequest, read_image_settings(path, name, max_pixels).values)
    except (BadPicture, InvalidSpec):
        return None
