"""A run's LoRA as a file in the library.

Knows: its name, what its metadata says of the run, the run's record of it.
Does not know: the file's format (lora_export.py), where the matrices come from (checkpoint.py).
"""

from __future__ import annotations

from studio.core.training.kohya import lycoris
from studio.engine.context import WorkerContext
from studio.engine.models.devices import DTYPES
from studio.engine.training import lora_export
from studio.engine.training.lora_export import LoraExportInfo, LoraLayers
from studio.errors import BadFile
from studio.storage.atomic import safe_name
from studio.storage.training.runs import Run


def export_lora(
    context: WorkerContext,
    run: Run,
    *,
    step: int,
    layers: LoraLayers,
    lora_name: str,
    result_key: str,
) -> tuple[str, list[str]]:
    """Write a run's LoRA into the library and note it in the run.

    Args:
        context: The worker's stores.
        run: The run that the LoRA is of.
        step: The step after which it is exported.
        layers: The LoRA's matrices.
        lora_name: The wanted name. If another LoRA has it already, a number is appended.
        result_key: What the export is in the run's result.json: "lora" for the final one, or the
            step. An earlier export under the same key is replaced.

    Returns:
        The LoRA's name, and notes for its owner.

    Raises:
        StudioError: If the matrices have values that are not finite.
        BadFile: If the run's about.json is lost, or the file cannot be written.
    """
    # Read again: the run was updated since it was loaded.
    run = context.home.runs.get(run.id) or run
    if "unet" not in run.start_info:
        raise BadFile(
            f"The record of how {run.config.name} started (about.json) is missing; resume the "
            "training to recreate it."
        )
    earlier_names = set()
    for entry in run.result.values():
        if entry.get("what") == result_key:
            earlier_names.add(entry.get("lora"))
    stem = safe_name(lora_name)
    name, number = stem, 1
    while True:
        try:
            digest = lora_export.write_lora(
                context.settings.loras / f"{name}.safetensors",
                layers,
                info=_build_export_info(run, name, step),
                unet_config=run.start_info["unet"],
                dtype=DTYPES[run.config.save_precision],
                replace=name in earlier_names,
            )
            break
        except FileExistsError:
            number += 1
            name = f"{stem}-{number}"
    entry = {"what": result_key, "lora": name, "step": step, "sha256": digest}
    context.home.runs.update_record(run.id, "result", **{result_key: entry})
    if name == stem or name in earlier_names:
        return name, []
    return name, [f"A LoRA called {stem} already existed, so this one is called {name}."]


def _build_export_info(run: Run, name: str, step: int) -> LoraExportInfo:
    """Return what the file says of itself: from the run alone, so that it is always the same."""
    config, facts = run.config, run.start_info
    extra_metadata = {
        **facts.get("base_model_hashes", {}),  # of a single file; older runs have none
        "learning_rate": config.learning_rate,
        "unet_lr": config.learning_rate if config.train_unet else None,
        "text_encoder_lr": config.learning_rates[1] if config.train_text_encoder else None,
        "optimizer": config.optimizer,
        "lr_scheduler": config.lr_scheduler,
        "max_train_steps": facts["steps"],
        "steps": step,
        "seed": config.seed,
        "num_train_images": facts["showings"],
        "num_reg_images": facts["class_pictures"],
        "num_batches_per_epoch": facts["batches_per_epoch"],
        "batch_size_per_device": config.train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_checkpointing": config.gradient_checkpointing,
        "min_snr_gamma": config.min_snr_gamma,
        "noise_offset": config.noise_offset or None,
        "clip_skip": config.clip_skip,
        "caption_dropout_rate": config.caption_dropout,
        "network_dropout": config.dropout or None,
        "scale_weight_norms": config.scale_weight_norms,
        "max_grad_norm": config.max_grad_norm,
        "prior_loss_weight": config.prior_loss_weight,
        "mixed_precision": facts["precision"],
    }
    settings = {
        "config": config.model_dump(mode="json"),
        "step": step,
        "steps": facts["steps"],
        "model_content": facts["model_content"],
        "dataset_content": facts["dataset_content"],
    }
    side = int(facts["resolution"])
    return LoraExportInfo(
        name=name,
        family=facts["family"],
        base_model=config.model,
        resolution=(side, side),
        prediction_type=facts["prediction"],
        trigger=config.trigger,
        date=run.date,
        settings=settings,
        tag_frequency=facts["tag_frequency"],
        network_module=lycoris.MODULE_NAME if config.is_lycoris else "networks.lora",
        network_args=lycoris.write_network_args(config),
        extra_metadata=extra_metadata,
    )
