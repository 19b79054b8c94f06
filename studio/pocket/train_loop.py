"""The one training loop of the recipe: resumable, deterministic, with a budget of seconds.

Knows: steps, learning rate, moving average, checkpoints (written aside, then renamed).
Does not know: what is learned; a part hands it a function from step to loss.

Step n draws its chances from (seed, n), so a run that was cut off and goes on makes what an uncut
run makes.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SAVE_INTERVAL_SECONDS = 150.0
LOG_INTERVAL_STEPS = 50


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast a part learns."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    seed: int = 0


@dataclass(frozen=True)
class RunContext:
    """Where a run works.

    Attributes:
        device: A torch device.
        cache_dir: Folder of checkpoints and drawings.
        output_dir: Folder of finished parts.
        budget_seconds: Seconds after which a part's training stops.
        num_workers: Processes that draw.
    """

    device: str
    cache_dir: Path
    output_dir: Path
    budget_seconds: float
    num_workers: int = 2


LossFunction = Callable[[int, np.random.Generator], dict[str, Tensor]]


def compute_learning_rate(plan: TrainingPlan, step: int) -> float:
    """Return the rate of a step: a linear warm-up times a half cosine down to a hundredth."""
    warmup = min(1.0, (step + 1) / plan.warmup_steps)
    progress = min(1.0, step / plan.steps)
    decay = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress))
    return float(plan.learning_rate * warmup * decay)


def save_atomically(value: object, file: Path) -> None:
    """Write a checkpoint so that a cut leaves the old one or the new one, never half of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(".part")
    torch.save(value, partial_file)
    os.replace(partial_file, file)


def train_modules(
    name: str,
    modules: dict[str, nn.Module],
    loss_function: LossFunction,
    plan: TrainingPlan,
    context: RunContext,
) -> bool:
    """Train modules until the plan's last step or the budget's end.

    Args:
        name: Names the checkpoint, cache_dir/NAME.pt, from which it goes on.
        modules: What is trained; at the end they hold the moving average of their parameters.
        loss_function: Maps step and generator to losses by name; "loss" is the one minimised.
        plan: Steps, rates and seed.
        context: Device, folders and budget.

    Returns:
        Whether all steps are done.
    """
    start_time = time.monotonic()
    params = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        params,
        lr=plan.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=plan.weight_decay,
        foreach=True,
    )
    averages = [p.detach().clone() for p in params]
    file = context.cache_dir / f"{name}.pt"
    step = 0
    previous_seconds = 0.0

    # 1. Go on where the last run stopped
    if file.exists():
        checkpoint = torch.load(file, map_location=context.device, weights_only=True)
        step = int(checkpoint["step"])
        previous_seconds = float(checkpoint["seconds"])
        for param, value in zip(params, checkpoint["params"], strict=True):
            param.data.copy_(value)
        for average, value in zip(averages, checkpoint["average"], strict=True):
            average.copy_(value)
        optimizer.load_state_dict(checkpoint["optimizer"])
        print(f"{name}: goes on at step {step} after {previous_seconds:.0f} s", flush=True)

    def measure_seconds() -> float:
        return previous_seconds + time.monotonic() - start_time

    def save_checkpoint() -> None:
        checkpoint = {
            "step": step,
            "seconds": measure_seconds(),
            "params": [p.data for p in params],
            "average": averages,
            "optimizer": optimizer.state_dict(),
        }
        save_atomically(checkpoint, file)

    # 2. Learn
    first_step = step
    last_logged_step = step
    last_save_time = start_time
    loss_sums: dict[str, float] = {}
    while step < plan.steps and time.monotonic() - start_time < context.budget_seconds:
        torch.manual_seed(plan.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = compute_learning_rate(plan, step)
        losses = loss_function(step, np.random.default_rng([plan.seed, step]))
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        step += 1
        decay = min(plan.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [p.detach() for p in params], 1 - decay)
        for key, value in losses.items():
            loss_sums[key] = loss_sums.get(key, 0.0) + float(value.detach())
        if step % LOG_INTERVAL_STEPS == 0:
            num_steps = step - last_logged_step
            means = " ".join(f"{key} {total / num_steps:.4f}" for key, total in loss_sums.items())
            print(f"{name} {step}/{plan.steps} {measure_seconds():.0f}s {means}", flush=True)
            loss_sums = {}
            last_logged_step = step
        if time.monotonic() - last_save_time > SAVE_INTERVAL_SECONDS:
            save_checkpoint()
            last_save_time = time.monotonic()

    # 3. Leave the average in the modules
    if step > first_step:
        save_checkpoint()
    for param, average in zip(params, averages, strict=True):
        param.data.copy_(average)
    for module in modules.values():
        module.eval()
    return step >= plan.steps
