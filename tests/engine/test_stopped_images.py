"""What a stop leaves: the images before it, and the one that it cut short, which nothing takes for a whole one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.errors import Cancelled
from studio.storage.gallery import STOPPED_KEY
from studio.storage.jobs import Progress
from support.models import POCKET

STEPS = 8
REQUEST: dict[str, Any] = {
    "model": POCKET.name,
    "prompt": "a photo of a red ball on a beach",
    "seed": 4,
    "steps": STEPS,
    "width": 64,
    "height": 64,
}


def stop_at(bench: WorkerContext, step: int, **spec: Any) -> list[Progress]:
    """Make images until so many steps of the whole job are done; return what was reported."""
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.step >= step and progress.message.startswith("Generating"):
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(bench, REQUEST | spec, report)
    return seen


def pixels(entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(entry["path"]), float)


def whole(bench: WorkerContext, **spec: Any) -> dict[str, Any]:
    return dict(generate(bench, REQUEST | spec, lambda progress: None)["pictures"][0])


@pytest.mark.slow
def test_an_unfinished_image_is_kept_and_marked(bench: WorkerContext) -> None:
    (entry,) = stop_at(bench, 6)[-1].images
    assert entry[STOPPED_KEY] == f"step 6 of {STEPS}"
    saved = bench.home.gallery.get(entry["path"])
    assert saved
    assert saved.stopped_at == f"step 6 of {STEPS}"
    assert saved.size == (64, 64)
    # The file says so itself: the index can be made anew from it.
    assert json.loads(Image.open(entry["path"]).info["studio"])["contents"][STOPPED_KEY]
    # It is what was on its way: near the whole image, not equal to it, and not another one.
    finished, other = pixels(whole(bench)), pixels(whole(bench, seed=5, prompt="a dark forest"))
    near = np.abs(pixels(entry) - finished).mean()
    assert 0 < near < np.abs(pixels(entry) - other).mean() / 2


def test_an_unfinished_image_is_no_whole_one(bench: WorkerContext) -> None:
    spec = {"seed": 11}
    (entry,) = stop_at(bench, 5, **spec)[-1].images
    rate = bench.home.gallery.get_seconds_per_megapixel(POCKET.name)
    finished = whole(bench, **spec)
    assert finished["digest"] != entry["digest"]
    assert bench.home.gallery.find_by_digest(finished["digest"]).path != entry["path"]
    (again,) = stop_at(bench, 5, **spec)[-1].images
    # It is measured by whole images alone.
    measured = bench.home.gallery.get_seconds_per_megapixel(POCKET.name)
    assert measured != rate
    assert again["digest"] == entry["digest"]
    assert bench.home.gallery.get(finished["path"]).stopped_at == ""


@pytest.mark.slow
def test_images_before_a_stop_stay_whole(bench: WorkerContext) -> None:
    first, second = stop_at(bench, STEPS + 4, num_images=3)[-1].images
    assert STOPPED_KEY not in first
    assert second[STOPPED_KEY] == f"step 4 of {STEPS}"
    assert np.array_equal(pixels(first), pixels(whole(bench)))


def test_all_of_a_batch_are_kept(bench: WorkerContext) -> None:
    entries = stop_at(bench, 2 * 4, num_images=2, batch_size=2)[-1].images
    assert [entry[STOPPED_KEY] for entry in entries] == [f"step 4 of {STEPS}"] * 2
    assert not np.array_equal(pixels(entries[0]), pixels(entries[1]))


def test_nothing_is_kept_of_what_had_not_begun(bench: WorkerContext) -> None:
    assert stop_at(bench, 0)[-1].images == ()


@pytest.mark.parametrize(
    ("tile", "step"), [pytest.param(0, STEPS + 2, marks=pytest.mark.slow), (96, STEPS + 2)]
)
def test_a_second_pass_is_kept_at_its_size(bench: WorkerContext, tile: int, step: int) -> None:
    hires = {"hires_scale": 2, "hires_tile": tile, "hires_strength": 0.5, "hires_steps": 8}
    (entry,) = stop_at(bench, step, **hires)[-1].images
    assert pixels(entry).shape == (128, 128, 3)
    own = pixels(whole(bench, **hires))
    other = pixels(whole(bench, **hires, seed=5, prompt="a dark forest"))
    assert np.abs(pixels(entry) - own).mean() < np.abs(pixels(entry) - other).mean() / 1.5
