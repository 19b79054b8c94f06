"""Albums: what is shown is what lies there; every change is whole, can be undone, and never runs over somebody else's."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from studio.core.captions.edits import edit_of
from studio.core.captions.provenance import Source, Writer
from studio.errors import BadFile, Busy, DatasetError, InvalidSpec, NotAllowed
from studio.settings import Settings, load, shipped
from studio.storage.datasets import file_changes, history, image_index
from studio.storage.datasets.dataset import Album, Albums
from studio.storage.jobs import Lock

MODEL = Writer(by="model", model="pocket", instruction="describe")


def picture(path: Path, size: tuple[int, int] = (80, 64), colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour % 256, colour // 256, 120)).save(path)
    return path


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Four pictures: two with a caption, one with an empty one, one with none."""
    made = settings.home / "datasets" / "boats"
    for k, name in enumerate("abcd"):
        picture(made / f"{name}.png", colour=k)
    (made / "a.txt").write_bytes(b"a red boat, lake\n")
    (made / "b.txt").write_bytes(b"a blue boat\r\nsecond line\r\n")
    (made / "c.txt").write_bytes(b"")
    (made / "notes.md").write_bytes(b"mine")
    return made


@pytest.fixture
def album(settings: Settings, folder: Path) -> Album:
    return Albums(settings).open("boats")


