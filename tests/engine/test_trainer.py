"""A step of training: bit by bit what is written out with stock libraries, the same whatever else happens, and safe from NaN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from PIL import Image

from studio.core.training.steps import compute_lr_factor
from studio.engine.context import WorkerContext
from studio.engine.training import rng
from studio.engine.training.job import train
from studio.engine.training.memory_probe import measure_activation_bytes
from studio.engine.training.objective import TrainingObjective
from studio.engine.training.trainer import NonFiniteLoss, Trainer
from studio.errors import InvalidSpec, StudioError, UnknownFamily
from support import lora_makers as makers
from support.benches import open_bench
from support.models import POCKET
from support.sentences import refused
from support.trainings import add, hasten, make_home, same, silent, trained
from support.trainings import make_trainer as trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    bench = open_bench(make_home(tmp_path_factory.mktemp("training") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield bench
    bench.home.gallery.close()


# ---- one step, written out with stock libraries ---------------------------------------------------------------------


def written_out(
    folder: Path,
    given: dict[str, Any],
    ours: dict[str, torch.Tensor],
    *,
    large: bool,
    reads: bool,
    gamma: float,
    offset: float,
    rank: int,
    alpha: float,
) -> tuple[float, dict[str, torch.Tensor]]:
    """diffusers' train_text_to_image_lora(_sdxl).py, one step: the loss and the gradients, by our names. Chance is `given`."""
    pipe = makers.stock(folder)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    for name, network in makers.networks(pipe).items():
        network.requires_grad_(False)
        if name == "unet" or reads:
            targets = makers.ATTENTION if name == "unet" else makers.READER
            makers.attach(network, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    weights = {
        f"{name}|{key.replace('.lora_A.default.weight', '|down').replace('.lora_B.default.weight', '|up')}": weight
        for name, network in makers.networks(pipe).items()
        for key, weight in network.named_parameters()
        if "lora_" in key
    }
    assert weights.keys() == ours.keys()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(ours[name])
        pixels = torch.stack(given["pixels"])
        posterior = pipe.vae.encode(pixels).latent_dist
        latents = (
            posterior.mean + posterior.std * given["posterior"]
        ) * pipe.vae.config.scaling_factor
    noise = given["noise"] + offset * given["offset"]
    timesteps = given["timesteps"]
    noisy = scheduler.add_noise(latents, noise, timesteps)
    rows, pooled = [], None
    for name, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))[
        : 1 + large
    ]:
        ids = getattr(pipe, tokenizer)(
            given["captions"],
            max_length=77,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        said = getattr(pipe, name)(ids, output_hidden_states=large)
        rows.append(said.hidden_states[-2] if large else said[0])
        pooled = said[0]
    added = {"text_embeds": pooled, "time_ids": given["time_ids"]} if large else None
    predicted = pipe.unet(noisy, timesteps, torch.cat(rows, -1), added_cond_kwargs=added).sample
    velocity = scheduler.config.prediction_type == "v_prediction"
    wanted = scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
    snr = compute_snr(scheduler, timesteps)
    weight = torch.stack([snr, gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0] / (
        snr + 1 if velocity else snr
    )
    loss = (
        torch.nn.functional.mse_loss(predicted.float(), wanted.float(), reduction="none").mean(
            dim=[1, 2, 3]
        )
        * weight
    )
    loss.mean().backward()
    return float(loss.mean()), {name: weight.grad for name, weight in weights.items()}


@pytest.mark.parametrize("reads", [False, True], ids=["unet", "both"])
@pytest.mark.parametrize(
    "model", [pytest.param("tiny", marks=pytest.mark.smoke), "tiny-v", "toy-sdxl", "pocket"]
)
def test_one_step_is_the_one_that_is_written_out(
    bench: WorkerContext, model: str, reads: bool
) -> None:
    one = trainer(
        bench,
        model=model,
        train_text_encoder=reads,
        min_snr_gamma=5.0,
        noise_offset=0.1,
        rank=3,
        alpha=2.0,
        buckets=False,
    )
    batch = one.loader.load_batch(0)
    loss = one.weighted_loss(batch).mean()
    loss.backward()
    shape, keys = tuple(batch.latents.shape[1:]), batch.sample_keys

    def picture(path: Path) -> torch.Tensor:
        raw = torch.tensor(
            list(Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BOX).tobytes())
        )
        return (raw.view(64, 64, 3).permute(2, 0, 1) / 127.5 - 1).contiguous()

    given = {
        "pixels": [picture(sample.image.path) for sample in batch.samples],
        "captions": batch.captions,
        "posterior": rng.draw_normal(shape, 7, 0, keys, "posterior"),
        "noise": rng.draw_normal(shape, 7, 0, keys, "noise"),
        "offset": rng.draw_normal((4, 1, 1), 7, 0, keys, "noise offset"),
        "timesteps": torch.tensor([rng.draw_index(1000, 7, 0, key, "timestep") for key in keys]),
        "time_ids": torch.tensor([[128, 128, 0, 0, 64, 64]] * 2),
    }
    large, folder = (
        model == "toy-sdxl",
        POCKET if model == "pocket" else bench.settings.models / model,
    )
    value, gradients = written_out(
        folder,
        given,
        one.network.state_dict(),
        large=large,
        reads=reads,
        gamma=5.0,
        offset=0.1,
        rank=3,
        alpha=2.0,
    )
    assert float(loss) == pytest.approx(value, rel=2e-5)
    for (network, path), layer in one.network.layers.items():
        for role, weight in layer.get_parameters().items():
            theirs = gradients[f"{network}|{path}|{role}"]
            mine = weight.grad
            if theirs is None:  # the last layer of a text encoder that says the one before it
                assert mine is None or not mine.any()
                continue
            assert float((mine - theirs).norm()) <= 2e-3 * float(theirs.norm()) + 1e-7, (
                network,
                path,
                role,
            )


def test_weights_of_samples_and_noise_levels() -> None:
    noising = TrainingObjective(
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        "epsilon",
        torch.device("cpu"),
    )
    times = torch.tensor([0, 500, 999])
    snr = noising.alphas_cumprod[times] / (1 - noising.alphas_cumprod[times])
    assert noising.compute_loss_weights(times, None).tolist() == [1, 1, 1]
    assert torch.allclose(
        noising.compute_loss_weights(times, 5.0), torch.minimum(snr, torch.tensor(5.0)) / snr
    )
    zero = TrainingObjective(
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
        "v_prediction",
        torch.device("cpu"),
    )
    assert torch.isfinite(zero.compute_loss_weights(times, 5.0)).all()
    assert zero.alphas_cumprod[-1] < 1e-6
    with refused(UnknownFamily):
        TrainingObjective({}, "sample", torch.device("cpu"))


def test_class_pictures_weigh_what_they_are_told_to(bench: WorkerContext) -> None:
    one = trainer(bench)
    batch = one.loader.load_batch(0)
    plain = one.weighted_loss(batch)
    assert torch.allclose(
        one.weighted_loss(replace(batch, loss_weights=torch.tensor([1.0, 0.25]))),
        plain * torch.tensor([1.0, 0.25]),
    )


# ---- chance is no accident ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_drawn_from_global_state_and_nothing_there_changes(bench: WorkerContext) -> None:
    values = {
        "dropout": 0.3,
        "train_text_encoder": True,
        "noise_offset": 0.1,
        "caption_dropout": 0.5,
        "random_flip": True,
    }
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = trained(bench, **values)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, trained(bench, **values))
    assert not same(first, trained(bench, **values | {"seed": 8}))


