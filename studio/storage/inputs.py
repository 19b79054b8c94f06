"""Pictures and masks to work on: kept under the sha256 of their content, so that a request can be repeated months later.

Knows: home/inputs, what a request's picture and mask have to be. Does not know: what is done with them.

A file is a PNG without any text: what `images.load` made of the one that came in. The same pixels are the same file. What a guest
brought has an empty file beside it, <sha256>.<guest>: to a guest nothing else is there, for the owner everything is. What nothing
refers to any more is kept for a day.
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

from studio.core.generation.geometry import MOST_PIXELS, MOST_SIDE, Size
from studio.core.generation.request import GenerationRequest
from studio.errors import BadPicture, InvalidSpec
from studio.imaging import decode
from studio.settings import Settings
from studio.storage import atomic

KEPT = (
    24 * 3600.0
)  # seconds that a picture is kept after it was last brought, although nothing refers to it


@dataclass(frozen=True)
class Input:
    """A picture that was taken in: its name for a request, its (width, height), and what was done to it."""

    sha256: str
    size: Size
    notes: tuple[str, ...] = ()


class Inputs:
    """All pictures and masks of a home's requests."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.inputs

    def add(
        self, source: Path | bytes | Image.Image, name: str = "", by: str | None = None
    ) -> Input:
        """Take in a picture: upright, RGB, transparent places white. `by` is the guest who brings it.

        Raises BadPicture, or BadFile for a full disk.
        """
        if isinstance(source, Image.Image):
            return self._keep(source.convert("RGB"), (), by)
        loaded = decode.load(source, name)
        return self._keep(loaded.image, loaded.notes, by)

    def add_mask(
        self, source: Path | bytes | Image.Image, name: str = "", by: str | None = None
    ) -> Input:
        """Take in a mask: white is repainted; colours become greys, transparent places black. Raises what `add` raises."""
        if isinstance(source, Image.Image):
            return self._keep(source.convert("L"), (), by)
        return self._keep(
            decode.load(source, name, background=(0, 0, 0)).image.convert("L"), (), by
        )

    def add_transparency(self, source: Path | bytes, name: str = "") -> Input:
        """Take in the mask that a picture's own transparency is: what cannot be seen is repainted. Raises BadPicture."""
        name = name or (source.name if isinstance(source, Path) else "The picture")
        mask = decode.transparent(source, name)
        if mask is None:
            raise BadPicture(f"{name} has no transparent places that could be its mask.")
        return self._keep(mask, ())

    def path(self, sha256: str, guest: str | None = None) -> Path:
        """The file. Raises BadPicture where there is none, also where that guest never brought it."""
        path = self._folder / f"{sha256}.png"
        there = re.fullmatch("[0-9a-f]{64}", sha256) and path.is_file()
        if not there or (guest is not None and not self._of(sha256, guest).is_file()):
            raise BadPicture(f"The picture {sha256[:12]} is not in {self._folder}; send it again.")
        return path

    def size(self, sha256: str) -> Size:
        """(width, height), read from the header."""
        path = self.path(sha256)
        try:
            with Image.open(path, formats=["PNG"]) as image:
                return image.size
        except (OSError, ValueError, SyntaxError):
            raise BadPicture(
                f"{path.name} in {self._folder} is damaged; send the picture again."
            ) from None

    def load(self, sha256: str) -> Image.Image:
        """The picture, RGB. Raises BadPicture where it is missing or is not what it was."""
        path = self.path(sha256)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadPicture(
                f"{path.name} in {self._folder} is not the picture it was; send it again."
            )
        return decode.load(data, path.name).image

    def load_mask(self, sha256: str) -> Image.Image:
        """The mask, one channel (L)."""
        return self.load(sha256).convert("L")

    def check(self, request: GenerationRequest) -> None:
        """That a request's picture and mask are here and fit each other. Raises BadPicture, InvalidSpec."""
        if not request.image:
            return
        width, height = self.size(request.image)
        if request.task == "inpaint" and (mask := self.size(request.mask)) != (width, height):
            raise InvalidSpec(
                [
                    f"Mask: is {mask[0]} × {mask[1]} pixels large, and the picture {width} × {height}; they have to be "
                    "equally large."
                ]
            )
        left, top, right, bottom = request.extension
        whole = width + left + right, height + top + bottom
        if max(whole) > MOST_SIDE or whole[0] * whole[1] > MOST_PIXELS:
            raise InvalidSpec(
                [
                    f"Extension: the picture would become {whole[0]} × {whole[1]} pixels large; at most "
                    f"{MOST_PIXELS // 10**6} million and {MOST_SIDE} a side are possible."
                ]
            )

    def resolved(self, request: GenerationRequest, side: int, seed: int) -> GenerationRequest:
        """A request with nothing left open: its own `resolved`, told how large its picture is. Raises BadPicture, InvalidSpec."""
        return request.resolved(side, seed, self.size(request.image) if request.image else None)

    def tidy(self, referring: Iterable[str]) -> int:
        """Throw away pictures that have been here for KEPT and are named in none of these texts; how many went.

        `referring` is read to its end before the first goes, and after it was seen which are old: what is brought meanwhile stays.
        """
        of: dict[str, list[Path]] = {}
        for path in sorted(
            self._folder.iterdir(), key=lambda path: path.suffix != ".png"
        ):  # the picture before its marks
            if re.fullmatch(r"[0-9a-f]{64}\.[^.]+", path.name):
                of.setdefault(path.stem, []).append(path)
        old = {name for name, paths in of.items() if _rests(paths)}
        for text in referring if old else ():
            old -= set(re.findall("(?=([0-9a-f]{64}))", text))
        gone = [name for name in old if _rests(of[name])]
        for path in (path for name in gone for path in of[name]):
            path.unlink(missing_ok=True)
        return len(gone)

    def _of(self, sha256: str, guest: str) -> Path:
        return self._folder / f"{sha256}.{guest}"

    def _keep(self, image: Image.Image, notes: tuple[str, ...], by: str | None = None) -> Input:
        out = io.BytesIO()
        Image.frombytes(image.mode, image.size, image.tobytes()).save(
            out, "PNG"
        )  # the pixels and nothing else
        name = hashlib.sha256(out.getvalue()).hexdigest()
        path = self._folder / f"{name}.png"
        if path.is_file() and path.read_bytes() == out.getvalue():
            os.utime(path)  # brought again
        else:
            atomic.write(path, out.getvalue())
        if by is not None:
            atomic.write(self._of(name, by), b"", settle=False)
        return Input(name, image.size, notes)


def _rests(paths: Iterable[Path]) -> bool:
    """Whether nobody brought it for long."""
    try:
        return all(path.stat().st_mtime < time.time() - KEPT for path in paths)
    except OSError:
        return False
