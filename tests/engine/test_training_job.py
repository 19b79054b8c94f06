"""A whole run: every setting counts, pictures are painted meanwhile, what comes out can be used, what cannot be is said."""

from __future__ import annotations

import gc
import json
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.training import memory_probe as probing
from studio.engine.training.job import dry_run, export_checkpoint, train
from studio.engine.training.lora_export import read_settings
from studio.engine.training.prepare import NON_IDENTITY_FIELDS, prepare_training
from studio.engine.worker import _Worker
from studio.errors import DatasetError, InvalidSpec, ModelNotFound, OutOfMemory, StudioError
from studio.services.submission import Services
from studio.settings import load, shipped
from studio.storage.jobs import Jobs, Progress
from studio.storage.models.embeddings import read_text_widths
from studio.storage.presets import Presets
from support.benches import open_bench
from support.models import make_toy
from support.sentences import refused
from support.trainings import (
    QUICK,
    add,
    hasten,
    make_home,
    same,
    silent,
    trained,
    weights,
)
from support.visitors import OWNER

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FIELDS = list(TrainingConfig.model_fields)
PAINTED = 3  # steps of a sample and of a class image


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    home = make_home(tmp_path_factory.mktemp("training") / "home")
    wide = home / "datasets" / "wide"  # pictures of several shapes
    wide.mkdir()
    for k, (width, height) in enumerate(((160, 64), (64, 160), (96, 80))):
        noise = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(
            wide / f"{k}.png"
        )
        (wide / f"{k}.txt").write_text("a boat, red, by a lake, at night")
    bench = open_bench(home)
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        for module in ("monitor", "class_images"):
            patch.setattr(
                f"studio.engine.training.{module}.GenerationRequest",
                partial(GenerationRequest, steps=PAINTED),
            )
        yield bench
    bench.home.gallery.close()


# ---- every setting counts -------------------------------------------------------------------------------------------

