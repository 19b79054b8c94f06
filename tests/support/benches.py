"""A home with its models open, as a worker has it."""

from __future__ import annotations

from pathlib import Path

from studio.engine.context import WorkerContext
from studio.settings import load


def open_bench(home: Path) -> WorkerContext:
    """On the CPU in float32."""
    return WorkerContext.open(
        load(home=home, device="cpu", precision="float32", keep_free=0, preview_every=0)
    )


def open_toy_bench(home: Path, toys: Path) -> WorkerContext:
    """One that finds pocket and the toys."""
    (home / "models").mkdir(exist_ok=True)
    for toy in toys.iterdir():
        (home / "models" / toy.name).symlink_to(toy)
    return open_bench(home)
