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
from support.recipe_texts import (
    CIVITAI,
    DRAW_THINGS,
    EASY_DIFFUSION,
    FOOOCUS,
    FOOOCUS_MRE,
    FOOOCUS_VALUES,
    INVOKE,
    INVOKE_2,
    INVOKE_3,
    NOVELAI,
    NOVELAI_1,
    RUINED_FOOOCUS,
    SPACE,
    STABILITY_MATRIX,
    SWARM,
    TENSOR_ART,
)


@dataclass(frozen=True)
class RecipeFile:
    """A file and what is to be read from it."""

    program: str
    metadata: ImageMetadata
    values: dict[str, Any]
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, str, str], ...] = field(default=())


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
            "Not available here: Fooocus' sharpness, ADM guidance, adaptive CFG; the image will differ.",
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
        ("Styles Default: not available here; the image will differ.",),
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
        ("Not available here: IP-Adapter; the image will differ.",),
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
        ("Not available here: what was done to the finished image; the image will differ.",),
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
        ("Not loaded: freeublockone.",),
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
            "Characters with their own prompts and positions: 1. Here all become one prompt: the image will differ.",
            "NovelAI's model (NovelAI Diffusion V4 37442FCA) is not available; choose another: the image will differ.",
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
            "NovelAI's model (Stable Diffusion 1D44365E) is not available; choose another: the image will differ.",
            "It was made from another image, which is not in the file.",
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
        (
            "Its sampler adds noise at each step, from a different source there: the image will differ.",
        ),
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
        (),
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
            "Its noise is generated in its own way (Scale Alike): the image will differ.",
            "Not loaded: strength.",
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
        ("Not loaded: imageCount.",),
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
            "Not loaded: '--no fog, rain --ar 2:1 --v 6'.",
            "Midjourney saves no settings that can be used here; its prompt is used.",
        ),
    ),
    # Structure: the credit that Google's image models write (photoshop:Credit in XMP).
    "Google": RecipeFile(
        "Google's Gemini or Imagen",
        ImageMetadata(xmp="<photoshop:Credit>Made with Google AI</photoshop:Credit>"),
        {},
        ("Google's Gemini or Imagen saves no settings that can be used here.",),
    ),
    "Firefly": RecipeFile(
        "Adobe Firefly",
        ImageMetadata(xmp=wrap_xmp(xmp_CreatorTool="Adobe Firefly")),
        {},
        ("Adobe Firefly saves no settings that can be used here.",),
    ),
    "ChatGPT": RecipeFile(
        "ChatGPT (DALL·E)",
        ImageMetadata(exif={"Software": "OpenAI ChatGPT"}),
        {},
        ("ChatGPT (DALL·E) saves no settings that can be used here.",),
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
        ("A program that calls it made by AI saves no settings that can be used here.",),
    ),
}


def copy_metadata(metadata: ImageMetadata) -> dict[str, Any]:
    """Return the parts of a file's metadata, to be changed."""
    return copy.deepcopy(dict(vars(metadata)))
