"""What the files of many programs carry: built by hand in their structure, all details invented.

Each has the public source of its structure beside it, and what it has to come to.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

from studio.core.generation.recipes.recipe import ImageMetadata
from support.comfyui_graphs import BASIC, BASIC_VALUES, dump


@dataclass(frozen=True)
class RecipeFile:
    """A file and what is to be read from it."""

    program: str
    metadata: ImageMetadata
    values: dict[str, Any]
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, str, str], ...] = field(default=())


# Structure: lllyasviel/Fooocus, modules/meta_parser.py (scheme "fooocus", versions 2.3 to 2.5).
FOOOCUS = {
    "adaptive_cfg": 7,
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "tinyXL_v8",
    "base_model_hash": "aeb7e9e689",
    "full_negative_prompt": ["fog", "blurry, lowres"],
    "full_prompt": ["cinematic still a red boat . shallow", "a red boat, intricate"],
    "guidance_scale": 4,
    "lora_combined_1": "inkXL : 0.25",
    "loras": [["inkXL", 0.25, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "fog",
    "performance": "Speed",
    "prompt": "a red boat",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "5484372653189264372",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2', 'SAI Cinematic']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}
FOOOCUS_VALUES = {
    "seed": 5484372653189264372 % 2**32,
    "steps": 30,
    "guidance": 4.0,
    "width": 1152,
    "height": 896,
    "scheduler": "DPM++ 2M SDE",
    "noise_schedule": "Karras",
    "model": "tinyXL_v8",
    "vae": "",
    "loras": [{"name": "inkXL", "unet": 0.25, "text_encoder": 0.25}],
}

# Structure: enslo/sd-metadata, src/parsers/ruined-fooocus.ts.
RUINED_FOOOCUS = {
    "Prompt": "a red boat",
    "Negative": "fog",
    "steps": 24,
    "cfg": 6.5,
    "width": 1152,
    "height": 896,
    "seed": 77,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "base_model_name": "tinyXL.safetensors",
    "base_model_hash": "0123456789",
    "loras": [{"name": "inkXL.safetensors", "weight": 0.6}],
    "clip_skip": 2,
    "start_step": 0,
    "denoise": None,
    "software": "RuinedFooocus",
}

# Structure: receyuki/stable-diffusion-prompt-reader, format/fooocus.py (Fooocus-MRE).
FOOOCUS_MRE = {
    "prompt": "a red boat",
    "negative_prompt": "fog",
    "styles": ["Default"],
    "seed": 12,
    "width": 1024,
    "height": 1024,
    "sampler": "dpmpp_2m",
    "scheduler": "karras",
    "steps": 30,
    "cfg": 7.0,
    "base_model": "tinyXL.safetensors",
    "l1": "inkXL.safetensors",
    "w1": 0.5,
    "l2": "None",
    "w2": 0.5,
    "software": "Fooocus 1.0.51 MRE",
}

# Structure: invoke-ai/InvokeAI, invokeai/app/invocations/metadata.py (4.x and 5.x).
INVOKE = {
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a red boat++ (on water)1.2",
    "negative_prompt": "fog--",
    "positive_style_prompt": "",
    "negative_style_prompt": "",
    "width": 1024,
    "height": 768,
    "seed": 3293022630,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0.7,
    "steps": 35,
    "scheduler": "dpmpp_2m_k",
    "clip_skip": 1,
    "model": {
        "key": "1f",
        "hash": "blake3:" + "a" * 64,
        "name": "tinyXL",
        "base": "sdxl",
        "type": "main",
    },
    "loras": [
        {"model": {"key": "2e", "name": "inkXL", "base": "sdxl", "type": "lora"}, "weight": 0.4}
    ],
    "vae": {"key": "3d", "name": "sharp-vae", "base": "sdxl", "type": "vae"},
    "ipAdapters": [{"weight": 0.45}],
    "app_version": "5.4.2",
}
# Structure: d3x-at/sd-parsers, tests (invokeai_imeta1: 3.x).
INVOKE_3 = {
    "app_version": "3.4.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a red boat",
    "negative_prompt": "",
    "width": 512,
    "height": 512,
    "seed": 5,
    "rand_device": "cuda",
    "cfg_scale": 8.0,
    "steps": 20,
    "scheduler": "euler",
    "clip_skip": 0,
    "model": {"model_name": "tiny", "base_model": "sd-1", "model_type": "main"},
    "loras": [{"lora": {"model_name": "ink", "base_model": "sd-1"}, "weight": 0.75}],
}
# Structure: d3x-at/sd-parsers, tests (invokeai_sdmeta1: 2.x).
INVOKE_2 = {
    "model": "stable diffusion",
    "model_weights": "tiny_v1",
    "model_hash": "56d1442a0feefd64836a19ac8e3527ec71c884fc962e246ddf67b03e42921272",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.3.0",
    "image": {
        "prompt": [{"prompt": "a red boat [fog] on water [blurry]", "weight": 1.0}],
        "steps": 50,
        "cfg_scale": 5,
        "threshold": 0,
        "perlin": 0,
        "height": 768,
        "width": 512,
        "seed": 2980747362,
        "seamless": False,
        "hires_fix": False,
        "type": "txt2img",
        "postprocessing": [{"type": "esrgan", "scale": 4, "strength": 0.95}],
        "sampler": "k_lms",
        "variations": [],
    },
}

# Structure: mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md and docs/Features/Prompt Syntax.
SWARM = {
    "sui_image_params": {
        "prompt": "a (red:1.2) boat<break>at [sea], <fromto[0.4]:dawn, dusk> <lora:ink:0.8>",
        "model": "Somewhere/tiny_v1",
        "seed": 1,
        "steps": "20",
        "cfgscale": 7.0,
        "aspectratio": "1:1",
        "width": 1024,
        "height": 1024,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "automaticvae": True,
        "loras": "ink,moon/light",
        "loraweights": "0.8,0.5",
        "refinerupscale": 1.5,
        "refinercontrolpercentage": 0.3,
        "refinerupscalemethod": "model-4x-Grain.pth",
        "negativeprompt": "",
        "freeublockone": 1.1,
        "swarm_version": "0.9.6.2",
    },
    "sui_extra_data": {
        "date": "2025-01-01",
        "generation_time": "6.11 (prep) and 4.84 (gen) seconds",
    },
    "sui_models": [
        {"name": "tiny_v1.safetensors", "param": "model", "hash": "0x" + "ab" * 32},
        {"name": "ink.safetensors", "param": "loras", "hash": "0x" + "cd" * 32},
    ],
}

# Structure: enslo/sd-metadata, src/parsers/novelai.ts (version 4).
NOVELAI = {
    "prompt": "1boat, {{red}}",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.5,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.2,
    "seed": 1234567890,
    "n_samples": 1,
    "noise_schedule": "native",
    "sampler": "k_euler_ancestral",
    "sm": False,
    "request_type": "PromptGenerateRequest",
    "v4_prompt": {
        "caption": {
            "base_caption": "a boat, 1.5::red::, {sea} (wide)",
            "char_captions": [{"char_caption": "a sailor", "centers": [{"x": 0.5, "y": 0.5}]}],
        },
        "use_coords": False,
        "use_order": True,
    },
    "v4_negative_prompt": {"caption": {"base_caption": "fog", "char_captions": []}},
    "uc": "fog",
}
# Structure: d3x-at/sd-parsers, tests/test_novelai.py (the first version).
NOVELAI_1 = {
    "steps": 50,
    "sampler": "k_euler_ancestral",
    "seed": 2253955223,
    "strength": 0.4,
    "noise": 0.0,
    "scale": 10.0,
    "uc": "lowres",
}

# Structure: enslo/sd-metadata, src/parsers/comfyui-civitai.ts.
CIVITAI_EXTRA = {
    "prompt": "a red boat",
    "negativePrompt": "fog",
    "cfgScale": 3.5,
    "sampler": "Euler a",
    "clipSkip": 2,
    "steps": 25,
    "seed": 77,
    "width": 832,
    "height": 1216,
    "baseModel": "SDXL",
    "resources": [{"modelVersionId": 128078, "strength": 1}],
}
CIVITAI = {
    "resource-stack": {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "urn:air:sdxl:checkpoint:civitai:101055@128078"},
    },
    "resource-stack-1": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "urn:air:sdxl:lora:civitai:122359@135867",
            "strength_model": 1.2,
            "strength_clip": 1,
            "model": ["resource-stack", 0],
            "clip": ["resource-stack", 1],
        },
    },
    "6": {
        "class_type": "smZ CLIPTextEncode",
        "inputs": {"text": "a red boat", "clip": ["resource-stack-1", 1]},
    },
    "7": {
        "class_type": "smZ CLIPTextEncode",
        "inputs": {"text": "fog", "clip": ["resource-stack-1", 1]},
    },
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 832, "height": 1216, "batch_size": 1},
    },
    "11": {
        "class_type": "KSampler",
        "inputs": {
            "sampler_name": "euler_ancestral",
            "scheduler": "normal",
            "seed": 77,
            "steps": 25,
            "cfg": 3.5,
            "denoise": 1.0,
            "model": ["resource-stack-1", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "12": {
        "class_type": "SaveImage",
        "inputs": {"images": ["13", 0], "filename_prefix": "ComfyUI"},
    },
    "13": {
        "class_type": "VAEDecode",
        "inputs": {"samples": ["11", 0], "vae": ["resource-stack", 2]},
    },
    "extra": {"airs": ["urn:air:sdxl:lora:civitai:122359@135867"]},
    "extraMetadata": json.dumps(CIVITAI_EXTRA),
}

# Structure: enslo/sd-metadata, src/parsers/easydiffusion.ts.
EASY_DIFFUSION = {
    "prompt": "a red boat",
    "negative_prompt": "fog",
    "seed": 11,
    "use_stable_diffusion_model": "C:\\Users\\somebody\\models\\tiny_v1",
    "sampler_name": "euler_a",
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
    "width": 512,
    "height": 768,
    "clip_skip": "False",
    "use_vae_model": "sharp.safetensors",
}
# Structure: kcjerrell/dtm, src/types.ts; receyuki/stable-diffusion-prompt-reader, format/drawthings.
DRAW_THINGS = {
    "c": "a red boat",
    "uc": "fog",
    "model": "tiny_v1_f16.ckpt",
    "sampler": "DPM++ 2M Karras",
    "scale": 7.5,
    "seed": 99,
    "seed_mode": "Scale Alike",
    "size": "512x768",
    "steps": 30,
    "strength": 1,
    "lora": [{"model": "ink_lora_f16.ckpt", "weight": 0.6}],
    "profile": {"duration": 12.5, "timings": []},
    "v2": {"clipSkip": 2, "hiresFix": False},
}
# Structure: enslo/sd-metadata, src/parsers/tensorart.ts.
TENSOR_ART = {
    "models": [
        {
            "label": "ink",
            "type": "LORA",
            "modelFileName": "ink",
            "weight": 0.8,
            "hash": "0123456789AB",
        }
    ],
    "prompt": "a red boat",
    "width": 768,
    "height": 1152,
    "imageCount": 1,
    "samplerName": "dpmpp_2m",
    "steps": 25,
    "cfgScale": 7,
    "seed": "4294967999",
    "clipSkip": 2,
    "baseModel": {
        "label": "Tiny",
        "type": "BASE_MODEL",
        "modelFileName": "tiny_v1",
        "hash": "AABBCCDDEE",
    },
    "negativePrompt": "fog",
}
# Structure: enslo/sd-metadata, src/parsers/stability-matrix.ts.
STABILITY_MATRIX = {
    "PositivePrompt": "a red boat",
    "NegativePrompt": "fog",
    "Width": 512,
    "Height": 768,
    "Seed": 5,
    "Steps": 20,
    "CfgScale": 6.0,
    "Sampler": "DPM++ 2M Karras",
    "ModelName": "tiny_v1.safetensors",
    "ModelHash": "0123456789",
}
# Structure: enslo/sd-metadata, src/parsers/hf-space.ts.
SPACE = {
    "prompt": "a red boat",
    "negative_prompt": "fog",
    "resolution": "832 x 1216",
    "guidance_scale": 7.0,
    "num_inference_steps": 28,
    "seed": 4,
    "sampler": "Euler a",
    "Model": "https://huggingface.co/somebody/tinyXL",
    "Model hash": "0123456789",
    "use_upscaler": None,
}


def wrap_xmp(**attributes: str) -> str:
    """Return an XMP packet with attributes, given as `xmp_CreatorTool`."""
    words = " ".join(
        f"{name.replace('_', ':')}={quoteattr(value)}" for name, value in attributes.items()
    )
    return f"<x:xmpmeta><rdf:RDF><rdf:Description {words}/></rdf:RDF></x:xmpmeta>"


FILES: dict[str, RecipeFile] = {
    "ComfyUI": RecipeFile(
        "ComfyUI",
        ImageMetadata(chunks={"prompt": dump(BASIC)}),
        BASIC_VALUES,
        files=(("model", "tiny_v1", ""),),
    ),
    "Fooocus PNG": RecipeFile(
        "Fooocus",
        ImageMetadata(chunks={"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
        FOOOCUS_VALUES,
        (
            "Styles 'Fooocus V2', 'SAI Cinematic': written out in the prompt.",
            "Not here: Fooocus' sharpness, ADM guidance, adaptive CFG; the picture will differ.",
        ),
        (("model", "tinyXL_v8", "aeb7e9e689"), ("lora", "inkXL", "4852686128")),
    ),
    "Fooocus JPEG": RecipeFile(
        "Fooocus",
        ImageMetadata(
            user_comment=json.dumps(FOOOCUS),
            exif={"MakerNote": "fooocus", "Software": "Fooocus v2.5.5"},
        ),
        FOOOCUS_VALUES,
    ),
    "Ruined Fooocus": RecipeFile(
        "Ruined Fooocus",
        ImageMetadata(chunks={"parameters": json.dumps(RUINED_FOOOCUS)}),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "steps": 24,
            "guidance": 6.5,
            "width": 1152,
            "height": 896,
            "seed": 77,
            "clip_skip": 2,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "model": "tinyXL",
            "loras": [{"name": "inkXL", "unet": 0.6, "text_encoder": 0.6}],
        },
        files=(("model", "tinyXL", "0123456789"), ("lora", "inkXL", "")),
    ),
    "Fooocus-MRE": RecipeFile(
        "Fooocus-MRE",
        ImageMetadata(chunks={"Comment": json.dumps(FOOOCUS_MRE)}),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "steps": 30,
            "guidance": 7.0,
            "width": 1024,
            "height": 1024,
            "seed": 12,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "model": "tinyXL",
            "loras": [{"name": "inkXL", "unet": 0.5, "text_encoder": 0.5}],
        },
        ("Styles Default: not here; it will differ.",),
    ),
    "InvokeAI 5": RecipeFile(
        "InvokeAI",
        ImageMetadata(chunks={"invokeai_metadata": json.dumps(INVOKE), "invokeai_graph": "{}"}),
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
        ("Not here: IP-Adapter; the picture will differ.",),
        (("model", "tinyXL", ""), ("vae", "sharp-vae", ""), ("lora", "inkXL", "")),
    ),
    "InvokeAI 3": RecipeFile(
        "InvokeAI",
        ImageMetadata(chunks={"invokeai_metadata": json.dumps(INVOKE_3)}),
        {
            "prompt": "a red boat",
            "negative_prompt": "",
            "width": 512,
            "height": 512,
            "seed": 5,
            "guidance": 8.0,
            "steps": 20,
            "scheduler": "Euler",
            "model": "tiny",
            "loras": [{"name": "ink", "unet": 0.75, "text_encoder": 0.75}],
        },
        ("Its noise was drawn on 'cuda': the same seed is another picture here.",),
    ),
    "InvokeAI 2": RecipeFile(
        "InvokeAI",
        ImageMetadata(
            chunks={
                "sd-metadata": json.dumps(INVOKE_2),
                "Dream": '"a red boat [fog] on water [blurry]" -s 50 -S 2980747362',
            }
        ),
        {
            "prompt": "a red boat on water",
            "negative_prompt": "fog, blurry",
            "width": 512,
            "height": 768,
            "seed": 2980747362,
            "guidance": 5.0,
            "steps": 50,
            "scheduler": "LMS",
            "model": "tiny_v1",
        },
        ("Not here: what was done to the finished picture; the picture will differ.",),
        (("model", "tiny_v1", INVOKE_2["model_hash"]),),
    ),
    # Structure: CompVis/stable-diffusion, docs/features/CLI.md (lstein's fork); d3x-at/sd-parsers.
    "InvokeAI 1": RecipeFile(
        "InvokeAI",
        ImageMetadata(
            chunks={
                "Dream": '"a "red" boat [fog]" -s50 -S 416354203 -W 512 -H 640 -C 7.5 -A k_euler_a'
            }
        ),
        {
            "prompt": 'a "red" boat',
            "negative_prompt": "fog",
            "width": 512,
            "height": 640,
            "seed": 416354203,
            "guidance": 7.5,
            "steps": 50,
            "scheduler": "Euler a",
        },
    ),
    "SwarmUI PNG": RecipeFile(
        "SwarmUI",
        ImageMetadata(chunks={"parameters": json.dumps(SWARM, indent=2)}),
        {
            "negative_prompt": "",
            "seed": 1,
            "steps": 20,
            "guidance": 7.0,
            "width": 1024,
            "height": 1024,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "model": "tiny_v1",
            "loras": [
                {"name": "ink", "unet": 0.8, "text_encoder": 0.8},
                {"name": "light", "unet": 0.5, "text_encoder": 0.5},
            ],
            "hires_scale": 1.5,
            "hires_strength": 0.3,
            "hires_resize": "pixel",
            "hires_upscaler": "4x-Grain",
        },
        ("Not taken over: freeublockone.",),
        (
            ("model", "tiny_v1", "ab" * 32),
            ("lora", "ink", "cd" * 32),
            ("lora", "light", ""),
            ("upscaler", "4x-Grain", ""),
        ),
    ),
    "SwarmUI JPEG": RecipeFile(
        "SwarmUI",
        ImageMetadata(
            user_comment=json.dumps({"sui_image_params": {"prompt": "a boat", "seed": 3}})
        ),
        {"prompt": "a boat", "seed": 3},
    ),
    # Structure: Stability-AI/StableSwarmUI, EXIF's Model before version 0.6.
    "StableSwarmUI": RecipeFile(
        "SwarmUI",
        ImageMetadata(exif={"Model": json.dumps({"sui_image_params": {"prompt": "a boat"}})}),
        {"prompt": "a boat"},
    ),
    "NovelAI 4": RecipeFile(
        "NovelAI",
        ImageMetadata(
            chunks={
                "Title": "NovelAI generated image",
                "Software": "NovelAI",
                "Source": "NovelAI Diffusion V4 37442FCA",
                "Description": "a boat",
                "Comment": json.dumps(NOVELAI),
            }
        ),
        {
            "prompt": r"a boat, (red:1.5), (sea:1.05) \(wide\), a sailor",
            "negative_prompt": "fog",
            "steps": 28,
            "width": 832,
            "height": 1216,
            "guidance": 5.5,
            "guidance_rescale": 0.2,
            "seed": 1234567890,
            "scheduler": "Euler a",
        },
        (
            "Characters with prompts and places of their own: 1. Here all are one prompt: it will "
            "differ.",
            "NovelAI's model (NovelAI Diffusion V4 37442FCA) is not to be had; choose one: the "
            "picture will differ.",
        ),
    ),
    "NovelAI 1": RecipeFile(
        "NovelAI",
        ImageMetadata(
            chunks={
                "Software": "NovelAI",
                "Source": "Stable Diffusion 1D44365E",
                "Description": "best quality, {{boat}}, [fog]",
                "Comment": json.dumps(NOVELAI_1),
            },
            size=(512, 768),
        ),
        {
            "prompt": "best quality, (boat:1.1025), (fog:0.9524)",
            "negative_prompt": "lowres",
            "steps": 50,
            "guidance": 10.0,
            "seed": 2253955223,
            "scheduler": "Euler a",
            "width": 512,
            "height": 768,
            "strength": 0.4,
        },
        (
            "NovelAI's model (Stable Diffusion 1D44365E) is not to be had; choose one: the picture "
            "will differ.",
            "It was made from another picture, which the file does not hold.",
        ),
    ),
    "NovelAI hidden": RecipeFile(
        "NovelAI",
        ImageMetadata(
            hidden=json.dumps(
                {"Software": "NovelAI", "Description": "a boat", "Comment": json.dumps(NOVELAI_1)}
            )
        ),
        {"prompt": "a boat", "negative_prompt": "lowres", "steps": 50, "seed": 2253955223}
        | {"guidance": 10.0, "scheduler": "Euler a", "strength": 0.4},
    ),
    "Civitai": RecipeFile(
        "Civitai",
        ImageMetadata(user_comment=json.dumps(CIVITAI)),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "steps": 25,
            "guidance": 3.5,
            "clip_skip": 2,
            "seed": 77,
            "width": 832,
            "height": 1216,
            "scheduler": "Euler a",
            "vae": "",
        },
        ("Its sampler adds noise at each step, there from another source: it differs.",),
    ),
    "Easy Diffusion JPEG": RecipeFile(
        "Easy Diffusion",
        ImageMetadata(user_comment=json.dumps(EASY_DIFFUSION)),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 11,
            "steps": 25,
            "guidance": 7.5,
            "width": 512,
            "height": 768,
            "scheduler": "Euler a",
            "model": "tiny_v1",
            "vae": "sharp",
        },
        ("Not taken over: clip_skip.",),
        (("model", "tiny_v1", ""), ("vae", "sharp", "")),
    ),
    "Easy Diffusion PNG": RecipeFile(
        "Easy Diffusion",
        ImageMetadata(
            chunks={
                "Prompt": "a red boat",
                "Negative Prompt": "fog",
                "Seed": "11",
                "Stable Diffusion model": "tiny_v1",
                "Sampler": "euler_a",
                "Steps": "25",
                "Guidance Scale": "7.5",
                "Width": "512",
                "Height": "768",
            }
        ),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 11,
            "steps": 25,
            "guidance": 7.5,
            "width": 512,
            "height": 768,
            "scheduler": "Euler a",
            "model": "tiny_v1",
        },
    ),
    "Draw Things": RecipeFile(
        "Draw Things",
        ImageMetadata(
            xmp=wrap_xmp(xmp_CreatorTool="Draw Things", exif_UserComment=json.dumps(DRAW_THINGS))
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
        (
            "Its noise is made in its own way (Scale Alike): it will differ.",
            "Not taken over: strength.",
        ),
    ),
    "Tensor.Art": RecipeFile(
        "Tensor.Art",
        ImageMetadata(
            chunks={"generation_data": json.dumps(TENSOR_ART) + "\0", "prompt": dump(BASIC)}
        ),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 703,
            "steps": 25,
            "guidance": 7.0,
            "width": 768,
            "height": 1152,
            "scheduler": "DPM++ 2M",
            "clip_skip": 2,
            "model": "tiny_v1",
            "loras": [{"name": "ink", "unet": 0.8, "text_encoder": 0.8}],
        },
        ("Not taken over: imageCount.",),
        (("model", "tiny_v1", "aabbccddee"), ("lora", "ink", "0123456789ab")),
    ),
    "Stability Matrix": RecipeFile(
        "Stability Matrix",
        ImageMetadata(
            chunks={
                "parameters-json": json.dumps(STABILITY_MATRIX),
                "smproj": "{}",
                "prompt": dump(BASIC),
            }
        ),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 5,
            "steps": 20,
            "guidance": 6.0,
            "width": 512,
            "height": 768,
            "scheduler": "DPM++ 2M",
            "noise_schedule": "Karras",
            "model": "tiny_v1",
        },
        files=(("model", "tiny_v1", "0123456789"),),
    ),
    "Space": RecipeFile(
        "a Space of Hugging Face",
        ImageMetadata(chunks={"parameters": json.dumps(SPACE)}),
        {
            "prompt": "a red boat",
            "negative_prompt": "fog",
            "seed": 4,
            "steps": 28,
            "guidance": 7.0,
            "width": 832,
            "height": 1216,
            "scheduler": "Euler a",
            "model": "tinyXL",
        },
    ),
    # Structure: a note of Peter Kaminski's wiki on exiftool and Midjourney.
    "Midjourney": RecipeFile(
        "Midjourney",
        ImageMetadata(
            chunks={
                "Author": "somebody",
                "Description": "a red boat, wide --no fog, rain --ar 2:1 --v 6 "
                "Job ID: a7421d2f-b262-44f9-977c-ac23e9c7d3e3",
            }
        ),
        {"prompt": "a red boat, wide", "negative_prompt": "fog, rain"},
        (
            "Not taken over: '--no fog, rain --ar 2:1 --v 6'.",
            "Midjourney writes no settings that can be used here; its prompt is taken.",
        ),
    ),
    # Structure: the credit that Google's image models write (photoshop:Credit in XMP).
    "Google": RecipeFile(
        "Google's Gemini or Imagen",
        ImageMetadata(xmp="<photoshop:Credit>Made with Google AI</photoshop:Credit>"),
        {},
        ("Google's Gemini or Imagen writes no settings that can be used here.",),
    ),
    "Firefly": RecipeFile(
        "Adobe Firefly",
        ImageMetadata(xmp=wrap_xmp(xmp_CreatorTool="Adobe Firefly")),
        {},
        ("Adobe Firefly writes no settings that can be used here.",),
    ),
    "ChatGPT": RecipeFile(
        "ChatGPT (DALL·E)",
        ImageMetadata(exif={"Software": "OpenAI ChatGPT"}),
        {},
        ("ChatGPT (DALL·E) writes no settings that can be used here.",),
    ),
    # Structure: the IPTC's digital source type, as the newscodes page writes it.
    "IPTC": RecipeFile(
        "a program that calls it made by AI",
        ImageMetadata(
            xmp=wrap_xmp(
                Iptc4xmpExt_DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/"
                "trainedAlgorithmicMedia"
            )
        ),
        {},
        ("A program that calls it made by AI writes no settings that can be used here.",),
    ),
}


def copy_metadata(metadata: ImageMetadata) -> dict[str, Any]:
    """Return the parts of a file's metadata, to be changed."""
    return copy.deepcopy(dict(vars(metadata)))
