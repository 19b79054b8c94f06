"""A sweep as a plan: every setting an axis, groups zipped, all faults before the first cell, dear changes rare."""

from __future__ import annotations

import itertools
import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.core.base import validate
from studio.core.catalog import SCHEDULERS, SPECIAL_AXES
from studio.core.generation.request import SEED_LIMIT, GenerationRequest
from studio.core.sweeps import spec as spec_module
from studio.core.sweeps.repeats import drop_repeated_values, find_repeated_values
from studio.core.sweeps.spec import (
    FAST_BATCH_SIZE,
    MAX_CELLS,
    MAX_REPORTED_FAULTS,
    MAX_TOTAL_PROMPT_CHARS,
    Axis,
    Cell,
    ModelTimings,
    SweepPlan,
    SweepSpec,
    group_faults,
    list_axes,
    plan_sweep,
)
from studio.errors import InvalidSpec
from studio.settings import shipped
from studio.storage.presets import Presets
from support.examples import examples
from support.request_fields import IMAGE_TASK_VALUES, MASKED, OTHER_VALUES
from support.sentences import refused

BASE: dict[str, Any] = {
    "prompt": "a photo of a moon in the night sky",
    "negative_prompt": "fog",
    "width": 128,
    "height": 128,
    "steps": 4,
    "noise_schedule": "Model default",
    "seed": 7,
}
OWN_VALUES: dict[str, list[Any]] = {  # where the default is no value to compare with, or no field
    "prompt": ["a red moon", "a moon"],
    "width": [64, 128],
    "height": [64, 128],
    "noise_schedule": ["Uniform", "Simple"],
    "seed": [3, 4],
    "image": ["ab" * 32, "cd" * 32],
    "mask": ["ab" * 32, "cd" * 32],
    "eta": [0.2, 0.5],
    "size": ["64x128", "128x64"],
    "lora": ["None", "moon"],
    "lora_weight": [0, 0.5],
    "lora_unet": [0, 0.5],
    "lora_text_encoder": [0, 0.5],
    "prompt_replace": ["sun", "star"],
    "prompt_template": ["{a|a}", "c"],
}


def default_and_other(name: str) -> list[Any]:
    values = [
        GenerationRequest.model_fields[name].default,
        IMAGE_TASK_VALUES[name][1] if name in IMAGE_TASK_VALUES else OTHER_VALUES[name],
    ]
    return ["yes" if value else "no" for value in values] if values[1] is True else values


VALUES = OWN_VALUES | {  # two values for everything that can be varied
    name: default_and_other(name)
    for name in GenerationRequest.model_fields
    if name not in (*OWN_VALUES, "num_images", "batch_size", "loras", "styles")
}
NEEDED: dict[str, dict[str, Any]] = {  # what an axis needs to change anything
    "noise_schedule": {"scheduler": "Euler"},
    **{name: needed for name, (needed, _) in IMAGE_TASK_VALUES.items()},
}
MORE: dict[str, dict[str, str]] = {
    "prompt_replace": {"find": "moon"},
    **{field: {"lora": "moon"} for field in ("lora_weight", "lora_unet", "lora_text_encoder")},
}
PRESETS = Presets(SweepSpec, shipped("presets") / "sweeps", shipped("presets") / "none")


def sweep(*given: dict[str, Any], base: dict[str, Any] | None = None, **more: Any) -> SweepSpec:
    return validate(SweepSpec, {"base": BASE | (base or {}), "axes": list(given), **more})


def axis(field: str, values: Any, **more: Any) -> dict[str, Any]:
    return {"field": field, "values": values, **more}


def refuse(*given: dict[str, Any], **more: Any) -> list[str]:
    """The faults in the words of the file."""
    with refused(InvalidSpec) as caught:
        plan_sweep(sweep(*given, **more), seed=5)
    return str(caught.value).splitlines()


def column(planned: SweepPlan, name: str) -> list[Any]:
    return [getattr(cell.request, name) for cell in planned.cells]


# ---- axes -----------------------------------------------------------------------------------------------------------


def test_every_setting_can_be_varied() -> None:
    lists = {"loras", "styles"}  # not one value; the axes about LoRAs change the first
    assert (
        set(list_axes())
        == set(VALUES)
        == (set(GenerationRequest.model_fields) - {"num_images", "batch_size"} - lists)
        | set(SPECIAL_AXES)
    )
    assert list_axes()["scheduler"].choices == tuple(SCHEDULERS)
    assert list_axes()["width"].kind == "whole"
    assert list_axes()["model"].cost == 100


