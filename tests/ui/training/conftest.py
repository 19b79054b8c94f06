"""The tab that trains."""

from __future__ import annotations

import pytest

from studio.services.submission import Services
from studio.ui.tabs.training.tab import TrainingTab
from support.unopened_page import unopened_page


@pytest.fixture
def tab(desk: Services) -> TrainingTab:
    with unopened_page():
        return TrainingTab(desk)
