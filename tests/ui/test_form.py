"""The form: every field on the page, nothing lost on the way in or out, every fault said."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.core.base import field_meta, validate
from studio.core.catalog import SCHEDULERS
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.core.generation.rules import EXTEND_FIELDS
from studio.errors import InvalidSpec
from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home
from studio.ui.app import build_page
from studio.ui.form import Form
from support.examples import examples
from support.sentences import refused
from support.unopened_page import unopened_page

SCHEMA = GenerationRequest.model_json_schema()["properties"]


def of(name: str) -> dict[str, Any]:
    """A field's schema, without the "or nothing" around it."""
    return {
        **SCHEMA[name],
        **next((kind for kind in SCHEMA[name].get("anyOf", ()) if kind.get("type") != "null"), {}),
    }


@pytest.fixture(scope="module")
def form() -> Form[GenerationRequest]:
    made = Form(GenerationRequest, "trial")
    with unopened_page():
        for name in GenerationRequest.model_fields:
            made.add(name)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    home = load(home=tmp_path_factory.mktemp("form"))
    return build_page(Services(Home(home)))


@pytest.fixture(scope="module")
def page(built: gr.Blocks) -> dict[str, dict[str, Any]]:
    """What the browser is told of every component that has an id."""
    parts = built.get_config_file()["components"]
    return {
        part["props"]["elem_id"]: part["props"] | {"type": part["type"]}
        for part in parts
        if part["props"].get("elem_id")
    }


def test_a_page_that_nobody_uses_rests(built: gr.Blocks) -> None:
    """gradio would look for events a thousand times a second."""
    assert 0.005 <= built._queue.sleep_when_free <= 0.02


def test_no_click_on_a_list_is_dropped(built: gr.Blocks) -> None:
    """gradio drops a click while the answer to the last one is on its way; there it may be another row's."""
    modes = {
        getattr(built.blocks[block], "elem_id", ""): handler.trigger_mode
        for handler in built.fns.values()
        for block, event in handler.targets
        if event == "click" and getattr(handler.fn, "__name__", "") == "handle_action"
    }
    lists = ("download-list", "queue-list", "models-list", "gallery-grid")
    assert {name: modes[name] for name in lists} == dict.fromkeys(lists, "multiple")


