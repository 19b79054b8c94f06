"""The work behind Train: a stored run → a LoRA in the library.

Knows: the order of things, from looking at the pictures to the finished file; going on after a stop or a kill; names of files.
Does not know: the page; how a step is taken (loop.py), what a checkpoint holds (checkpoint.py).

A run is stored before it begins and can be taken up again at any time: its newest whole checkpoint wins, and from there it is bit
for bit the run that was never stopped. The model that is trained on is a copy of its own, never one that is lent.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch

from studio.core.base import check
from studio.core.training.config import TrainingConfig
from studio.engine.context import Bench
from studio.engine.models import families
from studio.engine.models.devices import FORMATS
from studio.engine.training import checkpoint, lora_export
from studio.engine.training import memory_probe as probing
from studio.engine.training.checkpoint import Keeper
from studio.engine.training.data_loader import Data
from studio.engine.training.latent_cache import Cache
from studio.engine.training.lora_export import About, Layers
from studio.engine.training.lora_network import Network
from studio.engine.training.monitor import Watcher, beginning
from studio.engine.training.prepare import Report, Setup, prepare
from studio.engine.training.trainer import Trainer, fit
from studio.errors import BadFile, StudioError
from studio.storage.atomic import safe_name
from studio.storage.jobs import Progress
from studio.storage.training import checkpoints
from studio.storage.training.runs import Run


def train(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Train a stored run to its end, or on from where it was. `spec` has its id as "run"; "resume": false begins it anew.

    Returns the LoRA's name, steps and seconds. `report` raises Cancelled to stop; then all is saved, and the same job goes on.
    """
    began = time.perf_counter()
    run = _run(bench, spec)
    report(Progress(0, 0, "Reading the pictures"))
    setup = prepare(bench, run.config, report)
    folder = run.folder / "checkpoints"
    keeper = Keeper(folder, setup.identity, setup.config.checkpoints_kept)
    checkpoints.tidy(folder)
    if not spec.get("resume", True):
        bench.runs.restart(run.id)
    found, notes = keeper.newest()
    bench.runs.say(run.id, "about", **setup.about(), left_aside=notes)
    with _trainer(bench, setup, f"{run.config.name} (training {run.id})", report) as (
        trainer,
        held,
    ):
        cost = _cost(bench, run, setup, trainer, report, known=found is not None)
        watcher = Watcher(bench, run, setup, keeper, held, report, int(cost["working"]))
        watcher.first = beginning(trainer)
        if found:
            keeper.restore(trainer, found)
        bench.runs.restart(run.id, trainer.done)
        fit(trainer, watcher)
    last, _ = keeper.newest()
    assert last
    report(Progress(setup.total, setup.total, "Writing the LoRA"))
    name, notes = _export(bench, run, last.step, checkpoint.layers(last), setup.config.name, "lora")
    return {
        "run": run.id,
        "lora": name,
        "steps": setup.total,
        "notes": [*setup.notes, *notes],
        "seconds": round(time.perf_counter() - began, 3),
    }


