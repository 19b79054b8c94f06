"""Captioners that run here: each kind loads from home/models by the stock classes and says what a stock call says, in any batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitForCausalLM,
    GitProcessor,
)

from studio.core.catalog import CAPTIONERS, ENDPOINT
from studio.engine.captioning.captioner_loader import import_captioner
from studio.engine.captioning.job import caption_dataset
from studio.engine.context import WorkerContext
from studio.errors import BadFile, InvalidSpec, ModelNotFound, UnknownFamily
from studio.pocket import data
from studio.pocket.captions import parse_caption
from studio.pocket.world import Scene, render_scene
from studio.storage.models.library import Unusable
from support import captioner_makers as makers
from support.benches import open_bench
from support.models import POCKET
from support.sentences import refused

LOCAL = [kind for kind in CAPTIONERS if kind != ENDPOINT]
SHORT = 12


def silent(progress: Any) -> None:
    """A report that nobody hears."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    """A home with a toy of each kind, and six pictures."""
    home = tmp_path_factory.mktemp("captioners")
    for kind, make in makers.MAKERS.items():
        make(home / "models" / f"toy-{kind}")
    makers.dataset(home / "datasets" / "world", 6)
    bench = open_bench(home)
    yield bench
    bench.home.gallery.close()


def said(bench: WorkerContext, **spec: Any) -> list[str]:
    """What a captioner says of the six, shown only."""
    result = caption_dataset(
        bench, {"dataset": "world", "dry_run": True, "anew": True, "tokens": SHORT, **spec}, silent
    )
    assert all(
        one["error"] == "The captioning model returned no caption for it."
        for one in result["failed"]
    )
    texts = {row["file"]: row["after"] for row in result["rows"]}
    return [texts.get(f"{number:03}.png", "") for number in range(6)]


def pictures(bench: WorkerContext) -> list[Image.Image]:
    return [
        Image.open(path).convert("RGB")
        for path in sorted((bench.settings.home / "datasets" / "world").glob("*.png"))
    ]


@cache
def read_stock(model: Any, reader: Any, folder: Path) -> tuple[Any, Any]:
    """Network and processor by the stock classes, once for all pictures."""
    return model.from_pretrained(folder, dtype=torch.float32).eval(), reader.from_pretrained(folder)


def stock_git(folder: Path, image: Image.Image, words: str) -> str:
    """As GIT's documentation has it."""
    model, reader = read_stock(GitForCausalLM, GitProcessor, folder)
    told = {}
    if words:
        start = model.config.bos_token_id
        told["input_ids"] = torch.tensor(
            [[start, *reader.tokenizer(words, add_special_tokens=False).input_ids]]
        )
    ids = model.generate(
        pixel_values=reader(images=image, return_tensors="pt").pixel_values,
        max_new_tokens=SHORT,
        **told,
    )
    return str(reader.batch_decode(ids, skip_special_tokens=True)[0])


def stock_blip(folder: Path, image: Image.Image, words: str) -> str:
    model, reader = read_stock(BlipForConditionalGeneration, BlipProcessor, folder)
    inputs = (
        reader(images=image, text=words, return_tensors="pt")
        if words
        else reader(images=image, return_tensors="pt")
    )
    return str(
        reader.decode(model.generate(**inputs, max_new_tokens=SHORT)[0], skip_special_tokens=True)
    )


def stock_florence2(folder: Path, image: Image.Image, words: str) -> str:
    model, reader = read_stock(Florence2ForConditionalGeneration, Florence2Processor, folder)
    task = f"<{words.upper().replace(' ', '_')}>" if words else "<CAPTION>"
    ids = model.generate(
        **reader(text=task, images=image, return_tensors="pt"),
        max_new_tokens=SHORT,
        do_sample=False,
    )
    return str(reader.batch_decode(ids, skip_special_tokens=True)[0])


STOCK: dict[str, Callable[[Path, Image.Image, str], str]] = {
    "git": stock_git,
    "blip": stock_blip,
    "florence2": stock_florence2,
}
WORDS = {"git": "a photo of", "blip": "a photo of", "florence2": "more detailed caption"}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        pytest.param(kind, told, marks=() if told == (kind != "git") else pytest.mark.slow)
        for kind in LOCAL
        for told in (False, True)
    ],
)
def test_what_a_stock_call_says_in_any_batch(kind: str, told: bool, bench: WorkerContext) -> None:
    words, folder = WORDS[kind] if told else "", bench.settings.models / f"toy-{kind}"
    with torch.inference_mode():
        wanted = [STOCK[kind](folder, image, words) for image in pictures(bench)]
    clean = [
        " ".join(
            "".join(letter for letter in text if letter.isprintable() or letter.isspace()).split()
        )
        for text in wanted
    ]
    assert len(set(clean)) > 3  # they depend on the picture
    for batch in (1, 4, 6):
        assert said(bench, captioner=f"toy-{kind}", instruction=words, batch=batch) == clean


