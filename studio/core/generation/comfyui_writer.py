"""A request as ComfyUI's API graph, of the nodes that ComfyUI itself has.

Knows: those nodes, their inputs, ComfyUI's names of samplers and schedules. Does not know: files
(imaging/encode.py), how words are weighed there (comfyui_words.py), how a graph is read (recipes/).

What those nodes cannot do is refused by name, never left out: masks, tiles, a sampler that is not
there. The picture is not the same bit for bit (comfyui_differences.py).

Source: its modules nodes and comfy_extras (nodes_model_advanced, nodes_upscale_model), and names in
comfy.samplers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.core.base import field_meta
from studio.core.catalog import (
    AUTOMATIC,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
    get_automatic_schedule,
)
from studio.core.families.registry import FAMILIES
from studio.core.generation.comfyui_differences import find_denoise, list_differences
from studio.core.generation.comfyui_words import format_pass
from studio.core.generation.geometry import upscale_size
from studio.core.generation.prompt_plans import plan_hires_pass, plan_pass
from studio.core.generation.recipes.clip_skip import count_from_last_layer
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.used_files import UsedFiles, shorten_name
from studio.errors import InvalidSpec

# The catalog's other samplers are none of ComfyUI's.
SAMPLERS: dict[Scheduler, str] = {
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "Heun": "heun",
    "LMS": "lms",
    "DPM2": "dpm_2",
    "DPM2 a": "dpm_2_ancestral",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "dpmpp_2m_sde_heun",
    "DPM++ SDE": "dpmpp_sde",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "UniPC": "uni_pc",
    "DEIS": "deis",
    "LCM": "lcm",
    "SA-Solver": "sa_solver",
}
SCHEDULES: dict[NoiseSchedule, str] = {
    "Karras": "karras",
    "Exponential": "exponential",
    "Beta": "beta",
    "Uniform": "normal",
    "SGM Uniform": "sgm_uniform",
    "Simple": "simple",
    "DDIM": "ddim_uniform",
    "KL Optimal": "kl_optimal",
    "Linear Quadratic": "linear_quadratic",
}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v_prediction", "sample": "x0"}
# Settings that the graph says, or that decide nothing in it.
_SAID_FIELDS = frozenset(
    {
        *("prompt", "negative_prompt", "model", "width", "height", "steps", "guidance", "seed"),
        *("scheduler", "noise_schedule", "clip_skip", "loras", "image", "strength", "vae"),
        *("resize_mode", "hires_scale", "hires_resize", "hires_steps", "hires_strength"),
        *("hires_upscaler", "guidance_rescale", "num_images", "batch_size", "prompt_syntax"),
        *("hires_overlap", "emphasis"),
    }
)
_ZEROED_FAMILIES = ("sdxl",)  # an empty negative prompt is zeros, as the base model's config says
Link = list[str | int]  # a node's id and the number of its output


@dataclass
class ComfyGraph:
    """A graph, and what one has to know before it runs.

    Attributes:
        nodes: By id, as ComfyUI's API takes them.
        notes: A sentence for each file that has to be put somewhere, and for what will differ.
    """

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, class_type: str, **inputs: Any) -> str:
        """Add a node; return its id."""
        node_id = str(len(self.nodes) + 1)
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id


def build_graph(request: ResolvedRequest, used_files: UsedFiles) -> ComfyGraph:
    """Return the graph of one image.

    Args:
        request: Of this one image.
        used_files: The files that it was made with.

    Raises:
        InvalidSpec: Names all that ComfyUI's own nodes cannot do.
    """
    faults = _find_faults(request, used_files)
    embeddings = used_files.list_hashes("embedding")
    plans = [plan_pass(request)]
    if request.has_hires_pass:
        plans.append(plan_hires_pass(request))
    texts = [format_pass(plan, embeddings, faults) for plan in plans]
    if faults:
        raise InvalidSpec(faults)
    graph = ComfyGraph()
    model, clip, vae = _add_model(graph, request, used_files)
    has_zeros = used_files.family in _ZEROED_FAMILIES and not request.negative_prompt
    conditionings = _add_conditionings(graph, texts, clip, has_zeros=has_zeros)
    latent = _add_start(graph, request, vae)
    graph.notes += list_differences(request, plans)
    sampler_inputs = _get_sampler_inputs(request, model)
    if request.image:
        steps = request.effective_steps
        denoise = find_denoise(request.steps, request.strength)
    else:
        steps, denoise = request.steps, 1.0
    if steps:
        node = graph.add(
            "KSampler",
            **sampler_inputs,
            **conditionings[0],
            latent_image=latent,
            steps=steps,
            denoise=denoise,
        )
        latent = [node, 0]
    if request.has_hires_pass:
        latent = _add_hires_pass(graph, request, vae, latent)
        graph.nodes[str(latent[0])]["inputs"] |= sampler_inputs | conditionings[1]
    decoded = graph.add("VAEDecode", samples=latent, vae=vae)
    graph.add("SaveImage", images=[decoded, 0], filename_prefix="studio")
    return graph


def _find_faults(request: ResolvedRequest, used_files: UsedFiles) -> list[str]:
    """Return a sentence for each thing that ComfyUI's own nodes cannot do."""
    faults = []
    if used_files.get("model") is None:
        faults.append(
            f"Model: ComfyUI loads single-file checkpoints, and {shorten_name(request.model)} is "
            "not one."
        )
    overrides = dict(used_files.overrides)
    if "zero_snr" in overrides and "prediction_type" not in overrides:
        faults.append(
            "Model: its zero terminal SNR was set here but its prediction type was not, and "
            "ComfyUI's node needs both; set both under Model settings."
        )
    faults += _find_sampler_faults(request)
    if request.emphasis == "No norm" and "emphasis" not in request.inactive_fields:
        faults.append(
            "Emphasis: ComfyUI's text node has no No norm; its own emphasis is closest to compel."
        )
    if request.image and request.resize_mode == "fill" and not request.is_masked:
        faults.append("Resize mode: ComfyUI's own nodes do not fill edges.")
    for name, info in GenerationRequest.model_fields.items():
        neutral = field_meta(GenerationRequest, name).get("neutral", [info.default])[0]
        is_neutral = getattr(request, name) in (neutral, info.default)
        if name not in _SAID_FIELDS and name not in request.inactive_fields and not is_neutral:
            faults.append(f"{info.title}: ComfyUI's own nodes have no equivalent.")
    return faults


