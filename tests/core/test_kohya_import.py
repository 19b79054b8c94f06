"""Kohya's files: the thesis's own as it is, every key said, faithful or as meant, and no file that ends in a traceback."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.families.registry import FAMILIES
from studio.core.training.config import ADAFACTOR_RELATIVE_STEP, TrainingConfig
from studio.core.training.kohya.importer import (
    KohyaImport,
    import_config,
    parse_folder_name,
    plan_import,
)
from studio.core.training.lora_targets import TargetModule, list_norms, select_modules
from studio.errors import InvalidSpec
from studio.settings import shipped
from support.examples import examples
from support.sentences import refused

THESIS = """# The settings of thesis 000, as kohya's GUI v24.1.6 wrote them.
bucket_no_upscale = true
bucket_reso_steps = 64
cache_latents = true
caption_extension = ".txt"
clip_skip = 1
dynamo_backend = "no"
enable_bucket = true
epoch = 20
gradient_accumulation_steps = 1
huber_c = 0.1
huber_schedule = "snr"
learning_rate = 0.0001
loss_type = "l2"
lr_scheduler = "constant"
lr_scheduler_args = []
lr_scheduler_num_cycles = 1
lr_scheduler_power = 1
max_bucket_reso = 2048
max_data_loader_n_workers = 0
max_grad_norm = 1
max_timestep = 1000
max_token_length = 75
max_train_steps = 1600
min_bucket_reso = 256
mixed_precision = "fp16"
multires_noise_discount = 0.3
no_half_vae = true
noise_offset_type = "Original"
optimizer_args = []
optimizer_type = "Adafactor"
pretrained_model_name_or_path = "stabilityai/stable-diffusion-xl-base-1.0"
output_dir = "/workspace/model"
output_name = "mjesec"
train_data_dir = "/workspace/img/moon/"
sample_prompts = "/workspace/model/prompt.txt"
prior_loss_weight = 1
resolution = "1024,1024"
sample_sampler = "euler_a"
save_every_n_epochs = 1
save_model_as = "safetensors"
save_precision = "fp16"
text_encoder_lr = 0.0001
train_batch_size = 1
unet_lr = 0.0001
xformers = true
network_dim = 32
network_module = "networks.lora"
network_args = []
network_alpha = 8
"""
BASE: dict[str, Any] = {
    "pretrained_model_name_or_path": "/models/v1-5-pruned.safetensors",
    "train_data_dir": "/data/40_moon",
    "resolution": "512,512",
    "output_name": "moon",
}
GUI: dict[str, Any] = {
    "LoRA_type": "Standard",
    "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5",
    "sdxl": False,
    "train_data_dir": "./test/img",
    "output_name": "moon",
    "optimizer": "AdamW8bit",
    "max_resolution": "512,512",
    "learning_rate": "0.0005",
    "unet_lr": "0.0001",
    "text_encoder_lr": 5e-05,
    "epoch": 8,
    "max_train_steps": "",
    "max_train_epochs": "",
    "lr_scheduler": "cosine",
    "lr_warmup": "10",
    "network_dim": 16,
    "network_alpha": 8,
    "conv_dim": 4,
    "seed": "1234",
    "min_snr_gamma": 5,
    "cache_latents": True,
    "enable_bucket": True,
    "optimizer_args": "weight_decay=0.05 betas=0.9,0.99",
    "noise_offset": "0.05",
    "noise_offset_type": "Original",
    "sample_prompts": "a moon , by nobody --n low quality --w 512\n# no\na lake",
    "sample_every_n_steps": 25,
    "multires_noise_iterations": 6,
    "xformers": "xformers",
    "wandb_api_key": "s3cret",
    "keep_tokens": "0",
}


def toml(**values: Any) -> KohyaImport:
    return import_config(tomli_w.dumps(BASE | values))


def meant(**values: Any) -> KohyaImport:
    return import_config(tomli_w.dumps(BASE | values), as_meant=True)


def gui(**values: Any) -> KohyaImport:
    return import_config(json.dumps(GUI | values))


def config(found: KohyaImport) -> TrainingConfig:
    assert found.config is not None, found.faults
    return found.config


def kinds(found: KohyaImport, key: str) -> list[str]:
    return [notice.kind for notice in found.notices if notice.key == key]


def notes(found: KohyaImport, key: str) -> str:
    return " ".join(notice.note for notice in found.notices if notice.key == key)


def refusal(text: str, **more: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidSpec) as caught:
        import_config(text, **more)
    assert all(fault.endswith((".", "?")) and len(fault) < 400 for fault in caught.value.faults)
    str(caught.value).encode()
    return caught.value.faults


# ---- the thesis -----------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_thesis_is_taken_as_it_is() -> None:
    found = plan_import(THESIS, "config.toml")
    assert found["steps"] == 1600
    assert found["modules"] == {"unet": 722, "text_encoders": 264}
    expected = {
        "model": "stable-diffusion-xl-base-1.0",
        "dataset": "moon",
        "name": "mjesec",
        "steps": 1600,
        "epochs": None,
        "train_batch_size": 1,
        "rank": 32,
        "alpha": 8.0,
        "targets": "attention + feed-forward",
        "train_unet": True,
        "train_text_encoder": True,
        "optimizer": ADAFACTOR_RELATIVE_STEP,
        "learning_rate": None,
        "text_encoder_lr": None,
        "lr_scheduler": "constant",
        "resolution": 1024,
        "buckets": True,
        "bucket_no_upscale": True,
        "bucket_step": 64,
        "bucket_min": None,
        "bucket_max": None,
        "precision": "float16",
        "save_precision": "float16",
        "max_grad_norm": 1.0,
        "cache_latents": "memory",
        "gradient_checkpointing": False,
        "clip_skip": 1,
        "seed": -1,
        "sample_prompts": "",
        "sample_every": None,
        "checkpoint_every_epochs": 1,
        "checkpoints_total_limit": 0,
    }
    assert {key: found["config"][key] for key in expected} == expected
    json.dumps(found, allow_nan=False)
    told = {notice["key"]: notice for notice in found["notices"]}
    keys = {line.split(" = ")[0] for line in THESIS.splitlines() if " = " in line}
    assert len(keys) == 49
    assert keys <= told.keys()
    assert set(told) - keys == {"seed"}
    conflicts = {key for key, notice in told.items() if notice["kind"] == "conflicting"}
    assert conflicts == {
        "epoch",
        "learning_rate",
        "unet_lr",
        "text_encoder_lr",
        "lr_scheduler",
        "min_bucket_reso",
        "max_bucket_reso",
        "sample_prompts",
    }
    assert "max_train_steps = 1600 decides" in told["epoch"]["note"]
    assert "20 epochs" in told["epoch"]["note"]
    assert "finds its own learning rate" in told["learning_rate"]["note"]
    assert "no interval" in told["sample_prompts"]["note"]
    assert not [notice for notice in found["notices"] if notice["kind"] == "unsupported"]


def test_the_thesis_as_it_was_meant() -> None:
    found = plan_import(THESIS, "config.toml", as_meant=True)
    made = found["config"]
    assert (made["optimizer"], made["learning_rate"], made["scale_parameter"]) == (
        "Adafactor",
        1e-4,
        None,
    )
    assert made["epochs"] == 20
    assert made["steps"] is None
    assert found["steps"] is None
    assert any(
        notice["note"].startswith("depend on the number of images")
        for notice in found["notices"]
        if notice["key"] == "steps"
    )
    assert plan_import(THESIS, as_meant=True, image_counts=1344)["steps"] == 26_880
    assert "max_train_steps" in [
        notice["key"] for notice in found["notices"] if notice["kind"] == "conflicting"
    ]


def test_the_preset_is_the_thesis() -> None:
    preset = import_config((shipped("presets") / "training" / "moon-sdxl.toml").read_text("utf-8"))
    differs = {
        key for key, value in config(preset) if value != getattr(config(import_config(THESIS)), key)
    }
    assert differs == {"trigger", "precision"}
    assert preset.family == "sdxl"
    assert not preset.notices


# ---- length ---------------------------------------------------------------------------------------------------------


def test_length() -> None:
    assert config(toml()).steps == 1600
    assert "kohya's default" in notes(toml(), "max_train_steps")
    both = toml(max_train_steps=500, max_train_epochs=10, epoch=3)
    assert config(both).epochs == 10
    assert kinds(both, "max_train_steps") == kinds(both, "epoch") == ["conflicting"]
    assert config(toml(max_train_steps=500, epoch=3)).steps == 500
    assert config(meant(max_train_steps=500, epoch=3)).epochs == 3
    assert config(gui()).epochs == 8
    assert "the GUI counts the steps" in notes(gui(), "epoch")
    assert config(gui(max_train_steps=700)).steps == 700
    assert kinds(gui(max_train_steps=700), "epoch") == ["conflicting"]
    assert (
        config(gui(dataset_config="x.toml")).steps == 1600
    )  # the GUI then leaves it to sd-scripts


# ---- what is trained ------------------------------------------------------------------------------------------------


def test_network() -> None:
    assert (config(toml()).rank, config(toml()).alpha) == (4, 1.0)
    assert "kohya's default" in notes(toml(), "network_dim")
    assert config(toml(network_alpha=0)).alpha is None
    locon = config(
        toml(network_args=["conv_dim=8", "conv_alpha=2", "rank_dropout=0.1", "module_dropout=0"])
    )
    assert (locon.targets, locon.conv_rank, locon.conv_alpha) == (
        "attention + feed-forward + convolutions",
        8,
        2.0,
    )
    assert config(toml(network_args=["conv_dim=8"])).conv_alpha == 1.0
    assert (
        kinds(toml(network_args=["conv_dim=8", "block_dims=4"]), "network_args").count(
            "unsupported"
        )
        == 1
    )
    assert kinds(toml(network_args=["conv_alpha=8"]), "network_args") == ["inert"]
    arguments = ["algo=locon", "preset=attn-mlp"]
    locon_of_lycoris = toml(network_module="lycoris.kohya", network_args=arguments)
    assert config(locon_of_lycoris).targets == "attention + feed-forward"
    assert kinds(locon_of_lycoris, "network_module") == ["taken"]
    assert config(toml(network_dropout=0.1)).dropout == 0.1
    assert config(gui(LoRA_type="Kohya LoCon", conv_alpha=2)).conv_rank == 4
    assert config(gui()).conv_rank is None


def lycoris(*arguments: str, **values: Any) -> KohyaImport:
    """A file for LyCORIS, of rank 4 and alpha 2."""
    sizes = {"network_dim": 4, "network_alpha": 2}
    return toml(network_module="lycoris.kohya", network_args=list(arguments), **sizes | values)


PATTERNS_OF_THIN_LAYERS = (
    "unet.*.attentions.*, unet.*.time_emb_proj, unet.*.conv_shortcut, text_encoder*"
)
LYCORIS_CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {"network_type": "LoRA", "targets": "attention + feed-forward + convolutions"}),
    (("algo=locon",), {"network_type": "LoRA", "conv_rank": None, "conv_alpha": None}),
    (("algo=LoHa", "preset=attn-mlp"), {"network_type": "LoHa", "alpha": 2.0}),
    (("algo=loha", "conv_dim=8"), {"conv_rank": 8, "conv_alpha": 2.0}),
    (("algo=loha", "conv_dim=8", "conv_alpha=1"), {"conv_rank": 8, "conv_alpha": 1.0}),
    (("algo=loha", "conv_dim=0"), {"target_modules": PATTERNS_OF_THIN_LAYERS}),
    (("preset=attn-only",), {"targets": "attention", "train_text_encoder": True}),
    (("preset=full-lin",), {"target_modules": PATTERNS_OF_THIN_LAYERS}),
    (("preset=unet-only",), {"train_text_encoder": False, "train_unet": True}),
    (
        ("preset=unet-transformer-only",),
        {"targets": "attention + feed-forward", "train_text_encoder": False},
    ),
    (
        ("preset=unet-convblock-only",),
        {"target_modules": "unet.*.resnets.*, unet.*samplers.*", "train_text_encoder": False},
    ),
    (("algo=lokr", "factor=-1"), {"network_type": "LoKr", "lokr_factor": None}),
    (("algo=lokr", "factor=8"), {"lokr_factor": 8, "lokr_factors": "second by rank"}),
    (("algo=lokr", "decompose_both=True"), {"lokr_factors": "both by rank"}),
    (("algo=lokr", "full_matrix=True"), {"lokr_factors": "both whole", "alpha": None}),
    (("dora_wd=True", "wd_on_output=True"), {"use_dora": True}),
    (("use_dora=true",), {"use_dora": True}),
    (("rs_lora=True",), {"use_rslora": True}),
    (("use_rslora=True",), {"use_rslora": True}),
    (("train_norm=True", "preset=attn-mlp"), {"train_norm": True}),
    (("train_norm=True", "preset=attn-only"), {"train_norm": False}),
    (
        ("rank_dropout=0.1", "module_dropout=0.2", "dropout=0.3"),
        {"rank_dropout": 0.1, "module_dropout": 0.2, "dropout": 0.3},
    ),
    (("algo=lokr", "dropout=0.3"), {"dropout": 0.0}),
]


@pytest.mark.parametrize(("arguments", "expected"), LYCORIS_CASES)
def test_lycoris_arguments(arguments: tuple[str, ...], expected: dict[str, Any]) -> None:
    made = config(lycoris(*arguments))
    assert {name: getattr(made, name) for name in expected} == expected


def test_what_lycoris_alone_has_is_inert_without_it() -> None:
    arguments = ["algo=lokr", "factor=8", "dora_wd=True", "train_norm=True", "preset=attn-only"]
    found = toml(network_args=arguments)
    assert kinds(found, "network_args") == ["inert"] * len(arguments)
    assert config(found) == config(toml())


def test_lycoris_layers_that_are_left_out_are_said() -> None:
    assert "time embedding" in notes(lycoris("preset=full"), "network_args")
    assert "unsupported" not in kinds(lycoris("preset=attn-mlp"), "network_args")


SD1_NORMS = list_norms(FAMILIES["sd1"].shape)
RESNET_NORMS = [norm for norm in SD1_NORMS if ".resnets." in norm.path]
TRANSFORMER_NORMS = [norm for norm in SD1_NORMS if ".attentions." in norm.path]


@pytest.mark.parametrize(
    ("arguments", "norms"),
    [
        ((), SD1_NORMS),
        (("conv_dim=0",), SD1_NORMS),
        (("preset=full-lin",), SD1_NORMS),
        (("preset=unet-only", "conv_dim=0"), SD1_NORMS),
        (("preset=attn-mlp",), TRANSFORMER_NORMS),
        (("preset=unet-transformer-only",), TRANSFORMER_NORMS),
        (("preset=unet-convblock-only",), RESNET_NORMS),
        (("preset=unet-convblock-only", "conv_dim=0"), RESNET_NORMS),
    ],
)
def test_norms_are_those_of_the_blocks_that_a_preset_enters(
    arguments: tuple[str, ...], norms: list[TargetModule]
) -> None:
    """Whichever layers of a block are left out for their kernels (LyCORIS' wrapper)."""
    made = config(lycoris("algo=loha", "train_norm=True", *arguments))
    layers = select_modules(
        FAMILIES["sd1"].shape, made.targets, made.target_modules, train_norm=True
    )
    trained = {layer.path for layer in layers if layer.is_norm}
    assert trained == {norm.path for norm in norms}
    if "conv_dim=0" in arguments or "preset=full-lin" in arguments:
        assert {layer.kernel_size for layer in layers} == {0, 1}


def test_norms_are_left_out_with_the_unet() -> None:
    arguments = ("algo=loha", "preset=full-lin", "train_norm=true")
    found = lycoris(*arguments, network_train_text_encoder_only=True)
    assert config(found).target_modules == PATTERNS_OF_THIN_LAYERS
    assert not config(found).train_norm
    assert "norm layers belong to it" in notes(found, "network_args")


@pytest.mark.parametrize(
    ("word", "is_on", "is_meant"),
    [("on", True, True), ("Yes", True, True), ("FALSE", False, False), ("0", True, False)],
)
def test_every_word_but_false_is_on(word: str, is_on: bool, is_meant: bool) -> None:
    """As LyCORIS reads them; a word that says off is off for who asks for what is meant."""
    argument = f"train_norm={word}"
    assert config(lycoris(argument)).train_norm is is_on
    found = meant(network_module="lycoris.kohya", network_args=[argument])
    assert config(found).train_norm is is_meant
    assert ("conflicting" in kinds(lycoris(argument), "network_args")) is (is_on != is_meant)


def test_a_factor_is_a_whole_number() -> None:
    with refused(InvalidSpec):
        lycoris("algo=lokr", "factor=2.7")


def test_what_whole_factors_override_is_not_called_taken() -> None:
    found = lycoris("algo=lokr", "full_matrix=True", "conv_dim=4", "conv_alpha=1")
    assert config(found).conv_rank is None
    assert kinds(found, "network_dim") == kinds(found, "network_alpha") == ["inert"]
    said = notes(found, "network_args")
    assert "conv_dim: has no effect" in said
    assert "conv_alpha: has no effect" in said


def test_a_kind_that_is_not_trained_is_said_of_its_own_key() -> None:
    found = lycoris("algo=dylora")
    assert "unsupported" in kinds(found, "network_args")
    assert kinds(found, "network_module") == ["taken"]


def test_nothing_to_train_is_said_of_a_key_of_the_file() -> None:
    found = lycoris("preset=unet-only", network_train_text_encoder_only=True)
    assert all(fault.startswith("network_args: ") for fault in found.faults)


def test_max_norm_is_kohyas() -> None:
    assert config(toml(scale_weight_norms=1.0)).scale_weight_norms == 1.0
    assert config(toml(scale_weight_norms=0)).scale_weight_norms is None


def test_lokr_of_a_very_high_rank_has_whole_factors() -> None:
    made = config(lycoris("algo=lokr", network_dim=10_000))
    assert (made.lokr_factors, made.rank, made.alpha) == ("both whole", 16, None)


def test_the_gui_hands_lycoris_its_arguments() -> None:
    made = config(gui(LoRA_type="LyCORIS/LoKr", factor=8, dora_wd=True, LyCORIS_preset="attn-mlp"))
    assert (made.network_type, made.lokr_factor, made.use_dora) == ("LoKr", 8, True)
    assert config(gui(factor=8)).lokr_factor is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("algo=dylora",), "not lycoris.kohya dylora"),
        (("algo=full",), "not lycoris.kohya full"),
        (("algo=diag-oft",), "not lycoris.kohya diag-oft"),
        (("preset=ia3",), "no preset ia3"),
        (("preset=/a/own.toml",), "no preset /a/own.toml"),
        (("algo=loha", "use_tucker=True"), "Tucker"),
        (("algo=lokr", "unbalanced_factorization=True"), "factors both sides"),
    ],
)
def test_what_lycoris_has_and_the_studio_not_is_refused_by_name(
    arguments: tuple[str, ...], sentence: str
) -> None:
    found = lycoris(*arguments)
    assert found.config is None
    assert any(sentence in fault for fault in found.faults)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"network_module": "networks.oft"}, "network_module"),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=dylora"]}, "network"),
        ({"optimizer_type": "Prodigy", "learning_rate": 1.0}, "optimizer_type"),
        ({"optimizer_type": "Lion"}, "optimizer_type"),
        ({"lr_scheduler": "inverse_sqrt", "lr_warmup_steps": 10}, "lr_scheduler"),
        ({"train_data_dir": ""}, "train_data_dir"),
        ({"pretrained_model_name_or_path": ""}, "pretrained"),
        ({"t5xxl": "t5.safetensors"}, "t5xxl"),
        ({"in_json": "a.json"}, "in_json"),
        (
            {"network_train_unet_only": True, "network_train_text_encoder_only": True},
            "network_train",
        ),
    ],
)
def test_what_there_is_not_gives_no_config_but_a_reason(values: dict[str, Any], key: str) -> None:
    found = toml(**values)
    assert found.config is None
    assert len(found.faults) == 1
    assert found.faults[0].startswith(key)
    told = plan_import(tomli_w.dumps(BASE | values))
    assert None in told["config"].values()
    assert told["steps"] == 1600
    assert (told["modules"] is None) is (key in ("network_module", "network", "pretrained"))


