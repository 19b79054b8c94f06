"""Generated images: saved with their request inside, listed, found again.

Knows: files, PNG text, thumbnails, an index that can be rebuilt from the files. Does not know: how
an image was computed, who may see it.

A PNG carries two texts: `parameters`, which A1111 and its relatives read, and `studio`, our JSON,
which loses nothing; or less, as the owner chose (picture_options.py). The index knows all, and lies
outside the folders that the page serves.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from studio.core.generation import rules
from studio.core.generation.carried import Making, build_texts
from studio.core.generation.request import ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import NO_FILES, UsedFiles
from studio.errors import StudioError
from studio.imaging.encode import encode_png
from studio.settings import Settings
from studio.storage.database import Database, Row
from studio.storage.gallery.bin import Bin
from studio.storage.gallery.bin_options import BinOptions
from studio.storage.gallery.files import ImageFiles
from studio.storage.gallery.images import GeneratedImage, read_generated_image
from studio.storage.gallery.search import ImageFilter, ImageSearch
from studio.storage.gallery.tables import (
    MIGRATIONS,
    ImageKind,
    ImageOrigin,
    describe_kind,
    describe_words,
    format_day,
    list_loras,
)
from studio.storage.odd_files import explain_odd_file
from studio.storage.picture_options import PictureOptions

log = logging.getLogger(__name__)

MAX_CACHE_KIB = 64 * 1024  # of the index in memory; SQLite's own 2 MB are read anew each time
_SELECT = "SELECT images.*, metadata FROM images JOIN image_metadata USING (id)"


class Gallery:
    """All images of a home, behind one connection; worker and web process each open their own."""

    def __init__(self, settings: Settings) -> None:
        self.files = ImageFiles(settings.outputs.resolve(), settings.thumbs)
        self.options = PictureOptions(settings)
        self.bin_options = BinOptions(settings)
        self._database = Database(
            settings.home / "gallery.sqlite",
            MIGRATIONS,
            rebuildable=True,
            holds="the list of your images",
        )
        self._database.execute(f"PRAGMA cache_size = -{MAX_CACHE_KIB}")
        self.bin = Bin(self._database, self.files.delete)
        self.index = ImageSearch(self._database)
        if self._database.notice:
            self.sync()

    @property
    def outputs(self) -> Path:
        """The folder of images, without links in its path."""
        return self.files.outputs

    @property
    def thumbs(self) -> Path:
        """The folder of their thumbnails."""
        return self.files.thumbs

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
        origin: ImageOrigin | None = None,
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
            origin: What it was made for; None where its settings say all.

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
        name = f"{request.seed}-{digest[:8]}"
        path = self.files.write(data, image, created=created, name=name)
        origin = origin or ImageOrigin(describe_kind(metadata))
        return self._add_to_index(path, metadata, origin, is_linked=True)

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
        where, values = ImageFilter(query, owner).build_where()
        rows = self._database.execute(
            f"{_SELECT} WHERE {where} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            offset,
        )
        images = [self._image_from_row(row) for row in rows]
        return [image for image in images if image is not None]

    def count(self, query: str = "", owner: str | None = None) -> int:
        """Return how many images `search` would find without a limit."""
        return self.index.count(ImageFilter(query, owner))

    def get(self, path: str | Path) -> GeneratedImage | None:
        """Return the image at a path, also one in the bin; None if it is not in the index."""
        rows = self._database.execute(f"{_SELECT} WHERE path = ?", str(path))
        return self._image_from_row(rows[0]) if rows else None

    def get_by_id(self, image_id: int) -> GeneratedImage | None:
        """Return the image of a number, also one in the bin; None if there is none."""
        rows = self._database.execute(f"{_SELECT} WHERE images.id = ?", image_id)
        return self._image_from_row(rows[0]) if rows else None

    def find_by_digest(
        self, digest: str, owner: str | None = None, *, is_binned: bool = False
    ) -> GeneratedImage | None:
        """Return the newest image of that digest whose file exists, or None.

        Args:
            digest: The digest of a resolved request.
            owner: Whose image; None is anybody's.
            is_binned: Whether one in the bin is looked for, in place of one that is not.
        """
        sql = f"""{_SELECT} WHERE digest = ? AND owner = coalesce(?, owner) AND (binned > 0) = ?
                  ORDER BY created DESC"""
        for row in self._database.execute(sql, digest, owner, is_binned):
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
        sql = f"""{_SELECT} WHERE model = ?
                  AND CASE WHEN json_valid(metadata) THEN
                        json_extract(metadata, '$.upscale') IS NULL AND
                        json_extract(metadata, '$.contents.stopped') IS NULL AND
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
        """Yield the metadata of every image, those in the bin too, as JSON text."""
        sql = f"{_SELECT} WHERE images.id > ? ORDER BY images.id LIMIT ?"
        last_id = 0
        while rows := self._database.execute(sql, last_id, page_size):
            last_id = rows[-1]["id"]
            for row in rows:
                yield row["metadata"]

    def set_opinion(self, path: str | Path, *, stars: int, is_favourite: bool) -> None:
        """List what somebody thinks of an image; where that is kept is storage/sweeps.py's."""
        sql = "UPDATE images SET stars = ?, favourite = ? WHERE path = ?"
        self._database.execute(sql, stars, is_favourite, str(path))

    def sync(self) -> tuple[int, int]:
        """Make the index agree with the files; return how many rows were added and removed.

        A killed worker may have written a file that is not in the index.
        """
        indexed = {row["path"] for row in self._database.execute("SELECT path FROM images")}
        files = self.files.list_paths()
        missing = indexed - files
        num_moved = self._follow_moved_files(missing, files - indexed)
        for path_text in missing:
            self._remove_row(path_text)
        num_added = num_moved
        for path_text in sorted(files - indexed):
            path = Path(path_text)
            if self._database.execute("SELECT 1 FROM images WHERE path = ?", path_text):
                continue  # it was moved with its home, or a worker has just saved it
            try:
                with explain_odd_file(path):
                    metadata = self.files.read_metadata(path).model_dump(mode="json")
                    origin = ImageOrigin(describe_kind(metadata))
                    self._add_to_index(path, metadata, origin, is_linked=False)
            except StudioError:
                continue  # not one of ours, or damaged: it stays, and is not indexed
            num_added += 1
        return num_added, len(missing)

    # ---- rows that are not linked yet -----------------------------------------------------------

    def list_unlinked(self, limit: int = 1000) -> list[tuple[int, Path, float]]:
        """Return number, file and time of images of which it is not known what they belong to."""
        sql = "SELECT id, path, created FROM images WHERE is_linked = 0 ORDER BY id LIMIT ?"
        rows = self._database.execute(sql, limit)
        return [(int(row["id"]), Path(row["path"]), float(row["created"])) for row in rows]

    def link(self, links: Iterable[tuple[int, ImageOrigin | None, int, bool]]) -> None:
        """List what images belong to and what people think of them.

        Args:
            links: For each its number, its origin (None where its settings say all), its stars and
                whether it is a favourite.
        """
        with self._database.transaction():
            for image_id, origin, stars, is_favourite in links:
                own_kind = self._complete_row(image_id)
                origin = origin or ImageOrigin(own_kind)
                self._database.execute(
                    """UPDATE images SET kind = ?, series = ?, stars = ?, favourite = ?,
                       is_linked = 1 WHERE id = ?""",
                    origin.kind,
                    origin.series,
                    stars,
                    is_favourite,
                    image_id,
                )

    def _complete_row(self, image_id: int) -> ImageKind:
        """List the LoRAs of a row that an earlier studio wrote; return what its settings say."""
        sql = "SELECT metadata FROM image_metadata WHERE id = ?"
        for row in self._database.execute(sql, image_id):
            try:
                metadata = json.loads(row["metadata"])
                self._add_loras(image_id, list_loras(metadata))
                return describe_kind(metadata)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                break  # damaged: it is left out wherever it would be shown
        return "txt2img"

    # ---- files ----------------------------------------------------------------------------------

    def _follow_moved_files(self, missing: set[str], unlisted: set[str]) -> int:
        """Keep the rows of a home that was moved, with what no file says; return how many."""
        by_name = {Path(path).parts[-2:]: path for path in unlisted}
        moved = [
            (path, by_name[Path(path).parts[-2:]])
            for path in missing
            if Path(path).parts[-2:] in by_name
            and not Path(path).is_relative_to(self.files.outputs)
        ]
        with self._database.transaction():
            for old_path, path in moved:
                sql = "UPDATE OR IGNORE images SET path = ? WHERE path = ?"
                self._database.execute(sql, path, old_path)
        return len(moved)

    # ---- rows -----------------------------------------------------------------------------------

    def _add_to_index(
        self, path: Path, metadata: dict[str, Any], origin: ImageOrigin, *, is_linked: bool
    ) -> GeneratedImage:
        model, search_text = describe_words(metadata)
        with self._database.transaction():
            self._remove_row(str(path))
            (row,) = self._database.execute(
                """INSERT INTO images VALUES
                   (NULL, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0.0, ?, ?) RETURNING *""",
                str(path),
                metadata["digest"],
                metadata["created"],
                metadata["owner"],
                model,
                origin.kind,
                origin.series,
                format_day(metadata["created"]),
                is_linked,
                search_text,
            )
            sql = "INSERT OR REPLACE INTO image_metadata VALUES (?, ?)"
            self._database.execute(sql, row["id"], json.dumps(metadata))
            self._add_loras(row["id"], list_loras(metadata))
        return read_generated_image(
            path,
            self.files.get_thumbnail_path(path),
            metadata,
            image_id=row["id"],
            binned=row["binned"],
        )

    def _add_loras(self, image_id: int, names: Sequence[str]) -> None:
        for name in names:
            sql = "INSERT OR IGNORE INTO image_loras VALUES (?, ?)"
            self._database.execute(sql, name, image_id)

    def _remove_row(self, path_text: str) -> None:
        for row in self._database.execute(
            "DELETE FROM images WHERE path = ? RETURNING id", path_text
        ):
            for table in ("image_metadata", "image_loras"):
                self._database.execute(f"DELETE FROM {table} WHERE id = ?", row["id"])

    def _image_from_row(self, row: Row) -> GeneratedImage | None:
        """Return the image of a row; None for one that is damaged, which the log names."""
        try:
            path = Path(row["path"])
            with explain_odd_file(path):
                return read_generated_image(
                    path,
                    self.files.get_thumbnail_path(path),
                    json.loads(row["metadata"]),
                    image_id=row["id"],
                    binned=row["binned"],
                )
        except (StudioError, TypeError, ValueError) as error:
            log.warning("A row of the gallery is left out: %s", error)
            return None


def estimate_unet_work(request: ResolvedRequest) -> float:
    """Return how much one image asks of the U-Net: millions of pixels times rows."""
    return rules.estimate_unet_megapixels(request, request.size)
