"""What the page shows after Stop: the images that there are, the unfinished one marked, never nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.services.submission import Services
from studio.storage.gallery import STOPPED_KEY
from studio.storage.jobs import Progress
from studio.ui.tabs.txt2img import Txt2Img
from studio.ui.views.images import render_image_settings
from studio.ui.views.jobs import render_outcome
from support.unopened_page import unopened_page
from support.visitors import OWNER

REQUEST = GenerationRequest(prompt="a boat", width=64, height=64, seed=1)
STOPPED = {STOPPED_KEY: "step 7 of 20"}


@pytest.fixture
def tab(desk: Services) -> Txt2Img:
    with unopened_page():
        return Txt2Img(desk)


def save(desk: Services, seed: int, **contents: str) -> dict[str, Any]:
    """Save an image as a worker does; return its entry."""
    resolved = REQUEST.model_copy(update={"seed": seed}).resolve(64, 0)
    saved = desk.home.gallery.save(
        Image.new("RGB", (64, 64), (seed, 0, 0)),
        resolved,
        digest=resolved.digest(contents),
        content_hashes=contents,
        seconds=1.0,
        owner=OWNER.id,
    )
    return {"path": str(saved.path), **contents}


def run_and_stop(desk: Services, *images: dict[str, Any]) -> None:
    jobs = desk.home.jobs
    job_id = jobs.submit("generate", REQUEST.model_dump(mode="json"), OWNER.id, tab=OWNER.tab)
    jobs.claim("cpu", job_id)
    jobs.report_progress(job_id, Progress(7, 20, images=images))
    jobs.finish(job_id, "cancelled")


def shown_paths(tab: Txt2Img) -> tuple[list[str], str | None, str]:
    panel = tab.result_panel
    updates = panel.render(OWNER)
    return (
        updates.get(panel.paths, []),
        updates.get(panel.selected_path),
        updates[panel.live_preview],
    )


def test_the_unfinished_image_is_in_view_behind_the_finished_ones(
    desk: Services, tab: Txt2Img
) -> None:
    whole, half = save(desk, 1), save(desk, 2, **STOPPED)
    run_and_stop(desk, whole, half)
    paths, selected, message = shown_paths(tab)
    assert paths == [whole["path"], half["path"]]
    assert selected == half["path"]
    assert "Stopped at step 7 of 20. 1 finished before that." in message
    assert "marked as stopped" in message


def test_a_stop_before_the_first_step_leaves_the_earlier_images(
    desk: Services, tab: Txt2Img
) -> None:
    earlier = save(desk, 3)
    run_and_stop(desk, earlier)
    run_and_stop(desk)
    paths, selected, message = shown_paths(tab)
    assert paths == [earlier["path"]] == [selected]
    assert "Stopped." in message
    Path(earlier["path"]).unlink()
    assert shown_paths(tab)[0] == []


def test_the_settings_of_an_unfinished_image_say_so(desk: Services) -> None:
    half, whole = (desk.home.gallery.get(save(desk, 4, **marks)["path"]) for marks in (STOPPED, {}))
    assert "at step 7 of 20" in render_image_settings(half)
    assert "Stopped" not in render_image_settings(whole)


def test_an_unfinished_image_survives_a_rebuilt_index(desk: Services) -> None:
    half = save(desk, 5, **STOPPED)
    gallery = desk.home.gallery
    gallery._database.execute("DELETE FROM images")
    gallery.sync()
    found = gallery.get(half["path"])
    assert found
    assert found.stopped_at == "step 7 of 20"
    assert gallery.get_seconds_per_megapixel(REQUEST.model) is None


def test_several_unfinished_images_are_one_sentence(desk: Services) -> None:
    run_and_stop(desk, save(desk, 6, **STOPPED), save(desk, 7, **STOPPED))
    message = render_outcome(desk.home.jobs.list_recent(1)[0])
    assert "Stopped at step 7 of 20. The 2 unfinished images are in the gallery" in message
