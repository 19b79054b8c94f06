"""Whole downloads into a home: where what lands, what goes on, and what stays after a failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.errors import BadFile, Busy, Cancelled, DiskError, DownloadError
from studio.settings import Settings
from studio.storage.downloads.fetching import RateMeter, download, part_folder
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from studio.storage.locks import Lock
from studio.storage.models.library import Library
from support.downloads import Get, is_part, list_home, read_small_model, stop_after
from support.sentences import refused
from support.sites import (
    OTHER,
    STORAGE,
    Sites,
    add_repository,
    make_weights,
)
from support.weights import CLIP, CROSS, SDXL, VAE_FILE, WHOLE, kohya_lora

LORA = f"https://{OTHER}/files/moon.safetensors"
EMBEDDING = {"emb_params": [4, 768]}
CONTROLNET = {"controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3]}


def test_a_lora_from_any_site(sites: Sites, get: Get, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    placed = get(LORA)
    assert (placed.name, placed.folder, placed.was_there) == ("moon", "loras", False)
    assert list_home(settings) == ["loras/moon.safetensors", "loras/moon.source.json"]
    assert placed.path.read_bytes() == lora
    card = json.loads((settings.loras / "moon.source.json").read_text())
    assert card["page"] == LORA
    assert card["files"][0]["sha256"] == hashlib.sha256(lora).hexdigest()
    assert [entry.name for entry in Library(settings).list_loras() if entry.name == "moon"]


@pytest.mark.parametrize(
    ("shapes", "folder"),
    [
        (kohya_lora(CROSS), "loras"),
        (SDXL | WHOLE | {CLIP: [9, 768]}, "models"),
        (VAE_FILE, "vae"),
        (EMBEDDING, "embeddings"),
    ],
)
def test_where_a_file_belongs_its_header_says(
    sites: Sites, get: Get, settings: Settings, tmp_path: Path, shapes: Any, folder: str
) -> None:
    sites.put(LORA, make_weights(tmp_path, shapes))
    assert get(LORA, name="it").path == settings.home / folder / "it.safetensors"


def test_a_kind_without_a_place_is_refused_by_its_header(
    sites: Sites, get: Get, settings: Settings, tmp_path: Path
) -> None:
    sites.put(LORA, make_weights(tmp_path, CONTROLNET))
    with refused(BadFile):
        get(LORA)
    assert list_home(settings) == []


def test_the_same_content_again_is_said_and_done(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    sites.put(LORA, lora)
    get(LORA)
    before = list_home(settings)
    assert get(LORA).was_there
    assert list_home(settings) == before


def test_another_content_of_that_name_is_not_overwritten(
    sites: Sites, get: Get, settings: Settings, lora: bytes, tmp_path: Path
) -> None:
    there = make_weights(tmp_path)
    (settings.loras / "deep").mkdir(parents=True)
    (settings.loras / "deep/Moon.safetensors").write_bytes(there)
    sites.put(LORA, lora)
    with refused(BadFile):
        get(LORA)
    assert list_home(settings) == ["loras/deep/Moon.safetensors"]
    assert get(LORA, name="moon-2").name == "moon-2"
    assert (settings.loras / "deep/Moon.safetensors").read_bytes() == there


def test_an_address_without_a_name(sites: Sites, get: Get, lora: bytes) -> None:
    sites.put(f"https://{OTHER}/download", lora)
    assert get(f"https://{OTHER}/download?id=7").path.name == "download.safetensors"


@pytest.mark.parametrize(
    "path", ["moon.gguf", "moon.ckpt", "moon.zip", "moon.exe", "moon.pkl", "page.html"]
)
def test_what_its_name_says_is_refused_before_anybody_is_asked(
    sites: Sites, get: Get, path: str
) -> None:
    with refused(BadFile):
        get(f"https://{OTHER}/{path}")
    assert sites.log == []


@pytest.mark.parametrize("name", ["../../evil", "a/b", "con", "..", "\x00", " "])
def test_names_stay_in_their_folder(
    sites: Sites, get: Get, settings: Settings, lora: bytes, name: str
) -> None:
    sites.put(LORA, lora)
    try:
        placed = get(LORA, name=name)
    except BadFile:
        assert list_home(settings) == []
    else:
        assert placed.path.parent == settings.loras


def test_a_site_that_was_not_confirmed(sites: Sites, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    client = SafeClient(sites.network)
    plan = look_up(client, DownloadSpec(link=LORA))
    assert not plan.is_known_host
    with refused(DownloadError):
        download(settings, plan, client)
    assert sites.log == []
    assert list_home(settings) == []


def test_a_stopped_download_goes_on_also_under_another_name(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    sites.put(LORA, lora)
    with pytest.raises(Cancelled):
        get(LORA, stop_after(300_000))
    assert all(is_part(name) for name in list_home(settings))
    sites.log.clear()
    placed = get(LORA, name="silver")
    assert [call.headers.get("Range", "")[:6] for call in sites.log] == ["bytes="]
    assert placed.path.read_bytes() == lora
    assert not any(is_part(name) for name in list_home(settings))


@pytest.mark.slow
def test_two_at_once(sites: Sites, get: Get, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    plan = look_up(SafeClient(sites.network), DownloadSpec(link=LORA))
    folder = part_folder(settings, plan)
    folder.mkdir(parents=True)
    lock = Lock(folder, "download")
    assert lock.acquire()
    with refused(Busy):
        get(LORA)
    assert folder.is_dir()  # the other one is just about to write there
    lock.close()
    assert get(LORA).name == "moon"


def list_faults(sites: Sites, data: bytes) -> Iterator[str]:
    """Do one thing after the other to a file on a site."""
    half = len(data) // 2
    yield "404"
    sites.put(LORA, data[:half])
    yield "cut in the middle"
    sites.put(LORA, b"<html>log in</html>")
    yield "a page"
    sites.on(LORA, lambda asked: asked.answer(503))
    yield "503"
    sites.on(LORA, lambda asked: asked.answer(200, data[:half], Content_Length=str(len(data))))
    yield "hangs up"
    sites.redirect(LORA, "https://127.0.0.1/")
    yield "a redirect to this machine"
    sites.redirect(LORA, LORA)
    yield "a circle"
    sites.on(LORA, lambda asked: asked.wfile.write(b"nonsense"))
    yield "no HTTP"
    sites.on(LORA, lambda asked: asked.answer(200, data, Content_Encoding="gzip"))
    yield "packed"
    sites.put(LORA, b"\x80\x02}." * 99)
    yield "a pickle"


def test_after_any_failure_the_home_has_nothing_new_but_parts(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    (settings.loras).mkdir(parents=True, exist_ok=True)
    before = list_home(settings)
    kinds = 0
    for fault in list_faults(sites, lora):
        kinds += 1
        with pytest.raises((BadFile, DownloadError)):
            get(LORA)
        new = set(list_home(settings)) - set(before)
        assert all(is_part(name) for name in new), (fault, new)
    assert kinds == 10
    sites.put(LORA, lora)
    assert get(LORA).path.read_bytes() == lora
    assert list_home(settings) == ["loras/moon.safetensors", "loras/moon.source.json"]


def test_a_model_that_does_not_fit_the_disk_is_not_begun(
    sites: Sites,
    get: Get,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_repository(sites, "ann/tiny", read_small_model(tmp_path))
    monkeypatch.setattr("studio.storage.downloads.part_file.RESERVED_DISK_BYTES", 2**60)
    with pytest.raises(DiskError):
        get("ann/tiny")
    assert sites.calls_of(STORAGE) == []
    assert list_home(settings) == []


def test_the_rate_of_the_last_seconds() -> None:
    now = [0.0]
    meter = RateMeter(clock=lambda: now[0])
    assert meter.add(0) == 0
    for second in range(1, 30):
        now[0] = second
        rate = meter.add(1000 * second if second < 15 else 15_000)
    assert rate == 0
    now[0] += 1
    assert meter.add(15_800) > 0
