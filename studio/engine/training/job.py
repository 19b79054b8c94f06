"""The jobs behind Train: a stored run becomes a LoRA in the library.

Knows: the stages of a run, from reading the images to the finished file; resuming after a stop or
a kill.
Does not know: the page; how a step is taken (trainer.py), what a checkpoint holds (checkpoint.py),
how a LoRA is named (run_export.py).

A run is stored before it begins and can be resumed at any time: from its newest intact checkpoint
on it is the run that was never stopped, on a CPU bit for bit. (On a GPU no two runs are: backward
passes add up with atomic operations.) The model that is trained is loaded for it
alone, never one that is lent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from studio.core.base import validate
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.models import loaded_model
from studio.engine.models.devices import DTYPES, catch_out_of_memory
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.progress import ProgressCallback
from studio.engine.training import checkpoint, memory_probe
from studio.engine.training.checkpoint import CheckpointManager
from studio.engine.training.data_loader import BatchLoader
from studio.engine.training.latent_cache import TensorCache
from studio.engine.training.lora_network import LoraNetwork
from studio.engine.training.monitor import TrainingMonitor, snapshot_weights
from studio.engine.training.prepare import TrainingSetup, prepare_training
from studio.engine.training.run_export import export_lora
from studio.engine.training.trainer import Trainer, fit
from studio.errors import StudioError, quote
from studio.storage.jobs import Progress
from studio.storage.training import checkpoints
from studio.storage.training.runs import Run


def train(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Train a stored run to its end, from the beginning or on from its newest checkpoint.

    Args:
        context: The worker's stores and pipelines.
        spec: "run" is the run's id; "resume": False begins it anew.
        report: Called with the progress. It raises Cancelled to stop; then everything is saved,
            and the same job goes on from there.

    Returns:
        "run", "lora" (the LoRA's name), "steps", "notes" and "seconds".

    Raises:
        StudioError: If there is no such run, or its settings, model, dataset or checkpoint are
            unusable.
        OutOfMemory: If a step does not fit into memory; the message says what to lower.
    """
    started = time.perf_counter()

    # 1. The stored run, and what its settings name: model, layers, images, order, steps.
    run = _load_run(context, spec)
    report(Progress(0, 0, "Reading the images"))
    setup = prepare_training(context, run.config, report)

    # 2. Where it begins: at the newest intact checkpoint, or at step 0.
    folder = run.folder / "checkpoints"
    checkpoint_manager = CheckpointManager(folder, setup.identity, setup.config.checkpoint_limit)
    checkpoints.delete_leftovers(folder)
    if not spec.get("resume", True):
        context.home.runs.rewind(run.id)
    newest, faults = checkpoint_manager.find_newest()
    context.home.runs.update_record(run.id, "about", **setup.summarize(), left_aside=faults)

    # 3. A model of its own with a fresh LoRA, and all latents and embeddings in the cache.
    owner = f"{run.config.name} (training {run.id})"
    with _open_trainer(context, setup, owner, report) as (trainer, validation_loader):
        # 4. The cost of a step. What does not fit into memory fails here, before a step is taken.
        cost = _recall_cost(context, run, setup) if newest else None
        if cost is None:
            cost = _measure_cost(context, run, trainer, report)

        # 5. The state of the checkpoint; log and samples of later steps are deleted.
        monitor = TrainingMonitor(
            context,
            run,
            setup=setup,
            checkpoint_manager=checkpoint_manager,
            validation_loader=validation_loader,
            report=report,
            working_bytes=int(cost["working"]),
        )
        monitor.initial_weights = snapshot_weights(trainer)
        if newest:
            checkpoint_manager.restore(trainer, newest)
        context.home.runs.rewind(run.id, trainer.global_step)

        # 6. The steps, with log, samples, validation and checkpoints.
        fit(trainer, monitor)

    # 7. The last checkpoint as a LoRA in the library.
    last, _ = checkpoint_manager.find_newest()
    assert last
    report(Progress(setup.total_steps, setup.total_steps, "Writing the LoRA"))
    lora_name, export_notes = export_lora(
        context,
        run,
        step=last.step,
        layers=checkpoint.load_layers(last),
        lora_name=setup.config.name,
        result_key="lora",
    )
    return {
        "run": run.id,
        "lora": lora_name,
        "steps": setup.total_steps,
        "notes": [*setup.notes, *monitor.notes, *export_notes],
        "seconds": round(time.perf_counter() - started, 3),
    }


