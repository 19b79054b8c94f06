"""Pictures and texts as a CLIP model's vectors, each looked at once.

Knows: what is remembered (storage/datasets/embedding_cache.py) and what has to be looked at. Does not know: what is asked about them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from studio.engine import prefetch
from studio.engine.clip_search import near_duplicates
from studio.engine.clip_search.near_duplicates import SIDE
from studio.engine.metrics import Clip
from studio.errors import StudioError
from studio.imaging import decode
from studio.storage.datasets.embedding_cache import Vectors
from studio.storage.jobs import Progress

BATCH = 16
THUMBS = f"thumbnail {SIDE}"

Report = Callable[[Progress], None]


class Seen(Protocol):
    """A picture of a dataset that was examined."""

    @property
    def path(self) -> Path: ...

    @property
    def content(self) -> str: ...


def of_pictures(
    clip: Clip, memory: Vectors, items: Sequence[Seen], report: Report
) -> tuple[np.ndarray, dict[str, str]]:
    """Unit vectors (n, width), zeros for pictures that cannot be read any more; and why they cannot, by content.

    What is not remembered is looked at, several at once, and remembered at once: a stop or a kill loses nothing.
    """
    first = {item.content: item for item in items}
    known = memory.get(clip.by, first)
    wanted, broken = (
        [item for content, item in first.items() if content not in known],
        dict[str, str](),
    )
    began, done = time.perf_counter(), 0
    for group in prefetch.groups(prefetch.ahead(wanted, _opened, 2 * BATCH), BATCH):
        left = (time.perf_counter() - began) / done * (len(wanted) - done) if done else None
        report(
            Progress(
                done,
                len(wanted),
                "Looking at the pictures",
                None if left is None else round(left, 1),
            )
        )
        good = [(item.content, *seen) for item, seen in group if not isinstance(seen, StudioError)]
        broken |= {item.content: str(seen) for item, seen in group if isinstance(seen, StudioError)}
        if good:
            found = dict(
                zip(
                    (content for content, *_ in good),
                    map(_bytes, clip.see([image for _, image, _ in good])),
                )
            )
            memory.put(
                THUMBS, {content: small.tobytes() for content, _, small in good}
            )  # first: no vector is without one
            memory.put(clip.by, found)
            known |= found
        done += len(group)
    return _table(known, [item.content for item in items]), broken


def of_texts(clip: Clip, memory: Vectors, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors (n, width)."""
    keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
    by, first = f"{clip.by} words", dict(zip(keys, texts))
    known = memory.get(by, first)
    for group in prefetch.groups(
        sorted(
            (item for item in first.items() if item[0] not in known), key=lambda item: len(item[1])
        ),
        BATCH,
    ):  # by length: little padding
        found = dict(
            zip((key for key, _ in group), map(_bytes, clip.read([text for _, text in group])))
        )
        memory.put(by, found)
        known |= found
    return _table(known, keys)


def thumbnails(memory: Vectors, items: Sequence[Seen]) -> np.ndarray:
    """Small copies (n, side, side, 3), uint8, of pictures that were looked at before, by whatever model."""
    known = memory.get(THUMBS, {item.content for item in items})
    return np.stack(
        [np.frombuffer(known[item.content], np.uint8).reshape(SIDE, SIDE, 3) for item in items]
    )


def _opened(item: Seen) -> tuple[Image.Image, np.ndarray]:
    image = decode.load(item.path).image
    return image, near_duplicates.thumbnail(image)


def _bytes(vector: np.ndarray) -> bytes:
    return np.ascontiguousarray(vector, np.float32).tobytes()


def _table(known: Mapping[str, bytes], keys: Sequence[str]) -> np.ndarray:
    width = max((len(data) for data in known.values()), default=4) // 4
    table = np.zeros((len(keys), width), np.float32)
    for row, key in enumerate(keys):
        if key in known:
            table[row] = np.frombuffer(known[key], np.float32)
    return table
