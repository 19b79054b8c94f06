"""A training that was cut off and goes on makes, to the bit, what an uncut one makes; and it leaves the moving average in the modules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from studio.pocket import train_loop
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules


def run(folder: Path, stops: list[int]) -> tuple[list[Tensor], list[int], list[bool]]:
    """Train a toy to step 6, stopping by the budget at the given steps; its weights, the steps seen and what each run answered."""
    seen: list[int] = []
    answers: list[bool] = []
    for stop in [*stops, 99]:
        torch.manual_seed(0)
        toy = nn.Linear(4, 2)
        clock = {"left": stop}

        def loss(
            step: int, rng: np.random.Generator, toy: nn.Linear = toy, clock: dict[str, int] = clock
        ) -> dict[str, Tensor]:
            seen.append(step)
            if step + 1 >= clock["left"]:
                train_loop.time.monotonic = lambda: 1e12  # type: ignore[attr-defined]
            x = torch.from_numpy(rng.standard_normal((8, 4)).astype(np.float32)) + torch.randn(8, 4)
            return {"loss": (toy(x) - x[:, :2]).square().mean()}

        real = train_loop.time.monotonic
        answers.append(
            train_modules(
                "toy",
                {"toy": toy},
                loss,
                TrainingPlan(6, 1e-2, warmup_steps=2),
                RunContext("cpu", folder, folder, 1e6),
            )
        )
        train_loop.time.monotonic = real
        weights = [p.detach().clone() for p in toy.parameters()]
    return weights, seen, answers


def test_cut_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, _, done = run(tmp_path / "whole", [])
    cut, seen, answers = run(tmp_path / "cut", [2, 5])
    assert done == [True]
    assert answers == [False, False, True]
    assert seen == list(range(6))
    assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))
    assert not list((tmp_path / "cut").glob("*.part"))


@pytest.mark.slow
def test_the_command_keeps_its_former_name() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "studio.engine.pocket", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "{train,evaluate,datasets}" in asked.stdout