def held(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def said(album: Album) -> dict[str, str]:
    return {one.key: one.caption for one in album.pictures}


def do(album: Album, kind: str, **fields: object) -> object:
    return album.apply(edit_of({"kind": kind, **fields}))


def test_what_is_found(album: Album) -> None:
    assert said(album) == {
        "a.png": "a red boat, lake",
        "b.png": "a blue boat",
        "c.png": "",
        "d.png": "",
    }
    counts = album.counts()
    assert (counts.pictures, counts.captioned, counts.broken, counts.layout, counts.unseen) == (
        4,
        2,
        0,
        "sidecar",
        4,
    )
    assert counts.repeats == {".": 1}
    one = album.picture("a.png")
    assert one.size == (80, 64) and one.bytes == one.path.stat().st_size and not one.content
    assert len(album.content("a.png")) == 64
    album.examine()
    assert album.counts().unseen == 0 and album.picture("a.png").content == album.content("a.png")
    assert album.tags() == [("a blue boat", 1), ("a red boat", 1), ("lake", 1)]
    with pytest.raises(DatasetError, match=r"no picture 'x\.png'"):
        album.picture("x.png")


def test_write_undo_redo_byte_for_byte(album: Album, folder: Path) -> None:
    before = held(folder)
    step = album.write({"a.png": "one", "b.png": "two", "c.png": "three", "d.png": "four"}, MODEL)
    assert (step.changed, step.left, step.state) == (4, (), "done")
    after = held(folder)
    assert after["a.txt"] == b"one\n" and after["b.txt"] == b"two\r\nsecond line\r\n"
    assert after["d.txt"] == b"four\n" and after["notes.md"] == b"mine"
    assert said(album) == {"a.png": "one", "b.png": "two", "c.png": "three", "d.png": "four"}
    undone = album.undo()
    assert undone and undone.id == step.id and undone.state == "undone" and held(folder) == before
    assert album.undo() is None
    album.redo()
    assert held(folder) == after and album.redo() is None
    assert next((one.old, one.new) for one in album.changes(step.id)) == ("a red boat, lake", "one")


def test_modes(album: Album) -> None:
    assert album.write({"a.png": "new", "d.png": "new"}, MODEL, "fill").changed == 1
    assert (
        album.write({"a.png": "new", "d.png": "new"}, MODEL, "append").changed == 1
    )  # d says it already
    assert said(album)["a.png"] == "a red boat, lake, new" and said(album)["d.png"] == "new"
    nothing = album.write({"d.png": "other"}, MODEL, "fill", into=7)
    assert nothing.changed == 0 and nothing.id == 7 and len(album.history()) == 2


def test_batches_of_one_job_are_one_step(album: Album, folder: Path, settings: Settings) -> None:
    before = held(folder)
    first = album.write({"c.png": "one"}, MODEL, "fill")
    second = album.write({"d.png": "two"}, MODEL, "fill", into=first.id)
    assert second.id == first.id and second.changed == 2
    album.write({"a.png": "by hand"}, Writer())
    third = album.write({"c.png": "three"}, MODEL, into=first.id)
    assert third.id != first.id, "somebody did something else meanwhile"
    for _ in range(3):
        album.undo()
    assert held(folder) == before
    album.redo()
    assert held(folder)["d.txt"] == b"two\n" and said(album)["c.png"] == "one"


def test_undoing_several_writes_of_one_step(album: Album, folder: Path) -> None:
    before = held(folder)
    step = album.write({"a.png": "one"}, MODEL)
    album.write({"a.png": "two"}, MODEL, into=step.id)
    album.undo()
    assert held(folder) == before and said(album)["a.png"] == "a red boat, lake"
    assert album.write({"a.png": "three"}, MODEL).changed == 1, "it knows what the file holds"
    album.undo()
    assert album.redo() and said(album)["a.png"] == "three"


def test_the_journal_survives_and_a_new_step_ends_redo(
    album: Album, settings: Settings, folder: Path
) -> None:
    do(album, "replace", find="boat", to="ship")
    do(album, "dress", trigger="mysks")
    other = Albums(settings).open("boats")  # as another process would
    assert said(other)["a.png"] == "mysks, a red ship, lake" and said(other)["d.png"] == "mysks"
    other.undo()
    other.undo()
    album.refresh()
    assert said(album)["a.png"] == "a red boat, lake"
    do(album, "delete_tags", tags=["lake"])
    assert other.redo() is None
    assert [step.state for step in other.history()] == ["done", "dropped", "dropped"]
    assert "Replace 'boat' by 'ship'" in [step.title for step in other.history()]


def test_a_change_from_outside_is_never_overwritten(album: Album, folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"somebody else")
    step = album.write({"a.png": "ours", "b.png": "ours"}, MODEL)
    assert step.left == (("a.png", file_changes.OUTSIDE),) and step.changed == 1
    assert held(folder)["a.txt"] == b"somebody else" and said(album)["a.png"] == "somebody else"
    album.write({"a.png": "ours"}, MODEL)  # it has been seen now
    (folder / "a.txt").write_bytes(b"again")
    undone = album.undo()
    assert (
        undone
        and undone.left == (("a.png", file_changes.OUTSIDE),)
        and held(folder)["a.txt"] == b"again"
    )
    (folder / "d.txt").write_bytes(b"appeared")
    assert album.write({"d.png": "x"}, MODEL).left == (("d.png", file_changes.OUTSIDE),)


def test_a_file_that_appeared_or_went_meanwhile(album: Album, folder: Path) -> None:
    (folder / "d.txt").write_bytes(b"appeared")
    (folder / "a.txt").unlink()
    step = album.write({"d.png": "x", "a.png": "y"}, MODEL)
    assert {key for key, _ in step.left} == {"a.png", "d.png"}
    assert held(folder)["d.txt"] == b"appeared" and "a.txt" not in held(folder)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_records_of_metadata(settings: Settings, tmp_path: Path, ending: str, codec: str) -> None:
    """Only the record that is meant changes; everything else of the file stays, to the byte."""
    made = tmp_path / "meta"
    for k, name in enumerate(("a.png", "b.png", "train/c.png", "d.png")):
        picture(made / name, colour=k)
    if ending == "jsonl":
        lines = [
            '{"file_name": "a.png", "text": "ein Boot", "id": 1.50}',
            "",
            "{broken",
            '{"file_name":"b.png","caption":"two"}',
            '{"file_name": "train/c.png", "text": "three"}',
            '{"file_name": "d.png"}',
        ]
    else:
        lines = [
            "id,file_name,text,more",
            "1.50,a.png,ein Boot,x",
            '2,b.png,"two, ""quoted""\nlines",',
            "",
            "3,train/c.png,three",
            "4,gone.png,x,y",
        ]
    file = made / f"metadata.{ending}"
    file.write_bytes("\r\n".join(lines).encode(codec))
    before = held(made)
    album = Albums(settings).open(made)
    assert album.layout == "metadata" and said(album)["a.png"] == "ein Boot"
    step = album.write(
        {"a.png": 'a "boat", čaj', "train/c.png": "tree", "d.png": "own file"}, MODEL
    )
    assert step.changed == 3 and not step.left
    text = file.read_bytes().decode(codec)
    assert "1.5" in text and text.split("\r\n")[1 : -1 if ending == "csv" else 4][1:3] == lines[2:4]
    assert said(album)["a.png"] == 'a "boat", čaj' and said(album)["train/c.png"] == "tree"
    assert (made / "d.txt").read_bytes() == b"own file\n"
    plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(codec, codec)
    file.write_bytes(file.read_bytes().replace("tree".encode(plain), "TREE".encode(plain)))
    undone = album.undo()
    assert undone and [key for key, _ in undone.left] == ["train/c.png"]
    assert said(album)["a.png"] == "ein Boot" and said(album)["train/c.png"] == "TREE"
    file.write_bytes(before[file.name])
    assert held(made) == before


def test_kohya_and_endings(settings: Settings, tmp_path: Path) -> None:
    picture(tmp_path / "img" / "10_moon rock" / "a.png")
    picture(tmp_path / "img" / "3_sun" / "b.png")
    picture(tmp_path / "img" / "3_sun" / "c.png")
    (tmp_path / "img" / "3_sun" / "b.caption").write_text("a sun")
    album = Albums(settings).open(tmp_path / "img")
    assert album.layout == "kohya" and album.counts().repeats == {"10_moon rock": 10, "3_sun": 3}
    assert said(album) == {"10_moon rock/a.png": "", "3_sun/b.png": "a sun", "3_sun/c.png": ""}
    album.write({"10_moon rock/a.png": "x", "3_sun/c.png": "y"}, MODEL)
    assert (tmp_path / "img" / "10_moon rock" / "a.txt").exists() and (
        tmp_path / "img" / "3_sun" / "c.caption"
    ).exists()
    assert album.keys("repeats:10") == album.keys('concept:"moon rock"') == ["10_moon rock/a.png"]


def test_shipped_sets_stay_as_they_are(settings: Settings) -> None:
    album = Albums(settings).open("moon")
    assert album.shipped and len(album.pictures) == 24
    for deed in (
        lambda: album.write({album.pictures[0].key: "x"}, MODEL),
        album.undo,
        album.redo,
        lambda: do(album, "clean"),
        lambda: do(album, "set_aside", keys=[album.pictures[0].key]),
    ):
        with pytest.raises(NotAllowed, match="came with the studio"):
            deed()


def test_set_aside_and_back(album: Album, folder: Path) -> None:
    before = held(folder)
    step = do(album, "set_aside", keys=["a.png", "d.png"])
    assert sorted(said(album)) == ["b.png", "c.png"]
    assert (
        held(folder)[".aside/a.png"] == before["a.png"]
        and held(folder)[".aside/a.txt"] == before["a.txt"]
    )
    album.undo()
    assert {k: v for k, v in held(folder).items() if not k.startswith(".aside")} == before and step
    album.redo()
    picture(folder / "a.png", colour=99)  # another of that name came meanwhile
    undone = album.undo()
    assert (
        undone
        and ("a.png", "a.png is there already.") in undone.left
        and held(folder)[".aside/a.png"] == before["a.png"]
    )


def test_set_aside_from_metadata(settings: Settings, tmp_path: Path) -> None:
    for k, name in enumerate("ab"):
        picture(tmp_path / "m" / f"{name}.png", colour=k)
    rows = '{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "text": "two"}'
    (tmp_path / "m" / "metadata.jsonl").write_text(rows)
    album = Albums(settings).open(tmp_path / "m")
    do(album, "set_aside", keys=["a.png"])
    assert said(album) == {"b.png": "two"} and not album.broken
    album.undo()
    assert said(album) == {"a.png": "one", "b.png": "two"} and not album.broken


def test_sources(album: Album) -> None:
    do(album, "set_source", author="Jan", licence="CC0")
    album.apply(
        edit_of({"kind": "set_source", "source": "gallery", "generated": True}), keys=["a.png"]
    )
    assert album.sources()["a.png"] == Source(
        author="Jan", licence="CC0", source="gallery", generated=True
    )
    assert album.sources()["b.png"] == Source(author="Jan", licence="CC0")
    album.undo()
    assert album.sources()["a.png"] == Source(author="Jan", licence="CC0")
    album.undo()
    assert not album.sources()
    album.redo()
    assert len(album.sources()) == 4


def test_scope_and_preview(album: Album, folder: Path) -> None:
    before = held(folder)
    edit = edit_of({"kind": "replace", "find": "boat", "to": "ship"})
    assert [(one.key, one.old, one.new) for one in album.preview(edit, filter="blue")] == [
        ("b.png", "a blue boat", "a blue ship")
    ]
    assert [one.key for one in album.preview(edit, keys=["a.png", "c.png"])] == ["a.png"]
    assert len(album.preview(edit)) == 2 and held(folder) == before and not album.history()
    assert album.apply(edit, filter="is:missing").changed == 0 and not album.history()
    assert album.apply(edit, keys=["a.png", "b.png"], filter="-red").changed == 1
    with pytest.raises(DatasetError, match="no picture"):
        album.apply(edit, keys=["z.png"])


def test_pages(album: Album) -> None:
    page = album.page(1, 2)
    assert [one.key for one in page.pictures] == ["b.png", "c.png"] and (
        page.total,
        page.offset,
    ) == (4, 1)
    assert album.page(sort="length", reverse=True).pictures[0].key == "a.png"
    assert [one.key for one in album.page(sort="caption").pictures] == [
        "c.png",
        "d.png",
        "b.png",
        "a.png",
    ]
    assert (
        album.page(filter="is:captioned").total == 2 and album.page(filter="tokens:<3").total == 2
    )
    with pytest.raises(InvalidSpec, match="Sort"):
        album.page(sort="colour")  # type: ignore[arg-type]


def test_broken_files_are_named(album: Album, folder: Path) -> None:
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    (folder / "text.jpg").write_text("<script>")
    (folder / "c.txt").write_bytes("čaj".encode("cp1250"))
    picture(folder / "line\nbreak.png")
    album.refresh()
    assert {"text.jpg", "c.png", "line\nbreak.png"} <= dict(
        album.broken
    ).keys() and "cut.png" not in dict(album.broken)
    album.examine()
    assert "damaged" in dict(album.broken)["cut.png"] and album.keys("is:broken") == [
        "c.png",
        "cut.png",
        "text.jpg",
    ]
    before = held(folder)
    album.write({"c.png": "tea"}, MODEL)  # its bytes come back
    assert said(album)["c.png"] == "tea"
    album.undo()
    assert held(folder) == before


def test_what_no_caption_can_be(album: Album, folder: Path) -> None:
    before = held(folder)
    for text in ("a\x07b", "\ud800", "x" * 20_000):
        with pytest.raises((DatasetError, InvalidSpec)):
            album.write({"a.png": text, "b.png": "fine"}, MODEL)
    assert held(folder) == before and not album.history()
    album.write({"a.png": "two\nlines  here"}, MODEL)
    assert held(folder)["a.txt"] == b"two lines here\n"


def test_one_picture_is_not_opened_twice(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    for name, real in (("look", image_index.look), ("glance", image_index.glance)):
        monkeypatch.setattr(
            image_index, name, lambda path, real=real: calls.append(path) or real(path)
        )
    album = Albums(settings).open("boats")
    assert len(calls) == 4
    Albums(settings).open("boats").refresh()
    assert len(calls) == 4
    album.examine()
    assert len(calls) == 8
    Albums(settings).open("boats").examine()
    assert len(calls) == 8
    picture(folder / "a.png", (90, 90), colour=7)
    assert Albums(settings).open("boats").picture("a.png").size == (90, 90) and len(calls) == 9


def test_examining_can_be_stopped_and_keeps_what_it_has(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_index, "BATCH", 1)
    album = Albums(settings).open("boats")

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        album.examine(stop)
    seen: list[tuple[int, int]] = []
    Albums(settings).open("boats").examine(lambda done, of: seen.append((done, of)))
    assert seen[-1] == (2, 2)


def test_a_full_disk_is_said_and_what_was_not_written_is_named(
    album: Album, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, replace: bool = True, settle: bool = True) -> None:
        if path.name == "b.txt":
            raise BadFile(
                f"{path} could not be written: No space left on device. Is the disk full?"
            )
        real(path, data, replace, settle)

    real = file_changes.atomic.write
    monkeypatch.setattr(file_changes.atomic, "write", full)
    step = album.write({"a.png": "x", "b.png": "y"}, MODEL)
    assert (
        step.changed == 1
        and "No space left" in step.left[0][1]
        and said(album)["b.png"] == "a blue boat"
    )


def test_another_writer(album: Album, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Lock(settings.home, "captions")
    assert other.take()
    monkeypatch.setattr(history, "WAIT", 0.05)
    with pytest.raises(Busy, match="writing captions"):
        album.write({"a.png": "x"}, MODEL)
    other.drop()
    assert album.write({"a.png": "x"}, MODEL).changed == 1


EDITS = st.one_of(
    st.builds(
        lambda find, to: {"kind": "replace", "find": find, "to": to},
        st.sampled_from(["boat", "a", ",", "ship"]),
        st.sampled_from(["", "ship", "boat, boat", "č\\"]),
    ),
    st.builds(
        lambda texts: {"kind": "put", "texts": texts},
        st.dictionaries(
            st.sampled_from(["a.png", "b.png", "c.png", "d.png"]), st.text("ab ,\n", max_size=9)
        ),
    ),
    st.sampled_from(
        [
            {"kind": "clean"},
            {"kind": "dedupe_tags"},
            {"kind": "sort_tags", "by": "name"},
            {"kind": "dress", "prefix": "a photo of ", "trigger": "mysks"},
            {"kind": "join_lines"},
            {"kind": "set_aside", "keys": ["c.png"]},
            {"kind": "set_source", "author": "x"},
            {"kind": "shorten", "tokens": 5},
        ]
    ),
    st.sampled_from(["undo", "redo"]),
)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EDITS, max_size=8))
def test_undo_and_redo_are_exact(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[object]
) -> None:
    """Against a plain stack of states: whatever is done, undone and redone, all files are byte for byte what they were."""
    home = tmp_path_factory.mktemp("h")
    made = home / "datasets" / "s"
    for k, name in enumerate("abcd"):
        picture(made / f"{name}.png", colour=k)
    (made / "a.txt").write_bytes(b"a boat, lake, boat\nmore")
    (made / "b.txt").write_bytes(b"\xff\xfea\x00")
    (made / "metadata.jsonl").write_bytes(b'{"file_name": "c.png", "text": "a boat"}\n')
    album = Albums(load(home=home, device="cpu")).open("s")

    def state() -> object:
        return held(made), album.sources()

    states, at = [state()], 0
    for deed in deeds:
        if deed == "undo":
            assert (album.undo() is None) == (at == 0)
            at = max(0, at - 1)
        elif deed == "redo":
            assert (album.redo() is None) == (at == len(states) - 1)
            at = min(len(states) - 1, at + 1)
        else:
            try:
                step = album.apply(edit_of(deed))  # type: ignore[arg-type]
            except (DatasetError, InvalidSpec):
                continue  # a picture that was set aside
            assert not step.left
            if step.changed:
                states[at + 1 :] = [state()]
                at += 1
        assert state() == states[at]
    while album.undo():
        pass
    assert state() == states[0]


def test_thumbs_are_made_once_and_anew_for_a_changed_picture(
    album: Album, settings: Settings, folder: Path
) -> None:
    picture(folder / "wide.png", (2000, 1000))
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-60])
    album.refresh()
    first = album.thumbs(["wide.png", "cut.png", "a.png"])
    assert first[1] is None and first[0] and first[0].is_relative_to(settings.thumbs)
    assert Image.open(first[0]).size == (320, 160) and Image.open(first[2] or "").size == (80, 64)
    made = first[0].stat().st_mtime_ns
    assert album.thumbs(["wide.png"]) == first[:1] and first[0].stat().st_mtime_ns == made
    picture(folder / "wide.png", (1000, 2000), colour=9)
    assert album.thumbs(["wide.png"]) != first[:1]


