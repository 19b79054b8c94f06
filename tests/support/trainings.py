"""What tests of training share: a home with tiny models and four pictures of the Moon, and quick runs on it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.core.base import validate
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.models import loaded_model
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.training import prepare
from studio.engine.training.data_loader import BatchLoader
from studio.engine.training.job import train
from studio.engine.training.latent_cache import TensorCache
from studio.engine.training.lora_network import LoraNetwork
from studio.engine.training.trainer import Trainer
from studio.settings import shipped
from studio.storage.jobs import Progress
from support.models import make_toy

QUICK: dict[str, Any] = {
    "model": "tiny",
    "dataset": "small",
    "name": "moon",
    "steps": 4,
    "train_batch_size": 2,
    "rank": 2,
    "resolution": 64,
    "learning_rate": 1e-2,
    "seed": 7,
}


def silent(progress: Progress) -> None:
    """A report that nobody hears."""


def make_home(home: Path) -> Path:
    """tiny (SD 1.x), tiny-v (the same, v-prediction), toy-sdxl; the dataset small, and other with other pictures."""
    make_toy(home / "models" / "tiny", "StableDiffusionPipeline", 32, "epsilon")
    make_toy(home / "models" / "tiny-v", "StableDiffusionPipeline", 32, "v_prediction")
    make_toy(home / "models" / "toy-sdxl", "StableDiffusionXLPipeline", 32)
    make_small_dataset(home)
    make_small_dataset(home, "other", 4)
    return home


def make_small_dataset(home: Path, name: str = "small", first: int = 0) -> None:
    """Four pictures of the Moon with their captions."""
    folder = home / "datasets" / name
    folder.mkdir(parents=True)
    for k in range(first, first + 4):
        for ending in ("png", "txt"):
            shutil.copy(shipped("assets") / "datasets" / "moon" / f"{k:03}.{ending}", folder)


def hasten(patch: pytest.MonkeyPatch) -> None:
    """Each model is read from its folder once and copied from then on, and one step is tried before a run instead of three."""
    real, known = loaded_model.load_model, dict[tuple[Any, ...], LoadedModel]()

    def load(info: Any, content: str, device: Any) -> LoadedModel:
        if (info.path, device) not in known:
            known[info.path, device] = real(info, content, device)
        return replace(copy.deepcopy(known[info.path, device]), info=info, content_hash=content)

    patch.setattr(loaded_model, "load_model", load)
    patch.setattr("studio.engine.training.memory_probe.MAX_TIMED_STEPS", 1)


def add(bench: WorkerContext, **values: Any) -> str:
    """Store a quick run with some values changed."""
    return bench.home.runs.add(validate(TrainingConfig, QUICK | values), "ann")


def trained(
    bench: WorkerContext, report: Callable[[Progress], None] = silent, **values: Any
) -> dict[str, torch.Tensor]:
    """The numbers of the file that a quick run writes, in float32."""
    return weights(
        bench,
        train(bench, {"run": add(bench, **{"save_precision": "float32"} | values)}, report)["lora"],
    )


def make_trainer(bench: WorkerContext, fresh: bool = False, **values: Any) -> Trainer:
    """A trainer on a model of its own; unless it is fresh, all of its LoRA has numbers, so that all has gradients."""
    found = prepare.prepare_training(bench, validate(TrainingConfig, QUICK | values), silent)
    own = LoraNetwork(
        loaded_model.load_model(found.model_info, "", found.device),
        found.config,
        found.target_modules,
    )
    data = BatchLoader(found.plan, TensorCache(), own.model, not own.trains_text_encoder)
    data.fill_cache(own.model)
    if not fresh:
        chance = torch.Generator().manual_seed(3)
        numbers = {}
        for name, tensor in own.state_dict().items():
            noise = 0.1 * torch.randn(tensor.shape, generator=chance)
            numbers[name] = tensor * (1 + noise) if name.endswith("dora_scale") else noise
        own.load_state_dict(numbers)
    return Trainer(own, data, found.config, found.total_steps)


def weights(bench: WorkerContext, name: str) -> dict[str, torch.Tensor]:
    """The numbers in a LoRA file of the library."""
    return load_file(bench.settings.loras / f"{name}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
