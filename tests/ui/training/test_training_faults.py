"""What is wrong with a training stands beside its fields, and goes when it is mended."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import gradio as gr
import pytest

from studio.services.submission import Services
from studio.ui.tabs.training.tab import TrainingTab
from support.training_tab import config
from support.unopened_page import unopened_page
from support.visitors import OWNER


@pytest.fixture
def tab(desk: Services) -> TrainingTab:
    with unopened_page():
        return TrainingTab(desk)


def page(tab: TrainingTab, **values: Any) -> dict[Any, Any]:
    typed = {tab.form[name]: value for name, value in values.items()}
    return {**tab.form.fill(config()), tab.loaded_preset: {}, **typed}


def read_marks(shown: str) -> dict[str, str]:
    (marks,) = re.findall(r'data-faults="([^"]*)"', shown)
    return {element: text for element, _, text in json.loads(html.unescape(marks))["faults"]}


def test_wrong_fields_are_marked_while_they_are_typed(tab: TrainingTab, by: Any) -> None:
    marks = read_marks(tab.update_plan(page(tab, steps=-1, rank="many"), by(OWNER))[tab.plan])
    assert set(marks) == {"training-steps", "training-rank"}
    assert marks["training-rank"].startswith("Must be a whole number")
    assert read_marks(tab.update_plan(page(tab), by(OWNER))[tab.plan]) == {}


def test_start_goes_to_the_first_wrong_field_and_needs_no_toast(tab: TrainingTab, by: Any) -> None:
    wrong = page(tab, rank="many")
    with pytest.raises(gr.Error) as caught:
        tab.submit(wrong, by(OWNER))
    assert not caught.value.visible
    shown = tab.explain_refusal(wrong, by(OWNER))
    assert set(read_marks(shown)) == {"training-rank"}
    assert "data-refusal=" in shown
    assert tab.explain_refusal(page(tab), by(OWNER)) == gr.skip()


def test_what_is_no_field_has_a_toast(tab: TrainingTab, by: Any) -> None:
    with pytest.raises(gr.Error) as caught:
        tab.submit(page(tab, model="nothere"), by(OWNER))
    assert caught.value.visible
    assert caught.value.duration
