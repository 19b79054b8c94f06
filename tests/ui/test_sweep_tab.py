"""The Sweep tab without a browser: rows ⇄ axes, the grid's HTML, whose a sweep is, what is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepPlan, SweepSpec, plan_sweep
from studio.errors import BadFile, InvalidSpec
from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home
from studio.storage.sweeps import CellResult
from studio.storage.timings import record_timings
from studio.storage.verdicts import Verdict
from studio.ui.tabs.sweep.axes import BLANK_ROW, parse_row, row_values_of
from studio.ui.tabs.sweep.tab import SweepTab
from studio.ui.views import sweep as grid
from support.models import make_toy_z_image
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, HOSTILE, OWNER, pressed

SMALL: dict[str, Any] = {
    "prompt": "a moon",
    "width": 64,
    "height": 64,
    "seed": 7,
    "noise_schedule": "Model default",
}


def spec(*axes: dict[str, Any], **more: Any) -> SweepSpec:
    return validate(SweepSpec, {"base": SMALL, "axes": list(axes), **more})


GRID = spec(
    {"field": "scheduler", "values": ["Euler", "DDIM"]}, {"field": "steps", "values": "2-4"}
)


@pytest.fixture
def tab(desk: Services) -> SweepTab:
    with unopened_page():
        return SweepTab(desk)


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepTab]:
    """One tab for tests that only fill and read its form."""
    home = Home(load(home=tmp_path_factory.mktemp("form"), device="cpu"))
    home.gallery.sync()
    with unopened_page():
        made = SweepTab(Services(home))
    yield made
    home.close()


def page(tab: SweepTab, updates: dict[Any, Any] | None = None) -> dict[Any, Any]:
    """What the browser would send, after these updates of an empty page."""
    sent = {part: part.value for part in tab.inputs}
    for part, update in (updates or {}).items():
        if part in sent:
            value = getattr(update, "value", update)
            if (
                not isinstance(update, gr.components.Component)
                or "value" in update.constructor_args
            ):
                sent[part] = value
    return sent


# ---- rows and axes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axis",
    [
        {"field": "scheduler", "values": ["Euler", "DPM++ 2M"]},
        {"field": "steps", "values": "10-40 (+10)"},
        {"field": "guidance", "values": [3.5, 7]},
        {"field": "lora", "values": ["None", "moon"]},
        {"field": "size", "values": "64x64, 128x64"},
        {"field": "lora_weight", "lora": "moon", "values": "0-1 (+0.5)"},
        {"field": "model", "values": ["pocket", "other"]},
        {"field": "prompt_replace", "find": "moon", "values": ["moon", "a cat, asleep", ""]},
        {"field": "seed", "values": "7-9", "group": 5},
    ],
    ids=lambda axis: axis["field"],
)
def test_an_axis_survives_the_page(axis: dict[str, Any], form: SweepTab) -> None:
    (before,) = spec(axis).axes
    raw = row_values_of(before, [before.group] if before.group is not None else [])
    again = validate(type(before), parse_row(raw))
    assert (again.field, again.parsed_values, again.lora, again.find) == (
        before.field,
        before.parsed_values,
        before.lora,
        before.find,
    )
    assert (again.group is None) == (before.group is None)
    assert (
        form.parse_sweep(page(form, form.fill_form(spec(axis), OWNER))).axes[0].parsed_values
        == before.parsed_values
    )


def test_presets_fill_the_page_and_come_back_from_it(tab: SweepTab, desk: Services) -> None:
    names = desk.home.sweep_presets.list_names()
    assert len(names) >= 7
    for name in names:
        whole = desk.home.sweep_presets.load(name)
        again = tab.parse_sweep(page(tab, tab.fill_form(whole, OWNER)))
        assert plan_sweep(again, seed=1).cells == plan_sweep(whole, seed=1).cells, name


@pytest.mark.smoke
def test_a_chosen_model_brings_what_suits_it(tab: SweepTab, desk: Services) -> None:
    """Its authors' settings where the scheduler on the page is none of its family's."""
    make_toy_z_image(desk.home.settings.models / "zimg")
    names = ("scheduler", "noise_schedule", "steps", "guidance")
    chosen = {tab.form["scheduler"]: "DPM++ 2M", tab.form["noise_schedule"]: "Karras"}
    brought = tab.apply_model(chosen | {tab.form["model"]: "zimg"})
    assert [brought[tab.form[name]] for name in names] == ["Euler", "Automatic", 8, 1.0]
    assert brought[tab.form["width"]] == 1024
    assert set(tab.apply_model(chosen | {tab.form["model"]: "pocket"})) == {
        tab.form["width"],
        tab.form["height"],
    }


def test_all_faults_are_said_at_once(tab: SweepTab) -> None:
    sent = page(tab, tab.fill_form(GRID, OWNER)) | {
        tab.form["width"]: 63,
        tab.axis_rows.rows[1].text: "2-x, 4",
        tab.form["prompt"]: "a (cat:2000)",
    }
    with refused(InvalidSpec) as caught:
        tab.parse_sweep(sent)
    said = str(caught.value)
    assert all(
        word in said for word in ("Base: Prompt:", "Base: Width:", "Axis 2: Steps:", "'2-x'")
    )
    three = page(
        tab,
        tab.axis_rows.show_rows(
            [*(row_values_of(axis, []) for axis in GRID.axes), dict(BLANK_ROW)]
        ),
    )
    with refused(InvalidSpec, "Axis 3"):
        tab.parse_sweep(three | {tab.axis_rows.fields: ["scheduler", "steps", None]})


def test_a_guest_sweeps_over_no_picture_that_somebody_else_brought(
    tab: SweepTab, desk: Services
) -> None:
    theirs, own = (
        desk.home.library.inputs.add(Image.new("RGB", (64, 64), colour), guest_id=by).sha256
        for colour, by in (("red", "ann"), ("blue", "api"))
    )
    strengths, nobody = (
        {"field": "strength", "values": [0.6, 0.9]},
        gr.Request(),
    )  # nobody is the guest api
    for image, axis in (
        (theirs, strengths),
        (own, {"field": "image", "values": [own, theirs]}),
        (own, strengths),
    ):
        wanted = validate(SweepSpec, {"base": SMALL | {"image": image}, "axes": [axis]})
        sent = page(tab, tab.fill_form(wanted, BOB))
        if theirs in wanted.model_dump_json():
            with refused(gr.Error):
                tab.submit(sent, nobody)
            assert not desk.home.jobs.list_open()
        else:
            open_ = tab.submit(sent, nobody)[tab.view.sweep_id]
            with refused(gr.Error):
                tab.extend_sweep(
                    sent
                    | {
                        tab.view.sweep_id: open_,
                        tab.carried_settings.carried_values: {"image": theirs},
                    },
                    nobody,
                )
            assert len(desk.home.jobs.list_open()) == 1


@pytest.mark.parametrize(
    "value", [None, [], {}, 5, float("nan"), "x" * 3000, ["Euler", None], "\0"], ids=str
)
def test_whatever_a_browser_sends_is_a_sentence_at_most(value: Any, form: SweepTab) -> None:
    whole = page(form, form.fill_form(GRID, OWNER))
    for part in (
        *form.axis_rows.rows[0].inputs.values(),
        *form.axis_rows.rows[1].inputs.values(),
        form.title,
        *form.form.inputs,
    ):
        with suppress(InvalidSpec):
            form.parse_sweep(whole | {part: value})
        form.axis_rows.render_echoes(whole | {part: value})


# ---- the grid ---------------------------------------------------------------------------------------------------------


class Found(HTMLParser):
    """Tags, texts and cells of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def made(planned: SweepPlan, **kept: CellResult) -> grid.Board:
    every = {cell.key: CellResult(Path(__file__), "d", 1.0) for cell in planned.cells}
    return grid.build_board(planned, every | kept, lambda path: f"/{path.name}")


