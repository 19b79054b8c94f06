"""ComfyUI graphs as people's files hold them: built by hand, every name and number invented."""

from __future__ import annotations

import copy
import json
from typing import Any

# Structure: comfyanonymous/ComfyUI, script_examples/basic_api_example.py (the default graph).
BASIC: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "cfg": 8,
            "denoise": 1,
            "latent_image": ["5", 0],
            "model": ["4", 0],
            "negative": ["7", 0],
            "positive": ["6", 0],
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "seed": 8566257,
            "steps": 20,
        },
    },
    "4": {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "sd15\\tiny_v1.safetensors"},
    },
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"batch_size": 1, "height": 768, "width": 512},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a red boat"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "fog, blurry"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}
BASIC_VALUES = {
    "prompt": "a red boat",
    "negative_prompt": "fog, blurry",
    "seed": 8566257,
    "steps": 20,
    "guidance": 8.0,
    "scheduler": "DPM++ 2M",
    "noise_schedule": "Karras",
    "width": 512,
    "height": 768,
    "model": "tiny_v1",
    "vae": "",
}

# Structure: Comfy-Org/ComfyUI_frontend, src/scripts/defaultGraph.ts (the same graph as drawn).
DRAWN: dict[str, Any] = {
    "last_node_id": 12,
    "last_link_id": 12,
    "nodes": [
        {
            "id": 7,
            "type": "CLIPTextEncode",
            "mode": 0,
            "inputs": [{"name": "clip", "type": "CLIP", "link": 5}],
            "outputs": [{"name": "CONDITIONING", "type": "CONDITIONING", "links": [6]}],
            "widgets_values": ["fog, blurry"],
        },
        {
            "id": 6,
            "type": "CLIPTextEncode",
            "mode": 0,
            "inputs": [{"name": "clip", "type": "CLIP", "link": 3}],
            "outputs": [{"name": "CONDITIONING", "type": "CONDITIONING", "links": [4]}],
            "widgets_values": ["a red boat"],
        },
        {
            "id": 5,
            "type": "EmptyLatentImage",
            "mode": 0,
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": [2]}],
            "widgets_values": [512, 768, 1],
        },
        {
            "id": 3,
            "type": "KSampler",
            "mode": 0,
            "inputs": [
                {"name": "model", "type": "MODEL", "link": 1},
                {"name": "positive", "type": "CONDITIONING", "link": 4},
                {"name": "negative", "type": "CONDITIONING", "link": 6},
                {"name": "latent_image", "type": "LATENT", "link": 12},
                {"name": "steps", "type": "INT", "link": 11, "widget": {"name": "steps"}},
            ],
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": [7]}],
            "widgets_values": [8566257, "randomize", 99, 8, "dpmpp_2m", "karras", 1],
        },
        {
            "id": 8,
            "type": "VAEDecode",
            "mode": 0,
            "inputs": [
                {"name": "samples", "type": "LATENT", "link": 7},
                {"name": "vae", "type": "VAE", "link": 8},
            ],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [9]}],
        },
        {
            "id": 9,
            "type": "SaveImage",
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 9}],
            "widgets_values": ["ComfyUI"],
        },
        {
            "id": 4,
            "type": "CheckpointLoaderSimple",
            "mode": 0,
            "outputs": [
                {"name": "MODEL", "type": "MODEL", "links": [10]},
                {"name": "CLIP", "type": "CLIP", "links": [3, 5]},
                {"name": "VAE", "type": "VAE", "links": [8]},
            ],
            "widgets_values": ["sd15/tiny_v1.safetensors"],
        },
        {  # bypassed: hands the model on
            "id": 10,
            "type": "LoraLoaderModelOnly",
            "mode": 4,
            "inputs": [{"name": "model", "type": "MODEL", "link": 10}],
            "outputs": [{"name": "MODEL", "type": "MODEL", "links": [1]}],
            "widgets_values": ["ink.safetensors", 1],
        },
        {
            "id": 11,
            "type": "Reroute",
            "mode": 0,
            "inputs": [{"name": "", "type": "*", "link": 2}],
            "outputs": [{"name": "", "type": "LATENT", "links": [12]}],
        },
        {
            "id": 12,
            "type": "PrimitiveNode",
            "mode": 0,
            "outputs": [{"name": "INT", "type": "INT", "links": [11]}],
            "widgets_values": [20, "fixed"],
        },
    ],
    "links": [
        [1, 10, 0, 3, 0, "MODEL"],
        [2, 5, 0, 11, 0, "LATENT"],
        [3, 4, 1, 6, 0, "CLIP"],
        [4, 6, 0, 3, 1, "CONDITIONING"],
        [5, 4, 1, 7, 0, "CLIP"],
        [6, 7, 0, 3, 2, "CONDITIONING"],
        [7, 3, 0, 8, 0, "LATENT"],
        [8, 4, 2, 8, 1, "VAE"],
        [9, 8, 0, 9, 0, "IMAGE"],
        [10, 4, 0, 10, 0, "MODEL"],
        [11, 12, 0, 3, 4, "INT"],
        [12, 11, 0, 3, 3, "LATENT"],
    ],
    "version": 0.4,
}

# Structure: comfyanonymous/ComfyUI, comfy_extras/nodes_custom_sampler.py; the blueprint is the
# example that the project publishes for Flux (comfyanonymous.github.io/ComfyUI_examples/flux).
FLUX: dict[str, Any] = {
    "13": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["25", 0],
            "guider": ["22", 0],
            "sampler": ["16", 0],
            "sigmas": ["17", 0],
            "latent_image": ["27", 0],
        },
    },
    "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": 219670278747233}},
    "22": {"class_type": "BasicGuider", "inputs": {"model": ["30", 0], "conditioning": ["26", 0]}},
    "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["11", 0]}},
    "11": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5.safetensors"}},
    "30": {
        "class_type": "ModelSamplingFlux",
        "inputs": {
            "max_shift": 1.15,
            "base_shift": 0.5,
            "width": 1024,
            "height": 1024,
            "model": ["12", 0],
        },
    },
    "12": {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": "flux1-dev.sft", "weight_dtype": "default"},
    },
    "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "17": {
        "class_type": "BasicScheduler",
        "inputs": {"scheduler": "simple", "steps": 20, "denoise": 1, "model": ["30", 0]},
    },
    "27": {
        "class_type": "EmptySD3LatentImage",
        "inputs": {"width": 1024, "height": 1024, "batch_size": 1},
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 0]}},
    "10": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}


def changed(graph: dict[str, Any], **nodes: Any) -> dict[str, Any]:
    """Return a copy with other inputs, or other nodes; `n12={…}` is node 12."""
    copied = copy.deepcopy(graph)
    for name, values in nodes.items():
        node_id = name.removeprefix("n")
        if "class_type" in values:
            copied[node_id] = values
        else:
            copied[node_id]["inputs"].update(values)
    return copied


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """Return a node of a graph that is run."""
    return {"class_type": kind, "inputs": inputs}


# Two passes: comfyanonymous.github.io/ComfyUI_examples/2_pass_txt2img.
HIRES = changed(
    BASIC,
    n10=node(
        "LatentUpscale", upscale_method="nearest-exact", width=1024, height=1536, samples=["3", 0]
    ),
    n11=node(
        "KSampler",
        seed=469771404043268,
        steps=14,
        cfg=8,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=0.5,
        model=["4", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["10", 0],
    ),
    n8={"samples": ["11", 0]},
)


def dump(graph: Any) -> str:
    return json.dumps(graph)