# What is changed, and beside what: (values of both sides, values of the other). `weights` is the trained file, `plan` what is
# known of the run before its first step, `files` what lies on the disk afterwards, `header` what the file says of itself.
WIDE: dict[str, Any] = {"dataset": "wide", "train_batch_size": 1}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "model": ({}, {"model": "tiny-v"}, "weights"),
    "dataset": ({}, {"dataset": "other"}, "weights"),
    "name": ({}, {"name": "luna"}, "files"),
    "trigger": ({}, {"trigger": "mysks"}, "weights"),
    "class_word": ({"dataset": "bare"}, {"class_word": "rock"}, "weights"),
    "num_class_images": ({"class_word": "rock"}, {"num_class_images": 2}, "weights"),
    "prior_loss_weight": (
        {"class_word": "rock", "num_class_images": 2},
        {"prior_loss_weight": 0.1},
        "weights",
    ),
    "steps": ({}, {"steps": 2}, "weights"),
    "epochs": ({"steps": None, "epochs": 1}, {"epochs": 2}, "plan"),
    "train_batch_size": ({}, {"train_batch_size": 1}, "weights"),
    "gradient_accumulation_steps": ({}, {"gradient_accumulation_steps": 2}, "weights"),
    "repeats": ({"steps": None, "epochs": 1}, {"repeats": 2}, "plan"),
    "rank": ({}, {"rank": 3}, "weights"),
    "alpha": ({}, {"alpha": 1.0}, "weights"),
    "dropout": ({}, {"dropout": 0.3}, "weights"),
    "targets": ({}, {"targets": "attention"}, "weights"),
    "target_modules": (
        {"targets": "patterns", "target_modules": "*.attn2.to_k"},
        {"target_modules": "*.attn2.to_v"},
        "weights",
    ),
    "conv_rank": (
        {"targets": "attention + feed-forward + convolutions"},
        {"conv_rank": 1},
        "weights",
    ),
    "conv_alpha": (
        {"targets": "attention + feed-forward + convolutions"},
        {"conv_alpha": 1.0},
        "weights",
    ),
    "train_unet": ({"train_text_encoder": True}, {"train_unet": False}, "weights"),
    "train_text_encoder": ({}, {"train_text_encoder": True}, "weights"),
    "learning_rate": ({}, {"learning_rate": 1e-3}, "weights"),
    "text_encoder_lr": ({"train_text_encoder": True}, {"text_encoder_lr": 1e-4}, "weights"),
    "optimizer": ({}, {"optimizer": "Adafactor"}, "weights"),
    "weight_decay": ({}, {"weight_decay": 0.5}, "weights"),
    "beta1": ({}, {"beta1": 0.5}, "weights"),
    "beta2": ({}, {"beta2": 0.5}, "weights"),
    "eps": ({}, {"eps": 1e-3}, "weights"),
    "scale_parameter": ({"optimizer": "Adafactor"}, {"scale_parameter": True}, "weights"),
    "lr_scheduler": ({}, {"lr_scheduler": "linear"}, "weights"),
    "lr_warmup": ({"lr_scheduler": "linear"}, {"lr_warmup": 2}, "weights"),
    "lr_scheduler_num_cycles": (
        {"lr_scheduler": "cosine with restarts"},
        {"lr_scheduler_num_cycles": 2},
        "weights",
    ),
    "lr_scheduler_power": ({"lr_scheduler": "polynomial"}, {"lr_scheduler_power": 2.0}, "weights"),
    "max_grad_norm": ({}, {"max_grad_norm": 0.001}, "weights"),
    "min_snr_gamma": ({}, {"min_snr_gamma": 0.02}, "weights"),
    "noise_offset": ({}, {"noise_offset": 0.1}, "weights"),
    "caption_dropout": ({}, {"caption_dropout": 0.9}, "weights"),
    "shuffle_caption": (WIDE, {"shuffle_caption": True}, "weights"),
    "keep_tokens": (WIDE | {"shuffle_caption": True}, {"keep_tokens": 3}, "weights"),
    "clip_skip": ({}, {"clip_skip": 2}, "weights"),
    "resolution": ({}, {"resolution": 32}, "weights"),
    "random_flip": ({}, {"random_flip": True}, "weights"),
    "crop": (WIDE | {"buckets": False, "cache_latents": "off"}, {"crop": "random"}, "weights"),
    "buckets": (WIDE, {"buckets": False}, "weights"),
    "bucket_min": (WIDE | {"bucket_step": 8}, {"bucket_min": 48}, "plan"),
    "bucket_max": (WIDE | {"bucket_step": 8}, {"bucket_max": 80}, "plan"),
    "bucket_step": (WIDE, {"bucket_step": 32}, "plan"),
    "bucket_no_upscale": (WIDE, {"bucket_no_upscale": True}, "plan"),
    "precision": ({}, {"precision": "bfloat16"}, "weights"),
    "save_precision": ({}, {"save_precision": "bfloat16"}, "files"),
    "gradient_checkpointing": ({}, {"gradient_checkpointing": True}, "memory"),
    "cache_latents": ({}, {"cache_latents": "disk"}, "files"),
    "seed": ({}, {"seed": 8}, "weights"),
    "sample_prompts": (
        {"sample_prompts": "a moon", "sample_every": 2},
        {"sample_prompts": "a cat"},
        "files",
    ),
    "sample_every": ({"sample_prompts": "a moon", "sample_every": 2}, {"sample_every": 3}, "files"),
    "sample_every_epochs": (
        {"sample_prompts": "a moon", "sample_every_epochs": 1},
        {"sample_every_epochs": 2},
        "files",
    ),
    "checkpoint_every": ({}, {"checkpoint_every": 2}, "files"),
    "checkpoint_every_epochs": ({}, {"checkpoint_every_epochs": 1}, "files"),
    "checkpoints_total_limit": ({"checkpoint_every": 1}, {"checkpoints_total_limit": 1}, "files"),
    "validation_split": ({}, {"validation_split": 0.5}, "plan"),
    "validate_every": ({"validation_split": 0.5}, {"validate_every": 3}, "files"),
    "network_type": ({}, {"network_type": "LoKr"}, "weights"),
    "use_dora": ({}, {"use_dora": True}, "weights"),
    "use_rslora": ({}, {"use_rslora": True}, "weights"),
    "lokr_factor": ({"network_type": "LoKr"}, {"lokr_factor": 2}, "weights"),
    "lokr_factors": ({"network_type": "LoKr"}, {"lokr_factors": "both whole"}, "weights"),
    "rank_dropout": ({}, {"rank_dropout": 0.5}, "weights"),
    "module_dropout": ({}, {"module_dropout": 0.5}, "weights"),
    "train_norm": ({}, {"train_norm": True}, "weights"),
    "scale_weight_norms": ({}, {"scale_weight_norms": 0.001}, "weights"),
}


