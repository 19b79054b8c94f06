"""Repeats of kohya folders are their names: changed, undone, and nothing that is known of the pictures is lost."""

from __future__ import annotations

import shutil

import pytest

from studio.core.captions.edits import parse_edit
from studio.core.captions.provenance import Writer
from studio.errors import DatasetError
from studio.settings import Settings
from studio.storage.datasets.dataset import DatasetStore
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.training_set import read_training_set
from support.datasets import held, picture
from support.sentences import refused


def test_repeats_of_kohyas_folders_are_changed_and_undone(settings: Settings) -> None:
    albums, folder = DatasetStore(settings), settings.home / "datasets" / "sky"
    for k, name in enumerate(("10_moon rock/a.png", "10_moon rock/b.png", "3_sun/a.png")):
        picture(folder / name, colour=k)
    album = albums.open("sky")
    album.write_captions({"10_moon rock/a.png": "a moon"}, Writer(by="model", model="pocket"))
    album.apply(
        parse_edit({"kind": "set_source", "author": "Jan"}),
        keys=["10_moon rock/a.png", "3_sun/a.png"],
    )
    before, about = held(folder), album.build_card()

    def repeat(name: str, count: int) -> Step:
        return album.apply(parse_edit({"kind": "set_repeats", "folder": name, "repeats": count}))

    step = repeat("10_moon rock", 5)
    assert step.title == "Repeats of 10_moon rock: 5"
    assert not step.skipped
    assert album.count_images().repeats == {"3_sun": 3, "5_moon rock": 5}
    assert read_training_set(folder).images_per_epoch == 3 + 2 * 5  # as a training sees it
    assert [one.key for one in album.images] == [
        "3_sun/a.png",
        "5_moon rock/a.png",
        "5_moon rock/b.png",
    ]
    album.write_captions({"5_moon rock/a.png": "a moon, bright"}, Writer(by="hand"))
    repeat("5_moon rock", 7)
    told = album.build_card()
    (mine,) = (one for one in told["files"] if one["file"] == "7_moon rock/a.png")
    assert [one["by"] for one in mine["written"]] == ["model", "hand"]
    assert mine["author"] == "Jan"
    assert set(album.read_sources()) == {"7_moon rock/a.png", "3_sun/a.png"}
    picture(
        folder / "10_moon rock" / "new.png", colour=9
    )  # another folder of the first name: nothing was written there
    album.refresh()
    assert [one.writer.by for one in album.read_credits().get("10_moon rock/new.png", ())] == []
    with refused(DatasetError) as caught:
        repeat("7_moon rock", 10)
    assert "10_moon rock" in str(caught.value)
    shutil.rmtree(folder / "10_moon rock")
    for _ in range(3):
        album.undo()
    assert held(folder) == before
    assert album.build_card()["files"] == about["files"]
    album.redo()
    assert album.count_images().repeats == {"3_sun": 3, "5_moon rock": 5}
    assert repeat("3_sun", 3).num_changes == 0
    for name in ("4_sun", "../sky", ".", "5_moon rock/"):
        with refused(DatasetError):
            repeat(name, 2)


def test_a_kill_while_repeats_are_changed_leaves_the_old_or_the_new(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.home / "datasets" / "sky"
    picture(folder / "10_moon" / "a.png")
    album = DatasetStore(settings).open("sky")
    album.apply(parse_edit({"kind": "set_source", "author": "Jan"}))
    monkeypatch.setattr(Journal, "_mark_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        album.apply(parse_edit({"kind": "set_repeats", "folder": "10_moon", "repeats": 2}))
    monkeypatch.undo()
    again = DatasetStore(settings).open("sky")  # who comes next completes it
    assert [one.key for one in again.images] == ["2_moon/a.png"]
    assert again.read_sources()["2_moon/a.png"].author == "Jan"
    again.undo()
    assert [one.key for one in again.images] == ["10_moon/a.png"]
    assert set(again.read_sources()) == {"10_moon/a.png"}
