"""Small pictures of a dataset's pictures, made once: what a page of an album shows.

Knows: that a file whose size and time are the same is the same; where the page may read them (home/thumbs). Does not know: albums.
The folder may be deleted: what is missing is made again.
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

SIDE = 320  # pixels, the longer side
AT_ONCE = 4


class Thumbs:
    """Thumbnails of any files, in home/thumbs/datasets."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.thumbs / "datasets"

    def of(self, paths: Sequence[Path]) -> list[Path | None]:
        """The thumbnails (WebP) of pictures, made where there are none yet; None for one that cannot be read."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._one, paths))

    def _one(self, path: Path) -> Path | None:
        try:
            about = os.stat(path)
            name = hashlib.sha256(
                f"{about.st_size} {about.st_mtime_ns} ".encode() + os.fsencode(path.absolute())
            ).hexdigest()[:40]
            thumb = self._folder / name[:2] / f"{name}.webp"
            if not thumb.is_file():
                image = decode.load(path).image
                image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                out = io.BytesIO()
                image.save(out, "WEBP", quality=85)
                atomic.write(thumb, out.getvalue(), settle=False)
            return thumb
        except (StudioError, OSError):
            return None
