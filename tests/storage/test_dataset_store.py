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

from studio.core.captions.edits import parse_edit
from studio.core.captions.provenance import Source, Writer
from studio.errors import BadFile, Busy, DatasetError, InvalidSpec, NotAllowed
from studio.settings import Settings, load, shipped
from studio.storage.datasets import file_changes, history, image_index
from studio.storage.datasets.dataset import Dataset, DatasetStore
from studio.storage.locks import Lock
from support.datasets import held, picture, said
from support.examples import examples
from support.limits import count_calls
from support.sentences import check_sentence, refused

MODEL = Writer(by="model", model="pocket", instruction="describe")


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
def album(settings: Settings, folder: Path) -> Dataset:
    return DatasetStore(settings).open("boats")


def do(album: Dataset, kind: str, **fields: object) -> object:
    return album.apply(parse_edit({"kind": kind, **fields}))


@pytest.mark.smoke
def test_what_is_found(album: Dataset) -> None:
    assert said(album) == {
        "a.png": "a red boat, lake",
        "b.png": "a blue boat",
        "c.png": "",
        "d.png": "",
    }
    counts = album.count_images()
    assert (counts.images, counts.captioned, counts.broken, counts.layout, counts.unexamined) == (
        4,
        2,
        0,
        "sidecar",
        4,
    )
    assert counts.repeats == {".": 1}
    one = album.get_image("a.png")
    assert one.size == (80, 64)
    assert one.file_size == one.path.stat().st_size
    assert not one.content_hash
    assert len(album.compute_content_hash("a.png")) == 64
    album.examine()
    assert album.count_images().unexamined == 0
    assert album.get_image("a.png").content_hash == album.compute_content_hash("a.png")
    assert album.count_tags() == [("a blue boat", 1), ("a red boat", 1), ("lake", 1)]
    with refused(DatasetError):
        album.get_image("x.png")


@pytest.mark.smoke
def test_write_undo_redo_byte_for_byte(album: Dataset, folder: Path) -> None:
    before = held(folder)
    step = album.write_captions(
        {"a.png": "one", "b.png": "two", "c.png": "three", "d.png": "four"}, MODEL
    )
    assert (step.num_changes, step.skipped, step.state) == (4, (), "done")
    after = held(folder)
    assert after["a.txt"] == b"one\n"
    assert after["b.txt"] == b"two\r\nsecond line\r\n"
    assert after["d.txt"] == b"four\n"
    assert after["notes.md"] == b"mine"
    assert said(album) == {"a.png": "one", "b.png": "two", "c.png": "three", "d.png": "four"}
    undone = album.undo()
    assert undone
    assert undone.id == step.id
    assert undone.state == "undone"
    assert held(folder) == before
    assert album.undo() is None
    album.redo()
    assert held(folder) == after
    assert album.redo() is None
    assert next((one.old_caption, one.new_caption) for one in album.list_changes(step.id)) == (
        "a red boat, lake",
        "one",
    )


def test_modes(album: Dataset) -> None:
    assert (
        album.write_captions({"a.png": "new", "d.png": "new"}, MODEL, mode="fill").num_changes == 1
    )
    assert (
        album.write_captions({"a.png": "new", "d.png": "new"}, MODEL, mode="append").num_changes
        == 1
    )  # d says it already
    assert said(album)["a.png"] == "a red boat, lake, new"
    assert said(album)["d.png"] == "new"
    nothing = album.write_captions({"d.png": "other"}, MODEL, mode="fill", append_to=7)
    assert nothing.num_changes == 0
    assert nothing.id == 7
    assert len(album.history()) == 2


