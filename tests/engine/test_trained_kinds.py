"""LoHa, LoKr, DoRA and norms in training: they begin at the model, learn by the papers' formulas, and paint from a file as they were trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lokr.layer import factorization
from safetensors import safe_open

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya.importer import import_config
from studio.core.training.lora_targets import list_norms, select_modules
from studio.core.training.network_shapes import (
    count_parameters,
    estimate_file_bytes,
    split_side,
)
from studio.engine.context import WorkerContext
from studio.engine.training.lora_export import LoraExportInfo, write_lora
from studio.engine.training.lora_network import build_layers
from studio.engine.training.trainer import Trainer
from studio.errors import InvalidSpec
from studio.storage.models import lora_file
from studio.storage.models.model_shape import read_model_shape
from support import lora_makers as makers
from support.benches import open_bench
from support.lora_pictures import QUICK as PICTURE
from support.lora_pictures import paint_ours, paint_stock
from support.painting import together
from support.sentences import refused
from support.trainings import QUICK, hasten, make_home, make_trainer, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CONVOLUTIONS = "attention + feed-forward + convolutions"
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "LoHa": {"network_type": "LoHa"},
    "LoHa with DoRA": {"network_type": "LoHa", "use_dora": True, "targets": CONVOLUTIONS},
    "LoKr": {"network_type": "LoKr", "lokr_factor": 4},
    "LoKr of whole factors": {"network_type": "LoKr", "lokr_factors": "both whole"},
    "LoKr of two ranks": {"network_type": "LoKr", "lokr_factors": "both by rank", "rank": 1},
    "LoKr with DoRA": {
        "network_type": "LoKr",
        "use_dora": True,
        "use_rslora": True,
        "targets": CONVOLUTIONS,
    },
    "norms": {"train_norm": True, "use_rslora": True, "alpha": 1.0},
}
FAST_KINDS = ("DoRA", "LoHa", "LoKr", "LoKr with DoRA", "norms")
SOME_KINDS = [
    kind if kind in FAST_KINDS else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS
]
PAINTED_KINDS = [
    kind if kind == "LoKr with DoRA" else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
]
# Relative differences: sums in another order, amplified by the steps of a picture.
PICTURE_BOUND = 4e-5
GRADIENT_BOUND = 2e-3


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    bench = open_bench(make_home(tmp_path_factory.mktemp("training") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield bench
    bench.home.gallery.close()


def config(**values: Any) -> TrainingConfig:
    return validate(TrainingConfig, QUICK | values)


def export(bench: WorkerContext, one: Trainer, name: str) -> Path:
    path = bench.settings.loras / f"{name}.safetensors"
    layers = build_layers(one.network.state_dict(), one.network.alphas)
    info = LoraExportInfo(name, one.model.family.name, "tiny", (64, 64))
    write_lora(path, layers, info=info, unet_config={}, dtype=torch.float32)
    return path


# ---- where it begins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOME_KINDS)
def test_it_begins_at_the_model_bit_for_bit(bench: WorkerContext, kind: str) -> None:
    one = make_trainer(bench, fresh=True, **KINDS[kind])
    batch = one.loader.load_batch(0)
    inputs: dict[Any, torch.Tensor] = {}
    for layer in one.network.layers.values():
        layer.register_forward_pre_hook(lambda layer, given: inputs.update({layer: given[0]}))
    one.weighted_loss(batch)
    assert len(inputs) == len(one.network.layers)
    for layer, x in inputs.items():
        assert torch.equal(layer(x), layer.base_layer(x))


def test_first_values_are_lycoris(bench: WorkerContext) -> None:
    """Standard deviations of many numbers, and zeros; another seed draws others."""
    one = make_trainer(bench, fresh=True, network_type="LoHa", rank=16)
    by_role: dict[str, list[torch.Tensor]] = {}
    for name, tensor in one.network.state_dict().items():
        by_role.setdefault(name.rpartition("|")[2], []).append(tensor.flatten())
    spread = {role: float(torch.cat(tensors).std()) for role, tensors in by_role.items()}
    assert spread == pytest.approx(
        {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}, rel=0.03
    )
    other = make_trainer(bench, fresh=True, network_type="LoHa", rank=16, seed=8)
    assert not torch.equal(one.parameters[0], other.parameters[0])


def test_magnitudes_begin_as_the_norms_of_the_layers_own_weights(bench: WorkerContext) -> None:
    one = make_trainer(bench, fresh=True, use_dora=True, targets=CONVOLUTIONS)
    for layer in one.network.layers.values():
        weight = layer.base_layer.weight
        magnitudes = layer.get_tensors()["dora_scale"]
        assert magnitudes.shape == (weight.shape[0], *(1,) * (weight.ndim - 1))
        assert torch.allclose(magnitudes.flatten(), weight.flatten(1).norm(dim=1))


# ---- what is computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOME_KINDS)
def test_loss_and_gradients_are_those_of_weights_multiplied_out(
    bench: WorkerContext, kind: str
) -> None:
    """A stock U-Net called with weights by the papers' formulas, from the same numbers."""
    one = make_trainer(bench, **KINDS[kind])
    batch = one.loader.load_batch(0)
    noise = one.objective.draw_noise(batch, 7, 0.0)
    timesteps = one.objective.draw_timesteps(batch, 7)
    loss = one.denoising_loss(batch, noise, timesteps).mean()
    loss.backward()
    pipe = makers.stock(bench.settings.models / "tiny")
    numbers = {
        key: tensor.clone().requires_grad_() for key, tensor in one.network.state_dict().items()
    }
    merged = {}
    for key in dict.fromkeys(name.rpartition("|")[0] for name in numbers):
        path = key.removeprefix("unet|")
        roles = {
            name.rpartition("|")[2]: tensor
            for name, tensor in numbers.items()
            if name.startswith(f"{key}|")
        }
        base = pipe.unet.get_submodule(path)
        alpha = one.network.alphas.get(key, 1.0)
        merged[f"{path}.weight"] = makers.multiply_out(roles, base.weight.detach(), alpha)
        if "b_norm" in roles:
            merged[f"{path}.bias"] = base.bias.detach() + roles["b_norm"]
    noisy = pipe.scheduler.add_noise(batch.latents, noise, timesteps)
    called = torch.func.functional_call(pipe.unet, merged, (noisy, timesteps, batch.prompt_embeds))
    expected = torch.nn.functional.mse_loss(called.sample, noise)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), rel=2e-5)
    ours = {
        f"{network}|{path}|{role}": parameter.grad
        for (network, path), layer in one.network.layers.items()
        for role, parameter in layer.get_parameters().items()
    }
    for name, tensor in numbers.items():
        theirs = tensor.grad.flatten()
        difference = (ours[name].flatten() - theirs).norm()
        assert float(difference) <= GRADIENT_BOUND * float(theirs.norm()) + 1e-7, name


