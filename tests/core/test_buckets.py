"""Aspect buckets: kohya's tables and choices, counted out here with exact fractions, and what must hold of every picture."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.training.buckets import Buckets, count_batches, list_bucket_sizes
from support.examples import examples

SIDES = st.integers(64, 9000)


def test_tables_are_kohyas() -> None:
    """The counts that kohya's own program gives; the members counted out from the rule."""
    large, small = (
        list_bucket_sizes((1024, 1024), 256, 2048, 64),
        list_bucket_sizes((512, 512), 256, 1024, 64),
    )
    assert len(large) == 41
    assert len(small) == 17
    assert small == [
        (256, 832),
        (256, 896),
        (256, 960),
        (256, 1024),
        (320, 704),
        (320, 768),
        (384, 640),
        (448, 576),
        (512, 512),
        (576, 448),
        (640, 384),
        (704, 320),
        (768, 320),
        (832, 256),
        (896, 256),
        (960, 256),
        (1024, 256),
    ]
    assert set(small) == mirrored(512, 256, 1024)
    assert set(large) == mirrored(1024, 256, 2048)
    assert large == sorted(large)
    assert {
        (1024, 1024),
        (832, 1216),
        (1216, 832),
        (896, 1152),
        (1344, 768),
        (2048, 512),
        (512, 2048),
    } <= set(large)


def mirrored(side: int, least: int, most: int) -> set[tuple[int, int]]:
    """By trying out every pair: the tallest for each width, and the same turned."""
    steps = range(least, most + 1, 64)
    tallest = {
        (w, max(h for h in steps if w * h <= side * side))
        for w in steps
        if w * least <= side * side
    }
    return tallest | {(h, w) for w, h in tallest} | {(side, side)}


@given(SIDES, SIDES)
def test_nearest_ratio_and_never_short_of_the_bucket(width: int, height: int) -> None:
    buckets = Buckets((1024, 1024))
    fit = buckets.fit(width, height)
    assert fit
    assert fit.bucket in buckets.sizes
    assert min(fit.cropped_pixels) == 0
    ratio = Fraction(width, height)
    nearest = min(abs(Fraction(*size) - ratio) for size in buckets.sizes)
    if (width, height) not in buckets.sizes:
        assert abs(abs(Fraction(*fit.bucket) - ratio) - nearest) < Fraction(1, 10**12)
    else:
        assert fit.resized_size == fit.bucket == (width, height)
    # resized without being bent: by less than a pixel
    assert abs(fit.resized_size[0] * height - fit.resized_size[1] * width) <= max(width, height)


@given(SIDES, SIDES, st.sampled_from([512, 768, 1024]))
def test_never_enlarged(width: int, height: int, side: int) -> None:
    fit = Buckets((side, side), no_upscale=True).fit(width, height)
    if width * height <= side * side:
        assert fit
        assert fit.resized_size == (width, height)
        assert fit.bucket == (width // 64 * 64, height // 64 * 64)
    elif fit:
        assert fit.resized_size[0] <= width
        assert fit.resized_size[1] <= height
        assert fit.resized_size[0] % 64 == 0 or fit.resized_size[1] % 64 == 0
        assert all(0 <= spare < 64 for spare in fit.cropped_pixels)
        assert abs(fit.resized_size[0] * height - fit.resized_size[1] * width) <= max(width, height)
    else:
        assert max(width, height) > 50 * min(width, height)


@pytest.mark.parametrize(
    ("size", "no_upscale", "bucket", "resized"),
    [
        ((1000, 1000), False, (1024, 1024), (1024, 1024)),
        ((3000, 2000), False, (1216, 832), (1248, 832)),
        ((2000, 3000), False, (832, 1216), (832, 1248)),
        ((1920, 1080), False, (1344, 768), (1365, 768)),
        ((100, 100), False, (1024, 1024), (1024, 1024)),
        ((4000, 256), False, (2048, 256), (4000, 256)),
        ((1000, 1000), True, (960, 960), (1000, 1000)),
        ((3000, 2000), True, (1216, 832), (1248, 832)),
        (
            (1920, 1080),
            True,
            (1344, 768),
            (1365, 768),
        ),  # sides in steps: 1344 x 704 bends more than 1344 x 768
        ((1080, 1920), True, (768, 1344), (768, 1365)),
        ((70, 65), True, (64, 64), (70, 65)),
    ],
)
def test_chosen_sizes(
    size: tuple[int, int], no_upscale: bool, bucket: tuple[int, int], resized: tuple[int, int]
) -> None:
    """Worked out by hand from the published rules."""
    fit = Buckets((1024, 1024), no_upscale=no_upscale).fit(*size)
    assert fit
    assert (fit.bucket, fit.resized_size) == (bucket, resized)
    assert fit.center_offset == ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)


def test_one_size_for_all_and_none_at_all() -> None:
    one = Buckets((512, 768), enabled=False, no_upscale=True)
    assert one.sizes == ((512, 768),)
    fit = one.fit(1000, 1000)
    assert fit
    assert fit.bucket == (512, 768)
    assert fit.resized_size == (768, 768)
    assert Buckets((512, 512), no_upscale=True).fit(63, 500) is None
    assert Buckets((512, 512), no_upscale=True).fit(16000, 70) is None
    assert Buckets((32, 32)).fit(100, 100) is None  # no whole step fits


@settings(max_examples=examples(50))
@given(st.lists(st.sampled_from([(64, 64), (64, 128), (128, 64)]), max_size=40), st.integers(1, 9))
def test_batches(of_samples: list[tuple[int, int]], batch: int) -> None:
    found = count_batches(of_samples, batch)
    assert list(found) == sorted(set(of_samples))
    for size, count in found.items():
        assert (count - 1) * batch < of_samples.count(size) <= count * batch
