"""Further files of the programs of recipe_files.py: of another age, or with other parts.

Each has the public source of its structure beside it; personal details are invented.
"""

from __future__ import annotations

import json

from studio.core.generation.recipes.recipe import ImageMetadata
from support.recipe_files import RecipeFile
from support.recipe_texts import DRAW_THINGS, INVOKE

# Structure: lllyasviel/Fooocus, modules/meta_parser.py: the titles that it reads where the keys of
# later versions are not there, as its log wrote them up to 2.1; enums of modules/flags.py.
FOOOCUS_TITLES = {
    "Prompt": "a red boat",
    "Negative Prompt": "fog",
    "Fooocus V2 Expansion": "a red boat, intricate",
    "Styles": "[]",
    "Performance": "Extreme Speed",
    "Resolution": "(896, 1152)",
    "Sharpness": 0.0,
    "Guidance Scale": 1.0,
    "ADM Guidance": "(1.0, 1.0, 0.0)",
    "Base Model": "tinyXL.safetensors",
    "Refiner Model": "paint.safetensors",
    "Refiner Switch": 0.8,
    "CLIP Skip": 2,
    "Sampler": "lcm",
    "Scheduler": "lcm",
    "VAE": "Default (model)",
    "Seed": 77,
    "LoRA 1": "inkXL.safetensors : 0.5",
    "Version": "v2.1.860",
}
# Structure: enslo/sd-metadata, src/parsers/novelai.ts (version 3, with vibes and SMEA).
NOVELAI_3 = {
    "prompt": "a boat, [[fog]]",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.0,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.0,
    "seed": 7,
    "n_samples": 1,
    "hide_debug_overlay": False,
    "noise_schedule": "karras",
    "legacy_v3_extend": False,
    "reference_strength_multiple": [0.6],
    "sampler": "k_dpmpp_2m",
    "controlnet_strength": 0.5,
    "dynamic_thresholding": False,
    "sm": True,
    "sm_dyn": True,
    "uc": "lowres",
    "request_type": "PromptGenerateRequest",
    "signed_hash": "c2VjcmV0",
}
# Structure: mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md; ids of its parameters.
SWARM_PLAIN = {
    "prompt": "a boat",
    "negativeprompt": "fog",
    "model": "tiny_v1",
    "seed": 9,
    "steps": 30,
    "cfgscale": 5.5,
    "width": 512,
    "height": 768,
    "clipstopatlayer": -2,
    "sampler": "euler_ancestral",
    "scheduler": "normal",
    "loras": ["ink"],
    "loraweights": ["0.5"],
    "loratencweights": ["0.25"],
    "controlnetmodel": "canny",
    "swarm_version": "0.6.4.0",
}