def export_checkpoint(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write the LoRA of a checkpoint into the library; `spec` has the run's id and the step. Needs no model."""
    run, step = _run(bench, spec), spec.get("step")
    report(Progress(0, 1, "Writing the LoRA"))
    there = {one.step: one for one in bench.runs.checkpoints(run.id)}
    if not isinstance(step, int) or step not in there:
        steps = ", ".join(map(str, there)) or "none"
        raise StudioError(
            f"{run.config.name} has no checkpoint of step {step!r:.20}; there is {steps}."
        )
    name, notes = _export(
        bench,
        run,
        step,
        checkpoint.layers(there[step]),
        f"{run.config.name}-step{step:06d}",
        str(step),
    )
    return {"run": run.id, "lora": name, "step": step, "notes": notes}


def probe(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """What a training would take, from a few steps that leave no trace: `spec` has settings as "config".

    Returns about.json's facts with steps, seconds and bytes. Raises OutOfMemory, which says what to lower, if it will not fit.
    """
    report(Progress(0, 0, "Reading the pictures"))
    setup = prepare(bench, check(TrainingConfig, dict(spec.get("config", {}))), report)
    with _trainer(bench, setup, f"{setup.config.name} (a try)", report) as (trainer, _):
        cost = probing.measured(
            trainer,
            lambda: bench.pipelines.room,
            lambda: report(Progress(0, 0, "Trying a few steps")),
        )
    return setup.about() | {"cost": cost.told()}


@contextmanager
def _trainer(
    bench: Bench, setup: Setup, key: str, report: Report
) -> Iterator[tuple[Trainer, Data | None]]:
    """A trainer with all its data, on a model of its own that is gone afterwards; and the data to validate with."""
    config, info, device = setup.config, setup.info, setup.device
    report(Progress(0, setup.total, "Loading the model"))
    saved = FORMATS.get(info.dtype, torch.float32)
    lacked = False
    try:
        with bench.pipelines.hold(
            key,
            lambda: families.load(info, setup.content, device),
            info.bytes * device.dtype.itemsize // saved.itemsize,
        ) as parts:
            try:
                yield _made(bench, setup, Network(parts, config, setup.modules), report)
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(
                    error.__traceback__
                )  # they hold the very tensors that have to go
                lacked = True
    finally:
        bench.pipelines.unload(key)
    if lacked:
        raise probing.too_much(config)


def _cost(
    bench: Bench, run: Run, setup: Setup, trainer: Trainer, report: Report, known: bool
) -> Mapping[str, Any]:
    """What a step takes: measured, or remembered of the same run on the same device. Raises OutOfMemory if there is no room."""
    about, room = run.about, bench.pipelines.room
    if known and about.get("device") == setup.device.title and isinstance(about.get("cost"), dict):
        if about["cost"]["working"] > room:
            raise probing.too_much(setup.config, about["cost"]["working"], room)
        return dict(about["cost"])

    def ready() -> None:
        report(Progress(0, setup.total, "Trying a few steps"))

    ready()
    cost = probing.measured(trainer, lambda: bench.pipelines.room, ready).told()
    bench.runs.say(run.id, "about", cost=cost)
    return cost


def _made(bench: Bench, setup: Setup, own: Network, report: Report) -> tuple[Trainer, Data | None]:
    config = setup.config
    cache = Cache(
        bench.settings.home / "cache" / "training" if config.cache_latents == "disk" else None
    )
    keep = config.cache_latents != "off"
    data = Data(setup.plan, cache, own.parts, not own.reads, keep)
    held = Data(setup.held, cache, own.parts, not own.reads, keep) if setup.held else None
    for each in (data, held):
        if each:
            each.prepare(
                own.parts,
                lambda done, total: report(Progress(done, total, "Encoding the pictures")),
            )
    own.park()
    return Trainer(own, data, config, setup.total), held


def _run(bench: Bench, spec: Mapping[str, Any]) -> Run:
    run = bench.runs.get(str(spec.get("run")))
    if run is None:
        raise StudioError(f"There is no training run {spec.get('run')!r:.40} here any more.")
    return run


def _export(
    bench: Bench, run: Run, step: int, layers: Layers, wanted: str, what: str
) -> tuple[str, list[str]]:
    """Write a LoRA under a name of its own, and note in the run which it is. Gives the name and what should be said of it."""
    run = bench.runs.get(run.id) or run  # with all that is known of it by now
    mine = {known.get("lora") for known in run.result.values() if known.get("what") == what}
    stem = safe_name(wanted)
    if "unet" not in run.about:
        raise BadFile(
            f"What was noted when {run.config.name} began is lost (about.json); train it on, and it is noted again."
        )
    dtype = FORMATS[run.config.save_precision]
    for number in count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        path = bench.settings.loras / f"{name}.safetensors"
        try:
            digest = lora_export.write(
                path,
                layers,
                _about(run, name, step),
                run.about["unet"],
                dtype,
                replace=name in mine,
            )
        except FileExistsError:
            continue
        bench.runs.say(
            run.id, "result", **{what: {"what": what, "lora": name, "step": step, "sha256": digest}}
        )
        said = (
            [f"There was a LoRA {stem} already, so this one is called {name}."]
            if number > 1 and name not in mine
            else []
        )
        return name, said
    raise AssertionError


def _about(run: Run, name: str, step: int) -> About:
    """What the file says of itself: from the run alone, so that it is the same whenever it is written."""
    config, known = run.config, run.about
    more = {
        "learning_rate": config.learning_rate,
        "unet_lr": config.learning_rate if config.train_unet else None,
        "text_encoder_lr": config.rates[1] if config.train_text_encoder else None,
        "optimizer": config.optimizer,
        "lr_scheduler": config.schedule,
        "max_train_steps": known["steps"],
        "steps": step,
        "seed": config.seed,
        "num_train_images": known["showings"],
        "num_reg_images": known["class_pictures"],
        "num_batches_per_epoch": known["batches_per_epoch"],
        "batch_size_per_device": config.batch,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_checkpointing": config.gradient_checkpointing,
        "min_snr_gamma": config.min_snr_gamma,
        "noise_offset": config.noise_offset or None,
        "clip_skip": config.clip_skip,
        "caption_dropout_rate": config.caption_dropout,
        "network_dropout": config.dropout or None,
        "max_grad_norm": config.max_grad_norm,
        "prior_loss_weight": config.prior_weight,
        "mixed_precision": known["precision"],
    }
    settings = {
        "config": config.model_dump(mode="json"),
        "step": step,
        "steps": known["steps"],
        "model_content": known["model_content"],
        "dataset_content": known["dataset_content"],
    }
    side = int(known["resolution"])
    return About(
        name,
        known["family"],
        config.model,
        (side, side),
        known["prediction"],
        config.trigger,
        "",
        run.date,
        settings,
        known["tag_frequency"],
        more,
    )