# Fields with which a cheaper test makes a trainer, a layer or a batch; whole runs with them are slow tests.
CHEAPER_FILES = ("test_trainer.py", "test_trained_kinds.py", "test_training_data.py")
CHEAPER = {
    *("beta1", "beta2", "eps", "weight_decay", "scale_parameter", "lr_warmup", "max_grad_norm"),
    *("min_snr_gamma", "noise_offset", "gradient_checkpointing", "lokr_factor", "lokr_factors"),
    *("rank_dropout", "module_dropout", "scale_weight_norms", "train_norm", "conv_alpha"),
    *("shuffle_caption", "keep_tokens", "random_flip", "crop"),
    *("gradient_accumulation_steps", "rank", "alpha", "dropout", "use_dora", "use_rslora"),
    *("learning_rate", "text_encoder_lr", "optimizer", "lr_scheduler", "seed"),
}


def planned(bench: WorkerContext, values: dict[str, Any]) -> list[Any]:
    """What a run writes down of itself before it begins."""
    summary = prepare_training(bench, validate(TrainingConfig, QUICK | values), silent).summarize()
    return [summary[key] for key in ("steps", "showings", "buckets", "validation_pictures")]


@pytest.fixture(scope="module")
def came(bench: WorkerContext) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a run comes to; each settings are run once."""
    bare = bench.settings.home / "datasets" / "bare"
    bare.mkdir()
    for path in (bench.settings.home / "datasets" / "small").glob("*.png"):
        shutil.copy(path, bare)
    known: dict[str, dict[str, Any]] = {}

    def came(values: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            id = add(bench, **values)
            cached = set((bench.settings.home / "cache").rglob("*"))
            name = train(bench, {"run": id}, silent)["lora"]
            run = bench.home.runs.get(id)
            assert run
            with safe_open(bench.settings.loras / f"{name}.safetensors", "pt") as file:
                header = file.metadata()
            lies = [
                path.relative_to(run.folder).as_posix() for path in sorted(run.folder.rglob("*.*"))
            ]
            painted = [
                Image.open(sample.path).tobytes() for sample in bench.home.runs.list_samples(id)
            ]
            known[key] = {
                "weights": weights(bench, name),
                "header": header,
                "memory": run.start_info["cost"]["working"],
                "files": [
                    lies,
                    painted,
                    header["ss_output_name"].partition("-")[0],
                    header.get("modelspec.title"),
                    {tensor.dtype for tensor in weights(bench, name).values()},
                    len(set((bench.settings.home / "cache").rglob("*")) - cached),
                    [row["step"] for row in bench.home.runs.read_log(id) if "validation" in row],
                ],
            }
            known[key]["files"][3] = None  # has a number where the name is taken
        return known[key]

    return came


@pytest.mark.parametrize(
    "field",
    [pytest.param(name, marks=pytest.mark.slow if name in CHEAPER else ()) for name in FIELDS],
)
def test_every_setting_changes_the_file_the_plan_or_what_lies_there(
    bench: WorkerContext, came: Any, field: str
) -> None:
    both, other, where = CASES[field]
    base = {"steps": 3, "save_precision": "float32"} | both
    if where == "plan":
        assert planned(bench, base) != planned(bench, base | other)
        return
    one, two = came(base), came(base | other)
    if where == "weights":
        assert not same(one["weights"], two["weights"])
    elif where == "memory":
        assert two["memory"] < one["memory"]
        assert same(one["weights"], two["weights"])
    else:
        assert one[where] != two[where]
    if field in NON_IDENTITY_FIELDS - {"save_precision"}:
        assert same(
            one["weights"], two["weights"]
        )  # what does not matter to its identity does not change a bit


def test_every_setting_has_a_case() -> None:
    assert sorted(CASES) == sorted(FIELDS)
    cheaper_tests = "".join(
        Path(__file__).with_name(name).read_text("utf-8") for name in CHEAPER_FILES
    )
    assert not [name for name in CHEAPER if not re.search(rf"\b{name}\b", cheaper_tests)]


@pytest.mark.slow
def test_kept_or_not_latents_are_the_same(bench: WorkerContext) -> None:
    assert same(
        trained(bench, cache_latents="off", random_flip=True),
        trained(bench, cache_latents="disk", random_flip=True),
    )


@pytest.mark.parametrize("name", ["moon-pocket", "plush-pocket"])
def test_the_shipped_miniatures_can_begin(bench: WorkerContext, name: str) -> None:
    config = Presets(TrainingConfig, shipped("presets") / "training", bench.settings.home).load(
        name
    )
    found = prepare_training(bench, config, silent)
    assert found.total_steps == config.steps
    assert len(found.plan.samples) == {"moon-pocket": 24, "plush-pocket": 15}[name]


# ---- what a run says and leaves -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sample_prompts_may_name_embeddings(bench: WorkerContext) -> None:
    """In a sample they are what they are in a picture; one that is not there is said before the first step."""
    from safetensors.torch import save_file

    folder = bench.settings.embeddings
    folder.mkdir(exist_ok=True)
    tiny = bench.home.library.get_model("tiny")
    (width,) = read_text_widths(tiny)
    path = folder / "sample-style.safetensors"
    save_file({"emb_params": torch.randn(2, width) * 3}, path)
    settings = {"steps": 1, "sample_every": 1}
    try:
        id = add(bench, sample_prompts="sample-style\nsample-styles", **settings)
        train(bench, {"run": id}, silent)
        spec = {"model": "tiny", "prompt": "sample-style", "seed": 7, "steps": PAINTED}
        painted = generate(bench, spec, silent)["pictures"][0]["path"]
    finally:
        path.unlink()
    named, word = (
        np.asarray(Image.open(bench.home.runs.list_samples(id)[k].path), int) for k in (0, 1)
    )
    assert np.abs(np.asarray(Image.open(painted), int) - named).max() <= 1
    assert np.abs(word - named).max() > 1
    id = add(bench, sample_prompts="embedding:sample-style", **settings)
    with refused(InvalidSpec, "Prompt"):
        train(bench, {"run": id}, silent)
    assert not bench.home.runs.read_log(id)
    with refused(InvalidSpec, "Sample prompts"):
        Services(bench.home).check_training(bench.home.runs.get(id).config, OWNER)


@pytest.mark.smoke
def test_samples_validation_log_and_what_is_reported(bench: WorkerContext) -> None:
    said: list[Progress] = []
    id = add(
        bench,
        sample_prompts="a moon <lora:none:1>\na cat",
        sample_every=3,
        validation_split=0.25,
        validate_every=2,
        checkpoint_every=2,
        checkpoints_total_limit=0,
    )
    result = train(bench, {"run": id}, said.append)
    assert [(one.step, one.prompt_index) for one in bench.home.runs.list_samples(id)] == [
        (step, k) for step in (0, 3, 4) for k in (0, 1)
    ]
    first, last = (Image.open(bench.home.runs.list_samples(id)[k].path) for k in (0, 4))
    assert first.size == (64, 64)
    assert first.tobytes() != last.tobytes()
    assert first.text["parameters"].startswith("a moon")
    assert "Seed: 7" in first.text["parameters"]  # type: ignore[attr-defined]
    untrained = generate(
        bench, {"model": "tiny", "prompt": "a moon", "seed": 7, "steps": PAINTED}, silent
    )["pictures"][0]["path"]
    difference = np.abs(np.asarray(Image.open(untrained), int) - np.asarray(first, int)).max()
    assert (
        difference <= 1
    )  # before the first step it is the model's own picture, but for rounding in a batch
    log = bench.home.runs.read_log(id)
    assert [row["step"] for row in log if "validation" in row] == [0, 2, 4]
    assert all(
        set(row) == {"step", "loss", "smoothed", "rate", "speed"} for row in log if "loss" in row
    )
    assert [one.step for one in bench.home.runs.list_checkpoints(id)] == [2, 4]
    notes = list(dict.fromkeys(one.message for one in said))
    assert notes == [
        "Reading the images",
        "Loading the model",
        "Encoding the images",
        "Measuring a few steps",
        "Validating",
        "Generating samples of step 0",
        "Training",
        "Generating samples of step 3",
        "Generating samples of step 4",
        "Writing the LoRA",
    ]
    training = [one for one in said if one.message == "Training"]
    assert [one.step for one in training] == [0, 1, 2, 3]
    assert all(one.total == 4 for one in training)
    assert training[-1].eta_seconds is not None
    assert set(training[-1].metrics) == {
        "loss",
        "smoothed",
        "rate",
        "speed",
        "validation",
    }
    assert not bench.pipelines.loaded or all(
        "training" not in held["name"] for held in bench.pipelines.loaded
    )
    path = bench.settings.loras / f"{result['lora']}.safetensors"
    told = read_settings(path)
    assert told
    assert validate(TrainingConfig, told["config"]) == bench.home.runs.get(id).config  # type: ignore[union-attr]
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert json.loads(header["ss_tag_frequency"])["small"]
    assert header["ss_network_dim"] == "2"
    assert header["ss_steps"] == "4"
    assert header["modelspec.date"] == bench.home.runs.get(id).date  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_lora_that_comes_out_paints_what_the_last_sample_shows(bench: WorkerContext) -> None:
    id = add(
        bench,
        sample_prompts="a moon",
        sample_every=4,
        train_text_encoder=True,
        save_precision="float32",
    )
    name = train(bench, {"run": id}, silent)["lora"]
    asked = {"model": "tiny", "prompt": f"a moon <lora:{name}:1>", "seed": 7, "steps": PAINTED}
    made = generate(bench, asked, silent)["pictures"][0]["path"]
    sample = np.asarray(Image.open(bench.home.runs.list_samples(id)[-1].path), int)
    assert np.abs(np.asarray(Image.open(made), int) - sample).max() <= 1
    bench.pipelines.unload(f"LoRA {name}")


@pytest.mark.slow
def test_no_run_writes_over_another_s_file(bench: WorkerContext) -> None:
    first, second = (
        add(bench, name="mine", steps=1, checkpoint_every=1),
        add(bench, name="mine", steps=1, seed=8),
    )
    one, two = (train(bench, {"run": id}, silent) for id in (first, second))
    assert (one["lora"], one["notes"]) == ("mine", [])
    assert (two["lora"], two["notes"]) == (
        "mine-2",
        ["A LoRA called mine already existed, so this one is called mine-2."],
    )
    before = (bench.settings.loras / "mine.safetensors").read_bytes()
    assert train(bench, {"run": first}, silent)["lora"] == "mine"
    assert train(bench, {"run": second}, silent)["lora"] == "mine-2"
    assert (
        bench.settings.loras / "mine.safetensors"
    ).read_bytes() == before  # to the byte, header and date included
    made = export_checkpoint(bench, {"run": first, "step": 1}, silent)
    assert made["lora"] == "mine-step000001"
    assert same(weights(bench, made["lora"]), weights(bench, "mine"))
    with refused(StudioError):
        export_checkpoint(bench, {"run": first, "step": 9}, silent)
    with refused(StudioError):
        train(bench, {"run": "x"}, silent)


@pytest.mark.slow
def test_class_pictures_are_painted_once(bench: WorkerContext) -> None:
    values = {"class_word": "rock", "num_class_images": 3, "steps": 1, "seed": 11}
    said: list[str] = []
    train(bench, {"run": add(bench, **values)}, lambda progress: said.append(progress.message))
    train(bench, {"run": add(bench, **values)}, silent)
    (folder,) = [
        path
        for path in (bench.settings.home / "class_pictures").iterdir()
        if len(list(path.iterdir())) >= 3
    ]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "0001.png").unlink()
    train(bench, {"run": add(bench, **values)}, silent)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["0001.png"]
    found = prepare_training(bench, validate(TrainingConfig, QUICK | values), silent)
    prior = [sample for sample in found.plan.samples if sample.is_class_image]
    assert len(prior) == 4
    assert {sample.image.caption for sample in prior} == {"a photo of a rock"}
    assert found.summarize()["class_pictures"] == 3


# ---- what cannot be -------------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_said_before_anything_is_loaded(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    thin = bench.settings.home / "datasets" / "thin"
    thin.mkdir()
    Image.new("RGB", (700, 64)).save(thin / "thin.png")
    tiny = bench.settings.home / "datasets" / "speck"
    tiny.mkdir()
    Image.new("RGB", (20, 20)).save(tiny / "speck.png")
    make_toy(
        bench.settings.models / "nine", "StableDiffusionInpaintPipeline", 32, "epsilon", channels=9
    )
    monkeypatch.setattr(
        "studio.engine.models.loaded_model.load_model", lambda *given: pytest.fail("it was loaded")
    )
    for values, error in (
        ({"dataset": "nowhere"}, DatasetError),
        ({"dataset": "speck"}, DatasetError),
        ({"dataset": "thin", "bucket_no_upscale": True, "bucket_step": 128}, DatasetError),
        ({"dataset": "thin", "validation_split": 0.5}, DatasetError),
        ({"model": "nope"}, ModelNotFound),
        ({"model": "nine"}, InvalidSpec),
        ({"precision": "float16"}, InvalidSpec),
        ({"targets": "patterns", "target_modules": "*.attn9"}, InvalidSpec),
        ({"model": "toy-sdxl", "clip_skip": 2}, InvalidSpec),
    ):
        with refused(error):
            train(bench, {"run": add(bench, **values)}, silent)


def test_what_will_not_fit_is_refused_with_what_to_lower(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(bench.pipelines), "free_bytes", property(lambda self: 1_000_000))
    with refused(OutOfMemory) as told:
        train(bench, {"run": add(bench, train_text_encoder=True)}, silent)
    assert " 0.0" in str(told.value)  # what it needs, in GiB
    assert not [held for held in bench.pipelines.loaded if "training" in held["name"]]
    monkeypatch.undo()
    monkeypatch.setattr(
        "studio.engine.training.trainer.Trainer.step",
        lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError()),
    )
    with refused(OutOfMemory):
        train(bench, {"run": add(bench)}, silent)


@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_training_leaves_no_graph_behind(bench: WorkerContext, checkpointing: bool) -> None:
    """What was saved for a backward pass is free once it is done, and with it the model and the card's memory."""

    def count_graphs() -> int:
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # modules that warn when they are looked at
            kept = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
        return sum(one.grad_fn is not None for one in kept)

    before = count_graphs()
    trained(bench, gradient_checkpointing=checkpointing)
    assert count_graphs() == before


