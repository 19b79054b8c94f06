"""A dataset of bears, and the tab that shows it."""

from __future__ import annotations

import shutil

import pytest

from studio.services.submission import Services
from studio.ui.tabs.captioning.tab import CaptioningTab
from support.captioning_tab import PLUSH
from support.unopened_page import unopened_page


@pytest.fixture
def desk(desk: Services) -> Services:
    own = desk.home.settings.home / "datasets" / "bears"
    own.mkdir(parents=True)
    for number in range(5):
        shutil.copy(PLUSH / f"{number:03}.png", own)
        (own / f"{number:03}.txt").write_text(f"bear, number {number}\n")
    return desk


@pytest.fixture
def tab(desk: Services) -> CaptioningTab:
    with unopened_page():
        return CaptioningTab(desk)
