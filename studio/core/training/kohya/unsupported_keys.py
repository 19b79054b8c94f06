"""Kohya's keys that a training run of the studio does not use: why each is inert, or what it does.

Knows: names of sd-scripts' options and of the GUI's own keys, which values mean "off".
Does not know: keys that are used (network.py, optimizer.py, dataset.py).
Facts from the documentation and `--help` of sd-scripts 0.10 and kohya_ss 26.
"""

from __future__ import annotations

from typing import Any

_INERT_REASONS = {
    "is about speed and memory, not about what is learned; the studio decides that itself.": (
        "xformers sdpa mem_eff_attn lowram lowvram highvram torch_compile dynamo_backend "
        "dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph vae_batch_size "
        "max_data_loader_n_workers persistent_data_loader_workers num_cpu_threads_per_process "
        "num_processes num_machines multi_gpu gpu_ids main_process_port "
        "extra_accelerate_launch_args ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph "
        "skip_cache_check cpu_offload_checkpointing cache_info deepspeed opt_channels_last "
        "cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors mem_eff_save"
    ),
    "is about logs; the studio keeps its own.": (
        "logging_dir log_with log_prefix log_tracker_name log_tracker_config log_config "
        "wandb_run_name wandb_api_key use_wandb console_log_level console_log_file "
        "console_log_simple"
    ),
    "is about uploads; the studio uploads nothing.": (
        "huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token "
        "huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface "
        "async_upload"
    ),
    "is about where and how files are kept; the studio keeps LoRAs in home/loras, "
    "as safetensors.": ("output_dir save_model_as save_as_bool output_config config_file"),
    "every checkpoint of the studio has all that is needed to go on.": (
        "save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state"
    ),
    "the image encoder (VAE) runs in full precision anyway.": "no_half_vae",
    "belongs to the GUI alone; sd-scripts does not know it.": (
        "noise_offset_type model_list LoRA_type LyCORIS_preset stop_text_encoder_training "
        "stop_text_encoder_training_pct no_token_padding lora_network_weights "
        "caption_metadata_filename latent_metadata_filename"
    ),
    "counts only for other kinds of LoRA.": (
        "unit factor use_cp use_tucker use_scalar decompose_both train_on_input train_norm "
        "rescaled constrain bypass_mode dora_wd rank_dropout_scale conv_alphas conv_dims"
    ),
    "the studio paints a sample before the first step anyway.": "sample_at_first",
    "the studio's samples have their own scheduler.": "sample_sampler",
    "is read from the model.": "v2 v_parameterization sdxl",
}

INERT_KEYS: dict[str, str] = {
    key: reason for reason, keys in _INERT_REASONS.items() for key in keys.split()
}

# Keys that act only beside another one: that one, and its values with which they act (or any).
DEPENDENT_KEYS: dict[str, tuple[str, tuple[Any, ...]]] = {
    **dict.fromkeys(
        ("huber_c", "huber_schedule", "huber_scale"), ("loss_type", ("huber", "smooth_l1"))
    ),
    **dict.fromkeys(("noise_offset_random_strength", "adaptive_noise_scale"), ("noise_offset", ())),
    "multires_noise_discount": ("multires_noise_iterations", ()),
    "ip_noise_gamma_random_strength": ("ip_noise_gamma", ()),
}

