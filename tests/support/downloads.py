"""What tests of downloads share: looks at a home, a stop on the way, the embedded model as a repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from studio.errors import Cancelled
from studio.settings import Settings
from studio.storage.downloads.placing import Placed
from support.models import POCKET
from support.sites import (
    make_weights,
)

Get = Callable[..., Placed]


def list_home(settings: Settings) -> list[str]:
    """The files of a home but the settings' own."""
    home = settings.home
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


def is_part(name: str) -> bool:
    return ".part/" in name


def stop_after(num_bytes: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        assert done <= total
        if done >= num_bytes:
            raise Cancelled

    return stop


def read_pocket() -> dict[str, bytes]:
    """The embedded model as a repository, with what real ones have beside."""
    files = {
        path.relative_to(POCKET).as_posix(): path.read_bytes()
        for path in POCKET.rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt")
    }
    others = {"README.md": b"# moon", "unet/diffusion_pytorch_model.bin": b"x", "LICENSE": b"MIT"}
    return files | others


def read_small_model(tmp_path: Path) -> dict[str, bytes]:
    """The same with hardly any weights: enough where nobody opens it."""
    few = make_weights(tmp_path)
    return {
        path: few if path.endswith(".safetensors") else data for path, data in read_pocket().items()
    }