@pytest.mark.parametrize("kind", PAINTED_KINDS)
def test_the_file_paints_as_it_was_trained_and_as_stock_paints_it_multiplied_out(
    bench: WorkerContext, kind: str
) -> None:
    one = make_trainer(bench, model="pocket", resolution=64, **KINDS[kind])
    one.step()
    path = export(bench, one, f"trained {kind}")
    request = GenerationRequest(model="pocket", **PICTURE)
    with one.network.eval_mode() as model:
        in_training = together(model, request.resolve(model.info.native_size, 0))[0].detach()
    painted = paint_ours(bench, "pocket", loras=[f"{path.stem}:1"])
    assert float((painted - in_training).norm() / in_training.norm()) < PICTURE_BOUND
    pipe = makers.stock(bench.home.library.get_model("pocket").path)
    assert makers.merge_file(pipe, path) == len(one.network.layers)
    expected = paint_stock(pipe)
    assert float((painted - expected).norm() / expected.norm()) < PICTURE_BOUND
    base = paint_ours(bench, "pocket")
    assert float((painted - base).norm() / base.norm()) > 50 * PICTURE_BOUND


def test_half_precision_stays_half_between_layers(bench: WorkerContext) -> None:
    one = make_trainer(
        bench, network_type="LoKr", use_dora=True, train_norm=True, precision="bfloat16"
    )
    dtypes = set()
    for layer in one.network.layers.values():
        layer.register_forward_hook(lambda layer, given, output: dtypes.add(output.dtype))
    one.weighted_loss(one.loader.load_batch(0)).mean().backward()
    assert dtypes == {torch.bfloat16}
    assert {weight.dtype for weight in one.parameters} == {torch.float32}
    assert all(weight.grad is not None for weight in one.parameters)


