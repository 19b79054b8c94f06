"""Pixels before and after painting: what is not masked stays, whatever was painted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from studio.core.generation import geometry as sizes
from studio.imaging import canvas
from studio.imaging.canvas import Window
from studio.imaging.masks import build_outpaint_mask, prepare_mask
from support.examples import examples

pytestmark = pytest.mark.smoke

SIDE = st.integers(8, 90)
PAINT = st.integers(1, 12).map(lambda k: 8 * k)


def noise(size: sizes.Size, seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    )


def square(size: sizes.Size, box: sizes.Box) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@st.composite
def masks(draw: st.DrawFn) -> Image.Image:
    """Of any size: a few rectangles, or specks."""
    size = draw(SIDE), draw(SIDE)
    mask = Image.new("L", size)
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
        mask.paste(
            draw(st.integers(128, 255)),
            (left, top, left + draw(st.integers(1, 40)), top + draw(st.integers(1, 40))),
        )
    return mask


@settings(max_examples=examples(200))
@given(
    masks(),
    st.booleans(),
    st.integers(-20, 20),
    st.integers(0, 20),
    st.integers(0, 60),
    st.tuples(PAINT, PAINT),
    st.booleans(),
    st.integers(0, 9),
)
def test_outside_the_blurred_mask_every_bit_stays(
    mask: Image.Image,
    invert: bool,
    grow: int,
    blur: int,
    padding: int,
    paint: sizes.Size,
    only_masked: bool,
    seed: int,
) -> None:
    before, painted = noise(mask.size, seed), noise(paint, seed + 1)
    soft = prepare_mask(mask, invert, grow, blur)
    around = soft.getbbox()
    if around is None:
        return
    box = (
        sizes.compute_crop_box(around, padding, mask.size, paint)
        if only_masked
        else (0, 0, *mask.size)
    )
    window = Window.fit(box, paint)
    after = canvas.composite_window(before, painted, soft, window)
    outside, inside = (np.asarray(soft) == value for value in (0, 255))
    assert after.size == before.size
    assert np.array_equal(np.asarray(after)[outside], np.asarray(before)[outside])
    back = np.zeros_like(np.asarray(before))
    back[box[1] : box[3], box[0] : box[2]] = np.asarray(window.resize_back(painted))
    assert np.array_equal(
        np.asarray(after)[inside], back[inside]
    )  # and what is fully masked is what was painted


@given(masks(), st.integers(0, 20))
def test_blur_is_that_of_a1111(mask: Image.Image, blur: int) -> None:
    """Nothing beyond int(2.5 · blur + 0.5) pixels changes; grown masks hold the mask, shrunk ones lie in it."""
    hard, soft = (np.asarray(prepare_mask(mask, blur=value)) for value in (0, blur))
    near = ndimage.maximum_filter(hard, 2 * int(2.5 * blur + 0.5) + 1)
    assert not soft[near == 0].any()
    grown, shrunk = (np.asarray(prepare_mask(mask, grow=value)) for value in (3, -3))
    assert (grown >= hard).all()
    assert (shrunk <= hard).all()
    assert set(np.unique(hard)) <= {0, 255}


def test_blur_of_an_edge_by_hand() -> None:
    """A straight edge blurred by 2: Gaussian weights over 2·int(2.5·2 + 0.5) + 1 = 11 pixels, summed up."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / 8)
    weights /= weights.sum()
    soft = np.asarray(prepare_mask(square((40, 40), (20, 0, 40, 40)), blur=2))[20]
    expected = [
        round(255 * weights[max(0, 25 - x) :].sum()) if x < 25 else 255 for x in range(10, 30)
    ]
    assert np.abs(soft[10:30].astype(int) - np.array(expected)).max() <= 1
    assert not soft[:15].any()
    assert (soft[25:35] == 255).all()


def test_growing_is_round() -> None:
    grown = np.asarray(prepare_mask(square((40, 40), (20, 20, 21, 21)), grow=5)) > 0
    y, x = np.mgrid[:40, :40]
    assert np.array_equal(grown, (y - 20) ** 2 + (x - 20) ** 2 <= 25)
    assert prepare_mask(square((40, 40), (0, 0, 8, 8)), grow=-4).getbbox() == (
        0,
        0,
        4,
        4,
    )  # the picture's edge is no edge
    assert prepare_mask(square((40, 40), (10, 10, 13, 13)), grow=-2).getbbox() is None
    assert prepare_mask(Image.new("L", (9, 9)), invert=True, grow=-5).getextrema() == (255, 255)