def test_batches_of_one_job_are_one_step(album: Dataset, folder: Path, settings: Settings) -> None:
    before = held(folder)
    first = album.write_captions({"c.png": "one"}, MODEL, mode="fill")
    second = album.write_captions({"d.png": "two"}, MODEL, mode="fill", append_to=first.id)
    assert second.id == first.id
    assert second.num_changes == 2
    album.write_captions({"a.png": "by hand"}, Writer())
    third = album.write_captions({"c.png": "three"}, MODEL, append_to=first.id)
    assert third.id != first.id, "somebody did something else meanwhile"
    for _ in range(3):
        album.undo()
    assert held(folder) == before
    album.redo()
    assert held(folder)["d.txt"] == b"two\n"
    assert said(album)["c.png"] == "one"


def test_undoing_several_writes_of_one_step(album: Dataset, folder: Path) -> None:
    before = held(folder)
    step = album.write_captions({"a.png": "one"}, MODEL)
    album.write_captions({"a.png": "two"}, MODEL, append_to=step.id)
    album.undo()
    assert held(folder) == before
    assert said(album)["a.png"] == "a red boat, lake"
    assert album.write_captions({"a.png": "three"}, MODEL).num_changes == 1, (
        "it knows what the file holds"
    )
    album.undo()
    assert album.redo()
    assert said(album)["a.png"] == "three"


def test_the_journal_survives_and_a_new_step_ends_redo(
    album: Dataset, settings: Settings, folder: Path
) -> None:
    do(album, "replace", find="boat", to="ship")
    do(album, "dress", trigger="mysks")
    other = DatasetStore(settings).open("boats")  # as another process would
    assert said(other)["a.png"] == "mysks, a red ship, lake"
    assert said(other)["d.png"] == "mysks"
    other.undo()
    other.undo()
    album.refresh()
    assert said(album)["a.png"] == "a red boat, lake"
    do(album, "delete_tags", tags=["lake"])
    assert other.redo() is None
    assert [step.state for step in other.history()] == ["done", "dropped", "dropped"]
    assert "Replace 'boat' with 'ship'" in [step.title for step in other.history()]


