"""The datasets of the Captions tab: opened once for all pages, looked at in the background, shown to whom they may be.

Knows: which album is open, how far the look at its pictures is, whose a dataset is. Does not know: components, edits.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from studio.errors import DatasetError, NotAllowed, StudioError
from studio.settings import Settings, shipped
from studio.storage.datasets.dataset import Album, Albums
from studio.ui import show
from studio.ui.guard import Visitor

log = logging.getLogger(__name__)


class Shelf:
    """One for the process. Albums are shared by pages: each shows one state or the next."""

    def __init__(self, settings: Settings) -> None:
        self.albums = Albums(settings)
        self._open: dict[str, Album] = {}
        self._looking: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def names(self, visitor: Visitor) -> list[str]:
        """What a visitor may look at: guests only what came with the studio, for the rest is private."""
        names, ours = self.albums.names(), shipped("assets") / "datasets"
        return (
            [name for name in names if self.albums.shelf.folder(name).is_relative_to(ours)]
            if visitor.guest
            else names
        )

    def open(self, name: str, visitor: Visitor) -> Album:
        """The album of a dataset as it is now. Raises DatasetError."""
        if name not in (names := self.names(visitor)):
            raise DatasetError(
                f"There is no dataset {name!r:.80}; there is {', '.join(names) or 'none yet: send pictures'}."
            )
        folder = self.albums.shelf.folder(name).resolve()
        with self._lock:
            album = self._open.get(name)
            if album is None or album.folder != folder:
                album = self._open[name] = self.albums.open(name)
        if album.stale():
            album.refresh()
        self._examine(album)
        return album

    def changeable(self, name: str, visitor: Visitor) -> Album:
        """One that may be written into. Raises NotAllowed for a dataset that came with the studio, and DatasetError."""
        album = self.open(name, visitor)
        if album.shipped:
            raise NotAllowed(
                f"{name} came with the studio and stays as it is; press Copy it to edit, and caption the copy."
            )
        return album

    def looking(self, name: str) -> tuple[int, int] | None:
        """How many pictures were decoded, of how many, while a dataset is looked at."""
        return self._looking.get(name)

    def _examine(self, album: Album) -> None:
        """Decode what is new, in a thread of its own: only then broken pictures and repeated ones are known."""
        unseen = album.counts().unseen
        with self._lock:
            if not unseen or album.name in self._looking:
                return
            self._looking[album.name] = (0, unseen)
        threading.Thread(target=self._look, args=(album,), daemon=True).start()

    def _look(self, album: Album) -> None:
        def report(done: int, of: int) -> None:
            self._looking[album.name] = (done, of)

        try:
            album.examine(report)
        except (StudioError, OSError):
            log.exception("the pictures of %s could not be looked at", album.name)
        finally:
            self._looking.pop(album.name, None)


def addresses(album: Album, keys: Sequence[str], visitor: Visitor) -> list[str]:
    """Where the page finds small pictures; "" for one that cannot be read. Guests get them inside the page: none is served."""
    return [
        "" if path is None else _carried(path) if visitor.guest else show.address(path)
        for path in album.thumbs(keys)
    ]


def _carried(path: Path) -> str:
    try:
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""
