"""A training run's settings: what does not go together is said at once, the length is kohya's, the rates are diffusers'."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers.optimization import get_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.base import validate
from studio.core.families.registry import FAMILIES
from studio.core.training.config import ADAFACTOR_RELATIVE_STEP, BASIC_FIELDS, TrainingConfig
from studio.core.training.lora_targets import list_modules
from studio.core.training.rules import check_family
from studio.core.training.steps import compute_lr_factor, count_steps, count_warmup_steps
from studio.errors import InvalidSpec
from studio.settings import shipped
from studio.storage.presets import Presets
from support.examples import examples
from support.sentences import refused

NEEDED = {"dataset": "moon", "name": "a"}
FIELDS = list(TrainingConfig.model_fields)
NAMES = {
    "constant": "constant",
    "constant with warm-up": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine with restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
}
# What changes each field, with what it needs beside it; a new field has to be put here.
CHANGED: dict[str, dict[str, Any]] = {
    "model": {"model": "b"},
    "dataset": {"dataset": "b"},
    "name": {"name": "b"},
    "trigger": {"trigger": "mysks"},
    "class_word": {"class_word": "toy"},
    "num_class_images": {"num_class_images": 9, "class_word": "toy"},
    "prior_loss_weight": {"prior_loss_weight": 0.5, "num_class_images": 9, "class_word": "toy"},
    "steps": {"steps": 7},
    "epochs": {"epochs": 7},
    "train_batch_size": {"train_batch_size": 2},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "repeats": {"repeats": 2},
    "rank": {"rank": 8},
    "alpha": {"alpha": 2.0},
    "dropout": {"dropout": 0.1},
    "targets": {"targets": "attention"},
    "target_modules": {"targets": "patterns", "target_modules": "unet.*.to_k"},
    "conv_rank": {"targets": "attention + feed-forward + convolutions", "conv_rank": 4},
    "conv_alpha": {"targets": "attention + feed-forward + convolutions", "conv_alpha": 4.0},
    "train_unet": {"train_unet": False, "train_text_encoder": True},
    "train_text_encoder": {"train_text_encoder": True},
    "learning_rate": {"learning_rate": 2e-4},
    "text_encoder_lr": {"text_encoder_lr": 5e-5, "train_text_encoder": True},
    "optimizer": {"optimizer": ADAFACTOR_RELATIVE_STEP},
    "weight_decay": {"weight_decay": 0.1},
    "beta1": {"beta1": 0.8},
    "beta2": {"beta2": 0.99},
    "eps": {"eps": 1e-6},
    "scale_parameter": {"optimizer": "Adafactor", "scale_parameter": True},
    "lr_scheduler": {"lr_scheduler": "cosine"},
    "lr_warmup": {"lr_warmup": 0.1, "lr_scheduler": "constant with warm-up"},
    "lr_scheduler_num_cycles": {
        "lr_scheduler_num_cycles": 3,
        "lr_scheduler": "cosine with restarts",
    },
    "lr_scheduler_power": {"lr_scheduler_power": 2.0, "lr_scheduler": "polynomial"},
    "max_grad_norm": {"max_grad_norm": 0.0},
    "min_snr_gamma": {"min_snr_gamma": 5.0},
    "noise_offset": {"noise_offset": 0.1},
    "caption_dropout": {"caption_dropout": 0.1},
    "shuffle_caption": {"shuffle_caption": True},
    "keep_tokens": {"keep_tokens": 1, "shuffle_caption": True},
    "clip_skip": {"clip_skip": 2},
    "resolution": {"resolution": 64},
    "random_flip": {"random_flip": True},
    "crop": {"crop": "random", "cache_latents": "off"},
    "buckets": {"buckets": False},
    "bucket_min": {"bucket_min": 128},
    "bucket_max": {"bucket_max": 2048},
    "bucket_step": {"bucket_step": 32},
    "bucket_no_upscale": {"bucket_no_upscale": True},
    "precision": {"precision": "float32"},
    "save_precision": {"save_precision": "float32"},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "cache_latents": {"cache_latents": "disk"},
    "seed": {"seed": 5},
    "sample_prompts": {"sample_prompts": "a moon", "sample_every": 9},
    "sample_every": {"sample_prompts": "a moon", "sample_every": 9},
    "sample_every_epochs": {"sample_prompts": "a moon", "sample_every_epochs": 9},
    "checkpoint_every": {"checkpoint_every": 9},
    "checkpoint_every_epochs": {"checkpoint_every_epochs": 9},
    "checkpoints_total_limit": {"checkpoint_every": 9, "checkpoints_total_limit": 0},
    "validation_split": {"validation_split": 0.1},
    "validate_every": {"validation_split": 0.1, "validate_every": 9},
    "network_type": {"network_type": "LoHa"},
    "use_dora": {"use_dora": True},
    "use_rslora": {"use_rslora": True},
    "lokr_factor": {"network_type": "LoKr", "lokr_factor": 8},
    "lokr_factors": {"network_type": "LoKr", "lokr_factors": "both whole"},
    "rank_dropout": {"rank_dropout": 0.1},
    "module_dropout": {"module_dropout": 0.1},
    "train_norm": {"train_norm": True},
    "scale_weight_norms": {"scale_weight_norms": 1.0},
}


def config(**values: Any) -> TrainingConfig:
    return validate(TrainingConfig, NEEDED | values)


def faults(**values: Any) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        config(**values)
    return list(caught.value.faults)


def title(name: str) -> str:
    return str(TrainingConfig.model_fields[name].title)


# ---- fields ---------------------------------------------------------------------------------------------------------


def test_every_setting_is_explained() -> None:
    assert len(BASIC_FIELDS) == 10
    assert set(BASIC_FIELDS) <= set(FIELDS)
    titles = [title(name) for name in FIELDS]
    assert len(set(titles)) == len(titles)
    assert all(field.description for field in TrainingConfig.model_fields.values())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_can_be_changed_and_kept(name: str, tmp_path: Path) -> None:
    made = config(**CHANGED[name])
    assert getattr(made, name) != getattr(config(), name)
    presets = Presets(TrainingConfig, tmp_path / "none", tmp_path)
    presets.save("mine", made)
    assert presets.load("mine") == made == validate(TrainingConfig, made.model_dump(mode="json"))


def test_no_case_is_left_over() -> None:
    assert list(CHANGED) == FIELDS


def test_naming_epochs_is_enough() -> None:
    assert config().steps == 1000
    assert config(epochs=3).steps is None
    assert config(optimizer=ADAFACTOR_RELATIVE_STEP).learning_rate is None
    assert config(optimizer=ADAFACTOR_RELATIVE_STEP).learning_rates == (None, None)


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "a\\b", "a\nb", " a", "", "CON:", "x" * 101, "a*"]
)
def test_a_name_is_a_files_name(name: str) -> None:
    assert len(told := faults(name=name)) == 1
    assert told[0].startswith("Name: ")


# ---- what does not go together --------------------------------------------------------------------------------------

TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"steps": 5, "epochs": 3}, "Steps"),
    ({"steps": None}, "Steps"),
    ({"train_unet": False}, "Train the U-Net"),
    (
        {
            "train_unet": False,
            "train_text_encoder": True,
            "targets": "attention + feed-forward + convolutions",
        },
        "Target layers",
    ),
    ({"text_encoder_lr": 1e-5}, "Text encoder learning rate"),
    (
        {"text_encoder_lr": 1e-5, "train_text_encoder": True, "train_unet": False},
        "Text encoder learning rate",
    ),
    ({"conv_rank": 4}, "Convolution rank"),
    ({"conv_alpha": 4, "targets": "attention"}, "Convolution alpha"),
    ({"targets": "patterns", "target_modules": " , "}, "Layer patterns"),
    ({"target_modules": "unet.*"}, "Layer patterns"),
    (
        {"optimizer": ADAFACTOR_RELATIVE_STEP, "learning_rate": 1e-4},
        "Learning rate",
    ),
    (
        {"optimizer": ADAFACTOR_RELATIVE_STEP, "lr_scheduler": "cosine"},
        "Learning rate schedule",
    ),
    ({"learning_rate": None}, "Learning rate"),
    ({"optimizer": "Adafactor", "beta1": 0.9}, "Beta 1"),
    ({"optimizer": "Adafactor", "beta2": 0.9}, "Beta 2"),
    ({"optimizer": ADAFACTOR_RELATIVE_STEP, "eps": 1e-6}, "Epsilon"),
    ({"scale_parameter": False}, "Scale parameter"),
    ({"lr_warmup": 5}, "Warm-up"),
    ({"lr_scheduler": "constant with warm-up"}, "Warm-up"),
    ({"lr_scheduler": "cosine", "lr_warmup": 2.5}, "Warm-up"),
    (
        {"lr_scheduler": "cosine", "lr_warmup": 1000},
        "Warm-up",
    ),
    ({"lr_scheduler": "cosine", "lr_warmup": 0.0001}, "Warm-up"),
    ({"lr_scheduler": "cosine", "lr_scheduler_num_cycles": 2}, "Restarts"),
    ({"lr_scheduler": "cosine", "lr_scheduler_power": 2}, "Power"),
    (
        {"lr_scheduler": "polynomial", "learning_rate": 1e-8},
        "Learning rate",
    ),
    ({"num_class_images": 5}, "Class word"),
    ({"prior_loss_weight": 1}, "Prior weight"),
    ({"keep_tokens": 1}, "Keep first tags"),
    ({"crop": "random"}, "Crop"),
    ({"buckets": False, "bucket_min": 64}, "Shortest bucket side"),
    ({"buckets": False, "bucket_step": 64}, "Bucket step"),
    ({"buckets": False, "bucket_no_upscale": True}, "Do not enlarge"),
    (
        {"bucket_no_upscale": True, "bucket_max": 2048},
        "Longest bucket side",
    ),
    (
        {"bucket_min": 100, "bucket_step": 64},
        "Shortest bucket side",
    ),
    (
        {"bucket_min": 512, "bucket_max": 256},
        "Shortest bucket side",
    ),
    ({"bucket_min": 512, "resolution": 256}, "Shortest bucket side"),
    ({"bucket_max": 256, "resolution": 512}, "Longest bucket side"),
    ({"sample_prompts": "a moon"}, "Samples every"),
    ({"sample_every": 5}, "Sample prompts"),
    (
        {"sample_prompts": "a moon", "sample_every": 5, "sample_every_epochs": 1},
        "Samples every",
    ),
    (
        {"checkpoint_every": 5, "checkpoint_every_epochs": 1},
        "Checkpoint every",
    ),
    ({"checkpoints_total_limit": 5}, "Keep checkpoints"),
    ({"validate_every": 5}, "Validate every"),
    ({"sample_prompts": "a moon\na (b:2000)", "sample_every": 5}, "Sample prompts"),
    ({"trigger": "a\nb"}, "Trigger word"),
    ({"lokr_factor": 8}, "LoKr factor"),
    ({"network_type": "LoHa", "lokr_factors": "both whole"}, "LoKr matrices"),
    ({"network_type": "LoKr", "lokr_factors": "both whole", "alpha": 2}, "Alpha"),
    ({"network_type": "LoKr", "lokr_factors": "both whole", "use_rslora": True}, "Rank-stabilized"),
    ({"train_norm": True, "targets": "attention"}, "Train norm layers"),
    ({"train_norm": True, "train_unet": False, "train_text_encoder": True}, "Train norm layers"),
]


def name_case(case: tuple[dict[str, Any], str]) -> str:
    return " ".join(f"{name}={value}" for name, value in case[0].items())


@pytest.mark.parametrize(("values", "field"), TOGETHER, ids=map(name_case, TOGETHER))
def test_what_does_not_go_together_is_one_sentence(values: dict[str, Any], field: str) -> None:
    with refused(InvalidSpec, field) as caught:
        config(**values)
    assert str(caught.value).endswith((".", "?"))


def test_everything_wrong_is_said_at_once() -> None:
    wrong = {
        "name": "a/b",
        "steps": 5,
        "epochs": 3,
        "rank": 9999,
        "lr_warmup": 3,
        "colour": 1,
        "lr_scheduler_num_cycles": 2,
        "conv_rank": 3,
        "learning_rate": "fast",
    }
    titles = (
        "Name",
        "Rank",
        "Learning rate",
        "colour",
        "Steps",
        "Convolution rank",
        "Warm-up",
        "Restarts",
    )
    with refused(InvalidSpec, *titles):
        config(**wrong)
    with refused(InvalidSpec, "Dataset", "Name", "Restarts"):
        validate(TrainingConfig, {"lr_scheduler_num_cycles": 2})
    # One fault, one sentence.
    assert len(faults(learning_rate="fast", lr_scheduler="polynomial")) == 1


def test_family() -> None:
    check_family(config(clip_skip=2), "sd1")
    check_family(config(), "sdxl")
    with refused(InvalidSpec, "Clip skip"):
        check_family(config(clip_skip=2), "sdxl")
    check_family(config(), "sd1", is_inpainting=False)
    with refused(InvalidSpec, "Model", "Clip skip"):
        check_family(config(clip_skip=2), "sdxl", is_inpainting=True)


def test_guests_may_ask_for_less() -> None:
    config().check_guest()
    with refused(InvalidSpec, "Steps", "Batch size", "Rank", "Resolution"):
        config(steps=2001, rank=65, train_batch_size=5, resolution=2048).check_guest()
    with refused(InvalidSpec, "LoKr matrices"):
        config(network_type="LoKr", lokr_factors="both whole").check_guest()


@settings(max_examples=examples(40))
@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "extra"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), st.lists
        ),
    )
)
def test_any_value_is_taken_or_refused_in_words(values: dict[str, Any]) -> None:
    told: tuple[str, ...] = ()
    try:
        made = config(**values)
    except InvalidSpec as error:
        told = error.faults
    if told:
        assert all(re.match(r".+: .+", fault, re.DOTALL) for fault in told)
        return
    assert validate(TrainingConfig, made.model_dump(mode="json")) == made


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "value",
    [float("nan"), 10**5000, [1], {"a": 1}, "\ud800"],
    ids=["nan", "huge", "list", "table", "half"],
)
def test_nonsense_is_refused_with_the_fields_title(name: str, value: object) -> None:
    told = faults(**{name: value})
    assert told[0].startswith(f"{title(name)}: ")
    assert all(len(fault) < 400 for fault in told)
    "".join(told).encode()


# ---- length and rate ------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_length_as_kohya_rounds() -> None:
    assert count_steps(config(steps=1600), 1344) == 1600
    assert count_steps(config(epochs=20), 1344) == 26880
    assert count_steps(config(epochs=2, train_batch_size=4), 15) == 8
    assert count_steps(config(epochs=2, train_batch_size=4, gradient_accumulation_steps=3), 15) == 4
    assert (
        count_steps(config(epochs=1, repeats=3), {"40_moon": (10, 40), "mare": (5, 1)}) == 3 * 405
    )
    assert (
        count_steps(config(epochs=1, train_batch_size=4), 9, bucket_counts=[5, 3, 1]) == 4
    )  # where a batch is of one shape
    with refused(InvalidSpec, "Dataset"):
        count_steps(config(epochs=1), 0)


@pytest.mark.parametrize(
    ("values", "warmup"),
    [({}, 0), ({"lr_warmup": 100}, 100), ({"lr_warmup": 0.1}, 40), ({"lr_warmup": 1}, 1)],
)
@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("more", [{}, {"lr_scheduler_num_cycles": 3}, {"lr_scheduler_power": 2.5}])
def test_rates_are_those_of_diffusers_and_transformers(
    schedule: str, values: dict[str, Any], warmup: int, more: dict[str, Any]
) -> None:
    total = 400
    needs = {"constant": not values, "constant with warm-up": bool(values)}.get(schedule, True)
    if not needs or more.keys() - {
        {"cosine with restarts": "lr_scheduler_num_cycles", "polynomial": "lr_scheduler_power"}.get(
            schedule, ""
        )
    }:
        return
    made = config(lr_scheduler=schedule, steps=total, **values, **more)
    assert count_warmup_steps(made, total) == warmup
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=made.learning_rate)
    told = get_scheduler(
        NAMES[schedule],
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=total,
        num_cycles=more.get("lr_scheduler_num_cycles", 1),
        power=more.get("lr_scheduler_power", 1.0),
    ).lr_lambdas[0]
    for step in range(total + 3):
        assert compute_lr_factor(made, step, total) == pytest.approx(
            told(step), rel=1e-12, abs=1e-15
        ), step
    theirs = {"lr_scheduler_num_cycles": "num_cycles", "lr_scheduler_power": "power"}
    extra = {theirs[name]: value for name, value in more.items()}
    other = transformers.get_scheduler(
        NAMES[schedule], optimizer, warmup, total, scheduler_specific_kwargs=extra
    ).lr_lambdas[0]
    assert all(
        compute_lr_factor(made, step, total) == pytest.approx(other(step), rel=1e-12, abs=1e-15)
        for step in range(0, total, 7)
    )


@settings(max_examples=examples(40))
@given(st.sampled_from(sorted(NAMES)), st.integers(2, 3000), st.floats(0, 1), st.data())
def test_a_rate_is_between_nothing_and_all(
    schedule: str, total: int, share: float, data: st.DataObject
) -> None:
    warmup = int(share * (total - 1))
    schedule = "constant with warm-up" if schedule == "constant" and warmup else schedule
    if schedule == "constant with warm-up" and not warmup:
        return
    made = config(lr_scheduler=schedule, steps=total, lr_warmup=warmup)
    assert 0 <= compute_lr_factor(made, data.draw(st.integers(0, total + 5)), total) <= 1
    assert compute_lr_factor(made, warmup, total) == pytest.approx(1)


# ---- what empty ones stand for --------------------------------------------------------------------------------------


def test_usual_values() -> None:
    assert config().effective_weight_decay == 0.01
    assert config(optimizer="Adafactor").effective_weight_decay == 0.0
    assert config(weight_decay=0.5).effective_weight_decay == 0.5
    assert config().betas == (0.9, 0.999)
    assert config(beta1=0.0).betas == (0.0, 0.999)
    assert config(optimizer=ADAFACTOR_RELATIVE_STEP).effective_scale_parameter
    assert not config(optimizer="Adafactor").effective_scale_parameter
    assert config(optimizer="Adafactor", scale_parameter=True).effective_scale_parameter
    assert config(train_text_encoder=True).learning_rates == (1e-4, 1e-4)
    assert config(train_text_encoder=True, text_encoder_lr=5e-5).learning_rates == (1e-4, 5e-5)
    assert config().checkpoint_limit == 3
    assert config(checkpoint_every=5, checkpoints_total_limit=0).checkpoint_limit == 0
    assert config(sample_every=5, sample_prompts=" a moon \n\n a boat").sample_prompt_list == (
        "a moon",
        "a boat",
    )
    assert config().resolve(64, 2**32 + 3).seed == 3
    assert config(seed=5, resolution=128).resolve(64, 3).resolution == 128


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (1024, (256, 2048, 64)),
        (512, (256, 1024, 64)),
        (64, (32, 128, 8)),
        (128, (64, 256, 16)),
        (32, (16, 64, 8)),
    ],
)
def test_buckets_of_every_size(side: int, expected: tuple[int, int, int]) -> None:
    found = config(resolution=side).resolve_bucket_limits()
    assert found
    assert (found.min_side, found.max_side, found.step) == expected
    assert not found.no_upscale
    assert config(resolution=side, buckets=False).resolve_bucket_limits() is None
    with pytest.raises(ValueError, match="resolved"):
        config().resolve_bucket_limits()


def test_rank_and_alpha_of_convolutions() -> None:
    layers = {module.kernel_size: module for module in list_modules(FAMILIES["sd1"].shape)}
    locon = {"targets": "attention + feed-forward + convolutions", "rank": 32, "alpha": 8}
    made = config(**locon, conv_rank=4)
    assert [made.get_rank_and_alpha(layers[kernel]) for kernel in (0, 1, 3)] == [
        (32, 8.0),
        (32, 8.0),
        (4, 4.0),
    ]
    assert config(**locon, conv_rank=4, conv_alpha=1).get_rank_and_alpha(layers[3]) == (4, 1.0)
    assert config(**locon).get_rank_and_alpha(layers[3]) == (
        32,
        8.0,
    )
    assert config().get_rank_and_alpha(layers[0]) == (16, 16.0)


def test_captions() -> None:
    plain, named, both = (
        config(),
        config(trigger="mysks"),
        config(trigger="mysks", class_word="plush toy"),
    )
    assert plain.compose_caption("a toy", "folder") == "a toy"
    assert plain.compose_caption("", "plush toy") == "plush toy"
    assert plain.compose_caption() == ""
    assert named.compose_caption("a toy") == "mysks, a toy"
    assert named.compose_caption("a MYSKS toy") == "a MYSKS toy"
    assert named.compose_caption("mysksy") == "mysks, mysksy"
    assert named.compose_caption() == "mysks"
    assert named.compose_caption("", "toy") == "mysks, toy"
    assert both.compose_caption() == both.compose_caption("", "toy") == "a photo of mysks plush toy"
    assert "plush toy" in both.class_prompt
    assert config(class_word="sks girl").compose_caption("", "folder") == "sks girl"
    assert plain.class_prompt == ""


# ---- presets --------------------------------------------------------------------------------------------------------

SHIPPED = shipped("presets") / "training"


@pytest.mark.smoke
@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_every_shipped_preset_loads(name: str, tmp_path: Path) -> None:
    made = Presets(TrainingConfig, SHIPPED, tmp_path).load(name)
    text = (SHIPPED / f"{name}.toml").read_text("utf-8")
    assert text.startswith("#")
    assert made.name
    assert count_steps(made, 24) > 0
    if name.endswith("-pocket"):
        assert made.model == "pocket"
        assert (shipped("assets") / "datasets" / made.dataset).is_dir()
        assert made.resolution == 128


def test_all_four_are_there() -> None:
    assert {path.stem for path in SHIPPED.glob("*.toml")} >= {
        "moon-sdxl",
        "plush-sd15",
        "moon-pocket",
        "plush-pocket",
    }
