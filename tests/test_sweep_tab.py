"""The Sweep tab without a browser: rows ⇄ axes, the grid's HTML, whose a sweep is, what is counted."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from conftest import Served
from PIL import Image
from test_guard import API, Browser

from studio.core.base import check
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import Plan, SweepSpec, plan
from studio.errors import BadFile, InvalidSpec
from studio.settings import Settings
from studio.storage.sweeps import Kept, Sweeps, Verdict
from studio.storage.timings import note
from studio.ui.guard import COOKIE, Visitor
from studio.ui.tabs.sweep.axes import BLANK, raw_of, read
from studio.ui.tabs.sweep.tab import SweepTab
from studio.ui.views import sweep as grid
from studio.ui.widgets import Desk, rates

HOSTILE = "\"><img src=x onerror=\"document.title='pwned'\"><script>alert(1)</script>&amp;'"
OWNER, ANN, BOB = (
    Visitor("owner", guest=False),
    Visitor("ann", guest=True),
    Visitor("bob", guest=True),
)
SMALL: dict[str, Any] = {
    "prompt": "a moon",
    "width": 64,
    "height": 64,
    "seed": 7,
    "schedule": "As shipped",
}


def spec(*axes: dict[str, Any], **more: Any) -> SweepSpec:
    return check(SweepSpec, {"base": SMALL, "axes": list(axes), **more})


GRID = spec(
    {"field": "scheduler", "values": ["Euler", "DDIM"]}, {"field": "steps", "values": "2-4"}
)


@pytest.fixture
def tab(desk: Desk) -> SweepTab:
    with gr.Blocks():
        return SweepTab(desk)


def page(tab: SweepTab, updates: dict[Any, Any] | None = None) -> dict[Any, Any]:
    """What the browser would send, after these updates of an empty page."""
    sent = {part: part.value for part in tab.asked}
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
def test_an_axis_survives_the_page(axis: dict[str, Any], tab: SweepTab) -> None:
    (before,) = spec(axis).axes
    raw = raw_of(before, [before.group] if before.group is not None else [])
    again = check(type(before), read(raw))
    assert (again.field, again.parsed, again.lora, again.find) == (
        before.field,
        before.parsed,
        before.lora,
        before.find,
    )
    assert (again.group is None) == (before.group is None)
    assert tab.read(page(tab, tab.fill(spec(axis), OWNER))).axes[0].parsed == before.parsed


def test_presets_fill_the_page_and_come_back_from_it(tab: SweepTab, desk: Desk) -> None:
    names = desk.sweep_presets.names()
    assert len(names) >= 7
    for name in names:
        whole = desk.sweep_presets.load(name)
        again = tab.read(page(tab, tab.fill(whole, OWNER)))
        assert plan(again, seed=1).cells == plan(whole, seed=1).cells, name


def test_all_faults_are_said_at_once(tab: SweepTab) -> None:
    sent = page(tab, tab.fill(GRID, OWNER)) | {
        tab.form["width"]: 63,
        tab.rows.rows[1].text: "2-x, 4",
        tab.form["prompt"]: "a (cat",
    }
    with pytest.raises(InvalidSpec) as caught:
        tab.read(sent)
    said = "\n".join(caught.value.faults)
    assert all(
        word in said for word in ("Base: Prompt", "Base: Width", "Axis 2: Steps: value 1, '2-x'")
    )
    three = page(tab, tab.rows.show([*(raw_of(axis, []) for axis in GRID.axes), dict(BLANK)]))
    with pytest.raises(InvalidSpec, match="Axis 3: choose what varies"):
        tab.read(three | {tab.rows.fields: ["scheduler", "steps", None]})


def test_a_guest_sweeps_over_no_picture_that_somebody_else_brought(
    tab: SweepTab, desk: Desk
) -> None:
    theirs, own = (
        desk.library.inputs.add(Image.new("RGB", (64, 64), colour), by=by).sha256
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
        wanted = check(SweepSpec, {"base": SMALL | {"image": image}, "axes": [axis]})
        sent = page(tab, tab.fill(wanted, BOB))
        if theirs in wanted.model_dump_json():
            with pytest.raises(gr.Error, match="send it again"):
                tab.submit(sent, nobody)
            assert not desk.jobs.waiting()
        else:
            open_ = tab.submit(sent, nobody)[tab.view.current]
            with pytest.raises(gr.Error, match="send it again"):
                tab.submit_more(
                    sent | {tab.view.current: open_, tab.basis.kept: {"image": theirs}}, nobody
                )
            assert len(desk.jobs.waiting()) == 1


@pytest.mark.parametrize(
    "value", [None, [], {}, 5, float("nan"), "x" * 3000, ["Euler", None], "\0"], ids=str
)
def test_whatever_a_browser_sends_is_a_sentence_at_most(value: Any, tab: SweepTab) -> None:
    whole = page(tab, tab.fill(GRID, OWNER))
    for part in (
        *tab.rows.rows[0].inputs.values(),
        *tab.rows.rows[1].inputs.values(),
        tab.title,
        *tab.form.inputs,
    ):
        with suppress(InvalidSpec):
            tab.read(whole | {part: value})
        tab.rows.echo(whole | {part: value})


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


def made(planned: Plan, **kept: Kept) -> grid.Board:
    every = {cell.key: Kept(Path(__file__), "d", 1.0) for cell in planned.cells}
    return grid.board(planned, every | kept, lambda path: f"/{path.name}")


def test_every_text_is_escaped() -> None:
    planned = plan(
        check(
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
        **{key: Kept(error=HOSTILE, verdict=Verdict(3, HOSTILE, True), numbers={HOSTILE: 1.0})},
    )
    blocks = [
        grid.grid(board, 0, 1, key, key),
        grid.grid(board, 1, 2),
        grid.judging(key, Verdict(3, HOSTILE, True)),
        grid.head(planned.spec, 1, 1, 4, HOSTILE, 0.5, "running"),
        grid.planned(planned, HOSTILE, "exact", 2),
        grid.faults([HOSTILE]),
        grid.echo([HOSTILE]),
        grid.note(HOSTILE),
        grid.compared((HOSTILE, HOSTILE), (HOSTILE, HOSTILE)),
        grid.captions(HOSTILE, HOSTILE),
        grid.downloads([(HOSTILE, HOSTILE + ".png", 5)]),
        grid.empty([HOSTILE]),
        grid.shelf([("1", planned.spec, 0.0, 1, 2, True)]),
        grid.shelf([("1", planned.spec, 0.0, 1, 2, True)], asked="1"),
    ]
    for block in blocks:
        found = Found(block)
        assert "script" not in found.tags and not any(
            name.startswith("on") for _, name, _ in found.attributes
        )
        assert not any(name == "src" and value == "x" for _, name, value in found.attributes)


def test_every_cell_is_where_its_heads_say() -> None:
    planned = plan(
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
        sections = re.split("<h4>", grid.grid(board, across, down))[1:]
        assert len(sections) == len(board.axes[over][1])
        for (k, section), label in zip(enumerate(sections), board.axes[over][1]):
            named = "" if label.startswith(board.axes[over][0]) else f"{board.axes[over][0]}: "
            assert section.startswith(f"{named}{label}</h4>")
            order = re.findall('data-subject="([0-9a-f]{64})"', section)
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
    zipped = plan(
        spec(
            {"field": "scheduler", "values": ["Euler", "DDIM"], "group": 1},
            {"field": "guidance", "values": "1-3"},
            {"field": "steps", "values": "2, 4", "group": 1},
        )
    )
    board = made(zipped)
    assert [title for title, _ in board.axes] == [
        "Scheduler + Steps",
        "Guidance",
    ] and board.places == (0, 1)
    assert board.axes[0][1] == ("Euler · Steps 2", "DDIM · Steps 4") and len(board.tiles) == 6
    alone = grid.grid(made(plan(spec({"field": "steps", "values": "2-9"}))), 0, None)
    assert "<table" not in alone and alone.count("<figcaption>") == 8


def test_what_a_cell_came_to_is_seen() -> None:
    planned = plan(GRID)
    keys = [cell.key for cell in planned.cells]
    gone = Kept(Path("/nowhere.png"), "d", 1.0)
    board = made(
        planned,
        **{
            keys[0]: Kept(error="too dear"),
            keys[1]: Kept(),
            keys[2]: gone,
            keys[3]: Kept(
                Path(__file__),
                "d",
                1.0,
                verdict=Verdict(4, "", True),
                numbers={"difference": 1.234},
            ),
        },
    )
    text = grid.grid(board, 0, 1, picked=keys[3], pinned=keys[4])
    states = dict(re.findall('data-subject="([0-9a-f]{64})" data-state="([a-z]+)"', text))
    assert [states[key] for key in keys] == ["failed", "missing", "missing", "done", "done", "done"]
    assert "too dear" in text and "★★★★ ♥" in text and "Δ 1.23" in text
    assert (
        text.count('tabindex="0"') == 1
        and text.count('class="tile now"') == 1
        and text.count('class="tile pinned"') == 1
    )


def test_many_cells_stay_quick_and_few() -> None:
    board = made(
        plan(spec({"field": "steps", "values": "1-100"}, {"field": "seed", "values": "1-100"}))
    )
    text = grid.grid(board, 0, 1)
    assert text.count("<button") - 3 <= grid.MOST_TILES and "of 10,000 cells" in text
    small = grid.grid(
        made(plan(spec({"field": "steps", "values": "1-20"}, {"field": "seed", "values": "1-20"}))),
        0,
        1,
    )
    assert small.count('loading="lazy"') == 400 and len(small) < 160_000


# ---- whose it is, what is counted -------------------------------------------------------------------------------------


def pressed(what: str, subject: str, value: str = "") -> Any:
    return gr.EventData(None, {"what": what, "subject": subject, "value": value})


class Asked(gr.Request):
    """A request of that visitor's; `who` is replaced to read it."""

    def __init__(self, visitor: Visitor) -> None:
        super().__init__()
        self.visitor = visitor


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Any:
    for module in ("sweep.tab", "sweep.results"):
        monkeypatch.setattr(f"studio.ui.tabs.{module}.who", lambda request: request.visitor)
    return Asked


