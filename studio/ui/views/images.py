"""One image as HTML and words: what stands where it will be, how it was made, what it will take.

Knows: how a request reads (templates/images.html). Does not know: gradio, jobs, where on the page
it stands.
"""

from __future__ import annotations

from typing import Any

from studio.core.generation.geometry import upscale_size
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.storage.gallery import GeneratedImage
from studio.ui.views.common import format_duration
from studio.ui.views.templates import render_macro

SIDE_NAMES = ("left", "top", "right", "bottom")
Fact = tuple[str, object]  # name and value of a setting


def _render(macro_name: str, **arguments: Any) -> str:
    return render_macro("images.html", macro_name, **arguments)


def render_placeholder(heading: str, text: str) -> str:
    """Render what stands where an image will be."""
    return _render("placeholder", heading=heading, text=text)


def render_cell_label(text: str) -> str:
    """Render the values of a sweep's cell, above its image's settings."""
    return _render("cell_label", text=text)


def render_step_count(num_steps: int, text: str) -> str:
    """Render how many steps really run, in words."""
    return _render("step_count", num_steps=num_steps, text=text)


def render_note(text: str) -> str:
    """Render the line that stands where an estimate would."""
    return _render("estimate", text=text)


def render_carried_settings(heading: str, details: str, image_url: str) -> str:
    """Render settings that are painted along though the tab does not show them.

    Args:
        heading: What is done with the image.
        details: The settings in a line.
        image_url: Of the image; empty without one.
    """
    return _render("carried_settings", heading=heading, details=details, image_url=image_url)


RESULT_PLACEHOLDER = render_placeholder(
    "Your image will appear here.",
    "Describe it and press Generate, or Ctrl + Enter. The embedded model knows a small world: try "
    "“a photo of a red ball on a beach”.",
)


def render_denoise_strip(url: str) -> str:
    """Render the sheet at `url` as a link to itself."""
    return _render("denoise_strip", url=url)


def render_image_settings(image: GeneratedImage | None) -> str:
    """Render what an image was made with; nothing for None."""
    if image is None:
        return ""
    request = image.settings
    if request is None:
        return _render("settings", prompt="", negative_prompt="", facts=_list_file_facts(image))
    return _render(
        "settings",
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        facts=[
            *_list_upscale_facts(image),
            *_list_basic_settings(image),
            *_list_source_settings(request),
            *_list_hires_settings(request),
        ],
    )


def _list_upscale_facts(image: GeneratedImage) -> list[Fact]:
    """Return how an image was made larger without painting."""
    if image.upscale is None:
        return []
    return [("Upscaled", f"× {image.upscale.scale:g} with {image.upscale.upscaler}")]


def _list_file_facts(image: GeneratedImage) -> list[Fact]:
    """Return what is known of an image whose settings are not."""
    facts = _list_upscale_facts(image)
    if image.size:
        facts.append(("Size", f"{image.size[0]} × {image.size[1]}"))
    return [*facts, ("Took", format_duration(image.seconds))]


def _list_basic_settings(image: GeneratedImage) -> list[Fact]:
    request = image.request
    painted_size = (request.width, request.height)
    file_size = image.size or painted_size
    steps = f"{request.steps}"
    if request.effective_steps != request.steps:
        steps = f"{request.effective_steps} of {request.steps}"
    facts: list[Fact] = [("Stopped", f"at {image.stopped_at}")] if image.stopped_at else []
    facts += [
        ("Model", request.model),
        ("Size", f"{file_size[0]} × {file_size[1]}"),
        ("Steps", steps),
        ("CFG scale", f"{request.guidance:g}"),
        ("Sampler", f"{request.scheduler} · {request.noise_schedule}"),
        ("Seed", request.seed),
        ("Took", format_duration(image.seconds)),
    ]
    if file_size != painted_size:
        facts.append(("Generated at", f"{painted_size[0]} × {painted_size[1]}"))
    if request.clip_skip > 1:
        facts.append(("Clip skip", request.clip_skip))
    if request.vae:
        facts.append(("VAE", request.vae))
    if request.is_guided and request.guidance_rescale:
        facts.append(("CFG rescale", f"{request.guidance_rescale:g}"))
    if request.batch_size > 1:
        facts.append(("Batch size", request.batch_size))
    for use in request.with_inline_loras().loras:
        facts.append((f"LoRA {use.name}", format_lora_weights(use)))
    return facts


def _list_source_settings(request: GenerationRequest) -> list[Fact]:
    """Return how the input image of a request is used."""
    facts: list[Fact] = []
    if request.image:
        facts.append(("Denoising strength", f"{request.strength:g}"))
    if request.task == "inpaint":
        mask = f"blur {request.mask_blur} px"
        if request.invert_mask:
            mask = f"inverted, {mask}"
        if request.mask_grow:
            mask += f", grown by {request.mask_grow} px"
        facts.append(("Mask", mask))
        facts.append(("Masked content", request.masked_content))
    if request.task == "outpaint":
        sides = [f"{name} {px}" for name, px in zip(SIDE_NAMES, request.extension) if px]
        facts.append(("Extended", ", ".join(sides)))
        facts.append(("Filled with", request.extend_fill))
    if request.is_masked:
        area = "whole image"  # the field keeps A1111's word
        if request.inpaint_area == "only masked":
            area = f"only masked, padding {request.mask_padding} px"
        facts.append(("Inpaint area", area))
    elif request.image:
        facts.append(("Resize mode", request.resize_mode))
    return facts


def _list_hires_settings(request: GenerationRequest) -> list[Fact]:
    if not request.has_hires_pass:
        return []
    hires = (
        f"× {request.hires_scale:g}, {request.hires_effective_steps} steps, "
        f"strength {request.hires_strength:g}, {request.hires_resize}"
    )
    if request.active_upscaler:
        hires += f" by {request.active_upscaler}"
    if request.hires_tile:
        hires += f", tiles of {request.hires_tile} px"
    return [("Hires", hires)]


def format_lora_weights(use: LoraUse) -> str:
    """Return the weights of a LoRA in a few words."""
    if use.unet == use.text_encoder:
        return f"{use.unet:g}"
    return f"{use.unet:g} image, {use.text_encoder:g} text"


def describe_estimate(request: GenerationRequest, rate: float | None, work: float) -> str:
    """Return in a line what a request will take, before it is sent.

    Args:
        request: What is asked for, with its size and steps filled in.
        rate: Seconds per unit of `work`, as measured here; None if nothing was.
        work: Work of one image.
    """
    steps = []
    if request.effective_steps or not request.has_hires_pass:
        steps.append(f"{request.effective_steps} steps")
    if request.has_hires_pass:
        steps.append(f"{request.hires_effective_steps} hires steps")
    total_steps = " + ".join(steps)
    if request.num_images > 1:
        total_steps += f" × {request.num_images} images"
    parts = [total_steps]
    if request.has_hires_pass:
        size = (request.width or 0, request.height or 0)
        width, height = upscale_size(size, request.hires_scale)
        parts.append(f"{width} × {height}")
    if not request.is_guided:
        parts.append("CFG off: the negative prompt has no effect")
    if rate:
        parts.append(f"about {format_duration(rate * work * request.num_images)}")
    else:
        parts.append("time not measured on this machine yet")
    return " · ".join(parts)