def test_parts() -> None:
    assert config(toml(network_train_unet_only=True)).train_text_encoder is False
    only = config(toml(network_train_text_encoder_only=True, text_encoder_lr=3e-5))
    assert not only.train_unet
    assert only.learning_rate == 3e-5
    cached = toml(cache_text_encoder_outputs=True)
    assert config(cached).train_text_encoder is False
    assert kinds(cached, "cache_text_encoder_outputs") == ["conflicting"]
    assert config(toml(text_encoder_lr=0.0, unet_lr=1e-4)).train_text_encoder is False
    assert config(gui(text_encoder_lr=0)).train_text_encoder is False
    assert config(gui(text_encoder_lr=0)).learning_rate == 1e-4
    counted = plan_import(tomli_w.dumps(BASE | {"network_train_unet_only": True}))
    assert counted["modules"] == {"unet": 192, "text_encoders": 0}
    assert plan_import(tomli_w.dumps(BASE))["modules"] == {"unet": 192, "text_encoders": 72}


# ---- optimizer and rates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (ADAFACTOR_RELATIVE_STEP, None, None)),
        (["relative_step=True"], (ADAFACTOR_RELATIVE_STEP, None, None)),
        (
            ["relative_step=False"],
            ("Adafactor", 1e-4, True),
        ),  # Adafactor scales unless it is told not to
        (
            ["scale_parameter=False", "relative_step=False", "warmup_init=False"],
            ("Adafactor", 1e-4, None),
        ),
        (["scale_parameter=False"], (ADAFACTOR_RELATIVE_STEP, None, False)),
        (["relative_step=False", "warmup_init=True"], (ADAFACTOR_RELATIVE_STEP, None, None)),
    ],
)
def test_adafactor_in_both_readings(arguments: list[str], expected: tuple[Any, ...]) -> None:
    made = config(toml(optimizer_type="Adafactor", learning_rate=1e-4, optimizer_args=arguments))
    assert (made.optimizer, made.learning_rate, made.scale_parameter) == expected
    if "relative_step=False" in arguments and made.optimizer == "Adafactor":
        assert made.effective_scale_parameter is (expected[2] is True)
    other = config(meant(optimizer_type="Adafactor", learning_rate=1e-4, optimizer_args=arguments))
    says = any(argument.startswith(("relative_step", "warmup_init=True")) for argument in arguments)
    assert (other == made) is says  # who says which reading it is has meant it
    assert (
        config(meant(optimizer_type="Adafactor")).optimizer == ADAFACTOR_RELATIVE_STEP
    )  # there is no rate to mean