FURTHER_FILES: dict[str, RecipeFile] = {
    "Fooocus by titles": RecipeFile(
        "Fooocus",
        ImageMetadata(chunks={"parameters": json.dumps(FOOOCUS_TITLES)}),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "steps": 8,
            "guidance": 1.0,
            "width": 896,
            "height": 1152,
            "seed": 77,
            "clip_skip": 2,
            "scheduler": "LCM",
            "model": "tinyXL",
            "vae": "",
            "loras": [
                {"name": "inkXL", "unet": 0.5, "text_encoder": 0.5},
                {"name": "sdxl_lcm_lora", "unet": 1.0, "text_encoder": 1.0},
            ],
        },
    ),
    # Structure: invoke-ai/InvokeAI, invokeai/app/invocations/metadata.py, with parts of the canvas.
    "InvokeAI, more keys": RecipeFile(
        "InvokeAI",
        ImageMetadata(
            chunks={
                "invokeai_metadata": json.dumps(
                    INVOKE
                    | {
                        "rand_device": "cuda:0",
                        "ipAdapters": [],
                        "controlnets": [{"control_weight": 1}],
                        "hrf_enabled": True,
                        "hrf_strength": 0.4,
                        "upscale_model": {"name": "4x-Grain"},
                        "canvas_v2_metadata": {"rasterLayers": []},
                    }
                )
            }
        ),
        {
            "prompt": "a red boat++ (on water)1.2",
            "negative_prompt": "fog--",
            "width": 1024,
            "height": 768,
            "seed": 3293022630,
            "guidance": 7.5,
            "guidance_rescale": 0.7,
            "steps": 35,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "clip_skip": 2,
            "model": "tinyXL",
            "vae": "sharp-vae",
            "loras": [{"name": "inkXL", "unet": 0.4, "text_encoder": 0.4}],
        },
        (
            "Not available here: ControlNet; the image will differ.",
            "Not available here: its high resolution fix; the image will differ.",
            "Not loaded: upscale_model.",
        ),
    ),
    # Structure: as INVOKE_2 of recipe_texts.py; the flags of CompVis/stable-diffusion's fork's CLI.
    "InvokeAI 1, more flags": RecipeFile(
        "InvokeAI",
        ImageMetadata(
            chunks={"Dream": '"a boat" -s 20 -S 5 -W 512 -H 512 -C 7.5 -A ddim -G 0.8 --seamless'}
        ),
        {
            "prompt": "a boat",
            "negative_prompt": "",
            "steps": 20,
            "seed": 5,
            "width": 512,
            "height": 512,
            "guidance": 7.5,
            "scheduler": "DDIM",
        },
        ("Not loaded: --seamless, -G.",),
    ),
    "NovelAI 3": RecipeFile(
        "NovelAI",
        ImageMetadata(chunks={"Software": "NovelAI", "Comment": json.dumps(NOVELAI_3)}),
        {
            "prompt": "a boat, (fog:0.907)",
            "negative_prompt": "lowres",
            "steps": 28,
            "width": 832,
            "height": 1216,
            "guidance": 5.0,
            "guidance_rescale": 0.0,
            "seed": 7,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
        },
        (
            "NovelAI's model is not available; choose another: the image will differ.",
            "Not available here: SMEA; the image will differ.",
            "Not available here: SMEA DYN; the image will differ.",
            "Not available here: vibe transfer; the image will differ.",
            "Not loaded: controlnet_strength.",
        ),
    ),
    "SwarmUI 0.6": RecipeFile(
        "SwarmUI",
        ImageMetadata(
            chunks={"parameters": json.dumps({"sui_image_params": SWARM_PLAIN, "sui_models": []})}
        ),
        {
            "prompt": "a boat",
            "negative_prompt": "fog",
            "model": "tiny_v1",
            "seed": 9,
            "steps": 30,
            "guidance": 5.5,
            "width": 512,
            "height": 768,
            "clip_skip": 2,
            "scheduler": "Euler a",
            "noise_schedule": "Uniform",
            "loras": [{"name": "ink", "unet": 0.5, "text_encoder": 0.25}],
        },
        ("Not loaded: controlnetmodel.",),
    ),
    # Structure: XMP's elements instead of attributes (XMP specification part 1, 7.4 and 7.8).
    "Draw Things, elements": RecipeFile(
        "Draw Things",
        ImageMetadata(
            xmp="<x:xmpmeta><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt>"
            f'<rdf:li xml:lang="x-default">{json.dumps(DRAW_THINGS)}</rdf:li></rdf:Alt>'
            "</exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
        ),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 99,
            "steps": 30,
            "guidance": 7.5,
            "width": 512,
            "height": 768,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "clip_skip": 2,
            "model": "tiny_v1_f16",
            "loras": [{"name": "ink_lora_f16", "unet": 0.6, "text_encoder": 0.6}],
        },
    ),
    # Structure: enslo/sd-metadata, src/parsers/easydiffusion.ts (one text for each setting).
    "Easy Diffusion, clip skip": RecipeFile(
        "Easy Diffusion",
        ImageMetadata(
            user_comment=json.dumps(
                {
                    "prompt": "a boat",
                    "seed": 3,
                    "use_stable_diffusion_model": "tiny_v1",
                    "clip_skip": True,
                    "use_face_correction": "GFPGANv1.4",
                }
            )
        ),
        {"prompt": "a boat", "seed": 3, "model": "tiny_v1", "clip_skip": 2},
        ("Not loaded: use_face_correction.",),
    ),
}
