"""Sizes, boxes and tiles: pure numbers, some worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from studio.core.generation import geometry
from studio.core.generation.geometry import Box, Size

pytestmark = pytest.mark.smoke

SIDE = st.integers(8, 300)
PAINT = st.integers(8, 64).map(lambda k: 8 * k)


# Mask, padding, picture, painted at → box. Worked out by hand from A1111's rule: pad, clip, widen to the shape, push inside.
BY_HAND: list[tuple[Box, int, Size, Size, Box]] = [
    ((40, 40, 60, 60), 0, (128, 128), (512, 512), (40, 40, 60, 60)),  # has the shape already
    ((40, 40, 60, 60), 10, (128, 128), (512, 512), (30, 30, 70, 70)),
    (
        (40, 50, 60, 60),
        0,
        (128, 128),
        (512, 512),
        (40, 45, 60, 65),
    ),  # 20 × 10: five more above and below
    (
        (50, 40, 60, 61),
        0,
        (128, 128),
        (512, 512),
        (45, 40, 66, 61),
    ),  # 10 × 21: eleven more, five of them on the left
    (
        (0, 0, 20, 10),
        0,
        (128, 128),
        (512, 512),
        (0, 0, 20, 20),
    ),  # five above are outside: pushed down
    ((108, 118, 128, 128), 0, (128, 128), (512, 512), (108, 108, 128, 128)),  # pushed up
    ((0, 50, 128, 60), 32, (128, 128), (512, 512), (0, 0, 128, 128)),  # 128 × 74, then all
    (
        (10, 10, 110, 30),
        0,
        (120, 60),
        (512, 512),
        (10, 0, 110, 60),
    ),  # wants 100 high, the picture has 60
    ((40, 40, 60, 60), 0, (128, 128), (512, 768), (40, 35, 60, 65)),  # 2 : 3
    ((40, 40, 60, 60), 0, (128, 128), (768, 512), (35, 40, 65, 60)),
    ((5, 5, 6, 6), 4, (128, 128), (64, 64), (1, 1, 10, 10)),
    (
        (0, 0, 1, 1),
        256,
        (100, 50),
        (64, 64),
        (0, 0, 100, 50),
    ),  # wider than high: 100 high are wanted
]


@pytest.mark.parametrize(("mask", "padding", "size", "paint", "expected"), BY_HAND)
def test_the_box_around_a_mask(
    mask: Box, padding: int, size: Size, paint: Size, expected: Box
) -> None:
    assert geometry.compute_crop_box(mask, padding, size, paint) == expected


@given(st.tuples(SIDE, SIDE), st.tuples(PAINT, PAINT), st.integers(0, 256), st.data())
def test_the_box_is_diffusers_own(
    size: Size, paint: Size, padding: int, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    right, bottom = (
        data.draw(st.integers(left + 1, size[0])),
        data.draw(st.integers(top + 1, size[1])),
    )
    found = geometry.compute_crop_box((left, top, right, bottom), padding, size, paint)
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    assert found == VaeImageProcessor().get_crop_region(mask, *paint, pad=padding)
    assert 0 <= found[0] <= max(0, left - padding)
    assert min(size[0], right + padding) <= found[2] <= size[0]
    assert 0 <= found[1] <= max(0, top - padding)
    assert min(size[1], bottom + padding) <= found[3] <= size[1]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 64), st.integers(0, 32))
def test_tiles_cover_all_and_overlap(across: int, down: int, side: int, overlap: int) -> None:
    assume(2 * overlap <= side)
    size, side, overlap = (8 * across, 8 * down), 8 * side, 8 * overlap
    boxes = geometry.split_into_tiles(size, side, overlap)
    assert len({(right - left, bottom - top) for left, top, right, bottom in boxes}) == 1
    for first, last, length in ((0, 2, size[0]), (1, 3, size[1])):
        spans = sorted({(box[first], box[last]) for box in boxes})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(start % 8 == 0 and end - start <= side for start, end in spans)
        assert all(before[1] - after[0] >= overlap for before, after in pairwise(spans))


@pytest.mark.parametrize(
    ("steps", "strength", "run"),
    [
        (20, 0.75, 15),
        (20, 0.6, 12),
        (10, 0.7, 7),
        (3, 0.5, 1),
        (100, 0.29, 28),
        (20, 1.0, 20),
        (20, 0.0, 0),
    ],
)
def test_steps_that_run(steps: int, strength: float, run: int) -> None:
    assert geometry.count_effective_steps(steps, strength) == run


@pytest.mark.parametrize(
    ("wanted", "own", "size"),
    [
        ((None, None), (125, 130), (128, 128)),
        ((None, None), (4096, 2048), (2048, 1024)),
        ((None, None), (20, 300), (64, 304)),
        ((512, None), (100, 50), (512, 256)),
        ((None, 512), (100, 50), (1024, 512)),
        ((512, 768), (1, 1), (512, 768)),
    ],
)
def test_sizes_that_are_painted(
    wanted: tuple[int | None, int | None], own: Size, size: Size
) -> None:
    assert geometry.resolve_size(wanted, own) == size


@pytest.mark.parametrize("steps", [1, 9, 50, 90, 100, 150, 997])
def test_a_strength_runs_just_so_many_steps(steps: int) -> None:
    """29 of 50 are 0.58, of which a float makes 28."""
    counts = range(steps + 1)
    strengths = [geometry.find_strength(steps, count) for count in counts]
    assert [geometry.count_effective_steps(steps, share) for share in strengths] == [*counts]
    assert strengths == [round(share, 4) for share in strengths]
    assert geometry.find_strength(steps, steps + 1) == 1