def test_rates() -> None:
    assert config(toml()).learning_rates == (2e-6, 2e-6)
    assert config(toml(learning_rate=1e-4)).learning_rates == (
        1e-4,
        1e-4,
    )
    assert config(toml(learning_rate=1e-4, text_encoder_lr=5e-5)).learning_rates == (1e-4, 5e-5)
    assert config(toml(learning_rate=1e-4, unet_lr=2e-4)).learning_rates == (2e-4, 1e-4)
    both = toml(learning_rate=1.0, unet_lr=2e-4, text_encoder_lr=[5e-5, 1e-5])
    assert config(both).learning_rates == (2e-4, 5e-5)
    assert kinds(both, "learning_rate") == ["inert"]
    assert kinds(both, "text_encoder_lr") == ["unsupported", "taken"]
    assert config(gui()).learning_rates == (1e-4, 5e-5)
    assert kinds(gui(), "learning_rate") == ["inert"]


def test_optimizers() -> None:
    assert config(toml()).optimizer == "AdamW"
    assert config(toml()).effective_weight_decay == 0.01
    assert (
        config(toml(optimizer_type="PagedAdamW8bit")).optimizer
        == config(toml(use_8bit_adam=True)).optimizer
        == "AdamW 8-bit"
    )
    made = config(gui())
    assert (made.optimizer, made.effective_weight_decay, made.betas, made.eps) == (
        "AdamW 8-bit",
        0.05,
        (0.9, 0.99),
        None,
    )
    found = toml(optimizer_args=["eps=1e-6", "decouple=True"])
    assert config(found).eps == 1e-6
    assert "decouple=True is ignored" in notes(found, "optimizer_args")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 100}, ("cosine", 100.0)),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 0.1}, ("linear", 0.1)),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 100}, ("constant", 0.0)),
        ({"lr_scheduler": "constant_with_warmup"}, ("constant", 0)),
        (
            {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 5},
            ("constant with warm-up", 5.0),
        ),
        ({}, ("constant", 0.0)),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.0001}, ("cosine", 0.0)),
    ],
)
def test_schedules(values: dict[str, Any], expected: tuple[str, float]) -> None:
    made = config(toml(learning_rate=1e-4, **values))
    assert (made.lr_scheduler, made.lr_warmup) == expected
    if values == {"lr_scheduler": "constant", "lr_warmup_steps": 100}:
        assert kinds(toml(**values), "lr_warmup_steps") == ["conflicting"]
        assert config(meant(**values)).lr_scheduler == "constant with warm-up"