@pytest.mark.parametrize("size", [(60, 30), (30, 60), (50, 50), (8, 90)])
def test_resizing(size: sizes.Size) -> None:
    """A picture that is red on the left and blue on the right, to a square."""
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    for mode in ("stretch", "crop", "fill"):
        found = np.asarray(canvas.resize_image(image, (64, 64), mode)).astype(int)  # type: ignore[arg-type]
        assert found.shape == (64, 64, 3)
        assert (found[:, 0] == [255, 0, 0]).all()
        assert (found[:, -1] == [0, 0, 255]).all()
    wide = Image.fromarray(
        np.repeat(np.arange(0, 240, 2, np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    )  # 120 × 60, a ramp
    assert (
        np.ptp(np.asarray(canvas.resize_image(wide, (60, 60), "crop")))
        < 130
        < 230
        < np.ptp(np.asarray(canvas.resize_image(wide, (60, 60), "stretch")))
    )
    filled = np.asarray(canvas.resize_image(noise((60, 30), 1), (64, 64), "fill"))
    assert (filled[:16] == filled[16]).all()
    assert (filled[48:] == filled[47]).all()
    assert not (filled[20] == filled[24]).all()


@given(st.tuples(SIDE, SIDE), st.tuples(PAINT, PAINT))
def test_a_window_goes_there_and_back(size: sizes.Size, paint: sizes.Size) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = Image.fromarray(
        np.stack([x * 255 // size[0], y * 255 // size[1], (x + y) * 0 + 90], -1).astype(np.uint8)
    )
    window = Window.fit((0, 0, *size), paint)
    there = window.crop(smooth)
    assert there.size == paint
    assert window.resize_back(there).size == size
    if min(paint) >= max(size):
        assert (
            np.abs(np.asarray(window.resize_back(there)).astype(int) - np.asarray(smooth)).mean()
            < 4
        )


def test_a_picture_of_the_painted_size_is_not_touched() -> None:
    image = noise((64, 48), 3)
    window = Window.fit((0, 0, 64, 48), (64, 48))
    assert window.crop(image).tobytes() == image.tobytes() == window.resize_back(image).tobytes()
    assert canvas.resize_image(image, (64, 48), "crop").tobytes() == image.tobytes()


@pytest.mark.parametrize("fill", ["edge", "mirror", "noise", "colour"])
def test_extending(fill: str) -> None:
    image = noise((20, 16), 2)
    found = np.asarray(canvas.extend_image(image, (24, 0, 8, 16), fill, "#0a1428", seed=5))  # type: ignore[arg-type]
    inside = np.asarray(image)
    assert found.shape == (32, 52, 3)
    assert np.array_equal(found[:16, 24:44], inside)
    left, below = found[:16, :24], found[16:, 24:44]
    match fill:
        case "edge":
            assert (left == inside[:, :1]).all()
            assert (below == inside[-1:]).all()
        case "mirror":
            assert np.array_equal(below, inside[::-1])
            assert np.array_equal(left[:, 4:], inside[:, ::-1])
        case "noise":
            again = canvas.extend_image(image, (24, 0, 8, 16), "noise", seed=6)
            assert 60 < left.std() < 90
            assert not np.array_equal(found, np.asarray(again))
        case "colour":
            assert (left == [10, 20, 40]).all()
    mask = np.asarray(build_outpaint_mask((20, 16), (24, 0, 8, 16), 1))
    new = np.ones((32, 52), bool)
    new[:16, 24:44] = False
    assert (mask[new] == 255).all()
    assert mask[0, 35] == 0
    assert 0 < mask[8, 27] < 255  # the seam is soft on the picture's side


def test_what_is_masked_is_filled_from_around() -> None:
    image = Image.new("RGB", (61, 40), (200, 30, 30))
    image.paste((30, 30, 200), (30, 0, 61, 40))
    mask = square((61, 40), (5, 10, 56, 30))
    spoilt = image.copy()
    spoilt.paste((0, 255, 0), (5, 10, 56, 30))
    found = np.asarray(canvas.fill_masked(spoilt, mask)).astype(int)
    assert np.array_equal(found[np.asarray(mask) == 0], np.asarray(image)[np.asarray(mask) == 0])
    assert found[..., 1].max() < 60  # nothing of the green
    assert found[20, 8, 0] > 150 > 90 > found[20, 53, 0]  # red from the left, blue from the right
    assert (
        np.ptp(np.asarray(canvas.fill_masked(spoilt, Image.new("L", (61, 40), 255)))) == 0
    )  # nothing around: grey


def test_masks_for_latents() -> None:
    mask = square((32, 24), (7, 7, 9, 9))
    assert canvas.downscale_mask(mask, 8).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert not canvas.downscale_mask(mask.point(lambda value: value // 3), 8).any()


@given(st.integers(9, 30), st.integers(9, 30), st.integers(8, 16), st.integers(0, 8))
def test_tiles_that_are_left_alone_come_to_the_same_picture(
    across: int, down: int, side: int, overlap: int
) -> None:
    size = (8 * across, 8 * down)
    whole = noise(size, 4)
    boxes = sizes.split_into_tiles(size, 8 * side, 8 * min(overlap, side // 2))
    joined = canvas.blend_tiles(size, [(box, whole.crop(box)) for box in boxes])
    assert np.abs(np.asarray(joined).astype(int) - np.asarray(whole)).max() <= 1


def test_tiles_fade_into_each_other() -> None:
    boxes = sizes.split_into_tiles((104, 104), 64, 24)
    values = [0, 80, 160, 240]
    flat = [
        (box, Image.new("RGB", (64, 64), (value,) * 3))
        for box, value in zip(boxes, values, strict=True)
    ]
    joined = np.asarray(canvas.blend_tiles((104, 104), flat)).astype(int)[..., 0]
    assert [joined[0, 0], joined[0, -1], joined[-1, 0], joined[-1, -1]] == values
    assert (
        max(np.abs(np.diff(joined, axis=axis)).max() for axis in (0, 1)) <= 240 / 24 + 1
    )  # no seam
