"""Images and masks to work on, stored under the sha256 of their content.

So a request can be repeated months later.

Knows: home/inputs, what a request's image and mask have to be. Does not know: what is done with
them.

A file is a PNG without any text: what imaging/decode.py made of the one that came in, with its
transparency where that was asked for. The same pixels are the same file. An image that a guest sent
has an empty file beside it, <sha256>.<guest>: guests find nothing else, the owner finds everything.
What nothing refers to any more stays for a day.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from studio.core.base import SHA256_PATTERN, is_sha256
from studio.core.generation.geometry import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE_PX, Size
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.templates.prompt_files import PromptFiles
from studio.errors import BadFile, BadPicture, InvalidSpec, StudioError
from studio.imaging import decode
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.odd_files import explain_odd_file

# How long an image that nothing refers to stays after it was last sent.
RETENTION_SECONDS = 24 * 3600.0
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Input:
    """A stored image: its name for a request, its (width, height), and what was done to it."""

    sha256: str
    size: Size
    notes: tuple[str, ...] = ()


class Inputs:
    """All images and masks of a home's requests."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.inputs
        self._guest_pixels = settings.guest_pixels
        self._guest_bytes = settings.guest_upload_mb * 2**20
        self._all_guests_bytes = settings.all_guests_upload_mb * 2**20

    def add(
        self,
        source: Path | bytes | Image.Image,
        name: str = "",
        guest_id: str | None = None,
        *,
        keeps_transparency: bool = False,
    ) -> Input:
        """Store an image: upright, RGB, transparent places white.

        Args:
            source: A file, its bytes, or pixels.
            name: What errors call it.
            guest_id: The guest who sends it; None is the owner.
            keeps_transparency: Store transparent places of a file as they are; who loads the image
                gets white there still, unless they ask for RGBA.

        Raises:
            BadPicture: It is no image that the studio takes.
            BadFile: The disk is full, or the guest has sent enough.
        """
        if isinstance(source, Image.Image):
            return self._store(source.convert("RGB"), (), guest_id)
        max_pixels = self.max_pixels(guest_id)
        with decode.take_turn_for(source, max_pixels):
            # No name keeps the pixels when the turn ends.
            background = None if keeps_transparency else WHITE
            return self._store_decoded(
                decode.load_image(source, name, background, max_pixels), guest_id
            )

    def add_mask(
        self, source: Path | bytes | Image.Image, name: str = "", guest_id: str | None = None
    ) -> Input:
        """Store a mask: white is repainted; colours become greys, transparent places black.

        Arguments and errors are those of `add`.
        """
        if isinstance(source, Image.Image):
            return self._store(source.convert("L"), (), guest_id)
        max_pixels = self.max_pixels(guest_id)
        with decode.take_turn_for(source, max_pixels):
            return self._store(
                decode.load_image(source, name, (0, 0, 0), max_pixels).image.convert("L"),
                (),
                guest_id,
            )

    def add_transparency(self, source: Path | bytes, name: str = "") -> Input:
        """Store an image's transparency as a mask: what cannot be seen is repainted.

        Raises BadPicture for an image without transparent places, and what `add` raises.
        """
        if not name:
            name = source.name if isinstance(source, Path) else "The image"
        with decode.take_turn_for(source):
            mask = decode.load_alpha_mask(source, name)
            if mask is None:
                raise BadPicture(f"{name} has no transparent areas to use as a mask.")
            return self._store(mask, ())

    def max_pixels(self, guest_id: str | None) -> int | None:
        """Return how many pixels an image may have that somebody brings; None is the decoder's."""
        return None if guest_id is None else self._guest_pixels

    def get_path(self, sha256: str, guest_id: str | None = None) -> Path:
        """Return the file of an image.

        Raises BadPicture where there is none, or where that guest never sent it.
        """
        path = self._folder / f"{sha256}.png"
        exists = is_sha256(sha256) and path.is_file()
        if exists and guest_id is not None:
            exists = self._guest_marker(sha256, guest_id).is_file()
        if not exists:
            raise BadPicture(f"The image {sha256[:12]} is not in {self._folder}; send it again.")
        return path

    def read_size(self, sha256: str) -> Size:
        """Return (width, height) in pixels, read from the header. Raises BadPicture."""
        path = self.get_path(sha256)
        try:
            with explain_odd_file(path), Image.open(path, formats=["PNG"]) as image:
                return image.size
        except StudioError:
            raise BadPicture(
                f"{path.name} in {self._folder} is damaged; send the image again."
            ) from None

    def load(self, sha256: str, *, keeps_transparency: bool = False) -> Image.Image:
        """Return an image, RGB, or RGBA where it is stored and asked for with transparent places.

        Raises BadPicture where it is missing or is not what it was.
        """
        path = self.get_path(sha256)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadPicture(f"{path.name} in {self._folder} has changed; send the image again.")
        background = None if keeps_transparency else WHITE
        return decode.load_image(data, path.name, background).image

    def load_mask(self, sha256: str) -> Image.Image:
        """Return a mask, one channel (L). Raises what `load` raises."""
        return self.load(sha256).convert("L")

    def check_request(self, request: GenerationRequest) -> None:
        """Raise BadPicture or InvalidSpec unless a request's image and mask exist and fit."""
        if not request.image:
            return
        width, height = self.read_size(request.image)
        if request.task == "inpaint":
            mask_width, mask_height = self.read_size(request.mask)
            if (mask_width, mask_height) != (width, height):
                raise InvalidSpec(
                    [
                        f"Mask: is {mask_width} × {mask_height} pixels, but the image is {width} "
                        f"× {height}; both must have the same size."
                    ]
                )
        left, top, right, bottom = request.extension
        width += left + right
        height += top + bottom
        if max(width, height) > MAX_IMAGE_SIDE_PX or width * height > MAX_IMAGE_PIXELS:
            raise InvalidSpec(
                [
                    f"Extension: the image would become {width} × {height} pixels; at most "
                    f"{MAX_IMAGE_PIXELS // 10**6} million and {MAX_IMAGE_SIDE_PX} a side are "
                    "allowed."
                ]
            )

    def resolve(
        self,
        request: GenerationRequest,
        native_size: int,
        seed: int,
        files: PromptFiles | None = None,
    ) -> ResolvedRequest:
        """Return a request with nothing left open, told how large its image is.

        See `GenerationRequest.resolve`.

        Raises BadPicture, and InvalidSpec where it comes to what cannot be.
        """
        image_size = self.read_size(request.image) if request.image else None
        return request.resolve(native_size, seed, image_size, files)

    @staticmethod
    def delete(paths: Iterable[Path]) -> int:
        """Delete files that `find_unreferenced` found; return of how many images they were."""
        names = set()
        for path in paths:
            path.unlink(missing_ok=True)
            names.add(path.stem)
        return len(names)

    def find_unreferenced(self, referring_texts: Iterable[str]) -> list[Path]:
        """Return the files of images that are expired and that none of these texts names.

        First it is seen which are old, then the texts are read to their end, then those that were
        sent meanwhile are left out.
        """
        files: dict[str, list[Path]] = {}
        # The image comes before its guests' markers, so that it is deleted first.
        for path in sorted(self._folder.iterdir(), key=lambda path: path.suffix != ".png"):
            if is_sha256(path.stem) and path.suffix:
                files.setdefault(path.stem, []).append(path)
        expired = {sha256 for sha256, paths in files.items() if _is_expired(paths)}
        if not expired:
            return []
        for text in referring_texts:
            expired -= set(re.findall(f"(?=({SHA256_PATTERN}))", text))
        return [
            path
            for sha256 in sorted(expired)
            if _is_expired(files[sha256])
            for path in files[sha256]
        ]

    def _require_room(self, num_bytes: int, guest_id: str) -> None:
        """Raise BadFile where a guest, or all guests, would keep more images than they may."""
        own_bytes = num_bytes
        all_bytes = num_bytes
        for marker in self._folder.iterdir():
            if marker.suffix in (".png", ".tmp") or not is_sha256(marker.stem):
                continue
            try:
                size = marker.with_suffix(".png").stat().st_size
            except OSError:
                continue
            all_bytes += size
            own_bytes += size if marker.suffix == f".{guest_id}" else 0
        for kept_bytes, limit, who in (
            (own_bytes, self._guest_bytes, "A guest"),
            (all_bytes, self._all_guests_bytes, "All guests together"),
        ):
            if kept_bytes > limit:
                raise BadFile(
                    f"{who} can have {limit // 2**20} MiB of images here; unused ones are "
                    "deleted after a day."
                )

    def _guest_marker(self, sha256: str, guest_id: str) -> Path:
        return self._folder / f"{sha256}.{guest_id}"

    def _store_decoded(self, decoded: decode.DecodedImage, guest_id: str | None) -> Input:
        return self._store(decoded.image, decoded.notes, guest_id)

    def _store(
        self, image: Image.Image, notes: tuple[str, ...], guest_id: str | None = None
    ) -> Input:
        image.info = {}  # it is nobody else's; what stands there would be written
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{sha256}.png"
        if guest_id is not None and not self._guest_marker(sha256, guest_id).exists():
            self._require_room(len(data), guest_id)
        if path.is_file() and path.read_bytes() == data:
            os.utime(path)  # sent again
        else:
            atomic.write(path, data)
        if guest_id is not None:
            atomic.write(self._guest_marker(sha256, guest_id), b"", durable=False)
        return Input(sha256, image.size, notes)


def _is_expired(paths: Iterable[Path]) -> bool:
    """Return whether nobody sent it for long."""
    try:
        return all(path.stat().st_mtime < time.time() - RETENTION_SECONDS for path in paths)
    except OSError:
        return False
