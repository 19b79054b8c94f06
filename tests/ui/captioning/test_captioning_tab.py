"""The Captions tab without a browser: who may look and change, what is kept, how filters, tags and nonsense are answered."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.captions.lint import Finding
from studio.core.captions.provenance import Writer
from studio.core.captions.spec import CaptionSpec
from studio.core.jobs import describe_job
from studio.errors import DatasetError, NotAllowed
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.datasets.dataset import DatasetStore
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Counts
from studio.ui.tabs.captioning.browser import guess_trigger
from studio.ui.tabs.captioning.search import parse_hits
from studio.ui.tabs.captioning.state import SearchHit
from studio.ui.tabs.captioning.tab import CaptioningTab
from studio.ui.tabs.training.tab import TrainingTab
from studio.ui.views import dataset as words
from support.captioning_tab import PLUSH, cards, page, text, typed
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, HOSTILE, OWNER, pressed


@pytest.mark.smoke
def test_a_caption_typed_is_kept_and_undone(tab: CaptioningTab, desk: Services, by: Any) -> None:
    shown = tab.handle_card_action(
        page(tab), typed("001.png", "  a   bear\nby a lake ", "bear, number 1"), by(OWNER)
    )
    assert text(desk, "001.txt") == "a bear by a lake"
    card = next(card for card in cards(tab, shown) if card["key"] == "001.png")
    assert card["caption"] == "a bear by a lake"
    assert card["by"] == "by hand"
    assert not card["locked"]
    assert shown[tab.browser.undo].interactive
    assert not shown[tab.browser.redo].interactive
    tab.browser.undo_step(page(tab), by(OWNER))
    assert text(desk, "001.txt") == "bear, number 1"
    tab.browser.redo_step(page(tab), by(OWNER))
    assert text(desk, "001.txt") == "a bear by a lake"


def test_two_who_edit_one_caption_lose_neither(tab: CaptioningTab, desk: Services, by: Any) -> None:
    tab.handle_card_action(page(tab), typed("001.png", "mine", "bear, number 1"), by(OWNER))
    with refused(gr.Error) as caught:
        tab.handle_card_action(page(tab), typed("001.png", "theirs", "bear, number 1"), by(OWNER))
    assert "theirs" in str(caught.value)  # the message gives back what was typed
    assert text(desk, "001.txt") == "mine"
    tab.handle_card_action(
        page(tab), typed("001.png", "mine", "bear, number 1"), by(OWNER)
    )  # sent twice by a slow line: no fault


def test_tokens_are_counted_as_the_chosen_model_reads_them(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    (desk.home.settings.home / "datasets" / "bears" / "001.txt").write_text(
        "masterpiece, best quality, a highly detailed photograph of an astronaut"
    )
    few = {"max_tokens": 20}
    assert "long" not in tab.edit_tools.check_captions(page(tab, **few), by(OWNER))
    shown = tab.edit_tools.choose_token_model(page(tab, token_model="pocket", **few), by(OWNER))
    assert "tokens, of which 20 are read" in shown[tab.edit_tools.findings]
    dropdown = tab.edit_tools.show_token_model(page(tab), by(OWNER))
    assert [name for _, name in dropdown.choices] == ["", "pocket"]
    assert dropdown.value == "pocket"
    with refused(gr.Error):
        tab.edit_tools.choose_token_model(page(tab, token_model="nope"), by(OWNER))


def test_filters_pages_and_faults(tab: CaptioningTab, desk: Services, by: Any) -> None:
    for filter, total in (("", 5), ("number", 5), ("tag:bear -3", 4), ("is:missing", 0)):
        shown = tab.browser.apply_filter(page(tab) | {tab.browser.filter: filter}, by(OWNER))
        assert len(cards(tab, shown)) == total
        assert f'data-total="{total}"' in shown[tab.browser.count]
    shown = tab.browser.apply_filter(page(tab) | {tab.browser.filter: "tokens:>"}, by(OWNER))
    assert "faults" in shown[tab.browser.message]
    assert len(cards(tab, shown)) == 5
    assert (
        tab.browser.show_next_page(page(tab) | {tab.browser.page: 900}, by(OWNER))[tab.browser.page]
        == 0
    )
    found = (SearchHit("003.png", "0.9"), SearchHit("gone.png", "0.8"), SearchHit("001.png", "0.7"))
    shown = tab.browser.rerender(page(tab), OWNER, hits=found)
    assert [(card["key"], card["note"]) for card in cards(tab, shown)] == [
        ("003.png", "0.9"),
        ("001.png", "0.7"),
    ]


def test_only_what_changed_is_drawn_again(tab: CaptioningTab, desk: Services, by: Any) -> None:
    shown = tab.browser.render(tab.browser.read_state(page(tab)), OWNER)
    while desk.dataset_registry.get_scan_progress("bears"):
        pass
    shown = tab.browser.render(tab.browser.read_state(page(tab)), OWNER)
    values = page(tab) | {tab.browser.shown_revision: shown[tab.browser.shown_revision]}
    assert set(tab.browser.poll(values, by(OWNER))) == {tab.browser.shown_revision}
    DatasetStore(desk.home.settings).open("bears").write_captions(
        {"002.png": "by a worker"}, Writer(by="model", model="pocket")
    )
    assert "by a worker" in [
        card["caption"] for card in cards(tab, tab.browser.poll(values, by(OWNER)))
    ]


def test_guests_look_at_what_came_with_the_studio_and_change_nothing(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    assert desk.dataset_registry.list_names(ANN) == [
        "moon",
        "mysks",
    ]
    assert "bears" in desk.dataset_registry.list_names(OWNER)
    shown = tab.open_dataset("mysks", ANN)
    rows = cards(tab, shown)
    assert len(rows) == 15
    assert all(card["locked"] and card["src"].startswith("data:image/webp") for card in rows)
    assert "Copy" not in shown[tab.browser.actions]
    assert cards(tab, tab.open_dataset("bears", ANN)) == []
    was = text(desk, "001.txt")
    for attempt in (
        lambda: tab.handle_card_action(page(tab), typed("001.png", "x", was), by(ANN)),
        lambda: tab.handle_action(page(tab), pressed("copy", "moon"), by(ANN)),
        lambda: tab.browser.undo_step(page(tab), by(ANN)),
        lambda: tab.captioner.submit(page(tab), by(ANN)),
        lambda: tab.captioner.add_trigger_to_captions(
            page(tab) | {tab.browser.trigger: "mysks"}, by(ANN)
        ),
        lambda: tab.edit_tools.replace_text(page(tab, find_text="bear", replacement="x"), by(ANN)),
        lambda: tab.edit_tools.preview_replace(
            page(tab, find_text="bear", replacement="x"), by(ANN)
        ),
        lambda: tab.edit_tools.export_dataset(page(tab), by(ANN)),
        lambda: tab.edit_tools.choose_token_model(page(tab, token_model="pocket"), by(ANN)),
        lambda: tab.edit_tools.fix_findings(
            page(tab), pressed("mend", json.dumps(["short", ""])), by(ANN)
        ),
        lambda: tab.clip_search.search_by_text(
            page(tab) | {tab.clip_search.query: "a boat"}, by(ANN)
        ),
        lambda: list(
            tab.import_files(page(tab) | {tab.files: [], tab.target_dataset: "x"}, by(ANN))
        ),
    ):
        with refused(gr.Error):
            attempt()
    assert text(desk, "001.txt") == was
    assert not desk.home.jobs.list_open()
    for spec, send in (
        (CaptionSpec(dataset="mysks"), desk.submit_captioning),
        (ClipQuerySpec(dataset="mysks", words="x"), desk.submit_clip_search),
    ):
        with pytest.raises(NotAllowed):
            send(spec, ANN)  # type: ignore[arg-type]


def test_a_shipped_dataset_stays_and_its_copy_is_edited(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    with refused(gr.Error):
        tab.captioner.submit(page(tab, "mysks"), by(OWNER))
    with refused(gr.Error):
        tab.handle_card_action(
            page(tab, "mysks"),
            typed("001.png", "x", (PLUSH / "001.txt").read_text().strip(), "mysks"),
            by(OWNER),
        )
    for name in ("my mysks", "my mysks 2"):
        shown = tab.handle_action(page(tab, "mysks"), pressed("copy", "mysks"), by(OWNER))
        assert shown[tab.form["dataset"]].value == name
        assert not cards(tab, shown)[0]["locked"]


def test_what_is_asked_of_a_captioner(tab: CaptioningTab, desk: Services, by: Any) -> None:
    values = page(tab) | {tab.browser.filter: "tag:bear", tab.browser.trigger: "mysks"}
    shown = tab.captioner.submit(values, by(OWNER))
    job = desk.home.jobs.get(shown[tab.captioner.job_id])
    assert job
    assert job.kind == "caption"
    assert job.spec["filter"] == "tag:bear"
    assert job.spec["trigger"] == "mysks"
    assert describe_job(job.kind, job.spec) == "captions for bears by pocket"
    assert tab.captioner.find_open_job("bears", OWNER) == job.id
    assert tab.captioner.find_open_job("bears", ANN) == 0
    tab.captioner.cancel_job(job.id, by(OWNER))
    assert not desk.home.jobs.list_open()
    values |= {tab.browser.hits: (("001.png", "1"), ("gone.png", "1"))}
    dry = desk.home.jobs.get(tab.captioner.submit_dry_run(values, by(OWNER))[tab.captioner.job_id])
    assert dry
    assert dry.spec["dry_run"]
    assert dry.spec["filter"] == "tag:bear"
    assert dry.spec["pictures"] == ["001.png"]
    desk.home.jobs.claim("cpu")
    desk.home.jobs.finish(
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
    shown = tab.captioner.poll(
        {tab.captioner.job_id: dry.id, tab.captioner.shown_revision: ""}, by(OWNER)
    )
    assert "Nothing was written" in shown[tab.captioner.progress]
    assert 'data-count="1"' in shown[tab.captioner.result]
    assert "<script" not in shown[tab.captioner.progress] + shown[tab.captioner.result]
    with refused(gr.Error, "Prefix", "Maximum length"):  # all faults at once
        tab.captioner.submit(
            values | {tab.form["tokens"]: -1, tab.form["prefix"]: "a\nb"}, by(OWNER)
        )
    with refused(gr.Error, "Dataset"):
        tab.captioner.submit(page(tab, ""), by(OWNER))


def test_the_trigger_is_put_once_and_handed_to_training(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    with refused(gr.Error):
        tab.captioner.add_trigger_to_captions(page(tab), by(OWNER))
    for said in ("mysks was added to 5 captions", "All captions already contain mysks"):
        assert (
            said
            in tab.captioner.add_trigger_to_captions(
                page(tab) | {tab.browser.trigger: "mysks"}, by(OWNER)
            )[tab.browser.message]
        )
    assert text(desk, "003.txt") == "mysks, bear, number 3"
    assert guess_trigger(desk.dataset_registry.open("bears", OWNER)) == "mysks"
    assert tab.open_dataset("bears", OWNER)[tab.form["trigger"]] == "mysks"
    asked = tab.build_handoff(
        pressed("train", json.dumps({"dataset": "bears", "name": "bears", "trigger": "mysks"})),
        OWNER,
    )
    assert asked
    assert asked[0] == "training"
    with unopened_page():
        training = TrainingTab(desk)
    taken = training.load_request(asked[1], OWNER)
    assert taken[training.form["dataset"]].value == "bears"
    assert taken[training.form["trigger"]] == "mysks"
    assert set(taken) <= set(training.outputs)
    assert "5 images" in taken[training.dataset_preview]
    with refused(gr.Error):
        training.load_request(asked[1], ANN)
    for nonsense in ("", "[" * 5000, "7", HOSTILE):
        assert tab.build_handoff(pressed("train", nonsense), OWNER) is None
    assert tab.build_handoff(pressed("copy", "moon"), OWNER) is None


def test_search_and_replace_and_tags(tab: CaptioningTab, desk: Services, by: Any) -> None:
    values = page(tab, find_text="bear", replacement="cat") | {tab.browser.filter: "-3"}
    assert 'data-count="4"' in tab.edit_tools.preview_replace(values, by(OWNER))
    assert text(desk, "001.txt") == "bear, number 1"
    tab.edit_tools.replace_text(values, by(OWNER))
    assert [text(desk, f"00{k}.txt") for k in (1, 3)] == ["cat, number 1", "bear, number 3"]
    for bad in ({"find_text": ""}, {"find_text": "(((", "match_options": ["pattern"]}):
        with refused(gr.Error, "Find"):
            tab.edit_tools.replace_text(page(tab, **bad), by(OWNER))
    assert "cat" in tab.edit_tools.render_tag_chips(page(tab), by(OWNER))
    assert tab.edit_tools.toggle_tag("a, b", pressed("tag", "c")) == "a, b, c"
    assert tab.edit_tools.toggle_tag("a, b", pressed("tag", "a")) == "b"
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
        tab.edit_tools.edit_tags(page(tab, tag_action=does, tag_list=held, new_name=new), by(OWNER))
        assert text(desk, "001.txt") == wanted, does
    for does, held, new, title in (
        ("rename_tags", "", "x", "Tags"),
        ("rename_tags", "a", "", "New name"),
        ("nonsense", "", "", "By"),
        ("keep_tags", "", "many", "Number"),
    ):
        with refused(gr.Error, title):
            tab.edit_tools.edit_tags(
                page(tab, tag_action=does, tag_list=held, new_name=new), by(OWNER)
            )


def test_what_spoils_a_training_is_mended(tab: CaptioningTab, desk: Services, by: Any) -> None:
    folder = desk.home.settings.home / "datasets" / "bears"
    (folder / "000.txt").write_text("")
    (folder / "001.txt").write_text("bear, bear, by a lake")
    values = page(tab) | {tab.browser.trigger: "mysks"}
    found = tab.edit_tools.check_captions(values, by(OWNER))
    for kind in ("missing", "twice", "trigger"):
        assert f'data-kind="{kind}"' in found
    tab.edit_tools.fix_findings(
        values, pressed("mend", json.dumps(["twice", "001.png"])), by(OWNER)
    )
    assert text(desk, "001.txt") == "bear, by a lake"
    shown = tab.edit_tools.fix_findings(
        values, pressed("mend", json.dumps(["trigger", ""])), by(OWNER)
    )
    assert text(desk, "004.txt") == "mysks, bear, number 4"
    assert 'data-kind="trigger"' not in shown[tab.edit_tools.findings]
    shown = tab.edit_tools.fix_findings(
        values, pressed("mend", json.dumps(["missing", "000.png"])), by(OWNER)
    )
    assert [card["key"] for card in cards(tab, shown)] == ["000.png"]
    assert (
        "already fixed"
        in tab.edit_tools.fix_findings(
            values, pressed("mend", json.dumps(["twice", ""])), by(OWNER)
        )[tab.browser.message]
    )
    for nonsense in ("", "{}", "[1]", HOSTILE, "[" * 9000):
        with refused(gr.Error):
            tab.edit_tools.fix_findings(values, pressed("mend", nonsense), by(OWNER))


def test_answers_become_lists(desk: Services, tab: CaptioningTab, by: Any) -> None:
    twins = {
        "question": "duplicates",
        "groups": [
            [
                {"file": "a", "like": 1.0, "same_file": True},
                {"file": "b", "like": 0.98, "same_file": False},
            ]
        ],
    }
    assert parse_hits(twins) == (
        ("a", "group 1, best of 2", ("b",)),
        ("b", "group 1, 0.98 similar", ()),
    )
    found = {
        "question": "classes",
        "found": [
            {"file": "001.png", "class": "sun", "share": 0.7},
            {"file": "002.png", "class": "moon", "share": 0.9},
        ],
    }
    assert parse_hits(found) == (SearchHit("002.png", "moon 90%"), SearchHit("001.png", "sun 70%"))
    with refused(gr.Error):
        tab.clip_search.search_by_text(page(tab), by(OWNER))
    started = tab.clip_search.classify_images(
        page(tab) | {tab.clip_search.classes: "moon / sun / other"}, by(OWNER)
    )
    id = started[tab.clip_search.job_id]
    job = desk.home.jobs.get(id)
    assert job
    assert describe_job(job.kind, job.spec) == "labels for bears"
    desk.home.jobs.claim("cpu")
    desk.home.jobs.finish(id, "done", found)
    values = page(tab) | {tab.clip_search.job_id: id}
    shown = tab.clip_search.poll(values, by(OWNER))
    assert [card["key"] for card in cards(tab, shown)] == ["002.png", "001.png"]
    assert shown[tab.clip_search.write_tags].visible
    tab.clip_search.write_class_tags(values, by(OWNER))
    assert text(desk, "002.txt") == "bear, number 2, moon"
    assert text(desk, "001.txt") == "bear, number 1, sun"


def test_pictures_like_one_from_outside(
    desk: Services, tab: CaptioningTab, by: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("studio.ui.events.get_upload_folder", lambda: str(tmp_path))

    def send(path: Path, visitor: Any = OWNER, name: str = "bears") -> Any:
        sent = {"path": str(path), "orig_name": path.name}
        return tab.clip_search.search_like_upload(
            page(tab, name) | {tab.clip_search.query_image: sent}, by(visitor)
        )

    shutil.copy(PLUSH / "003.png", tmp_path / "mine.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    shown = send(tmp_path / "mine.png")
    job = desk.home.jobs.get(shown[tab.clip_search.job_id])
    assert job
    assert (job.kind, job.spec["question"]) == ("clip_search", "search")
    assert shown[tab.clip_search.query_image] is None
    assert desk.home.library.inputs.load(job.spec["like"]).size == (128, 128)
    kept = len(list(desk.home.settings.inputs.iterdir()))
    mine = tmp_path / "mine.png"
    for path, visitor, name in (
        (tmp_path / "no.png", OWNER, "bears"),
        (mine, ANN, "mysks"),
        (Path("/etc/passwd"), OWNER, "bears"),
        (mine, OWNER, ""),
    ):
        with refused(gr.Error):
            send(path, visitor, name)
    assert len(list(desk.home.settings.inputs.iterdir())) == kept


def test_a_new_dataset_is_shown_under_the_name_that_its_folder_got(
    desk: Services, tab: CaptioningTab, by: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("studio.ui.events.get_upload_folder", lambda: str(tmp_path))
    shutil.copy(PLUSH / "003.png", tmp_path / "mine.png")
    sent = [{"path": str(tmp_path / "mine.png"), "orig_name": "mine.png"}]
    *_, shown = tab.import_files(
        page(tab) | {tab.files: sent, tab.target_dataset: "../a: bear?"}, by(OWNER)
    )
    assert (desk.home.settings.home / "datasets" / "a- bear" / "mine.png").is_file()
    assert shown[tab.form["dataset"]].value == "a- bear"
    assert "added to a- bear." in shown[tab.import_report]


@pytest.mark.slow
def test_an_import_shows_how_far_it_is(
    tab: CaptioningTab, by: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """The page used to stand still until the last of 50,000 files was there."""
    monkeypatch.setattr("studio.ui.events.get_upload_folder", lambda: str(tmp_path))
    monkeypatch.setattr("studio.ui.tabs.captioning.tab.IMPORT_POLL_SECONDS", 0.001)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(300):
            archive.write(PLUSH / "003.png", f"{number}.png")
    sent = [{"path": str(tmp_path / "many.zip"), "orig_name": "many.zip"}]
    *bars, last = tab.import_files(
        page(tab) | {tab.files: sent, tab.target_dataset: "many"}, by(OWNER)
    )
    shown = [bar[tab.import_report] for bar in bars]
    assert any("Unpacking" in bar for bar in shown)
    assert any("Scanning the images" in bar for bar in shown)
    assert "300 images and 0 captions added to many." in last[tab.import_report]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"action": "put"},
        {"action": HOSTILE, "target": 7},
        {"action": "aside", "dataset": "bears"},
        {"action": "put", "dataset": "../..", "target": "a", "text": "b", "was": ""},
        {"action": "put", "dataset": "bears", "target": "../000.png", "text": "b", "was": ""},
    ],
    ids=str,
)
def test_nonsense_from_a_browser_is_refused(
    data: dict[str, Any], tab: CaptioningTab, desk: Services, by: Any
) -> None:
    before = sorted(
        path.read_bytes() for path in (desk.home.settings.home / "datasets").rglob("*.txt")
    )
    with pytest.raises(gr.Error):
        tab.handle_card_action(page(tab), gr.EventData(None, data), by(OWNER))
    with pytest.raises(gr.Error):
        next(
            tab.import_files(
                page(tab)
                | {
                    tab.files: [{"path": "/etc/passwd", "orig_name": "a.png"}],
                    tab.target_dataset: "x",
                },
                by(OWNER),
            )
        )
    assert (
        sorted(path.read_bytes() for path in (desk.home.settings.home / "datasets").rglob("*.txt"))
        == before
    )
    with pytest.raises(DatasetError):
        desk.dataset_registry.open("../bears", OWNER)


def test_nothing_of_a_users_is_taken_for_html() -> None:
    step = Step(
        1, HOSTILE, 0.0, Writer(by="model", model=HOSTILE), "done", 1, ((HOSTILE, HOSTILE),)
    )
    texts = [
        words.render_summary(
            Counts(1, 0, 0, 0, "kohya", {HOSTILE: 3}), [(HOSTILE, HOSTILE)], [HOSTILE], (1, 2)
        ),
        words.render_history([step]),
        words.render_actions(HOSTILE, HOSTILE, True, False, True),
        words.render_caption_diff([(HOSTILE, HOSTILE, f"x{HOSTILE}")], 1, HOSTILE),
        words.render_progress(HOSTILE, 1, 2),
        words.render_outcome("failed", HOSTILE, [{"file": HOSTILE, "error": HOSTILE}]),
        words.render_tags([(HOSTILE, 3)]),
        words.render_lint([Finding(HOSTILE, HOSTILE, HOSTILE, "caption")] * 2),
    ]
    for one in texts:
        assert "<script" not in one
        assert "<img src=x" not in one
        assert 'onerror="' not in one


def test_edits_are_for_what_is_ticked_else_for_what_is_shown(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    values = page(tab, find_text="bear", replacement="cat") | {
        tab.browser.filter: "-3",
        tab.browser.cards: ["003.png", "004.png", "gone.png", 7],
    }
    assert 'data-count="2"' in tab.edit_tools.preview_replace(values, by(OWNER))
    shown = tab.edit_tools.replace_text(values, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:3] for k in range(5)] == ["bea", "bea", "bea", "cat", "cat"]
    assert "value" not in shown[tab.browser.cards].constructor_args  # ticks stay
    spec = tab.captioner.parse_spec(values, OWNER)
    assert (spec.pictures, spec.filter) == (("003.png", "004.png"), "")
    assert (tab.captioner.parse_spec(values | {tab.browser.cards: []}, OWNER).filter) == "-3"
    chips = tab.edit_tools.render_tag_chips(values | {tab.browser.filter: ""}, by(OWNER))
    assert "cat <small>2" in chips
    assert "bear" not in chips
    tab.captioner.add_trigger_to_captions(values | {tab.browser.trigger: "mysks"}, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:5] for k in range(5)] == [
        "bear,",
        "bear,",
        "bear,",
        "mysks",
        "mysks",
    ]
    tab.edit_tools.save_source(values | {tab.edit_tools.author: "Ann"}, by(OWNER))
    assert set(desk.dataset_registry.open("bears", OWNER).read_sources()) == {"003.png", "004.png"}
    with refused(gr.Error):
        tab.edit_tools.replace_text(values | {tab.browser.cards: ["gone.png"]}, by(OWNER))
    found = values | {
        tab.browser.cards: [],
        tab.browser.filter: "",
        tab.browser.hits: (("001.png", "0.9"),),
    }  # what a search has found
    tab.edit_tools.replace_text(found, by(OWNER))
    assert [text(desk, f"00{k}.txt")[:3] for k in range(3)] == ["bea", "cat", "bea"]


def test_ticking_all_that_are_shown_and_setting_them_aside(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    def press(values: dict[Any, Any], what: str, **more: Any) -> Any:
        shown = tab.handle_card_action(
            values, gr.EventData(None, {"action": what, "dataset": "bears", **more}), by(OWNER)
        )
        return shown, shown[tab.browser.cards].value

    without = page(tab) | {tab.browser.filter: "-3"}
    assert press(without, "all", ticked=["003.png"])[1] == [
        "003.png",
        "000.png",
        "001.png",
        "002.png",
        "004.png",
    ]
    assert press(page(tab) | {tab.browser.hits: (("001.png", ""),)}, "all", ticked=[7, None])[
        1
    ] == ["001.png"]
    shown, left = press(page(tab), "aside", target=None, ticked=["000.png", "001.png"])
    assert "2 images excluded" in shown[tab.browser.message]
    assert left == []
    assert len(cards(tab, shown)) == 3
    shown, left = press(page(tab), "aside", target="004.png", ticked=["003.png", "004.png"])
    assert "004.png is excluded" in shown[tab.browser.message]
    assert left == ["003.png"]
    for _ in range(2):
        shown = tab.browser.undo_step(page(tab), by(OWNER))
    assert len(cards(tab, shown)) == 5
    for nonsense in (
        {"target": None, "ticked": []},
        {"target": None, "ticked": "all"},
        {"target": ["001.png"]},
    ):
        with pytest.raises(gr.Error):
            press(page(tab), "aside", **nonsense)
    assert (
        tab.open_dataset("bears", OWNER)[tab.browser.cards].value == []
    )  # another dataset begins with none


def test_of_near_duplicates_the_best_stays(tab: CaptioningTab, desk: Services, by: Any) -> None:
    def group(*files: str) -> list[dict[str, Any]]:
        return [{"file": file, "like": 1.0, "same_file": False} for file in files]

    job = desk.home.jobs.get(
        tab.clip_search.find_near_duplicates(page(tab), by(OWNER))[tab.clip_search.job_id]
    )
    assert job
    desk.home.jobs.claim("cpu")
    desk.home.jobs.finish(
        job.id,
        "done",
        {
            "question": "duplicates",
            "groups": [group("001.png", "000.png", "gone.png"), group("004.png", "002.png")],
        },
    )
    shown = tab.clip_search.poll(page(tab) | {tab.clip_search.job_id: job.id}, by(OWNER))
    assert [(card["key"], card["others"]) for card in cards(tab, shown)] == [
        ("001.png", 1),
        ("000.png", 0),
        ("004.png", 1),
        ("002.png", 0),
    ]
    assert shown[tab.clip_search.dedupe].visible
    assert not shown[tab.clip_search.write_tags].visible
    values = page(tab) | {
        tab.browser.hits: shown[tab.browser.hits],
        tab.browser.cards: ["002.png", "003.png"],
    }
    shown = tab.handle_card_action(
        values,
        gr.EventData(
            None,
            {
                "action": "others",
                "dataset": "bears",
                "target": "004.png",
                "ticked": ["002.png", "003.png"],
            },
        ),
        by(OWNER),
    )
    assert [card["key"] for card in cards(tab, shown)] == ["001.png", "000.png", "004.png"]
    assert shown[tab.browser.cards].value == ["003.png"]
    assert "002.png is excluded" in shown[tab.browser.message]
    tab.browser.undo_step(values, by(OWNER))
    shown = tab.clip_search.set_aside_duplicates(values, by(OWNER))
    assert "2 images excluded. Undo" in shown[tab.browser.message]
    assert not shown[tab.clip_search.dedupe].visible
    left = sorted(
        path.name for path in (desk.home.settings.home / "datasets" / "bears").glob("*.png")
    )
    assert left == ["001.png", "003.png", "004.png"]
    with refused(gr.Error):
        tab.clip_search.set_aside_duplicates(values, by(OWNER))
    with refused(gr.Error):
        tab.clip_search.set_aside_duplicates(values, by(ANN))
    assert (
        len(cards(tab, tab.browser.undo_step(page(tab), by(OWNER)))) == 5
    )  # both groups were one step


def test_repeats_are_typed_where_they_are_shown(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    folder = desk.home.settings.home / "datasets" / "sky"
    for name in ("10_moon", "3_<i>sun"):
        (folder / name).mkdir(parents=True)
        shutil.copy(PLUSH / "000.png", folder / name)

    def repeat(name: str, count: Any, visitor: Any = OWNER, action: str = "repeats") -> Any:
        data = {"action": action, "target": name, "count": count}
        return tab.set_repeats(page(tab, "sky"), gr.EventData(None, data), by(visitor))

    shown = tab.open_dataset("sky", OWNER)[tab.summary]
    assert 'data-folder="10_moon"' in shown
    assert "3_&lt;i&gt;sun" in shown
    assert "<i>sun" not in shown
    assert "<input" not in tab.open_dataset("mysks", OWNER)[tab.summary]
    shown = repeat("10_moon", "4")
    assert 'data-folder="4_moon"' in shown[tab.summary]
    assert "Repeats of 10_moon: 4" in shown[tab.browser.message]
    assert [card["key"] for card in cards(tab, shown)] == ["3_<i>sun/000.png", "4_moon/000.png"]
    for name, count in (
        ("4_moon", "0"),
        ("4_moon", "x"),
        ("4_moon", None),
        ("../bears", "2"),
        ("4_moon", "1e9"),
        ("10_moon", "2"),
    ):
        with refused(gr.Error):
            repeat(name, count)
    with refused(gr.Error):
        repeat("4_moon", "2", ANN)
    with refused(gr.Error):
        repeat("4_moon", "2", action="x")
    id = desk.submit_captioning(CaptionSpec(dataset="sky"), OWNER)
    with refused(gr.Error):
        repeat("4_moon", "2")
    desk.home.jobs.cancel(id)
    assert 'data-folder="2_moon"' in repeat("4_moon", "2")[tab.summary]
    for _ in range(2):
        shown = tab.browser.undo_step(page(tab, "sky"), by(OWNER))
    assert 'data-folder="10_moon"' in shown[tab.summary]
    assert (folder / "10_moon" / "000.png").is_file()


def test_a_page_that_opens_takes_up_the_dataset_of_its_browser(
    tab: CaptioningTab, desk: Services
) -> None:
    def shown(visitor: Visitor) -> str:
        return tab.on_open(visitor)[tab.browser.dataset].value or ""

    me, other = Visitor("me", is_guest=False), Visitor("other", is_guest=False)
    assert shown(me) == ""
    job = desk.home.jobs.submit("clip_search", {"dataset": "bears", "words": "a bear"}, owner=me.id)
    desk.home.jobs.cancel(job)
    assert shown(me) == "bears"
    assert shown(other) == ""
    shutil.rmtree(desk.home.settings.home / "datasets" / "bears")
    assert shown(me) == ""
