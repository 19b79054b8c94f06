"""What CLIP sees in a dataset: search, classes, duplicates, fit; each picture looked at once."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from transformers import CLIPModel, CLIPProcessor

from studio.core.base import validate
from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.jobs import CLIP_SEARCH
from studio.engine import metrics
from studio.engine.clip_search.job import search_dataset
from studio.engine.context import WorkerContext
from studio.engine.metrics import Clip
from studio.engine.worker import import_object
from studio.errors import (
    BadPicture,
    Cancelled,
    DatasetError,
    InvalidSpec,
    ModelNotFound,
    UnknownFamily,
)
from studio.pocket.captions import add_article, format_full_caption
from studio.pocket.world import Scene, render_scene, sample_held_out, sample_scene
from studio.settings import shipped
from studio.storage.jobs import Progress
from support import captioner_makers as makers
from support.benches import open_bench
from support.models import POCKET
from support.sentences import refused

COUNT, BOATS = 120, 12


def silent(progress: Any) -> None:
    """A report that nobody hears."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Of combinations that CLIP has not seen; some are sure to be red boats."""
    boats = [one for one in sorted(sample_held_out()) if one[:2] == ("boat", "red")]
    return [
        *makers.scenes(COUNT - BOATS),
        *(sample_scene(96_000_000 + k, boats[k % len(boats)]) for k in range(BOATS)),
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, scenes: list[Scene]) -> Iterator[WorkerContext]:
    """The dataset world: those pictures, each with its true caption; and a toy CLIP."""
    home = tmp_path_factory.mktemp("seeing")
    folder = home / "datasets" / "world"
    folder.mkdir(parents=True)
    for k, scene in enumerate(scenes):
        Image.fromarray(render_scene(scene)).save(folder / f"{k:03}.png", compress_level=1)
        (folder / f"{k:03}.txt").write_text(format_full_caption(scene))
    reader = CLIPProcessor.from_pretrained(POCKET / "clip")
    makers.clip(home / "models" / "toy-clip", reader.tokenizer)
    bench = open_bench(home)
    yield bench
    bench.home.gallery.close()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures CLIP looked at, call by call."""
    calls: list[int] = []
    real = Clip.encode_images

    def counted(self: Clip, images: Any) -> Any:
        calls.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Clip, "encode_images", counted)
    return calls


def ask(bench: WorkerContext, **spec: Any) -> dict[str, Any]:
    return search_dataset(bench, {"dataset": "world", **spec}, silent)


@pytest.mark.slow
def test_vectors_are_a_stock_models(bench: WorkerContext, scenes: list[Scene]) -> None:
    for name, folder in (
        ("pocket", POCKET / "clip"),
        ("toy-clip", bench.settings.models / "toy-clip"),
    ):
        model, reader = (
            CLIPModel.from_pretrained(folder, dtype=torch.float32).eval(),
            CLIPProcessor.from_pretrained(folder),
        )
        images, texts = (
            [Image.fromarray(render_scene(scene)) for scene in scenes[:5]],
            [format_full_caption(scene) for scene in scenes[:5]],
        )
        with torch.inference_mode():
            said = model(**reader(images=images, text=texts, return_tensors="pt", padding=True))
        with metrics.borrow_clip(bench.pipelines, name) as clip:
            assert np.allclose(clip.encode_images(images), said.image_embeds.numpy(), atol=1e-6)
            assert np.allclose(clip.encode_texts(texts), said.text_embeds.numpy(), atol=1e-6)
            assert np.allclose(
                clip.score_pairs(images, texts),
                (said.image_embeds * said.text_embeds).sum(-1).numpy(),
                atol=1e-6,
            )


def recall(bench: WorkerContext, scenes: list[Scene], colour: str, thing: str) -> float:
    """The share of such pictures, ten at most, among the first ten that a search gives."""
    there = {
        f"{k:03}.png"
        for k, scene in enumerate(scenes)
        if (scene.colour, scene.thing) == (colour, thing)
    }
    found = ask(bench, words=add_article(f"{colour} {thing}"), limit=10)["found"]
    assert len(found) == 10
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    return len(there & {one["file"] for one in found}) / min(10, len(there))


@pytest.mark.slow
def test_search_by_words(bench: WorkerContext, scenes: list[Scene], looked: list[int]) -> None:
    assert recall(bench, scenes, "red", "boat") >= 0.9
    pairs = {(scene.colour, scene.thing) for scene in scenes}
    assert np.mean([recall(bench, scenes, *pair) for pair in pairs]) >= 0.9
    calls = len(looked)
    ask(bench, words="a blue cat")
    ask(bench, question="fit")
    assert len(looked) == calls
    assert sum(looked) in (
        0,
        COUNT,
    )  # each was looked at once, by whichever test came first


@pytest.mark.slow
def test_search_by_a_picture(bench: WorkerContext, scenes: list[Scene]) -> None:
    found = ask(bench, like="000.png", limit=COUNT)["found"]
    assert len(found) == COUNT - 1
    assert "000.png" not in {one["file"] for one in found}  # others that are like it
    alike = [
        k
        for k, scene in enumerate(scenes)
        if k and (scene.thing, scene.place) == (scenes[0].thing, scenes[0].place)
    ]
    best = [int(one["file"][:3]) for one in found[:20]]
    assert not alike or set(alike) & set(best)
    assert np.mean([scenes[k].style == scenes[0].style for k in best]) > 0.5
    assert [
        one["file"] for one in ask(bench, like="000.png", pictures=["005.png", "000.png"])["found"]
    ] == ["005.png"]
    data = (bench.settings.home / "datasets" / "world" / "007.png").read_bytes()
    sent = bench.settings.home / "inputs" / f"{hashlib.sha256(data).hexdigest()}.png"
    sent.parent.mkdir(exist_ok=True)
    sent.write_bytes(data)
    first = ask(bench, like=sent.stem, limit=1)["found"][0]
    assert first["file"] == "007.png"
    assert first["score"] > 0.999
    sent.unlink()
    with refused(BadPicture):
        ask(bench, like=sent.stem)


def test_classes_as_tags(bench: WorkerContext, scenes: list[Scene]) -> None:
    """Seed 001: classify without training."""
    told = ask(bench, question="classes", classes="tree / house / other")
    right = [
        one["class"] == (scene.thing if scene.thing in ("tree", "house") else "other")
        for one, scene in zip(told["found"], scenes, strict=True)
    ]
    assert np.mean(right) >= 0.9
    assert sum(told["counts"].values()) == COUNT
    assert all(1 / 3 <= one["share"] <= 1 for one in told["found"])
    moons = ask(bench, question="classes", classes=["moon", "sun", "other"])
    right = [
        one["class"] == (scene.thing if scene.thing in ("moon", "sun") else "other")
        for one, scene in zip(moons["found"], scenes, strict=True)
    ]
    assert np.mean(right) >= 0.85
    assert set(ask(bench, question="classes", classes=["a moon", "a boat"])["counts"]) == {
        "a moon",
        "a boat",
    }


def test_how_well_captions_fit(bench: WorkerContext, scenes: list[Scene]) -> None:
    folder = bench.settings.home / "datasets" / "mixed"
    shutil.copytree(bench.settings.home / "datasets" / "world", folder)
    wrong = {"010", "020", "030"}
    for name in wrong:
        other = next(
            scene
            for scene in scenes
            if not set(scene.combination) & set(scenes[int(name)].combination)
        )
        (folder / f"{name}.txt").write_text(format_full_caption(other))
    (folder / "040.txt").unlink()
    (folder / "050.txt").write_text("moon " * 500)  # beyond what CLIP reads
    found = search_dataset(bench, {"dataset": "mixed", "question": "fit"}, silent)["found"]
    assert {one["file"][:3] for one in found[:4]} == wrong | {"050"}
    assert len(found) == COUNT - 1
    assert all(-1 <= one["fit"] <= 1 for one in found)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    image.save(out := io.BytesIO(), "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "jpeg": lambda image: _jpeg(image, 30),
    "half": lambda image: image.resize((64, 64)),
    "double": lambda image: image.resize((256, 256)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "cut": lambda image: image.crop((2, 2, 126, 126)),
    "wide": lambda image: image.resize((140, 128)),
}


@pytest.mark.slow
def test_planted_duplicates_are_found_and_none_is_invented(bench: WorkerContext) -> None:
    """Among drawings of the same few combinations, and the demos' two concepts, which are all alike."""
    folder = bench.settings.home / "datasets" / "copies"
    folder.mkdir()
    for k in range(60):  # five pictures of each of twelve scenes, told apart by the seed alone
        scene = sample_scene(97_000_000 + k, makers.scenes(12)[k % 12].combination)
        Image.fromarray(render_scene(scene)).save(folder / f"{k:03}.png", compress_level=1)
    for name in ("moon", "mysks"):
        for path in (shipped("assets") / "datasets" / name).glob("*.png"):
            shutil.copy(path, folder / f"{name}-{path.name}")
    assert (
        search_dataset(bench, {"dataset": "copies", "question": "duplicates"}, silent)["groups"]
        == []
    )
    planted = {}
    for number, (name, copy) in enumerate(COPIES.items()):
        copy(Image.open(folder / f"{number:03}.png").convert("RGB")).save(
            folder / f"copy-{name}.png"
        )
        planted[f"{number:03}.png"] = f"copy-{name}.png"
    _jpeg(Image.open(folder / "000.png").convert("RGB"), 60).save(folder / "copy-third.png")
    groups = search_dataset(bench, {"dataset": "copies", "question": "duplicates"}, silent)[
        "groups"
    ]
    found = {frozenset(one["file"] for one in group) for group in groups}
    assert found == {
        frozenset({one, other, *(["copy-third.png"] if one == "000.png" else [])})
        for one, other in planted.items()
    }
    by_first = {group[0]["file"]: group for group in groups}
    assert "copy-double.png" in by_first
    assert "002.png" in by_first  # the largest comes first
    assert all(
        group[0]["same_file"] and 0.98 < one["like"] <= 1 for group in groups for one in group
    )


