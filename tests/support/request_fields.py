"""Another value than its default for every field of a request: a new field is needed here, and nowhere else in the tests.

In the order of the fields.
"""

from __future__ import annotations

from typing import Any

from studio.core.generation.lora_use import LoraUse

SHA = "0123456789abcdef" * 4  # stands for a picture
MASK_SHA = "fedcba9876543210" * 4
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
PICTURE: dict[str, Any] = {"image": SHA}
MASKED: dict[str, Any] = {"image": SHA, "mask": MASK_SHA}
TWICE: dict[str, Any] = {"hires_scale": 2.0}
EULER: dict[str, Any] = {"scheduler": "Euler", "noise_schedule": "Karras"}
APG: dict[str, Any] = {"guidance_method": "APG"}
EXTENDED: dict[str, Any] = {"image": SHA, "extend_left": 64, "width": None, "height": None}
IMAGE_TASK_VALUES: dict[str, tuple[dict[str, Any], Any]] = {
    "image": ({}, SHA),
    "mask": (PICTURE, MASK_SHA),
    "strength": (PICTURE, 0.4),
    "resize_mode": ({**PICTURE, "width": 128}, "crop"),
    "mask_blur": (MASKED, 0),
    "mask_grow": (MASKED, -8),
    "invert_mask": (MASKED, True),
    "masked_content": (MASKED, "latent noise"),
    "inpaint_area": ({**MASKED, "mask_padding": 4}, "only masked"),
    "mask_padding": ({**MASKED, "inpaint_area": "only masked"}, 4),
    **{
        f"extend_{side}": ({**PICTURE, "width": None, "height": None}, 64)
        for side in ("left", "top", "right", "bottom")
    },
    "extend_fill": (EXTENDED, "noise"),
    "extend_colour": ({**EXTENDED, "extend_fill": "colour"}, "#00ff00"),
    "seam_blur": (EXTENDED, 12),
    "hires_scale": ({}, 2.0),
    "hires_resize": (TWICE, "latent"),
    "hires_steps": (TWICE, 6),
    "hires_strength": (TWICE, 0.4),
    "hires_tile": (TWICE, 64),
    "hires_overlap": ({**TWICE, "hires_tile": 64}, 0),
    "guidance_rescale": ({}, 0.7),
    "hires_upscaler": (TWICE, "Nearest"),
    "vae": ({}, "anime"),
    "prompt_syntax": ({"prompt": "a (moon:1.3)"}, "compel"),
    "emphasis": ({"prompt": "a (moon:1.3)", "prompt_syntax": "A1111"}, "No norm"),
    "styles": ({}, ("Ink",)),
    "noise_source": ({}, "NV"),
    "variation_strength": ({}, 0.4),
    "variation_seed": ({"variation_strength": 0.4, "variation_seed": 9}, 3),
    "seed_resize_width": ({}, 128),
    "seed_resize_height": ({}, 128),
    "eta": ({"scheduler": "DDIM"}, 0.5),
    "s_churn": (EULER, 40.0),
    "s_tmin": ({**EULER, "s_churn": 40.0}, 1.0),
    "s_tmax": ({**EULER, "s_churn": 40.0}, 5.0),
    "s_noise": ({**EULER, "s_churn": 40.0}, 1.1),
    "sigma_min": (EULER, 0.1),
    "sigma_max": (EULER, 10.0),
    "rho": (EULER, 3.0),
    "ensd": ({"scheduler": "Euler a"}, 31337),
    "guidance_start": ({}, 0.5),
    "guidance_end": ({}, 0.8),
    "guidance_method": ({}, "APG"),
    "guidance_zero_steps": ({"guidance_method": "CFG-Zero*"}, 1),
    "apg_eta": (APG, 0.5),
    "apg_threshold": (APG, 0.02),
    "apg_momentum": (APG, 0.5),
}
