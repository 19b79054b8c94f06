"""A request as ComfyUI's graph: walked from its end as ComfyUI does, each node with its inputs."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from studio.core.base import validate
from studio.core.catalog import (
    MODEL_DEFAULT,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
    get_automatic_schedule,
)
from studio.core.generation.carried import CarryOptions, Making, build_texts
from studio.core.generation.comfyui_words import format_prompt
from studio.core.generation.comfyui_writer import SAMPLERS, SCHEDULES, build_graph
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.templates.written import PromptOrigin
from studio.core.generation.used_files import UsedFile, UsedFiles
from studio.errors import InvalidSpec
from support.request_fields import IMAGE_TASK_VALUES, SHA
from support.sentences import refused

pytestmark = pytest.mark.smoke
MODEL = UsedFile(kind="model", name="foo", file_name="foo.ckpt", sha256="1" * 64)
FILES = UsedFiles(files=(MODEL,))
# Inputs and outputs of ComfyUI's own nodes, by nodes.py and comfy_extras/ of ComfyUI 0.3: what a
# node needs, and of which types its outputs are.
NODES: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name"}, ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (
        {"model", "clip", "lora_name", "strength_model", "strength_clip"},
        ("MODEL", "CLIP"),
    ),
    "CLIPSetLastLayer": ({"clip", "stop_at_clip_layer"}, ("CLIP",)),
    "CLIPTextEncode": ({"text", "clip"}, ("CONDITIONING",)),
    "ConditioningZeroOut": ({"conditioning"}, ("CONDITIONING",)),
    "EmptyLatentImage": ({"width", "height", "batch_size"}, ("LATENT",)),
    "KSampler": (
        {"model", "positive", "negative", "latent_image", "seed", "steps", "cfg", "sampler_name"}
        | {"scheduler", "denoise"},
        ("LATENT",),
    ),
    "VAELoader": ({"vae_name"}, ("VAE",)),
    "VAEDecode": ({"samples", "vae"}, ("IMAGE",)),
    "VAEEncode": ({"pixels", "vae"}, ("LATENT",)),
    "LoadImage": ({"image"}, ("IMAGE", "MASK")),
    "ImageScale": ({"image", "upscale_method", "width", "height", "crop"}, ("IMAGE",)),
    "LatentUpscale": ({"samples", "upscale_method", "width", "height", "crop"}, ("LATENT",)),
    "UpscaleModelLoader": ({"model_name"}, ("UPSCALE_MODEL",)),
    "ImageUpscaleWithModel": ({"upscale_model", "image"}, ("IMAGE",)),
    "ModelSamplingDiscrete": ({"model", "sampling", "zsnr"}, ("MODEL",)),
    "RescaleCFG": ({"model", "multiplier"}, ("MODEL",)),
    "SaveImage": ({"images", "filename_prefix"}, ()),
}
TYPES = {
    **{"model": "MODEL", "clip": "CLIP", "vae": "VAE", "positive": "CONDITIONING"},
    **{"negative": "CONDITIONING", "latent_image": "LATENT", "samples": "LATENT"},
    "conditioning": "CONDITIONING",
    **{"pixels": "IMAGE", "image": "IMAGE", "images": "IMAGE", "upscale_model": "UPSCALE_MODEL"},
}


def resolve(**values: Any) -> ResolvedRequest:
    base = {"model": "foo"}
    if "scheduler" not in values:
        base |= {"scheduler": "Euler", "noise_schedule": "Karras"}
    return validate(GenerationRequest, base | values).resolve(64, 7, (64, 64)).split()[0]


def draw(request: ResolvedRequest, files: UsedFiles = FILES) -> dict[str, dict[str, Any]]:
    """The nodes, each checked as ComfyUI checks them before it runs."""
    nodes = json.loads(json.dumps(build_graph(request, files).nodes))
    for node in nodes.values():
        inputs, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == inputs, node
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source, output = value
                assert NODES[nodes[source]["class_type"]][1][output] == TYPES[name], node
            else:
                assert name not in TYPES or node["class_type"] == "LoadImage"
    return nodes


def try_to_draw(request: ResolvedRequest) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The nodes, or what ComfyUI cannot do."""
    try:
        return draw(request), []
    except InvalidSpec as error:
        return {}, list(error.faults)


def list_types(nodes: dict[str, dict[str, Any]]) -> list[str]:
    return [node["class_type"] for node in nodes.values()]