@pytest.mark.parametrize("field", VALUES)
def test_each_axis_changes_its_cells(field: str) -> None:
    planned = plan_sweep(
        sweep(axis(field, VALUES[field], **MORE.get(field, {})), base=NEEDED.get(field))
    )
    first, second = planned.cells
    assert first.request != second.request
    assert first.labels != second.labels
    assert [cell.coordinates for cell in planned.cells] == [(0,), (1,)]
    assert [cell.index for cell in planned.cells] == [0, 1]
    if field in GenerationRequest.model_fields:
        assert column(planned, field) == [
            {"no": False, "yes": True}.get(value, value) for value in VALUES[field]
        ]
    for cell in planned.cells:
        assert validate(GenerationRequest, cell.request.model_dump(mode="json")) == cell.request
        assert cell.request.num_images == 1


@pytest.mark.parametrize(
    ("given", "title", "labels"),
    [
        (axis("guidance", "7, 7.5"), "CFG scale", ("CFG scale 7", "CFG scale 7.5")),
        (axis("scheduler", "Euler a, DPM++ 2M"), "Sampler", ("Euler a", "DPM++ 2M")),
        (axis("width", [64]), "Width", ("Width 64 px",)),
        (axis("size", "512x768"), "Size", ("512×768",)),
        (axis("prompt", ["a, b", ""]), "Prompt", ("a, b", "no prompt")),
        (
            axis("negative_prompt", ["fog", ""]),
            "Negative prompt",
            ("Negative prompt: fog", "Negative prompt: none"),
        ),
        (axis("mask_blur", [4]), "Mask blur", ("Mask blur 4 px",)),
        (axis("invert_mask", ["yes"]), "Invert mask", ("Invert mask: yes",)),
        (axis("masked_content", ["fill"]), "Masked content", ("Masked content: fill",)),
        (axis("mask", ["ab" * 32, ""]), "Mask", ("Mask abababab", "no mask")),
        (axis("lora", ["none", "run-000100"]), "LoRA", ("No LoRA", "run-000100")),
        (
            axis("lora_weight", "0-1 [3]", lora="moon"),
            "LoRA weight moon",
            ("moon 0", "moon 0.5", "moon 1"),
        ),
        (axis("lora_weight", [0.5]), "LoRA weight", ("LoRA 0.5",)),
        (
            axis("lora_unet", [0.5], lora="moon"),
            "LoRA weight in the U-Net moon",
            ("LoRA weight in the U-Net moon 0.5",),
        ),
        (
            axis("prompt_replace", ["moon", "sun", ""], find="moon"),
            "Replace moon",
            ("moon", "moon → sun", "moon → nothing"),
        ),
    ],
)
def test_titles_and_labels(given: dict[str, Any], title: str, labels: tuple[str, ...]) -> None:
    one = validate(Axis, given)
    assert (one.title, one.labels) == (title, labels)


def test_what_was_understood_is_shown() -> None:
    assert validate(Axis, axis("steps", "10-40 (+10), 50")).values_text == "10, 20, 30, 40, 50"
    assert validate(Axis, axis("guidance", "0-1 (+0.1)")).values_text.startswith(
        "0, 0.1, 0.2, 0.3, 0.4,"
    )
    assert (
        validate(Axis, axis("prompt", 'a moon, "a cat, asleep"')).values_text
        == 'a moon, "a cat, asleep"'
    )


def test_the_toml_of_the_command_line() -> None:
    spec = validate(
        SweepSpec,
        tomllib.loads("""
        title = "Which and how long?"
        [base]
        prompt = "a photo of a moon in the night sky"
        schedule = "Uniform"
        [[axes]]
        field = "scheduler"
        values = ["Euler a", "Euler"]
        group = 1
        [[axes]]
        field = "steps"
        values = "10-20 (+10)"
        group = 1
        [[axes]]
        field = "prompt_replace"
        find = "moon"
        values = ["sun", "star"]
    """),
    )
    planned = plan_sweep(spec, seed=9)
    assert [cell.labels for cell in planned.cells] == [
        ("Euler a", "Steps 10", "moon → sun"),
        ("Euler a", "Steps 10", "moon → star"),
        ("Euler", "Steps 20", "moon → sun"),
        ("Euler", "Steps 20", "moon → star"),
    ]
    assert planned.cells[1].request.prompt == "a photo of a star in the night sky"
    assert set(column(planned, "seed")) == {9}


