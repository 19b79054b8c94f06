"""Nodes of ComfyUI's common packs: what they hand on, load and draw, and what is said of the rest."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from studio.core.generation.geometry import count_effective_steps
from studio.core.generation.recipes import comfyui
from studio.core.generation.recipes.comfyui_passes import find_share
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe
from support.comfyui_graphs import BASIC, DRAWN, FLUX, HIRES, changed, dump, node

pytestmark = pytest.mark.smoke


def read(graph: Any, size: tuple[int, int] | None = None) -> Recipe:
    return comfyui.SOURCE.read(ImageMetadata(chunks={"prompt": dump(graph)}, size=size))


def read_drawn(graph: Any) -> Recipe:
    return comfyui.SOURCE.read(ImageMetadata(chunks={"workflow": dump(graph)}))


@pytest.mark.parametrize(
    "switch",
    [
        # Structure: rgthree/rgthree-comfy (any_switch); inputs that are not connected are not
        # in a graph that is run.
        node("Any Switch (rgthree)", any_02=["4", 0], any_03=["50", 0]),
        # Structure: ltdrdata/ComfyUI-Impact-Pack (ImpactSwitch, ImpactConditionalBranch).
        node("ImpactSwitch", select=2, sel_mode=False, input1=["50", 0], input2=["4", 0]),
        node("ImpactSwitch", select=["52", 0], input1=["50", 0], input2=["4", 0]),
        node("ImpactConditionalBranch", cond=True, tt_value=["4", 0], ff_value=["50", 0]),
        # Structure: Suzie1/ComfyUI_Comfyroll_CustomNodes.
        node("CR Model Input Switch", Input=1, model1=["4", 0], model2=["50", 0]),
        # Structure: crystian/comfyui-crystools.
        node("Switch any [Crystools]", boolean=False, on_true=["50", 0], on_false=["4", 0]),
        # One behind another.
        node("Any Switch (rgthree)", any_01=["53", 0]),
    ],
    ids=range(7),
)
def test_a_switch_hands_on_what_it_is_set_to(switch: dict[str, Any]) -> None:
    graph = changed(
        BASIC,
        n3={"model": ["51", 0]},
        n50=node("CheckpointLoaderSimple", ckpt_name="other.safetensors"),
        n51=switch,
        n52=node("PrimitiveInt", value=2),
        n53=node("Any Switch (rgthree)", any_01=["4", 0]),
    )
    recipe = read(graph)
    assert recipe.values["model"] == "tiny_v1"
    assert recipe.notes == []


def test_a_switch_of_texts_numbers_and_latents() -> None:
    graph = changed(
        BASIC,
        n3={"steps": ["50", 0], "latent_image": ["51", 0], "positive": ["52", 0]},
        n50=node("Any Switch (rgthree)", any_01=33),
        n51=node("Any Switch (rgthree)", any_01=["5", 0]),
        n52=node("Any Switch (rgthree)", any_01=["6", 0]),
        n6={"text": ["53", 0]},
        n53=node("CR Text Input Switch", Input=2, text1="a", text2="a fox"),
    )
    recipe = read(graph)
    assert recipe.values["steps"] == 33
    assert (recipe.values["width"], recipe.values["height"]) == (512, 768)
    assert recipe.values["prompt"] == "a fox"


def draw_with(*nodes: dict[str, Any], links: list[list[Any]]) -> dict[str, Any]:
    """Return the drawn graph with further nodes, and links instead of those with their numbers."""
    drawn = copy.deepcopy(DRAWN)
    drawn["nodes"] += nodes
    numbers = {link[0] for link in links}
    drawn["links"] = [link for link in drawn["links"] if link[0] not in numbers] + links
    return drawn


@pytest.mark.parametrize(
    ("setter", "getter"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")]
)
def test_nodes_that_set_and_get_by_a_name(setter: str, getter: str) -> None:
    """Structure: kijai/ComfyUI-KJNodes (SetNode, GetNode): the name is the only widget."""
    drawn = draw_with(
        {
            "id": 30,
            "type": setter,
            "inputs": [{"name": "MODEL", "type": "MODEL", "link": 31}],
            "widgets_values": ["the model"],
        },
        {"id": 32, "type": getter, "widgets_values": ["the model"]},
        {
            "id": 33,
            "type": "CheckpointLoaderSimple",
            "outputs": [{"type": "MODEL"}],
            "widgets_values": ["other.safetensors"],
        },
        links=[[31, 33, 0, 30, 0, "MODEL"], [1, 32, 0, 3, 0, "MODEL"]],
    )
    assert read_drawn(drawn).values["model"] == "other"


def test_a_bypassed_node_hands_on_what_stands_beside_each_output() -> None:
    """Both prompts go through a ControlNet that is bypassed: each stays what it was."""
    kinds = [("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    drawn = draw_with(
        {
            "id": 30,
            "type": "ControlNetApplyAdvanced",
            "mode": 4,
            "inputs": [
                {"name": name, "type": kind, "link": number}
                for (name, kind), number in zip(kinds, (31, 32), strict=True)
            ],
            "outputs": [{"name": name, "type": kind} for name, kind in kinds],
        },
        links=[
            [31, 6, 0, 30, 0, "CONDITIONING"],
            [32, 7, 0, 30, 1, "CONDITIONING"],
            [4, 30, 0, 3, 1, "CONDITIONING"],
            [6, 30, 1, 3, 2, "CONDITIONING"],
        ],
    )
    recipe = read_drawn(drawn)
    assert recipe.values["prompt"] == "a red boat"
    assert recipe.values["negative_prompt"] == "fog, blurry"


def test_a_muted_node_is_not_there() -> None:
    drawn = copy.deepcopy(DRAWN)
    drawn["nodes"][0]["mode"] = 2  # the negative prompt
    recipe = read_drawn(drawn)
    assert "negative_prompt" not in recipe.values
    assert recipe.values["prompt"] == "a red boat"


def test_links_that_are_not_drawn_are_named() -> None:
    """Structure: chrisgoringe/cg-use-everywhere."""
    drawn = draw_with({"id": 30, "type": "Anything Everywhere", "inputs": []}, links=[])
    assert (
        "Links that are not drawn are not followed, those of: Anything Everywhere."
        in read_drawn(drawn).notes
    )


def test_a_loader_with_a_picture_beside_the_name() -> None:
    """Structure: pythongosssss/ComfyUI-Custom-Scripts (LoraLoader|pysssss)."""
    name = {"content": "styles/ink.safetensors", "image": None}
    graph = changed(
        BASIC,
        n3={"model": ["10", 0]},
        n6={"clip": ["10", 1]},
        n10=node(
            "LoraLoader|pysssss",
            lora_name=name,
            strength_model=0.8,
            strength_clip=0.5,
            model=["4", 0],
            clip=["4", 1],
        ),
    )
    loras = [{"name": "ink", "unet": 0.8, "text_encoder": 0.5}]
    assert read(graph).values["loras"] == loras
    drawn = draw_with(
        {
            "id": 30,
            "type": "LoraLoader|pysssss",
            "inputs": [
                {"name": "model", "type": "MODEL", "link": 31},
                {"name": "clip", "type": "CLIP", "link": 32},
            ],
            "outputs": [{"type": "MODEL"}, {"type": "CLIP"}],
            "widgets_values": [name, 0.8, 0.5, "[none]"],
        },
        links=[
            [31, 4, 0, 30, 0, "MODEL"],
            [32, 4, 1, 30, 1, "CLIP"],
            [1, 30, 0, 3, 0, "MODEL"],
            [3, 30, 1, 6, 0, "CLIP"],
        ],
    )
    assert read_drawn(drawn).values["loras"] == loras


def test_an_encoder_that_loads_loras_of_its_text() -> None:
    """Structure: ltdrdata/ComfyUI-Impact-Pack (ImpactWildcardEncode)."""
    graph = changed(
        BASIC,
        n3={"model": ["10", 0], "positive": ["10", 2]},
        n10=node(
            "ImpactWildcardEncode",
            wildcard_text="a __colour__ boat",
            populated_text="a red boat<lora:art/ink:0.5>BREAK a [lake] "
            "<lora:moon:1:0.25:LBW=1,0,1;> <lora:ink.pt>",
            mode="populate",
            seed=5,
            model=["4", 0],
            clip=["4", 1],
        ),
    )
    recipe = read(graph)
    assert recipe.values["prompt"] == r"a red boat BREAK a \[lake\]"
    assert recipe.values["loras"] == [
        {"name": "ink", "unet": 1.5, "text_encoder": 1.5},
        {"name": "moon", "unet": 1.0, "text_encoder": 0.25},
    ]
    assert recipe.notes == ["LoRA block weights are not available here: the image will differ."]


def test_wildcards_that_were_filled_in_elsewhere() -> None:
    encoder = node(
        "ImpactWildcardEncode",
        wildcard_text="a __colour__ boat",
        populated_text="",
        model=["4", 0],
        clip=["4", 1],
    )
    recipe = read(changed(BASIC, n3={"positive": ["10", 2]}, n10=encoder))
    assert recipe.values["prompt"] == "a __colour__ boat"
    assert recipe.notes == ["Its wildcards were filled in there; the result is not in the file."]


@pytest.mark.parametrize(
    ("mode", "method", "source", "notes"),
    [
        ("GPU(=A1111)", "slerp", "NV", 0),
        ("CPU", "slerp", "CPU", 0),
        ("CPU", "linear", "CPU", 1),
    ],
)
def test_noise_as_inspire_draws_it(mode: str, method: str, source: str, notes: int) -> None:
    """Structure: ltdrdata/ComfyUI-Inspire-Pack (its a1111_compat)."""
    inputs = {
        **BASIC["3"]["inputs"],
        "noise_mode": mode,
        "batch_seed_mode": "incremental",
        "variation_seed": 9,
        "variation_strength": 0.25,
        "variation_method": method,
    }
    recipe = read(changed(BASIC, n3=node("KSampler //Inspire", **inputs)))
    assert recipe.values["noise_source"] == source
    assert recipe.values["seed"] == 8566257
    assert (recipe.values["variation_seed"], recipe.values["variation_strength"]) == (9, 0.25)
    assert len(recipe.notes) == notes


def test_noise_of_inspire_for_a_sampler_of_parts() -> None:
    noise = node("RandomNoise //Inspire", noise_seed=5, noise_mode="GPU(=A1111)")
    recipe = read(changed(FLUX, n25=noise))
    assert (recipe.values["seed"], recipe.values["noise_source"]) == (5, "NV")


def test_what_is_done_to_the_finished_picture_is_named() -> None:
    graph = changed(
        BASIC,
        n9={"images": ["23", 0]},
        n20=node("ImageUpscaleWithModel", upscale_model=["21", 0], image=["8", 0]),
        n21=node("UpscaleModelLoader", model_name="C:\\models\\4x-Grain.pth"),
        n22=node("FaceDetailer", image=["20", 0], model=["4", 0], steps=20, denoise=0.5),
        n23=node("Glow Mystery", image=["22", 0]),
        n30=node("Not Saved", image=["8", 0]),
    )
    recipe = read(graph)
    assert recipe.values["steps"] == 20
    assert "hires_scale" not in recipe.values
    assert recipe.notes == [
        "The image was edited afterwards, which is not loaded: enlarged by a network '4x-Grain' (ImageUpscaleWithModel), faces painted again (FaceDetailer), Glow Mystery."
    ]


def test_what_is_done_between_two_passes_is_named() -> None:
    graph = changed(
        HIRES,
        n10={"samples": ["12", 0]},
        n12=node("Latent Mystery", samples=["3", 0]),
    )
    assert (
        "What the second pass started from was changed in a way unknown here: Latent Mystery."
        in read(graph).notes
    )


def test_a_node_that_changes_the_model_is_named() -> None:
    graph = changed(BASIC, n3={"model": ["12", 0]}, n12=node("Odd Patch", model=["4", 0]))
    recipe = read(graph)
    assert recipe.values["model"] == "tiny_v1"
    assert recipe.notes == ["Node 'Odd Patch' changes the model in a way unknown here."]


ADVANCED = {
    **{"cfg": 8.0, "noise_seed": 7, "steps": 20, "sampler_name": "euler", "scheduler": "normal"},
    **{"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
    **{"add_noise": "enable", "start_at_step": 0, "end_at_step": 10000},
    "return_with_leftover_noise": "disable",
}


@pytest.mark.parametrize(
    ("inputs", "note"),
    [
        ({}, ""),
        (
            {"start_at_step": 5},
            "It started at step 5 of 20, here at the first: the image will differ.",
        ),
        (
            {"end_at_step": 15},
            "It ended at step 15 of 20, without noise from there on; here all steps run.",
        ),
        (
            {"end_at_step": 15, "return_with_leftover_noise": "enable"},
            "It ended at step 15 of 20, with noise left; here all steps run.",
        ),
        (
            {"add_noise": "disable"},
            "Its sampler added no noise at the start; here it does: the image will differ.",
        ),
    ],
    ids=range(5),
)
def test_a_sampler_that_runs_some_of_its_steps(inputs: dict[str, Any], note: str) -> None:
    recipe = read(changed(BASIC, n3=node("KSamplerAdvanced", **ADVANCED | inputs)))
    assert recipe.values["steps"] == 20
    assert "strength" not in recipe.values
    assert recipe.notes == ([note] if note else [])


@pytest.mark.parametrize(("steps", "first_step"), [(20, 7), (30, 23), (25, 1)])
def test_the_last_steps_of_a_picture_are_its_strength(steps: int, first_step: int) -> None:
    graph = changed(
        BASIC,
        n3=node("KSamplerAdvanced", **ADVANCED | {"steps": steps, "start_at_step": first_step}),
        n10=node("VAEEncode", pixels=["11", 0], vae=["4", 2]),
        n11=node("LoadImage", image="cat.png"),
    )
    graph["3"]["inputs"]["latent_image"] = ["10", 0]
    values = read(graph).values
    assert values["steps"] == steps
    assert count_effective_steps(steps, values["strength"]) == steps - first_step


@pytest.mark.parametrize("steps", [1, 7, 13, 20, 30, 50])
@pytest.mark.parametrize("denoise", [0.35, 0.4, 0.55, 0.6, 0.75, 0.9, 0.97])
def test_as_many_steps_run_of_as_many_as_there(steps: int, denoise: float) -> None:
    """ComfyUI's KSampler runs the last `steps` of int(steps / denoise)."""
    draft = RecipeDraft("ComfyUI")
    whole_steps, strength = find_share(steps, denoise, draft)
    assert whole_steps == int(steps / denoise)
    assert count_effective_steps(whole_steps, strength) == steps
    assert abs(strength - denoise) * whole_steps < 1
    assert draft.recipe.notes == []