def test_a_probe_tells_seconds_and_bytes_and_leaves_no_trace(bench: WorkerContext) -> None:
    before = len(bench.home.runs.list_runs())
    told = dry_run(bench, {"config": QUICK}, silent)
    assert told["steps"] == 4
    assert told["modules"] == {"unet": 48}
    assert told["pictures"] == 4
    assert 0 < told["cost"]["seconds"] < 10
    assert told["cost"]["total"] == 4 * told["cost"]["seconds"]
    larger = dry_run(bench, {"config": QUICK | {"train_batch_size": 4}}, silent)["cost"]["working"]
    assert larger > 1.5 * told["cost"]["working"]
    assert len(bench.home.runs.list_runs()) == before
    assert probing.build_out_of_memory(
        validate(TrainingConfig, QUICK | {"gradient_checkpointing": True, "train_batch_size": 1})
    ).args == (
        "There is not enough memory for this training. Lower the resolution (now 64) or the rank (now 2).",
    )
    with refused(InvalidSpec):
        dry_run(bench, {"config": QUICK | {"rank": 0}}, silent)


# ---- pictures while training ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_picture_meanwhile_changes_neither_itself_nor_the_file(bench: WorkerContext) -> None:
    """Also one by the very model that is trained on, and with a LoRA."""
    values = {
        "steps": 2,
        "train_text_encoder": True,
        "dropout": 0.2,
        "gradient_accumulation_steps": 2,
    }
    wanted = trained(bench, **values)
    lora = train(bench, {"run": add(bench, name="meanwhile", steps=1)}, silent)["lora"]
    spec = {
        "model": "tiny",
        "prompt": f"a moon <lora:{lora}:1>",
        "seed": 3,
        "steps": 3,
        "scheduler": "DPM++ SDE",
    }

    def picture() -> bytes:
        return Image.open(generate(bench, spec, silent)["pictures"][0]["path"]).tobytes()

    alone, meanwhile = picture(), []

    def between(needed: int) -> bool:
        assert needed > 0
        assert torch.is_grad_enabled()
        torch.manual_seed(len(meanwhile))
        meanwhile.append(picture())
        return True

    busy = replace(bench, interleave_job=between)
    assert same(trained(busy, **values), wanted)
    assert len(meanwhile) == 4
    assert set(meanwhile) == {alone}  # before each of two steps of two batches
    bench.pipelines.unload(f"LoRA {lora}")


