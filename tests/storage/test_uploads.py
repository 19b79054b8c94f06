"""Whose a sent file is: remembered over a restart, counted while it is there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.errors import BadFile
from studio.settings import Settings
from studio.storage.uploads import RETENTION_SECONDS, Uploads, check_kind
from support.sentences import refused


@pytest.fixture
def uploads(settings: Settings) -> Iterator[Uploads]:
    settings.uploads.mkdir()
    table = Uploads(settings)
    yield table
    table.close()


def send(uploads: Uploads, name: str, guest: str, num_bytes: int = 100) -> Path:
    path = uploads.folder / name / "a.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    uploads.record(path, guest)
    return path


def test_a_file_is_its_senders(uploads: Uploads, settings: Settings) -> None:
    path = send(uploads, "1", "ann")
    mine = send(uploads, "2", "")
    unknown = uploads.folder / "made by a handler"
    again = Uploads(settings)  # after a restart
    for table in (uploads, again):
        assert table.may_read(str(path), "ann")
        assert table.may_read(f"{path.parent}/../1/a.png", "ann")
        assert not table.may_read(str(path), "bob")
        assert not table.may_read(str(mine), "ann")
        assert not table.may_read(str(unknown), "ann")
        assert table.may_read("/elsewhere", "bob")  # for others to judge
    again.close()
    uploads.record(path, "bob")  # the same content
    assert uploads.may_read(str(path), "bob")
    assert uploads.may_read(str(path), "ann")


def test_what_the_page_hands_out_is_read_by_whom_it_is_handed_to(uploads: Uploads) -> None:
    path = uploads.folder / "b.txt"
    path.write_text("x")
    uploads.record_handed_out([str(path), "/elsewhere/c.txt", "\0", ""], "ann")
    assert uploads.may_read(str(path), "ann")
    assert not uploads.may_read(str(path), "bob")
    assert uploads.count_kept_bytes("ann") == (0, 0)


def test_bytes_are_counted_while_they_are_there(uploads: Uploads) -> None:
    first = send(uploads, "1", "ann", 1000)
    send(uploads, "2", "ann", 10)
    send(uploads, "3", "bob", 5)
    send(uploads, "4", "", 9999)
    send(uploads, "2", "ann", 10)  # sent again
    assert uploads.count_kept_bytes("ann") == (1010, 1015)
    first.unlink()
    assert uploads.count_kept_bytes("ann") == (10, 15)
    assert not uploads.may_read(str(first), "ann")


def test_what_is_old_goes(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    old = send(uploads, "1", "ann")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + RETENTION_SECONDS + 1)
    new = send(uploads, "2", "ann")
    assert uploads.delete_expired() == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_a_refused_file_goes_unless_somebody_else_has_it(uploads: Uploads) -> None:
    mine = send(uploads, "1", "")
    other = uploads.folder / "x.bin"
    other.write_bytes(b"x")
    for path in (mine, other, Path("/elsewhere")):
        uploads.delete_unknown(path)
    assert (mine.exists(), other.exists()) == (True, False)


@pytest.mark.parametrize(
    "start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF....WEBP", b"BM", b"GIF89a"]
)
def test_pictures_are_known_by_their_first_bytes(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "any name"
    path.write_bytes(start + b"...")
    check_kind(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", b"PK"),
        ("a.html", b"<p>"),
        ("a.png", b""),
        ("a.toml", b"\0"),
        ("a.json", b" " * (2**20 + 1)),
    ],
)
def test_what_a_guests_page_has_no_use_for(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with refused(BadFile):
        check_kind(path)


def test_settings_are_taken(tmp_path: Path) -> None:
    for name in ("a.toml", "A.JSON"):
        path = tmp_path / name
        path.write_text("{}")
        check_kind(path)
    assert os.listdir(tmp_path)
