"""Thumbnails of images anywhere, made once: what the page shows of a dataset or of a model.

Knows: that a file whose size and time are the same is the same; where the page may read thumbnails
(home/thumbs). Does not know: datasets. The folder may be deleted: what is missing is made again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from studio.errors import StudioError
from studio.imaging import decode
from studio.settings import Settings
from studio.storage import atomic

MAX_SIDE_PX = 320  # the longer side
DECODE_THREADS = 4


class ThumbnailCache:
    """Thumbnails of any image files, in a folder of home/thumbs."""

    def __init__(self, settings: Settings, folder: str = "datasets") -> None:
        self._folder = settings.thumbs / folder

    def find_thumbnail(self, path: Path) -> Path | None:
        """Return the thumbnail of an image, if it has been made; the image is not opened."""
        try:
            thumbnail_path = self._thumbnail_path(path)
        except OSError:
            return None
        return thumbnail_path if thumbnail_path.is_file() else None

    def make_thumbnails(self, paths: Sequence[Path]) -> list[Path | None]:
        """Return the thumbnails (WebP) of images, made where they are missing.

        None stands for an image that cannot be read.
        """
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            return list(pool.map(self._make_thumbnail, paths))

    def _make_thumbnail(self, path: Path) -> Path | None:
        try:
            thumbnail_path = self._thumbnail_path(path)
            if thumbnail_path.is_file():
                return thumbnail_path
            with decode.take_turn_for(path):
                image = decode.load_image(path).image
                image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=85)
            atomic.write(thumbnail_path, buffer.getvalue(), durable=False)
        except (StudioError, OSError):
            return None
        return thumbnail_path

    def _thumbnail_path(self, path: Path) -> Path:
        stat = os.stat(path)
        stamp = f"{stat.st_size} {stat.st_mtime_ns} ".encode() + os.fsencode(path.absolute())
        name = hashlib.sha256(stamp).hexdigest()[:40]
        return self._folder / name[:2] / f"{name}.webp"
