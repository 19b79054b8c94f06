"""Images that are nearly the same: resized, compressed, recoloured or slightly cropped copies.

Knows: when two are.
Does not know: files.

Images that CLIP or a coarse look finds alike are laid over each other as thumbnails, whole and with
a little cropped from either, and have to agree almost everywhere. CLIP alone would take two images
of the same thing for copies.

MIN_DUPLICATE_SIMILARITY was measured on 1,399 drawings of the small world and of the demos' two
concepts (977,901 pairs, no copies): the two most alike reach 0.984 (two Moons with other stars),
the next 0.967. Of copies, all were above it that were compressed (JPEG 30), resized, recoloured, or
had more contrast, 99 % of those with 3 % cropped, 92 % with 5 %, 86 % with 10 %, 70 % of those
brightened by 15 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image
from scipy.ndimage import laplace
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

MIN_DUPLICATE_SIMILARITY = 0.986
# Of pairs that are laid over each other
MIN_CLIP_SIMILARITY = 0.9
MIN_COARSE_SIMILARITY = 0.8
MAX_NEIGHBOURS = 8  # of each image, at most
ROWS_PER_BLOCK = 512  # compared with all images at once
THUMBNAIL_SIDE_PX = 32
COARSE_SIDE_PX = 16
OVERLAY_SIDE_PX = 24
CROP_FRACTIONS = (0.97, 0.94, 0.9)  # what remains of each side


def make_thumbnail(image: Image.Image) -> np.ndarray:
    """Return what is stored of an image to compare it: (THUMBNAIL_SIDE_PX, …, 3), uint8."""
    size = (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def find_groups(
    vectors: np.ndarray,
    thumbnails: np.ndarray,
    check_cancelled: Callable[[], None] = lambda: None,
    choose_best: Callable[[list[int]], int] = min,
) -> list[list[tuple[int, float]]]:
    """Group images that are nearly the same.

    Args:
        vectors: CLIP's unit vectors (n, width).
        thumbnails: Thumbnails (n, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3), uint8.
        check_cancelled: Called for each pair that is compared; may raise to stop.
        choose_best: Chooses a row of a group.

    Returns:
        Groups of two rows or more, the best row first, each with its similarity to it (0 to 1).
    """
    compute_similarity = _OverlaySimilarity(thumbnails)
    pairs = []
    for pair in _find_candidate_pairs(vectors, thumbnails):
        check_cancelled()
        if compute_similarity(*pair) >= MIN_DUPLICATE_SIMILARITY:
            pairs.append(pair)
    groups = []
    for rows in _connect_pairs(pairs, len(vectors)):
        best = choose_best(rows)
        similarities = [(row, compute_similarity(best, row)) for row in rows if row != best]
        groups.append([(best, 1.0), *similarities])
    return groups


def _connect_pairs(pairs: list[tuple[int, int]], num_rows: int) -> list[list[int]]:
    """Return the rows that pairs connect, directly or through others, as sorted groups."""
    first_rows = [first for first, _ in pairs]
    second_rows = [second for _, second in pairs]
    graph = coo_matrix((np.ones(len(pairs)), (first_rows, second_rows)), (num_rows, num_rows))
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for row in sorted({*first_rows, *second_rows}):
        groups.setdefault(int(labels[row]), []).append(row)
    return list(groups.values())


def measure_sharpness(image: Image.Image) -> float:
    """Return how sharp an image is, to compare copies of one size.

    This is the variance of its Laplacian (Pech-Pacheco et al. 2000) over its own variance, so that
    contrast does not count. Copies compressed a little come out somewhat sharper.
    """
    grey = np.asarray(image.convert("L"), np.float32)
    return float(laplace(grey).var() / max(1.0, grey.var()))


def _find_candidate_pairs(vectors: np.ndarray, thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows worth a closer look, each once, the smaller row first."""
    factor = THUMBNAIL_SIDE_PX // COARSE_SIDE_PX
    blocks = thumbnails.reshape(-1, COARSE_SIDE_PX, factor, COARSE_SIDE_PX, factor, 3)
    coarse_vectors = _normalize_images(blocks.mean((2, 4)))
    tables = ((vectors, MIN_CLIP_SIMILARITY), (coarse_vectors, MIN_COARSE_SIMILARITY))
    for start in range(0, len(vectors), ROWS_PER_BLOCK):
        pairs: set[tuple[int, int]] = set()
        for table, min_similarity in tables:
            pairs |= _find_neighbour_pairs(table, start, min_similarity)
        yield from sorted(pairs)


