"""The preview images that lie beside models and LoRAs, as small images of the home's own.

Knows: that a page does not wait for images to be made. Does not know: where previews lie
(storage/models/sidecars.py); how a card looks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from studio.services.urls import file_url
from studio.settings import Settings
from studio.storage.datasets.thumbnails import ThumbnailCache
from studio.storage.models.sidecars import find_preview

MAX_FAILED = 10_000


class ModelPreviews:
    """Addresses of previews; what is missing is made by a thread, and shown the next time."""

    def __init__(self, settings: Settings) -> None:
        self._thumbnails = ThumbnailCache(settings, "models")
        self._failed: set[Path] = set()
        self._maker: threading.Thread | None = None
        self.revision = 0  # grows when more can be shown

    def list_urls(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the addresses of those previews that are ready, by path of the file or folder."""
        urls: dict[Path, str] = {}
        missing: list[Path] = []
        for path in paths:
            image = find_preview(path)
            if image is None or image in self._failed:
                continue
            thumbnail = self._thumbnails.find_thumbnail(image)
            if thumbnail:
                urls[path] = file_url(thumbnail)
            else:
                missing.append(image)
        if missing and not (self._maker and self._maker.is_alive()):
            self._maker = threading.Thread(target=self._make, args=(missing,), daemon=True)
            self._maker.start()
        return urls

    def _make(self, images: Sequence[Path]) -> None:
        thumbnails = self._thumbnails.make_thumbnails(images)
        for image, thumbnail in zip(images, thumbnails):
            if thumbnail is None and len(self._failed) < MAX_FAILED:
                self._failed.add(image)
        self.revision += 1
