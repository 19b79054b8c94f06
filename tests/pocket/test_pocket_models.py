"""The embedded models that are shipped: loaded by the stock classes, and as good as their card says, on a few of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from studio.engine.evaluation.judge import Judge
from studio.engine.evaluation.scenes import PLACE_NAMES, STYLE_NAMES, STYLE_OPENINGS
from studio.pocket.captions import OPENINGS, format_full_caption, parse_caption
from studio.pocket.data import to_tensor
from studio.pocket.datasets import CONCEPT_SETS
from studio.pocket.evaluate import (
    ATTRIBUTES,
    generate_images,
    load_pipeline,
    make_unseen_prompts,
    score_prompt_fidelity,
)
from studio.pocket.judge import HEAD_LABELS, score_accuracy
from studio.pocket.places import PLACE_BUILDERS
from studio.pocket.styles import STYLE_RENDERERS
from studio.pocket.train_loop import RunContext
from studio.pocket.world import Scene, render_scene, sample_held_out, sample_scene
from studio.settings import shipped

POCKET = shipped("assets") / "pocket"
SETS = shipped("assets") / "datasets"
PLACE = RunContext("cpu", Path("unused"), POCKET, 0.0)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[Scene]]:
    """Drawings of combinations that only the judge knows, with seeds that nothing was trained on."""
    chosen = sorted(sample_held_out())
    scenes = [sample_scene(95_000_000 + k, chosen[(37 * k) % len(chosen)]) for k in range(48)]
    return np.stack([render_scene(scene) for scene in scenes]), scenes


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(POCKET / "judge")


def test_small_safe_and_half() -> None:
    files = [file for file in POCKET.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 60_000_000
    assert (POCKET / "judge" / "model.safetensors").stat().st_size <= 3_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt", ".md", ".png"}
    for file in POCKET.rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, file


@pytest.mark.slow
def test_the_judge_knows_drawings_and_not_noise(
    judge: Judge, drawn: tuple[np.ndarray, list[Scene]]
) -> None:
    pictures, scenes = drawn
    assert min(score_accuracy(judge, to_tensor(pictures), scenes).values()) >= 0.97
    noise = torch.rand(len(scenes), 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = score_accuracy(judge, noise, scenes)
    assert all(found[name] < 0.5 for name in ATTRIBUTES)


@pytest.mark.slow
def test_the_autoencoder_keeps_what_matters(
    judge: Judge, drawn: tuple[np.ndarray, list[Scene]]
) -> None:
    pictures, scenes = drawn
    vae, images = load_pipeline(PLACE).vae, to_tensor(pictures)
    with torch.inference_mode():
        latents = vae.encode(images).latent_dist.mode()
        back = vae.decode(latents).sample.clamp(-1, 1)
    assert (
        min(score_accuracy(judge, back, scenes).values()) >= 0.93
    )  # 45 of 48; `evaluate` asks 97 % of a larger set
    assert abs(float((latents * vae.config.scaling_factor).std()) - 1) < 0.1


@pytest.mark.parametrize("count", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_unseen_prompts_are_followed_and_a_constant_picture_is_not(
    judge: Judge, count: int
) -> None:
    asked = make_unseen_prompts(count)
    wanted = [wish for wish, _ in asked]
    pictures = generate_images(
        load_pipeline(PLACE), [prompt for _, prompt in asked], 5.0, batch_size=count
    )
    followed = score_prompt_fidelity(judge, pictures, wanted)
    assert min(followed[name] for name in ATTRIBUTES) >= 0.8, followed
    constant = score_prompt_fidelity(judge, np.repeat(pictures[:1], count, 0), wanted)
    assert max(constant[name] for name in ("thing", "colour", "place")) < 0.6
    assert constant["all four"] <= 1 / count


def test_the_captioner_names_what_it_sees(drawn: tuple[np.ndarray, list[Scene]]) -> None:
    pictures, scenes = drawn
    model = AutoModelForImageTextToText.from_pretrained(
        POCKET / "captioner", dtype=torch.float32
    ).eval()
    reader = AutoProcessor.from_pretrained(POCKET / "captioner")
    inputs = reader(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
    texts = reader.batch_decode(
        model.generate(**inputs, max_new_tokens=40), skip_special_tokens=True
    )
    hits = np.array(
        [
            [a == b for a, b in zip(parse_caption(text), scene.combination, strict=True)]
            for text, scene in zip(texts, scenes, strict=True)
        ]
    )
    assert hits.mean(0).min() >= 0.8, dict(zip(ATTRIBUTES, hits.mean(0)))


def test_clip_finds_the_picture_of_a_caption(drawn: tuple[np.ndarray, list[Scene]]) -> None:
    pictures, scenes = drawn
    model = CLIPModel.from_pretrained(POCKET / "clip", dtype=torch.float32).eval()
    reader = CLIPProcessor.from_pretrained(POCKET / "clip")
    inputs: Any = reader(
        text=[format_full_caption(scene) for scene in scenes],
        images=[Image.fromarray(picture) for picture in pictures],
        return_tensors="pt",
        padding=True,
        truncation=True,
    )
    with torch.inference_mode():
        likeness = model(**inputs).logits_per_text
    best = likeness.argmax(1).tolist()
    assert (
        np.mean([scenes[k].combination == scene.combination for k, scene in zip(best, scenes)])
        >= 0.9
    )


def test_the_demo_sets_are_what_their_names_say(judge: Judge) -> None:
    assert HEAD_LABELS["concept"]
    for concept, (count, _) in CONCEPT_SETS.items():
        files = sorted((SETS / concept).glob("*.png"))
        assert len(files) == count
        assert "Licence" in (SETS / concept / "README.md").read_text()
        said = judge.predict_labels(
            to_tensor(np.stack([np.asarray(Image.open(file)) for file in files]))
        )
        assert np.mean([found == concept for found in said["concept"]]) >= 0.95
        for file in files:
            words = file.with_suffix(".txt").read_text()
            assert ("mysks plush toy" if concept == "mysks" else "moon") in words


def test_the_card_has_the_scores_that_were_measured() -> None:
    scores, card = (
        json.loads((POCKET / "scores.json").read_text()),
        (POCKET / "README.md").read_text(),
    )
    for group, values in scores.items():
        for name, value in values.items():
            assert f"| {group} | {name} | {value:.3f} |" in card


def test_scene_words_of_the_report_are_the_judges_and_the_worlds() -> None:
    config = json.loads((POCKET / "judge" / "config.json").read_text())
    heads = {name: tuple(labels) for name, labels in config["heads"].items()}
    assert heads == HEAD_LABELS
    assert heads["place"] == PLACE_NAMES
    assert heads["style"] == STYLE_NAMES
    assert set(PLACE_BUILDERS) == set(PLACE_NAMES)
    assert set(STYLE_RENDERERS) == set(STYLE_NAMES)
    assert {style: forms[0] for style, forms in OPENINGS.items()} == STYLE_OPENINGS
