"""Images and texts as a CLIP model's vectors, each computed once.

Knows: which vectors are stored (storage/datasets/embedding_cache.py) and which have to be computed.
Does not know: what is asked about them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from studio.engine import prefetch
from studio.engine.clip_search import near_duplicates
from studio.engine.clip_search.near_duplicates import THUMBNAIL_SIDE_PX
from studio.engine.metrics import Clip
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.errors import StudioError
from studio.imaging import decode
from studio.storage.datasets.embedding_cache import EmbeddingCache

BATCH_SIZE = 16
THUMBNAIL_KEY = f"thumbnail {THUMBNAIL_SIDE_PX}"


class IndexedImage(Protocol):
    """An image of a dataset whose file was hashed."""

    @property
    def path(self) -> Path:
        """The image's file."""

    @property
    def content_hash(self) -> str:
        """The sha256 of the file."""


def embed_images(
    clip: Clip, cache: EmbeddingCache, images: Sequence[IndexedImage], report: ProgressCallback
) -> tuple[np.ndarray, dict[str, str]]:
    """Return images as unit vectors.

    What is not stored is computed, several images at once, and stored at once: a stop or a kill
    loses nothing.

    Args:
        clip: The model.
        cache: Vectors and thumbnails by content.
        images: n images.
        report: Receives the progress; raises Cancelled to stop.

    Returns:
        Vectors (n, width), float32, zeros for images that cannot be read any more; and why those
        cannot, by their content hash.
    """
    image_of = {image.content_hash: image for image in images}
    vectors = cache.get(clip.model_key, image_of)
    missing = [image for content, image in image_of.items() if content not in vectors]
    failures: dict[str, str] = {}
    tracker = ProgressTracker(report, len(missing))
    tracker.start()
    num_done = 0
    prefetched = prefetch.prefetch_images(missing, _load_image, 2 * BATCH_SIZE)
    for batch in prefetch.iter_batches(prefetched, BATCH_SIZE):
        # 1. Report
        tracker.report(num_done, "Scanning the images")
        # 2. Sort out what cannot be read
        pixels: dict[str, Image.Image] = {}
        thumbnails: dict[str, bytes] = {}
        for item, loaded in batch:
            if isinstance(loaded, StudioError):
                failures[item.content_hash] = str(loaded)
            else:
                image, thumbnail = loaded
                pixels[item.content_hash] = image
                thumbnails[item.content_hash] = thumbnail.tobytes()
        # 3. Compute and store
        if pixels:
            batch_vectors = _to_bytes(clip.encode_images(list(pixels.values())))
            new_vectors = dict(zip(pixels, batch_vectors))
            cache.put(THUMBNAIL_KEY, thumbnails)  # first: no vector is without one
            cache.put(clip.model_key, new_vectors)
            vectors |= new_vectors
        num_done += len(batch)
    return _stack_vectors(vectors, [image.content_hash for image in images]), failures


def embed_texts(clip: Clip, cache: EmbeddingCache, texts: Sequence[str]) -> np.ndarray:
    """Return n texts as unit vectors (n, width), float32; compute and store those not stored."""
    keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
    model_key = f"{clip.model_key} words"
    text_of = dict(zip(keys, texts))
    vectors = cache.get(model_key, text_of)
    missing = [item for item in text_of.items() if item[0] not in vectors]
    missing.sort(key=lambda item: len(item[1]))  # texts of a batch are padded to the longest
    for batch in prefetch.iter_batches(missing, BATCH_SIZE):
        batch_vectors = _to_bytes(clip.encode_texts([text for _, text in batch]))
        new_vectors = dict(zip((key for key, _ in batch), batch_vectors))
        cache.put(model_key, new_vectors)
        vectors |= new_vectors
    return _stack_vectors(vectors, keys)


def load_thumbnails(cache: EmbeddingCache, images: Sequence[IndexedImage]) -> np.ndarray:
    """Return small copies (n, side, side, 3), uint8, of images that any model has embedded."""
    stored = cache.get(THUMBNAIL_KEY, {image.content_hash for image in images})
    data = b"".join(stored[image.content_hash] for image in images)
    shape = (len(images), THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _load_image(item: IndexedImage) -> tuple[Image.Image, np.ndarray]:
    image = decode.load_image(item.path).image
    return image, near_duplicates.make_thumbnail(image)


def _to_bytes(vectors: np.ndarray) -> list[bytes]:
    return [np.ascontiguousarray(vector, np.float32).tobytes() for vector in vectors]


def _stack_vectors(vectors: Mapping[str, bytes], keys: Sequence[str]) -> np.ndarray:
    """Return stored vectors in the order of `keys`, zeros where there is none."""
    width = max((len(data) for data in vectors.values()), default=4) // 4
    table = np.zeros((len(keys), width), np.float32)
    for row, key in enumerate(keys):
        if key in vectors:
            table[row] = np.frombuffer(vectors[key], np.float32)
    return table