def test_every_text_is_escaped() -> None:
    planned = plan_sweep(
        validate(
            SweepSpec,
            {
                "title": HOSTILE,
                "base": SMALL | {"prompt": "moon"},
                "axes": [
                    {"field": "prompt_replace", "find": "moon", "values": ["moon", HOSTILE]},
                    {"field": "negative_prompt", "values": [HOSTILE, ""]},
                    {"field": "seed", "values": "1-2"},
                ],
            },
        )
    )
    key = planned.cells[-1].key
    board = made(
        planned,
        **{
            key: CellResult(
                error=HOSTILE, verdict=Verdict(3, HOSTILE, True), metrics={HOSTILE: 1.0}
            )
        },
    )
    blocks = [
        grid.render_grid(board, 0, 1, selected_key=key, pinned_key=key),
        grid.render_grid(board, 1, 2),
        grid.render_verdict_editor(key, Verdict(3, HOSTILE, True)),
        grid.render_header(
            planned.spec,
            1,
            num_failed=1,
            num_cells=4,
            message=HOSTILE,
            fraction=0.5,
            state="running",
        ),
        grid.render_plan(planned, HOSTILE, "exact", 2),
        grid.render_faults([HOSTILE]),
        grid.render_parsed_values([HOSTILE]),
        grid.render_note(HOSTILE),
        grid.render_comparison((HOSTILE, HOSTILE), (HOSTILE, HOSTILE)),
        grid.render_slider_labels(HOSTILE, HOSTILE),
        grid.render_downloads([(HOSTILE, HOSTILE + ".png", 5)]),
        grid.render_placeholder([HOSTILE]),
        grid.render_sweep_list([("1", planned.spec, 0.0, 1, 2, True)]),
        grid.render_sweep_list([("1", planned.spec, 0.0, 1, 2, True)], confirm_id="1"),
    ]
    for block in blocks:
        found = Found(block)
        assert "script" not in found.tags
        assert not any(name.startswith("on") for _, name, _ in found.attributes)
        assert not any(name == "src" and value == "x" for _, name, value in found.attributes)


