"""Files go out whole or not at all; names and headers from outside do no harm."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.errors import BadFile
from studio.storage import atomic
from support.sentences import refused


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.smoke
@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "a.txt"
    atomic.write(path, b"old")
    monkeypatch.setattr(*(("builtins.open", full) if broken == "open" else (os, broken, full)))
    with refused(BadFile):
        atomic.write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["a.txt"]
    atomic.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_what_the_writer_raises_comes_through_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError), atomic.open_for_writing(path) as out:
        out.write(bytes([1 // (out.write(b"half") - 4)]))
    assert os.listdir(tmp_path) == []


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom studio.storage import atomic as files\n"
        "with files.writing(Path(sys.argv[1])) as out:\n    out.write(b'x' * 10**6)\n    out.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode != 0
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_without_replace_an_existing_file_stays(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a disk that knows no links, as on many a USB stick."""
    if not links:
        monkeypatch.setattr(os, "link", full)
    path = tmp_path / "a.txt"
    atomic.write(path, b"old", replace=False)
    with pytest.raises(FileExistsError):
        atomic.write(path, b"new", replace=False)
    with pytest.raises(FileExistsError), atomic.open_for_writing(path, replace=False):
        pytest.fail("a name that is taken is said before anything is written")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_threads_that_write_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    contents = [bytes([k]) * 300_000 for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(pool.map(lambda content: atomic.write(path, content), contents * 5)) == [None] * 40
        )
        assert path.read_bytes() in contents
        assert os.listdir(tmp_path) == ["a.bin"]
        taken = list(pool.map(lambda content: _new(tmp_path / "b.bin", content), contents))
    assert sum(taken) == 1
    assert (tmp_path / "b.bin").read_bytes() == contents[taken.index(True)]


def _new(path: Path, content: bytes) -> bool:
    try:
        atomic.write(path, content, replace=False)
    except FileExistsError:
        return False
    return True


@pytest.mark.parametrize("replace", [True, False])
def test_places_that_cannot_be_written(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "deep" / ("z" * 300)):
        with refused(BadFile):
            atomic.write(path, b"1", replace)
    assert sorted(os.listdir(tmp_path)) == ["deep", "file"]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EBUSY]
)
def test_the_advice_fits_what_happened(number: int, tmp_path: Path) -> None:
    with refused(BadFile):
        raise atomic.write_error(tmp_path / "deep" / "a.txt", OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("/etc/passwd", "etc-passwd"),
        ("C:\\x\\y", "C-x-y"),
        ("a\0b", "a-b"),
        ("..hidden", "hidden"),
        ("a/../b", "a-..-b"),
        ("Moon 3.5 - größe", "Moon 3.5 - größe"),
        ("end. ", "end"),
        ("x" * 500, "x" * 120),
        ("é" * 100, "é" * 60),
        ('"><img src=x onerror=1>', "img src=x onerror=1"),
        ("a\n\tb", "a-b"),
        ("consul", "consul"),
        ("a" * 119 + "/b", "a" * 119),
        ("a\ud800b", "ab"),
    ],
)
def test_safe_name(name: str, safe: str) -> None:
    assert atomic.safe_name(name) == safe


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../..",
        "/",
        "\0",
        "CON",
        "con.txt",
        "nul .txt",
        "Lpt9.tar.gz",
        "aux.",
        "---",
        "\ud800",
    ],
)
def test_no_name_at_all(name: str) -> None:
    with refused(BadFile):
        atomic.safe_name(name)


@given(st.text(st.characters(), max_size=200))
@example("a" * 119 + "- b")
def test_a_safe_name_is_one_plain_file(name: str) -> None:
    try:
        safe = atomic.safe_name(name)
    except BadFile:
        return
    assert Path("/x", safe).resolve() == Path("/x") / safe
    assert len(safe.encode()) <= 120
    assert atomic.safe_name(safe) == safe  # so that what was saved under it is found under it


def test_inside(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    good, secret = folder / "a.png", tmp_path / "secret.png"
    good.write_bytes(b"1")
    secret.write_bytes(b"2")
    (folder / "link.png").symlink_to(secret)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (tmp_path / "outputs-2").mkdir()
    (tmp_path / "outputs-2" / "a.png").write_bytes(b"3")
    assert atomic.resolve_inside(folder, folder / ".." / "outputs" / "a.png") == good.resolve()
    for path in (
        secret,
        folder / ".." / "secret.png",
        folder / "link.png",
        folder / "loop.png",
        folder,
        folder / "none.png",
        tmp_path / "outputs-2" / "a.png",
        "a\0b",
        folder / "a.png\0",
        folder / ("x" * 5000),
        "",
        "/etc/passwd",
    ):
        with refused(BadFile):
            atomic.resolve_inside(folder, path)


def safetensors(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


GOOD = json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()


def test_a_safetensors_header(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors(GOOD, b"1234"))
    assert atomic.read_safetensors_header(tmp_path / "a.safetensors") == json.loads(GOOD)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"12345678",
        safetensors(GOOD)[:-5],
        safetensors(GOOD, length=2**63),
        safetensors(GOOD, length=0),
        safetensors(GOOD, length=atomic.MAX_HEADER_BYTES + 1),
        safetensors(b"no JSON at all"),
        safetensors(b"[1, 2]"),
        safetensors(b"\xff\xfe{}"),
        safetensors(b"7 "),
        safetensors(b"[" * 100_000),
        safetensors(json.dumps({f"{k}": {} for k in range(atomic.MAX_TENSORS + 1)}).encode()),
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x02}q\0." * 20,
    ],
    ids=lambda data: f"{data[:12]!r}… {len(data)}",
)
def test_no_safetensors(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with refused(BadFile):
        atomic.read_safetensors_header(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "make",
    [lambda path: None, Path.mkdir, lambda path: path.symlink_to(path)],
    ids=["nothing", "folder", "circle"],
)
def test_no_file(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "a.safetensors")
    with refused(BadFile):
        atomic.read_safetensors_header(tmp_path / "a.safetensors")


@given(st.binary(max_size=60) | st.binary(max_size=40).map(safetensors))
def test_never_anything_but_bad_file(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(data)
        try:
            header = atomic.read_safetensors_header(path)
        except BadFile:
            return
        assert isinstance(header, dict)