def only(nodes: dict[str, dict[str, Any]], class_type: str) -> dict[str, Any]:
    (node,) = [node for node in nodes.values() if node["class_type"] == class_type]
    return dict(node["inputs"])


def test_a_plain_picture() -> None:
    nodes = draw(resolve(prompt="a boat", negative_prompt="fog", steps=9, guidance=5.5))
    assert list_types(nodes) == [
        *("CheckpointLoaderSimple", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage"),
        *("KSampler", "VAEDecode", "SaveImage"),
    ]
    assert only(nodes, "CheckpointLoaderSimple") == {"ckpt_name": "foo.ckpt"}
    sampler = only(nodes, "KSampler")
    texts = [nodes[sampler[name][0]]["inputs"]["text"] for name in ("positive", "negative")]
    assert texts == ["a boat", "fog"]
    settings = {name: value for name, value in sampler.items() if not isinstance(value, list)}
    assert settings == {
        **{"seed": 7, "steps": 9, "cfg": 5.5, "sampler_name": "euler", "scheduler": "karras"},
        "denoise": 1.0,
    }


def test_loras_vae_clip_skip_and_what_was_decided() -> None:
    lora = UsedFile(kind="lora", name="a/ink", file_name="ink.pt")
    vae = UsedFile(kind="vae", name="mse", file_name="mse.safetensors")
    overrides = (("prediction_type", "v_prediction"), ("zero_snr", "True"))
    files = UsedFiles(files=(MODEL, lora, vae), overrides=overrides)
    values = {
        "loras": "<lora:a/ink:0.5:0.8> <lora:moon:1>",
        "vae": "mse",
        "clip_skip": 2,
        "guidance_rescale": 0.7,
    }
    nodes = draw(resolve(**values), files)
    first, second = [n["inputs"] for n in nodes.values() if n["class_type"] == "LoraLoader"]
    assert (first["lora_name"], first["strength_model"], first["strength_clip"]) == (
        "ink.pt",
        0.8,
        0.5,
    )
    assert second["lora_name"] == "moon.safetensors"
    assert only(nodes, "ModelSamplingDiscrete") | {"model": 0} == {
        **{"model": 0, "sampling": "v_prediction", "zsnr": True}
    }
    assert only(nodes, "RescaleCFG")["multiplier"] == 0.7
    assert only(nodes, "CLIPSetLastLayer")["stop_at_clip_layer"] == -2
    decoder = only(nodes, "VAEDecode")
    assert nodes[decoder["vae"][0]]["inputs"] == {"vae_name": "mse.safetensors"}
    sampler = only(nodes, "KSampler")
    path = []
    link = sampler["model"]
    while isinstance(link, list):
        path.append(nodes[link[0]]["class_type"])
        link = nodes[link[0]]["inputs"].get("model")
    assert path == [
        *("RescaleCFG", "ModelSamplingDiscrete", "LoraLoader", "LoraLoader"),
        "CheckpointLoaderSimple",
    ]


@pytest.mark.parametrize("resize", ["latent", "pixel"])
def test_a_second_pass(resize: str) -> None:
    upscaler = {"hires_upscaler": "4x-Ultra"} if resize == "pixel" else {}
    request = resolve(
        hires_scale=2, hires_resize=resize, hires_steps=10, hires_strength=0.5, **upscaler
    )
    nodes = draw(request)
    first, second = [n["inputs"] for n in nodes.values() if n["class_type"] == "KSampler"]
    assert (first["steps"], first["denoise"]) == (20, 1.0)
    # ComfyUI runs as many steps as it is told, of a schedule of steps / denoise.
    assert (second["steps"], second["denoise"]) == (5, 0.5)
    assert first["seed"] == second["seed"] == 7
    larger = only(nodes, "LatentUpscale" if resize == "latent" else "ImageScale")
    assert (larger["width"], larger["height"]) == (128, 128)
    assert ("ImageUpscaleWithModel" in list_types(nodes)) == (resize == "pixel")
    last = [node for node in nodes.values() if node["class_type"] == "VAEDecode"][-1]
    assert nodes[last["inputs"]["samples"][0]]["inputs"]["denoise"] == 0.5


def test_a_picture_from_another() -> None:
    graph = build_graph(resolve(image=SHA, strength=0.4, width=128, resize_mode="crop"), FILES)
    nodes = draw(resolve(image=SHA, strength=0.4, width=128, resize_mode="crop"))
    assert only(nodes, "LoadImage") == {"image": f"{SHA[:16]}.png"}
    assert SHA[:16] in graph.notes[0]
    scaled = only(nodes, "ImageScale")
    assert (scaled["width"], scaled["crop"]) == (128, "center")
    sampler = only(nodes, "KSampler")
    assert (sampler["steps"], sampler["denoise"]) == (8, 0.4)


@pytest.mark.parametrize(("steps", "strength"), [(25, 0.55), (30, 0.75), (149, 0.013), (7, 0.9)])
def test_as_many_steps_run_of_as_many_as_here(steps: int, strength: float) -> None:
    """ComfyUI runs so many as it is told, the last of int(steps / denoise)."""
    nodes = draw(resolve(image=SHA, strength=strength, steps=steps))
    sampler = only(nodes, "KSampler")
    assert sampler["steps"] == int(steps * strength)
    assert int(sampler["steps"] / sampler["denoise"]) == steps


def test_an_empty_negative_prompt_is_zeros_with_sdxl() -> None:
    """As diffusers' pipeline does by the base model's config; elsewhere it is an empty text."""
    files = UsedFiles(files=(MODEL,), family="sdxl")
    for values, family_files, kind in (
        ({"hires_scale": 2}, files, "ConditioningZeroOut"),
        ({"negative_prompt": "fog"}, files, "CLIPTextEncode"),
        ({}, FILES, "CLIPTextEncode"),
    ):
        nodes = draw(resolve(prompt="a boat", **values), family_files)
        samplers = [node["inputs"] for node in nodes.values() if node["class_type"] == "KSampler"]
        for sampler in samplers:
            assert nodes[sampler["negative"][0]]["class_type"] == kind


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": "a (red:1.3) boat"}, "does not restore their mean"),
        ({"prompt": "a", "negative_prompt": "(fog)"}, "does not restore their mean"),
        ({"prompt": "a (red:0.7)", "emphasis": "compel"}, "Weights below 1"),
        ({"scheduler": "Euler a"}, "adds noise at each step"),
        ({"scheduler": "DPM++ SDE"}, "adds noise at each step"),
        ({"hires_scale": 2, "hires_resize": "latent"}, "the second pass"),
    ],
    ids=str,
)
def test_what_will_differ_is_said(values: dict[str, Any], words: str) -> None:
    (note,) = build_graph(resolve(**values), FILES).notes
    assert words in note


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "a red boat"},
        {"prompt": "a (red:1.3) boat", "emphasis": "Ignore"},
        {"prompt": "a (red:1.3)", "emphasis": "compel"},
    ],
    ids=str,
)
def test_nothing_is_said_where_nothing_differs(values: dict[str, Any]) -> None:
    assert build_graph(resolve(**values), FILES).notes == []