def test_dropout_is_of_seed_batch_sample_and_layer(bench: WorkerContext) -> None:
    one = trainer(bench, dropout=0.4, train_text_encoder=True)
    batch = one.loader.load_batch(0)
    first = one.weighted_loss(batch)
    assert torch.equal(first, one.weighted_loss(batch))
    assert not torch.equal(first, one.weighted_loss(replace(batch, step=1)))
    mask = one.network.dropout.make_mask(torch.ones(4, 50, 20), "a")  # two rows a sample
    assert set(mask.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.6))}
    assert 0.5 < float((mask > 0).float().mean()) < 0.7
    one.network.dropout.sample_keys = batch.sample_keys[:1]
    assert torch.equal(one.network.dropout.make_mask(torch.ones(2, 50, 20), "a"), mask[:2])
    assert not torch.equal(one.network.dropout.make_mask(torch.ones(2, 50, 20), "b"), mask[:2])
    one.network.dropout.sample_keys = ()
    inputs = torch.rand(2, 3)
    assert one.network.dropout.drop_inputs(inputs, "a") is inputs


@pytest.mark.slow
def test_gradient_checkpointing_keeps_less_and_changes_nothing(bench: WorkerContext) -> None:
    values = {"dropout": 0.3, "train_text_encoder": True, "model": "pocket"}
    plain, thrifty = (trainer(bench, gradient_checkpointing=on, **values) for on in (False, True))
    batch = plain.loader.load_batch(0)
    assert measure_activation_bytes(thrifty, batch) < 0.6 * measure_activation_bytes(plain, batch)
    for one in (plain, thrifty):
        one.weighted_loss(batch).mean().backward()
    for mine, theirs in zip(plain.parameters, thrifty.parameters):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-8)
    assert not any(
        module.training
        for network in (thrifty.model.denoiser, *thrifty.model.text_encoders)
        for module in network.modules()
        if isinstance(module, torch.nn.Dropout)
    )


