"""Settings as many programs write them: built by hand in their structure, all details invented.

Each has the public source of its structure beside it.
"""

from __future__ import annotations

import json

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
        "inputs": {
            "text": "a red boat",
            "parser": "A1111",
            "mean_normalization": True,
            "clip": ["resource-stack-1", 1],
        },
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
