"""ComfyUI's nodes as far as they matter for a recipe, as tables.

Knows: which node is what, the names of its inputs, the order of a core node's widgets. Does not
know: how they are walked (comfyui_models.py).

Sources: comfyanonymous/ComfyUI; jags111/efficiency-nodes-comfyui; rgthree/rgthree-comfy;
ltdrdata/ComfyUI-Impact-Pack and ComfyUI-Inspire-Pack; ssitu/ComfyUI_UltimateSDUpscale;
pythongosssss/ComfyUI-Custom-Scripts; the names that they register, no code.
"""

from __future__ import annotations

# Widgets by place, of core nodes; how the next seed is made is not counted.
WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "BetaSamplingScheduler": ("steps", "alpha", "beta"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "SDTurboScheduler": ("steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height"),
        *("text_g", "text_l"),
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "ConditioningAverage": ("conditioning_to_strength",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "ImageScale": ("upscale_method", "width", "height", "crop"),
    "ImageScaleBy": ("upscale_method", "scale_by"),
    "UpscaleModelLoader": ("model_name",),
    "ControlNetLoader": ("control_net_name",),
    "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "ModelSamplingDiscrete": ("sampling", "zsnr"),
    "RescaleCFG": ("multiplier",),
    "LoadImage": ("image",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "SaveImage": ("filename_prefix",),
    "LoraLoader|pysssss": ("lora_name", "strength_model", "strength_clip"),
    "CheckpointLoader|pysssss": ("ckpt_name",),
    "KSampler //Inspire": (
        *("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "noise_mode"),
        *("batch_seed_mode", "variation_seed", "variation_strength", "variation_method"),
    ),
    "ImpactWildcardEncode": (
        *("wildcard_text", "populated_text", "mode", "Select to add LoRA"),
        *("Select to add Wildcard", "seed"),
    ),
    "UltimateSDUpscale": (
        *("upscale_by", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        *("mode_type", "tile_width", "tile_height"),
    ),
    "Efficient Loader": (
        *("ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength"),
        *("lora_clip_strength", "positive", "negative", "token_normalization"),
        *("weight_interpretation", "empty_latent_width", "empty_latent_height", "batch_size"),
    ),
    "KSampler (Efficient)": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "Seed (rgthree)": ("seed",),
}

OUTPUT_WORDS = (
    "SaveImage",
    "Save Image",
    "PreviewImage",
    "Image Save",
    "ImageSave",
    "SaveAnimated",
)
# Between a sampler and what it began with: read elsewhere, or of no weight for the picture.
KNOWN_LATENT_WORDS = (
    *("VAEDecode", "VAEEncode", "LatentUpscale", "ImageUpscaleWithModel", "SetLatentNoiseMask"),
    *("Empty", "Reroute", "Context", "Load", "Pipe", "pipe", "LatentFromBatch", "RepeatLatent"),
    *("InpaintModelConditioning", "Preview", "SDXLEmptyLatent", "Switch", "Image Resize"),
)
# Behind a sampler, of no weight for the picture.
NEUTRAL_RESULT_WORDS = (
    *("VAEDecode", "Save", "Preview", "Reroute", "Context", "Pipe", "pipe", "Show", "Display"),
    *(
        "Metadata",
        "Switch",
        "LatentFromBatch",
        "ImageFromBatch",
        "ImageBatch",
        "ImageListToImageBatch",
    ),
)
# Behind a sampler: what they do to the picture. Others are called by their name alone.
RESULT_WORDS = {
    "ImageUpscaleWithModel": "enlarged by a network",
    "ImageScale": "resized",
    "ImageScaleBy": "resized",
    "ImageScaleToTotalPixels": "resized",
    "ImageSharpen": "sharpened",
    "ImageBlur": "blurred",
    "ImageCrop": "cut out",
    "FaceDetailer": "faces painted again",
    "FaceDetailerPipe": "faces painted again",
    "DetailerForEach": "parts painted again",
    "DetailerForEachPipe": "parts painted again",
    "DetailerForEachDebug": "parts painted again",
    "UltimateSDUpscaleNoUpscale": "painted again in tiles",
    "ReActorFaceSwap": "faces swapped",
    "FaceRestoreCFWithModel": "faces restored",
}
# What paints parts of a finished picture again: no sampler of the whole.
DETAILER_WORDS = ("Detailer", "FaceFix")

# Samplers that are a node of their own, with their name and the input that says more.
SAMPLER_NODES = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerLMS": "lms",
    "SamplerLCMUpscale": "lcm",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerSASolver": "sa_solver",
}
SCHEDULE_NODES = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "BetaSamplingScheduler": "beta",
    "AlignYourStepsScheduler": "ays",
    "SDTurboScheduler": "turbo",
}
# Between a model's loader and a sampler, without any use here: what is said of them.
MODEL_PATCHES = {
    "FreeU": "FreeU",
    "FreeU_V2": "FreeU",
    "PerturbedAttentionGuidance": "perturbed attention guidance",
    "SelfAttentionGuidance": "self-attention guidance",
    "PatchModelAddDownscale": "Kohya's deep shrink",
    "HyperTile": "HyperTile",
    "TomePatchModel": "token merging",
    "ModelSamplingFlux": "Flux's shift of the noise levels",
    "ModelSamplingSD3": "a shift of the noise levels",
    "ModelSamplingAuraFlow": "a shift of the noise levels",
    "ModelSamplingContinuousEDM": "noise levels of its own",
    "DifferentialDiffusion": "differential diffusion",
}

# On a model's way, of no weight for the picture or read elsewhere.
KNOWN_MODEL_WORDS = (
    *("CLIPSetLastLayer", "Reroute", "Context", "Pipe", "pipe", "Loader", "Encode", "LoRA", "Lora"),
    *("RescaleCFG", "ModelSampling", "ModelMerge", "IPAdapter", "TorchCompile", "SageAttention"),
    *("Switch", "Sampler"),
)
# Encoders that load the LoRAs of tags in their text.
LORA_TAG_ENCODERS = ("ImpactWildcardEncode", "WildcardEncode //Inspire")

TEXT_KEYS = (
    *("populated_text", "text", "string", "value", "prompt", "positive_prompt", "Text", "String"),
    *("STRING", "text_0", "wildcard_text", "positive", "text_positive"),
)
# Nodes that join texts: the inputs in order, and the input that stands between them.
JOINING_NODES: dict[str, tuple[tuple[str, ...], str]] = {
    "StringConcatenate": (("string_a", "string_b"), "delimiter"),
    "JoinStrings": (("string1", "string2"), "delimiter"),
    "JoinStringMulti": (tuple(f"string_{place}" for place in range(1, 11)), "delimiter"),
    "Text Concatenate": (("text_a", "text_b", "text_c", "text_d"), "delimiter"),
    "CR Text Concatenate": (("text1", "text2"), "separator"),
    "Text Concatenate (JPS)": (tuple(f"text{place}" for place in range(1, 6)), "delimiter"),
    "StringFunction|pysssss": (("text_a", "text_b", "text_c"), ""),
    "ConcatStringSingle": (("string_a", "string_b"), ""),
}
# Conditionings: the inputs with texts, the best first.
ENCODER_TEXTS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("text",),
    "CLIPTextEncodeFlux": ("t5xxl", "clip_l"),
    "CLIPTextEncodeSD3": ("clip_g", "clip_l", "t5xxl"),
    "CLIPTextEncodeLumina2": ("user_prompt",),
}
# Conditionings that add what is not here to another one: what is said of them.
CONDITIONING_PATCHES = {
    "ConditioningSetArea": "an area of its own for a prompt",
    "ConditioningSetAreaPercentage": "an area of its own for a prompt",
    "ConditioningSetAreaStrength": "a strength of its own for a prompt",
    "ConditioningSetMask": "a mask of its own for a prompt",
    "ConditioningSetTimestepRange": "a prompt for some of the steps alone",
    "unCLIPConditioning": "an image in place of a prompt (unCLIP)",
    "StyleModelApply": "an image's style (Redux)",
    "GLIGENTextBoxApply": "places for words (GLIGEN)",
    "ReferenceLatent": "a reference image",
}
