"""One file on its way: taken up where it stopped, counted, checked; whatever a site does, only what is right is kept."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.downloads.plan import RemoteFile
from studio.errors import BadFile, Cancelled, DiskError, DownloadError
from studio.storage.downloads import part_file
from studio.storage.downloads.network import LostConnection
from studio.storage.downloads.part_file import Transfer
from studio.storage.downloads.safe_http import MAX_TRIES, SafeClient
from studio.storage.downloads.site_rules import Request
from studio.storage.downloads.weights_gate import MAX_PICKLE_BYTES, WeightsGate
from support.sentences import refused
from support.sites import HUB, Asked, Sites, make_large_lora, make_weights, serve

pytestmark = pytest.mark.smoke
URL = f"https://{HUB}/x/moon.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_large_lora(tmp_path_factory.mktemp("weights"))


def transfer(
    sites: Sites,
    folder: Path,
    *,
    size: int | None = None,
    sha256: str = "",
    name: str = "moon.safetensors",
    **more: Any,
) -> Transfer:
    client = more.pop("client", None) or SafeClient(sites.network)
    url = more.pop("url", URL)
    file = RemoteFile(name, url, size, sha256)
    return Transfer(client, Request(url), file, folder / name, **more)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_whole_file(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)
    digest = hashlib.sha256(weights).hexdigest()
    counted: list[int] = []
    started: list[tuple[bytes, int]] = []
    run = transfer(
        sites,
        tmp_path,
        size=len(weights),
        sha256=digest.upper(),
        on_bytes=counted.append,
        on_start=lambda start, total: started.append((start, total)),
    )
    assert run.run() == digest
    assert (tmp_path / "moon.safetensors").read_bytes() == weights
    assert files_in(tmp_path) == ["moon.safetensors"]
    assert counted == sorted(counted)
    assert counted[-1] == len(weights)
    ((start, total),) = started
    (length,) = struct.unpack("<Q", weights[:8])
    assert (start, total) == (weights[: 8 + length], len(weights))


def test_a_connection_that_breaks_again_and_again(
    sites: Sites, tmp_path: Path, weights: bytes
) -> None:
    """Each goes on where the last one ended: nothing comes twice."""
    step = len(weights) // 20
    sites.put(URL, weights, cut=step)
    transfer(sites, tmp_path, sha256=hashlib.sha256(weights).hexdigest()).run()
    starts = [call.headers.get("Range") for call in sites.log]
    assert starts[:3] == [None, f"bytes={step}-", f"bytes={2 * step}-"]
    assert len(starts) == 21
    assert files_in(tmp_path) == ["moon.safetensors"]


def cut_after(sites: Sites, tmp_path: Path, weights: bytes, num_bytes: int) -> None:
    """Leave a part of so many bytes behind, as a stop does."""
    sites.put(URL, weights)

    def stop(done: int) -> None:
        if done >= num_bytes:
            raise Cancelled

    with pytest.raises(Cancelled):
        transfer(sites, tmp_path, on_bytes=stop).run()
    sites.log.clear()
    assert files_in(tmp_path) == ["moon.safetensors.part", "moon.safetensors.part.json"]


def test_a_stop_keeps_what_came_and_the_next_try_goes_on(
    sites: Sites, tmp_path: Path, weights: bytes
) -> None:
    cut_after(sites, tmp_path, weights, 300_000)
    there = (tmp_path / "moon.safetensors.part").stat().st_size
    assert 300_000 <= there < len(weights)
    digest = transfer(sites, tmp_path).run()
    assert [call.headers.get("Range") for call in sites.log] == [f"bytes={there}-"]
    assert (tmp_path / "moon.safetensors").read_bytes() == weights
    assert digest == hashlib.sha256(weights).hexdigest()


def test_a_file_that_changed_meanwhile_begins_anew(
    sites: Sites, tmp_path: Path, weights: bytes
) -> None:
    cut_after(sites, tmp_path, weights, 300_000)
    other = weights[:-100] + bytes(range(100))
    sites.put(URL, other)
    transfer(sites, tmp_path).run()
    assert sites.log[0].headers["Range"]
    assert (tmp_path / "moon.safetensors").read_bytes() == other


def test_a_part_of_another_announced_content_begins_anew(
    sites: Sites, tmp_path: Path, weights: bytes
) -> None:
    """Though the site marks both alike."""
    sites.put(URL, weights, etag='"same"')

    def stop(done: int) -> None:
        if done >= 300_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        transfer(sites, tmp_path, sha256="a" * 64, on_bytes=stop).run()
    other = weights[:-100] + bytes(range(100))
    sites.put(URL, other, etag='"same"')
    sites.log.clear()
    transfer(sites, tmp_path, sha256=hashlib.sha256(other).hexdigest()).run()
    assert [call.headers.get("Range") for call in sites.log] == [None]
    assert (tmp_path / "moon.safetensors").read_bytes() == other


def test_a_site_that_knows_no_ranges(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    cut_after(sites, tmp_path, weights, 300_000)
    sites.on(URL, lambda asked: asked.answer(200, weights))
    transfer(sites, tmp_path).run()
    assert (tmp_path / "moon.safetensors").read_bytes() == weights


@pytest.mark.parametrize("kind", ["another range", "no range", "416", "another total"])
def test_a_site_that_goes_on_wrongly_begins_anew(
    sites: Sites, tmp_path: Path, weights: bytes, kind: str
) -> None:
    cut_after(sites, tmp_path, weights, 300_000)

    def act(asked: Asked) -> None:
        if "Range" not in asked.headers:
            return serve(asked, weights, '"x"')
        if kind == "416":
            return asked.answer(416)
        said = {
            "another range": f"bytes 7-{len(weights) - 1}/{len(weights)}",
            "another total": f"bytes {asked.headers['Range'][6:]}9/{len(weights) + 1}",
            "no range": "",
        }[kind]
        return asked.answer(206, weights[7:], Content_Range=said)

    sites.on(URL, act)
    transfer(sites, tmp_path).run()
    assert (tmp_path / "moon.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    "state", [b"", b"[", b"[]", b"{}", b'{"url": 5}', b"[" * 9999, None], ids=range(7)
)
def test_a_part_of_which_nothing_is_known_begins_anew(
    sites: Sites, tmp_path: Path, weights: bytes, state: bytes | None
) -> None:
    sites.put(URL, weights)
    (tmp_path / "moon.safetensors.part").write_bytes(b"something else")
    if state is not None:
        (tmp_path / "moon.safetensors.part.json").write_bytes(state)
    transfer(sites, tmp_path).run()
    assert (tmp_path / "moon.safetensors").read_bytes() == weights


def test_a_part_that_is_whole_is_only_checked(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    cut_after(sites, tmp_path, weights, len(weights))
    digest = transfer(sites, tmp_path, client=SafeClient(sites.network)).run()
    assert digest == hashlib.sha256(weights).hexdigest()
    assert sites.log == []


def test_a_part_that_was_damaged_is_noticed(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)
    digest = hashlib.sha256(weights).hexdigest()

    def stop(done: int) -> None:
        if done >= 300_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        transfer(sites, tmp_path, sha256=digest, on_bytes=stop).run()
    part = tmp_path / "moon.safetensors.part"
    data = bytearray(part.read_bytes())
    data[-10] ^= 1
    part.write_bytes(data)
    with refused(BadFile):
        transfer(sites, tmp_path, sha256=digest).run()
    assert files_in(tmp_path) == []


def refuse(sites: Sites, folder: Path, error: type[Exception] = BadFile, **more: Any) -> None:
    """The file is refused in words, and nothing of it is kept."""
    with refused(error):
        transfer(sites, folder, **more).run()
    assert files_in(folder) == []


def test_another_content_than_announced(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)
    refuse(sites, tmp_path, sha256="0" * 64)


def test_another_size_than_announced(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)
    refuse(sites, tmp_path, size=len(weights) + 1)


def test_a_site_that_says_too_little_cuts_the_file(
    sites: Sites, tmp_path: Path, weights: bytes
) -> None:
    """The header of the weights says how long they are."""
    short = len(weights) - 1000
    sites.on(URL, lambda asked: asked.answer(200, weights, Content_Length=str(short)))
    refuse(sites, tmp_path)


def test_a_site_that_says_too_much_never_ends(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    """What it sends is less than what it says: tried again, then said; the part stays."""
    size = str(len(weights) + 1000)
    sites.on(URL, lambda asked: asked.answer(200, weights, Content_Length=size))
    refuse(sites, tmp_path)  # the header does not fit the size that was said


def test_a_site_that_hangs_up_at_once(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.on(URL, lambda asked: asked.answer(200, b"", Content_Length=str(len(weights))))
    with refused(LostConnection):
        transfer(sites, tmp_path).run()
    assert len(sites.log) == MAX_TRIES
    assert files_in(tmp_path) == []


def test_a_site_that_does_not_say_how_much(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    def endless(asked: Asked) -> None:
        asked.start(200, Transfer_Encoding="chunked")
        while True:
            asked.wfile.write(b"8\r\nxxxxxxxx\r\n")

    sites.on(URL, endless)
    refuse(sites, tmp_path, DownloadError)


def test_a_packed_file(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.on(URL, lambda asked: asked.answer(200, b"x" * 100, Content_Encoding="gzip"))
    refuse(sites, tmp_path, DownloadError)


def header_of(values: Any, data: int = 0) -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


TENSOR = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
NOT_WEIGHTS = {
    "page": b"<!DOCTYPE html><html><body>Log in</body></html>",
    "page with blanks": b"\n\n  <html><head><title>Log in first</title>",
    "json": b'{"error": "you have to log in"}',
    "pickle": b"\x80\x02}q\x00." + b"x" * 5000,
    "zip pickle": b"PK\x03\x04" + b"x" * 5000,
    "gguf": b"GGUF\x03\x00\x00\x00" + b"x" * 5000,
    "header bomb": struct.pack("<Q", 2**40) + b"{" + b" " * 5000,
    "header larger than the file": struct.pack("<Q", 30_000) + b"{" + b" " * 5000,
    "no json": header_of(b"x" * 50),
    "deep json": header_of(b"[" * 5000),
    "a list": header_of(b"[" + b" " * 50 + b"]"),
    "no offsets": header_of({"a": {"dtype": "F16"}}, 8),
    "offsets backwards": header_of({"a": TENSOR | {"data_offsets": [8, 0]}}, 8),
    "offsets of words": header_of({"a": TENSOR | {"data_offsets": ["0", "8"]}}, 8),
    "more data than listed": header_of({"a": TENSOR}, 800),
    "less data than listed": header_of({"a": TENSOR}, 4),
    "nothing": b"",
    "three bytes": b"abc",
}


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_what_is_no_file_of_weights(sites: Sites, tmp_path: Path, kind: str) -> None:
    sites.put(URL, NOT_WEIGHTS[kind])
    refuse(sites, tmp_path)


@given(st.sampled_from(sorted(NOT_WEIGHTS)), st.lists(st.integers(1, 600), max_size=40))
def test_the_verdict_does_not_depend_on_how_it_comes(kind: str, sizes: list[int]) -> None:
    """Sites send pieces of any size; the first byte may come alone."""

    def judge(data: bytes, pieces: list[int]) -> str:
        gate = WeightsGate("moon.safetensors", len(data))
        try:
            for size in [*pieces, len(data)]:
                piece, data = data[:size], data[size:]
                if piece:
                    gate.feed(piece)
        except BadFile as error:
            return str(error)
        return "open" if gate.is_open else "closed"

    good = header_of({"a": TENSOR}, 8)
    assert judge(good, sizes) == "open"
    whole = judge(NOT_WEIGHTS[kind], [])
    assert whole != "open"
    assert judge(NOT_WEIGHTS[kind], sizes) == whole


@pytest.mark.parametrize("kind", ["page", "pickle", "header bomb", "no json", "gguf"])
def test_the_rest_of_it_is_not_taken(sites: Sites, tmp_path: Path, kind: str) -> None:
    """It is refused by its beginning: the site gets rid of little of its gigabyte."""
    sent: list[int] = []

    def act(asked: Asked) -> None:
        asked.start(200, Content_Length=str(10**9))
        asked.wfile.write(NOT_WEIGHTS[kind])
        for _ in range(1000):
            asked.wfile.write(bytes(10**6))
            sent.append(1)

    sites.on(URL, act)
    with pytest.raises(BadFile):
        transfer(sites, tmp_path).run()
    assert len(sent) < 50
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("length", [0x3C, 0x7B, 0x50, 0x80, 0x4680, 0x7B3C])
def test_a_header_whose_length_looks_like_something_else(
    sites: Sites, tmp_path: Path, length: int
) -> None:
    """`<`, `{`, `P`, a pickle's first byte: the first byte of a length can be any."""
    text = json.dumps({"a": TENSOR}).encode()
    data = header_of(text.ljust(max(length, len(text))), 8)
    sites.put(URL, data)
    transfer(sites, tmp_path).run()
    assert (tmp_path / "moon.safetensors").read_bytes() == data