def test_of_equally_large_copies_the_sharpest_is_the_best(bench: WorkerContext) -> None:
    folder = bench.settings.home / "datasets" / "blurred"
    folder.mkdir()
    for name in ("003", "009"):
        image = Image.open(shipped("assets") / "datasets" / "mysks" / f"{name}.png").convert("RGB")
        image.save(folder / f"{name}-m.png")
        image.filter(ImageFilter.GaussianBlur(0.7)).save(folder / f"{name}-a.png")
        image.save(folder / f"{name}-b.jpg", quality=92)  # its noise counts as sharp
        image.resize((96, 96)).save(folder / f"{name}-c.png")
    groups = search_dataset(bench, {"dataset": "blurred", "question": "duplicates"}, silent)[
        "groups"
    ]
    assert {group[0]["file"] for group in groups} == {"003-m.png", "009-m.png"}
    assert [sorted(one["file"][4] for one in group) for group in groups] == [list("abcm")] * 2
    assert all(
        group[0]["same_file"] and 0.98 < one["like"] <= 1 and not one["same_file"]
        for group in groups
        for one in group[1:]
    )


def test_any_clip_in_the_home_and_each_remembers_for_itself(
    bench: WorkerContext, looked: list[int]
) -> None:
    names = [info.name for info in bench.pipelines.transformers_models.list_clip_models()]
    assert names == ["toy-clip", "pocket"]
    first = ask(bench, clip="toy-clip", words="a red boat")
    again = ask(bench, clip="toy-clip", words="a red boat")
    assert sum(looked) >= COUNT
    assert first["found"] == again["found"] != ask(bench, words="a red boat")["found"]
    with refused(ModelNotFound) as caught:
        ask(bench, clip="tooy-clip", words="x")
    assert "toy-clip" in str(caught.value).replace("tooy-clip", "")
    shutil.copytree(bench.settings.models / "toy-clip", bench.settings.models / "cut")
    (bench.settings.models / "cut" / "model.safetensors").unlink()
    with refused(UnknownFamily):
        ask(bench, clip="cut", words="x")
    shutil.rmtree(bench.settings.models / "cut")