# ---- cells ----------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_groups_multiply_and_axes_of_one_are_zipped() -> None:
    planned = plan_sweep(
        sweep(
            axis("steps", [1, 2], group=3),
            axis("seed", [5, 6, 7]),
            axis("guidance", [3, 4], group=3),
        )
    )
    assert planned.spec.groups == ((0, 2), (1,))
    assert [cell.coordinates for cell in planned.cells] == [
        (k, seed, k) for k in (0, 1) for seed in (0, 1, 2)
    ]
    assert list(
        zip(column(planned, "steps"), column(planned, "guidance"), column(planned, "seed"))
    ) == [(1, 3, 5), (1, 3, 6), (1, 3, 7), (2, 4, 5), (2, 4, 6), (2, 4, 7)]


def test_a_random_seed_is_drawn_once() -> None:
    spec = sweep(axis("steps", [1, 2]), base={"seed": -1})
    assert spec.has_open_seed
    assert column(plan_sweep(spec, seed=11), "seed") == [11, 11]
    assert plan_sweep(spec, seed=11) == plan_sweep(spec, seed=11) != plan_sweep(spec, seed=12)
    with pytest.raises(ValueError, match="needs a seed"):
        plan_sweep(spec)
    kept = plan_sweep(
        spec, seed=11
    ).spec  # what is stored with the job comes to the same cells without being told a seed
    assert not kept.has_open_seed
    assert plan_sweep(validate(SweepSpec, json.loads(kept.model_dump_json()))) == plan_sweep(
        spec, seed=11
    )


def test_the_seed_of_variations_is_drawn_once() -> None:
    """For all cells, and anew where the sweep is run anew, though its own seed stays."""
    spec = sweep(axis("steps", [1, 2]), base={"seed": 5, "variation_strength": 0.3})
    plans = [plan_sweep(spec, seed=seed) for seed in (11, 12)]
    drawn = [column(plan, "variation_seed") for plan in plans]
    assert drawn[0][0] == drawn[0][1] >= 0
    assert drawn[0] != drawn[1]
    assert plan_sweep(plans[0].spec).cells == plans[0].cells
    by_strength = sweep(axis("variation_strength", [0, 0.5]), base={"seed": 5})
    assert min(column(plan_sweep(by_strength, seed=1), "variation_seed")) >= 0
    several = sweep(
        axis("variation_seed", [-1, 9, -1]), base={"seed": 5, "variation_strength": 0.3}
    )
    first, second, third = column(plan_sweep(several, seed=1), "variation_seed")
    assert (second, third) == (9, first + 2)
    assert column(plan_sweep(spec), "variation_seed") == [-1, -1]  # as one of before is stored


def test_an_axis_of_seeds_draws_its_own() -> None:
    spec = sweep(axis("seed", [-1, 5, -1]), base={"seed": -1})
    assert column(plan_sweep(spec, seed=SEED_LIMIT - 1), "seed") == [SEED_LIMIT - 1, 5, 1]
    assert plan_sweep(spec, seed=3).cells[2].labels == ("Seed 5",)
    assert column(plan_sweep(sweep(axis("seed", "1-3"), base={"seed": -1})), "seed") == [
        1,
        2,
        3,
    ]  # nothing is left to draw


def test_fast_cells_say_that_they_are_painted_together() -> None:
    given = axis("seed", "1-3")
    assert column(plan_sweep(sweep(given, base={"batch": 4})), "batch_size") == [1, 1, 1]
    assert column(plan_sweep(sweep(given, fast=True)), "batch_size") == [FAST_BATCH_SIZE] * 3
    assert column(plan_sweep(sweep(given, base={"batch": 4}, fast=True)), "batch_size") == [4] * 3