def test_steps_that_nobody_can_take_up_again_are_bounded(
    album: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_DROPPED_STEPS", 3)
    album.write_captions({"a.png": "kept"}, MODEL)
    for number in range(8):
        album.write_captions({"a.png": f"take {number}"}, MODEL)
        album.undo()
    album.write_captions({"a.png": "last"}, MODEL)
    states = [step.state for step in album.history()]
    assert states == ["done", "dropped", "dropped", "dropped", "done"]
    with contextlib.closing(sqlite3.connect(settings.home / "captions.sqlite")) as table:
        (count,) = table.execute("SELECT count(DISTINCT step) FROM changes").fetchone()
    assert count == len(states)
    album.undo()
    assert said(album)["a.png"] == "kept"


def test_a_change_from_outside_is_never_overwritten(album: Dataset, folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"somebody else")
    step = album.write_captions({"a.png": "ours", "b.png": "ours"}, MODEL)
    assert step.skipped == (("a.png", file_changes.CHANGED_ELSEWHERE),)
    assert step.num_changes == 1
    assert held(folder)["a.txt"] == b"somebody else"
    assert said(album)["a.png"] == "somebody else"
    album.write_captions({"a.png": "ours"}, MODEL)  # it has been seen now
    (folder / "a.txt").write_bytes(b"again")
    undone = album.undo()
    assert undone
    assert undone.skipped == (("a.png", file_changes.CHANGED_ELSEWHERE),)
    assert held(folder)["a.txt"] == b"again"
    (folder / "d.txt").write_bytes(b"appeared")
    assert album.write_captions({"d.png": "x"}, MODEL).skipped == (
        ("d.png", file_changes.CHANGED_ELSEWHERE),
    )


def test_a_file_that_appeared_or_went_meanwhile(album: Dataset, folder: Path) -> None:
    (folder / "d.txt").write_bytes(b"appeared")
    (folder / "a.txt").unlink()
    step = album.write_captions({"d.png": "x", "a.png": "y"}, MODEL)
    assert {key for key, _ in step.skipped} == {"a.png", "d.png"}
    assert held(folder)["d.txt"] == b"appeared"
    assert "a.txt" not in held(folder)


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
    album = DatasetStore(settings).open(made)
    assert album.layout == "metadata"
    assert said(album)["a.png"] == "ein Boot"
    step = album.write_captions(
        {"a.png": 'a "boat", čaj', "train/c.png": "tree", "d.png": "own file"}, MODEL
    )
    assert step.num_changes == 3
    assert not step.skipped
    text = file.read_bytes().decode(codec)
    assert "1.5" in text
    assert text.split("\r\n")[1 : -1 if ending == "csv" else 4][1:3] == lines[2:4]
    assert said(album)["a.png"] == 'a "boat", čaj'
    assert said(album)["train/c.png"] == "tree"
    assert (made / "d.txt").read_bytes() == b"own file\n"
    plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(codec, codec)
    file.write_bytes(file.read_bytes().replace("tree".encode(plain), "TREE".encode(plain)))
    undone = album.undo()
    assert undone
    assert [key for key, _ in undone.skipped] == ["train/c.png"]
    assert said(album)["a.png"] == "ein Boot"
    assert said(album)["train/c.png"] == "TREE"
    file.write_bytes(before[file.name])
    assert held(made) == before


def test_kohya_and_endings(settings: Settings, tmp_path: Path) -> None:
    picture(tmp_path / "img" / "10_moon rock" / "a.png")
    picture(tmp_path / "img" / "3_sun" / "b.png")
    picture(tmp_path / "img" / "3_sun" / "c.png")
    (tmp_path / "img" / "3_sun" / "b.caption").write_text("a sun")
    album = DatasetStore(settings).open(tmp_path / "img")
    assert album.layout == "kohya"
    assert album.count_images().repeats == {
        "10_moon rock": 10,
        "3_sun": 3,
    }
    assert said(album) == {"10_moon rock/a.png": "", "3_sun/b.png": "a sun", "3_sun/c.png": ""}
    album.write_captions({"10_moon rock/a.png": "x", "3_sun/c.png": "y"}, MODEL)
    assert (tmp_path / "img" / "10_moon rock" / "a.txt").exists()
    assert (tmp_path / "img" / "3_sun" / "c.caption").exists()
    assert album.keys("repeats:10") == album.keys('concept:"moon rock"') == ["10_moon rock/a.png"]


def test_shipped_sets_stay_as_they_are(settings: Settings) -> None:
    album = DatasetStore(settings).open("moon")
    assert album.is_shipped
    assert len(album.images) == 24
    for deed in (
        lambda: album.write_captions({album.images[0].key: "x"}, MODEL),
        album.undo,
        album.redo,
        lambda: do(album, "clean"),
        lambda: do(album, "set_aside", keys=[album.images[0].key]),
    ):
        with refused(NotAllowed):
            deed()


def test_set_aside_and_back(album: Dataset, folder: Path) -> None:
    before = held(folder)
    step = do(album, "set_aside", keys=["a.png", "d.png"])
    assert sorted(said(album)) == ["b.png", "c.png"]
    assert held(folder)[".aside/a.png"] == before["a.png"]
    assert held(folder)[".aside/a.txt"] == before["a.txt"]
    album.undo()
    assert {k: v for k, v in held(folder).items() if not k.startswith(".aside")} == before
    assert step
    album.redo()
    picture(folder / "a.png", colour=99)  # another of that name came meanwhile
    undone = album.undo()
    assert undone
    check_sentence(dict(undone.skipped)["a.png"])
    assert held(folder)[".aside/a.png"] == before["a.png"]


def test_set_aside_from_metadata(settings: Settings, tmp_path: Path) -> None:
    for k, name in enumerate("ab"):
        picture(tmp_path / "m" / f"{name}.png", colour=k)
    rows = '{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "text": "two"}'
    (tmp_path / "m" / "metadata.jsonl").write_text(rows)
    album = DatasetStore(settings).open(tmp_path / "m")
    do(album, "set_aside", keys=["a.png"])
    assert said(album) == {"b.png": "two"}
    assert not album.broken
    album.undo()
    assert said(album) == {"a.png": "one", "b.png": "two"}
    assert not album.broken


def test_sources(album: Dataset) -> None:
    do(album, "set_source", author="Jan", licence="CC0")
    album.apply(
        parse_edit({"kind": "set_source", "source": "gallery", "generated": True}), keys=["a.png"]
    )
    assert album.read_sources()["a.png"] == Source(
        author="Jan", licence="CC0", source="gallery", generated=True
    )
    assert album.read_sources()["b.png"] == Source(author="Jan", licence="CC0")
    album.undo()
    assert album.read_sources()["a.png"] == Source(author="Jan", licence="CC0")
    album.undo()
    assert not album.read_sources()
    album.redo()
    assert len(album.read_sources()) == 4


def test_scope_and_preview(album: Dataset, folder: Path) -> None:
    before = held(folder)
    edit = parse_edit({"kind": "replace", "find": "boat", "to": "ship"})
    assert [
        (one.key, one.old_caption, one.new_caption)
        for one in album.preview(edit, filter_query="blue")
    ] == [("b.png", "a blue boat", "a blue ship")]
    assert [one.key for one in album.preview(edit, keys=["a.png", "c.png"])] == ["a.png"]
    assert len(album.preview(edit)) == 2
    assert held(folder) == before
    assert not album.history()
    assert album.apply(edit, filter_query="is:missing").num_changes == 0
    assert not album.history()
    assert album.apply(edit, keys=["a.png", "b.png"], filter_query="-red").num_changes == 1
    with refused(DatasetError):
        album.apply(edit, keys=["z.png"])


def test_pages(album: Dataset) -> None:
    page = album.get_page(1, 2)
    assert [one.key for one in page.images] == ["b.png", "c.png"]
    assert (
        page.total,
        page.offset,
    ) == (4, 1)
    assert album.get_page(sort="length", reverse=True).images[0].key == "a.png"
    assert [one.key for one in album.get_page(sort="caption").images] == [
        "c.png",
        "d.png",
        "b.png",
        "a.png",
    ]
    assert album.get_page(filter_query="is:captioned").total == 2
    assert album.get_page(filter_query="tokens:<3").total == 2
    with refused(InvalidSpec):
        album.get_page(sort="colour")  # type: ignore[arg-type]


def test_broken_files_are_named(album: Dataset, folder: Path) -> None:
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    (folder / "text.jpg").write_text("<script>")
    (folder / "c.txt").write_bytes("čaj".encode("cp1250"))
    picture(folder / "line\nbreak.png")
    album.refresh()
    assert {"text.jpg", "c.png", "line\nbreak.png"} <= dict(album.broken).keys()
    assert "cut.png" not in dict(album.broken)
    album.examine()
    assert "damaged" in dict(album.broken)["cut.png"]
    assert album.keys("is:broken") == [
        "c.png",
        "cut.png",
        "text.jpg",
    ]
    before = held(folder)
    album.write_captions({"c.png": "tea"}, MODEL)  # its bytes come back
    assert said(album)["c.png"] == "tea"
    album.undo()
    assert held(folder) == before


def test_what_no_caption_can_be(album: Dataset, folder: Path) -> None:
    before = held(folder)
    for text in ("a\x07b", "\ud800", "x" * 20_000):
        with pytest.raises((DatasetError, InvalidSpec)):
            album.write_captions({"a.png": text, "b.png": "fine"}, MODEL)
    assert held(folder) == before
    assert not album.history()
    album.write_captions({"a.png": "two\nlines  here"}, MODEL)
    assert held(folder)["a.txt"] == b"two lines here\n"


def test_one_picture_is_not_opened_twice(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    for name, real in (
        ("examine_image", image_index.examine_image),
        ("read_header", image_index.read_header),
    ):
        monkeypatch.setattr(
            image_index, name, lambda path, real=real: calls.append(path) or real(path)
        )
    album = DatasetStore(settings).open("boats")
    assert len(calls) == 4
    DatasetStore(settings).open("boats").refresh()
    assert len(calls) == 4
    album.examine()
    assert len(calls) == 8
    DatasetStore(settings).open("boats").examine()
    assert len(calls) == 8
    picture(folder / "a.png", (90, 90), colour=7)
    assert DatasetStore(settings).open("boats").get_image("a.png").size == (90, 90)
    assert len(calls) == 9


def test_examining_can_be_stopped_and_keeps_what_it_has(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_index, "BATCH_SIZE", 1)
    album = DatasetStore(settings).open("boats")

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        album.examine(stop)
    seen: list[tuple[int, int]] = []
    DatasetStore(settings).open("boats").examine(lambda done, of: seen.append((done, of)))
    assert seen[-1] == (2, 2)


def test_a_full_disk_is_said_and_what_was_not_written_is_named(
    album: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, replace: bool = True, durable: bool = True) -> None:
        if path.name == "b.txt":
            raise BadFile(
                f"{path} could not be written: No space left on device. Is the disk full?"
            )
        real(path, data, replace, durable)

    real = file_changes.atomic.write
    monkeypatch.setattr(file_changes.atomic, "write", full)
    step = album.write_captions({"a.png": "x", "b.png": "y"}, MODEL)
    assert step.num_changes == 1
    assert "No space left" in step.skipped[0][1]
    assert said(album)["b.png"] == "a blue boat"


def test_another_writer(
    album: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Lock(settings.home, "captions")
    assert other.acquire()
    monkeypatch.setattr(history, "LOCK_TIMEOUT_SECONDS", 0.05)
    with refused(Busy):
        album.write_captions({"a.png": "x"}, MODEL)
    other.release()
    assert album.write_captions({"a.png": "x"}, MODEL).num_changes == 1


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


@hypothesis_settings(max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow])
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
    album = DatasetStore(load(home=home, device="cpu")).open("s")

    def state() -> object:
        return held(made), album.read_sources()

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
                step = album.apply(parse_edit(deed))  # type: ignore[arg-type]
            except (DatasetError, InvalidSpec):
                continue  # a picture that was set aside
            assert not step.skipped
            if step.num_changes:
                states[at + 1 :] = [state()]
                at += 1
        assert state() == states[at]
    while album.undo():
        pass
    assert state() == states[0]


def test_thumbs_are_made_once_and_anew_for_a_changed_picture(
    album: Dataset, settings: Settings, folder: Path
) -> None:
    picture(folder / "wide.png", (2000, 1000))
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-60])
    album.refresh()
    first = album.make_thumbnails(["wide.png", "cut.png", "a.png"])
    assert first[1] is None
    assert first[0]
    assert first[0].is_relative_to(settings.thumbs)
    assert Image.open(first[0]).size == (320, 160)
    assert Image.open(first[2] or "").size == (80, 64)
    made = first[0].stat().st_mtime_ns
    assert album.make_thumbnails(["wide.png"]) == first[:1]
    assert first[0].stat().st_mtime_ns == made
    picture(folder / "wide.png", (1000, 2000), colour=9)
    assert album.make_thumbnails(["wide.png"]) != first[:1]