# ---- what is left out and held down ---------------------------------------------------------------------------------


def test_ranks_and_layers_are_left_out_by_seed_step_sample_and_layer(bench: WorkerContext) -> None:
    for kind in ("LoRA", "LoHa", "LoKr"):
        one = make_trainer(bench, network_type=kind, rank_dropout=0.4, module_dropout=0.3)
        batch = one.loader.load_batch(0)
        first = one.weighted_loss(batch)
        assert torch.equal(first, one.weighted_loss(batch))
        one.network.dropout.step = 1
        noise, timesteps = torch.zeros_like(batch.latents), torch.tensor([5, 5])
        later = one.denoising_loss(batch, noise, timesteps)
        one.network.dropout.step = 0
        assert not torch.equal(later, one.denoising_loss(batch, noise, timesteps))


def test_masks(bench: WorkerContext) -> None:
    dropout = make_trainer(bench, rank_dropout=0.4, module_dropout=0.3).network.dropout
    dropout.sample_keys = ("a", "b")
    ones = torch.ones(4, 7, 200)  # two rows a sample
    raised = dropout.drop_channels(ones, "layer", raises_rest=True)
    plain = dropout.drop_channels(ones, "layer", raises_rest=False)
    assert set(plain.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(raised, plain / 0.6)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))  # the same channels at every place
    assert 0.5 < float(plain.mean()) < 0.7
    kernel = dropout.drop_channels(torch.ones(4, 200, 3, 3), "layer", raises_rest=False)
    assert torch.equal(kernel[:, :, 0, 0], plain[:, 0])
    layers = torch.stack([dropout.drop_layer(ones[:, 0, 0], f"{k}") for k in range(400)])
    assert torch.equal(layers[:, 0], layers[:, 1])  # a sample's rows go together
    assert not torch.equal(layers[:, 0], layers[:, 2])
    assert 0.6 < float(layers.mean()) < 0.8
    dropout.sample_keys = ()
    assert dropout.drop_layer(ones, "layer") is ones


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr"])
def test_no_layer_is_changed_by_more_than_the_limit(bench: WorkerContext, kind: str) -> None:
    one = make_trainer(bench, scale_weight_norms=0.02, **KINDS[kind])
    before = [
        layer.product.compute_delta_weight() * layer.product.get_factor(1.0)
        for layer in one.network.layers.values()
    ]
    one.network.limit_norms(0.02)
    for layer, delta in zip(one.network.layers.values(), before):
        limited = layer.product.compute_delta_weight() * layer.product.get_factor(1.0)
        expected = delta * min(1.0, 0.02 / float(delta.norm()))
        assert torch.allclose(limited, expected, rtol=1e-4, atol=1e-7)
    kept = [weight.clone() for weight in one.parameters]
    one.network.limit_norms(1e6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, kept))
    one.step()
    norms = [
        float((layer.product.compute_delta_weight() * layer.product.get_factor(1.0)).norm())
        for layer in one.network.layers.values()
    ]
    assert max(norms) <= 0.02 * 1.001


# ---- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [None, 1, 2, 4, 8, 16, 100, 640])
def test_sides_are_divided_as_peft_and_lycoris_do(factor: int | None) -> None:
    for side in (32, 127, 128, 250, 320, 360, 640, 768, 1280, 2048, 5120, 10240):
        assert split_side(side, factor) == tuple(sorted(factorization(side, factor or -1)))


