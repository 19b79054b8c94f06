"""Sizes by their shape: what they are called, and that each still fills in its two sides."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from studio.core.families.registry import FAMILIES
from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home
from studio.ui.components.size_presets import list_size_presets, name_aspect_ratio
from studio.ui.tabs.txt2img import Txt2Img


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((512, 512), "1:1"),
        ((768, 512), "3:2"),
        ((512, 768), "2:3"),
        ((1152, 896), "≈ 5:4"),
        ((1344, 768), "≈ 16:9"),
        ((768, 1344), "≈ 9:16"),
        ((1024, 64), "≈ 21:9"),
    ],
)
def test_a_size_is_called_by_the_nearest_usual_shape(size: tuple[int, int], name: str) -> None:
    assert name_aspect_ratio(*size) == name


def test_every_size_of_every_family_is_named_and_none_twice() -> None:
    for family in FAMILIES.values():
        sizes = family.list_common_sizes(family.common_sizes[0][0])
        labels = [label for label, _ in list_size_presets(sizes)]
        assert len(set(labels)) == len(labels) == len(sizes)


def test_every_choice_fills_in_width_and_height(tmp_path: Any) -> None:
    with gr.Blocks():
        tab = Txt2Img(Services(Home(load(home=tmp_path, device="cpu"))))
    sent: dict[Any, Any] = dict.fromkeys(tab.estimate_inputs)
    sent |= {tab.form["model"]: "pocket"}
    sides = (tab.form["width"], tab.form["height"])
    shapes = set()
    for label, value in tab.size_choice.choices:
        updates = tab.apply_size_choice({**sent, tab.size_choice: value})
        width, height = (updates[side] for side in sides)
        shapes.add((width, height))
        assert value == tab.NATIVE_SIZE_LABEL or label.endswith(f"· {width} × {height}")
    assert len(shapes) >= 3
