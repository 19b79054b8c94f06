"""What captioners said and CLIP saw is remembered: whole lines only, and what is broken is made again or named."""

from __future__ import annotations

import threading
from pathlib import Path

from studio.storage.content_hashes import ContentHashes
from studio.storage.datasets.caption_cache import CaptionCache
from studio.storage.datasets.embedding_cache import QUERY_BATCH_SIZE, EmbeddingCache


def test_a_line_that_a_kill_cut_off_costs_that_line_alone(tmp_path: Path) -> None:
    answers = CaptionCache(tmp_path, "key")
    assert answers.read_all() == {}
    answers.add({"a": "a boat", "b": 'with "quotes"\nand é'})
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-6])
    assert answers.read_all() == {"a": "a boat"}
    answers.add({"c": "a cat"})
    answers.add({"a": "a red boat"})
    assert answers.read_all() == {"a": "a red boat", "c": "a cat"}
    file.write_bytes(file.read_bytes() + b'[1, 2]\n{"x": 3}\n["d"]\n\xff\n')
    assert answers.read_all() == {"a": "a red boat", "c": "a cat"}
    assert CaptionCache(tmp_path, "other").read_all() == {}


def test_many_threads_keep_whole_lines(tmp_path: Path) -> None:
    answers = CaptionCache(tmp_path, "key")
    threads = [
        threading.Thread(
            target=lambda k=k: [answers.add({f"{k} {n}": "x" * 500}) for n in range(5)]
        )
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers.read_all()) == 40


def test_vectors_by_whom_and_of_what(tmp_path: Path) -> None:
    memory = EmbeddingCache(tmp_path)
    many = {f"{k:04}": bytes([k % 256]) for k in range(2 * QUERY_BATCH_SIZE + 3)}
    memory.put("clip", many)
    memory.put("other", {"0001": b"mine"})
    assert memory.get("clip", many) == many
    assert memory.get("other", many) == {"0001": b"mine"}
    assert memory.get("clip", []) == {}
    memory.put("clip", {"0001": b"new"})
    assert EmbeddingCache(tmp_path).get("clip", ["0001", "9999", "0001"]) == {"0001": b"new"}
    memory.close()
    for path in (tmp_path / "cache").glob("vectors*"):
        path.unlink()
    (tmp_path / "cache" / "vectors.sqlite").write_bytes(b"no table" * 200)
    assert EmbeddingCache(tmp_path).get("clip", ["0001"]) == {}


def test_a_hash_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    folder, hashes = tmp_path / "model", ContentHashes(tmp_path)
    folder.mkdir()
    parts = [folder / "a.json", folder / "b.json"]
    for path in parts:
        path.write_text(path.name)
    assert hashes.get_hash(folder, parts, folder, compute=False) == ""
    first = hashes.get_hash(folder, parts, folder)
    assert ContentHashes(tmp_path).get_hash(folder, parts, folder, compute=False) == first
    parts[1].write_text("other")
    assert hashes.get_hash(folder, parts, folder, compute=False) == ""
    assert hashes.get_hash(folder, parts, folder) != first
    (tmp_path / "hashes.json").write_text("{")
    assert len(hashes.get_hash(folder, parts, folder)) == 64