# ---- steps ----------------------------------------------------------------------------------------------------------


def test_accumulation_is_a_larger_batch(bench: WorkerContext) -> None:
    one = trainer(bench, gradient_accumulation_steps=2, max_grad_norm=0)
    two = [one.weighted_loss(one.loader.load_batch(k)).mean() for k in (0, 1)]
    wanted = torch.autograd.grad(sum(two) / 2, one.parameters)  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    one.optimizer.step = lambda *given, **more: seen.extend(
        weight.grad.clone() for weight in one.parameters
    )
    between: list[int] = []
    one.step(lambda: between.append(one.global_step))
    assert between == [0]
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-8) for a, b in zip(seen, wanted))
    (row,) = one.collect_metrics()
    assert row["loss"] == pytest.approx(float(sum(two)) / 2, rel=1e-5)


def test_the_gradient_has_a_limit(bench: WorkerContext) -> None:
    for limit, least, most in ((0.001, 0.00099, 0.00101), (0, 0.01, 1e9)):
        one = trainer(bench, max_grad_norm=limit)
        norms: list[float] = []
        one.optimizer.step = lambda *given, one=one, norms=norms, **more: norms.append(
            float(torch.stack([weight.grad.norm() for weight in one.parameters]).norm())
        )
        one.step()
        assert least <= norms[0] <= most


