"""A training's state as files, and back.

Knows: what has to be saved so that a resumed run is one that was never stopped (on a CPU bit for
bit, on a GPU up to rounding): the LoRA, the optimizer's state, the number of steps (which decides
batch, noise and rate), the loss scale, the skipped steps.
Does not know: how files are written safely (storage/training/checkpoints.py), how a step is taken.

Only safetensors and JSON: nothing in a checkpoint can carry a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize

from studio.engine.training import optim
from studio.engine.training.lora_export import AdapterTensors
from studio.engine.training.lora_network import build_layers
from studio.engine.training.trainer import PendingSteps, Trainer
from studio.errors import BadFile, StudioError
from studio.storage.training import checkpoints
from studio.storage.training.checkpoints import Checkpoint

WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


class CheckpointManager:
    """The checkpoints of one run.

    `identity` is a hash over everything that decides the run's steps, `total_limit` the number of
    checkpoints that are kept (0 is all).
    """

    def __init__(self, folder: Path, identity: str, total_limit: int) -> None:
        self.folder = folder
        self.identity = identity
        self.total_limit = total_limit
        self.saved_step = -1  # the step that was saved last

    def save(self, trainer: Trainer) -> None:
        """Save the trainer's state, then delete the oldest checkpoints beyond the limit.

        Raises BadFile if the disk refuses it.
        """
        if trainer.global_step == self.saved_step:
            return
        optimizer_tensors, optimizer_scalars = optim.get_state(trainer.optimizer)
        state = {
            "identity": self.identity,
            "done": trainer.global_step,
            "total": trainer.total_steps,
            "skipped": sorted(trainer.skipped_steps),
            "smoothed": trainer.smoothed_loss,
            "scaler": trainer.scaler.state_dict(),
            "numbers": optimizer_scalars,
            "alphas": trainer.network.alphas,
        }
        files = {
            WEIGHTS_FILE: serialize(_to_cpu(trainer.network.state_dict())),
            OPTIMIZER_FILE: serialize(_to_cpu(optimizer_tensors)),
            STATE_FILE: json.dumps(state).encode(),
        }
        checkpoints.save(self.folder, trainer.global_step, files)
        self.saved_step = trainer.global_step
        checkpoints.prune(self.folder, self.total_limit)

    def find_newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest intact checkpoint, and the faults of newer ones."""
        return checkpoints.find_newest(self.folder)

    def restore(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """Put a trainer into the state of a checkpoint.

        Raises:
            BadFile: If the checkpoint cannot be read.
            StudioError: If it belongs to another dataset or other settings.
        """
        files = checkpoints.read_files(checkpoint)
        try:
            state = json.loads(files[STATE_FILE])
            weights = deserialize(files[WEIGHTS_FILE])
            optimizer_tensors = deserialize(files[OPTIMIZER_FILE])
            optimizer_scalars = state["numbers"]
            global_step = int(state["done"])
            skipped_steps = {int(step) for step in state["skipped"]}
            smoothed_loss = float(state["smoothed"])
            scaler_state = state["scaler"]
            identity = state["identity"]
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BadFile(
                f"{checkpoint.path.name} cannot be read ({type(error).__name__}); restart the run."
            ) from None
        if identity != self.identity:
            raise StudioError(
                "The images, captions, model or settings have changed since this run started, so "
                "it cannot resume from its checkpoint. Restore them, or restart the run."
            )
        trainer.network.load_state_dict(weights)
        optim.load_state(trainer.optimizer, optimizer_tensors, optimizer_scalars)
        if trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(scaler_state)
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.global_step = global_step
        trainer.skipped_steps = skipped_steps
        trainer.smoothed_loss = smoothed_loss
        trainer.pending = PendingSteps()
        self.saved_step = global_step


def load_layers(checkpoint: Checkpoint) -> dict[tuple[str, str], AdapterTensors]:
    """Load a checkpoint's LoRA in the form that the exporter takes. Raises BadFile."""
    files = checkpoints.read_files(checkpoint)
    try:
        alphas = json.loads(files[STATE_FILE])["alphas"]
        return build_layers(deserialize(files[WEIGHTS_FILE]), alphas)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadFile(f"{checkpoint.path.name} cannot be read ({type(error).__name__}).") from None


def _to_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