def test_the_guis_warm_up_is_percent() -> None:
    assert config(gui()).lr_warmup == 0.1
    assert config(gui(max_train_steps=700)).lr_warmup == 70
    assert config(gui(lr_warmup=0)).lr_warmup == 0


def test_waves_and_powers_count_beside_their_schedule() -> None:
    assert (
        config(
            toml(lr_scheduler="cosine_with_restarts", lr_scheduler_num_cycles=3)
        ).lr_scheduler_num_cycles
        == 3
    )
    assert (
        config(
            toml(lr_scheduler="polynomial", lr_scheduler_power=2, lr_scheduler_num_cycles=3)
        ).lr_scheduler_power
        == 2
    )
    assert kinds(
        toml(lr_scheduler="cosine", lr_scheduler_num_cycles=3), "lr_scheduler_num_cycles"
    ) == ["inert"]


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_pictures() -> None:
    plain = config(toml())
    assert plain.resolution == 512
    assert not plain.buckets
    assert plain.cache_latents == "off"
    assert plain.crop == "center"
    made = config(
        toml(enable_bucket=True, cache_latents=True, cache_latents_to_disk=True, flip_aug=True)
    )
    assert (
        made.bucket_min,
        made.bucket_max,
        made.bucket_step,
        made.cache_latents,
        made.random_flip,
    ) == (
        256,
        1024,
        64,
        "disk",
        True,
    )
    odd = toml(enable_bucket=True, min_bucket_reso=300, max_bucket_reso=1000)
    assert (config(odd).bucket_min, config(odd).bucket_max) == (
        256,
        1024,
    )
    assert "not a multiple" in notes(odd, "min_bucket_reso")
    random = toml(random_crop=True, cache_latents=True)
    assert config(random).cache_latents == "off"
    assert kinds(random, "cache_latents") == ["conflicting"]
    assert (
        config(toml(resolution=768)).resolution
        == config(toml(resolution=[768, 768])).resolution
        == 768
    )
    wide = toml(resolution="512,650")
    assert config(wide).resolution == 576
    assert kinds(wide, "resolution") == ["unsupported"]
    assert kinds(toml(min_bucket_reso=256), "min_bucket_reso") == ["inert"]