def test_more_steps_than_there_are_here() -> None:
    draft = RecipeDraft("ComfyUI")
    assert find_share(100, 0.5, draft) == (150, 0.5)
    assert draft.recipe.notes == ["There 100 of 200 steps ran; here 75 of 150 run, the maximum."]
    for steps, denoise in ((10**400, 0.5), (5, 1e-320), (0, 0.5), (-3, 0.5)):
        find_share(steps, denoise, draft)  # ends


def test_a_negative_prompt_of_zeros_is_no_empty_one() -> None:
    graph = changed(
        BASIC, n3={"negative": ["30", 0]}, n30=node("ConditioningZeroOut", conditioning=["6", 0])
    )
    recipe = read(graph)
    assert recipe.values["negative_prompt"] == ""
    assert recipe.notes == [
        "Its negative prompt was zeros, like an empty one here with SDXL; with other models the image will differ."
    ]
    graph["3"]["inputs"]["cfg"] = 1  # it is not asked
    assert read(graph).notes == []


def test_an_empty_negative_prompt_at_the_size_of_sdxl() -> None:
    words = "with SDXL it is zeros here"
    small = changed(BASIC, n7={"text": ""})
    large = changed(small, n5={"width": 1024, "height": 1024})
    assert not any(words in note for note in read(small).notes)
    assert any(words in note for note in read(large).notes)


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2, 3], 7, None, True])
def test_a_prompt_that_is_no_conditioning_stays_as_it_is(value: Any) -> None:
    recipe = read(changed(BASIC, n3={"positive": value}))
    assert "prompt" not in recipe.values
    assert recipe.values["negative_prompt"] == "fog, blurry"


def test_clip_skip_waits_for_the_model() -> None:
    graph = changed(
        BASIC, n6={"clip": ["13", 0]}, n13=node("CLIPSetLastLayer", stop_at_clip_layer=-2)
    )
    graph["13"]["inputs"]["clip"] = ["4", 1]
    clip_skip = read(graph).clip_skip
    assert clip_skip is not None
    assert (clip_skip.number, clip_skip.counting) == (2, "ComfyUI")