def test_a_guest_sees_and_changes_only_own_sweeps(tab: SweepTab, desk: Desk, by: Any) -> None:
    id, _ = desk.submit_sweep(GRID, ANN)
    key = plan(GRID).cells[0].key
    for visitor, may in ((ANN, True), (BOB, False), (OWNER, True)):
        assert (tab.view.mine(id, visitor) is not None) is may
        assert (id in tab._shelf(visitor, "")) is may
    acting: list[Any] = [id, (0, 1), "", "", "Slider"]
    for verb in ("cell", "stars", "best", "note", "pin"):
        with pytest.raises(gr.Error, match="no such sweep"):
            tab.view.act(*acting, pressed(verb, key, "3"), by(BOB))
    for verb in ("open", "ask", "delete"):
        with pytest.raises(gr.Error, match="no such sweep"):
            tab.from_shelf("", pressed(verb, id), by(BOB))
    for refused in (
        lambda: tab.go_on(id, by(BOB)),
        lambda: tab.view.submit_export(id, (0, 1), [], "", "", by(BOB)),
    ):
        with pytest.raises(gr.Error, match="no such sweep"):
            refused()
    tab.view.cancel(id, by(BOB))
    assert [job.state for job in desk.jobs.waiting()] == ["queued"]
    with pytest.raises(gr.Error, match="no longer in this sweep"):
        tab.view.act(*acting, pressed("stars", "f" * 64, "3"), by(ANN))
    for bad in ("6", "-1", "x", "", "٣٣"):
        with pytest.raises(gr.Error, match="Stars"):
            tab.view.act(*acting, pressed("stars", key, bad), by(ANN))
    with pytest.raises(gr.Error, match="still runs"):
        tab.from_shelf("", pressed("delete", id), by(ANN))