def test_every_cell_is_where_its_heads_say() -> None:
    planned = plan_sweep(
        spec(
            {"field": "scheduler", "values": ["Euler", "DDIM"]},
            {"field": "steps", "values": "2-4"},
            {"field": "seed", "values": "1-2"},
        )
    )
    board = made(planned)
    keys = {cell.labels: cell.key for cell in planned.cells}
    for across, down in ((0, 1), (1, 0), (0, 2), (2, 1)):
        over = ({0, 1, 2} - {across, down}).pop()
        sections = re.split("<h4>", grid.render_grid(board, across, down))[1:]
        assert len(sections) == len(board.axes[over][1])
        for (k, section), label in zip(enumerate(sections), board.axes[over][1]):
            named = "" if label.startswith(board.axes[over][0]) else f"{board.axes[over][0]}: "
            assert section.startswith(f"{named}{label}</h4>")
            order = re.findall('data-target="([0-9a-f]{64})"', section)
            labels = [
                {across: x, down: y, over: label}
                for y, x in product(board.axes[down][1], board.axes[across][1])
            ]
            assert order == [keys[tuple(at[axis] for axis in range(3))] for at in labels], (
                across,
                down,
                k,
            )


def test_axes_hand_in_hand_are_one_and_a_single_one_flows() -> None:
    zipped = plan_sweep(
        spec(
            {"field": "scheduler", "values": ["Euler", "DDIM"], "group": 1},
            {"field": "guidance", "values": "1-3"},
            {"field": "steps", "values": "2, 4", "group": 1},
        )
    )
    board = made(zipped)
    assert [title for title, _ in board.axes] == [
        "Sampler + Steps",
        "CFG scale",
    ]
    assert board.axis_indices == (0, 1)
    assert board.axes[0][1] == ("Euler · Steps 2", "DDIM · Steps 4")
    assert len(board.tiles) == 6
    alone = grid.render_grid(made(plan_sweep(spec({"field": "steps", "values": "2-9"}))), 0, None)
    assert "<table" not in alone
    assert alone.count("<figcaption>") == 8


def test_what_a_cell_came_to_is_seen() -> None:
    planned = plan_sweep(GRID)
    keys = [cell.key for cell in planned.cells]
    gone = CellResult(Path("/nowhere.png"), "d", 1.0)
    board = made(
        planned,
        **{
            keys[0]: CellResult(error="too dear"),
            keys[1]: CellResult(),
            keys[2]: gone,
            keys[3]: CellResult(
                Path(__file__),
                "d",
                1.0,
                verdict=Verdict(4, "", True),
                metrics={"difference": 1.234},
            ),
        },
    )
    text = grid.render_grid(board, 0, 1, selected_key=keys[3], pinned_key=keys[4])
    states = dict(re.findall('data-target="([0-9a-f]{64})" data-state="([a-z]+)"', text))
    assert [states[key] for key in keys] == ["failed", "missing", "missing", "done", "done", "done"]
    assert "too dear" in text
    assert "★★★★ ♥" in text
    assert "Δ 1.23" in text
    assert text.count('tabindex="0"') == 1
    assert text.count('class="tile now"') == 1
    assert text.count('class="tile pinned"') == 1