# What the studio does not do, and the value that is off (beside empty, false and 0).
UNSUPPORTED_KEYS: dict[str, tuple[str, Any]] = {
    "color_aug": ("colours are not changed at random", False),
    "face_crop_aug_range": ("faces are not looked for", None),
    "masked_loss": ("masks are not used", False),
    "alpha_mask": ("transparency is no mask", False),
    "conditioning_data_dir": ("masks are not used", None),
    "weighted_captions": ("weights in captions are plain text", False),
    "caption_dropout_every_n_epochs": (
        "captions are left out at random (caption dropout), not by epoch",
        0,
    ),
    "caption_tag_dropout_rate": ("single tags are not left out", 0),
    "token_warmup_min": ("tags do not come bit by bit", 1),
    "token_warmup_step": ("tags do not come bit by bit", 0),
    "caption_prefix": ("write it into the captions, or as the trigger", None),
    "caption_suffix": ("write it into the captions", None),
    "caption_separator": ("parts are separated by commas", ","),
    "keep_tokens_separator": ("parts are kept by their number (keep first parts)", None),
    "secondary_separator": ("parts are separated by commas", None),
    "enable_wildcard": ("captions have no wildcards", False),
    "multires_noise_iterations": ("noise has one resolution", 0),
    "ip_noise_gamma": ("images are not disturbed", 0),
    "zero_terminal_snr": ("the model's own noise schedule is used", False),
    "min_timestep": ("all noise levels are trained", 0),
    "max_timestep": ("all noise levels are trained", 1000),
    "loss_type": ("the loss is the squared difference (l2)", "l2"),
    "debiased_estimation_loss": ("to weigh noise levels there is min_snr_gamma", False),
    "v_pred_like_loss": ("the loss is the plain one", 0),
    "scale_v_pred_loss_like_noise_pred": ("the loss is the plain one", False),
    "full_fp16": ("the LoRA itself is kept in float32", False),
    "full_bf16": ("the LoRA itself is kept in float32", False),
    "fp8_base": ("the model is not kept in 8 bits", False),
    "fp8_base_unet": ("the model is not kept in 8 bits", False),
    "vae": ("the model's own VAE is used", None),
    "network_weights": ("training starts from a fresh LoRA", None),
    "dim_from_weights": ("training starts from a fresh LoRA", False),
    "base_weights": ("no LoRA is merged before", None),
    "base_weights_multiplier": ("no LoRA is merged before", None),
    "resume": ("a run of the studio goes on from its own checkpoints", None),
    "initial_step": ("runs start at step 0", 0),
    "initial_epoch": ("runs start at epoch 1", 1),
    "skip_until_initial_step": ("runs start at step 0", False),
    "max_token_length": ("a caption has 75 tokens", 75),
    "dataset_class": ("there are folders of images", None),
    "reg_data_dir": (
        "the studio makes class images itself: give class word and class images",
        None,
    ),
    "metadata_title": ("the LoRA's name is its title", None),
    "metadata_author": ("it is not written", None),
    "metadata_description": ("it is not written", None),
    "metadata_license": ("it is not written", None),
    "metadata_tags": ("it is not written", None),
    "training_comment": ("it is not written", None),
    "no_metadata": ("the settings are always written into the file", False),
    "loraplus_lr_ratio": ("both halves of a LoRA have one rate", 0),
    "loraplus_unet_lr_ratio": ("both halves have one rate", 0),
    "loraplus_text_encoder_lr_ratio": ("both halves have one rate", 0),
    "save_n_epoch_ratio": ("say checkpoint_every", None),
    "max_validation_steps": ("all images put aside are measured", None),
    "validation_seed": ("it follows from the seed", None),
    "additional_parameters": ("free command line parameters are not read", None),
    "skip_image_resolution": ("no image is left out for its size", None),
    "resize_interpolation": ("there is one way to resize", None),
    "dataset_repeats": ("say repeats", 1),
    "fused_backward_pass": ("steps are taken after the whole pass", False),
    "block_lr": ("all blocks have one rate", None),
    "lr_scheduler_type": ("schedules of other packages are not loaded", None),
    "lr_scheduler_timescale": ("no schedule has one", None),
    "lr_scheduler_min_lr_ratio": ("no schedule has one", None),
    "lr_decay_steps": ("no schedule has them", 0),
}

# Keys of other families, which the studio does not train.
OTHER_FAMILY_KEYS = {
    "flux1_checkbox": "FLUX.1",
    "sd3_checkbox": "Stable Diffusion 3",
    "t5xxl": "FLUX.1 or Stable Diffusion 3",
    "ae": "FLUX.1",
    "lumina_checkbox": "Lumina",
    "hunyuan_image_checkbox": "HunyuanImage",
    "qwen3": "Anima",
}