def test_verdicts_are_kept_part_by_part(tab: SweepTab, desk: Desk, by: Any) -> None:
    id, _ = desk.submit_sweep(GRID, OWNER)
    key = plan(GRID).cells[0].key
    for verb, value in (("stars", "4"), ("note", HOSTILE), ("best", ""), ("stars", "2")):
        tab.view.act(id, (0, 1), key, "", "Slider", pressed(verb, key, value), by(OWNER))
    assert desk.sweeps.cells(id)[key].verdict == Verdict(2, HOSTILE, True)
    with pytest.raises(gr.Error, match="Note"):
        tab.view.act(id, (0, 1), key, "", "Slider", pressed("note", key, "x" * 2001), by(OWNER))


def test_more_values_go_on_with_the_same_sweep_and_seed(tab: SweepTab, desk: Desk, by: Any) -> None:
    open_seed = check(SweepSpec, {**GRID.model_dump(), "base": SMALL | {"seed": -1}})
    id, _ = desk.submit_sweep(open_seed, OWNER)
    stored = desk.sweeps.get(id)
    assert stored
    cells = plan(stored.spec).cells
    for cell in cells[:4]:
        desk.sweeps.keep(id, cell.key, Kept(Path(__file__), "d", 1.0))
    more = page(tab, tab.fill(open_seed, OWNER)) | {
        tab.rows.rows[1].text: "2-5",
        tab.view.current: id,
    }
    told = tab.tell(more, by(OWNER))[tab.plan]
    assert "2 × 4 = 8" in told and "4 new, 4 made already" in told
    tab.submit_more(more, by(OWNER))
    again = desk.sweeps.get(id)
    assert again and again.id == id and again.spec.base.seed == stored.spec.base.seed
    assert {cell.key for cell in cells} < {cell.key for cell in plan(again.spec).cells}
    assert [job.spec["sweep"] for job in desk.jobs.waiting()] == [id, id]