def test_words_are_replaced_all_at_once_in_both_prompts() -> None:
    planned = plan_sweep(
        sweep(
            axis("prompt_replace", ["cat", "boat"], find="dog"),
            axis("prompt_replace", ["dog"], find="cat"),
            base={"prompt": "a dog, a cat, (dog.*:1.2)", "negative_prompt": "old dog"},
        )
    )
    assert column(planned, "prompt") == ["a cat, a dog, (cat.*:1.2)", "a boat, a dog, (boat.*:1.2)"]
    assert column(planned, "negative_prompt") == ["old cat", "old boat"]
    backslash = plan_sweep(sweep(axis("prompt_replace", [r"\\1 \g<0>"], find="moon")))
    assert column(backslash, "prompt") == [r"a photo of a \\1 \g<0> in the night sky"]
    longest = plan_sweep(
        sweep(
            axis("prompt_replace", ["A"], find="moon"),
            axis("prompt_replace", ["B"], find="moonlight"),
            base={"prompt": "moonlight and moon"},
        )
    )
    assert column(longest, "prompt") == ["B and A"]


def test_replacing_comes_after_a_prompt_axis() -> None:
    prompts = axis("prompt", ["a moon", "a moon by a lake"])
    assert column(
        plan_sweep(sweep(axis("prompt_replace", ["sun"], find="moon"), prompts)), "prompt"
    ) == [
        "a sun",
        "a sun by a lake",
    ]
    (fault,) = refuse(prompts, axis("prompt_replace", ["sea"], find="lake"))
    assert fault.startswith("Cell 1, 1 (a moon · lake → sea): Replace: 'lake'")


# ---- LoRAs ----------------------------------------------------------------------------------------------------------


def loras(planned: SweepPlan) -> list[list[tuple[str, float, float]]]:
    return [
        [(one.name, one.unet, one.text_encoder) for one in cell.request.loras]
        for cell in planned.cells
    ]


def test_a_lora_takes_the_place_of_all() -> None:
    base = {"loras": [{"name": "old", "unet": 0.5, "text_encoder": 0.25}, {"name": "style"}]}
    names = ["None", "run-000100", "run-000200"]
    assert loras(plan_sweep(sweep(axis("lora", names), base=base))) == [
        [],
        [("run-000100", 1, 1)],
        [("run-000200", 1, 1)],
    ]
    assert loras(plan_sweep(sweep(axis("lora", names, lora="old"), base=base)))[1:] == [
        [("run-000100", 0.5, 0.25)],
        [("run-000200", 0.5, 0.25)],
    ]


def test_weights_are_of_one_lora_or_of_whichever_is_there() -> None:
    base = {"loras": [{"name": "old", "unet": 0.5, "text_encoder": 0.25}]}
    assert loras(plan_sweep(sweep(axis("lora_weight", [0, 0.6], lora="moon"), base=base))) == [
        [("old", 0.5, 0.25), ("moon", 0, 0)],
        [("old", 0.5, 0.25), ("moon", 0.6, 0.6)],
    ]
    assert loras(
        plan_sweep(sweep(axis("lora_unet", [0.1]), axis("lora_text_encoder", [0.2]), base=base))
    ) == [[("old", 0.1, 0.2)]]
    both = plan_sweep(sweep(axis("lora_weight", [0.5, 1]), axis("lora", ["None", "a", "b"])))
    assert loras(both) == [
        [],
        [("a", 0.5, 0.5)],
        [("b", 0.5, 0.5)],
        [],
        [("a", 1, 1)],
        [("b", 1, 1)],
    ]
    one = plan_sweep(
        sweep(
            axis("lora_weight", [0.3], lora="a"),
            axis("lora_weight", [0.5]),
            axis("lora", ["a", "b"]),
        )
    )
    assert loras(one) == [[("a", 0.3, 0.3)], [("b", 0.5, 0.5), ("a", 0.3, 0.3)]]


def test_several_loras_in_a_cell() -> None:
    planned = plan_sweep(
        sweep(axis("lora_weight", [0, 1], lora="a"), axis("lora_weight", [0.5, 1], lora="b"))
    )
    assert loras(planned)[1] == [("a", 0, 0), ("b", 1, 1)]
    assert len(planned.cells) == 4


