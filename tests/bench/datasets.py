"""Albums of growing size: opened, examined, paged, edited. Pictures are 512², JPEG with noise, each of another content."""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def datasets(flags: argparse.Namespace) -> None:
    """Scan, page and edit at each of `--pictures`."""
    for count in flags.pictures:
        with tempfile.TemporaryDirectory() as place:
            print(f"datasets: {count:,} pictures")
            _one(Path(place), count, flags.runs)


def _one(home: Path, count: int, runs: int) -> None:
    from studio.core.captions.edits import parse_edit
    from studio.core.captions.provenance import Writer
    from studio.settings import load
    from studio.storage.datasets.dataset import DatasetStore

    _fill(home / "datasets" / "many", count)
    settings = load(home=home, device="cpu")
    albums = DatasetStore(settings)
    _told("opened, never seen before", lambda: albums.open("many"), 1)
    _told("opened again by another process", lambda: DatasetStore(settings).open("many"), runs)
    album = albums.open("many")
    _told("every picture decoded and hashed", album.examine, 1)
    _told("a page of 60 in the middle", lambda: album.get_page(count // 2, 60), runs)
    _told(
        "the same, filtered by tag and tokens",
        lambda: album.get_page(count // 4, 60, "tag:lake tokens:>5 -7"),
        runs,
    )
    shown = [picture.key for picture in album.get_page(count // 2, 60).images]
    _told("its 60 thumbnails, the first time", lambda: album.make_thumbnails(shown), 1)
    _told("its 60 thumbnails again", lambda: album.make_thumbnails(shown), runs)
    _told("tags with counts", album.count_tags, runs)
    _told("lint", album.lint, runs)
    edit = parse_edit({"kind": "replace", "find": r"boat (\d)", "to": r"ship \1", "pattern": True})
    _told("a pattern over all, shown before", lambda: album.preview(edit), runs)
    _told("the same carried out, every caption", lambda: album.apply(edit), 1)
    _told("undone", album.undo, 1)
    key = album.images[0].key
    _told(
        "one caption written",
        lambda: album.write_captions({key: str(time.perf_counter())}, Writer()),
        runs,
    )


def _fill(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    out = io.BytesIO()
    Image.effect_noise((512, 512), 60).convert("RGB").save(out, "JPEG", quality=85)
    for k in range(count):
        (folder / f"{k:06}.jpg").write_bytes(out.getvalue() + str(k).encode())
        (folder / f"{k:06}.txt").write_text(f"a red boat {k % 7}, lake, tag {k % 50}, number {k}\n")


def _told(what: str, way: Callable[[], Any], runs: int) -> None:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        way()
        times.append((time.perf_counter() - began) * 1000)
    spread = f"  ({min(times):.1f} … {max(times):.1f}, {runs} runs)" if runs > 1 else ""
    print(f"  {what:38s} {statistics.median(times):10.1f} ms{spread}", flush=True)
