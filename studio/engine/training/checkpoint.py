"""A training's state as files, and back.

Knows: what has to be kept so that a run that goes on is bit for bit one that was never stopped: the LoRA, the optimizer's memory,
how far it is (which decides batch, noise and rate), the loss's scale, steps left out. Does not know: how files become safe
(storage/training/checkpoints.py), how it trains.

Only safetensors and JSON: nothing in a checkpoint can carry a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed

from studio.engine.training import optim
from studio.engine.training.lora_export import Pair
from studio.engine.training.lora_network import NAME, pairs
from studio.engine.training.trainer import Pending, Trainer
from studio.errors import BadFile, StudioError
from studio.storage.training import checkpoints
from studio.storage.training.checkpoints import Checkpoint

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


class Keeper:
    """The checkpoints of one run. `identity` is a hash over all that decides its steps, `keep` how many stay (0 is all)."""

    def __init__(self, folder: Path, identity: str, keep: int) -> None:
        self.folder, self.identity, self.keep = folder, identity, keep
        self.at = -1  # the step that is saved already

    def save(self, trainer: Trainer) -> None:
        """Keep all there is, then let the oldest go. Raises BadFile when the disk does not take it."""
        if trainer.done == self.at:
            return
        tensors, numbers = optim.memory(trainer.optimizer)
        alphas = {
            f"{network}|{path}": layer.lora_alpha[NAME]
            for (network, path), layer in trainer.network.layers.items()
        }
        state = {
            "identity": self.identity,
            "done": trainer.done,
            "total": trainer.total,
            "skipped": sorted(trainer.skipped),
            "smoothed": trainer.smoothed,
            "scaler": trainer.scaler.state_dict(),
            "numbers": numbers,
            "alphas": alphas,
        }
        parts = {
            WEIGHTS: packed(_here(trainer.network.tensors())),
            OPTIMIZER: packed(_here(tensors)),
            STATE: json.dumps(state).encode(),
        }
        checkpoints.save(self.folder, trainer.done, parts)
        self.at = trainer.done
        checkpoints.prune(self.folder, self.keep)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest that is whole, and what is wrong with newer ones."""
        return checkpoints.newest(self.folder)

    def restore(self, trainer: Trainer, one: Checkpoint) -> None:
        """Put a trainer where it was. Raises BadFile, and StudioError for a checkpoint of another dataset or other settings."""
        parts = checkpoints.read(one)
        try:
            state = json.loads(parts[STATE])
            tensors, memory = unpacked(parts[WEIGHTS]), unpacked(parts[OPTIMIZER])
            done, skipped = int(state["done"]), {int(step) for step in state["skipped"]}
            smoothed, scale, numbers, identity = (
                float(state["smoothed"]),
                state["scaler"],
                state["numbers"],
                state["identity"],
            )
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BadFile(
                f"{one.path.name} cannot be read ({type(error).__name__}); begin anew."
            ) from None
        if identity != self.identity:
            raise StudioError(
                "The pictures, captions, model or settings are not those that this run was begun with, so it cannot "
                "go on from its checkpoint. Put them back, or begin it anew."
            )
        trainer.network.set(tensors)
        optim.remember(trainer.optimizer, memory, numbers)
        if trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(scale)
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.done, trainer.skipped, trainer.smoothed, trainer.pending = (
            done,
            skipped,
            smoothed,
            Pending(),
        )
        self.at = done


def layers(one: Checkpoint) -> dict[tuple[str, str], Pair]:
    """A checkpoint's LoRA as the exporter takes it. Raises BadFile."""
    parts = checkpoints.read(one)
    try:
        return pairs(unpacked(parts[WEIGHTS]), json.loads(parts[STATE])["alphas"])
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadFile(f"{one.path.name} cannot be read ({type(error).__name__}).") from None


def _here(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
