"""Nonsense in every box of the Captions tab, names that are traps, folders that go: sentences, never a crash."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from test_captioning_tab import (
    HOSTILE,
    OWNER,
    PLUSH,
    by,  # noqa: F401
    cards,
    desk,  # noqa: F401
    page,
    pressed,
    tab,  # noqa: F401
    text,
    typed,
)

from studio.core.captions.provenance import Writer
from studio.storage import atomic
from studio.storage.datasets.dataset import Albums
from studio.ui.tabs.captioning.state import Find
from studio.ui.tabs.captioning.tab import CaptioningTab
from studio.ui.widgets import Desk

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
        assert (
            told
            and "Something went wrong" not in told
            and "Traceback" not in told
            and len(told) < 3000
        ), told[:300]
        assert "<img" not in told and "<script" not in told
        return told
    return ""


def said(**data: Any) -> gr.EventData:
    """What a browser says of a click."""
    return gr.EventData(None, data)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda one: repr(one[:12]))
def test_in_every_box(tab: CaptioningTab, desk: Desk, by: Any, nonsense: str) -> None:
    owner, view, tools, finder = by(OWNER), tab.view, tab.tools, tab.finder
    base = page(tab)
    began = time.monotonic()
    boxes: list[Callable[[], Any]] = [
        lambda: view.filtered(base | {view.filter: nonsense}, owner),
        lambda: view.filtered(
            base | {view.filter: f'tag:"{nonsense[:500]}" OR {nonsense[:500]}'}, owner
        ),
        lambda: tab.choose(base | {tab.form["dataset"]: nonsense}, owner),
        lambda: tab.touched(base, typed("001.png", nonsense, "bear, number 1"), owner),
        lambda: tab.touched(base, typed(nonsense, "x", nonsense, nonsense), owner),
        lambda: tab.touched(
            base, said(what="aside", dataset="bears", subject=None, ticked=[nonsense]), owner
        ),
        lambda: tab.touched(base, said(what="others", dataset=nonsense, subject=nonsense), owner),
        lambda: tab.touched(base, said(what="all", ticked=nonsense), owner),
        lambda: tab.repeat(base, said(what="repeats", subject=nonsense, count=nonsense), owner),
        lambda: tools.previewed(base | {tools.find: nonsense, tools.to: nonsense}, owner),
        lambda: tools.previewed(
            base | {tools.find: nonsense, tools.how: ["pattern", "words"]}, owner
        ),
        lambda: tools.replaced(base | {tools.find: "bear", tools.to: nonsense}, owner),
        lambda: tools.tagged(base | {tools.tag: nonsense, tools.new: nonsense}, owner),
        lambda: tools.tagged(base | {tools.does: "keep_tags", tools.new: nonsense}, owner),
        lambda: tools.tagged(base | {tools.does: nonsense}, owner),
        lambda: tools.tagged(base | {tools.does: "add_tags", tools.tag: nonsense}, owner),
        lambda: tools.checked(
            base | {tools.resolution: nonsense, tools.words: nonsense, tools.tokens: nonsense},
            owner,
        ),
        lambda: tools.mend(base, pressed("mend", json.dumps([nonsense, nonsense])), owner),
        lambda: tools.said(
            base | {tools.source: nonsense, tools.author: nonsense, tools.licence: nonsense}, owner
        ),
        lambda: finder.searched(base | {finder.words: nonsense, finder.clip: nonsense}, owner),
        lambda: finder.sorted(base | {finder.classes: nonsense}, owner),
        lambda: tab.touched(base, said(what="like", subject=nonsense), owner),
        lambda: finder.likened(base | {finder.sent: {"path": nonsense}}, owner),
        lambda: finder.look(
            base | {finder.job: 0, view.found: (Find(nonsense, nonsense),), view.filter: nonsense},
            owner,
        ),
        lambda: tab.captioner.submit(
            base | {part: nonsense for part in tab.form.inputs if part is not tab.form["dataset"]},
            owner,
        ),
        lambda: tab.captioner.dressed(base | {view.trigger: nonsense}, owner),
        lambda: tab.add(
            base | {tab.files: [{"path": nonsense, "orig_name": nonsense}], tab.into: nonsense},
            owner,
        ),
        lambda: tab.act(base, pressed("copy", nonsense), owner),
    ]
    for act in boxes:
        answered(act)
    assert time.monotonic() - began < 20
    for number in range(5):  # every caption can still be read, and all of it can be undone
        assert "\n" not in (
            desk.settings.home / "datasets" / "bears" / f"{number:03}.txt"
        ).read_text().rstrip("\n")
    while desk.shelf.open("bears", OWNER).undo():
        pass
    assert [text(desk, f"{number:03}.txt") for number in range(5)] == [
        f"bear, number {number}" for number in range(5)
    ]


def test_a_filter_that_tries_everything_does_not_hold_the_page_up(
    tab: CaptioningTab,
    desk: Desk,
    by: Any,
) -> None:
    album = desk.shelf.open("bears", OWNER)
    album.write({f"{number:03}.png": "a" * 15_000 for number in range(5)}, Writer())
    for filter in (
        "tag:" + "*a" * 900 + "b",
        "name:" + "*?" * 900,
        "tag:" + "[a-z]*" * 300 + "0",
        "caption:" + "a" * 1900,
    ):
        began = time.monotonic()
        answered(
            lambda filter=filter: tab.view.filtered(
                page(tab) | {tab.view.filter: filter}, by(OWNER)
            )
        )  # type: ignore[misc]
        assert time.monotonic() - began < 2, filter[:20]


def test_strange_names_are_shown_edited_and_undone(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    folder = desk.settings.home / "datasets" / "bears"
    for name in STRANGE:
        shutil.copy(PLUSH / "000.png", folder / name)
    shutil.copy(PLUSH / "000.png", folder / "two\nlines.png")
    shown = tab.open("bears", OWNER)
    assert {card["key"] for card in cards(tab, shown)} >= set(
        STRANGE
    ) and "two\nlines.png" not in str(cards(tab, shown))
    assert "line break in its name" in shown[tab.found]
    for name in STRANGE:
        tab.touched(page(tab), typed(name, "a bear", ""), by(OWNER))
        assert (folder / name).with_suffix(".txt").read_text().strip() == "a bear"
        shown = tab.touched(page(tab), said(what="aside", dataset="bears", subject=name), by(OWNER))
        assert (
            "is set aside" in shown[tab.view.note]
            and "<img" not in shown[tab.view.note]
            and not (folder / name).exists()
        )
        tab.view.undone(page(tab), by(OWNER))
        assert (folder / name).is_file()
    told = [shown[part] for part in (tab.found, tab.view.note, tab.view.steps, tab.view.offers)] + [
        tab.tools.checked(page(tab), by(OWNER)),
        tab.tools.counted(page(tab), by(OWNER)),
        tab.tools.previewed(page(tab, find="bear", to="x"), by(OWNER)),
    ]
    assert not any("<img" in html for html in told)


def test_a_dataset_that_goes_while_it_is_open(tab: CaptioningTab, desk: Desk, by: Any) -> None:
    folder = desk.settings.home / "datasets" / "bears"
    values = page(tab, find="bear", to="x", tag="bear", new="cat") | {
        tab.view.seen: "",
        tab.view.cards: ["001.png"],
    }
    tab.open("bears", OWNER)
    (folder / "001.png").unlink()
    told = answered(lambda: tab.touched(values, typed("001.png", "x", "bear, number 1"), by(OWNER)))
    assert "no picture '001.png'" in told.replace("&#x27;", "'")
    assert "no longer there" in answered(lambda: tab.tools.replaced(values, by(OWNER)))
    shutil.rmtree(folder)
    for act in (
        lambda: tab.touched(values, typed("002.png", "x", ""), by(OWNER)),
        lambda: tab.tools.replaced(values, by(OWNER)),
        lambda: tab.tools.previewed(values, by(OWNER)),
        lambda: tab.tools.tagged(values, by(OWNER)),
        lambda: tab.tools.checked(values, by(OWNER)),
        lambda: tab.tools.exported(values, by(OWNER)),
        lambda: tab.finder.twinned(values | {tab.finder.words: "x"}, by(OWNER)),
        lambda: tab.captioner.submit(values, by(OWNER)),
        lambda: tab.view.undone(values, by(OWNER)),
    ):
        assert "There is no dataset" in answered(act)
    for shown in (
        tab.view.look(values, by(OWNER)),
        tab.view.filtered(values, by(OWNER)),
        tab.view.turn_on(values, by(OWNER)),
    ):
        assert "There is no dataset" in shown[tab.view.note] and cards(tab, shown) == []
    folder.write_text("a file of that name")
    assert "There is no dataset" in tab.view.filtered(values, by(OWNER))[tab.view.note]


def test_a_folder_that_cannot_be_written(
    tab: CaptioningTab,
    desk: Desk,
    by: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a read-only disk; tests may run as root, whom no mode of a folder stops."""
    folder, real, rename = desk.settings.home / "datasets" / "bears", atomic.write, os.rename

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
    shown = tab.touched(page(tab), typed("001.png", "new", "bear, number 1"), by(OWNER))
    assert "Read-only file system" in shown[tab.view.note]
    assert (
        next(card["caption"] for card in cards(tab, shown) if card["key"] == "001.png")
        == "bear, number 1"
    )
    shown = tab.tools.replaced(page(tab, find="bear", to="cat"), by(OWNER))
    assert shown[tab.view.note].count("Read-only file system") == 5
    shown = tab.touched(
        page(tab), said(what="aside", dataset="bears", subject="001.png"), by(OWNER)
    )
    assert (
        "Read-only file system" in shown[tab.view.note]
        and "is set aside" not in shown[tab.view.note]
    )
    monkeypatch.undo()
    assert Albums(desk.settings).open("bears").tags()[0] == ("bear", 5)