def test_stale(album: Album, folder: Path, settings: Settings) -> None:
    assert not album.stale()
    album.write({"a.png": "ours"}, MODEL)
    assert not album.stale(), "its own writes it knows"
    Albums(settings).open("boats").write({"b.png": "another process's"}, MODEL)
    assert album.stale() and said(album)["b.png"] == "a blue boat"
    album.write({"c.png": "x"}, MODEL)
    assert album.stale(), "what it does not know is not forgotten by a write"
    album.refresh()
    assert not album.stale() and said(album)["b.png"] == "another process's"


def test_a_new_dataset_of_an_old_name_begins_anew(
    album: Album, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    do(album, "set_source", author="Jan")
    do(album, "replace", find="boat", to="ship")
    shutil.rmtree(folder)
    albums = Albums(settings)
    albums.add("boats", [(picture(tmp_path / "a.png"), "a.png")])
    fresh = albums.open("boats")
    assert (
        not fresh.sources() and len([step for step in fresh.history() if step.state == "done"]) == 1
    )
    fresh.undo()
    assert fresh.undo() is None


def test_two_pictures_with_one_caption_file(settings: Settings, tmp_path: Path) -> None:
    picture(tmp_path / "s" / "a.png")
    picture(tmp_path / "s" / "a.bmp", colour=3)
    (tmp_path / "s" / "a.txt").write_text("both")
    album = Albums(settings).open(tmp_path / "s")
    assert album.notes == ["2 pictures are called a and have one caption file together."]
    album.write({"a.png": "one"}, MODEL)
    assert said(album) == {"a.bmp": "one", "a.png": "one"}
    step = album.write({"a.png": "two", "a.bmp": "three"}, MODEL)
    assert (
        step.changed == 1
        and "through another picture" in step.left[0][1]
        and len(set(said(album).values())) == 1
    )


def test_captions_written_while_pictures_are_examined_stay(album: Album) -> None:
    album.examine(lambda done, of: album.write({"a.png": f"written at {done}"}, MODEL) and None)
    assert said(album)["a.png"] == "written at 4" and album.picture("a.png").content


def test_readers_and_writers_in_threads(album: Album) -> None:
    """As a page's handlers do: nobody sees half of a change, nothing is lost."""
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for k in range(12):
                if number % 2:
                    album.write({f"{'abcd'[number % 4]}.png": f"{number} {k}"}, MODEL)
                else:
                    album.page(0, 2, "is:captioned -zzz", "length")
                    album.tags()
                    album.refresh()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len(album.history()) == 24
    album.refresh()
    assert said(album)["b.png"] == "1 11" and said(album)["d.png"] == "3 11"


KILLED = """
import os, sys
from pathlib import Path
from studio.settings import load
from studio.core.captions.provenance import Writer
from studio.storage.datasets.dataset import Albums
home, word = sys.argv[1], sys.argv[2]
album = Albums(load(home=Path(home), device="cpu")).open("many")
print("ready", flush=True)
for number in range(1000):
    deed = number % 4
    if deed == 2:
        album.undo()
    elif deed == 3:
        album.redo()
    else:
        album.write({one.key: f"{word} {number} of {one.key} " + "x" * 3000 for one in album.pictures}, Writer())
"""


def whole(folder: Path) -> set[str]:
    """The words of all captions without their files' names: one, if all were written by one step. A torn one fails."""
    found = set()
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text()
        assert text.endswith(f" of {path.stem}.png " + "x" * 3000 + "\n") or text == "first\n", path
        found.add(text.split(" of ")[0])
    return found


def killed(settings: Settings, times: int, seed: int) -> int:
    """Kill a writer so often at random points; how often a step was half done then."""
    halves = 0
    made = settings.home / "datasets" / "many"
    for k in range(24):
        picture(made / f"{k}.png", colour=k)
        (made / f"{k}.txt").write_text("first\n")
    rng = random.Random(seed)
    for round in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(settings.home), f"w{round}"], stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(rng.random() * 0.25)
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.closing(sqlite3.connect(settings.home / "captions.sqlite")) as db:
            halves += db.execute(
                "SELECT count(*) FROM steps WHERE state IN ('doing', 'undoing')"
            ).fetchone()[0]
        album = Albums(settings).open("many")  # completes what was begun
        assert len(whole(made)) == 1, "a step is either not begun or done"
        assert {one.caption for one in album.pictures if "first" not in one.caption} <= {
            path.read_text().strip() for path in made.glob("*.txt")
        }
        assert not [path for path in made.iterdir() if path.name.endswith(".tmp")]
        assert all(
            step.state in ("done", "undone", "dropped") and not step.left
            for step in album.history(10_000)
        )
    while album.undo():
        assert len(whole(made)) == 1
    assert whole(made) == {"first\n"}
    return halves


