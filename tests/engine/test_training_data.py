"""What a training is shown: latents and embeddings bit for bit those of the stock libraries, batches and draws as pure functions,
a cache that is never stale."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.core.training.buckets import Buckets
from studio.engine.models import devices, loaded_model
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.training import rng, text_encoding
from studio.engine.training.batch_plan import (
    CROPS_PER_IMAGE,
    SHUFFLES_PER_CAPTION,
    BatchPlan,
    DataOptions,
    split_validation,
)
from studio.engine.training.data_loader import BatchLoader
from studio.engine.training.latent_cache import TensorCache, make_key
from studio.errors import BadFile, Cancelled, DatasetError, InvalidSpec
from studio.storage import atomic
from studio.storage.datasets.training_set import TrainingImage, read_training_set
from studio.storage.models.library import read_model_info
from studio.storage.models.model_configs import hash_components
from support import lora_makers as makers
from support.examples import examples
from support.models import POCKET
from support.sentences import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL = DataOptions(
    resolution=(64, 64),
    min_bucket_side=32,
    max_bucket_side=128,
    bucket_step=32,
    batch_size=2,
    seed=5,
)
SIZES = [(64, 64), (100, 64), (64, 100), (200, 150), (90, 90), (64, 128)]


@pytest.fixture(scope="module")
def parts(toys: Path) -> dict[str, LoadedModel]:
    device = devices.resolve("cpu", "float32")
    return {
        name: loaded_model.load_model(read_model_info(folder), name, device)
        for name, folder in (
            ("pocket", POCKET),
            ("toy-sdxl", toys / "toy-sdxl"),
            ("toy-sd2", toys / "toy-sd2"),
        )
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for k, (width, height) in enumerate(SIZES):
        rough = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        rough.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(
            f"a boat number {k}, red, in the city, by a lake, at night"
        )
    return folder


@pytest.fixture(scope="module")
def items(pictures: Path) -> list[TrainingImage]:
    return list(read_training_set(pictures).images)


def made(
    count: int, repeats: int = 1, size: tuple[int, int] = (64, 64), caption: str = ""
) -> list[TrainingImage]:
    """Items without files."""
    return [
        TrainingImage(Path(f"/nowhere/{k}.png"), caption, repeats, "", *size, f"{k:064d}")
        for k in range(count)
    ]


def data(
    items: list[TrainingImage],
    parts: LoadedModel,
    options: DataOptions = SMALL,
    cache: TensorCache | None = None,
    **more: Any,
) -> BatchLoader:
    found = BatchLoader(BatchPlan(items, options), cache or TensorCache(), parts, **more)
    found.fill_cache(parts)
    return found


def whole(plan: BatchPlan, epoch: int = 0) -> list[list[str]]:
    size = plan.batches_per_epoch
    return [
        [sample.key for sample in plan.get_batch(step)]
        for step in range(epoch * size, (epoch + 1) * size)
    ]


# --- order -------------------------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=examples(40))
@given(
    st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_an_epoch_shows_everything_once_in_batches_of_one_bucket(
    given_: Any, batch: int, seed: int
) -> None:
    items = [replace(made(k + 1, repeats, size)[k]) for k, (size, repeats) in enumerate(given_)]
    plan = BatchPlan(items, replace(SMALL, batch_size=batch, seed=seed))
    for epoch in (0, 3):
        steps = [
            plan.get_batch(epoch * plan.batches_per_epoch + k)
            for k in range(plan.batches_per_epoch)
        ]
        assert sorted(one.key for step in steps for one in step) == sorted(
            one.key for one in plan.samples
        )
        assert all(
            len({one.fit.bucket for one in step}) == 1 and 1 <= len(step) <= batch for step in steps
        )
    often = Counter(one.image.path for one in plan.samples)
    assert often == {item.path: item.repeats for item in items}


def test_order_is_a_pure_function_of_seed_step_and_contents() -> None:
    items = made(7, 3) + [replace(item, width=128) for item in made(9)[7:]]
    plan, moved = (
        BatchPlan(items, SMALL),
        BatchPlan(random.Random(1).sample(items, len(items)), SMALL),
    )
    assert whole(plan) == whole(moved)
    assert plan.fingerprint == moved.fingerprint
    steps = list(range(40))
    random.Random(2).shuffle(steps)
    asked = {step: [one.key for one in moved.get_batch(step)] for step in steps}
    assert all(asked[step] == [one.key for one in plan.get_batch(step)] for step in range(40))
    assert whole(plan) != whole(plan, 1)
    assert whole(plan) != whole(BatchPlan(items, replace(SMALL, seed=6)))
    named = [replace(item, path=Path(f"/other/{9 - k}.png")) for k, item in enumerate(items)]
    assert whole(BatchPlan(named, SMALL)) == whole(plan)
    for changed in (
        replace(SMALL, seed=9),
        replace(SMALL, batch_size=3),
        replace(SMALL, random_flip=True),
        replace(SMALL, trigger="x"),
    ):
        assert BatchPlan(items, changed).fingerprint != plan.fingerprint
    assert BatchPlan(items, replace(SMALL, cache="disk")).fingerprint == plan.fingerprint
    assert (
        BatchPlan([replace(items[0], caption="x"), *items[1:]], SMALL).fingerprint
        != plan.fingerprint
    )


def test_order_has_not_changed_since_it_was_written_down() -> None:
    """A run that was begun with an older studio goes on with the same pictures."""
    assert [
        [int(key.split()[0]) for key in batch] for batch in whole(BatchPlan(made(6), SMALL))
    ] == ORDER
    first = torch.randn(2, generator=rng.make_generator(5, 7, "a", "noise")).tolist()
    assert first == pytest.approx(NOISE, abs=1e-6)
    assert rng.draw_uniform(5, 7, "a", "flip") == pytest.approx(NUMBER, abs=1e-12)


ORDER = [[0, 3], [2, 4], [5, 1]]
NOISE = [-1.5792405605316162, -1.5385541915893555]
NUMBER = 0.8959179642290074


def test_draws() -> None:
    def noise(*what: Any) -> bytes:
        return torch.randn(4, generator=rng.make_generator(*what)).numpy().tobytes()

    torch.manual_seed(1)
    first = noise(0, 0, "a", "noise")
    torch.manual_seed(2)
    assert noise(0, 0, "a", "noise") == first
    others = [
        (1, 0, "a", "noise"),
        (0, 1, "a", "noise"),
        (0, 0, "b", "noise"),
        (0, 0, "a", "crop"),
        (10, 0, "a", "noise"),
        (-1, 0, "a", "noise"),
        (0, 0, "0\0a", "noise"),
        (2**70, 0, "a", "noise"),
        (0, 0, "\ud800", "noise"),
    ]
    assert len({noise(*other) for other in others} | {first}) == len(others) + 1
    numbers = [rng.draw_uniform(3, step, "a", "x") for step in range(4000)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert abs(sum(numbers) / 4000 - 0.5) < 0.02
    assert Counter(rng.draw_index(4, 3, step, "a", "x") for step in range(400)).keys() == {
        0,
        1,
        2,
        3,
    }
    rows = rng.draw_normal((2, 3), 1, 2, ["a", "b"], "noise")
    assert rows.shape == (2, 2, 3)
    assert torch.equal(rows[1:], rng.draw_normal((2, 3), 1, 2, ["b"], "noise"))


def test_class_pictures_are_mixed_in_as_many_as_the_others() -> None:
    classes = [
        replace(item, path=Path(f"/class/{k}.png"), caption="a boat")
        for k, item in enumerate(made(3))
    ]
    plan = BatchPlan(made(4, 2), replace(SMALL, trigger="mysks"), classes, 0.7)
    kinds = Counter((one.is_class_image, one.weight) for one in plan.samples)
    assert kinds == {(False, 1.0): 8, (True, 0.7): 8}
    assert len({one.key for one in plan.samples}) == 16
    assert {plan.get_caption(0, one) for one in plan.samples if one.is_class_image} == {"a boat"}
    assert {plan.get_caption(0, one) for one in plan.samples if not one.is_class_image} == {"mysks"}
    assert (
        len(
            {
                one.image.path
                for one in BatchPlan(made(2), SMALL, classes).samples
                if one.is_class_image
            }
        )
        == 2
    )  # the surplus is left out
    assert sum(one.is_class_image for one in BatchPlan(made(2), SMALL).samples) == 0
    same = BatchPlan(made(2), SMALL, made(2))
    assert len({one.key for one in same.samples}) == 4


def test_pictures_that_no_bucket_takes_are_named() -> None:
    shrink = DataOptions(resolution=(512, 512), no_upscale=True)
    items = [*made(1, size=(600, 600)), replace(made(2)[1], width=63, height=500)]
    plan = BatchPlan(items, shrink)
    assert len(plan.samples) == 1
    assert plan.excluded_images[0][0] == items[1].path
    assert "63 x 500" in plan.excluded_images[0][1]
    with refused(DatasetError):
        BatchPlan(items[1:], shrink)
    with refused(DatasetError):
        BatchPlan([], shrink)


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 5))
def test_split(count: int, share: float, seed: int) -> None:
    items = made(count)
    train, valid = split_validation(items, share, seed)
    assert sorted([*train, *valid], key=lambda item: item.content_hash) == items
    if count > 1 and share > 0:
        assert 1 <= len(valid) < count
        assert abs(len(valid) - share * count) <= 1
    else:
        assert not valid
    again, _ = split_validation(
        [replace(item, path=Path("/x") / item.path.name) for item in reversed(items)], share, seed
    )
    assert {item.content_hash for item in again} == {item.content_hash for item in train}
    twice = split_validation([*items, *items], share, seed)
    assert {item.content_hash for item in twice[0]}.isdisjoint(
        {item.content_hash for item in twice[1]}
    )


# --- captions ----------------------------------------------------------------------------------------------------------------


def test_captions() -> None:
    words = "a boat, red,, by a lake , at night, in fog"
    plan = BatchPlan(made(3, caption=words), SMALL)
    assert {plan.get_caption(step, one) for step in range(9) for one in plan.samples} == {words}
    mixed = BatchPlan(
        made(3, caption=words),
        replace(SMALL, shuffle_caption=True, keep_tokens=2, trigger="mysks", caption_dropout=0.25),
    )
    said = [mixed.get_caption(step, one) for step in range(400) for one in mixed.samples]
    assert 0.2 < said.count("") / len(said) < 0.3
    assert all(
        text.startswith("mysks, a boat, red, ")
        and sorted(text.split(", "))
        == sorted(["mysks", "a boat", "red", "by a lake", "at night", "in fog"])
        for text in said
        if text
    )
    assert set(said) == set(mixed.list_captions())
    assert 6 <= len(set(said)) <= 1 + 3 * SHUFFLES_PER_CAPTION
    assert said == [mixed.get_caption(step, one) for step in range(400) for one in mixed.samples]
    assert (
        BatchPlan(made(1, caption="x"), replace(SMALL, caption_dropout=1.0)).get_caption(
            0, mixed.samples[0]
        )
        == ""
    )
    assert mixed.options.deterministic == replace(SMALL, keep_tokens=2, trigger="mysks")


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("a moon", "moon", "a moon"),
        ("Moon, old", "moon", "Moon, old"),
        ("moonlight", "moon", "moon, moonlight"),
        ("", "moon", "moon"),
        ("a (b", "(b", "a (b"),
        ("a", " ", "a"),
        ("a cat", "sks dog", "sks dog, a cat"),
        ("", "", ""),
    ],
)
def test_trigger(caption: str, trigger: str, expected: str) -> None:
    plan = BatchPlan(made(1, caption=caption), replace(SMALL, trigger=trigger))
    assert plan.get_caption(0, plan.samples[0]) == expected


# --- pixels and latents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [pytest.param("pocket", marks=pytest.mark.slow), "toy-sdxl"])
def test_latents_are_bitwise_the_stock_autoencoders(
    model: str, parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    """Pixels by PIL and diffusers' image processor, the posterior and its sample by AutoencoderKL itself."""
    from diffusers.image_processor import VaeImageProcessor

    pipe = makers.stock(parts[model].info.path)
    found = data(items, parts[model])
    seen = 0
    for step in range(found.plan.batches_per_epoch):
        batch = found.load_batch(step)
        for sample, latents in zip(batch.samples, batch.latents):
            bucket, resized = sample.fit.bucket, sample.fit.resized_size
            shrinks = resized[0] <= sample.image.width
            image = Image.open(sample.image.path).resize(
                resized, Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS
            )
            left, top = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
            image = image.crop((left, top, left + bucket[0], top + bucket[1]))
            with torch.no_grad():
                told = pipe.vae.encode(
                    VaeImageProcessor().preprocess(image).contiguous()
                ).latent_dist
            noise = told.sample(rng.make_generator(5, step, sample.key, "posterior"))[0]
            assert torch.equal(latents, noise * pipe.vae.config.scaling_factor)
            seen += 1
    assert seen == len(items)