def test_a_number_that_begins_empty_is_told_so(page: dict[str, dict[str, Any]]) -> None:
    """Told None, gradio's page would show a 0 as soon as it is in view, and send it."""
    numbers = {id: props["value"] for id, props in page.items() if props["type"] == "number"}
    assert None not in numbers.values()
    assert {"caption-tokens", "tool-resolution", "training-epochs"} <= numbers.keys()
    assert numbers["caption-tokens"] == ""


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Any value that a field takes on its own."""
    field = of(name)
    if name in ("image", "mask"):
        return st.sampled_from(["ab" * 32, "01" * 32])
    if name == "extend_colour":
        return st.integers(0, 2**24 - 1).map(lambda colour: f"#{colour:06x}")
    if "enum" in field:
        return st.sampled_from(field["enum"])
    if field["type"] == "boolean":
        return st.booleans()
    if name == "styles":
        return st.lists(st.sampled_from(["ink", "a/b c", "é"]), max_size=3, unique=True).map(tuple)
    if field["type"] == "array":
        weight = st.floats(-4, 4)
        use = st.builds(
            LoraUse, name=st.sampled_from(["moon", "a/b c", "é"]), unet=weight, text_encoder=weight
        )
        return st.lists(use, max_size=3, unique_by=lambda use: use.name).map(tuple)
    if field["type"] == "string":
        text = st.text(min_size=field.get("minLength", 0), max_size=min(60, field["maxLength"]))
        return text.filter(lambda words: not faults_of({name: words}))
    unit, most = (
        field.get("multipleOf", 1),
        field.get("maximum", field.get("exclusiveMaximum", 1) - 1),
    )
    if field["type"] == "number":
        return st.floats(field["minimum"], most)
    whole = st.integers(-(-field["minimum"] // unit), most // unit).map(lambda k: k * unit)
    return st.none() | whole if "anyOf" in SCHEMA[name] else whole


def faults_of(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        validate(GenerationRequest, values)
    except InvalidSpec as error:
        return error.faults
    return ()


DEFAULTS = {name: field.get_default() for name, field in GenerationRequest.model_fields.items()}
HIRES = [name for name in DEFAULTS if name.startswith("hires")]
OFF = {
    "txt2img": ["image", "mask", *EXTEND_FIELDS, *HIRES],
    "hires": ["image", "mask", *EXTEND_FIELDS],
    "img2img": ["mask", *EXTEND_FIELDS, *HIRES],
    "inpaint": [*EXTEND_FIELDS, *HIRES],
    "outpaint": ["mask", *HIRES],
}  # what a kind of work goes without
pairs = st.sampled_from(
    [
        {"scheduler": name, "noise_schedule": ladder}
        for name, info in SCHEDULERS.items()
        for ladder in info.noise_schedules
    ]
)
requests = (
    st.builds(
        lambda values, kind, pair: {
            **values,
            **{name: DEFAULTS[name] for name in OFF[kind]},
            **pair,
            "guidance_end": 1 - (1 - values["guidance_start"]) * (1 - values["guidance_end"]),
        },
        st.fixed_dictionaries({name: values_of(name) for name in GenerationRequest.model_fields}),
        st.sampled_from(list(OFF)),
        pairs,
    )
    .filter(lambda values: not faults_of(values))
    .map(lambda values: GenerationRequest(**values))
)


@pytest.mark.smoke
@pytest.mark.parametrize("name", GenerationRequest.model_fields)
def test_a_field_says_everything_on_the_page(
    name: str, form: Form[GenerationRequest], page: dict[str, dict[str, Any]]
) -> None:
    field, id = of(name), name.replace("_", "-")
    placed = next(
        (page[f"{tab}-{id}"] for tab in ("txt2img", "img2img", "inpaint") if f"{tab}-{id}" in page),
        None,
    )
    if placed is None:
        assert name in ("image", "mask", "invert_mask")  # which an easel shows
        assert "img2img-easel" in page
        assert "inpaint-easel" in page
        placed = form[name].get_config()
    told = form[name].get_config()
    assert told["label"] == placed["label"] == field["title"]
    assert told["elem_id"] == f"trial-{name.replace('_', '-')}"
    assert told["value"] == ("" if field["default"] is None else field["default"])
    assert told.get("info", field["description"]) == field["description"]
    assert ("info" in told) == (field["type"] != "array")
    for part in (told, placed):
        if "enum" in field:
            assert {value for _, value in part["choices"]} <= set(field["enum"])
        elif field["type"] in ("integer", "number"):
            assert part["minimum"] == field["minimum"]
            assert part["maximum"] == field.get("maximum", field.get("exclusiveMaximum", 1) - 1)
            assert part["step"] == (
                field_meta(GenerationRequest, name).get("step") or field.get("multipleOf") or 1
            )
            assert part.get("precision") == (0 if field["type"] == "integer" else None)
    assert "enum" not in field or [value for _, value in told["choices"]] == field["enum"]


@settings(
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=requests)
def test_nothing_is_lost_between_request_and_page(
    form: Form[GenerationRequest], request: GenerationRequest
) -> None:
    sent = {
        part: json.loads(json.dumps(value)) for part, value in form.fill(request).items()
    }  # as the browser sends it
    assert form.read(sent) == request
    default = GenerationRequest().model_dump()
    taken, faults = form.fill_valid(request.model_dump(), default)
    assert not faults
    assert taken == form.fill(request)
    assert form.inputs == set(form.outputs) == set(taken)


@pytest.mark.smoke
def test_every_bad_field_is_named_at_once(form: Form[GenerationRequest]) -> None:
    bad = {
        "prompt": "a (cat:2000)",
        "width": 7,
        "steps": "many",
        "guidance": float("nan"),
        "scheduler": ["Euler"],
        "seed": 2**32,
        "batch_size": 17,
        "clip_skip": None,
    }
    sent = {**form.fill(GenerationRequest()), **{form[name]: value for name, value in bad.items()}}
    titles = [
        str(field.title) for name, field in GenerationRequest.model_fields.items() if name in bad
    ]
    with refused(InvalidSpec, *titles):
        form.read(sent)


@pytest.mark.parametrize(
    ("values", "now", "taken", "faulty"),
    [
        (
            {"steps": 30, "seed": -9, "prompt": "a cat"},
            {},
            {"steps": 30, "prompt": "a cat"},
            ["Seed"],
        ),
        ({"steps": 30, "magic": 1}, {}, {"steps": 30}, ["magic"]),
        (
            {"steps": "30"},
            {"width": "seven"},
            {"steps": 30},
            [],
        ),  # a bad value on the page is not the picture's fault
        (
            {"scheduler": "Euler a", "noise_schedule": "Simple"},
            {},
            {"scheduler": "Euler a", "noise_schedule": "Simple"},
            [],
        ),
        (
            {"noise_schedule": "SGM Uniform", "scheduler": "Euler"},
            {"scheduler": "Euler a", "noise_schedule": "Simple"},
            {"noise_schedule": "SGM Uniform", "scheduler": "Euler"},
            [],
        ),
        (
            {"scheduler": "Euler a", "steps": 5},
            {"noise_schedule": "Karras"},
            {"steps": 5},
            ["Schedule"],
        ),
        (  # Automatic suits every scheduler
            {"scheduler": "Euler a", "steps": 5},
            {},
            {"scheduler": "Euler a", "steps": 5},
            [],
        ),
        (
            {"noise_schedule": "Karras"},
            {"scheduler": "Euler a", "noise_schedule": "Simple"},
            {},
            ["Schedule"],
        ),
        (
            {"scheduler": "Euler a", "noise_schedule": "Cosine"},
            {"noise_schedule": "Karras"},
            {},
            ["Schedule", "Schedule"],
        ),
    ],
    ids=str,
)
def test_of_foreign_values_all_is_taken_that_can_be(
    form: Form[GenerationRequest],
    values: dict[str, Any],
    now: dict[str, Any],
    taken: dict[str, Any],
    faulty: list[str],
) -> None:
    page = GenerationRequest().model_dump() | now
    updates, faults = form.fill_valid(values, page)
    assert updates == {form[name]: value for name, value in taken.items()}
    assert [fault.split(":")[0] for fault in faults] == faulty
    assert not faults_of(
        {**{name: value for name, value in page.items() if value != "seven"}, **taken}
    )