def test_a_weight_of_no_lora_is_refused() -> None:
    (fault,) = refuse(axis("lora_weight", [0, 1]))
    assert fault.startswith("LoRA weight: ")


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_every_fault_of_the_spec_at_once() -> None:
    told = refuse(
        axis("stepz", [1]),
        axis("count", [1, 2]),
        axis("steps", "1, b, 3-"),
        {"values": [1]},
        axis("prompt_replace", ["a"]),
        axis("steps", [True]),
        axis("steps", {"a": 1}),
        axis("seed", []),
        axis("seed", [1], find="x", group="one"),
        axis("seed", [1], find="x"),
        axis("seed", [1], lora="x"),
        base={"steps": 0, "width": 3},
        title=5,
        colour="red",
    )
    places = [fault.split(": ")[:2] for fault in told[:14]]
    assert places == [
        ["Base", "Width"],
        ["Base", "Steps"],
        ["Axis 1", "Field"],
        ["Axis 2", "Field"],
        ["Axis 3", "Steps"],
        ["Axis 3", "Steps"],
        ["Axis 4", "Field"],
        ["Axis 5", "Find"],
        ["Axis 6", "Values"],
        ["Axis 7", "Values"],
        ["Axis 8", "Seed"],
        ["Axis 9", "Group"],
        ["Axis 10", "Find"],
        ["Axis 11", "LoRA"],
    ]
    assert [fault.split(": ")[0] for fault in told[14:]] == ["Title", "colour"]
    assert "value 2, 'b'," in told[4]
    assert "value 3, '3-'," in told[5]
    assert "guidance" in told[2]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"axes": []},
        {"axes": 5},
        {"axes": [5]},
        {"axes": [axis("seed", [1])] * 13},
        {"axes": [axis("seed", [1])], "base": 5},
        {"axes": "steps"},
    ],
    ids=["nothing", "none", "number", "numbers", "many", "base", "text"],
)
def test_no_sweep_is_refused_in_words(values: dict[str, Any]) -> None:
    with refused(InvalidSpec) as caught:
        validate(SweepSpec, values)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].endswith(".")


def test_axes_that_exclude_each_other() -> None:
    refuse(axis("steps", [1]), axis("steps", [2]))
    refuse(axis("size", ["64x64"]), axis("height", [64]))
    refuse(*[axis("prompt_replace", ["a"], find="moon")] * 2)
    same = "very " * 20
    sweep(
        axis("prompt_replace", ["a"], find=f"{same}old"),
        axis("prompt_replace", ["a"], find=f"{same}new"),
    )  # told apart
    weights = axis("lora_weight", [1], lora="a"), axis("lora_unet", [1], lora="a")
    refuse(*weights)


def test_zipped_axes_need_equally_many() -> None:
    refuse(
        axis("scheduler", ["Euler", "DDIM"], group=1),
        axis("steps", "1-3", group=1),
        axis("seed", [1, 2], group=1),
    )


def test_a_cell_is_one_picture() -> None:
    (fault,) = refuse(axis("steps", [1]), base={"count": 4})
    assert fault.startswith("Base: Images: ")


def test_every_bad_cell_is_told_before_the_first_runs() -> None:
    told = refuse(
        axis("scheduler", ["Euler a", "Eiler", "Euler"]),
        axis("steps", [0, 5]),
        axis("size", "64x64, 65x64"),
        base={"noise_schedule": "Karras"},
    )
    assert [fault.split(": ")[:2] for fault in told] == [
        ["Cell 1, 1, 1 (Euler a · Steps 0 · 64×64)", "Steps"],
        ["Cell 1, 1, 2 (Euler a · Steps 0 · 65×64)", "Width"],
        ["Cell 1, 2, 1 (Euler a · Steps 5 · 64×64)", "Schedule"],
        ["Cell 2, 1, 1 (Eiler · Steps 0 · 64×64)", "Sampler"],
    ]
    assert "Model default, Uniform, Simple" in told[2]


def test_faults_of_many_values_are_one_sentence() -> None:
    told = refuse(axis("steps", "151-250"), axis("seed", "1-3"))
    assert told == ["Steps: must be 150 or less (you entered 151, 152, 153 and 97 more)."]


def test_faults_are_grouped_by_what_is_wrong_and_capped() -> None:
    told = group_faults([(f"Cell {k}", f"Prompt: word {k} is wrong.") for k in range(50)])
    assert len(told) == MAX_REPORTED_FAULTS + 1
    assert told[0] == "Cell 0: Prompt: word 0 is wrong."
    assert told[-1] == "30 more problems like these, in 50 cells in total."
    assert group_faults(
        [("Cell 1", "Steps: too many (you entered 9)."), ("Cell 2", "A (you entered 7).")]
    ) == [
        "Cell 1: Steps: too many (you entered 9).",
        "Cell 2: A (you entered 7).",
    ]
    few = [(f"Cell {k}", f"Steps: too many (you entered {k}).") for k in (7, 8, 7, 9)]
    assert group_faults(few) == ["Steps: too many (you entered 7, 8 or 9)."]


