"""The one training loop of the recipe: resumable, deterministic, with a budget of seconds.

Knows: steps, learning rate, moving average, checkpoints (written aside, then renamed). Step n draws its chances from (seed, n), so a run that was
cut off and goes on makes what an uncut run makes. Does not know: what is learned; a part hands it a function from step to loss.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SAVE_EVERY = 150.0
SAY_EVERY = 50


@dataclass(frozen=True)
class Plan:
    """How long and how fast a part learns."""

    steps: int
    rate: float
    warmup: int = 100
    decay: float = 0.0
    average: float = 0.999
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Where a run works: device, folder of checkpoints and cached drawings, folder of finished parts, seconds left."""

    device: str
    cache: Path
    output: Path
    budget: float
    workers: int = 2


Loss = Callable[[int, np.random.Generator], dict[str, Tensor]]


def learning_rate(plan: Plan, step: int) -> float:
    """Rises over the warm-up, then falls along a half cosine to a hundredth."""
    rise = min(1.0, (step + 1) / plan.warmup)
    return float(
        plan.rate * rise * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, step / plan.steps))))
    )


def save_aside(value: object, file: Path) -> None:
    """Write a checkpoint so that a cut leaves the old one or the new one, never half of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, file)


def train(name: str, modules: dict[str, nn.Module], loss: Loss, plan: Plan, place: Place) -> bool:
    """Train until `plan.steps` or the budget's end; True when all steps are done, and then the modules hold the moving average."""
    start, saved = time.monotonic(), time.monotonic()
    params = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        params, lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay, foreach=True
    )
    average = [p.detach().clone() for p in params]
    file, step, spent = place.cache / f"{name}.pt", 0, 0.0
    # 1. Go on where the last run stopped
    if file.exists():
        kept = torch.load(file, map_location=place.device, weights_only=True)
        step, spent = int(kept["step"]), float(kept["seconds"])
        for param, mean, now, then in zip(
            params, average, kept["params"], kept["average"], strict=True
        ):
            param.data.copy_(now)
            mean.copy_(then)
        optimizer.load_state_dict(kept["optimizer"])
        print(f"{name}: goes on at step {step} after {spent:.0f} s", flush=True)

    def save() -> None:
        state = {
            "step": step,
            "seconds": spent + time.monotonic() - start,
            "params": [p.data for p in params],
            "average": average,
        }
        save_aside({**state, "optimizer": optimizer.state_dict()}, file)

    # 2. Learn
    first = step
    sums: dict[str, float] = {}
    since = step
    while step < plan.steps and time.monotonic() - start < place.budget:
        torch.manual_seed(plan.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        losses = loss(step, np.random.default_rng([plan.seed, step]))
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        step += 1
        torch._foreach_lerp_(
            average, [p.detach() for p in params], 1 - min(plan.average, (1 + step) / (10 + step))
        )
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        if step % SAY_EVERY == 0:
            words = " ".join(f"{key} {value / (step - since):.4f}" for key, value in sums.items())
            print(
                f"{name} {step}/{plan.steps} {spent + time.monotonic() - start:.0f}s {words}",
                flush=True,
            )
            sums, since = {}, step
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()
    # 3. Leave the average in the modules
    if step > first:
        save()
    for param, mean in zip(params, average, strict=True):
        param.data.copy_(mean)
    for module in modules.values():
        module.eval()
    return step >= plan.steps
