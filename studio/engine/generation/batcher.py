"""Trajectories together: one call after the other, refilled whenever a trajectory ends.

Knows: which trajectories may share a call, which row belongs to which, what to do when memory does
not suffice. Does not know: prompts, files, pixels, what the trajectories are for.

A denoiser takes a timestep, a prompt and (in the layers of LoRAs) a weight per row, so trajectories
with different schedulers, steps, guidance, seeds and LoRA weights go together. A single one is bit
for bit the stock pipeline's image on the same device; several differ by rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from studio.engine.generation.trajectory import ModelInput, Prediction, Trajectory
from studio.engine.models.adapters import lora
from studio.engine.models.devices import is_out_of_memory
from studio.engine.models.loaded_model import LoadedModel, Row
from studio.errors import StudioError


def batch_key(model: LoadedModel, trajectory: Trajectory) -> tuple[Any, ...]:
    """Return what has to be equal for two trajectories of one model to share its calls.

    These are the shape of the latents, what the family says of its rows, and the set of LoRAs,
    of any weight.
    """
    return (
        trajectory.latent_shape,
        model.get_row_key(trajectory.rows[-1]),
        lora.get_batching_key(trajectory.active_adapters),
    )


@dataclass(eq=False)
class _ActiveTrajectory:
    """A trajectory that has begun, and what it asks the denoiser now."""

    trajectory: Trajectory
    coroutine: Any  # of the trajectory's `run`
    model_input: ModelInput
    seconds: float = 0.0

    @property
    def branches(self) -> int:
        return len(self.model_input.rows)


class Batcher:
    """One model and the trajectories that share its denoiser's calls.

    `calls` and `rows` count what the denoiser did; `max_batch` shrinks when memory does not
    suffice.
    """

    def __init__(self, model: LoadedModel, max_batch: int = 1) -> None:
        """Prepare a batcher in which at most `max_batch` trajectories share a call."""
        self.model = model
        self.max_batch = max_batch
        self.calls = 0
        self.rows = 0
        # The rows of the last call, and what they were stacked to.
        self._rows: list[Row] = []
        self._stacked: Row = {}

    def denoise(
        self, trajectories: Iterable[Trajectory], on_call: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[Trajectory, torch.Tensor | StudioError, float]]:
        """Run trajectories to their end; yield each as soon as it ends.

        Args:
            trajectories: Taken in turn, the next when there is room.
            on_call: Called after each call; what it raises ends everything.

        Yields:
            The trajectory; its latents (1, channels, rows, columns) or why there are none; its
            share of the seconds.

        Raises:
            RuntimeError: Not even a single one fits (see devices.is_out_of_memory).
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
                self.max_batch = max(1, len(batch) // 2)
                continue
            num_rows = [active.branches for active in batch]
            results = _send_predictions(batch, predictions)
            seconds = time.perf_counter() - start_time
            for active, rows in zip(batch, num_rows, strict=True):
                active.seconds += seconds * rows / sum(num_rows)
            running = [active for active in running if active not in results]
            on_call()
            for active, latents in results.items():
                yield active.trajectory, latents, active.seconds

    def _has_room(self, running: Sequence[_ActiveTrajectory], upcoming: Trajectory) -> bool:
        if len(running) >= self.max_batch:
            return False
        if not running:
            return True
        first = running[0].trajectory
        return batch_key(self.model, first) == batch_key(self.model, upcoming)

    @torch.inference_mode()
    def _predict(self, batch: list[_ActiveTrajectory]) -> list[Prediction] | None:
        """Call the denoiser once for a whole batch.

        None if memory does not suffice for so many, or did not until now: then call it again.
        """
        rows = [row for active in batch for row in active.model_input.rows]
        inputs = [active for active in batch for _ in active.model_input.rows]
        if not _are_same(self._rows, rows):  # otherwise they are stacked already
            self._stacked = self.model.stack_rows(rows)
            self._rows = rows
        adapters = lora.merge_row_adapters([one.trajectory.active_adapters for one in inputs])
        lora.set_adapters(self.model, adapters)
        try:
            outputs = self.model.predict(
                [one.model_input.latents for one in inputs],
                [one.model_input.timestep for one in inputs],
                self._stacked,
            )
        except Exception as error:
            if not is_out_of_memory(error) or (len(batch) == 1 and not self._make_room()):
                raise
            return None
        self.calls += 1
        self.rows += len(rows)
        output_rows = iter(outputs)
        return [tuple(next(output_rows) for _ in range(active.branches)) for active in batch]

    def _make_room(self) -> bool:
        """Throw out what stays in memory for later only; False if there is nothing such."""
        return self.model.provider is not None and self.model.provider.make_room()


def _are_same(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    return len(rows) == len(others) and all(
        row is other for row, other in zip(rows, others, strict=True)
    )


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