def test_a_stop_keeps_what_was_looked_at(bench: WorkerContext, looked: list[int]) -> None:
    folder = bench.settings.home / "datasets" / "fresh"
    makers.dataset(folder, 40, first=500)
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:900])

    def stop(progress: Progress) -> None:
        if progress.message == "Scanning the images" and progress.step >= 16:
            raise Cancelled

    with pytest.raises(Cancelled):
        search_dataset(bench, {"dataset": "fresh", "words": "a cat"}, stop)
    assert looked == [16]
    told = search_dataset(bench, {"dataset": "fresh", "words": "a cat"}, silent)
    assert sum(looked) == 39
    assert told["count"] == 39
    assert [one["file"] for one in told["failed"]] == ["000.png"]


def test_bad_questions_in_words(bench: WorkerContext) -> None:
    for spec, title in (
        ({}, "Words"),
        ({"words": "x", "like": "y"}, "Words"),
        ({"question": "classes", "classes": "moon"}, "Labels"),
        ({"question": "fit", "words": "x"}, "Words"),
        ({"question": "duplicate"}, "Question"),
        ({"words": "x", "limit": 0}, "Maximum results"),
    ):
        with refused(InvalidSpec, title):
            validate(ClipQuerySpec, {"dataset": "world", **spec})
    for spec in ({"like": "nothing.png"}, {"words": "x", "pictures": ["nothing.png"]}):
        with refused(DatasetError):
            ask(bench, **spec)
    assert import_object(CLIP_SEARCH.function) is search_dataset


