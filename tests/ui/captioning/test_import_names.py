"""Names of new datasets: files that come without one wait for it; authors survive a trigger word."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from studio.core.captions.provenance import Writer
from studio.services.submission import Services
from studio.ui.tabs.captioning.dataset_names import (
    choose_copy_name,
    get_archive_name,
    propose_name,
)
from studio.ui.tabs.captioning.tab import CaptioningTab
from support.captioning_tab import PLUSH, cards, page, typed
from support.sentences import refused
from support.visitors import ANN, OWNER

DAY = time.struct_time((2026, 11, 28, 4, 0, 0, 5, 332, 0))


def test_a_name_is_proposed_that_is_not_taken() -> None:
    assert propose_name([], DAY) == "images 28 Nov"
    assert propose_name(["Images 28 nov", "images 28 Nov 2"], DAY) == "images 28 Nov 3"
    assert choose_copy_name("moon", ["my moon"]) == "my moon 2"
    assert get_archive_name([(Path("x"), "bears.ZIP")]) == "bears"
    assert get_archive_name([(Path("x"), "a.zip"), (Path("y"), "b.png")]) == ""


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    monkeypatch.setattr("studio.ui.events.get_upload_folder", lambda: str(tmp_path))
    files = []
    for number in range(3):
        shutil.copy(PLUSH / f"00{number}.png", tmp_path / f"{number}.png")
        files.append({"path": str(tmp_path / f"{number}.png"), "orig_name": f"{number}.png"})
    return files


def test_files_that_come_first_wait_for_the_name(
    tab: CaptioningTab, desk: Services, by: Any, sent: list[dict[str, str]]
) -> None:
    values = page(tab, "") | {tab.files: sent, tab.target_dataset: " "}
    (waiting,) = tab.receive_files(values, by(OWNER))
    assert waiting[tab.target_dataset].startswith("images ")
    assert waiting[tab.add_files].visible
    assert "3 files are ready" in waiting[tab.import_report]
    assert tab.files not in waiting  # they stay
    assert desk.dataset_registry.list_names(OWNER)[0] == "bears"  # nothing was made yet
    *_, taken = tab.import_waiting_files(values | {tab.target_dataset: "my toy"}, by(OWNER))
    assert taken[tab.files] is None
    assert not taken[tab.add_files].visible
    assert (desk.home.settings.home / "datasets" / "my toy" / "2.png").is_file()
    assert taken[tab.form["dataset"]].value == "my toy"


def test_a_name_that_is_there_takes_them_at_once(
    tab: CaptioningTab, desk: Services, by: Any, sent: list[dict[str, str]]
) -> None:
    values = page(tab, "") | {tab.files: sent, tab.target_dataset: "toys"}
    *_, taken = tab.receive_files(values, by(OWNER))
    assert taken[tab.files] is None
    assert (desk.home.settings.home / "datasets" / "toys" / "0.png").is_file()


def test_enter_in_the_name_without_files_does_nothing_and_no_name_is_said(
    tab: CaptioningTab, by: Any, sent: list[dict[str, str]]
) -> None:
    values = page(tab, "") | {tab.files: None, tab.target_dataset: "toys"}
    (nothing,) = tab.import_waiting_files(values, by(OWNER))
    assert list(nothing) == [tab.import_report]
    with refused(Exception, "Dataset name"):
        next(
            tab.import_waiting_files(values | {tab.files: sent, tab.target_dataset: ""}, by(OWNER))
        )
    with refused(Exception):
        next(tab.receive_files(values | {tab.files: sent}, by(ANN)))


def test_a_trigger_word_leaves_each_caption_to_its_author(
    tab: CaptioningTab, desk: Services, by: Any
) -> None:
    dataset = desk.dataset_registry.open("bears", OWNER)
    dataset.write_captions({"001.png": "a brown bear"}, Writer(by="model", model="pocket"))
    tab.handle_card_action(page(tab), typed("002.png", "mine", "bear, number 2"), by(OWNER))
    shown = tab.captioner.add_trigger_to_captions(
        page(tab) | {tab.browser.trigger: "mysks"}, by(OWNER)
    )
    authors = {card["key"]: (card["caption"], card["by"]) for card in cards(tab, shown)}
    assert authors["001.png"] == ("mysks, a brown bear", "pocket")
    assert authors["002.png"] == ("mysks, mine", "by hand")
    assert authors["003.png"] == ("mysks, bear, number 3", "came with the images")
    credits = desk.dataset_registry.open("bears", OWNER).read_credits()["001.png"]
    assert [credit.writer.by for credit in credits] == ["model", "model"]  # both are listed
    assert "mysks" in credits[-1].action
    tab.browser.undo_step(page(tab), by(OWNER))
    tab.handle_card_action(page(tab), typed("001.png", "a cub", "a brown bear"), by(OWNER))
    last = desk.dataset_registry.open("bears", OWNER).read_credits()["001.png"][-1]
    assert str(last.writer) == "by hand"
