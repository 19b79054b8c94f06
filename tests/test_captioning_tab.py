"""The Captions tab without a browser: who may look and change, what is kept, how filters, tags and nonsense are answered."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from conftest import Served
from test_guard import API, Browser
from test_sweep_tab import ANN, HOSTILE, OWNER, Asked, pressed

from studio.core.captions.clip_query import SeeSpec
from studio.core.captions.lint import Finding
from studio.core.captions.provenance import Writer
from studio.core.captions.spec import CaptionSpec
from studio.errors import DatasetError, NotAllowed
from studio.settings import Settings, shipped
from studio.storage.datasets.dataset import Albums
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Counts
from studio.ui import show
from studio.ui.guard import Visitor
from studio.ui.tabs.captioning.browser import called
from studio.ui.tabs.captioning.search import listed
from studio.ui.tabs.captioning.state import Find
from studio.ui.tabs.captioning.tab import CaptioningTab
from studio.ui.tabs.training.tab import TrainingTab
from studio.ui.views import dataset as words
from studio.ui.widgets import Desk

PLUSH = shipped("assets") / "datasets" / "mysks"


@pytest.fixture
def desk(desk: Desk) -> Desk:
    own = desk.settings.home / "datasets" / "bears"
    own.mkdir(parents=True)
    for number in range(5):
        shutil.copy(PLUSH / f"{number:03}.png", own)
        (own / f"{number:03}.txt").write_text(f"bear, number {number}\n")
    return desk


@pytest.fixture
def tab(desk: Desk) -> CaptioningTab:
    with gr.Blocks():
        return CaptioningTab(desk)


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Any:
    for module in (
        "captioning.tab",
        "captioning.browser",
        "captioning.captioner",
        "captioning.tools",
        "captioning.search",
    ):
        monkeypatch.setattr(f"studio.ui.tabs.{module}.who", lambda request: request.visitor)
    return Asked


def page(tab: CaptioningTab, name: str = "bears", **more: Any) -> dict[Any, Any]:
    """What the browser sends: the parts of the form with what they begin with."""
    values = {part: part.value for part in tab.form.inputs}
    values |= {
        tab.view.dataset: name,
        tab.view.filter: "",
        tab.view.page: 0,
        tab.view.found: (),
        tab.view.cards: [],
    }
    values |= {
        part: part.value
        for tool in (tab.tools, tab.finder)
        for part in vars(tool).values()
        if isinstance(part, gr.Textbox | gr.Number | gr.Dropdown | gr.CheckboxGroup)
    }
    return values | {getattr(tab.tools, key): value for key, value in more.items()}


def cards(tab: CaptioningTab, shown: dict[Any, Any]) -> list[dict[str, Any]]:
    """What a page is told of its pictures."""
    return list(shown[tab.view.cards].props["told"]["cards"])


def typed(key: str, text: str, was: str, dataset: str = "bears") -> Any:
    return gr.EventData(
        None, {"what": "put", "dataset": dataset, "subject": key, "text": text, "was": was}
    )


def text(desk: Desk, key: str) -> str:
    return (desk.settings.home / "datasets" / "bears" / key).read_text().strip()


def test_a_caption_typed_is_kept_and_undone(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    shown = tab.touched(
        page(tab), typed("001.png", "  a   bear\nby a lake ", "bear, number 1"), by(OWNER)
    )
    assert text(desk, "001.txt") == "a bear by a lake"
    card = next(card for card in cards(tab, shown) if card["key"] == "001.png")
    assert card["caption"] == "a bear by a lake" and card["by"] == "by hand" and not card["locked"]
    assert shown[tab.view.undo].interactive and not shown[tab.view.redo].interactive
    tab.view.undone(page(tab), by(OWNER))
    assert text(desk, "001.txt") == "bear, number 1"
    tab.view.redone(page(tab), by(OWNER))
    assert text(desk, "001.txt") == "a bear by a lake"


def test_two_who_edit_one_caption_lose_neither(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    tab.touched(page(tab), typed("001.png", "mine", "bear, number 1"), by(OWNER))
    with pytest.raises(gr.Error, match="theirs"):  # the message gives back what was typed
        tab.touched(page(tab), typed("001.png", "theirs", "bear, number 1"), by(OWNER))
    assert text(desk, "001.txt") == "mine"
    tab.touched(
        page(tab), typed("001.png", "mine", "bear, number 1"), by(OWNER)
    )  # sent twice by a slow line: no fault


def test_filters_pages_and_faults(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    for filter, total in (("", 5), ("number", 5), ("tag:bear -3", 4), ("is:missing", 0)):
        shown = tab.view.filtered(page(tab) | {tab.view.filter: filter}, by(OWNER))
        assert len(cards(tab, shown)) == total and f'data-total="{total}"' in shown[tab.view.count]
    shown = tab.view.filtered(page(tab) | {tab.view.filter: "tokens:>"}, by(OWNER))
    assert "faults" in shown[tab.view.note] and len(cards(tab, shown)) == 5
    assert tab.view.turn_on(page(tab) | {tab.view.page: 900}, by(OWNER))[tab.view.page] == 0
    found = (Find("003.png", "0.9"), Find("gone.png", "0.8"), Find("001.png", "0.7"))
    shown = tab.view.again(page(tab), OWNER, found=found)
    assert [(card["key"], card["note"]) for card in cards(tab, shown)] == [
        ("003.png", "0.9"),
        ("001.png", "0.7"),
    ]


def test_only_what_changed_is_drawn_again(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    shown = tab.view.shown(tab.view.place(page(tab)), OWNER)
    while desk.shelf.looking("bears"):
        pass
    shown = tab.view.shown(tab.view.place(page(tab)), OWNER)
    values = page(tab) | {tab.view.seen: shown[tab.view.seen]}
    assert set(tab.view.look(values, by(OWNER))) == {tab.view.seen}
    Albums(desk.settings).open("bears").write(
        {"002.png": "by a worker"}, Writer(by="model", model="pocket")
    )
    assert "by a worker" in [
        card["caption"] for card in cards(tab, tab.view.look(values, by(OWNER)))
    ]


def test_guests_look_at_what_came_with_the_studio_and_change_nothing(
    tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    assert desk.shelf.names(ANN) == ["moon", "mysks"] and "bears" in desk.shelf.names(OWNER)
    shown = tab.open("mysks", ANN)
    rows = cards(tab, shown)
    assert len(rows) == 15 and all(
        card["locked"] and card["src"].startswith("data:image/webp") for card in rows
    )
    assert "Copy" not in shown[tab.view.offers]
    assert cards(tab, tab.open("bears", ANN)) == []
    was = text(desk, "001.txt")
    for refused in (
        lambda: tab.touched(page(tab), typed("001.png", "x", was), by(ANN)),
        lambda: tab.act(page(tab), pressed("copy", "moon"), by(ANN)),
        lambda: tab.view.undone(page(tab), by(ANN)),
        lambda: tab.captioner.submit(page(tab), by(ANN)),
        lambda: tab.captioner.dressed(page(tab) | {tab.view.trigger: "mysks"}, by(ANN)),
        lambda: tab.tools.replaced(page(tab, find="bear", to="x"), by(ANN)),
        lambda: tab.tools.previewed(page(tab, find="bear", to="x"), by(ANN)),
        lambda: tab.tools.exported(page(tab), by(ANN)),
        lambda: tab.tools.mend(page(tab), pressed("mend", json.dumps(["short", ""])), by(ANN)),
        lambda: tab.finder.searched(page(tab) | {tab.finder.words: "a boat"}, by(ANN)),
        lambda: tab.add(page(tab) | {tab.files: [], tab.into: "x"}, by(ANN)),
    ):
        with pytest.raises(gr.Error, match=r"owner|There is no dataset"):
            refused()
    assert text(desk, "001.txt") == was and not desk.jobs.waiting()
    for spec, send in (
        (CaptionSpec(dataset="mysks"), desk.submit_caption),
        (SeeSpec(dataset="mysks", words="x"), desk.submit_see),
    ):
        with pytest.raises(NotAllowed):
            send(spec, ANN)  # type: ignore[arg-type]


def test_a_shipped_dataset_stays_and_its_copy_is_edited(
    tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    with pytest.raises(gr.Error, match="Copy it to edit"):
        tab.captioner.submit(page(tab, "mysks"), by(OWNER))
    with pytest.raises(gr.Error, match="came with the studio"):
        tab.touched(
            page(tab, "mysks"),
            typed("001.png", "x", (PLUSH / "001.txt").read_text().strip(), "mysks"),
            by(OWNER),
        )
    for name in ("my mysks", "my mysks 2"):
        shown = tab.act(page(tab, "mysks"), pressed("copy", "mysks"), by(OWNER))
        assert shown[tab.form["dataset"]].value == name and not cards(tab, shown)[0]["locked"]


def test_what_is_asked_of_a_captioner(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    values = page(tab) | {tab.view.filter: "tag:bear", tab.view.trigger: "mysks"}
    shown = tab.captioner.submit(values, by(OWNER))
    job = desk.jobs.get(shown[tab.captioner.job])
    assert (
        job
        and job.kind == "caption"
        and job.spec["filter"] == "tag:bear"
        and job.spec["trigger"] == "mysks"
    )
    assert (
        show.what(job) == "captions for bears by pocket"
        and tab.captioner.last("bears", OWNER) == job.id
    )
    assert tab.captioner.last("bears", ANN) == 0
    tab.captioner.cancel(job.id, by(OWNER))
    assert not desk.jobs.waiting()
    values |= {tab.view.found: (("001.png", "1"), ("gone.png", "1"))}
    dry = desk.jobs.get(tab.captioner.submit_dry(values, by(OWNER))[tab.captioner.job])
    assert (
        dry
        and dry.spec["dry_run"]
        and dry.spec["filter"] == "tag:bear"
        and dry.spec["pictures"] == ["001.png"]
    )
    desk.jobs.claim("cpu")
    desk.jobs.finish(
        dry.id,
        "done",
        {
            "made": 1,
            "taken": 0,
            "kept": 0,
            "failed": [{"file": HOSTILE, "error": HOSTILE}],
            "rows": [{"file": "001.png", "before": HOSTILE, "after": "a bear"}],
            "more_rows": 0,
            "captioner": "pocket",
            "dry_run": True,
            "seconds": 0.4,
        },
    )
    shown = tab.captioner.look(dry.id, "", by(OWNER))
    assert (
        "Nothing was written" in shown[tab.captioner.doing]
        and 'data-count="1"' in shown[tab.captioner.result]
    )
    assert "<script" not in shown[tab.captioner.doing] + shown[tab.captioner.result]
    with pytest.raises(gr.Error) as refused:  # all faults at once
        tab.captioner.submit(
            values | {tab.form["tokens"]: -1, tab.form["prefix"]: "a\nb"}, by(OWNER)
        )
    for said in ("Longest caption", "Prefix"):
        assert said in str(refused.value)
    with pytest.raises(gr.Error, match="Dataset: choose one"):
        tab.captioner.submit(page(tab, ""), by(OWNER))


def test_the_trigger_is_put_once_and_handed_to_training(
    tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    with pytest.raises(gr.Error, match="write the word first"):
        tab.captioner.dressed(page(tab), by(OWNER))
    for said in ("mysks was put into 5 captions", "All captions have mysks already"):
        assert (
            said
            in tab.captioner.dressed(page(tab) | {tab.view.trigger: "mysks"}, by(OWNER))[
                tab.view.note
            ]
        )
    assert text(desk, "003.txt") == "mysks, bear, number 3"
    assert (
        called(desk.shelf.open("bears", OWNER)) == "mysks"
        and tab.open("bears", OWNER)[tab.form["trigger"]] == "mysks"
    )
    asked = tab.wanted(
        pressed("train", json.dumps({"dataset": "bears", "name": "bears", "trigger": "mysks"})),
        OWNER,
    )
    assert asked and asked[0] == "training"
    with gr.Blocks():
        training = TrainingTab(desk)
    taken = training.take(asked[1], OWNER)
    assert (
        taken[training.form["dataset"]].value == "bears"
        and taken[training.form["trigger"]] == "mysks"
    )
    assert set(taken) <= set(training.outputs) and "5 pictures" in taken[training.pictures]
    with pytest.raises(gr.Error, match="guests may train on"):
        training.take(asked[1], ANN)
    for nonsense in ("", "[" * 5000, "7", HOSTILE):
        assert tab.wanted(pressed("train", nonsense), OWNER) is None
    assert tab.wanted(pressed("copy", "moon"), OWNER) is None


def test_search_and_replace_and_tags(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    values = page(tab, find="bear", to="cat") | {tab.view.filter: "-3"}
    assert (
        'data-count="4"' in tab.tools.previewed(values, by(OWNER))
        and text(desk, "001.txt") == "bear, number 1"
    )
    tab.tools.replaced(values, by(OWNER))
    assert [text(desk, f"00{k}.txt") for k in (1, 3)] == ["cat, number 1", "bear, number 3"]
    for bad, said in (({"find": ""}, "Find"), ({"find": "(((", "how": ["pattern"]}, "no pattern")):
        with pytest.raises(gr.Error, match=said):
            tab.tools.replaced(page(tab, **bad), by(OWNER))
    assert "cat" in tab.tools.counted(page(tab), by(OWNER))
    assert (
        tab.tools.take_tag("a, b", pressed("tag", "c")) == "a, b, c"
        and tab.tools.take_tag("a, b", pressed("tag", "a")) == "b"
    )
    for does, held, new, wanted in (
        ("rename_tags", "cat", "dog", "dog, number 1"),
        ("first", "x, y", "", "x, y, dog, number 1"),
        ("name", "", "", "dog, number 1, x, y"),
        ("keep_tags", "", "2", "dog, number 1"),
        ("add_tags", "z", "", "dog, number 1, z"),
        ("delete_tags", "z", "", "dog, number 1"),
        ("dedupe_tags", "", "", "dog, number 1"),
        ("count", "", "", "dog, number 1"),
    ):
        tab.tools.tagged(page(tab, does=does, tag=held, new=new), by(OWNER))
        assert text(desk, "001.txt") == wanted, does
    for does, held, new, said in (
        ("rename_tags", "", "x", "Tags"),
        ("rename_tags", "a", "", "New name"),
        ("nonsense", "", "", "By"),
        ("keep_tags", "", "many", "How many"),
    ):
        with pytest.raises(gr.Error, match=said):
            tab.tools.tagged(page(tab, does=does, tag=held, new=new), by(OWNER))


def test_what_spoils_a_training_is_mended(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    folder = desk.settings.home / "datasets" / "bears"
    (folder / "000.txt").write_text("")
    (folder / "001.txt").write_text("bear, bear, by a lake")
    values = page(tab) | {tab.view.trigger: "mysks"}
    found = tab.tools.checked(values, by(OWNER))
    for kind in ("missing", "twice", "trigger"):
        assert f'data-kind="{kind}"' in found
    tab.tools.mend(values, pressed("mend", json.dumps(["twice", "001.png"])), by(OWNER))
    assert text(desk, "001.txt") == "bear, by a lake"
    shown = tab.tools.mend(values, pressed("mend", json.dumps(["trigger", ""])), by(OWNER))
    assert (
        text(desk, "004.txt") == "mysks, bear, number 4"
        and 'data-kind="trigger"' not in shown[tab.tools.findings]
    )
    shown = tab.tools.mend(values, pressed("mend", json.dumps(["missing", "000.png"])), by(OWNER))
    assert [card["key"] for card in cards(tab, shown)] == ["000.png"]
    assert (
        "mended already"
        in tab.tools.mend(values, pressed("mend", json.dumps(["twice", ""])), by(OWNER))[
            tab.view.note
        ]
    )
    for nonsense in ("", "{}", "[1]", HOSTILE, "[" * 9000):
        with pytest.raises(gr.Error, match="does not know"):
            tab.tools.mend(values, pressed("mend", nonsense), by(OWNER))


def test_answers_become_lists(desk: Desk, tab: CaptioningTab, by: Any) -> None:
    twins = {
        "question": "duplicates",
        "groups": [
            [
                {"file": "a", "like": 1.0, "same_file": True},
                {"file": "b", "like": 0.98, "same_file": False},
            ]
        ],
    }
    assert listed(twins) == (
        ("a", "group 1, the best of 2", ("b",)),
        ("b", "group 1, 0.98 alike", ()),
    )
    found = {
        "question": "classes",
        "found": [
            {"file": "001.png", "class": "sun", "share": 0.7},
            {"file": "002.png", "class": "moon", "share": 0.9},
        ],
    }
    assert listed(found) == (Find("002.png", "moon 90%"), Find("001.png", "sun 70%"))
    with pytest.raises(gr.Error, match="either words or a picture"):
        tab.finder.searched(page(tab), by(OWNER))
    started = tab.finder.sorted(page(tab) | {tab.finder.classes: "moon / sun / other"}, by(OWNER))
    id = started[tab.finder.job]
    job = desk.jobs.get(id)
    assert job and show.what(job) == "classes of the pictures of bears"
    desk.jobs.claim("cpu")
    desk.jobs.finish(id, "done", found)
    values = page(tab) | {tab.finder.job: id}
    shown = tab.finder.look(values, by(OWNER))
    assert [card["key"] for card in cards(tab, shown)] == ["002.png", "001.png"] and shown[
        tab.finder.tag
    ].visible
    tab.finder.tagged(values, by(OWNER))
    assert (
        text(desk, "002.txt") == "bear, number 2, moon"
        and text(desk, "001.txt") == "bear, number 1, sun"
    )


def test_pictures_like_one_from_outside(
    desk: Desk, tab: CaptioningTab, by: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("studio.ui.guard.get_upload_folder", lambda: str(tmp_path))

    def send(path: Path, visitor: Any = OWNER, name: str = "bears") -> Any:
        sent = {"path": str(path), "orig_name": path.name}
        return tab.finder.likened(page(tab, name) | {tab.finder.sent: sent}, by(visitor))

    shutil.copy(PLUSH / "003.png", tmp_path / "mine.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    shown = send(tmp_path / "mine.png")
    job = desk.jobs.get(shown[tab.finder.job])
    assert (
        job
        and (job.kind, job.spec["question"]) == ("see", "search")
        and shown[tab.finder.sent] is None
    )
    assert desk.library.inputs.load(job.spec["like"]).size == (128, 128)
    kept = len(list(desk.settings.inputs.iterdir()))
    mine = tmp_path / "mine.png"
    for path, visitor, name, said in (
        (tmp_path / "no.png", OWNER, "bears", "no.png"),
        (mine, ANN, "mysks", "owner"),
        (Path("/etc/passwd"), OWNER, "bears", "Send a file"),
        (mine, OWNER, "", "no dataset"),
    ):
        with pytest.raises(gr.Error, match=said):
            send(path, visitor, name)
    assert len(list(desk.settings.inputs.iterdir())) == kept


def test_a_new_dataset_is_shown_under_the_name_that_its_folder_got(
    desk: Desk, tab: CaptioningTab, by: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("studio.ui.guard.get_upload_folder", lambda: str(tmp_path))
    shutil.copy(PLUSH / "003.png", tmp_path / "mine.png")
    sent = [{"path": str(tmp_path / "mine.png"), "orig_name": "mine.png"}]
    shown = tab.add(page(tab) | {tab.files: sent, tab.into: "../a: bear?"}, by(OWNER))
    assert (desk.settings.home / "datasets" / "a- bear" / "mine.png").is_file()
    assert (
        shown[tab.form["dataset"]].value == "a- bear"
        and "were added to a- bear." in shown[tab.taken]
    )


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"what": "put"},
        {"what": HOSTILE, "subject": 7},
        {"what": "aside", "dataset": "bears"},
        {"what": "put", "dataset": "../..", "subject": "a", "text": "b", "was": ""},
        {"what": "put", "dataset": "bears", "subject": "../000.png", "text": "b", "was": ""},
    ],
    ids=str,
)
def test_nonsense_from_a_browser_is_refused(
    data: dict[str, Any], tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    before = sorted(path.read_bytes() for path in (desk.settings.home / "datasets").rglob("*.txt"))
    with pytest.raises(gr.Error):
        tab.touched(page(tab), gr.EventData(None, data), by(OWNER))
    with pytest.raises(gr.Error):
        tab.add(
            page(tab) | {tab.files: [{"path": "/etc/passwd", "orig_name": "a.png"}], tab.into: "x"},
            by(OWNER),
        )
    assert (
        sorted(path.read_bytes() for path in (desk.settings.home / "datasets").rglob("*.txt"))
        == before
    )
    with pytest.raises(DatasetError):
        desk.shelf.open("../bears", OWNER)


def test_nothing_of_a_users_is_taken_for_html() -> None:
    step = Step(
        1, HOSTILE, 0.0, Writer(by="model", model=HOSTILE), "done", 1, ((HOSTILE, HOSTILE),)
    )
    texts = [
        words.found(
            Counts(1, 0, 0, 0, "kohya", {HOSTILE: 3}), [(HOSTILE, HOSTILE)], [HOSTILE], (1, 2)
        ),
        words.history([step]),
        words.doing(HOSTILE, HOSTILE, True, False, True),
        words.changes([(HOSTILE, HOSTILE, f"x{HOSTILE}")], 1, HOSTILE),
        words.running(HOSTILE, 1, 2),
        words.ended("failed", HOSTILE, [{"file": HOSTILE, "error": HOSTILE}]),
        words.tags([(HOSTILE, 3)]),
        words.lint([Finding(HOSTILE, HOSTILE, HOSTILE, "caption")] * 2),
    ]
    for one in texts:
        assert "<script" not in one and "<img src=x" not in one and 'onerror="' not in one


def test_small_pictures_of_a_private_dataset_are_not_served_to_guests(served: Served) -> None:
    settings = Settings(home=served.home)
    own = settings.home / "datasets" / "family"
    own.mkdir(parents=True, exist_ok=True)
    shutil.copy(PLUSH / "000.png", own)
    (thumb,) = Albums(settings).open("family").thumbs(["000.png"])
    assert thumb and hashlib.sha256(thumb.read_bytes()).hexdigest()
    with Browser(served) as owner, Browser(served, "192.168.7.9") as guest:
        for browser, expected in ((owner, 200), (guest, 403)):
            browser.get("/")
            assert browser.get(f"{API}/file={thumb}").status_code == expected
            for path in (
                own / "000.png",
                Path(str(thumb).replace("/datasets/", "/datasets/../datasets/")),
            ):
                assert guest.get(f"{API}/file={path}").status_code == 403


def test_edits_are_for_what_is_ticked_else_for_what_is_shown(
    tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    values = page(tab, find="bear", to="cat") | {
        tab.view.filter: "-3",
        tab.view.cards: ["003.png", "004.png", "gone.png", 7],
    }
    assert 'data-count="2"' in tab.tools.previewed(values, by(OWNER))
    shown = tab.tools.replaced(values, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:3] for k in range(5)] == ["bea", "bea", "bea", "cat", "cat"]
    assert "value" not in shown[tab.view.cards].constructor_args  # ticks stay
    spec = tab.captioner.read(values, OWNER)
    assert (spec.pictures, spec.filter) == (("003.png", "004.png"), "")
    assert (tab.captioner.read(values | {tab.view.cards: []}, OWNER).filter) == "-3"
    chips = tab.tools.counted(values | {tab.view.filter: ""}, by(OWNER))
    assert "cat <small>2" in chips and "bear" not in chips
    tab.captioner.dressed(values | {tab.view.trigger: "mysks"}, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:5] for k in range(5)] == [
        "bear,",
        "bear,",
        "bear,",
        "mysks",
        "mysks",
    ]
    tab.tools.said(values | {tab.tools.author: "Ann"}, by(OWNER))
    assert set(desk.shelf.open("bears", OWNER).sources()) == {"003.png", "004.png"}
    with pytest.raises(gr.Error, match="no longer there"):
        tab.tools.replaced(values | {tab.view.cards: ["gone.png"]}, by(OWNER))
    found = values | {
        tab.view.cards: [],
        tab.view.filter: "",
        tab.view.found: (("001.png", "0.9"),),
    }  # what a search has found
    tab.tools.replaced(found, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:3] for k in range(3)] == ["bea", "cat", "bea"]


def test_ticking_all_that_are_shown_and_setting_them_aside(
    tab: CaptioningTab, desk: Desk, by: Any
) -> None:
    def press(values: dict[Any, Any], what: str, **more: Any) -> Any:
        shown = tab.touched(
            values, gr.EventData(None, {"what": what, "dataset": "bears", **more}), by(OWNER)
        )
        return shown, shown[tab.view.cards].value

    without = page(tab) | {tab.view.filter: "-3"}
    assert press(without, "all", ticked=["003.png"])[1] == [
        "003.png",
        "000.png",
        "001.png",
        "002.png",
        "004.png",
    ]
    assert press(page(tab) | {tab.view.found: (("001.png", ""),)}, "all", ticked=[7, None])[1] == [
        "001.png"
    ]
    shown, left = press(page(tab), "aside", subject=None, ticked=["000.png", "001.png"])
    assert (
        "2 pictures are set aside" in shown[tab.view.note]
        and left == []
        and len(cards(tab, shown)) == 3
    )
    shown, left = press(page(tab), "aside", subject="004.png", ticked=["003.png", "004.png"])
    assert "004.png is set aside" in shown[tab.view.note] and left == ["003.png"]
    for _ in range(2):
        shown = tab.view.undone(page(tab), by(OWNER))
    assert len(cards(tab, shown)) == 5
    for nonsense in (
        {"subject": None, "ticked": []},
        {"subject": None, "ticked": "all"},
        {"subject": ["001.png"]},
    ):
        with pytest.raises(gr.Error):
            press(page(tab), "aside", **nonsense)
    assert tab.open("bears", OWNER)[tab.view.cards].value == []  # another dataset begins with none


def test_of_near_duplicates_the_best_stays(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    def group(*files: str) -> list[dict[str, Any]]:
        return [{"file": file, "like": 1.0, "same_file": False} for file in files]

    job = desk.jobs.get(tab.finder.twinned(page(tab), by(OWNER))[tab.finder.job])
    assert job
    desk.jobs.claim("cpu")
    desk.jobs.finish(
        job.id,
        "done",
        {
            "question": "duplicates",
            "groups": [group("001.png", "000.png", "gone.png"), group("004.png", "002.png")],
        },
    )
    shown = tab.finder.look(page(tab) | {tab.finder.job: job.id}, by(OWNER))
    assert [(card["key"], card["others"]) for card in cards(tab, shown)] == [
        ("001.png", 1),
        ("000.png", 0),
        ("004.png", 1),
        ("002.png", 0),
    ]
    assert shown[tab.finder.thin].visible and not shown[tab.finder.tag].visible
    values = page(tab) | {
        tab.view.found: shown[tab.view.found],
        tab.view.cards: ["002.png", "003.png"],
    }
    shown = tab.touched(
        values,
        gr.EventData(
            None,
            {
                "what": "others",
                "dataset": "bears",
                "subject": "004.png",
                "ticked": ["002.png", "003.png"],
            },
        ),
        by(OWNER),
    )
    assert [card["key"] for card in cards(tab, shown)] == ["001.png", "000.png", "004.png"]
    assert (
        shown[tab.view.cards].value == ["003.png"]
        and "002.png is set aside" in shown[tab.view.note]
    )
    tab.view.undone(values, by(OWNER))
    shown = tab.finder.thinned(values, by(OWNER))
    assert (
        "2 pictures are set aside; Undo" in shown[tab.view.note]
        and not shown[tab.finder.thin].visible
    )
    left = sorted(path.name for path in (desk.settings.home / "datasets" / "bears").glob("*.png"))
    assert left == ["001.png", "003.png", "004.png"]
    with pytest.raises(gr.Error, match="nothing to set aside"):
        tab.finder.thinned(values, by(OWNER))
    with pytest.raises(gr.Error, match="owner"):
        tab.finder.thinned(values, by(ANN))
    assert len(cards(tab, tab.view.undone(page(tab), by(OWNER)))) == 5  # both groups were one step


def test_repeats_are_typed_where_they_are_shown(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    folder = desk.settings.home / "datasets" / "sky"
    for name in ("10_moon", "3_<i>sun"):
        (folder / name).mkdir(parents=True)
        shutil.copy(PLUSH / "000.png", folder / name)

    def repeat(name: str, count: Any, visitor: Any = OWNER, what: str = "repeats") -> Any:
        data = {"what": what, "subject": name, "count": count}
        return tab.repeat(page(tab, "sky"), gr.EventData(None, data), by(visitor))

    shown = tab.open("sky", OWNER)[tab.found]
    assert 'data-folder="10_moon"' in shown and "3_&lt;i&gt;sun" in shown and "<i>sun" not in shown
    assert "<input" not in tab.open("mysks", OWNER)[tab.found]
    shown = repeat("10_moon", "4")
    assert (
        'data-folder="4_moon"' in shown[tab.found]
        and "Repeats of 10_moon: 4" in shown[tab.view.note]
    )
    assert [card["key"] for card in cards(tab, shown)] == ["3_<i>sun/000.png", "4_moon/000.png"]
    for name, count, said in (
        ("4_moon", "0", "1 or more"),
        ("4_moon", "x", "whole number"),
        ("4_moon", None, "Repeats"),
        ("../bears", "2", "no folder"),
        ("4_moon", "1e9", "Repeats"),
        ("10_moon", "2", "no folder"),
    ):
        with pytest.raises(gr.Error, match=said):
            repeat(name, count)
    with pytest.raises(gr.Error, match="owner"):
        repeat("4_moon", "2", ANN)
    with pytest.raises(gr.Error, match="does not know"):
        repeat("4_moon", "2", what="x")
    id = desk.submit_caption(CaptionSpec(dataset="sky"), OWNER)
    with pytest.raises(gr.Error, match="being captioned"):
        repeat("4_moon", "2")
    desk.jobs.cancel(id)
    assert 'data-folder="2_moon"' in repeat("4_moon", "2")[tab.found]
    for _ in range(2):
        shown = tab.view.undone(page(tab, "sky"), by(OWNER))
    assert (
        'data-folder="10_moon"' in shown[tab.found] and (folder / "10_moon" / "000.png").is_file()
    )


def test_a_page_that_opens_takes_up_the_dataset_of_its_browser(
    tab: CaptioningTab, desk: Desk
) -> None:
    def shown(visitor: Visitor) -> str:
        return tab.opened(visitor)[tab.view.dataset].value or ""

    me, other = Visitor("me", guest=False), Visitor("other", guest=False)
    assert shown(me) == ""
    job = desk.jobs.submit("see", {"dataset": "bears", "words": "a bear"}, owner=me.id)
    desk.jobs.cancel(job)
    assert shown(me) == "bears"
    assert shown(other) == ""
    shutil.rmtree(desk.settings.home / "datasets" / "bears")
    assert shown(me) == ""
