"""Templates in sweeps: words by a cell's seed, all wordings as an axis, words that stay when a list changes."""

from __future__ import annotations

import pytest

from studio.core.base import validate
from studio.core.generation.templates.prompt_files import NoPromptFiles, Style, WildcardLine
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.errors import InvalidSpec
from support.sentences import refused


class Files(NoPromptFiles):
    """One list and one style."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def list_wildcards(self) -> list[str]:
        return ["thing"]

    def read_wildcard(self, name: str) -> list[WildcardLine]:
        return [WildcardLine(line) for line in self.lines]

    def list_styles(self) -> list[str]:
        return ["Ink"]

    def get_style(self, name: str) -> Style:
        return Style("Ink", "{prompt} in ink")


FILES = Files("boat", "moon", "<lora:moon:1> toy")


def build(base: dict[str, object], *axes: dict[str, object]) -> SweepSpec:
    return validate(SweepSpec, {"base": {"seed": 1, **base}, "axes": list(axes)})


SEEDS = {"field": "seed", "values": list(range(12))}


def test_a_cell_has_the_words_of_its_seed() -> None:
    plan = plan_sweep(build({"prompt": "a {red|blue} __thing__"}, SEEDS), files=FILES)
    assert len({cell.request.prompt for cell in plan.cells}) > 3
    request = plan.spec.base.model_copy(update={"seed": 5}).write_out(FILES)
    assert plan.cells[5].request.prompt == request.prompt
    assert any(cell.request.loras for cell in plan.cells)


def test_words_stay_when_the_list_changes() -> None:
    plan = plan_sweep(build({"prompt": "a __thing__", "styles": ["Ink"]}, SEEDS), files=FILES)
    stored = validate(SweepSpec, plan.spec.model_dump(mode="json"))
    for files in (None, Files("other")):
        again = plan_sweep(stored, files=files)
        assert [cell.request for cell in again.cells] == [cell.request for cell in plan.cells]
        assert again.spec == plan.spec


def test_words_of_another_sweep_are_not_taken() -> None:
    plan = plan_sweep(build({"prompt": "a __thing__"}, SEEDS), files=FILES)
    other = plan.spec.base.model_copy(update={"steps": 7})
    again = plan_sweep(plan.spec.model_copy(update={"base": other}), files=Files("other"))
    assert {cell.request.prompt for cell in again.cells} == {"a other"}


def test_what_was_stored_before_there_were_templates_stays() -> None:
    plan = plan_sweep(build({"prompt": "a {b|c} __x__"}, SEEDS))
    assert {cell.request.prompt for cell in plan.cells} == {"a {b|c} __x__"}
    assert plan.spec.wordings is None


@pytest.mark.parametrize(
    ("values", "prompts"),
    [
        (["all"], ["a red boat", "a red moon", "a blue boat", "a blue moon"]),
        (["{1|2}", "x"], ["1", "2", "x"]),
    ],
)
def test_all_wordings_are_an_axis(values: list[str], prompts: list[str]) -> None:
    base: dict[str, object] = {"prompt": "a {red|blue} __thing__"}
    axis: dict[str, object] = {"field": "prompt_template", "values": values}
    plan = plan_sweep(build(base, axis), files=Files("boat", "moon"))
    assert [cell.request.prompt for cell in plan.cells] == prompts
    assert [axis.field for axis in plan.spec.axes] == ["prompt"]
    assert plan_sweep(plan.spec).cells == plan.cells


@pytest.mark.parametrize(
    "values", [["{a|b} __nothing__"], ["{5$$" + "|".join("abcdefghijkl") + "}"]]
)
def test_wordings_that_cannot_be(values: list[str]) -> None:
    with refused(InvalidSpec, "All wordings"):
        plan_sweep(build({}, {"field": "prompt_template", "values": values}), files=FILES)


def test_prompts_cannot_vary_twice() -> None:
    with refused(InvalidSpec):
        build(
            {},
            {"field": "prompt_template", "values": ["all"]},
            {"field": "prompt", "values": ["a", "b"]},
        )


def test_a_preset_has_no_words() -> None:
    plan = plan_sweep(build({"prompt": "a __thing__"}, SEEDS), files=FILES)
    assert "wordings" not in plan.spec.dump_for_file()