def test_a_guest_is_told_the_limit_before_anything_is_planned(tab: SweepTab, by: Any) -> None:
    huge = check(
        SweepSpec,
        {
            "base": SMALL,
            "axes": [{"field": "seed", "values": "1-100"}, {"field": "steps", "values": "1-100"}],
        },
    )
    sent = page(tab, tab.fill(huge, OWNER))
    assert "64 cells at most" in tab.tell(sent, by(ANN))[tab.plan]
    fewer = sent | {tab.rows.rows[1].text: "1-2"}
    assert "100 × 2 = 200" in tab.tell(fewer, by(OWNER))[tab.plan]


def test_time_is_said_only_where_it_was_measured(tab: SweepTab, desk: Desk, by: Any) -> None:
    sent = page(tab, tab.fill(GRID, OWNER))
    assert "not measured on this machine yet" in tab.tell(sent, by(OWNER))[tab.plan]
    request = GenerationRequest(**SMALL, steps=10).resolved(64, 7)
    desk.gallery.save(Image.new("RGB", (64, 64)), request, "0" * 64, {}, 2.0, "owner")
    assert "once loaded" in tab.tell(sent, by(OWNER))[tab.plan]
    desk.jobs.say("cpu", {"loaded": [{"name": "pocket", "bytes": 1}]})
    note(desk.settings, "pocket", load=9.0, encode=0.1)
    assert re.search(
        r"about 3\.8 s<", tab.tell(sent, by(OWNER))[tab.plan]
    )  # 36 rows at 0.1 s, two prompts, in memory already
    (found,) = rates(desk, ["pocket"], together=False).values()
    assert (
        found.side == 128
        and found.row
        and found.load == 0
        and "none" not in rates(desk, ["none"], together=False)
    )


def test_a_deleted_sweep_is_gone_with_its_files(tab: SweepTab, desk: Desk, by: Any) -> None:
    id, job = desk.submit_sweep(GRID, OWNER)
    desk.jobs.cancel(job)
    desk.sweeps.folder(id).mkdir(parents=True)
    (desk.sweeps.folder(id) / "viewer.html").write_text("x")
    assert "stay in the gallery" in tab.from_shelf(id, pressed("ask", id), by(OWNER))[tab.shelf]
    assert desk.sweeps.get(id)
    updates = tab.from_shelf(id, pressed("delete", id), by(OWNER))
    assert (
        desk.sweeps.get(id) is None
        and not desk.sweeps.folder(id).exists()
        and updates[tab.view.current] == ""
    )
    with pytest.raises(BadFile):
        tab.view.must(id, OWNER)


def test_a_guest_reads_only_own_sheets(served: Served) -> None:
    sweeps = Sweeps(Settings(home=served.home))
    with Browser(served) as owner, Browser(served, "192.168.7.7") as guest:
        for browser in (owner, guest):
            browser.get("/")
        own = hashlib.sha256(guest.cookies[COOKIE].encode()).hexdigest()[:16]
        files = []
        for sweep in (theirs := sweeps.add(GRID, "somebody"), sweeps.add(GRID, own)):
            files.append(sweeps.folder(sweep) / "viewer.html")
            files[-1].parent.mkdir(parents=True)
            files[-1].write_text("<p>a sheet</p>")
        file, address = files[0], f"{API}/file={files[0]}"
        assert (
            owner.get(address).status_code == guest.get(f"{API}/file={files[1]}").status_code == 200
        )
        for way in (
            address,
            f"{API}/file/{file}",
            f"{address}?v=1",
            f"{API}/file={file.parent}/../{theirs}/viewer.html",
        ):
            assert guest.get(way).status_code == 403
        for odd in (
            sweeps.folder(""),
            sweeps.folder(theirs),
            sweeps.folder("none") / "viewer.html",
        ):
            assert guest.get(f"{API}/file={odd}").status_code == 403
    sweeps.close()
