"""What studio.engine.models.private_diffusers relies on in diffusers, on a scheduler of its own."""

from __future__ import annotations

import torch
from diffusers import DPMSolverMultistepScheduler

from studio.engine.models.private_diffusers import copy_scheduler


def run_steps(scheduler: DPMSolverMultistepScheduler, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    latents = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(latents / 2, timestep, latents, return_dict=False)[0]
    return latents


def test_a_copy_computes_what_a_new_scheduler_does() -> None:
    prototype = DPMSolverMultistepScheduler(use_karras_sigmas=True)
    stock = run_steps(DPMSolverMultistepScheduler(use_karras_sigmas=True), 5)
    assert torch.equal(run_steps(copy_scheduler(prototype), 5), stock)


def test_using_a_copy_leaves_the_prototype_alone() -> None:
    prototype = DPMSolverMultistepScheduler()
    timesteps = prototype.timesteps.clone()
    duplicate = copy_scheduler(prototype)
    run_steps(duplicate, 5)
    duplicate.betas.zero_()
    assert torch.equal(prototype.timesteps, timesteps)
    assert prototype.betas.any()
    assert prototype.model_outputs == [None, None]


def test_copies_share_the_frozen_config() -> None:
    prototype = DPMSolverMultistepScheduler(num_train_timesteps=500)
    assert copy_scheduler(prototype).config is prototype.config