@pytest.mark.parametrize(
    ("field", "values", "once", "repeated"),
    [
        ("steps", "4, 4, 8", [4, 8], (4,)),
        ("guidance", [7, 7.5, 7.0, 7.5], [7, 7.5], (7, 7.5)),
        ("seed", "-1, -1, 3, 3", [-1, -1, 3], (3,)),
        ("steps", "4, 8", [4, 8], ()),
    ],
)
def test_values_listed_twice_count_once(
    field: str, values: Any, once: list[Any], repeated: tuple[Any, ...]
) -> None:
    found = validate(Axis, {"field": field, "values": values})
    assert drop_repeated_values(found) == once
    assert find_repeated_values(found) == repeated
    linked = validate(Axis, {"field": field, "values": values, "group": 1})
    assert find_repeated_values(linked) == ()  # three prompts on one seed


@pytest.mark.parametrize("value", [10**20, 2**64])
def test_a_number_that_a_browser_rounded_is_not_quoted(value: int) -> None:
    with refused(InvalidSpec, "Seed") as caught:
        validate(GenerationRequest, {"seed": value})
    assert str(value) not in str(caught.value)
    with refused(InvalidSpec, "Seed") as caught:
        validate(GenerationRequest, {"seed": "99999999999999999999"})
    assert "99999999999999999999" in str(caught.value)


def test_too_many_cells_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(spec_module, "_build_cell_values", lambda *_: pytest.fail("built a cell"))
        (fault,) = refuse(
            *[axis("prompt_replace", ["1", "2"] * 50, find=word) for word in "abcdefghij"]
        )
    assert f"{MAX_CELLS:,}" in fault
    monkeypatch.setattr(spec_module, "MAX_CELLS", 500)
    most = sweep(axis("seed", "1-500"), base={"prompt": "", "negative_prompt": ""})
    assert len(plan_sweep(most).cells) == 500
    with pytest.raises(InvalidSpec, match="501"):
        plan_sweep(sweep(axis("seed", "1-501")))


def test_no_plan_reads_more_than_so_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"prompt": "a moon, " * 1200}
    read: list[int] = []
    real = spec_module.validate

    def validate(model: Any, values: Any) -> Any:
        if model is GenerationRequest:
            read.append(len(values["prompt"]))
        return real(model, values)

    monkeypatch.setattr(spec_module, "validate", validate)
    (fault,) = refuse(axis("seed", "1-10000"), base=long)
    assert f"{MAX_TOTAL_PROMPT_CHARS:,}" in fault
    assert sum(read) <= MAX_TOTAL_PROMPT_CHARS + 2 * len(long["prompt"])  # and the base


def test_a_prompt_that_would_grow_beyond_measure_is_never_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spec_module.re, "compile", lambda text: NeverReplaces())
    refuse(axis("prompt_replace", ["moon" * 2000], find="moon"), base={"prompt": "a moon, " * 1200})


class NeverReplaces:
    """A pattern that must not be used."""

    def sub(self, replacement: Any, text: str) -> str:
        pytest.fail(f"replaced words in {len(text)} characters")


def test_guests_may_ask_for_less() -> None:
    plan_sweep(sweep(axis("seed", "1-64"))).validate_for_guest()
    with refused(InvalidSpec, "Axes"):
        sweep(axis("seed", "1-65")).validate_for_guest()
    with refused(InvalidSpec, "Axes", "Steps") as caught:
        plan_sweep(sweep(axis("seed", "1-65"), axis("steps", [60, 61]))).validate_for_guest()
    assert "130" in caught.value.faults[0]


# ---- order and prediction -------------------------------------------------------------------------------------------


def changes(planned: SweepPlan, name: str) -> int:
    running = [getattr(planned.cells[k].request, name) for k in planned.run_order]
    return sum(before != after for before, after in itertools.pairwise(running))


def test_dear_changes_are_rare() -> None:
    spec = sweep(
        axis("steps", [1, 2]),
        axis("size", "64x64, 128x128"),
        axis("prompt", "a, b, c"),
        axis("seed", [1, 2]),
        axis("model", ["x", "y"]),
    )
    planned = plan_sweep(spec)
    assert sorted(planned.run_order) == list(range(48))
    assert (changes(planned, "model"), changes(planned, "prompt"), changes(planned, "width")) == (
        1,
        5,
        11,
    )
    first = [planned.cells[k] for k in planned.run_order[:4]]
    assert [cell.request.model for cell in first] == ["x"] * 4
    assert [cell.request.steps for cell in first] == [1, 1, 2, 2]