def test_captions_and_noise() -> None:
    asked = {"caption_dropout_rate": 0.1, "noise_offset": 0.05, "min_snr_gamma": 5, "clip_skip": 2}
    made = config(toml(shuffle_caption=True, keep_tokens=2, **asked))
    assert made.shuffle_caption
    assert made.keep_tokens == 2
    assert [made.caption_dropout, made.noise_offset, made.min_snr_gamma, made.clip_skip] == list(
        asked.values()
    )
    assert config(toml(keep_tokens=2)).keep_tokens == 0
    assert kinds(toml(keep_tokens=2), "keep_tokens") == ["inert"]
    assert "look for .caption" in notes(toml(), "caption_extension")
    assert config(toml(min_snr_gamma=0)).min_snr_gamma is None
    assert kinds(gui(), "multires_noise_iterations") == ["inert"]
    assert kinds(toml(multires_noise_iterations=6), "multires_noise_iterations") == ["unsupported"]
    assert kinds(toml(huber_c=0.1), "huber_c") == ["inert"]
    assert kinds(toml(huber_c=0.1, loss_type="huber"), "huber_c") == ["unsupported"]
    assert kinds(toml(noise_offset=0.1, adaptive_noise_scale=0.1), "adaptive_noise_scale") == [
        "unsupported"
    ]
    assert "doubles the steps" in notes(gui(reg_data_dir="/a"), "reg_data_dir")
    assert kinds(toml(loss_type="huber"), "loss_type") == ["unsupported"]
    assert kinds(toml(loss_type="l2"), "loss_type") == ["inert"]


