"""Trajectories together: one U-Net call after the other, refilled whenever a trajectory ends.

Knows: which trajectories may share a call, which row belongs to which, what to do when memory does
not suffice. Does not know: prompts, files, pixels, what the trajectories are for.

A U-Net takes a timestep, a prompt and (in plain LoRA layers) a weight per row, so trajectories with
different schedulers, steps, guidance, seeds and LoRA weights go together. A single one is bit for
bit the stock pipeline's image; several differ by rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from studio.engine.generation.trajectory import ModelInput, Prediction, Trajectory
from studio.engine.models.adapters import lora
from studio.engine.models.families import LoadedModel
from studio.errors import StudioError


def batch_key(trajectory: Trajectory) -> tuple[Any, ...]:
    """Return what has to be equal for two trajectories on one U-Net to share its calls.

    These are the shape of the latents, the length of the prompts, the names of the added
    conditioning and the set of LoRAs (plain ones of any weight; the library refuses all other
    kinds). Number format and count of input channels are the U-Net's.
    """
    return (
        trajectory.latent_shape,
        trajectory.conditioning.positive.shape[1],
        tuple(sorted(trajectory.added_cond_kwargs[1])),
        lora.get_batching_key(trajectory.active_adapters),
    )


@dataclass(eq=False)
class _ActiveTrajectory:
    """A trajectory that has begun, and what it asks the U-Net now."""

    trajectory: Trajectory
    coroutine: Any  # of the trajectory's `run`
    model_input: ModelInput
    seconds: float = 0.0

    @property
    def branches(self) -> int:
        return self.trajectory.branches


class Batcher:
    """One U-Net and the trajectories that share its calls.

    `calls` and `rows` count what the U-Net did; `max_batch` shrinks when memory does not suffice.
    """

    def __init__(self, model: LoadedModel, max_batch: int = 1) -> None:
        """Prepare a batcher in which at most `max_batch` trajectories share a call."""
        self.model = model
        self.max_batch = max_batch
        self.calls = 0
        self.rows = 0
        # The conditioning of the last call, and the batch it was collated for.
        self._batch: list[_ActiveTrajectory] = []
        self._conditioning: dict[str, Any] = {}

    def denoise(
        self, trajectories: Iterable[Trajectory], on_call: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[Trajectory, torch.Tensor | StudioError, float]]:
        """Run trajectories to their end; yield each as soon as it ends.

        Args:
            trajectories: Taken in turn, the next when there is room.
            on_call: Called after each U-Net call; what it raises ends everything.

        Yields:
            The trajectory; its latents (1, channels, rows, columns) or why there are none; its
            share of the seconds.

        Raises:
            torch.OutOfMemoryError: Not even a single one fits.
        """
        queue = iter(trajectories)
        upcoming = next(queue, None)
        running: list[_ActiveTrajectory] = []
        while running or upcoming is not None:
            while upcoming is not None and self._has_room(running, upcoming):
                running.append(_start(upcoming))
                upcoming = next(queue, None)
            start_time = time.perf_counter()
            batch = running[: self.max_batch]
            predictions = self._predict(batch)
            if predictions is None:
                # Memory did not suffice: those that no longer fit wait, and lose nothing.
                self.model.device.empty_cache()
                self.max_batch = len(batch) // 2
                continue
            results = _send_predictions(batch, predictions)
            seconds = time.perf_counter() - start_time
            num_rows = sum(active.branches for active in batch)
            for active in batch:
                active.seconds += seconds * active.branches / num_rows
            running = [active for active in running if active not in results]
            on_call()
            for active, latents in results.items():
                yield active.trajectory, latents, active.seconds

    def _has_room(self, running: Sequence[_ActiveTrajectory], upcoming: Trajectory) -> bool:
        if len(running) >= self.max_batch:
            return False
        return not running or batch_key(running[0].trajectory) == batch_key(upcoming)

    @torch.inference_mode()
    def _predict(self, batch: list[_ActiveTrajectory]) -> list[Prediction] | None:
        """Call the U-Net once for a whole batch; None if memory does not suffice for so many."""
        if self._batch != batch:  # otherwise the conditioning is the last call's
            self._conditioning = _collate_conditioning([active.trajectory for active in batch])
            self._batch = batch
        rows = [active for active in batch for _ in range(active.branches)]
        adapters = lora.merge_row_adapters([row.trajectory.active_adapters for row in rows])
        lora.set_adapters(self.model, adapters)
        latents = torch.cat([row.model_input.latents for row in rows])
        # One transfer for all rows.
        timesteps = torch.tensor([float(row.model_input.timestep) for row in rows])
        timesteps = timesteps.to(self.model.device.torch_device)
        try:
            outputs = self.model.unet(latents, timesteps, return_dict=False, **self._conditioning)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            return None
        self.calls += 1
        self.rows += len(rows)
        output_rows = iter(outputs[0].split(1))
        predictions: list[Prediction] = []
        for active in batch:
            negative = next(output_rows) if active.branches == 2 else None
            predictions.append((negative, next(output_rows)))
        return predictions


@torch.inference_mode()
def _start(trajectory: Trajectory) -> _ActiveTrajectory:
    coroutine = trajectory.run()
    return _ActiveTrajectory(trajectory, coroutine, next(coroutine))


@torch.inference_mode()
def _send_predictions(
    batch: list[_ActiveTrajectory], predictions: list[Prediction]
) -> dict[_ActiveTrajectory, torch.Tensor | StudioError]:
    """Send each trajectory its prediction; return the latents or errors of those that end."""
    results: dict[_ActiveTrajectory, torch.Tensor | StudioError] = {}
    for active, prediction in zip(batch, predictions, strict=True):
        try:
            active.model_input = active.coroutine.send(prediction)
        except StopIteration as end:
            results[active] = end.value
        except StudioError as error:
            results[active] = error
    return results


def _collate_conditioning(trajectories: list[Trajectory]) -> dict[str, Any]:
    """Stack a U-Net call's conditioning.

    For each trajectory the negative row comes first, if it is guided, then the positive one.
    """
    prompts = []
    added_rows = []
    for trajectory in trajectories:
        negative_added, positive_added = trajectory.added_cond_kwargs
        if trajectory.branches == 2:
            prompts.append(trajectory.conditioning.negative)
            added_rows.append(negative_added)
        prompts.append(trajectory.conditioning.positive)
        added_rows.append(positive_added)
    added = {name: torch.cat([row[name] for row in added_rows]) for name in added_rows[0]}
    return {"encoder_hidden_states": torch.cat(prompts), "added_cond_kwargs": added or None}