def test_kills(settings: Settings) -> None:
    killed(settings, 4, 1)


@pytest.mark.slow
def test_many_kills(settings: Settings) -> None:
    assert killed(settings, 60, 2) > 20


def test_two_processes_write_at_once(settings: Settings, folder: Path) -> None:
    """They take turns; nothing is torn, nothing is lost: what one did not see it leaves."""
    code = (
        KILLED.replace('"many"', '"boats"')
        .replace("range(1000)", "range(12)")
        .replace("number % 4", "0")
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(settings.home), word], stdout=subprocess.DEVNULL
        )
        for word in "xy"
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    album = Albums(settings).open("boats")
    for one in album.pictures:
        assert one.caption.endswith("x" * 3000) and f"of {one.key}" in one.caption
    steps = album.history()
    assert len(steps) == 24 and sum(step.changed + len(step.left) for step in steps) == 24 * 4


@pytest.mark.parametrize("step", ["after the journal", "half of the files", "all files"])
@pytest.mark.parametrize("way", ["write", "undo", "redo"])
def test_a_death_at_each_point_is_completed(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    album = Albums(settings).open("boats")
    before = held(folder)
    deeds: dict[str, Callable[[], object]] = {
        "write": lambda: album.write({f"{name}.png": "new" for name in "abcd"}, MODEL),
        "undo": album.undo,
        "redo": album.redo,
    }
    for earlier in {"write": [], "undo": ["write"], "redo": ["write", "undo"]}[way]:
        deeds[earlier]()
    real, done = file_changes.out, []

    def dies(*arguments: object) -> list[str]:
        if step == "after the journal" or (step == "half of the files" and len(done) >= 2):
            raise SystemExit
        done.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(file_changes, "out", dies)
        if step == "all files":
            patch.setattr(history.Journal, "_mark", lambda *_: (_ for _ in ()).throw(SystemExit()))
        with pytest.raises(SystemExit):
            deeds[way]()
    fresh = Albums(settings).open("boats")
    if way == "undo":
        assert held(folder) == before
    else:
        assert [one.caption for one in fresh.pictures] == ["new"] * 4
    assert fresh.history()[0].state == ("undone" if way == "undo" else "done")


def many(folder: Path, count: int) -> None:
    """That many pictures, different in content, with captions."""
    folder.mkdir(parents=True)
    picture(folder / "0.png", (512, 512))
    data = (folder / "0.png").read_bytes()
    for k in range(count):
        (folder / f"{k}.png").write_bytes(data + str(k).encode())
        (folder / f"{k}.txt").write_text(f"a red boat {k % 7}, lake, tag {k % 50}\n")


def test_hundreds_of_pictures(settings: Settings) -> None:
    check_many(settings, 400)


@pytest.mark.slow
def test_ten_thousand_pictures(settings: Settings) -> None:
    check_many(settings, 10_000)


def check_many(settings: Settings, count: int) -> None:
    many(settings.home / "datasets" / "many", count)
    album = Albums(settings).open("many")
    assert album.counts().captioned == count
    start = time.monotonic()
    again = Albums(settings).open("many")
    opened = time.monotonic() - start
    start = time.monotonic()
    page = again.page(count // 2, 60, "tag:lake -7 tokens:>5", "length")
    paged = time.monotonic() - start
    assert page.pictures and page.total < count
    assert opened < 0.5 + count / 2000 and paged < 0.5 + count / 2000, (opened, paged)
    step = again.apply(edit_of({"kind": "replace", "find": "red", "to": "blue"}))
    assert step.changed == count and not step.left
    again.undo()
    assert all("red" in one.caption for one in again.pictures)
    shutil.rmtree(again.folder)


def test_the_embedded_sets_and_hidden_files(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "mysks"
    shutil.copytree(shipped("assets") / "datasets" / "mysks", copy)
    (copy / ".hidden.png").write_bytes(b"x")
    (copy / "a.json").write_text(json.dumps({}))
    album = Albums(settings).open(copy)
    assert len(album.pictures) == 15 and not album.broken and not album.shipped
    assert os.path.isabs(album.folder)
