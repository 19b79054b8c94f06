"""Kohya's keys that a training run of the studio does not use: why each is inert, or what it does.

Knows: names of sd-scripts' options and of the GUI's own keys, which values mean "off".
Does not know: keys that are used (network.py, optimizer.py, dataset.py).
Facts from the documentation and `--help` of sd-scripts 0.10 and kohya_ss 26.
"""

from __future__ import annotations

from typing import Any

_INERT_REASONS = {
    "affects speed and memory, not what is learned; the studio decides it automatically.": (
        "xformers sdpa mem_eff_attn lowram lowvram highvram torch_compile dynamo_backend "
        "dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph vae_batch_size "
        "max_data_loader_n_workers persistent_data_loader_workers num_cpu_threads_per_process "
        "num_processes num_machines multi_gpu gpu_ids main_process_port "
        "extra_accelerate_launch_args ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph "
        "skip_cache_check cpu_offload_checkpointing cache_info deepspeed opt_channels_last "
        "cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors mem_eff_save"
    ),
    "concerns logs; the studio keeps its own.": (
        "logging_dir log_with log_prefix log_tracker_name log_tracker_config log_config "
        "wandb_run_name wandb_api_key use_wandb console_log_level console_log_file "
        "console_log_simple"
    ),
    "concerns uploads; the studio uploads nothing.": (
        "huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token "
        "huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface "
        "async_upload"
    ),
    "concerns where and how files are saved; the studio saves LoRAs in home/loras, "
    "as safetensors.": ("output_dir save_model_as save_as_bool output_config config_file"),
    "every studio checkpoint holds everything required to resume.": (
        "save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state"
    ),
    "the VAE always runs in full precision.": "no_half_vae",
    "used only by the GUI; sd-scripts does not know it.": (
        "noise_offset_type model_list LoRA_type LyCORIS_preset stop_text_encoder_training "
        "stop_text_encoder_training_pct no_token_padding lora_network_weights "
        "caption_metadata_filename latent_metadata_filename"
    ),
    "used only by other LoRA types.": (
        "unit factor use_cp use_tucker use_scalar decompose_both train_on_input train_norm "
        "rescaled constrain bypass_mode dora_wd rank_dropout_scale conv_alphas conv_dims"
    ),
    "the studio always generates samples before the first step.": "sample_at_first",
    "the studio's samples have their own sampler.": "sample_sampler",
    "read from the model.": "v2 v_parameterization sdxl",
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
    "color_aug": ("colours are not varied at random", False),
    "face_crop_aug_range": ("faces are not detected", None),
    "masked_loss": ("masks are not used", False),
    "alpha_mask": ("transparency is not used as a mask", False),
    "conditioning_data_dir": ("masks are not used", None),
    "weighted_captions": ("weights in captions are read as plain text", False),
    "caption_dropout_every_n_epochs": (
        "captions are dropped at random (Caption dropout), not by epoch",
        0,
    ),
    "caption_tag_dropout_rate": ("single tags are not dropped", 0),
    "token_warmup_min": ("tags are not introduced gradually", 1),
    "token_warmup_step": ("tags are not introduced gradually", 0),
    "caption_prefix": ("add it to the captions, or enter it as the trigger word", None),
    "caption_suffix": ("add it to the captions", None),
    "caption_separator": ("tags are separated by commas", ","),
    "keep_tokens_separator": ("tags are kept by their number (Keep first tags)", None),
    "secondary_separator": ("tags are separated by commas", None),
    "enable_wildcard": ("captions cannot contain wildcards", False),
    "multires_noise_iterations": ("noise has one resolution", 0),
    "ip_noise_gamma": ("no noise is added to inputs", 0),
    "zero_terminal_snr": ("the model's own noise schedule is used", False),
    "min_timestep": ("all noise levels are trained", 0),
    "max_timestep": ("all noise levels are trained", 1000),
    "loss_type": ("the loss is the squared error (l2)", "l2"),
    "debiased_estimation_loss": ("use Min-SNR gamma to weight noise levels", False),
    "v_pred_like_loss": ("the loss is not rescaled", 0),
    "scale_v_pred_loss_like_noise_pred": ("the loss is not rescaled", False),
    "full_fp16": ("the LoRA itself is kept in float32", False),
    "full_bf16": ("the LoRA itself is kept in float32", False),
    "fp8_base": ("the model is not kept in 8 bits", False),
    "fp8_base_unet": ("the model is not kept in 8 bits", False),
    "vae": ("the model's own VAE is used", None),
    "network_weights": ("training starts from a fresh LoRA", None),
    "dim_from_weights": ("training starts from a fresh LoRA", False),
    "base_weights": ("no LoRA is merged beforehand", None),
    "base_weights_multiplier": ("no LoRA is merged beforehand", None),
    "resume": ("a run resumes from its own checkpoints", None),
    "initial_step": ("runs start at step 0", 0),
    "initial_epoch": ("runs start at epoch 1", 1),
    "skip_until_initial_step": ("runs start at step 0", False),
    "max_token_length": ("captions are limited to 75 tokens", 75),
    "dataset_class": ("datasets are folders of images", None),
    "reg_data_dir": (
        "the studio generates class images itself: set Class word and Class images",
        None,
    ),
    "metadata_title": ("the LoRA's name is its title", None),
    "metadata_author": ("it is not saved", None),
    "metadata_description": ("it is not saved", None),
    "metadata_license": ("it is not saved", None),
    "metadata_tags": ("it is not saved", None),
    "training_comment": ("it is not saved", None),
    "no_metadata": ("the settings are always saved in the file", False),
    "loraplus_lr_ratio": ("both halves of a LoRA share one learning rate", 0),
    "loraplus_unet_lr_ratio": ("both halves of a LoRA share one learning rate", 0),
    "loraplus_text_encoder_lr_ratio": ("both halves of a LoRA share one learning rate", 0),
    "save_n_epoch_ratio": ("set Checkpoint every", None),
    "max_validation_steps": ("all held-out images are measured", None),
    "validation_seed": ("it is derived from the seed", None),
    "additional_parameters": ("free command line parameters are not read", None),
    "skip_image_resolution": ("no image is skipped because of its size", None),
    "resize_interpolation": ("there is only one resize method", None),
    "dataset_repeats": ("set Repeats", 1),
    "fused_backward_pass": ("weights are updated after the whole backward pass", False),
    "block_lr": ("all blocks share one learning rate", None),
    "lr_scheduler_type": ("schedules from other packages are not loaded", None),
    "lr_scheduler_timescale": ("no schedule here uses it", None),
    "lr_scheduler_min_lr_ratio": ("no schedule here uses it", None),
    "lr_decay_steps": ("no schedule here uses it", 0),
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