@pytest.mark.parametrize(
    ("values", "make"),
    [
        (
            {"optimizer": "AdamW", "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "weight_decay": 0.1},
            lambda weights: torch.optim.AdamW(
                weights, lr=1e-2, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1
            ),
        ),
        (
            {"optimizer": "Adafactor", "learning_rate": 1e-3},
            lambda weights: _adafactor(
                weights, lr=1e-3, relative_step=False, scale_parameter=False
            ),
        ),
        (
            {"optimizer": "Adafactor (relative step)", "learning_rate": None},
            lambda weights: _adafactor(weights, lr=None),
        ),
    ],
)
def test_the_optimizer_is_the_stock_one(
    bench: WorkerContext, values: dict[str, Any], make: Any
) -> None:
    one, other = (
        trainer(bench, max_grad_norm=0, **values),
        trainer(bench, max_grad_norm=0, **values),
    )
    stock = make(other.parameters)
    for step in range(3):
        one.step()
        other.weighted_loss(other.loader.load_batch(step)).mean().backward()
        stock.step()
        stock.zero_grad()
    assert (
        max(
            float((mine - theirs).abs().max())
            for mine, theirs in zip(one.parameters, other.parameters)
        )
        < 1e-6
    )
    rows = one.collect_metrics()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["rate"] > 0


def _adafactor(weights: Any, **more: Any) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(weights, **{"warmup_init": False} | more)


def test_the_rate_follows_the_schedule_and_each_part_has_its_own(bench: WorkerContext) -> None:
    values = {
        "lr_scheduler": "cosine",
        "lr_warmup": 2,
        "steps": 6,
        "train_text_encoder": True,
        "text_encoder_lr": 1e-3,
    }
    one = trainer(bench, **values)
    for step in range(6):
        one.step()
        rates = [group["lr"] for group in one.optimizer.param_groups]
        factor = compute_lr_factor(one.config, step, 6)
        assert rates == pytest.approx([1e-2 * factor, 1e-3 * factor])
    assert [len(group["params"]) for group in one.optimizer.param_groups] == [
        len(each) for each in one.network.parameter_groups
    ]


def test_eight_bits_need_what_is_not_here(bench: WorkerContext) -> None:
    with refused(InvalidSpec):
        train(bench, {"run": add(bench, optimizer="AdamW 8-bit")}, silent)


def test_smoothing_forgets_where_it_began(bench: WorkerContext) -> None:
    one = trainer(bench)
    one.global_step = 0
    losses = []
    for _ in range(4):
        one.step()
        (row,) = one.collect_metrics()
        losses.append(row["loss"])
        weight = [0.02 * 0.98 ** (len(losses) - 1 - k) for k in range(len(losses))]
        assert row["smoothed"] == pytest.approx(
            sum(w * loss for w, loss in zip(weight, losses)) / sum(weight), rel=1e-6
        )


# ---- numbers that break ---------------------------------------------------------------------------------------------


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Batches (from 0) whose loss is no number, each as often as told."""
    told: dict[str, Any] = {"batches": {}}
    real = Trainer.weighted_loss

    def losses(self: Trainer, batch: Any) -> torch.Tensor:
        left = told["batches"].get(batch.step, 0)
        if left and self.global_step == batch.step and told.get("on"):
            told["batches"][batch.step] = left - 1
            return real(self, batch) * float("nan")
        return real(self, batch)

    monkeypatch.setattr(Trainer, "weighted_loss", losses)
    monkeypatch.setattr("studio.engine.training.job.fit", _switched(told))
    return told


def _switched(told: dict[str, Any]) -> Any:
    from studio.engine.training.trainer import fit

    def fit_and_break(one: Trainer, watch: Any) -> None:
        told["on"] = True  # not in the tries before
        one.log_every = told.get("read_every", 1)
        fit(one, watch)

    return fit_and_break


@pytest.mark.parametrize(("read_every", "saved"), [(1, 2), (3, 2), (3, None)])
def test_broken_numbers_are_named_and_the_run_goes_back_once(
    bench: WorkerContext, breaking: dict[str, Any], read_every: int, saved: int | None
) -> None:
    breaking |= {
        "batches": {4: 99},
        "read_every": read_every,
    }  # at the fifth step, each time it comes
    said: list[str] = []
    id = add(bench, steps=8, checkpoint_every=saved)
    train(bench, {"run": id}, lambda progress: said.append(progress.message))
    found = trainer(bench).loader.plan.get_batch(4)
    names = [sample.image.path.name for sample in found]
    back = 4 if saved else 0
    assert (
        f"Step 5 gave invalid numbers (images {', '.join(names)}); back to step {back}, continuing without it"
        in said
    )
    log = bench.home.runs.read_log(id)
    assert [(row["broke"], row["pictures"]) for row in log if "broke" in row] == [(5, names)]
    assert [row["step"] for row in log if "loss" in row] == [1, 2, 3, 4, 6, 7, 8]
    assert all(abs(row["loss"]) < 1e9 for row in log if "loss" in row)


def test_broken_twice_is_the_end_and_what_was_sound_is_there(
    bench: WorkerContext, breaking: dict[str, Any]
) -> None:
    breaking["batches"] = {2: 99, 5: 99}
    id = add(bench, steps=8, checkpoint_every=2)
    with refused(StudioError) as caught:
        train(bench, {"run": id}, silent)
    assert "step 6" in str(caught.value)
    assert [one.step for one in bench.home.runs.list_checkpoints(id)] == [2, 4]


def test_weights_that_break_are_seen_although_the_loss_is_sound(bench: WorkerContext) -> None:
    one = trainer(bench)
    one.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    one.step()
    with pytest.raises(NonFiniteLoss, match="step 1"):
        one.collect_metrics()