@pytest.mark.parametrize("kind", SOME_KINDS)
def test_the_plan_counts_what_is_trained_and_knows_the_files_size(
    bench: WorkerContext, kind: str
) -> None:
    one = make_trainer(bench, fresh=True, save_precision="float32", **KINDS[kind])
    shape, _ = read_model_shape(one.model.info)
    own = select_modules(
        shape,
        one.config.targets,
        train_text_encoders=False,
        train_norm=one.config.train_norm,
    )
    assert count_parameters(one.config, own) == sum(p.numel() for p in one.parameters)
    size = export(bench, one, f"size {kind}").stat().st_size
    assert estimate_file_bytes(one.config, own) == pytest.approx(size, rel=0.2)


def test_norms_are_those_of_the_real_networks(bench: WorkerContext) -> None:
    unet = makers.stock(bench.settings.models / "toy-sdxl").unet
    shape, _ = read_model_shape(bench.home.library.get_model("toy-sdxl"))
    norms = {norm.path: norm.out_features for norm in list_norms(shape)}
    inner = ("resnets.", "attentions.")
    assert norms == {
        path: module.weight.shape[0]
        for path, module in unet.named_modules()
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm))
        and any(place in path for place in inner)
    }
    with refused(InvalidSpec):
        select_modules(shape, "patterns", "unet.*.to_k", train_norm=True)


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "module", "arguments"),
    [
        ({"rank_dropout": 0.25}, "networks.lora", {"rank_dropout": "0.25"}),
        (
            {"network_type": "LoHa"},
            "lycoris.kohya",
            {"algo": "loha", "preset": "attn-mlp"},
        ),
        (  # √rank is in the file's alphas, and not here, where rs_lora says it
            {"network_type": "LoHa", "use_rslora": True},
            "lycoris.kohya",
            {"algo": "loha", "preset": "attn-mlp", "rs_lora": "True"},
        ),
        (
            {
                "use_rslora": True,
                "targets": "attention + feed-forward + convolutions",
                "conv_rank": 2,
                "conv_alpha": 1.0,
            },
            "lycoris.kohya",
            {
                "algo": "lora",
                "preset": "full",
                "rs_lora": "True",
                "conv_dim": "2",
                "conv_alpha": "1.0",
            },
        ),
        (
            {"network_type": "LoKr", "lokr_factor": 2, "use_dora": True, "train_norm": True},
            "lycoris.kohya",
            {
                "algo": "lokr",
                "preset": "attn-mlp",
                "factor": "2",
                "dora_wd": "True",
                "wd_on_output": "True",
                "train_norm": "True",
            },
        ),
    ],
)
def test_the_header_says_how_kohya_would_train_it(
    bench: WorkerContext, values: dict[str, Any], module: str, arguments: dict[str, str]
) -> None:
    name = f"header {len(arguments)}"
    trained(bench, name=name, steps=1, **values)
    path = bench.settings.loras / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["ss_network_module"] == module
    assert json.loads(told["ss_network_args"]) == arguments
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("2", "2.0")
    assert lora_file.read_lora_info(path).layers > 0
    given = "\n".join(f'"{name}={value}",' for name, value in arguments.items())
    again = import_config(
        f'pretrained_model_name_or_path = "sd_v1"\ntrain_data_dir = "/a/b"\n'
        f'network_module = "{module}"\nnetwork_args = [{given}]\nnetwork_train_unet_only = true'
    ).config
    assert again
    for field in (*values, "network_type", "targets"):
        assert getattr(again, field) == getattr(config(**values), field)


def test_magnitudes_are_not_rounded(bench: WorkerContext) -> None:
    """In half precision they would change layers that have learned nothing."""
    tensors = trained(bench, use_dora=True, steps=1, save_precision="bfloat16")
    assert {str(t.dtype) for key, t in tensors.items() if "dora_scale" in key} == {"torch.float32"}
    assert {str(t.dtype) for key, t in tensors.items() if "lora_" in key.partition(".")[2]} == {
        "torch.bfloat16"
    }
