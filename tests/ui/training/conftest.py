"""The tab that trains."""

from __future__ import annotations

import gradio as gr
import pytest

from studio.services.submission import Services
from studio.ui.tabs.training.tab import TrainingTab


@pytest.fixture
def tab(desk: Services) -> TrainingTab:
    with gr.Blocks():
        return TrainingTab(desk)
