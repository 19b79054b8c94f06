"""The line that says why nothing runs: on every tab, in view, and gone once it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import Studio, shot


@pytest.fixture
def locked_up(chromium: Browser, tmp_path: Path) -> Iterator[Studio]:
    """A studio whose worker's lock leads nowhere."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "worker-cpu.lock").symlink_to("nowhere/at all")
    studio = Studio(home)
    yield studio
    studio.end()


@pytest.mark.slow
def test_why_nothing_runs_is_on_every_tab(locked_up: Studio, visit: Callable[..., Page]) -> None:
    page = visit(locked_up)
    notice = page.locator("#notice .notice")
    expect(notice).to_contain_text("worker-cpu.lock could not be read or written")
    shot(page, "notice")
    page.get_by_role("tab", name="Queue").click()
    expect(notice).to_be_in_viewport()
    (locked_up.home / "worker-cpu.lock").unlink()
    expect(notice).to_have_count(0, timeout=60_000)
