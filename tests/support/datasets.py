"""A folder with pictures and captions, and what lies in it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from studio.storage.datasets.dataset import Dataset


def picture(path: Path, size: tuple[int, int] = (80, 64), colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour % 256, colour // 256, 120)).save(path)
    return path


def held(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def said(album: Dataset) -> dict[str, str]:
    return {one.key: one.caption for one in album.images}
