"""Another value than its default for every field of a request: a new field is needed here."""

from __future__ import annotations

from typing import Any

from studio.core.generation.lora_use import LoraUse

SHA = "0123456789abcdef" * 4
OTHER_VALUES: dict[str, Any] = {
    "prompt": "a cat",
    "negative_prompt": "rain",
    "model": "other",
    "width": 256,
    "height": 64,
    "steps": 7,
    "guidance": 3.5,
    "scheduler": "Euler",
    "noise_schedule": "Beta",
    "seed": 5,
    "num_images": 3,
    "batch_size": 2,
    "clip_skip": 2,
    "loras": (LoraUse(name="moon", unet=0.5),),
}
# What a setting of work on an image needs to count, and another value of it.
IMAGE_TASK_VALUES: dict[str, tuple[dict[str, Any], Any]] = {
    "image": ({}, SHA),
    "mask": ({"image": SHA}, SHA),
    "guidance_rescale": ({}, 0.7),
    "strength": ({"image": SHA}, 0.5),
    "resize_mode": ({"image": SHA}, "crop"),
    **{
        name: ({"image": SHA, "mask": SHA}, value)
        for name, value in {
            "mask_blur": 0,
            "mask_grow": -3,
            "invert_mask": True,
            "masked_content": "fill",
            "inpaint_area": "only masked",
        }.items()
    },
    "mask_padding": ({"image": SHA, "mask": SHA, "inpaint_area": "only masked"}, 8),
    **{f"extend_{side}": ({"image": SHA}, 64) for side in ("left", "top", "right", "bottom")},
    "extend_fill": ({"image": SHA, "extend_left": 8}, "noise"),
    "seam_blur": ({"image": SHA, "extend_left": 8}, 0),
    "extend_colour": ({"image": SHA, "extend_top": 8, "extend_fill": "colour"}, "#00ff00"),
    "hires_scale": ({}, 1.5),
    **{
        name: ({"hires_scale": 2.0}, value)
        for name, value in {
            "hires_resize": "latent",
            "hires_steps": 9,
            "hires_strength": 0.3,
            "hires_tile": 128,
        }.items()
    },
    "hires_overlap": ({"hires_scale": 2.0, "hires_tile": 256}, 64),
}