def test_stale(album: Dataset, folder: Path, settings: Settings) -> None:
    assert not album.is_stale()
    album.write_captions({"a.png": "ours"}, MODEL)
    assert not album.is_stale(), "its own writes it knows"
    DatasetStore(settings).open("boats").write_captions({"b.png": "another process's"}, MODEL)
    assert album.is_stale()
    assert said(album)["b.png"] == "a blue boat"
    album.write_captions({"c.png": "x"}, MODEL)
    assert album.is_stale(), "what it does not know is not forgotten by a write"
    album.refresh()
    assert not album.is_stale()
    assert said(album)["b.png"] == "another process's"


def test_a_new_dataset_of_an_old_name_begins_anew(
    album: Dataset, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    do(album, "set_source", author="Jan")
    do(album, "replace", find="boat", to="ship")
    shutil.rmtree(folder)
    albums = DatasetStore(settings)
    albums.import_files("boats", [(picture(tmp_path / "a.png"), "a.png")])
    fresh = albums.open("boats")
    assert not fresh.read_sources()
    assert len([step for step in fresh.history() if step.state == "done"]) == 1
    fresh.undo()
    assert fresh.undo() is None


def test_two_pictures_with_one_caption_file(settings: Settings, tmp_path: Path) -> None:
    picture(tmp_path / "s" / "a.png")
    picture(tmp_path / "s" / "a.bmp", colour=3)
    (tmp_path / "s" / "a.txt").write_text("both")
    album = DatasetStore(settings).open(tmp_path / "s")
    assert album.notes == ["2 images are called a and share one caption file."]
    album.write_captions({"a.png": "one"}, MODEL)
    assert said(album) == {"a.bmp": "one", "a.png": "one"}
    step = album.write_captions({"a.png": "two", "a.bmp": "three"}, MODEL)
    assert step.num_changes == 1
    assert "through another image" in step.skipped[0][1]
    assert len(set(said(album).values())) == 1


def test_captions_written_while_pictures_are_examined_stay(album: Dataset) -> None:
    album.examine(
        lambda done, of: album.write_captions({"a.png": f"written at {done}"}, MODEL) and None
    )
    assert said(album)["a.png"] == "written at 4"
    assert album.get_image("a.png").content_hash


def test_readers_and_writers_in_threads(album: Dataset) -> None:
    """As a page's handlers do: nobody sees half of a change, nothing is lost."""
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for k in range(12):
                if number % 2:
                    album.write_captions({f"{'abcd'[number % 4]}.png": f"{number} {k}"}, MODEL)
                else:
                    album.get_page(0, 2, "is:captioned -zzz", "length")
                    album.count_tags()
                    album.refresh()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(album.history()) == 24
    album.refresh()
    assert said(album)["b.png"] == "1 11"
    assert said(album)["d.png"] == "3 11"


KILLED = """
import os, sys
from pathlib import Path
from studio.settings import load
from studio.core.captions.provenance import Writer
from studio.storage.datasets.dataset import DatasetStore
home, word = sys.argv[1], sys.argv[2]
album = DatasetStore(load(home=Path(home), device="cpu")).open("many")
for number in range(1000):
    if number == 1:  # the first one loads modules for most of its time
        print("ready", flush=True)
    deed = number % 4
    if deed == 2:
        album.undo()
    elif deed == 3:
        album.redo()
    else:
        texts = {image.key: f"{word} {number} of {image.key} " + "x" * 3000 for image in album.images}
        album.write_captions(texts, Writer())
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
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.random() * 0.25)
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.closing(sqlite3.connect(settings.home / "captions.sqlite")) as db:
            halves += db.execute(
                "SELECT count(*) FROM steps WHERE state IN ('doing', 'undoing')"
            ).fetchone()[0]
        album = DatasetStore(settings).open("many")  # completes what was begun
        assert len(whole(made)) == 1, "a step is either not begun or done"
        assert {one.caption for one in album.images if "first" not in one.caption} <= {
            path.read_text().strip() for path in made.glob("*.txt")
        }
        assert not [path for path in made.iterdir() if path.name.endswith(".tmp")]
        assert all(
            step.state in ("done", "undone", "dropped") and not step.skipped
            for step in album.history(10_000)
        )
    while album.undo():
        assert len(whole(made)) == 1
    assert whole(made) == {"first\n"}
    return halves


@pytest.mark.slow
def test_kills(settings: Settings) -> None:
    killed(settings, 4, 1)


@pytest.mark.slow
def test_many_kills(settings: Settings) -> None:
    assert killed(settings, 60, 2) > 20


@pytest.mark.slow
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
    album = DatasetStore(settings).open("boats")
    for one in album.images:
        assert one.caption.endswith("x" * 3000)
        assert f"of {one.key}" in one.caption
    steps = album.history()
    assert len(steps) == 24
    assert sum(step.num_changes + len(step.skipped) for step in steps) == 24 * 4


@pytest.mark.parametrize("step", ["after the journal", "half of the files", "all files"])
@pytest.mark.parametrize("way", ["write", "undo", "redo"])
def test_a_death_at_each_point_is_completed(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    album = DatasetStore(settings).open("boats")
    before = held(folder)
    deeds: dict[str, Callable[[], object]] = {
        "write": lambda: album.write_captions({f"{name}.png": "new" for name in "abcd"}, MODEL),
        "undo": album.undo,
        "redo": album.redo,
    }
    for earlier in {"write": [], "undo": ["write"], "redo": ["write", "undo"]}[way]:
        deeds[earlier]()
    real, done = file_changes.apply, []

    def dies(*arguments: object) -> list[str]:
        if step == "after the journal" or (step == "half of the files" and len(done) >= 2):
            raise SystemExit
        done.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(file_changes, "apply", dies)
        if step == "all files":
            patch.setattr(
                history.Journal, "_mark_step", lambda *_: (_ for _ in ()).throw(SystemExit())
            )
        with pytest.raises(SystemExit):
            deeds[way]()
    fresh = DatasetStore(settings).open("boats")
    if way == "undo":
        assert held(folder) == before
    else:
        assert [one.caption for one in fresh.images] == ["new"] * 4
    assert fresh.history()[0].state == ("undone" if way == "undo" else "done")


def many(folder: Path, count: int) -> None:
    """That many pictures, different in content, with captions."""
    folder.mkdir(parents=True)
    picture(folder / "0.png", (512, 512))
    data = (folder / "0.png").read_bytes()
    for k in range(count):
        (folder / f"{k}.png").write_bytes(data + str(k).encode())
        (folder / f"{k}.txt").write_text(f"a red boat {k % 7}, lake, tag {k % 50}\n")


@pytest.mark.slow
def test_hundreds_of_pictures(settings: Settings) -> None:
    check_many(settings, 400)


@pytest.mark.slow
def test_ten_thousand_pictures(settings: Settings) -> None:
    check_many(settings, 10_000)


def check_many(settings: Settings, count: int) -> None:
    many(settings.home / "datasets" / "many", count)
    album = DatasetStore(settings).open("many")
    assert album.count_images().captioned == count
    with count_calls() as opening:
        again = DatasetStore(settings).open("many")
    with count_calls() as paging:
        page = again.get_page(count // 2, 60, "tag:lake -7 tokens:>5", "length")
    assert page.images
    assert page.total < count
    assert opening.calls < 20_000 + 300 * count
    assert paging.calls < 10_000 + 100 * count
    step = again.apply(parse_edit({"kind": "replace", "find": "red", "to": "blue"}))
    assert step.num_changes == count
    assert not step.skipped
    again.undo()
    assert all("red" in one.caption for one in again.images)
    shutil.rmtree(again.folder)


def test_the_embedded_sets_and_hidden_files(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "mysks"
    shutil.copytree(shipped("assets") / "datasets" / "mysks", copy)
    (copy / ".hidden.png").write_bytes(b"x")
    (copy / "a.json").write_text(json.dumps({}))
    album = DatasetStore(settings).open(copy)
    assert len(album.images) == 15
    assert not album.broken
    assert not album.is_shipped
    assert os.path.isabs(album.folder)