def test_a_pickle_by_its_name(sites: Sites, tmp_path: Path) -> None:
    url = f"https://{HUB}/x/net.pth"
    sites.put(url, NOT_WEIGHTS["zip pickle"])
    transfer(sites, tmp_path, url=url, name="net.pth").run()
    assert files_in(tmp_path) == ["net.pth"]


def test_weights_under_the_name_of_a_pickle(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)
    refuse(sites, tmp_path, name="net.pth")


def test_a_pickle_that_is_too_large(sites: Sites, tmp_path: Path) -> None:
    size = str(MAX_PICKLE_BYTES + 1)
    sites.on(URL, lambda asked: asked.answer(200, b"PK\x03\x04", Content_Length=size))
    refuse(sites, tmp_path, name="net.pth")


def test_a_refusal_by_what_the_header_says(sites: Sites, tmp_path: Path, weights: bytes) -> None:
    sites.put(URL, weights)

    def refuse_start(start: bytes, total: int) -> None:
        raise BadFile("It is not wanted.")

    with pytest.raises(BadFile):
        transfer(sites, tmp_path, on_start=refuse_start).run()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("free_bytes", [0, 10**9, 2 * 10**9, 2 * 10**9 + 50_000])
def test_a_disk_with_too_little_room(
    sites: Sites,
    tmp_path: Path,
    weights: bytes,
    monkeypatch: pytest.MonkeyPatch,
    free_bytes: int,
) -> None:
    sites.put(URL, weights)
    usage = SimpleNamespace(free=free_bytes)
    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda path: usage)
    with refused(DiskError):
        transfer(sites, tmp_path).run()
    assert files_in(tmp_path) == []


def test_a_text_needs_no_header_and_no_length_if_it_was_announced(
    sites: Sites, tmp_path: Path
) -> None:
    text = b'{"hidden_size": 8}'

    def chunked(asked: Asked) -> None:
        asked.start(200, Transfer_Encoding="chunked")
        asked.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))

    sites.on(URL, chunked)
    more: Any = {"name": "config.json", "is_weights": False}
    transfer(sites, tmp_path, size=len(text), **more).run()
    assert (tmp_path / "config.json").read_bytes() == text
    refuse(sites, tmp_path / "other", DownloadError, **more)
    sites.on(URL, lambda asked: asked.answer(200, text, Content_Length=str(10**9)))
    refuse(sites, tmp_path / "other", **more)


def test_small_weights_of_another_family(sites: Sites, tmp_path: Path) -> None:
    data = make_weights(tmp_path)
    sites.put(URL, data)
    transfer(sites, tmp_path).run()
    assert files_in(tmp_path) == ["moon.safetensors"]
