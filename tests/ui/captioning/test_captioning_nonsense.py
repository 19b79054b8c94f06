"""Nonsense in every box of the Captions tab, names that are traps, folders that go: sentences, never a crash."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.captions.provenance import Writer
from studio.services.submission import Services
from studio.storage import atomic
from studio.storage.datasets.dataset import DatasetStore
from studio.ui.tabs.captioning.state import SearchHit
from studio.ui.tabs.captioning.tab import CaptioningTab
from support.captioning_tab import PLUSH, cards, page, text, typed
from support.limits import hang_limit
from support.visitors import HOSTILE, OWNER, pressed

HUGE = "a, " * 350_000  # a megabyte
NONSENSE = [
    "",
    " ",
    HOSTILE,
    "\x00\x07",
    "\ud800",
    "line\nbreak\r\n\u2028",
    "日本 🌙 \u202eabc",
    HUGE,
    "(((",
    "*" * 2000,
    "../../etc/passwd",
]
STRANGE = [
    "a \"b\" 'c'.png",
    "<img src=x onerror=alert(1)>.png",
    "日本 🌙.png",
    "100%.png",
    "semi;colon&amp.png",
    "-rf.png",
    "sub #1?.png",
    "…long " + "x" * 200 + ".png",
]


def answered(act: Callable[[], Any]) -> str:
    """What a person is told: a sentence, or nothing where it was done. A bug would be said as one."""
    try:
        act()
    except gr.Error as error:
        told = str(error.message)
        assert told, told[:300]
        assert "Something went wrong" not in told, told[:300]
        assert "Traceback" not in told, told[:300]
        assert len(told) < 3000, told[:300]
        assert "<img" not in told
        assert "<script" not in told
        return told
    return ""


def said(**data: Any) -> gr.EventData:
    """What a browser says of a click."""
    return gr.EventData(None, data)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda one: repr(one[:12]))
def test_in_every_box(tab: CaptioningTab, desk: Services, by: Any, nonsense: str) -> None:
    owner, view, tools, finder = by(OWNER), tab.browser, tab.edit_tools, tab.clip_search
    base = page(tab)
    boxes: list[Callable[[], Any]] = [
        lambda: view.apply_filter(base | {view.filter: nonsense}, owner),
        lambda: view.apply_filter(
            base | {view.filter: f'tag:"{nonsense[:500]}" OR {nonsense[:500]}'}, owner
        ),
        lambda: tab.select_dataset(base | {tab.form["dataset"]: nonsense}, owner),
        lambda: tab.handle_card_action(base, typed("001.png", nonsense, "bear, number 1"), owner),
        lambda: tab.handle_card_action(base, typed(nonsense, "x", nonsense, nonsense), owner),
        lambda: tab.handle_card_action(
            base, said(action="aside", dataset="bears", target=None, ticked=[nonsense]), owner
        ),
        lambda: tab.handle_card_action(
            base, said(action="others", dataset=nonsense, target=nonsense), owner
        ),
        lambda: tab.handle_card_action(base, said(action="all", ticked=nonsense), owner),
        lambda: tab.set_repeats(
            base, said(action="repeats", target=nonsense, count=nonsense), owner
        ),
        lambda: tools.preview_replace(
            base | {tools.find_text: nonsense, tools.replacement: nonsense}, owner
        ),
        lambda: tools.preview_replace(
            base | {tools.find_text: nonsense, tools.match_options: ["pattern", "words"]}, owner
        ),
        lambda: tools.replace_text(
            base | {tools.find_text: "bear", tools.replacement: nonsense}, owner
        ),
        lambda: tools.edit_tags(base | {tools.tag_list: nonsense, tools.new_name: nonsense}, owner),
        lambda: tools.edit_tags(
            base | {tools.tag_action: "keep_tags", tools.new_name: nonsense}, owner
        ),
        lambda: tools.edit_tags(base | {tools.tag_action: nonsense}, owner),
        lambda: tools.edit_tags(
            base | {tools.tag_action: "add_tags", tools.tag_list: nonsense}, owner
        ),
        lambda: tools.check_captions(
            base
            | {tools.resolution: nonsense, tools.min_words: nonsense, tools.max_tokens: nonsense},
            owner,
        ),
        lambda: tools.fix_findings(base, pressed("mend", json.dumps([nonsense, nonsense])), owner),
        lambda: tools.save_source(
            base | {tools.source: nonsense, tools.author: nonsense, tools.licence: nonsense}, owner
        ),
        lambda: finder.search_by_text(
            base | {finder.query: nonsense, finder.clip: nonsense}, owner
        ),
        lambda: finder.classify_images(base | {finder.classes: nonsense}, owner),
        lambda: tab.handle_card_action(base, said(action="like", target=nonsense), owner),
        lambda: finder.search_like_upload(base | {finder.query_image: {"path": nonsense}}, owner),
        lambda: finder.poll(
            base
            | {
                finder.job_id: 0,
                view.hits: (SearchHit(nonsense, nonsense),),
                view.filter: nonsense,
            },
            owner,
        ),
        lambda: tab.captioner.submit(
            base | {part: nonsense for part in tab.form.inputs if part is not tab.form["dataset"]},
            owner,
        ),
        lambda: tab.captioner.add_trigger_to_captions(base | {view.trigger: nonsense}, owner),
        lambda: list(
            tab.import_files(
                base
                | {
                    tab.files: [{"path": nonsense, "orig_name": nonsense}],
                    tab.target_dataset: nonsense,
                },
                owner,
            )
        ),
        lambda: tab.handle_action(base, pressed("copy", nonsense), owner),
    ]
    with hang_limit():
        for act in boxes:
            answered(act)
    for number in range(5):  # every caption can still be read, and all of it can be undone
        assert "\n" not in (
            desk.home.settings.home / "datasets" / "bears" / f"{number:03}.txt"
        ).read_text().rstrip("\n")
    while desk.dataset_registry.open("bears", OWNER).undo():
        pass
    assert [text(desk, f"{number:03}.txt") for number in range(5)] == [
        f"bear, number {number}" for number in range(5)
    ]


def test_a_filter_that_tries_everything_does_not_hold_the_page_up(
    tab: CaptioningTab,
    desk: Services,
    by: Any,
) -> None:
    album = desk.dataset_registry.open("bears", OWNER)
    album.write_captions({f"{number:03}.png": "a" * 15_000 for number in range(5)}, Writer())
    for filter in (
        "tag:" + "*a" * 900 + "b",
        "name:" + "*?" * 900,
        "tag:" + "[a-z]*" * 300 + "0",
        "caption:" + "a" * 1900,
    ):
        with hang_limit():
            answered(
                lambda filter=filter: tab.browser.apply_filter(
                    page(tab) | {tab.browser.filter: filter}, by(OWNER)
                )
            )  # type: ignore[misc]


def test_strange_names_are_shown_edited_and_undone(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    folder = desk.home.settings.home / "datasets" / "bears"
    for name in STRANGE:
        shutil.copy(PLUSH / "000.png", folder / name)
    shutil.copy(PLUSH / "000.png", folder / "two\nlines.png")
    shown = tab.open_dataset("bears", OWNER)
    assert {card["key"] for card in cards(tab, shown)} >= set(STRANGE)
    assert "two\nlines.png" not in str(cards(tab, shown))
    assert "line break in its name" in shown[tab.summary]
    for name in STRANGE:
        tab.handle_card_action(page(tab), typed(name, "a bear", ""), by(OWNER))
        assert (folder / name).with_suffix(".txt").read_text().strip() == "a bear"
        shown = tab.handle_card_action(
            page(tab), said(action="aside", dataset="bears", target=name), by(OWNER)
        )
        assert "is excluded" in shown[tab.browser.message]
        assert "<img" not in shown[tab.browser.message]
        assert not (folder / name).exists()
        tab.browser.undo_step(page(tab), by(OWNER))
        assert (folder / name).is_file()
    told = [
        shown[part]
        for part in (tab.summary, tab.browser.message, tab.browser.history, tab.browser.actions)
    ] + [
        tab.edit_tools.check_captions(page(tab), by(OWNER)),
        tab.edit_tools.render_tag_chips(page(tab), by(OWNER)),
        tab.edit_tools.preview_replace(page(tab, find_text="bear", replacement="x"), by(OWNER)),
    ]
    assert not any("<img" in html for html in told)


def test_a_dataset_that_goes_while_it_is_open(tab: CaptioningTab, desk: Services, by: Any) -> None:
    folder = desk.home.settings.home / "datasets" / "bears"
    values = page(tab, find_text="bear", replacement="x", tag_list="bear", new_name="cat") | {
        tab.browser.shown_revision: "",
        tab.browser.cards: ["001.png"],
    }
    tab.open_dataset("bears", OWNER)
    (folder / "001.png").unlink()
    told = answered(
        lambda: tab.handle_card_action(values, typed("001.png", "x", "bear, number 1"), by(OWNER))
    )
    assert "no image '001.png'" in told.replace("&#x27;", "'")
    assert "no longer exist" in answered(lambda: tab.edit_tools.replace_text(values, by(OWNER)))
    shutil.rmtree(folder)
    for act in (
        lambda: tab.handle_card_action(values, typed("002.png", "x", ""), by(OWNER)),
        lambda: tab.edit_tools.replace_text(values, by(OWNER)),
        lambda: tab.edit_tools.preview_replace(values, by(OWNER)),
        lambda: tab.edit_tools.edit_tags(values, by(OWNER)),
        lambda: tab.edit_tools.check_captions(values, by(OWNER)),
        lambda: tab.edit_tools.export_dataset(values, by(OWNER)),
        lambda: tab.clip_search.find_near_duplicates(
            values | {tab.clip_search.query: "x"}, by(OWNER)
        ),
        lambda: tab.captioner.submit(values, by(OWNER)),
        lambda: tab.browser.undo_step(values, by(OWNER)),
    ):
        assert "There is no dataset" in answered(act)
    for shown in (
        tab.browser.poll(values, by(OWNER)),
        tab.browser.apply_filter(values, by(OWNER)),
        tab.browser.show_next_page(values, by(OWNER)),
    ):
        assert "There is no dataset" in shown[tab.browser.message]
        assert cards(tab, shown) == []
    folder.write_text("a file of that name")
    assert "There is no dataset" in tab.browser.apply_filter(values, by(OWNER))[tab.browser.message]


def test_a_folder_that_cannot_be_written(
    tab: CaptioningTab,
    desk: Services,
    by: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a read-only disk; tests may run as root, whom no mode of a folder stops."""
    folder, real, rename = desk.home.settings.home / "datasets" / "bears", atomic.write, os.rename

    def write(path: Path, *rest: Any, **more: Any) -> None:
        if path.is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, *rest, **more)

    def move(old: Any, new: Any, *rest: Any, **more: Any) -> None:
        if Path(os.fsdecode(old)).is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(old, new, *rest, **more)

    monkeypatch.setattr(atomic, "write", write)
    monkeypatch.setattr(os, "rename", move)
    shown = tab.handle_card_action(page(tab), typed("001.png", "new", "bear, number 1"), by(OWNER))
    assert "Read-only file system" in shown[tab.browser.message]
    assert (
        next(card["caption"] for card in cards(tab, shown) if card["key"] == "001.png")
        == "bear, number 1"
    )
    shown = tab.edit_tools.replace_text(page(tab, find_text="bear", replacement="cat"), by(OWNER))
    assert shown[tab.browser.message].count("Read-only file system") == 5
    shown = tab.handle_card_action(
        page(tab), said(action="aside", dataset="bears", target="001.png"), by(OWNER)
    )
    assert "Read-only file system" in shown[tab.browser.message]
    assert "is excluded" not in shown[tab.browser.message]
    monkeypatch.undo()
    assert DatasetStore(desk.home.settings).open("bears").count_tags()[0] == ("bear", 5)
