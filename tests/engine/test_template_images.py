"""Images of a template: each has its own words, by its seed, and is the image that these words make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.cli.runner import COMMAND_LINE
from studio.core.generation.request import GenerationRequest
from studio.core.generation.templates.writer import fill_template
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.errors import InvalidSpec, StudioError
from studio.services.submission import Services
from support.sentences import refused

QUICK: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "scheduler": "Euler"}
QUICK |= {"noise_schedule": "Uniform"}


@pytest.fixture
def words(bench: WorkerContext) -> WorkerContext:
    folder = bench.home.settings.home / "wildcards"
    folder.mkdir(exist_ok=True)
    (folder / "thing.txt").write_text("boat\nmoon\nhouse\n")
    (folder / "maybe.txt").write_text("<lora:moon:1> moon\nsun\n")
    (folder / "bad.txt").write_text("<lora:nothing:1> moon\n")
    (bench.home.settings.home / "styles.csv").write_text(
        "name,prompt,negative_prompt\nNight,{prompt} at night,fog\n"
    )
    return bench


def make(bench: WorkerContext, **values: Any) -> list[tuple[Any, np.ndarray]]:
    """Return the settings and pixels of each image."""
    result = generate(bench, QUICK | values, lambda *_: None)
    images = []
    for entry in result["pictures"]:
        saved = bench.home.gallery.get(Path(entry["path"]))
        assert saved
        images.append((saved, np.asarray(Image.open(saved.path))))
    return images


@pytest.mark.slow
def test_each_image_is_what_its_words_make(words: WorkerContext) -> None:
    images = make(words, prompt="a {red|blue} __thing__", seed=3, num_images=4, styles=["Night"])
    assert len({saved.request.prompt for saved, _ in images}) > 1
    for number, (saved, pixels) in enumerate(images):
        assert saved.request.prompt.endswith(" at night")
        [(plain, plain_pixels)] = make(
            words, prompt=saved.request.prompt, negative_prompt="fog", seed=3 + number
        )
        assert np.array_equal(pixels, plain_pixels)
        assert plain.digest == saved.digest


def test_the_same_seed_has_the_same_words(words: WorkerContext) -> None:
    texts = [make(words, prompt="a {red|blue} __thing__", seed=11)[0][0].request for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0].prompt_origin.prompt == "a {red|blue} __thing__"


def test_what_is_said_is_of_all_wordings(words: WorkerContext) -> None:
    """Of two pictures the second has a negative prompt, which guidance 1 does not ask."""
    negative_prompt, files = "{|fog}", words.home.prompt_files
    seed = next(
        seed
        for seed in range(100)
        if not fill_template(negative_prompt, seed, files)
        and fill_template(negative_prompt, seed + 1, files)
    )
    values = {"negative_prompt": negative_prompt, "guidance": 1.0, "seed": seed, "num_images": 2}
    notes = generate(words, QUICK | values, lambda *_: None)["notes"]
    assert [note for note in notes if note.startswith("Negative prompt")]


def test_template_stands_in_both_texts(words: WorkerContext) -> None:
    [(saved, _)] = make(words, prompt="a __thing__", negative_prompt="{fog|rain}", seed=4)
    text = Image.open(saved.path).text["parameters"]  # type: ignore[attr-defined]
    assert text.splitlines()[0] == saved.request.prompt
    assert text.splitlines()[-2:] == ["Template: a __thing__", "Negative Template: {fog|rain}"]


def test_wildcards_bring_loras(words: WorkerContext) -> None:
    images = make(words, prompt="a __maybe__", seed=0, num_images=6, batch_size=2)
    with_lora = [bool(saved.request.loras) for saved, _ in images]
    assert True in with_lora
    assert False in with_lora
    for number, (saved, pixels) in enumerate(images):
        if batch := saved.request.batch_size > 1:
            continue
        tags = "<lora:moon:1>" if saved.request.loras else ""
        [(_, plain)] = make(words, prompt=saved.request.prompt + tags, seed=number)
        assert np.array_equal(pixels, plain), batch


def test_what_comes_out_is_checked_before_the_run(words: WorkerContext) -> None:
    services = Services(words.home)
    request = GenerationRequest(prompt="a __bad__", **QUICK)
    with refused(InvalidSpec):
        services.prepare_generation(request, COMMAND_LINE)
    with pytest.raises(StudioError):
        make(words, prompt="a __bad__", seed=1)
    with refused(InvalidSpec, "Prompt"):
        services.prepare_generation(GenerationRequest(prompt="a __thin__"), COMMAND_LINE)


def test_an_open_seed_is_drawn_when_it_is_queued(words: WorkerContext) -> None:
    services = Services(words.home)
    job = services.prepare_generation(GenerationRequest(prompt="a __thing__"), COMMAND_LINE)
    assert job.spec["seed"] >= 0
    plain = services.prepare_generation(GenerationRequest(prompt="a boat"), COMMAND_LINE)
    assert plain.spec["seed"] == -1