def test_ties_stay_in_turn() -> None:
    assert plan_sweep(sweep(axis("seed", [9, 3, 5]))).run_order == (0, 1, 2)
    assert plan_sweep(sweep(axis("steps", [9, 3, 9, 5]))).run_order == (
        0,
        2,
        1,
        3,
    )  # equal ones together, as they came


def test_loras_between_model_and_words() -> None:
    planned = plan_sweep(
        sweep(
            axis("lora_weight", [0.5, 1]),
            axis("prompt", "a, b"),
            axis("lora", ["x", "y"]),
            axis("model", ["m", "n"]),
        )
    )
    running = [planned.cells[k].labels for k in planned.run_order]
    assert running == [
        (f"LoRA {weight}", prompt, lora, model)
        for model in "mn"
        for lora in "xy"
        for weight in ("0.5", "1")
        for prompt in "ab"
    ]
    assert (
        planned.cost_estimate.encodes == 2 * 2 * 2 * 3
    )  # two words and the negative prompt, for each state of the text encoder


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({}, 4 * 2),
        ({"guidance": 1}, 4),
        ({"scheduler": "Heun"}, 7 * 2),
        ({"scheduler": "PLMS"}, 5 * 2),
        ({"scheduler": "DPM2 a", "guidance": 1}, 7),
        ({"steps": 9}, 9 * 2),
    ],
)
def test_rows(given: dict[str, Any], rows: int) -> None:
    assert plan_sweep(sweep(axis("seed", [1, 2, 3]), base=given)).cost_estimate.rows == rows * 3


def test_prediction() -> None:
    spec = sweep(
        axis("model", ["x", "y"]), axis("size", "64x64, 128x128"), axis("clip_skip", [1, 2])
    )
    x = ModelTimings(
        load=2, encode=0.5, seconds_per_megapixel=10, model_bytes=1_000_000, bytes_per_pixel=100
    )
    known = plan_sweep(
        spec,
        timings={
            "x": x,
            "y": x.model_copy(update={"seconds_per_megapixel": 20.0, "model_bytes": 500_000}),
        },
    ).cost_estimate
    assert (known.cells, known.loads, known.encodes, known.rows) == (8, 2, 8, 64)
    assert (known.loading, known.encoding) == (4, 4)
    assert known.painting == pytest.approx(2 * (10 + 20) * 8 * (64 * 64 + 128 * 128) / 1e6)
    assert known.seconds == pytest.approx(8 + (known.painting or 0))
    assert known.memory == 1_000_000 + 100 * 128 * 128
    assert plan_sweep(spec, timings={"x": x, "y": x}).cost_estimate.painting != known.painting
    together = plan_sweep(
        spec.model_copy(update={"fast": True}), timings={"x": x, "y": x}
    ).cost_estimate
    assert together.memory == 1_000_000 + FAST_BATCH_SIZE * 100 * 128 * 128


@pytest.mark.parametrize(
    "rates",
    [
        {},
        {"pocket": ModelTimings()},
        {
            "other": ModelTimings(
                native_size=128,
                load=1,
                encode=1,
                seconds_per_megapixel=1,
                model_bytes=1,
                bytes_per_pixel=1,
            )
        },
    ],
)
def test_what_was_not_measured_is_not_guessed(rates: dict[str, ModelTimings]) -> None:
    told = plan_sweep(sweep(axis("seed", [1, 2])), timings=rates).cost_estimate
    assert (told.loading, told.encoding, told.painting, told.seconds, told.memory) == (None,) * 5
    assert told.rows == 16


def test_an_open_size_takes_the_models_own() -> None:
    spec = sweep(axis("seed", [1, 2]), base={"width": None, "height": None})
    measured = ModelTimings(
        seconds_per_megapixel=1, load=1, encode=1, model_bytes=1, bytes_per_pixel=2
    )
    assert plan_sweep(spec, timings={"pocket": measured}).cost_estimate.painting is None
    side = plan_sweep(spec, timings={"pocket": measured.model_copy(update={"native_size": 128})})
    assert side.cost_estimate.painting == pytest.approx(16 * 128 * 128 / 1e6)
    assert side.cost_estimate.memory == 1 + 2 * 128 * 128
    assert column(side, "width") == [None, None]  # the engine fills it in