def test_watching() -> None:
    made = config(gui())
    assert made.sample_prompt_list == ("a moon , by nobody", "a lake")
    assert made.sample_every == 25
    assert config(gui(sample_every_n_steps=0)).sample_prompts == ""
    assert kinds(gui(sample_every_n_steps=0), "sample_prompts") == ["conflicting"]
    assert (
        config(
            import_config(json.dumps(GUI | {"sample_every_n_steps": 0}), as_meant=True)
        ).sample_every_epochs
        == 1
    )
    both = gui(sample_every_n_epochs=2)
    assert config(both).sample_every_epochs == 2
    assert kinds(both, "sample_every_n_steps") == ["conflicting"]
    saved = config(toml(save_every_n_steps=100, save_last_n_steps=200))
    assert (saved.checkpoint_every, saved.checkpoints_total_limit) == (100, 3)
    saved = config(toml(save_every_n_epochs=2, save_last_n_epochs=4))
    assert (saved.checkpoint_every_epochs, saved.checkpoints_total_limit) == (2, 4)
    checked = config(toml(validation_split=0.1, validate_every_n_steps=50))
    assert (checked.validation_split, checked.validate_every) == (0.1, 50)
    assert toml(sample_prompts="C:\\prompts.txt", sample_every_n_steps=5).config is not None
    assert "left out" in notes(gui(sample_prompts="a (b:2000)\na moon"), "sample_prompts")


# ---- families, names, folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("/m/juggernautXL_v9.safetensors", "sdxl"),
        ("sd_xl_base_1.0", "sdxl"),
        ("runwayml/stable-diffusion-v1-5", "sd1"),
        ("D:\\models\\v1-5-pruned.ckpt", "sd1"),
        ("sd15.safetensors", "sd1"),
        ("stabilityai/stable-diffusion-2-1", "sd2"),
        ("/m/dreamshaper_8.safetensors", None),
        ("pocket", None),
    ],
)
def test_family_by_the_models_name(path: str, family: str | None) -> None:
    found = toml(pretrained_model_name_or_path=path)
    assert found.family == family
    told = plan_import(tomli_w.dumps(BASE | {"pretrained_model_name_or_path": path}))
    assert (told["modules"] is None) is (family is None)
    if family is None:
        assert any(
            "neither the file nor" in notice["note"]
            for notice in told["notices"]
            if notice["key"] == "modules"
        )
        known = plan_import(
            tomli_w.dumps(BASE | {"pretrained_model_name_or_path": path}),
            shape=FAMILIES["sd1"].shape,
        )
        assert known["modules"] == {"unet": 192, "text_encoders": 72}


def test_family_by_other_signs() -> None:
    unnamed = {"pretrained_model_name_or_path": "dreamshaper"}
    assert toml(**unnamed, sdxl=True).family == "sdxl"
    assert toml(**unnamed, v2=True).family == "sd2"
    assert gui(**unnamed).family == "sd1"
    assert gui(**unnamed, sdxl=True).family == "sdxl"
    assert import_config(tomli_w.dumps(BASE | unnamed), "my sdxl run.toml").family == "sdxl"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("40_moon", (40, "moon")),
        ("1_sks plush toy", (1, "sks plush toy")),
        ("5", (5, "")),
        ("3_a_b", (3, "a_b")),
        ("moon", None),
        ("0_moon", None),
        ("-1_moon", None),
        ("_moon", None),
        ("4.5_moon", None),
        ("", None),
        ("9" * 5000 + "_a", None),
        ("40 moon", None),
    ],
)
def test_concept_folders(folder: str, expected: tuple[int, str] | None) -> None:
    assert parse_folder_name(folder) == expected


@given(st.text(max_size=30))
def test_any_folder_has_a_concept_or_none(folder: str) -> None:
    found = parse_folder_name(folder)
    assert found is None or (found[0] >= 1 and folder.split("_", 1)[1:] in ([found[1]], []))


# ---- dataset_config -------------------------------------------------------------------------------------------------