def _find_sampler_faults(request: GenerationRequest) -> list[str]:
    faults = []
    if request.scheduler not in SAMPLERS:
        faults.append(f"Sampler: ComfyUI has no {request.scheduler}.")
    schedule = _get_schedule(request)
    if schedule in SCHEDULES:
        return faults
    if SCHEDULES.keys() & SCHEDULERS[request.scheduler].noise_schedules:
        faults.append(f"Schedule: ComfyUI's KSampler has no {schedule}; choose another.")
    else:
        faults.append(
            f"Schedule: ComfyUI's KSampler has no {schedule}, and {request.scheduler} supports "
            "nothing else here; choose another sampler."
        )
    return faults


def _get_schedule(request: GenerationRequest) -> NoiseSchedule:
    """Return a request's schedule by its name, also where it is the one that suits."""
    if request.noise_schedule == AUTOMATIC:
        return get_automatic_schedule(request.scheduler)
    return request.noise_schedule


def _get_lora_file_name(used_files: UsedFiles, name: str) -> str:
    names = {file.name: file.file_name for file in used_files.files if file.kind == "lora"}
    return names.get(name) or f"{shorten_name(name)}.safetensors"


def _add_model(
    graph: ComfyGraph, request: ResolvedRequest, used_files: UsedFiles
) -> tuple[Link, Link, Link]:
    """Add what loads the model, its LoRAs and its VAE; return the three links."""
    model_file = used_files.get("model")
    default_name = f"{shorten_name(request.model)}.safetensors"
    file_name = (model_file and model_file.file_name) or default_name
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=file_name)
    model: Link = [checkpoint, 0]
    clip: Link = [checkpoint, 1]
    vae: Link = [checkpoint, 2]
    for use in request.loras:
        node = graph.add(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=_get_lora_file_name(used_files, use.name),
            strength_model=use.unet,
            strength_clip=use.text_encoder,
        )
        model, clip = [node, 0], [node, 1]
    model = _add_overrides(graph, request, dict(used_files.overrides), model)
    if request.clip_skip > 1:
        number = count_from_last_layer(request.clip_skip, FAMILIES.get(used_files.family))
        node = graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-number)
        clip = [node, 0]
    vae_file = used_files.get("vae")
    if vae_file or request.vae:
        name = vae_file.file_name if vae_file else f"{shorten_name(request.vae)}.safetensors"
        vae = [graph.add("VAELoader", vae_name=name), 0]
    return model, clip, vae


