"""The Sweep tab's form: what varies does not stand under what stays the same; repeats; the title."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.base import validate
from studio.core.generation.lora_use import LoraUse
from studio.core.sweeps.spec import SweepSpec
from studio.services.submission import Services
from studio.ui.tabs.sweep.axes import BLANK_ROW, _render_echo, parse_row
from studio.ui.tabs.sweep.tab import BASE_FIELDS, SweepTab
from studio.ui.views.sweep import get_sweep_title
from support.unopened_page import unopened_page


@pytest.fixture
def tab(desk: Services) -> SweepTab:
    with unopened_page():
        return SweepTab(desk)


@pytest.mark.parametrize(
    ("varied", "hidden"),
    [
        ([], set()),
        (["scheduler", "steps"], {"scheduler", "steps"}),
        (["size"], {"width", "height"}),
        (["lora_weight", "prompt_replace"], set()),
    ],
)
def test_what_varies_is_not_under_what_stays_the_same(
    tab: SweepTab, varied: list[str], hidden: set[str]
) -> None:
    updates = tab.hide_varied_fields(varied)
    names = {component: name for name, component in tab.form.components.items()}
    assert {names[part] for part, update in updates.items() if not update["visible"]} == hidden
    assert {names[part] for part in updates} == set(BASE_FIELDS)


def row(field: str, text: str, **more: Any) -> dict[str, Any]:
    return BLANK_ROW | {"field": field, "text": text} | more


def test_a_value_listed_twice_is_one_cell_and_is_said(tab: SweepTab) -> None:
    values = {part: part.value for part in tab.axis_rows.inputs}
    first = tab.axis_rows.rows[0]
    values |= {tab.axis_rows.fields: ["steps"], first.field: "steps", first.text: "4,4,8"}
    axes, faults = tab.axis_rows.parse_axes(values)
    assert not faults
    assert validate(SweepSpec, {"axes": axes}).value_counts == (2,)
    echo = _render_echo(row("steps", "4,4,8"))
    assert "2 values" in echo
    assert "Listed more than once and used once: 4" in echo
    assert "used once" not in _render_echo(row("steps", "4,8"))
    assert parse_row(row("steps", "10-40 (+10)"))["values"] == "10-40 (+10)"


def test_a_title_that_nobody_typed_follows_what_varies() -> None:
    base = {"loras": (LoraUse(name="my toy"),)}
    axes = [
        {"field": "lora_weight", "values": "0, 1"},
        {"field": "steps", "values": "4, 8"},
    ]
    assert get_sweep_title(validate(SweepSpec, {"base": base, "axes": axes})) == (
        "my toy: LoRA weight × Steps"
    )
    more = [*axes, {"field": "seed", "values": "1, 2"}]
    assert get_sweep_title(validate(SweepSpec, {"base": base, "axes": more})).endswith(
        "LoRA weight × Steps × Seed"
    )
    titled = validate(SweepSpec, {"base": base, "axes": more, "title": "Mine"})
    assert get_sweep_title(titled) == "Mine"
