"""The reference: stock diffusers pipelines and schedulers, built from a model's folder. Imports nothing of the studio."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

SEED, SIZE, STEPS, PROMPT = 7, 64, 4, "a red boat by a lake"
LIN, LEAD = {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading", "steps_offset": 1}
KARRAS, EXPONENTIAL, BETA = (
    {**LIN, f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")
)
TRAIL = {"timestep_spacing": "trailing"}
SHAPED = {
    "Model default": LEAD,
    "Karras": KARRAS,
    "Exponential": EXPONENTIAL,
    "Beta": BETA,
    "Simple": TRAIL,
}
DDIM_SPACING = {"DDIM": LEAD}
# Three steps of the schedules that are formulas, for a model with Stable Diffusion's levels: the
# first, the sixth and the last of the eleven levels of arXiv:2404.14507, and none.
BAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0).double()
TRAINED = ((1 - BAR) / BAR).sqrt().numpy()
OPTIMIZED = [14.615, 1.396, 0.029]
ARCS = [
    float(np.tan((1 - k / 3) * np.arctan(TRAINED[-1]) + k / 3 * np.arctan(TRAINED[0])))
    for k in range(4)
]
QUADRATIC = [float(share * TRAINED[-1]) for share in (1.0, 0.975, 0.71875, 0.0)]


def nearest(levels: list[float]) -> list[int]:
    return [int(np.abs(np.log(TRAINED) - np.log(level)).argmin()) for level in levels]


TOLD = {
    "Align Your Steps": {"timesteps": nearest(OPTIMIZED)},
    "KL Optimal": {"timesteps": nearest(ARCS[:-1]), "final_sigmas_type": "sigma_min"},
}
SPACED = {"Model default": LEAD, "Uniform": LIN, "Simple": TRAIL}
SGM = {"SGM Uniform": LIN}
# name → (class, what it always gets, ladder → what that gets)
STOCK: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "Euler": (
        "EulerDiscreteScheduler",
        {},
        {
            **SHAPED,
            **DDIM_SPACING,
            "Uniform": LIN,
            "SGM Uniform": {"timesteps": [999.0, 666.0, 333.0]},
            "Align Your Steps": {"sigmas": [*OPTIMIZED, 0.0]},
            "KL Optimal": {"sigmas": ARCS, "final_sigmas_type": "sigma_min"},
            "Linear Quadratic": {"sigmas": QUADRATIC},
        },
    ),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}, {**SPACED, **DDIM_SPACING}),
    "Heun": (
        "HeunDiscreteScheduler",
        {},
        {
            **SHAPED,
            **DDIM_SPACING,
            "Uniform": LIN,
            "Align Your Steps": {
                "timesteps": np.interp(OPTIMIZED, TRAINED, np.arange(1000)).tolist()
            },
        },
    ),
    "LMS": ("LMSDiscreteScheduler", {}, {**SHAPED, **DDIM_SPACING, "Uniform": LIN}),
    "DPM2": ("KDPM2DiscreteScheduler", {}, {**SHAPED, **DDIM_SPACING, "Uniform": LIN}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}, {**SHAPED, **DDIM_SPACING, "Uniform": LIN}),
    "DPM++ 2M": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "dpmsolver++"},
        {**SHAPED, **SGM, **TOLD, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ 2M SDE": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        {**SHAPED, **SGM, **TOLD, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ 2M SDE Heun": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        {**SHAPED, **SGM, **TOLD, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ 3M": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 3, "algorithm_type": "dpmsolver++"},
        {**SHAPED, **SGM, **TOLD, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ 2S": (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 2, "algorithm_type": "dpmsolver++", "lower_order_final": True},
        {
            "Model default": {},
            **{
                name.capitalize(): {f"use_{name}_sigmas": True}
                for name in ("karras", "exponential", "beta")
            },
        },
    ),
    "DPM++ SDE": (
        "DPMSolverSDEScheduler",
        {"noise_sampler_seed": SEED},
        {**SHAPED, **DDIM_SPACING, "Uniform": LIN},
    ),
    "DDIM": (
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False},
        {**SPACED, "Uniform": LEAD},
    ),
    "DDPM": ("DDPMScheduler", {"clip_sample": False}, SPACED),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}, {**SPACED, "Uniform": LEAD}),
    "UniPC": (
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {**SHAPED, **SGM},
    ),
    "DEIS": ("DEISMultistepScheduler", {}, {**SHAPED, **SGM}),
    "LCM": ("LCMScheduler", {"set_alpha_to_one": False}, {"Model default": {}}),
    "TCD": ("TCDScheduler", {"set_alpha_to_one": False}, {"Model default": {}}),
    "SA-Solver": ("SASolverScheduler", {}, {**SHAPED, **SGM}),
}
ETA = {"TCD": 0.3}  # the scheduler's own default; the pipelines would pass 0


def scene(size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Smooth colours with a dark square in them."""
    y, x = np.mgrid[: size[1], : size[0]]
    rgb = np.stack([x * 255 / size[0], y * 255 / size[1], 128 + 100 * np.sin(x / 9)], -1).astype(
        np.uint8
    )
    rgb[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 30
    return Image.fromarray(rgb)


def square(
    size: tuple[int, int] = (SIZE, SIZE), box: tuple[int, int, int, int] = (16, 24, 48, 56)
) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def pipe_of(kind: str, model: Path, name: str, schedule: str = "Model default") -> Any:
    made = getattr(diffusers, kind).from_pretrained(model, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return with_scheduler(made, model, name, schedule)


def with_scheduler(pipe: Any, model: Path, name: str, schedule: str = "Model default") -> Any:
    scheduler, always, ladders = STOCK[name]
    shipped = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    spacing = {key: shipped[key] for key in ("timestep_spacing", "steps_offset") if key in shipped}
    own = {**always, **(spacing if schedule == "Model default" else ladders[schedule])}
    keep = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    kind = getattr(diffusers, scheduler)
    if "timestep_spacing" not in inspect.signature(kind).parameters:
        own.pop("timestep_spacing", None)  # DPMSolverSinglestep has one way of its own
        own.pop("steps_offset", None)
    pipe.scheduler = kind(**{key: shipped[key] for key in keep if key in shipped}, **own)
    return pipe


def called(pipe: Any, name: str, **more: Any) -> np.ndarray:
    told = {"num_inference_steps": STEPS, "guidance_scale": 6.0, "eta": ETA.get(name, 0.0)} | more
    return np.asarray(pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), **told).images[0])
