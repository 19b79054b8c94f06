"""The files of generated images: a PNG in a folder of its day, a thumbnail beside it.

Knows: names that are never taken twice, sizes, what a file says of itself. Does not know: the index
(store.py), when an image is deleted (bin.py).
"""

from __future__ import annotations

import io
import time
from pathlib import Path

from PIL import Image

from studio.core.base import validate_stored
from studio.errors import BadFile, BadPicture
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.gallery.images import PngMetadata, parse_studio_chunk

THUMBNAIL_SIDE_PX = 320  # the longer side
MAX_SAME_NAMES = 10_000


class ImageFiles:
    """The files of one home.

    Args:
        outputs: The folder of images, without links in its path.
        thumbs: The folder of their thumbnails.
    """

    def __init__(self, outputs: Path, thumbs: Path) -> None:
        self.outputs = outputs
        self.thumbs = thumbs

    def write(self, data: bytes, image: Image.Image, *, created: float, name: str) -> Path:
        """Write an image under the first free name, and its thumbnail; return its path.

        Args:
            data: The PNG.
            image: Its pixels.
            created: Unix time, which decides the folder and begins the name.
            name: Ends the name.

        Raises:
            BadFile: The disk does not take it.
        """
        local_time = time.localtime(created)
        folder = self.outputs / time.strftime("%Y-%m-%d", local_time)
        stem = f"{time.strftime('%H%M%S', local_time)}-{name}"
        path = _write_new_file(folder, stem, data)
        self.write_thumbnail(path, image)
        return path

    def list_paths(self) -> set[str]:
        """Return the paths of all images."""
        return {str(path) for path in self.outputs.rglob("*.png") if path.name[0] != "."}

    def delete(self, path: Path) -> None:
        """Delete an image and its thumbnail for good.

        Raises:
            BadFile: It is no image of this folder.
            DiskError: The disk does not let it go.
        """
        if not path.resolve().is_relative_to(self.outputs):
            raise BadFile(f"{path.name} is not in the gallery's folder, so it is not deleted.")
        try:
            path.unlink(missing_ok=True)
            self.get_thumbnail_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise atomic.write_error(path, error) from error

    def read_metadata(self, path: Path) -> PngMetadata:
        """Return what a PNG says of itself, and make the thumbnail that it lacks.

        Where there is a thumbnail no pixel is decoded: a lost index is made again at a thousand
        images a second instead of forty.

        Raises StudioError.
        """
        if self.get_thumbnail_path(path).is_file():
            chunks = decode.read_text_chunks(path)
            return validate_stored(PngMetadata, parse_studio_chunk(chunks))
        loaded = decode.load_image(path)
        metadata = validate_stored(PngMetadata, parse_studio_chunk(loaded.text_chunks))
        self.write_thumbnail(path, loaded.image)
        return metadata

    def get_thumbnail_path(self, path: Path) -> Path:
        """Return where an image's thumbnail belongs. Raises ValueError for one from elsewhere."""
        relative_path = path.resolve().relative_to(self.outputs)
        return self.thumbs / relative_path.with_suffix(".webp")

    def choose_small_file(self, path: Path) -> Path:
        """Return the file to show an image small: its thumbnail, or itself where it has none."""
        try:
            thumbnail = self.get_thumbnail_path(path)
        except (OSError, ValueError):
            return path
        return thumbnail if thumbnail.is_file() else path

    def write_thumbnail(self, path: Path, image: Image.Image) -> None:
        """Write an image's thumbnail. Raises BadFile where the disk does not take it."""
        thumbnail = image.copy()
        thumbnail.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        thumbnail.save(buffer, "WEBP", quality=88)
        atomic.write(self.get_thumbnail_path(path), buffer.getvalue())


def _write_new_file(folder: Path, stem: str, data: bytes) -> Path:
    """Write a file under the first free name of `stem`, `stem-1`, …; return its path."""
    for number in range(MAX_SAME_NAMES):
        path = folder / (f"{stem}-{number}.png" if number else f"{stem}.png")
        try:
            atomic.write(path, data, replace=False)
        except FileExistsError:
            continue
        return path.resolve()
    raise BadPicture(f"{folder} already holds ten thousand images named {stem}.")