def test_the_worker_paints_between_two_steps(
    bench: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.interleaving.PEEK_SECONDS", 0)  # it looks before every step
    home = tmp_path / "home"
    home.mkdir()
    for name in ("models", "datasets"):
        (home / name).symlink_to(bench.settings.home / name)
    settings = load(home=home, device="cpu", precision="float32", keep_free=0, preview_every=0)
    jobs = Jobs(home / "jobs.sqlite")
    own = open_bench(home)
    id = own.home.runs.add(
        validate(TrainingConfig, QUICK | {"steps": 8, "save_precision": "float32"}), "ann"
    )
    training = jobs.submit("train", {"run": id}, "ann")
    worker = _Worker("cpu", jobs, settings)
    claimed = jobs.claim("cpu")
    assert claimed
    assert claimed.id == training
    quick = {"model": "tiny", "prompt": "a cat", "steps": 2, "seed": 1}
    first, long, wrong, last = (
        jobs.submit("generate", quick | more, "bob")
        for more in ({}, {"steps": 150, "count": 50}, {"model": "nope"}, {})
    )
    thread = threading.Thread(target=worker.run_job, args=(claimed,))
    jobs.move_to_back(
        long
    )  # behind the others: it waits for the training's end, and they do not wait for it
    thread.start()
    thread.join(120)
    done = {one: jobs.get(one) for one in (training, first, long, wrong, last)}
    assert {one: job.state for one, job in done.items() if job} == {
        training: "done",
        first: "done",
        wrong: "failed",
        last: "done",
        long: "queued",
    }
    assert done[training].ended > done[last].ended  # type: ignore[union-attr,operator]
    assert own.home.gallery.search()[0].owner == "bob"
    assert same(weights(own, done[training].result["lora"]), trained(bench, steps=8))  # type: ignore[union-attr]
    jobs.close()
    own.home.gallery.close()
