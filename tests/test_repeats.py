"""Repeats of kohya's folders are their names: changed, undone, and nothing that is known of the pictures is lost."""

from __future__ import annotations

import shutil

import pytest
from test_album import held, picture

from studio.core.captions.edits import edit_of
from studio.core.captions.provenance import Writer
from studio.errors import DatasetError
from studio.settings import Settings
from studio.storage.datasets.dataset import Albums
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.training_set import read


def test_repeats_of_kohyas_folders_are_changed_and_undone(settings: Settings) -> None:
    albums, folder = Albums(settings), settings.home / "datasets" / "sky"
    for k, name in enumerate(("10_moon rock/a.png", "10_moon rock/b.png", "3_sun/a.png")):
        picture(folder / name, colour=k)
    album = albums.open("sky")
    album.write({"10_moon rock/a.png": "a moon"}, Writer(by="model", model="pocket"))
    album.apply(
        edit_of({"kind": "set_source", "author": "Jan"}), keys=["10_moon rock/a.png", "3_sun/a.png"]
    )
    before, about = held(folder), album.card()

    def repeat(name: str, count: int) -> Step:
        return album.apply(edit_of({"kind": "set_repeats", "folder": name, "repeats": count}))

    step = repeat("10_moon rock", 5)
    assert step.title == "Repeats of 10_moon rock: 5" and not step.left
    assert (
        album.counts().repeats == {"3_sun": 3, "5_moon rock": 5} and read(folder).count == 3 + 2 * 5
    )  # as a training sees it
    assert [one.key for one in album.pictures] == [
        "3_sun/a.png",
        "5_moon rock/a.png",
        "5_moon rock/b.png",
    ]
    album.write({"5_moon rock/a.png": "a moon, bright"}, Writer(by="hand"))
    repeat("5_moon rock", 7)
    told = album.card()
    (mine,) = (one for one in told["files"] if one["file"] == "7_moon rock/a.png")
    assert [one["by"] for one in mine["written"]] == ["model", "hand"] and mine["author"] == "Jan"
    assert set(album.sources()) == {"7_moon rock/a.png", "3_sun/a.png"}
    picture(
        folder / "10_moon rock" / "new.png", colour=9
    )  # another folder of the first name: nothing was written there
    album.refresh()
    assert [one.writer.by for one in album.credits().get("10_moon rock/new.png", ())] == []
    with pytest.raises(DatasetError, match="10_moon rock already"):
        repeat("7_moon rock", 10)
    shutil.rmtree(folder / "10_moon rock")
    for _ in range(3):
        album.undo()
    assert held(folder) == before and album.card()["files"] == about["files"]
    album.redo()
    assert album.counts().repeats == {"3_sun": 3, "5_moon rock": 5}
    assert repeat("3_sun", 3).changed == 0
    for name in ("4_sun", "../sky", ".", "5_moon rock/"):
        with pytest.raises(DatasetError, match="no folder"):
            repeat(name, 2)


def test_a_kill_while_repeats_are_changed_leaves_the_old_or_the_new(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.home / "datasets" / "sky"
    picture(folder / "10_moon" / "a.png")
    album = Albums(settings).open("sky")
    album.apply(edit_of({"kind": "set_source", "author": "Jan"}))
    monkeypatch.setattr(Journal, "_mark", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        album.apply(edit_of({"kind": "set_repeats", "folder": "10_moon", "repeats": 2}))
    monkeypatch.undo()
    again = Albums(settings).open("sky")  # who comes next completes it
    assert [one.key for one in again.pictures] == ["2_moon/a.png"] and again.sources()[
        "2_moon/a.png"
    ].author == "Jan"
    again.undo()
    assert [one.key for one in again.pictures] == ["10_moon/a.png"] and set(again.sources()) == {
        "10_moon/a.png"
    }