def _find_neighbour_pairs(
    table: np.ndarray, start: int, min_similarity: float
) -> set[tuple[int, int]]:
    """Return the pairs of a block of rows with their nearest neighbours that are near enough."""
    block = table[start : start + ROWS_PER_BLOCK]
    similarities = block @ table.T
    block_rows = np.arange(len(block))
    similarities[block_rows, start + block_rows] = -1.0  # an image is no neighbour of its own
    num_neighbours = min(MAX_NEIGHBOURS, len(table))
    nearest = np.argpartition(-similarities, num_neighbours - 1, axis=1)[:, :num_neighbours]
    is_near = np.take_along_axis(similarities, nearest, 1) >= min_similarity
    pairs = set()
    for block_row, column in zip(*np.nonzero(is_near)):
        row = start + int(block_row)
        neighbour = int(nearest[block_row, column])
        # The smaller row of a pair finds it, or the larger one whose nearest the smaller is: that
        # one may have too many nearer neighbours.
        if row < neighbour or similarities[block_row].argmax() == neighbour:
            pairs.add((min(row, neighbour), max(row, neighbour)))
    return pairs


class _OverlaySimilarity:
    """How much two images agree where they are laid over each other best, -1 to 1."""

    def __init__(self, thumbnails: np.ndarray) -> None:
        """Prepare for thumbnails (n, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3), uint8."""
        boxes = [_make_box(1.0, 0.0, 0.0)]
        for fraction, x, y in product(CROP_FRACTIONS, (0, 0.5, 1), (0, 0.5, 1)):
            boxes.append(_make_box(fraction, x * (1 - fraction), y * (1 - fraction)))

        # A function of its own, not a method: a cached method would keep itself alive.
        @lru_cache(maxsize=2000)
        def crop(row: int) -> np.ndarray:
            return _crop_thumbnail(thumbnails[row], boxes)

        self._crop = crop

    def __call__(self, first: int, second: int) -> float:
        """Return the similarity of two rows: either whole image over each crop of the other."""
        first_views = self._crop(first)
        second_views = self._crop(second)
        return float(
            max((first_views @ second_views[0]).max(), (second_views @ first_views[0]).max())
        )


def _crop_thumbnail(
    thumbnail: np.ndarray, boxes: list[tuple[float, float, float, float]]
) -> np.ndarray:
    """Return crops of a thumbnail as unit vectors."""
    image = Image.fromarray(thumbnail)
    size = (OVERLAY_SIDE_PX, OVERLAY_SIDE_PX)
    crops = [image.resize(size, Image.Resampling.BICUBIC, box) for box in boxes]
    return _normalize_images(np.stack([np.asarray(crop, np.float32) for crop in crops]))


def _make_box(fraction: float, x: float, y: float) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom) in a thumbnail; x and y from 0 to 1."""
    side = THUMBNAIL_SIDE_PX
    return side * x, side * y, side * (x + fraction), side * (y + fraction)


def _normalize_images(images: np.ndarray) -> np.ndarray:
    """Return images (n, height, width, 3) as unit vectors without their mean colour.

    Brightness and tint do not count.
    """
    pixels = np.asarray(images, np.float32)
    rows = (pixels - pixels.mean((1, 2), keepdims=True)).reshape(len(pixels), -1)
    return rows / np.maximum(1e-3, np.linalg.norm(rows, axis=1, keepdims=True))
