"""ComfyUI's graphs become requests: each field right, each thing that is not here named."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from studio.core.generation.recipes import comfyui
from studio.core.generation.recipes.comfyui_prompts import adapt_words
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe
from support.comfyui_graphs import (
    BASIC,
    BASIC_VALUES,
    DRAWN,
    FLUX,
    HIRES,
    changed,
    dump,
    node,
)

pytestmark = pytest.mark.smoke


def read(graph: Any, size: tuple[int, int] | None = None) -> Recipe:
    metadata = ImageMetadata(chunks={"prompt": dump(graph)}, size=size)
    assert comfyui.SOURCE.recognises(metadata)
    return comfyui.SOURCE.read(metadata)


def values_of(recipe: Recipe) -> dict[str, Any]:
    """What was taken, without how words and noise are meant."""
    return {
        name: value
        for name, value in recipe.values.items()
        if name not in ("prompt_syntax", "emphasis", "noise_source")
    }


def test_the_default_graph() -> None:
    recipe = read(BASIC)
    assert values_of(recipe) == BASIC_VALUES
    assert [(file.kind, file.name) for file in recipe.files] == [("model", "tiny_v1")]
    assert recipe.notes == []
    assert recipe.program == "ComfyUI"


def test_the_default_graph_as_it_is_drawn() -> None:
    """With a reroute, a primitive that overrules a widget, and a LoRA that is bypassed."""
    metadata = ImageMetadata(chunks={"workflow": dump(DRAWN)})
    assert comfyui.SOURCE.recognises(metadata)
    assert values_of(comfyui.SOURCE.read(metadata)) == BASIC_VALUES


def test_the_graph_that_was_run_counts_before_the_one_that_was_drawn() -> None:
    drawn = copy.deepcopy(DRAWN)
    drawn["nodes"][0]["widgets_values"] = ["something else"]
    metadata = ImageMetadata(chunks={"workflow": dump(drawn), "prompt": dump(BASIC)})
    assert comfyui.SOURCE.read(metadata).values["negative_prompt"] == "fog, blurry"


@pytest.mark.parametrize(
    "metadata",
    [
        # Structure: comfyanonymous/ComfyUI, SaveAnimatedWEBP: tags 0x0110 (Model), 0x010f (Make).
        ImageMetadata(exif={"Model": f"prompt:{dump(BASIC)}", "Make": f"workflow:{dump(DRAWN)}"}),
        ImageMetadata(exif={"Make": f"Prompt: {dump(BASIC)}"}),
        ImageMetadata(exif={"ImageDescription": f"Workflow:{dump(DRAWN)}"}),
        # Structure: kaanyalova/ComfyUI_ExtendedImageFormats.
        ImageMetadata(user_comment=json.dumps({"prompt": BASIC, "workflow": DRAWN})),
        ImageMetadata(user_comment=json.dumps({"prompt": dump(BASIC), "workflow": dump(DRAWN)})),
        ImageMetadata(user_comment=dump(BASIC)),
        ImageMetadata(sidecars={".json": dump(DRAWN)}),
        ImageMetadata(sidecars={".json": dump(BASIC)}),
    ],
    ids=["webp", "make", "description", "comment", "texts", "bare", "drawn file", "run file"],
)
def test_every_place_where_a_graph_stands(metadata: ImageMetadata) -> None:
    assert comfyui.SOURCE.recognises(metadata)
    assert values_of(comfyui.SOURCE.read(metadata)) == BASIC_VALUES


@pytest.mark.parametrize(
    "metadata",
    [
        ImageMetadata(),
        ImageMetadata(chunks={"parameters": 'a "class_type" with inputs\nSteps: 20'}),
        ImageMetadata(chunks={"prompt": "a boat"}),
        ImageMetadata(user_comment='{"prompt": "a boat"}'),
    ],
)
def test_what_is_no_graph(metadata: ImageMetadata) -> None:
    assert not comfyui.SOURCE.recognises(metadata)


def test_a_flux_graph_of_parts() -> None:
    recipe = read(FLUX)
    assert values_of(recipe) == {
        "prompt": "a fox",
        "seed": 219670278747233 % 2**32,
        "steps": 20,
        "guidance": 1.0,
        "scheduler": "Euler",
        "noise_schedule": "Simple",
        "width": 1024,
        "height": 1024,
        "model": "flux1-dev",
        "vae": "ae",
    }
    assert recipe.notes == [
        "Not available here: Flux's shift of the noise levels; the image will differ.",
        "Flux's own guidance 3.5 is not loaded.",
    ]


def test_a_custom_sampler_with_a_guider_and_noise_levels() -> None:
    graph = changed(
        FLUX,
        n22=node("CFGGuider", cfg=4.5, model=["30", 0], positive=["26", 0], negative=["28", 0]),
        n28=node("ConditioningZeroOut", conditioning=["6", 0]),
        n17=node("KarrasScheduler", steps=12, sigma_max=14.6, sigma_min=0.03, rho=7.0),
        n16=node("SamplerDPMPP_2M_SDE", solver_type="midpoint", eta=0.5, s_noise=1.0),
    )
    recipe = read(graph)
    assert recipe.values["guidance"] == 4.5
    assert recipe.values["negative_prompt"] == ""
    assert recipe.values["steps"] == 12
    assert (recipe.values["scheduler"], recipe.values["noise_schedule"]) == (
        "DPM++ 2M SDE",
        "Karras",
    )
    assert "The sampler's eta 0.5 is not loaded." in recipe.notes


def test_two_passes_are_a_hires_pass() -> None:
    recipe = read(HIRES)
    assert values_of(recipe) == BASIC_VALUES | {
        "hires_scale": 2.0,
        "hires_resize": "latent",
        "hires_strength": 0.5,
        "hires_steps": 28,  # of which 14 run
    }
    assert recipe.choices == []


def test_a_network_enlarges_between_the_passes() -> None:
    graph = changed(
        HIRES,
        n10=node("VAEEncode", pixels=["12", 0], vae=["4", 2]),
        n12=node("ImageScaleBy", upscale_method="lanczos", scale_by=0.5, image=["13", 0]),
        n13=node("ImageUpscaleWithModel", upscale_model=["14", 0], image=["15", 0]),
        n14=node("UpscaleModelLoader", model_name="4x-Grain.pth"),
        n15=node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    )
    recipe = read(graph, (1024, 1536))
    assert recipe.values["hires_scale"] == 2.0
    assert recipe.values["hires_resize"] == "pixel"
    assert recipe.values["hires_upscaler"] == "4x-Grain"
    assert ("upscaler", "4x-Grain") in [(file.kind, file.name) for file in recipe.files]


def test_tiles_of_ultimate_upscale() -> None:
    """Structure: ssitu/ComfyUI_UltimateSDUpscale."""
    graph = changed(
        BASIC,
        n9={"images": ["20", 0]},
        n20=node(
            "UltimateSDUpscale",
            image=["8", 0],
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            vae=["4", 2],
            upscale_by=2,
            seed=5,
            steps=10,
            cfg=8,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=0.2,
            upscale_model=["21", 0],
            tile_width=512,
            tile_height=512,
        ),
        n21=node("UpscaleModelLoader", model_name="4x-Grain.pth"),
    )
    values = read(graph).values
    assert (values["hires_scale"], values["hires_tile"], values["hires_steps"]) == (2.0, 512, 50)
    assert (values["hires_upscaler"], values["hires_strength"]) == ("4x-Grain", 0.2)
    assert values["seed"] == 8566257


def test_a_picture_that_the_file_does_not_hold() -> None:
    graph = changed(
        BASIC,
        n3={"denoise": 0.6, "latent_image": ["10", 0], "steps": 9},
        n10=node("VAEEncode", pixels=["11", 0], vae=["4", 2]),
        n11=node("LoadImage", image="C:\\Users\\somebody\\cat.png"),
    )
    recipe = read(graph)
    assert recipe.values["strength"] == 0.6
    assert recipe.values["steps"] == 15  # of which 9 run
    assert "width" not in recipe.values
    assert "It was made from another image, which is not in the file." in recipe.notes
    assert "somebody" not in " ".join(recipe.notes)


def test_loras_in_a_row_are_taken_in_the_order_in_which_they_are_loaded() -> None:
    graph = changed(
        BASIC,
        n3={"model": ["12", 0]},
        n6={"clip": ["11", 1]},
        n7={"clip": ["11", 1]},
        n10=node(
            "LoraLoader",
            lora_name="styles/ink.safetensors",
            strength_model=0.8,
            strength_clip=0.5,
            model=["4", 0],
            clip=["13", 0],
        ),
        n11=node(
            "LoraLoader",
            lora_name="moon.safetensors",
            strength_model=1.0,
            strength_clip=1.0,
            model=["10", 0],
            clip=["10", 1],
        ),
        n12=node(
            "LoraLoaderModelOnly", lora_name="ink.safetensors", strength_model=0.1, model=["11", 0]
        ),
        n13=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["4", 1]),
    )
    recipe = read(graph)
    assert recipe.values["loras"] == [
        {"name": "ink", "unet": 0.9, "text_encoder": 0.5},
        {"name": "moon", "unet": 1.0, "text_encoder": 1.0},
    ]
    assert recipe.values["clip_skip"] == 2


def test_the_power_lora_loader() -> None:
    """Structure: rgthree/rgthree-comfy; MOVZX/Mimpi holds one as it is run."""
    graph = changed(
        BASIC,
        n3={"model": ["84", 0]},
        n6={"clip": ["84", 1]},
        n84=node(
            "Power Lora Loader (rgthree)",
            PowerLoraLoaderHeaderWidget={"type": "PowerLoraLoaderHeaderWidget"},
            lora_1={"on": False, "lora": "off.safetensors", "strength": 1},
            lora_2={"on": True, "lora": "a/ink.safetensors", "strength": 0.95},
            lora_3={"on": True, "lora": "moon.safetensors", "strength": 0.5, "strengthTwo": 0.25},
            model=["4", 0],
            clip=["4", 1],
        ),
    )
    assert read(graph).values["loras"] == [
        {"name": "ink", "unet": 0.95, "text_encoder": 0.95},
        {"name": "moon", "unet": 0.5, "text_encoder": 0.25},
    ]


def test_the_efficient_loader_and_sampler() -> None:
    """Structure: jags111/efficiency-nodes-comfyui."""
    graph = {
        "1": node(
            "Efficient Loader",
            ckpt_name="tiny_v1.safetensors",
            vae_name="Baked VAE",
            clip_skip=-2,
            lora_name="ink.safetensors",
            lora_model_strength=0.7,
            lora_clip_strength=0.6,
            positive="a red boat",
            negative="fog",
            token_normalization="none",
            weight_interpretation="comfy",
            empty_latent_width=512,
            empty_latent_height=640,
            batch_size=1,
        ),
        "2": node(
            "KSampler (Efficient)",
            seed=5,
            steps=25,
            cfg=6.5,
            sampler_name="euler_ancestral",
            scheduler="normal",
            denoise=1,
            preview_method="auto",
            vae_decode="true",
            model=["1", 0],
            positive=["1", 1],
            negative=["1", 2],
            latent_image=["1", 3],
            optional_vae=["1", 4],
        ),
        "3": node("SaveImage", images=["2", 5], filename_prefix="x"),
    }
    values = values_of(read(graph))
    assert values["prompt"] == "a red boat"
    assert values["negative_prompt"] == "fog"
    assert (values["width"], values["height"]) == (512, 640)
    assert values["clip_skip"] == 2
    assert values["model"] == "tiny_v1"
    assert values["vae"] == ""
    assert values["loras"] == [{"name": "ink", "unet": 0.7, "text_encoder": 0.6}]
    assert values["scheduler"] == "Euler a"


def test_a_refiner_is_named() -> None:
    """Structure: comfyanonymous.github.io/ComfyUI_examples/sdxl, base and refiner."""
    advanced = {
        "cfg": 8.0,
        "noise_seed": 7,
        "steps": 25,
        "sampler_name": "euler",
        "scheduler": "normal",
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
    }
    graph = changed(
        BASIC,
        n3=node(
            "KSamplerAdvanced",
            **advanced,
            add_noise="enable",
            latent_image=["5", 0],
            start_at_step=0,
            end_at_step=20,
            return_with_leftover_noise="enable",
        ),
        n11=node(
            "KSamplerAdvanced",
            **advanced,
            add_noise="disable",
            latent_image=["3", 0],
            start_at_step=20,
            end_at_step=10000,
            return_with_leftover_noise="disable",
        ),
        n8={"samples": ["11", 0]},
    )
    recipe = read(graph)
    assert recipe.values["seed"] == 7
    assert recipe.values["steps"] == 25
    assert any(sentence.startswith("From step 20 on another sampler") for sentence in recipe.notes)
    assert "hires_scale" not in recipe.values


def test_several_samplers_are_choices() -> None:
    graph = changed(
        BASIC,
        n13={**copy.deepcopy(BASIC["3"])},
        n18=node("VAEDecode", samples=["13", 0], vae=["4", 2]),
        n19=node("SaveImage", images=["18", 0], filename_prefix="y"),
    )
    graph["13"]["inputs"] |= {"seed": 99}
    recipe = read(graph)
    assert [choice.values["seed"] for _, choice in recipe.choices] == [8566257, 99]
    assert [title for title, _ in recipe.choices] == [
        "KSampler 3 (seed 8566257, steps 20)",
        "KSampler 13 (seed 99, steps 20)",
    ]
    assert recipe.values["seed"] == 8566257
    assert "2 samplers" in recipe.notes[0]


def test_a_sampler_whose_result_is_not_saved_does_not_count() -> None:
    graph = changed(BASIC, n13={**copy.deepcopy(BASIC["3"])})
    assert read(graph).choices == []


@pytest.mark.parametrize(
    ("text_node", "expected"),
    [
        (node("PrimitiveString", value="a fox"), "a fox"),
        (node("String Literal", string="a fox"), "a fox"),
        (node("ShowText|pysssss", text=["50", 0], text_0="a fox"), "a fox"),
        (node("StringConcatenate", string_a="a", string_b="fox", delimiter=" "), "a fox"),
        (
            node(
                "Text Concatenate",
                delimiter=", ",
                clean_whitespace="true",
                text_a=["51", 0],
                text_b="fox",
            ),
            "one, fox",
        ),
        (
            node("ImpactWildcardProcessor", wildcard_text="__a__", populated_text="a fox"),
            "a fox",
        ),
        (node("Some Passing Node", anything=["51", 0]), "one"),
    ],
)
def test_texts_come_through_nodes(text_node: dict[str, Any], expected: str) -> None:
    graph = changed(
        BASIC, n6={"text": ["40", 0]}, n40=text_node, n51=node("PrimitiveString", value="one")
    )
    assert read(graph).values["prompt"] == expected


def test_words_that_are_not_in_the_file_leave_the_prompt_as_it_is() -> None:
    graph = changed(BASIC, n6={"text": ["40", 0]}, n40=node("LLM", model="x", temperature=0.5))
    recipe = read(graph)
    assert "prompt" not in recipe.values
    assert "Prompt: its text is not in the file; left unchanged." in recipe.notes


def test_numbers_come_through_nodes_and_as_texts() -> None:
    graph = changed(
        BASIC,
        n3={"seed": ["40", 0], "steps": "25", "cfg": ["41", 0]},
        n40=node("Seed (rgthree)", seed=1234),
        n41=node("PrimitiveFloat", value="6.5"),
        n5={"width": ["42", 0], "height": ["42", 1]},
        n42=node("SDXLEmptyLatentSizePicker+", resolution="832x1216 (0.68)", batch_size=1),
    )
    values = read(graph).values
    assert (values["seed"], values["steps"], values["guidance"]) == (1234, 25, 6.5)
    assert (values["width"], values["height"]) == (832, 1216)


@pytest.mark.parametrize(
    ("words", "adapted"),
    [
        ("a (red:1.2) boat", "a (red:1.2) boat"),
        ("[a], [b:c:0.5]", r"\[a\], \[b:c:0.5\]"),
        ("a AND b BREAK c, BRAND", "a and b break c, BRAND"),
        (r"a \(film\)", r"a \(film\)"),
        # There an inner number replaces what the outer brackets come to.
        ("(a (b:1.5):1.2) c", "(a :1.2)(b:1.5) c"),
        ("((a:1.5))", "(a:1.5)"),
        ("(a", "(a"),
    ],
)
def test_words_mean_the_same_in_a1111s_grammar(words: str, adapted: str) -> None:
    assert adapt_words(words) == adapted


def test_prompts_that_a_node_joins() -> None:
    graph = changed(
        BASIC,
        n3={"positive": ["30", 0], "negative": ["31", 0]},
        n30=node("ConditioningCombine", conditioning_1=["32", 0], conditioning_2=["7", 0]),
        n31=node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["7", 0]),
        n32=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["6", 0]),
    )
    recipe = read(graph)
    assert recipe.values["prompt"] == (
        "a red boat :0.333333 AND a red boat :0.333333 AND fog, blurry :0.333333"
    )
    assert recipe.values["negative_prompt"] == "a red boat BREAK fog, blurry"


def test_negative_prompts_that_a_node_joins_are_one() -> None:
    graph = changed(
        BASIC,
        n3={"negative": ["31", 0]},
        n31=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0]),
    )
    recipe = read(graph)
    assert recipe.values["negative_prompt"] == "a red boat, fog, blurry"
    assert (
        "Two prompts were joined by a node; here they are one: the image will differ."
        in recipe.notes
    )


def test_two_prompts_of_sdxl_are_joined() -> None:
    graph = changed(
        BASIC,
        n6=node("CLIPTextEncodeSDXL", text_g="a boat", text_l="red", width=1024, clip=["4", 1]),
        n7=node("CLIPTextEncodeSDXL", text_g="fog", text_l="fog", width=1024, clip=["4", 1]),
    )
    recipe = read(graph)
    assert recipe.values["prompt"] == "a boat, red"
    assert recipe.values["negative_prompt"] == "fog"
    assert len(recipe.notes) == 1


def test_what_is_not_here_is_named() -> None:
    graph = changed(
        BASIC,
        n3={"positive": ["30", 0], "negative": ["30", 1], "model": ["33", 0]},
        n30=node(
            "ControlNetApplyAdvanced",
            positive=["32", 0],
            negative=["7", 0],
            control_net=["31", 0],
            image=["34", 0],
            strength=1.0,
        ),
        n31=node("ControlNetLoader", control_net_name="cn/canny.pth"),
        n32=node("ConditioningSetArea", conditioning=["6", 0], width=64, height=64, x=0, y=0),
        n33=node("FreeU_V2", model=["35", 0], b1=1.3),
        n34=node("LoadImage", image="edges.png"),
        n35=node("ModelSamplingDiscrete", model=["36", 0], sampling="v_prediction", zsnr=True),
        n36=node("RescaleCFG", model=["4", 0], multiplier=0.7),
        n5={"batch_size": 4},
    )
    recipe = read(graph)
    assert recipe.values["prompt"] == "a red boat"
    assert recipe.values["negative_prompt"] == "fog, blurry"
    assert recipe.values["guidance_rescale"] == 0.7
    assert recipe.notes == [
        "It is one of 4 made in one batch; only the first has this noise here.",
        "ControlNet 'canny' is not available here: the image will differ.",
        "Not available here: an area of its own for a prompt; the image will differ.",
        "Not available here: FreeU; the image will differ.",
        "The model's prediction type was set to 'v_prediction', with zero SNR; set that under Model settings.",
    ]


def test_a_tag_that_is_only_words_there_is_left_out() -> None:
    recipe = read(changed(BASIC, n6={"text": "a boat <lora:ink:0.8>"}))
    assert recipe.values["prompt"] == "a boat"
    assert "loras" not in recipe.values
    assert recipe.notes == ["<lora:ink:0.8> is left out: ComfyUI does not read it there."]


def test_a_graph_without_a_sampler_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="its workflow contains no sampler"):
        read({"1": node("LoadImage", image="a.png")})


def test_nested_graphs_are_named() -> None:
    drawn = copy.deepcopy(DRAWN)
    drawn["nodes"].append({"id": 20, "type": "b7d7-uuid", "mode": 0})
    drawn["definitions"] = {"subgraphs": [{"id": "b7d7-uuid", "name": "My upscale", "nodes": []}]}
    recipe = comfyui.SOURCE.read(ImageMetadata(chunks={"workflow": dump(drawn)}))
    assert "Nodes that contain a workflow of their own are not opened: My upscale." in recipe.notes


def test_values_out_of_bounds_are_named() -> None:
    recipe = read(changed(BASIC, n3={"steps": 999, "cfg": -4}, n5={"width": 1001, "height": 9000}))
    assert {"steps", "guidance", "height"}.isdisjoint(recipe.values)
    assert recipe.values["width"] == 1000
    assert len(recipe.notes) == 4


@pytest.mark.parametrize(
    ("encoder", "prompt", "emphasis"),
    [
        (node("CLIPTextEncode", text="a (b:1.2) [c]"), r"a (b:1.2) \[c\]", "compel"),
        # Structure: BlenderNeko/ComfyUI_ADV_CLIP_emb.
        (
            node(
                "BNK_CLIPTextEncodeAdvanced",
                text="a (b:1.2) [c]",
                token_normalization="none",
                weight_interpretation="A1111",
            ),
            r"a (b:1.2) \[c\]",
            "Original",
        ),
        # Structure: shiimizu/ComfyUI_smZNodes.
        (
            node("smZ CLIPTextEncode", text="a (b:1.2) [c]", parser="A1111"),
            "a (b:1.2) [c]",
            "Original",
        ),
        (
            node(
                "smZ CLIPTextEncode",
                text="a (b:1.2) [c:d:0.5]",
                parser="A1111",
                mean_normalization=False,
            ),
            "a (b:1.2) [c:d:0.5]",
            "No norm",
        ),
        (node("smZ CLIPTextEncode", text="(a)", parser="comfy"), "(a)", "compel"),
    ],
)
def test_how_an_encoder_weighs_words(encoder: dict[str, Any], prompt: str, emphasis: str) -> None:
    recipe = read(changed(BASIC, n6=encoder))
    assert recipe.values["prompt"] == prompt
    assert recipe.values["prompt_syntax"] == "A1111"
    assert recipe.values["emphasis"] == emphasis


@pytest.mark.parametrize(
    ("sampler", "values", "note"),
    [
        ("euler", {"sigma_min": 0.1, "sigma_max": 10.0, "rho": 5.0}, ""),
        ("heun", {}, "Its own noise levels (sigma_min 0.1, sigma_max 10, rho 5)"),
    ],
)
def test_noise_levels_of_its_own(sampler: str, values: dict[str, float], note: str) -> None:
    graph = changed(
        FLUX,
        n17=node("KarrasScheduler", steps=12, sigma_max=10.0, sigma_min=0.1, rho=5.0),
        n16={"sampler_name": sampler},
    )
    recipe = read(graph)
    names = ("sigma_min", "sigma_max", "rho")
    assert {name: recipe.values[name] for name in names if name in recipe.values} == values
    assert any(sentence.startswith(note) for sentence in recipe.notes)


def test_the_noise_comes_from_the_cpu() -> None:
    assert read(BASIC).values["noise_source"] == "CPU"