@pytest.mark.slow
def test_many_cells_stay_quick_and_few() -> None:
    board = made(
        plan_sweep(
            spec({"field": "steps", "values": "1-100"}, {"field": "seed", "values": "1-100"})
        )
    )
    text = grid.render_grid(board, 0, 1)
    assert text.count("<button") - 3 <= grid.MAX_TILES
    address = "gradio_api/file=" + "x" * 120  # about as long as real ones
    tiles = [replace(tile, thumbnail_url=address) for tile in board.tiles.values()]
    full = replace(board, tiles=dict(zip(board.tiles, tiles)))
    assert len(grid.render_grid(full, 0, 1).encode()) < 300_000
    assert "of 10,000 cells" in text
    small = grid.render_grid(
        made(
            plan_sweep(
                spec({"field": "steps", "values": "1-20"}, {"field": "seed", "values": "1-20"})
            )
        ),
        0,
        1,
    )
    assert small.count('loading="lazy"') == 400
    assert len(small) < 160_000


# ---- whose it is, what is counted -------------------------------------------------------------------------------------


def shown(tab: SweepTab, sweep_id: str, cell_key: str = "") -> dict[Any, Any]:
    """What the page says of the open sweep."""
    view = tab.view
    return {
        view.sweep_id: sweep_id,
        view.grid_axes: (0, 1),
        view.pane.cell_key: cell_key,
        view.pane.pinned_key: "",
        view.pane.compare_mode: "Slider",
    }


@pytest.mark.smoke
def test_a_guest_sees_and_changes_only_own_sweeps(tab: SweepTab, desk: Services, by: Any) -> None:
    id, _ = desk.submit_sweep(GRID, ANN)
    key = plan_sweep(GRID).cells[0].key
    for visitor, may in ((ANN, True), (BOB, False), (OWNER, True)):
        assert (tab.view.find_sweep(id, visitor) is not None) is may
        assert (id in tab._render_sweep_list(visitor, "")) is may
    acting = shown(tab, id)
    for verb in ("cell", "stars", "best", "note", "pin"):
        with refused(gr.Error):
            tab.view.handle_action(acting, pressed(verb, key, "3"), by(BOB))
    for verb in ("open", "ask", "delete"):
        with refused(gr.Error):
            tab.handle_sweep_action("", pressed(verb, id), by(BOB))
    for attempt in (
        lambda: tab.resume_sweep(id, by(BOB)),
        lambda: tab.view.submit_export(acting | {tab.view.metrics: []}, by(BOB)),
    ):
        with refused(gr.Error):
            attempt()
    tab.view.cancel_jobs(id, by(BOB))
    assert [job.state for job in desk.home.jobs.list_open()] == ["queued"]
    with refused(gr.Error):
        tab.view.handle_action(acting, pressed("stars", "f" * 64, "3"), by(ANN))
    for bad in ("6", "-1", "x", "", "٣٣"):
        with refused(gr.Error, "Stars"):
            tab.view.handle_action(acting, pressed("stars", key, bad), by(ANN))
    with refused(gr.Error):
        tab.handle_sweep_action("", pressed("delete", id), by(ANN))


def test_verdicts_are_kept_part_by_part(tab: SweepTab, desk: Services, by: Any) -> None:
    id, _ = desk.submit_sweep(GRID, OWNER)
    key = plan_sweep(GRID).cells[0].key
    for verb, value in (("stars", "4"), ("note", HOSTILE), ("best", ""), ("stars", "2")):
        tab.view.handle_action(shown(tab, id, key), pressed(verb, key, value), by(OWNER))
    assert desk.home.sweeps.load_cell_results(id)[key].verdict == Verdict(2, HOSTILE, True)
    with refused(gr.Error, "Note"):
        tab.view.handle_action(shown(tab, id, key), pressed("note", key, "x" * 2001), by(OWNER))