def test_values_are_frozen() -> None:
    planned = plan_sweep(sweep(axis("seed", [1, 2])))
    for value, name in (
        (planned, "order"),
        (planned.cells[0], "index"),
        (planned.spec.axes[0], "field"),
        (ModelTimings(), "seconds_per_megapixel"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, name, 3)
    assert isinstance(planned.cells[0], Cell)
    assert validate(SweepPlan, json.loads(planned.model_dump_json())) == planned


PAIRS = st.sampled_from(
    [
        name
        for name in VALUES
        if NEEDED.get(name, {}).keys() <= {"scheduler", "image", "mask", "mask_padding"}
        and NEEDED.get(name, {}).get("scheduler", "Euler a") == "Euler a"
        and name not in ("invert_mask", "hires_scale")
    ]
)  # all that can be with a mask


@settings(max_examples=examples(60))
@given(
    st.lists(
        st.tuples(PAIRS, st.sampled_from([None, 1, 2])),
        min_size=1,
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_any_axes_come_to_all_their_cells_or_to_words(chosen: list[tuple[str, int | None]]) -> None:
    given = [axis(name, VALUES[name], group=group, **MORE.get(name, {})) for name, group in chosen]
    try:
        spec = sweep(*given, base={"scheduler": "Euler a", **MASKED})
    except InvalidSpec as error:
        assert "both set" in str(error)  # noqa: PT017
        return
    names = {name for name, _ in chosen}
    try:
        planned = plan_sweep(spec)
    except InvalidSpec as error:  # what only some samplers read has to go with each of them
        assert "changes nothing without a scheduler" in str(error)  # noqa: PT017
        assert "scheduler" in names
        assert any("scheduler" in NEEDED.get(name, {}) for name in names)
        return
    assert len(planned.cells) == 2 ** len(spec.groups)
    assert sorted(planned.run_order) == list(range(len(planned.cells)))
    assert len({cell.coordinates for cell in planned.cells}) == len(planned.cells)
    for cell in planned.cells:
        for label, one, k in zip(cell.labels, spec.axes, cell.coordinates, strict=True):
            # Of a template a cell is labelled with what it comes to.
            is_template = one.field == "prompt_template"
            assert label == ("a", "c")[k] if is_template else label == one.labels[k]
            if one.field in GenerationRequest.model_fields and one.field != "prompt":
                assert getattr(cell.request, one.field) == one.parsed_values[k]


@given(
    st.dictionaries(
        st.sampled_from(["field", "values", "lora", "find", "group", "x"]),
        st.sampled_from(list(VALUES))
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists
        ),
    )
)
def test_any_axis_is_taken_or_refused_in_words(values: dict[str, Any]) -> None:
    try:
        one = validate(Axis, values)
    except InvalidSpec as error:
        str(error).encode()
        return
    assert validate(Axis, one.model_dump(mode="json")) == one
    assert len(one.labels) == len(one.parsed_values)
    again = validate(Axis, one.model_dump() | {"values": one.values_text})
    assert again.parsed_values == one.parsed_values


# ---- presets --------------------------------------------------------------------------------------------------------


def test_the_theses_grids_are_shipped() -> None:
    assert len(PRESETS.list_names()) >= 7


@pytest.mark.smoke
@pytest.mark.parametrize("name", PRESETS.list_names())
def test_every_shipped_sweep_loads_and_plans(name: str) -> None:
    spec = PRESETS.load(name)
    assert spec.title
    assert spec.base.model == "pocket"
    assert (spec.base.width, spec.base.height) == (None, None)  # the model's own size
    planned = plan_sweep(spec, seed=7)
    assert 4 < len(planned.cells) <= 64
    assert planned.cost_estimate.loads == 1
    assert len({cell.request for cell in planned.cells}) == len(planned.cells)
    planned.validate_for_guest()
    assert (
        validate(
            SweepSpec,
            tomllib.loads((shipped("presets") / "sweeps" / f"{name}.toml").read_text("utf-8")),
        )
        == spec
    )


def test_a_sweep_can_be_kept(tmp_path: Any) -> None:
    own = Presets(SweepSpec, tmp_path / "none", tmp_path / "own")
    for name in PRESETS.list_names():
        own.save(name, PRESETS.load(name))
        assert own.load(name) == PRESETS.load(name)
