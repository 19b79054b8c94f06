"""Pictures that are nearly the same: resized, compressed, slightly cut or brightened copies.

Knows: when two are. Does not know: files, which of them is to stay.

Two are, if CLIP sees the same in both and they look the same from far away (a grid of 16 × 16 colours). CLIP alone would take two
pictures of the same thing for copies, the grid alone two plain walls.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SAME_SIGHT, SAME_PRINT = 0.9, 0.97
ROWS = 1024  # compared with all others at once


def groups(sights: np.ndarray, prints: np.ndarray) -> list[list[int]]:
    """Rows that belong together, in order; each group has two at least. Both tables hold unit vectors (n, width)."""
    count, ones, others = len(sights), [], []
    for first in range(0, count, ROWS):
        rows = slice(first, first + ROWS)
        same = (sights[rows] @ sights[first:].T >= SAME_SIGHT) & (prints[rows] @ prints[first:].T >= SAME_PRINT)
        one, other = np.nonzero(np.triu(same, 1))
        ones.append(one + first)
        others.append(other + first)
    pairs = np.concatenate(ones), np.concatenate(others)
    _, labels = connected_components(coo_matrix((np.ones(len(pairs[0])), pairs), (count, count)), directed=False)
    found: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        found.setdefault(int(label), []).append(row)
    return [members for members in found.values() if len(members) > 1]
