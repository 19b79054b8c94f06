"""The reference: stock diffusers pipelines and schedulers, built from a model's folder. Imports nothing of the studio."""

from __future__ import annotations

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
SPACED = {"Model default": LEAD, "Uniform": LIN, "Simple": TRAIL}
SGM = {"SGM Uniform": LIN}
# name → (class, what it always gets, ladder → what that gets)
STOCK: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "Euler": (
        "EulerDiscreteScheduler",
        {},
        {**SHAPED, "Uniform": LIN, "SGM Uniform": {"timesteps": [999.0, 666.0, 333.0]}},
    ),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}, SPACED),
    "Heun": ("HeunDiscreteScheduler", {}, {**SHAPED, "Uniform": LIN}),
    "LMS": ("LMSDiscreteScheduler", {}, {**SHAPED, "Uniform": LIN}),
    "DPM2": ("KDPM2DiscreteScheduler", {}, {**SHAPED, "Uniform": LIN}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}, {**SHAPED, "Uniform": LIN}),
    "DPM++ 2M": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "dpmsolver++"},
        {**SHAPED, **SGM, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ 2M SDE": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        {**SHAPED, **SGM, "Uniform": {"timesteps": [999, 500, 0]}},
    ),
    "DPM++ SDE": (
        "DPMSolverSDEScheduler",
        {"noise_sampler_seed": SEED},
        {**SHAPED, "Uniform": LIN},
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
    pipe.scheduler = getattr(diffusers, scheduler)(
        **{key: shipped[key] for key in keep if key in shipped}, **own
    )
    return pipe


def called(pipe: Any, name: str, **more: Any) -> np.ndarray:
    told = {"num_inference_steps": STEPS, "guidance_scale": 6.0, "eta": ETA.get(name, 0.0)} | more
    return np.asarray(pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), **told).images[0])
