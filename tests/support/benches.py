"""A home with its models open, as a worker has it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from studio.engine.context import WorkerContext
from studio.engine.models.loaded_model import LoadedModel
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


def read_parts_once(patch: pytest.MonkeyPatch) -> None:
    """Each part of a model is read from its folder once, and copied for every bench from then on."""
    read = LoadedModel.load_part
    known: dict[tuple[Any, ...], Any] = {}

    def load_part(model: LoadedModel, name: str) -> Any:
        vae = model.vae_info and model.vae_info.path
        key = (model.info.path, vae, name, model.get_reading_device(name))
        if key not in known:
            known[key] = read(model, name)
        return copy.deepcopy(known[key])

    patch.setattr(LoadedModel, "load_part", load_part)