DATASET = """[general]
shuffle_caption = true
caption_extension = '.txt'
keep_tokens = 1
enable_bucket = true
[[datasets]]
resolution = 512
batch_size = 4
keep_tokens = 2
  [[datasets.subsets]]
  image_dir = 'C:\\data\\hoge'
  class_tokens = 'hoge girl'
  num_repeats = 10
  [[datasets.subsets]]
  image_dir = 'C:\\data\\fuga'
  class_tokens = 'fuga boy'
  keep_tokens = 3
  num_repeats = 10
  [[datasets.subsets]]
  is_reg = true
  image_dir = 'C:\\data\\reg'
"""


def test_dataset_config_beside_settings() -> None:
    found = import_config(
        tomli_w.dumps(
            BASE | {"dataset_config": "d.toml", "train_batch_size": 9, "learning_rate": 1e-4}
        ),
        dataset_config=DATASET,
    )
    made = config(found)
    assert (
        made.train_batch_size,
        made.resolution,
        made.keep_tokens,
        made.repeats,
        made.dataset,
        made.class_word,
    ) == (4, 512, 2, 10, "data", "hoge girl")
    assert kinds(found, "train_data_dir") == ["conflicting"]
    assert kinds(found, "is_reg") == ["unsupported"]
    assert kinds(found, "keep_tokens") == ["unsupported", "taken"]
    assert "taken" in kinds(found, "batch_size")
    assert kinds(found, "dataset_config") == ["taken"]
    assert "import it too" in notes(toml(dataset_config="d.toml"), "dataset_config")
    with refused(InvalidSpec):
        import_config(tomli_w.dumps(BASE), dataset_config=tomli_w.dumps(BASE))


def test_dataset_config_alone() -> None:
    found = import_config(DATASET)
    assert found.config is None
    assert found.values["model"] is None
    assert found.values["train_batch_size"] == 4
    assert (
        import_config(
            json.dumps(
                {
                    "datasets": [
                        {"resolution": 256, "subsets": [{"image_dir": "/a/b", "num_repeats": 2}]}
                    ]
                }
            )
        ).values["dataset"]
        == "b"
    )


@pytest.mark.parametrize(
    "text",
    [
        "datasets = 5",
        "datasets = []",
        "datasets = [5]",
        "[[datasets]]\nresolution = 5",
        "general = 5\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'",
        "[[datasets]]\n[[datasets.subsets]]\nis_reg = true",
        "[[datasets]]\nsubsets = [5]",
    ],
)
def test_a_broken_dataset_config_is_refused_in_words(text: str) -> None:
    assert refusal(text)[0].startswith("datasets: ")


# ---- files ----------------------------------------------------------------------------------------------------------


def test_sections_are_one_heap() -> None:
    found = import_config(
        "[model]\npretrained_model_name_or_path = 'sd15'\n[a]\nnetwork_dim = 8\n[b]\nnetwork_dim = 16\n"
        "train_data_dir = '/a/moon'\n[deep.er]\nx = 1"
    )
    assert config(found).rank == 16
    assert kinds(found, "network_dim") == ["conflicting", "taken"]
    assert kinds(found, "er") == ["unsupported"]


def test_a_key_that_nobody_knows() -> None:
    assert plan_import("a." * 14 + "b = 1")["steps"] == 1600  # nobody looks into it
    assert "Did you mean network_alpha?" in notes(toml(network_alfa=5), "network_alfa")
    assert kinds(toml(quite_new=5), "quite_new") == ["unsupported"]
    assert kinds(toml(quite_new=False), "quite_new") == ["inert"]


def test_the_studios_own_files_are_plans_too() -> None:
    found = plan_import(
        'dataset = "moon"\nname = "a"\nmodel = "stable-diffusion-v1-5"\nepochs = 2\nbatch = 5',
        image_counts=24,
    )
    assert found["steps"] == 10
    assert found["modules"] == {"unet": 192, "text_encoders": 0}
    assert found["config"]["epochs"] == 2
    assert refusal('dataset = "moon"\nname = "a"\nrank = 0\nwarmup = 5')[1].startswith("Warm-up: ")


def test_no_secret_is_repeated() -> None:
    assert "s3cret" not in json.dumps(plan_import(json.dumps(GUI)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "{",
        "[]",
        "= 5",
        "a = 1\na = 2",
        '{"a": 1, "a": 2}',
        "a = " + "[" * 5000,
        '{"a": ' + "[" * 100_000,
        "a" * 600_000,
        "a = " + "9" * 5000,
        '{"a": ' + "9" * 5000 + "}",
        "\x00",
        "\ud800 = 5",
        "{}",
        '{"a": {"a": 5}, "\ud800": 1',
        "5",
        "null",
        '"text"',
        "\n".join(f"k{n} = 1" for n in range(3000)),
    ],
    ids=lambda text: f"{text[:12]!a}",
)
def test_a_hostile_file_is_refused_in_words(text: str) -> None:
    assert len(refusal(text)) == 1


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"network_dim": "wide"}, "network_dim"),
        ({"network_dim": 4.5}, "network_dim"),
        ({"learning_rate": [1]}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"lr_warmup_steps": 1e300}, "lr_warmup_steps"),
        ({"network_alpha": math.inf}, "network_alpha"),
        ({"seed": True}, "seed"),
        ({"max_train_steps": 10**400}, "max_train_steps"),
        ({"cache_latents": "perhaps"}, "cache_latents"),
        ({"resolution": "a,b"}, "resolution"),
        ({"resolution": [1, 2, 3]}, "resolution"),
        ({"optimizer_args": ["fast"]}, "optimizer_args"),
        ({"network_args": 5}, "network_args"),
        ({"mixed_precision": "fp4"}, "mixed_precision"),
        ({"save_precision": "x"}, "save_precision"),
        ({"output_name": 5}, "output_name"),
        ({"pretrained_model_name_or_path": [1]}, "pretrained"),
        ({"train_data_dir": [5]}, "train_data_dir"),
        ({"max_train_steps": -5}, "As studio settings: Steps"),
        ({"network_dim": 4096}, "As studio settings: Rank"),
        ({"lr_warmup_steps": -1, "lr_scheduler": "cosine"}, "lr_warmup_steps"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], key: str) -> None:
    if any(isinstance(value, int) and value > 2**63 for value in values.values()):
        told = refusal("\n".join(f"{name} = {value}" for name, value in values.items()))
    else:
        told = refusal(tomli_w.dumps(BASE | values))
    assert any(fault.startswith(key) for fault in told)