def test_more_values_go_on_with_the_same_sweep_and_seed(
    tab: SweepTab, desk: Services, by: Any
) -> None:
    open_seed = validate(SweepSpec, {**GRID.model_dump(), "base": SMALL | {"seed": -1}})
    id, _ = desk.submit_sweep(open_seed, OWNER)
    stored = desk.home.sweeps.get(id)
    assert stored
    cells = plan_sweep(stored.spec).cells
    for cell in cells[:4]:
        desk.home.sweeps.save_cell_result(id, cell.key, CellResult(Path(__file__), "d", 1.0))
    more = page(tab, tab.fill_form(open_seed, OWNER)) | {
        tab.axis_rows.rows[1].text: "2-5",
        tab.view.sweep_id: id,
    }
    told = tab.update_plan(more, by(OWNER))[tab.plan]
    assert "2 × 4 = 8" in told
    assert "4 new, 4 already done" in told
    tab.extend_sweep(more, by(OWNER))
    again = desk.home.sweeps.get(id)
    assert again
    assert again.id == id
    assert again.spec.base.seed == stored.spec.base.seed
    assert {cell.key for cell in cells} < {cell.key for cell in plan_sweep(again.spec).cells}
    assert [job.spec["sweep"] for job in desk.home.jobs.list_open()] == [id, id]


@pytest.mark.slow
def test_a_guest_is_told_the_limit_before_anything_is_planned(tab: SweepTab, by: Any) -> None:
    huge = validate(
        SweepSpec,
        {
            "base": SMALL,
            "axes": [{"field": "seed", "values": "1-100"}, {"field": "steps", "values": "1-100"}],
        },
    )
    sent = page(tab, tab.fill_form(huge, OWNER))
    assert "at most 64 cells" in tab.update_plan(sent, by(ANN))[tab.plan]
    fewer = sent | {tab.axis_rows.rows[1].text: "1-2"}
    assert "100 × 2 = 200" in tab.update_plan(fewer, by(OWNER))[tab.plan]


def test_time_is_said_only_where_it_was_measured(tab: SweepTab, desk: Services, by: Any) -> None:
    sent = page(tab, tab.fill_form(GRID, OWNER))
    assert "time not measured on this machine yet" in tab.update_plan(sent, by(OWNER))[tab.plan]
    request = GenerationRequest(**SMALL, steps=10).resolve(64, 7)
    desk.home.gallery.save(
        Image.new("RGB", (64, 64)),
        request,
        digest="0" * 64,
        content_hashes={},
        seconds=2.0,
        owner="owner",
    )
    assert "once loaded" in tab.update_plan(sent, by(OWNER))[tab.plan]
    desk.home.jobs.set_worker_status("cpu", {"loaded": [{"name": "pocket", "bytes": 1}]})
    record_timings(desk.home.settings, "pocket", load=9.0, encode=0.1)
    assert re.search(
        r"about 3\.8 s<", tab.update_plan(sent, by(OWNER))[tab.plan]
    )  # 36 rows at 0.1 s, two prompts, in memory already
    (found,) = desk.load_current_timings(["pocket"], batched=False).values()
    assert found.native_size == 128
    assert found.seconds_per_megapixel
    assert found.load == 0
    assert "none" not in desk.load_current_timings(["none"], batched=False)


def test_a_deleted_sweep_is_gone_with_its_files(tab: SweepTab, desk: Services, by: Any) -> None:
    id, job = desk.submit_sweep(GRID, OWNER)
    desk.home.jobs.cancel(job)
    desk.home.sweeps.get_folder(id).mkdir(parents=True)
    (desk.home.sweeps.get_folder(id) / "viewer.html").write_text("x")
    assert (
        "stay in the gallery"
        in tab.handle_sweep_action(id, pressed("ask", id), by(OWNER))[tab.sweep_list]
    )
    assert desk.home.sweeps.get(id)
    updates = tab.handle_sweep_action(id, pressed("delete", id), by(OWNER))
    assert desk.home.sweeps.get(id) is None
    assert not desk.home.sweeps.get_folder(id).exists()
    assert updates[tab.view.sweep_id] == ""
    with pytest.raises(BadFile):
        tab.view.require_sweep(id, OWNER)