@pytest.mark.parametrize("name", sorted(IMAGE_TASK_VALUES))
def test_a_field_is_in_the_graph_or_refused_by_its_name(name: str) -> None:
    """So for every field: changing it changes the graph, or ComfyUI cannot do it."""
    needed, value = IMAGE_TASK_VALUES[name]
    plain, plain_faults = try_to_draw(resolve(**needed))
    changed, faults = try_to_draw(resolve(**{**needed, name: value}))
    if plain_faults:  # what it needs cannot be done either
        assert faults
    elif faults:
        title = str(GenerationRequest.model_fields[name].title)
        assert any(fault.startswith(f"{title}: ") for fault in faults), faults
    else:
        assert changed != plain


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS.keys() - SAMPLERS.keys()))
def test_a_sampler_that_it_lacks_is_named(scheduler: str) -> None:
    with refused(InvalidSpec) as caught:
        build_graph(resolve(scheduler=scheduler), FILES)
    assert f"Sampler: ComfyUI has no {scheduler}." in caught.value.faults


def test_all_that_it_lacks_is_named_at_once() -> None:
    values = {"image": SHA, "mask": SHA, "prompt": '("a", "b").blend(1, 1)', "scheduler": "TCD"}
    with refused(InvalidSpec):
        build_graph(resolve(**values), UsedFiles())


@pytest.mark.parametrize(
    "values",
    [
        {"noise_schedule": "Model default"},
        {"noise_schedule": "Align Your Steps"},
        {"scheduler": "LCM"},
        {"prompt": "a (red:1.3) boat", "prompt_syntax": "A1111", "emphasis": "No norm"},
        {"prompt": "a AND b", "prompt_syntax": "A1111"},
        {"prompt": "a AND b :0.5", "prompt_syntax": "A1111"},
        {"prompt": "[a:b:0.5] boat", "hires_scale": 2},
        {"prompt": 'red.swap("blue") boat', "negative_prompt": '("a", "b").and()'},
        {"noise_source": "NV", "styles": ("Ink",)},
    ],
    ids=str,
)
def test_what_its_nodes_cannot_say(values: dict[str, Any]) -> None:
    with refused(InvalidSpec):
        build_graph(resolve(**values), FILES)