def test_latents_shifted_by_the_autoencoders_own_mean(
    parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    """What `Parts.decode` turns back."""
    own = parts["pocket"]
    before = data(items, own).load_batch(0).latents / own.vae.config.scaling_factor
    own.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.0, 2.0, 0.5, 1.5])
    try:
        after = data(items, own).load_batch(0).latents
        config = own.vae.config
        mean, std = (
            torch.tensor(numbers).view(1, 4, 1, 1)
            for numbers in (config.latents_mean, config.latents_std)
        )
        assert torch.allclose(after * std / config.scaling_factor + mean, before, atol=1e-5)
    finally:
        own.vae.register_to_config(latents_mean=None, latents_std=None)


def test_every_step_draws_its_own_and_the_same_again(
    parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    one, other = data(items[:2], parts["pocket"]), data(items[:2], parts["pocket"])
    again = {step: other.load_batch(step) for step in (3, 0, 2, 1)}
    for step in range(4):
        batch = one.load_batch(step)
        assert torch.equal(batch.latents, again[step].latents)
        assert batch.captions == again[step].captions
        assert batch.prompt_embeds is not None
        assert again[step].prompt_embeds is not None
        assert torch.equal(batch.prompt_embeds, again[step].prompt_embeds)
    drawn = {}
    for step in range(8):
        for sample, latents in zip(one.load_batch(step).samples, one.load_batch(step).latents):
            drawn.setdefault(sample.key, []).append(latents)
    assert all(not torch.equal(rows[0], row) for rows in drawn.values() for row in rows[1:])


def test_a_flipped_picture_has_latents_of_its_own(
    parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    """Those of the mirrored picture, not the mirrored latents."""
    own, plan = parts["pocket"], BatchPlan(items[:1], replace(SMALL, random_flip=True))
    assert [view.is_flipped for view in plan.list_views()] == [False, True]
    found, seen = data(items[:1], own, plan.options), {}
    for step in range(20):
        seen[plan.get_view(step, plan.samples[0]).is_flipped] = found.load_batch(step).latents[0]
    image = Image.open(items[0].path)
    for flip, latents in seen.items():
        turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
        mean = own.vae.encode(
            torch.from_numpy(np.array(turned)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        ).latent_dist.mean[0]
        assert (latents / own.vae.config.scaling_factor - mean).abs().mean() < 0.5 * (
            seen[not flip] - latents
        ).abs().mean()
    assert len(seen) == 2
    assert not torch.allclose(seen[True], seen[False].flip(-1), atol=0.05)


def test_random_crops_stay_in_the_picture_and_are_told_to_sdxl(
    parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    options = replace(
        SMALL,
        resolution=(64, 64),
        enable_buckets=False,
        crop="random",
        random_flip=True,
        batch_size=1,
    )
    wide = next(item for item in items if (item.width, item.height) == (100, 64))
    plan = BatchPlan([wide], options)
    views = plan.list_views()
    assert 3 <= len({view.crop_left for view in views}) <= CROPS_PER_IMAGE
    assert {view.crop_top for view in views} == {0}
    assert all(0 <= view.crop_left <= 36 for view in views)
    seen = {plan.get_view(step, plan.samples[0]) for step in range(100)}
    assert seen == set(views)
    for view in views:
        assert view.time_ids == (
            64,
            100,
            0,
            36 - view.crop_left if view.is_flipped else view.crop_left,
            64,
            64,
        )
    found = data([wide], parts["toy-sdxl"], options)
    batch = found.load_batch(0)
    assert batch.time_ids is not None
    assert batch.time_ids.tolist() == [list(plan.get_view(0, plan.samples[0]).time_ids)]
    assert batch.pooled_prompt_embeds is not None
    assert batch.pooled_prompt_embeds.shape == (1, 32)
    square = BatchPlan([replace(wide, width=64)], options)
    assert len({(view.crop_left, view.crop_top) for view in square.list_views()}) == 1


def test_sides_that_the_latents_do_not_fit_are_refused(parts: dict[str, LoadedModel]) -> None:
    with refused(InvalidSpec):
        BatchLoader(
            BatchPlan(made(1), replace(SMALL, resolution=(60, 60), enable_buckets=False)),
            TensorCache(),
            parts["pocket"],
        )


# --- texts -------------------------------------------------------------------------------------------------------------------

CAPTION = "a (red:1.3) boat by a lake, AND a moon"


@pytest.mark.parametrize("model", ["pocket", "toy-sd2", "toy-sdxl"])
def test_text_is_bitwise_what_the_stock_pipeline_reads(
    model: str, parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    own, pipe = parts[model], makers.stock(parts[model].info.path)
    for caption in (CAPTION, "", "boat " * 200):
        said = pipe.encode_prompt(
            caption, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        with torch.no_grad():
            rows, pooled = text_encoding.encode_tokens(
                own.family,
                own.text_encoders,
                text_encoding.tokenize(own.tokenizers, [caption]),
            )
        assert torch.equal(rows, said[0])
        assert (pooled is None) == (model != "toy-sdxl")
        assert pooled is None or torch.equal(pooled, said[2])
    batch = data([replace(items[0], caption=CAPTION)], own).load_batch(0)
    said = pipe.encode_prompt(
        CAPTION, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    assert batch.prompt_embeds is not None
    assert torch.equal(batch.prompt_embeds, said[0])


@pytest.mark.parametrize("model", ["pocket", "toy-sd2", "toy-sdxl"])
@pytest.mark.parametrize("skip", [1, 2])
def test_text_is_what_the_studio_reads_when_it_makes_pictures(
    model: str, skip: int, parts: dict[str, LoadedModel]
) -> None:
    """With clip skip."""
    own = parts[model]
    with torch.no_grad():
        rows, pooled = text_encoding.encode_tokens(
            own.family,
            own.text_encoders,
            text_encoding.tokenize(own.tokenizers, ["a red boat"]),
            skip,
        )
    told = encode_prompts(own, GenerationRequest(model=model, prompt="a red boat", clip_skip=skip))
    assert torch.equal(rows, told.positives[0].get(0)["prompt_embeds"])
    assert pooled is None or torch.equal(pooled, told.positives[0].get(0)["pooled_prompt_embeds"])


@pytest.mark.parametrize("model", ["pocket", "toy-sdxl"])
def test_long_captions_are_read_in_chunks_of_75(model: str, parts: dict[str, LoadedModel]) -> None:
    """Each as the stock pipeline reads it alone; what is pooled is the first."""
    own, pipe = parts[model], makers.stock(parts[model].info.path)
    long = " ".join(f"a red boat by a lake in the city at night number {k}" for k in range(12))
    words = pipe.tokenizer(long, add_special_tokens=False).input_ids
    assert 75 < len(words) < 225
    ids = text_encoding.tokenize(own.tokenizers, [long, "short"], 3)
    assert all(number.shape == (2, 3, 77) for number in ids)
    with torch.no_grad():
        rows, pooled = text_encoding.encode_tokens(own.family, own.text_encoders, ids)
    for k in range(3):
        piece = pipe.tokenizer.decode(words[75 * k : 75 * k + 75])
        if pipe.tokenizer(piece, add_special_tokens=False).input_ids == words[75 * k : 75 * k + 75]:
            said = pipe.encode_prompt(
                piece, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            assert torch.allclose(rows[:1, 77 * k : 77 * k + 77], said[0], atol=1e-5), k
            assert k or pooled is None or torch.allclose(pooled[:1], said[2], atol=1e-5)


def test_text_has_gradients_and_a_batch_is_its_rows(parts: dict[str, LoadedModel]) -> None:
    own = parts["toy-sdxl"]
    ids = text_encoding.tokenize(
        own.tokenizers, ["a boat", "a much longer caption, with a lake"], 2
    )
    rows, pooled = text_encoding.encode_tokens(own.family, own.text_encoders, ids)
    weight = own.text_encoders[0].get_input_embeddings().weight
    weight.requires_grad_(True)
    try:
        again, _ = text_encoding.encode_tokens(own.family, own.text_encoders, ids)
        again.sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None
    alone, alone_pooled = text_encoding.encode_tokens(
        own.family, own.text_encoders, [number[1:] for number in ids]
    )
    assert torch.allclose(rows[1:], alone, atol=1e-5)
    assert pooled is not None
    assert torch.allclose(pooled[1:], alone_pooled, atol=1e-5)
    with refused(InvalidSpec):
        text_encoding.encode_tokens(own.family, own.text_encoders, ids, 4)


def test_trained_encoders_read_for_themselves(
    parts: dict[str, LoadedModel], items: list[TrainingImage]
) -> None:
    found = data(items[:2], parts["pocket"], cache_text_embeds=False)
    batch = found.load_batch(0)
    assert batch.prompt_embeds is None
    assert batch.pooled_prompt_embeds is None
    assert batch.time_ids is None
    assert batch.captions[0].startswith("a boat")
    assert batch.loss_weights.tolist() == [1.0] * len(batch.sample_keys)


# --- cache -------------------------------------------------------------------------------------------------------------------


class Counting:
    """Counts the autoencoder's and the first text encoder's calls."""

    def __init__(self, parts: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: Counter[str] = Counter()
        self._watch(monkeypatch, parts.vae, "encode")
        self._watch(monkeypatch, parts.text_encoders[0], "forward")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, thing: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(thing, name)

        def watched(*given: Any, **more: Any) -> Any:
            self.seen[name] += 1
            return inner(*given, **more)

        monkeypatch.setattr(thing, name, watched)

    @property
    def calls(self) -> tuple[int, int]:
        found = self.seen["encode"], self.seen["forward"]
        self.seen.clear()
        return found


def test_computed_once_and_again_only_where_something_changed(
    parts: dict[str, LoadedModel], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    own, cache = parts["pocket"], tmp_path / "cache"
    count = Counting(own, monkeypatch)

    def run(options: DataOptions = SMALL) -> BatchLoader:
        return data(list(read_training_set(folder).images), own, options, TensorCache(cache))

    first = run().load_batch(0)
    assert count.calls == (6, 6)
    second = run()
    assert count.calls == (0, 0)
    assert torch.equal(second.load_batch(0).latents, first.latents)
    assert first.prompt_embeds is not None
    assert torch.equal(second.load_batch(0).prompt_embeds, first.prompt_embeds)
    (folder / "0.png").rename(folder / "9.png")  # names do not matter
    (folder / "0.txt").rename(folder / "9.txt")
    run(replace(SMALL, seed=77, batch_size=1))
    assert count.calls == (0, 0)
    (folder / "1.txt").write_text("other words")
    run()
    assert count.calls == (0, 1)
    Image.new("RGB", (64, 64)).save(folder / "2.png")
    run()
    assert count.calls == (1, 0)
    run(replace(SMALL, random_flip=True))
    assert count.calls == (6, 0)
    run(replace(SMALL, resolution=(96, 96)))
    assert count.calls[0] >= 5
    run(replace(SMALL, clip_skip=2))
    assert count.calls == (0, 6)
    run(replace(SMALL, caption_dropout=0.5))
    assert count.calls == (0, 1)
    monkeypatch.setattr(
        "studio.engine.training.data_loader.hash_components", lambda info, *names: "another model"
    )
    run()
    assert count.calls == (6, 6)


@pytest.mark.parametrize(
    "harm", ["cut", "flipped bit", "empty", "other's", "text", "pickle", "folder", "huge header"]
)
def test_a_torn_or_foreign_file_is_made_anew(
    parts: dict[str, LoadedModel],
    items: list[TrainingImage],
    tmp_path: Path,
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = parts["pocket"]
    good = data(items[:2], own, cache=TensorCache(tmp_path)).load_batch(0)
    paths = sorted(tmp_path.rglob("*.safetensors"))
    assert len(paths) == 4
    assert not list(tmp_path.rglob("*.tmp"))
    whole = {path: path.read_bytes() for path in paths}
    for path in paths:
        before = whole[path]
        if harm == "folder":
            path.unlink()
            path.mkdir()
            continue
        path.write_bytes(
            {
                "cut": before[:-3],
                "flipped bit": before[:-9] + bytes([before[-9] ^ 4]) + before[-8:],
                "empty": b"",
                "other's": whole[paths[0] if path != paths[0] else paths[1]],
                "text": b"hello" * 9,
                "pickle": b"\x80\x04" + before,
                "huge header": b"\xff" * 8 + before,
            }[harm]
        )
    if harm == "folder":
        for path in paths:
            path.rmdir()
    count = Counting(own, monkeypatch)
    for calls in ((2, 2), (0, 0)):
        again = data(items[:2], own, cache=TensorCache(tmp_path)).load_batch(0)
        assert count.calls == calls
        assert torch.equal(again.latents, good.latents)
    assert sorted(tmp_path.rglob("*.safetensors")) == paths


def test_what_is_small_stays_in_memory_and_what_is_large_leaves_it(tmp_path: Path) -> None:
    rows = {make_key(k): {"a": torch.full((100,), float(k))} for k in range(10)}
    cache = TensorCache(tmp_path, max_bytes=1000)
    for name, tensors in rows.items():
        cache.put(name, tensors)
    assert cache.memory_bytes <= 1000
    assert len(cache._tensors) == 2
    for name, tensors in rows.items():
        found = cache.get(name)
        assert found is not None
        assert torch.equal(found["a"], tensors["a"])
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    assert sum(cache.get(name) is not None for name in rows) == 2
    only = TensorCache(max_bytes=1000)  # without a disk nothing leaves
    for name, tensors in rows.items():
        only.put(name, tensors)
    assert all(only.get(name) is not None for name in rows)
    assert only.memory_bytes == 4000
    only.put(make_key(0), {"a": torch.zeros(1)})
    assert only.memory_bytes == 3604


def test_a_full_disk_is_noted_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, replace: bool = True) -> None:
        raise BadFile(f"{path} could not be written: No space left on device. Is the disk full?")

    monkeypatch.setattr(atomic, "write", full)
    cache = TensorCache(tmp_path, max_bytes=10)
    for k in range(3):
        cache.put(make_key(k), {"a": torch.full((100,), float(k))})
    assert cache.disk_error.startswith("The cache is kept in memory only")
    assert all(cache.get(make_key(k)) for k in range(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_format_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "mean": torch.randn(4, 8, 8).to(dtype).transpose(1, 2),
        "std": torch.zeros(0, 3).to(dtype),
    }
    TensorCache(tmp_path).put(make_key("x"), tensors)
    found = TensorCache(tmp_path).get(make_key("x"))
    assert found is not None
    assert all(
        torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors
    )
    assert TensorCache(tmp_path).get(make_key("y")) is None


def test_content_is_that_of_a_part(toys: Path) -> None:
    sdxl, pocket = read_model_info(toys / "toy-sdxl"), read_model_info(POCKET)
    assert (
        hash_components(sdxl, "vae")
        == hash_components(read_model_info(toys / "toy-sdxl"), "vae")
        != hash_components(pocket, "vae")
    )
    assert (
        hash_components(sdxl, "text_encoder")
        != hash_components(sdxl, "text_encoder_2")
        != hash_components(sdxl, "text_encoder", "text_encoder_2")
    )


def test_a_picture_that_changed_or_broke_is_named(
    parts: dict[str, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "a.png")
    items = list(read_training_set(tmp_path).images)
    Image.new("RGB", (64, 64), (200, 9, 9)).save(tmp_path / "a.png")
    with refused(DatasetError):
        data(items, parts["pocket"])
    (tmp_path / "a.png").unlink()
    with refused(DatasetError):
        data(items, parts["pocket"])
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "a.png")
    own = parts["pocket"]
    inner = own.vae.encode
    monkeypatch.setattr(own.vae, "encode", lambda pixels: inner(pixels * float("nan")))
    with refused(DatasetError):
        data(items, own)


def test_prepare_reports_and_can_be_stopped(
    parts: dict[str, LoadedModel], items: list[TrainingImage], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    found = BatchLoader(BatchPlan(items, SMALL), TensorCache(tmp_path), parts["pocket"])

    def report(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        found.fill_cache(parts["pocket"], report)
    assert seen == [(0, 12), (1, 12), (2, 12), (3, 12)]
    with refused(BadFile):
        [found.load_batch(step) for step in range(6)]
    again = BatchLoader(BatchPlan(items, SMALL), TensorCache(tmp_path), parts["pocket"])
    seen.clear()
    again.fill_cache(parts["pocket"], lambda done, total: seen.append((done, total)))
    assert seen[0] == (3, 12)
    assert seen[-1] == (12, 12)


def test_shipped_sets_as_pocket_is_trained_on_them(parts: dict[str, LoadedModel]) -> None:
    moon = list(read_training_set(Path(POCKET).parent / "datasets" / "moon").images)
    options = DataOptions(resolution=(128, 128), batch_size=4)
    plan = BatchPlan(moon, options)
    assert plan.batches_per_epoch == 6
    assert set(plan.samples_by_bucket) == {(128, 128)}
    assert options.bucketing == Buckets((128, 128))