def _add_overrides(
    graph: ComfyGraph, request: ResolvedRequest, overrides: Mapping[str, str], model: Link
) -> Link:
    """Add what its owner decided about the model, and the rescaling of its guidance."""
    if overrides.keys() & {"prediction_type", "zero_snr"}:
        node = graph.add(
            "ModelSamplingDiscrete",
            model=model,
            sampling=_PREDICTIONS.get(overrides.get("prediction_type", ""), "eps"),
            zsnr=overrides.get("zero_snr") == "True",
        )
        model = [node, 0]
    if request.guidance_rescale and request.is_guided:
        multiplier = request.guidance_rescale
        model = [graph.add("RescaleCFG", model=model, multiplier=multiplier), 0]
    return model


def _add_conditionings(
    graph: ComfyGraph, texts: list[dict[str, str]], clip: Link, *, has_zeros: bool
) -> list[dict[str, Link]]:
    """Add both prompts; a second pass has its own where words change on the way to it.

    Args:
        graph: What they are added to.
        texts: Both, pass by pass.
        clip: The text encoder.
        has_zeros: Whether the negative prompt is zeros, no text.
    """
    passes: list[dict[str, Link]] = []
    for words in texts:
        links: dict[str, Link] = {}
        for name, text in words.items():
            if passes and text == texts[0][name]:
                links[name] = passes[0][name]
            elif has_zeros and name == "negative":
                zeros = graph.add("ConditioningZeroOut", conditioning=links["positive"])
                links[name] = [zeros, 0]
            else:
                links[name] = [graph.add("CLIPTextEncode", text=text, clip=clip), 0]
        passes.append(links)
    return passes


def _add_start(graph: ComfyGraph, request: ResolvedRequest, vae: Link) -> Link:
    """Add the latents that the first pass begins with."""
    if not request.image:
        size = {"width": request.width, "height": request.height}
        return [graph.add("EmptyLatentImage", **size, batch_size=1), 0]
    file_name = f"{request.image[:16]}.png"
    graph.notes.append(
        f"Put the image it was made from into ComfyUI's input folder, as {file_name}."
    )
    loaded = graph.add("LoadImage", image=file_name)
    crop = "center" if request.resize_mode == "crop" else "disabled"
    return _add_encoded(graph, [loaded, 0], request.size, vae, crop)


def _add_encoded(
    graph: ComfyGraph, image: Link, size: tuple[int, int], vae: Link, crop: str = "disabled"
) -> Link:
    """Add an image at another size, as latents."""
    scaled = graph.add(
        "ImageScale",
        image=image,
        upscale_method="lanczos",
        width=size[0],
        height=size[1],
        crop=crop,
    )
    return [graph.add("VAEEncode", pixels=[scaled, 0], vae=vae), 0]


def _get_sampler_inputs(request: ResolvedRequest, model: Link) -> dict[str, Any]:
    return {
        "model": model,
        "seed": request.seed,
        "cfg": request.guidance,
        "sampler_name": SAMPLERS[request.scheduler],
        "scheduler": SCHEDULES[_get_schedule(request)],
    }


def _add_hires_pass(graph: ComfyGraph, request: ResolvedRequest, vae: Link, latent: Link) -> Link:
    """Add what enlarges the latents or pixels, and the second sampler without its common inputs."""
    size = upscale_size(request.size, request.hires_scale)
    if request.hires_resize == "latent":
        node = graph.add(
            "LatentUpscale",
            samples=latent,
            upscale_method="bilinear",
            width=size[0],
            height=size[1],
            crop="disabled",
        )
        latent = [node, 0]
    else:
        image: Link = [graph.add("VAEDecode", samples=latent, vae=vae), 0]
        if request.active_upscaler:
            name = f"{shorten_name(request.active_upscaler)}.pth"
            graph.notes.append(f"The upscaler is expected as {name}; choose your own file for it.")
            loader = graph.add("UpscaleModelLoader", model_name=name)
            enlarged = graph.add("ImageUpscaleWithModel", upscale_model=[loader, 0], image=image)
            image = [enlarged, 0]
        latent = _add_encoded(graph, image, size, vae)
    steps = request.hires_effective_steps
    denoise = find_denoise(request.hires_steps or request.steps, request.hires_strength)
    return [graph.add("KSampler", latent_image=latent, steps=steps, denoise=denoise), 0]
