"""What headers said is remembered, also for the next process; a list does not wait for the first look."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import BadFile
from studio.settings import load
from studio.storage.models import header_index, model_file
from studio.storage.models.folder_scan import read_stamp, scan_folder
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.library import Library
from studio.storage.models.lora_file import LoraInfo, read_lora_info
from support.weights import CROSS, SDXL, VAE_FILE, WHOLE, kohya_lora, write_weights

pytestmark = pytest.mark.smoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_weights(tmp_path / "files/ink.safetensors", kohya_lora(CROSS), metadata={"x": "y"})
    write_weights(tmp_path / "files/big.safetensors", SDXL | WHOLE)
    write_weights(tmp_path / "files/deep/vae.safetensors", VAE_FILE)
    return tmp_path / "files"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers are read."""
    names: list[str] = []
    read = model_file.identify_file

    def identify(path: Path) -> model_file.ModelFile:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(model_file, "identify_file", identify)
    return names


def fill(index: HeaderIndex, folder: Path) -> None:
    index.select_read(scan_folder(folder).files)
    index.save(force=True)


def test_the_next_process_reads_no_header(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    first = HeaderIndex(tmp_path / "cache.json")
    fill(first, folder)
    assert sorted(reads) == ["big.safetensors", "ink.safetensors", "vae.safetensors"]
    reads.clear()
    second = HeaderIndex(tmp_path / "cache.json")
    for file in scan_folder(folder).files:
        remembered = second.read_scanned(file).model_file
        assert remembered == replace(first.identify(file.path), metadata={})
    lora = second.read_lora(folder / "ink.safetensors")
    assert lora == read_lora_info(folder / "ink.safetensors")
    assert reads == []


def test_what_changed_is_read_again(folder: Path, tmp_path: Path) -> None:
    fill(HeaderIndex(tmp_path / "cache.json"), folder)
    write_weights(folder / "ink.safetensors", kohya_lora(CROSS, rank=8))
    index = HeaderIndex(tmp_path / "cache.json")
    lora = index.read_lora(folder / "ink.safetensors")
    assert isinstance(lora, LoraInfo)
    assert lora.rank == 8


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": "x"}', b"\xff" * 100, b'{"version": 3, "files": 3}']
)
def test_a_broken_cache_is_read_anew(data: bytes, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_bytes(data)
    index = HeaderIndex(tmp_path / "cache.json")
    fill(index, folder)
    assert index.identify(folder / "big.safetensors").kind == "checkpoint"
    other = HeaderIndex(tmp_path / "cache.json")
    assert other.find_facts(folder / "big.safetensors") is not None


def test_wrong_entries_of_the_right_version_are_read_anew(folder: Path, tmp_path: Path) -> None:
    fill(HeaderIndex(tmp_path / "cache.json"), folder)
    text = (tmp_path / "cache.json").read_text().replace('"contents"', '"other"')
    (tmp_path / "cache.json").write_text(text)
    assert HeaderIndex(tmp_path / "cache.json").identify(folder / "ink.safetensors").kind == "lora"


def test_two_processes_keep_what_each_has_read(folder: Path, tmp_path: Path) -> None:
    first, second = (HeaderIndex(tmp_path / "cache.json") for _ in range(2))
    first.identify(folder / "big.safetensors")
    second.identify(folder / "ink.safetensors")
    first.save(force=True)
    second.save(force=True)
    third = HeaderIndex(tmp_path / "cache.json")
    assert third.find_facts(folder / "big.safetensors")
    assert third.find_facts(folder / "ink.safetensors")


def test_many_at_once(folder: Path, tmp_path: Path) -> None:
    index = HeaderIndex(tmp_path / "cache.json")
    threads = [threading.Thread(target=fill, args=(index, folder)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert HeaderIndex(tmp_path / "cache.json").find_facts(folder / "ink.safetensors")


def test_a_stamp_is_the_same_from_both_looks(folder: Path) -> None:
    for name in ("ink.json", "ink.civitai.info", "adapter_config.json"):
        (folder / name).write_text("{}")
    os.rename(folder / "big.safetensors", folder / "adapter_model.safetensors")
    for file in scan_folder(folder).files:
        assert read_stamp(file.path) == file.stamp


def test_a_list_does_not_wait_for_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is read behind it, and the list fills; asking for one by name reads that one."""
    monkeypatch.setattr(header_index, "PATIENCE_SECONDS", 0.05)
    library = Library(load(home=tmp_path / "home", device="cpu"))
    vaes = tmp_path / "home/vae"
    for number in range(30):
        write_weights(vaes / f"x{number:02}.safetensors", VAE_FILE)
    gate = threading.Event()
    read = model_file.identify_file

    def identify(path: Path) -> model_file.ModelFile:
        if threading.current_thread() is not threading.main_thread():
            gate.wait(20)
        else:
            time.sleep(0.02)
        return read(path)

    monkeypatch.setattr(model_file, "identify_file", identify)
    library.shelf.index.read_in_background()
    begin = time.monotonic()
    few = library.shelf.list_files("vae")
    assert time.monotonic() - begin < 2
    assert 0 < len(few) < 30
    assert library.shelf.index.num_waiting == 30 - len(few)
    assert library.shelf.get_file("vae", "x29").name == "x29"
    gate.set()
    deadline = time.monotonic() + 20
    while len(library.shelf.list_files("vae")) < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(library.shelf.list_files("vae")) == 30
    assert library.shelf.index.num_waiting == 0


def test_what_cannot_be_read_does_not_keep_the_list_waiting(folder: Path) -> None:
    index = HeaderIndex()
    index.read_in_background()
    (folder / "dead.safetensors").symlink_to(folder / "nowhere")
    files = scan_folder(folder).files
    assert len(index.select_read(files)) == 4
    assert len(index.select_read(files)) == 4
    with pytest.raises(BadFile):
        index.read_scanned(files[1])