def test_all_wrong_values_are_named_at_once() -> None:
    told = refusal(
        tomli_w.dumps({"network_dim": "a", "seed": "b", "flip_aug": 7, "clip_skip": 1.5})
    )
    assert {fault.split(":")[0] for fault in told} == {
        "network_dim",
        "seed",
        "flip_aug",
        "clip_skip",
    }


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 3000) | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = sorted({line.split(" = ")[0] for line in THESIS.splitlines() if " = " in line} | GUI.keys())


@settings(max_examples=examples(100))
@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), ANY, max_size=8), st.booleans()
)
def test_any_json_is_read_or_refused_in_words(values: dict[str, Any], as_meant: bool) -> None:
    text = json.dumps(values)
    try:
        found = plan_import(text, as_meant=as_meant)
    except InvalidSpec as error:
        str(error).encode()
        return
    json.dumps(found, allow_nan=False).encode()


def choice(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


SANE = st.fixed_dictionaries(
    {},
    optional={
        "network_dim": choice(1, 8, 128),
        "network_alpha": choice(0, 1, 8.5),
        "network_args": choice(
            [],
            ["conv_dim=4"],
            ["dropout=0.1"],
            ["algo=loha", "preset=attn-mlp", "dora_wd=True"],
            ["algo=lokr", "factor=8", "full_matrix=True", "rs_lora=True"],
            ["preset=unet-convblock-only", "train_norm=True", "rank_dropout=0.1"],
        ),
        "network_module": choice("", "networks.lora", "lycoris.kohya"),
        "scale_weight_norms": choice(0, 1.0),
        "network_train_unet_only": st.booleans(),
        "cache_text_encoder_outputs": st.booleans(),
        "network_dropout": choice(0, 0.1),
        "learning_rate": choice(1e-4, 1e-3, "5e-5"),
        "unet_lr": choice(1e-4, 0),
        "text_encoder_lr": choice(0, 1e-5, [1e-5, 2e-5]),
        "optimizer_type": choice("", "AdamW", "AdamW8bit", "Adafactor", "adafactor"),
        "optimizer_args": choice(
            [],
            ["relative_step=False"],
            ["scale_parameter=False", "relative_step=False", "warmup_init=False"],
            ["weight_decay=0.1", "betas=0.9,0.99"],
        ),
        "lr_scheduler": choice(
            "constant",
            "constant_with_warmup",
            "linear",
            "cosine",
            "cosine_with_restarts",
            "polynomial",
        ),
        "lr_warmup_steps": choice(0, 0.1, 50),
        "lr_scheduler_num_cycles": choice(1, 3),
        "lr_scheduler_power": choice(1, 0.5),
        "max_train_steps": choice(100, 5000),
        "max_train_epochs": choice(0, 10),
        "epoch": choice(1, 20),
        "seed": choice(0, 42),
        "enable_bucket": st.booleans(),
        "bucket_no_upscale": st.booleans(),
        "min_bucket_reso": choice(128, 256, 300),
        "max_bucket_reso": choice(1024, 2048),
        "bucket_reso_steps": choice(32, 64),
        "cache_latents": st.booleans(),
        "cache_latents_to_disk": st.booleans(),
        "random_crop": st.booleans(),
        "flip_aug": st.booleans(),
        "shuffle_caption": st.booleans(),
        "keep_tokens": choice(0, 1),
        "caption_dropout_rate": choice(0, 0.1),
        "clip_skip": choice(1, 2),
        "noise_offset": choice(0, 0.1),
        "min_snr_gamma": choice(0, 5),
        "mixed_precision": choice("no", "fp16", "bf16"),
        "save_every_n_epochs": choice(0, 1),
        "save_every_n_steps": choice(0, 100),
        "save_last_n_epochs": choice(0, 3),
        "save_last_n_steps": choice(0, 250),
        "sample_prompts": choice("", "/a/prompts.txt", "a moon"),
        "sample_every_n_steps": choice(0, 50),
        "sample_every_n_epochs": choice(0, 1),
        "validation_split": choice(0, 0.1),
        "validate_every_n_steps": choice(0, 50),
        "validate_every_n_epochs": choice(1, 2),
        "reg_data_dir": choice("", "/a/reg"),
        "prior_loss_weight": choice(1.0, 0.5),
        "gradient_checkpointing": st.booleans(),
    },
)


@settings(max_examples=examples(120))
@given(SANE, st.booleans(), st.booleans())
def test_what_kohya_takes_is_taken_and_every_key_is_said(
    values: dict[str, Any], as_meant: bool, by_gui: bool
) -> None:
    given = BASE | values
    found = import_config(json.dumps(given) if by_gui else tomli_w.dumps(given), as_meant=as_meant)
    learned = not any(values.get(key) == 0 for key in ("unet_lr", "text_encoder_lr"))
    assert found.config is not None or (
        not learned and found.faults[0].endswith("at 0 nothing is learned.")
    )
    assert given.keys() <= {notice.key for notice in found.notices}