@pytest.mark.parametrize("scheduler", sorted(SAMPLERS))
def test_automatic_is_written_as_what_it_means(scheduler: Scheduler) -> None:
    name = get_automatic_schedule(scheduler)
    automatic, faults = try_to_draw(resolve(scheduler=scheduler))
    assert (automatic, faults) == try_to_draw(resolve(scheduler=scheduler, noise_schedule=name))
    if name == MODEL_DEFAULT:
        assert any(fault.startswith("Schedule: ") for fault in faults)
    else:
        assert only(automatic, "KSampler")["scheduler"] == SCHEDULES[name]


def test_names_are_the_catalogs() -> None:
    assert SAMPLERS.keys() <= SCHEDULERS.keys()
    assert SCHEDULES.keys() <= set(get_args(NoiseSchedule))


def read_texts(**values: Any) -> list[str]:
    """The words of the prompts, sampler by sampler."""
    nodes = draw(resolve(**values))
    samplers = [node["inputs"] for node in nodes.values() if node["class_type"] == "KSampler"]
    return [nodes[sampler["positive"][0]]["inputs"]["text"] for sampler in samplers]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"prompt": "a (red:1.3) [boat]"}, "a (red:1.3) (boat:0.909091)"),
        ({"prompt": "a (red:1.3)", "emphasis": "compel"}, "a (red:1.3)"),
        ({"prompt": "a (red:1.3) boat", "emphasis": "Ignore"}, "a red boat"),
        ({"prompt": "a (red:1.3)", "emphasis": "None"}, r"a \(red:1.3\)"),
        ({"prompt": "a red++", "prompt_syntax": "A1111"}, "a red++"),
        ({"prompt": "a red++", "prompt_syntax": "auto"}, "a (red:1.21)"),
        ({"prompt": "a (red)1.3", "prompt_syntax": "compel"}, "a (red:1.3)"),
        ({"prompt": "a red++", "prompt_syntax": "compel", "emphasis": "Ignore"}, "a (red:1.21)"),
        ({"prompt": "a [red] boat", "prompt_syntax": "compel"}, "a [red] boat"),
    ],
    ids=str,
)
def test_a_prompt_is_read_as_the_request_says(values: dict[str, Any], text: str) -> None:
    assert read_texts(**values) == [text]


def test_words_of_the_second_pass_alone() -> None:
    values = {"prompt": "a [red:blue:20] boat", "steps": 20, "hires_scale": 2}
    assert read_texts(**values) == ["a red boat", "a blue boat"]
    assert read_texts(**{**values, "prompt": "a boat"}) == ["a boat", "a boat"]


def test_words_that_came_of_a_template() -> None:
    origin = PromptOrigin(prompt="{a|b} boat", styles=("Ink",))
    request = resolve(prompt="b boat").model_copy(update={"prompt_origin": origin})
    assert draw(request) == draw(resolve(prompt="b boat"))


def test_words_as_comfyui_weighs_them() -> None:
    """It has no [brackets], no rounds of 1.1 by halves, and its own sign for embeddings."""

    def convert(text: str, *embeddings: str) -> str:
        return format_prompt(plan_prompt(text), embeddings)

    assert convert("a (red:1.3) [boat], ((lake))") == "a (red:1.3) (boat:0.909091), (lake:1.21)"
    assert convert(r"a \(b\) c") == r"a \(b\) c"
    assert convert("x, Bad-Hands, embedding:bad-hands, bad-handsome", "bad-hands") == (
        "x, embedding:Bad-Hands, embedding:bad-hands, bad-handsome"
    )


def test_pngs_carry_it_where_that_is_chosen() -> None:
    request = resolve(prompt="a größe")
    making = Making(request, FILES)
    graph = build_texts(making, CarryOptions(comfyui_graph=True)).comfyui_prompt
    assert json.loads(graph) == build_graph(request, FILES).nodes
    assert graph.isascii()
    for options in (CarryOptions(), CarryOptions(comfyui_graph=True, carry="text")):
        assert build_texts(making, options).comfyui_prompt == ""
    other = Making(resolve(image=SHA, mask=SHA), FILES)
    assert build_texts(other, CarryOptions(comfyui_graph=True)).comfyui_prompt == ""
