"""How far two sets of images are apart, by the features of a network that has seen them.

Knows: features as rows of numbers. Does not know: which network made them, which images they are.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (arXiv:1706.08500), for the
Fréchet distance; Jayasumana et al., "Rethinking FID" (arXiv:2401.09603), for CMMD.
"""

from __future__ import annotations

import numpy as np

CMMD_SIGMA = 10.0  # of the Gaussian kernel, as its authors have it
CMMD_FACTOR = 1000.0  # for numbers that are easy to read, as its authors have it
# Without more images than a feature has numbers, a covariance is not of full rank, and the Fréchet
# distance says more about how few there are than about what they show.
MIN_CMMD_IMAGES = 30
MAX_KERNEL_ROWS = 1000  # at once, so that a large set takes no gigabytes


def compute_frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance of two sets, as if each were a normal distribution; 0 or more.

    The squared distance of the means and trace(A + B - 2 (A B)^½) of the covariances. The trace of
    that root is the sum of the roots of the eigenvalues of A^½ B A^½, which is symmetric, so that
    no root is taken of a matrix that has none.

    Args:
        first: (n, width), n ≥ 2.
        second: (m, width), m ≥ 2.

    Raises:
        ValueError: A set of fewer than two rows, or of another width.
    """
    _check_sets(first, second)
    first, second = first.astype(np.float64), second.astype(np.float64)
    means = first.mean(0) - second.mean(0)
    covariance = np.atleast_2d(np.cov(first, rowvar=False))
    other = np.atleast_2d(np.cov(second, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ other @ root)
    trace = np.trace(covariance) + np.trace(other) - 2 * np.sqrt(np.clip(inner, 0, None)).sum()
    return max(float(means @ means + trace), 0.0)


def compute_cmmd(first: np.ndarray, second: np.ndarray) -> float:
    """Return CMMD: the squared maximum mean discrepancy of two sets of CLIP features, times 1,000.

    With a Gaussian kernel of width `CMMD_SIGMA` on vectors of length 1, by the estimate that counts
    each row with itself too, as its authors' code does: 0 for a set and itself, never below.

    Args:
        first: (n, width), unit vectors.
        second: (m, width), unit vectors.

    Raises:
        ValueError: A set of fewer than two rows, or of another width.
    """
    _check_sets(first, second)
    within = _average_kernel(first, first) + _average_kernel(second, second)
    return max(CMMD_FACTOR * (within - 2 * _average_kernel(first, second)), 0.0)


def describe_small_sets(num_first: int, num_second: int, width: int) -> str:
    """Return a warning that there are too few images for these numbers; "" where there are enough.

    Args:
        num_first: Images of one set.
        num_second: Images of the other.
        width: Numbers of a feature.
    """
    num_images = min(num_first, num_second)
    if num_images > width:
        return ""
    text = (
        f"The smaller set has {num_images:,} images. The Fréchet distance needs more than "
        f"{width:,}, as many as a feature has numbers: with fewer it is too high, and only sets "
        "of the same size can be compared by it."
    )
    if num_images < MIN_CMMD_IMAGES:
        text += f" CMMD, too, is rough below {MIN_CMMD_IMAGES} images."
    return text


def _check_sets(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"Features of two widths: {first.shape} and {second.shape}")
    if min(len(first), len(second)) < 2:
        raise ValueError("Each set needs two images at least.")


def _average_kernel(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = (second**2).sum(1)
    total = 0.0
    for start in range(0, len(first), MAX_KERNEL_ROWS):
        rows = first[start : start + MAX_KERNEL_ROWS]
        squares = (rows**2).sum(1)[:, None] + lengths[None] - 2 * rows @ second.T
        total += float(np.exp(-squares / (2 * CMMD_SIGMA**2)).sum())
    return total / (len(first) * len(second))