def export_checkpoint(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Write the LoRA of a checkpoint into the library. It needs no model.

    Args:
        context: The worker's stores.
        spec: "run" is the run's id, "step" the checkpoint's step.
        report: Called with the progress.

    Returns:
        "run", "lora" (the LoRA's name), "step" and "notes".

    Raises:
        StudioError: If there is no such run or checkpoint.
        BadFile: If the checkpoint cannot be read, or the file not written.
    """
    run = _load_run(context, spec)
    step = spec.get("step")
    report(Progress(0, 1, "Writing the LoRA"))
    checkpoint_by_step = {
        stored.step: stored for stored in context.home.runs.list_checkpoints(run.id)
    }
    if not isinstance(step, int) or step not in checkpoint_by_step:
        steps = ", ".join(map(str, checkpoint_by_step)) or "none"
        raise StudioError(
            f"{run.config.name} has no checkpoint of step {quote(step)}; available: {steps}."
        )
    lora_name, notes = export_lora(
        context,
        run,
        step=step,
        layers=checkpoint.load_layers(checkpoint_by_step[step]),
        lora_name=f"{run.config.name}-step{step:06d}",
        result_key=str(step),
    )
    return {"run": run.id, "lora": lora_name, "step": step, "notes": notes}


def dry_run(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Measure what a training would take, from a few tries that leave no trace.

    Args:
        context: The worker's stores and pipelines.
        spec: "config" are the settings.
        report: Called with the progress; it raises Cancelled to stop.

    Returns:
        The facts of a run's about.json, with steps, seconds and bytes.

    Raises:
        InvalidSpec: If the settings are not valid.
        OutOfMemory: If a step does not fit into memory; the message says what to lower.
    """
    report(Progress(0, 0, "Reading the images"))
    config = validate(TrainingConfig, dict(spec.get("config", {})))
    setup = prepare_training(context, config, report)
    owner = f"{setup.config.name} (a try)"
    with _open_trainer(context, setup, owner, report) as (trainer, _):
        cost = memory_probe.measure_cost(
            trainer,
            lambda: context.pipelines.free_bytes,
            lambda: report(Progress(0, 0, "Measuring a few steps")),
        )
    return setup.summarize() | {"cost": cost.to_dict()}


@contextmanager
def _open_trainer(
    context: WorkerContext, setup: TrainingSetup, owner: str, report: ProgressCallback
) -> Iterator[tuple[Trainer, BatchLoader | None]]:
    """Lend a trainer and the batches to validate with, on a model that is unloaded afterwards.

    Raises OutOfMemory where torch ran out of memory in between.
    """
    info, device = setup.model_info, setup.device

    def load_model() -> LoadedModel:
        return loaded_model.load_model(info, setup.content_hash, device)

    report(Progress(0, setup.total_steps, "Loading the model"))
    stored_dtype = DTYPES.get(info.dtype, torch.float32)
    size_bytes = info.size_bytes * device.dtype.itemsize // stored_dtype.itemsize
    try:
        with (
            context.pipelines.lend(owner, load_model, size_bytes) as model,
            catch_out_of_memory() as memory,
        ):
            network = LoraNetwork(model, setup.config, setup.target_modules)
            yield _build_trainer(context, setup, network, report)
    finally:
        context.pipelines.unload(owner)
    if memory.is_full:
        raise memory_probe.build_out_of_memory(setup.config)


def _build_trainer(
    context: WorkerContext, setup: TrainingSetup, network: LoraNetwork, report: ProgressCallback
) -> tuple[Trainer, BatchLoader | None]:
    """Encode all images and captions; build the trainer and the loader to validate with."""
    config, model = setup.config, network.model
    folder = context.settings.home / "cache" / "training"
    cache = TensorCache(folder if config.cache_latents == "disk" else None)
    cached = {
        "cache_text_embeds": not network.trains_text_encoder,
        "cache_latents": config.cache_latents != "off",
    }
    loader = BatchLoader(setup.plan, cache, model, **cached)
    validation_loader = None
    if setup.validation_plan:
        validation_loader = BatchLoader(setup.validation_plan, cache, model, **cached)

    def report_encoding(num_encoded: int, total: int) -> None:
        report(Progress(num_encoded, total, "Encoding the images"))

    loader.fill_cache(model, report_encoding)
    if validation_loader:
        validation_loader.fill_cache(model, report_encoding)
    network.offload()
    return Trainer(network, loader, config, setup.total_steps), validation_loader


def _recall_cost(
    context: WorkerContext, run: Run, setup: TrainingSetup
) -> Mapping[str, Any] | None:
    """Return what the run measured on the same device before, or None.

    Raises OutOfMemory if it does not fit any more.
    """
    cost = run.start_info.get("cost")
    if run.start_info.get("device") != setup.device.title or not isinstance(cost, dict):
        return None
    free_bytes = context.pipelines.free_bytes
    if cost["working"] > free_bytes:
        raise memory_probe.build_out_of_memory(setup.config, cost["working"], free_bytes)
    return dict(cost)


def _measure_cost(
    context: WorkerContext, run: Run, trainer: Trainer, report: ProgressCallback
) -> Mapping[str, Any]:
    """Measure what a step takes, and note it in the run. Raises OutOfMemory if it does not fit."""

    def report_try() -> None:
        report(Progress(0, trainer.total_steps, "Measuring a few steps"))

    report_try()
    cost = memory_probe.measure_cost(trainer, lambda: context.pipelines.free_bytes, report_try)
    context.home.runs.update_record(run.id, "about", cost=cost.to_dict())
    return cost.to_dict()


def _load_run(context: WorkerContext, spec: Mapping[str, Any]) -> Run:
    run = context.home.runs.get(str(spec.get("run")))
    if run is None:
        raise StudioError(f"The training run {quote(spec.get('run'))} no longer exists.")
    return run