def test_every_kind_has_a_module_and_every_toy_is_found(bench: WorkerContext) -> None:
    for kind in CAPTIONERS:
        assert import_captioner(kind).Captioner
    assert set(makers.MAKERS) == set(STOCK) == set(LOCAL)
    found = bench.pipelines.transformers_models.list_captioners()
    assert sorted(info.name for info in found) == [
        "pocket",
        *sorted(f"toy-{kind}" for kind in LOCAL),
    ]
    assert {info.name: info.bundled for info in found if not isinstance(info, Unusable)}["pocket"]


def test_longest_and_instruction_change_what_is_said(bench: WorkerContext) -> None:
    assert all(len(text.split()) <= 2 for text in said(bench, captioner="toy-blip", tokens=2))
    assert said(bench, captioner="toy-blip", tokens=4000)  # no more than the model can write
    tasks = [
        said(bench, captioner="toy-florence2", instruction=task)
        for task in CAPTIONERS["florence2"].tasks
    ]
    assert tasks[0] != tasks[1] != tasks[2]
    assert tasks[0] == said(bench, captioner="toy-florence2")
    with refused(InvalidSpec, "Instruction"):
        said(bench, captioner="toy-florence2", instruction="a photo of")


def test_loaded_once_and_counted(bench: WorkerContext) -> None:
    bench.pipelines.unload("Captioner toy-git")
    said(bench, captioner="toy-git")
    loaded = {held["name"]: held for held in bench.pipelines.loaded}
    assert loaded["Captioner toy-git"]["bytes"] > 10_000
    assert not loaded["Captioner toy-git"]["lent"]
    assert bench.pipelines.unload("Captioner toy-git")


def test_what_cannot_be_loaded(bench: WorkerContext, tmp_path: Path) -> None:
    """A pickle is not opened, what is missing or cut off is named, an unknown name gets the nearest."""
    models = bench.settings.models
    cases: list[tuple[str, Callable[[Path], None], type[Exception]]] = [
        (
            "pickle",
            lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"),
            UnknownFamily,
        ),
        ("wordless", lambda folder: (folder / "tokenizer.json").unlink(), UnknownFamily),
        ("eyeless", lambda folder: (folder / "processor_config.json").unlink(), UnknownFamily),
        ("cut", lambda folder: _cut(folder / "model.safetensors"), BadFile),
        ("odd", lambda folder: _without_layer(folder / "config.json"), BadFile),
    ]
    for name, harm, kind in cases:
        folder = models / name
        shutil.copytree(models / "toy-git", folder)
        harm(folder)
        with refused(kind):
            said(bench, captioner=name)
        shutil.rmtree(folder)
    with refused(ModelNotFound) as caught:
        said(bench, captioner="toy-gut")
    assert "toy-git" in str(caught.value)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _without_layer(file: Path) -> None:
    """A config that promises a layer more than there are weights."""
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"num_hidden_layers": 2}))


def right(rows: list[dict[str, str]], scenes: list[Scene]) -> dict[str, float]:
    """How often captions name each attribute rightly."""
    found = np.array(
        [
            [
                one == other
                for one, other in zip(parse_caption(row["after"]), scene.combination, strict=True)
            ]
            for row, scene in zip(rows, scenes, strict=True)
        ]
    )
    return dict(zip(("thing", "colour", "place", "style"), found.mean(0).tolist()))


@pytest.mark.slow
def test_the_embedded_one_in_any_batch_as_a_stock_call_and_mostly_right(
    bench: WorkerContext,
) -> None:
    folder = bench.settings.home / "datasets" / "pocket"
    scenes = makers.dataset(folder, 40)
    spec = {"dataset": "pocket", "dry_run": True, "anew": True}
    rows = {
        batch: caption_dataset(bench, {**spec, "batch": batch}, silent)["rows"] for batch in (1, 7)
    }
    assert rows[1] == rows[7]
    with torch.inference_mode():
        stock = [stock_git(POCKET / "captioner", image, "") for image in pictures(bench)]
    assert said(bench, captioner="pocket") == stock
    found = right(rows[1], scenes)
    assert found["thing"] >= 0.8, found
    assert min(found["colour"], found["place"], found["style"]) >= 0.95, found


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_attributes_of_200_unseen_pictures(bench: WorkerContext, fresh: bool) -> None:
    """Pictures that it has not seen; with `fresh` of combinations that it has not seen either (README names both figures)."""
    folder = bench.settings.home / "datasets" / f"unseen-{fresh}"
    if fresh:
        scenes = makers.dataset(folder, 200)
    else:
        folder.mkdir(parents=True)
        scenes = [scene for scene in data.list_scenes("check") if not scene.concept][:200]
        for k, scene in enumerate(scenes):
            Image.fromarray(render_scene(scene)).save(folder / f"{k:03}.png", compress_level=1)
    found = right(
        caption_dataset(bench, {"dataset": folder.name, "dry_run": True}, silent)["rows"], scenes
    )
    print(f"\ncaptions of 200 unseen pictures{' of unseen combinations' * fresh}: {found}")
    assert found["thing"] >= (0.85 if fresh else 0.9)
    assert min(found["colour"], found["place"], found["style"]) >= 0.95
