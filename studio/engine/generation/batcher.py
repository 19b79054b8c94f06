"""Trajectories together: one U-Net call after the other, refilled whenever one of them ends.

Knows: what may share a call, whose row is whose, what to do when memory does not suffice. Does not know: prompts, files,
pixels, why these trajectories are to be painted.

A U-Net takes a timestep, a prompt and (in plain LoRA layers) a weight per row, so trajectories with different schedulers, steps,
guidance, seeds and LoRA weights go together. One alone is bit for bit the stock pipeline's picture; several differ by rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from studio.engine.generation.trajectory import Ask, Prediction, Trajectory
from studio.engine.models.adapters import lora
from studio.engine.models.families import Parts
from studio.errors import StudioError


def shares(one: Trajectory) -> tuple[Any, ...]:
    """What has to be equal for two trajectories on one U-Net (so of one number format and one count of input channels) to
    share its calls: size of the latents, length of the prompts, what the U-Net is told besides, which LoRAs there are (plain
    ones of whatever weight; the library refuses all other kinds)."""
    return (
        one.shape,
        one.conditioning.positive.shape[1],
        tuple(sorted(one.added[1])),
        frozenset(active.content for active in one.loras),
    )


@dataclass(eq=False)
class _Running:
    """A trajectory on its way, and what it asks now."""

    trajectory: Trajectory
    steps: Any  # its coroutine
    ask: Ask
    seconds: float = 0.0


class Batcher:
    """One U-Net and whatever is painted with it at the moment; `calls` and `rows` count what the U-Net did."""

    def __init__(self, parts: Parts, most: int = 1) -> None:
        """At most `most` trajectories share a call; fewer once memory did not suffice for so many."""
        self.parts, self.most = parts, most
        self.calls = self.rows = 0
        self._told: tuple[list[_Running], dict[str, Any]] = [], {}

    def paint(
        self, waiting: Iterable[Trajectory], on_call: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[Trajectory, torch.Tensor | StudioError, float]]:
        """Each trajectory as soon as it ends, with its latents, or with why there are none, and its share of the seconds.

        They are taken from `waiting` in turn, one when there is room. After each U-Net call comes `on_call`; what it raises
        ends everything. Raises torch.OutOfMemoryError if not even one fits.
        """
        source = iter(waiting)
        following = next(source, None)
        running: list[_Running] = []
        while running or following is not None:
            while (
                following is not None
                and len(running) < self.most
                and (not running or shares(running[0].trajectory) == shares(following))
            ):
                running.append(_begun(following))
                following = next(source, None)
            began, asked = time.perf_counter(), running[: self.most]
            predictions = self._predict(asked)
            if (
                predictions is None
            ):  # memory did not suffice: those left over wait, and lose nothing
                self.parts.device.empty_cache()
                self.most = len(asked) // 2
                continue
            ended = _send(asked, predictions)
            took = time.perf_counter() - began
            for one in asked:
                one.seconds += (
                    took * one.trajectory.rows / sum(other.trajectory.rows for other in asked)
                )
            running = [one for one in running if one not in ended]
            on_call()
            for one, came in ended.items():
                yield one.trajectory, came, one.seconds

    @torch.inference_mode()
    def _predict(self, asked: list[_Running]) -> list[Prediction] | None:
        """One U-Net call for all that is asked; None if memory does not suffice for so many."""
        if self._told[0] != asked:  # otherwise the rows are those of the call before
            self._told = asked, _told([one.trajectory for one in asked])
        lora.switch(
            self.parts,
            lora.by_row(
                [one.trajectory.loras for one in asked for _ in range(one.trajectory.rows)]
            ),
        )
        rows = [one.ask for one in asked for _ in range(one.trajectory.rows)]
        timesteps = torch.tensor([float(ask.timestep) for ask in rows]).to(self.parts.device.torch)
        latents = torch.cat([ask.latents for ask in rows])
        try:
            out = iter(
                self.parts.unet(latents, timesteps, return_dict=False, **self._told[1])[0].split(1)
            )
        except torch.OutOfMemoryError:
            if len(asked) == 1:
                raise
            return None
        self.calls, self.rows = self.calls + 1, self.rows + len(rows)
        return [(next(out) if one.trajectory.rows == 2 else None, next(out)) for one in asked]


@torch.inference_mode()
def _begun(trajectory: Trajectory) -> _Running:
    steps = trajectory.run()
    return _Running(trajectory, steps, next(steps))


@torch.inference_mode()
def _send(
    asked: list[_Running], predictions: list[Prediction]
) -> dict[_Running, torch.Tensor | StudioError]:
    """Hand the predictions out; what those that end with them came to."""
    ended: dict[_Running, torch.Tensor | StudioError] = {}
    for one, prediction in zip(asked, predictions, strict=True):
        try:
            one.ask = one.steps.send(prediction)
        except StopIteration as end:
            ended[one] = end.value
        except StudioError as error:
            ended[one] = error
    return ended


def _told(trajectories: list[Trajectory]) -> dict[str, Any]:
    """The prompts' rows of one U-Net call: for each trajectory its negative one, if it is guided, then its prompt's."""
    prompts, added = [], []
    for one in trajectories:
        if one.rows == 2:
            prompts.append(one.conditioning.negative)
            added.append(one.added[0])
        prompts.append(one.conditioning.positive)
        added.append(one.added[1])
    together = {name: torch.cat([row[name] for row in added]) for name in added[0]}
    return {"encoder_hidden_states": torch.cat(prompts), "added_cond_kwargs": together or None}
