"""Files that are not what they should be, made from a good one or from nothing: for tests that look at every list of a home."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MakeBad = Callable[[Path, bytes], object]  # where it comes, and what a good one has in it


def cut(share: float) -> MakeBad:
    return lambda path, good: path.write_bytes(good[: int(len(good) * share)])


def text(value: str | bytes) -> MakeBad:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return lambda path, good: path.write_bytes(data)


def make_socket(path: Path, good: bytes) -> None:
    """Bind a socket; its name has to be short, so that of the folder's descriptor is used."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def flip(path: Path, good: bytes) -> None:
    data = bytearray(good)
    generator = random.Random(len(good))
    for _ in range(max(1, len(data) // 50)):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


# What lies there is no regular file.
NO_FILES: dict[str, MakeBad] = {
    "a folder": lambda path, good: path.mkdir(),
    "a pipe": lambda path, good: os.mkfifo(path),
    "a socket": make_socket,
    "a device": lambda path, good: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path, good: path.symlink_to(path.parent / "nowhere"),
    "a link in a circle": lambda path, good: path.symlink_to(path),
}
# No settings, no weights and no image is in any of these.
NO_CONTENT: dict[str, MakeBad] = {
    "empty": text(b""),
    "one byte": text(b"{"),
    "cut at 1/4": cut(0.25),
    "cut at 1/2": cut(0.5),
    "random": lambda path, good: path.write_bytes(random.Random(1).randbytes(5000)),
    "a web page": text("<!doctype html><html><body>Please log in</body></html>"),
    "deep lists": text("[" * 200_000),
    "deep objects": text('{"a":' * 100_000),
    "NUL": text(b"\0" * 4096),
    "not UTF-8": text(b'{"a": "\xff\xfe\xfa"}'),
    "UTF-16": text('{"a": 1}'.encode("utf-16")),
    "half a surrogate": text('{"a": "\ud800"}'),
    "a long line": text("x" * 1_000_000),
    "a pickle": text(b"\x80\x04\x95" + b"x" * 500),
    "a zip": text(b"PK\x03\x04" + b"x" * 500),
    "a number": text("7"),
    "NaN": text("NaN"),
    "a huge number": text("9" * 5000),
    "infinity": text("1e999"),
    "null": text("null"),
    "a list": text("[1, 2, 3]"),
    "a text": text('"text"'),
    "an object of odd values": text(
        '{"config": [], "created": "x", "owner": 7, "model_type": {}, "_class_name": [1], "a": 1e999}'
    ),
}
# These may still be good.
DOUBTFUL: dict[str, MakeBad] = {
    "cut before the last byte": lambda path, good: path.write_bytes(good[:-1]),
    "flipped bits": flip,
    "twice": lambda path, good: path.write_bytes(good + good),
}
BAD_FILES = NO_FILES | NO_CONTENT | DOUBTFUL


def clear(path: Path) -> None:
    """Remove whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    with suppress(FileNotFoundError):
        path.unlink()