CHANGED: dict[str, Any] = {
    "dataset": "moon",
    "question": "duplicates",
    "clip": "toy-clip",
    "pictures": ("003.png", "004.png"),
    "words": "a blue cat",
    "like": "001.png",
    "classes": "tree / house",
    "limit": 3,
}


@pytest.mark.parametrize("name", ClipQuerySpec.model_fields)
def test_a_field_changes_the_answer(name: str, bench: WorkerContext) -> None:
    base: dict[str, Any] = {"dataset": "world", "words": "a red boat"}
    if name in ("question", "classes"):
        base = {"dataset": "world", "question": "classes", "classes": "moon / sun / other"}
    changed = base | {name: CHANGED[name]}
    changed = {
        key: value
        for key, value in changed.items()
        if not (name == "like" and key == "words") and not (name == "question" and key == "classes")
    }
    one, other = (search_dataset(bench, spec, silent) for spec in (base, changed))
    assert {**one, "seconds": 0} != {**other, "seconds": 0}
    assert one.get("found") != other.get("found")


@pytest.mark.slow
def test_recall_on_200_unseen_pictures(bench: WorkerContext) -> None:
    folder = bench.settings.home / "datasets" / "two-hundred"
    scenes = makers.dataset(folder, 200)
    found = {}
    for pair in sorted({(scene.colour, scene.thing) for scene in scenes}):
        there = {
            f"{k:03}.png" for k, scene in enumerate(scenes) if (scene.colour, scene.thing) == pair
        }
        first = search_dataset(
            bench,
            {"dataset": "two-hundred", "words": add_article(" ".join(pair)), "limit": 10},
            silent,
        )["found"]
        found[pair] = len(there & {one["file"] for one in first}) / min(10, len(there))
    print(
        f"\nrecall@10 of {len(found)} searches in 200 unseen pictures: {np.mean(list(found.values())):.3f}, "
        f"a red boat {found['red', 'boat']:.2f}"
    )
    assert found["red", "boat"] >= 0.9
    assert np.mean(list(found.values())) >= 0.9
