"""Noise put on and taken off: by diffusion with and without zero terminal SNR, and along a flow.

The formulas are written down here once more, as the papers give them.
"""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from studio.core.catalog import SCHEDULERS
from studio.engine.models.flow_schedulers import build_flow_scheduler
from studio.engine.models.noise_process import DiffusionProcess, FlowProcess
from studio.engine.models.schedulers import build_scheduler
from studio.errors import InvalidSpec
from support.sentences import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
SD: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
ZERO_SNR = SD | {"rescale_betas_zero_snr": True}
NO_NOISE_LEVELS = ("DPM2 a", "Beta")  # stock: it draws the root of a negative number
PAIRS = [
    (name, schedule)
    for name, info in SCHEDULERS.items()
    for schedule in info.noise_schedules
    if (name, schedule) != NO_NOISE_LEVELS
]


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pair
        if pair[1] == "Model default" or pair[0] in ("Euler", "DPM++ 2M")
        else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_with_zero_terminal_snr_every_scheduler_begins_in_noise_alone(
    name: Any, schedule: Any
) -> None:
    """And with an ideal denoiser ends at the image, but for the noise of the last timestep."""
    scheduler = build_scheduler(name, schedule, ZERO_SNR, 8, 3)
    process = DiffusionProcess(scheduler)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 4, 8, 8, generator=generator)
    latents = process.initial(torch.randn(1, 4, 8, 8, generator=generator))
    assert float(scheduler.alphas_cumprod[-1]) <= 2**-24 * 1.01
    for timestep in process.timesteps:
        seen = process.model_input(latents, timestep)
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        noise = (seen - alpha**0.5 * image) / (1 - alpha) ** 0.5
        v = alpha**0.5 * noise - (1 - alpha) ** 0.5 * image
        assert torch.allclose(process.estimate_x0(seen, timestep, v), image, atol=1e-5)
        latents = process.step(v, timestep, latents, generator)
    assert float((latents - image).norm() / image.norm()) < 0.05


def test_where_there_are_no_noise_levels_it_is_said() -> None:
    name, schedule = NO_NOISE_LEVELS
    with refused(InvalidSpec, "Schedule"):
        build_scheduler(name, schedule, ZERO_SNR, 8, 3)  # type: ignore[arg-type]


def test_zero_terminal_snr_is_that_of_diffusers() -> None:
    """Classes without the flag get the betas that those with it compute, but for the last."""
    flagged = diffusers.DDIMScheduler(**ZERO_SNR).alphas_cumprod
    for name in ("Heun", "LMS", "DPM2", "DPM++ SDE", "PLMS", "DEIS", "SA-Solver"):
        scheduler = build_scheduler(name, "Model default", ZERO_SNR, 8, 3)  # type: ignore[arg-type]
        assert torch.allclose(scheduler.alphas_cumprod[:-1], flagged[:-1], atol=1e-6), name


def test_training_pairs() -> None:
    generator = torch.Generator().manual_seed(2)
    image, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 500, 999])
    for prediction in ("epsilon", "v_prediction"):
        config = SD | {"prediction_type": prediction}
        process = DiffusionProcess(build_scheduler("DDPM", "Model default", config, 1, 0))
        stock = diffusers.DDPMScheduler(**config)
        noisy, target = process.training_pair(image, noise, timesteps)
        assert torch.allclose(noisy, stock.add_noise(image, noise, timesteps), atol=1e-6)
        wanted = noise
        if prediction == "v_prediction":
            wanted = stock.get_velocity(image, noise, timesteps)
        assert torch.allclose(target, wanted, atol=1e-6)
    flow = FlowProcess(
        build_flow_scheduler("Euler", "Model default", {"shift": 3.0}, 4, num_tokens=16)
    )
    noisy, target = flow.training_pair(image, noise, timesteps)
    sigmas = timesteps.view(-1, 1, 1, 1) / 1000
    assert torch.allclose(noisy, (1 - sigmas) * image + sigmas * noise)
    assert torch.equal(target, noise - image)
