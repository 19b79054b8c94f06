"""The work behind "Was it worth it?": a stored run → images at several weights, judged.

Knows: the order of things, what is measured on which images, where it is stored.
Does not know: the page; which prompts and weights are compared (core/training/evaluation.py), by
what rule one is recommended (core/training/verdict.py); how the judge's network works (judge.py),
what a LoRA card says (lora_card.py).

    runs/<id>/report.json     all numbers, the sentences, the sweep's id
    loras/moon.md, moon.png   the LoRA card of the recommended file, and its images
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.core.catalog import DEFAULT_CLIP, DEFAULT_MODEL
from studio.core.sweeps.spec import Cell, plan_sweep
from studio.core.training import evaluation as rules
from studio.core.training import verdict as verdict_rules
from studio.core.training.verdict import EvaluationPoint
from studio.engine import metrics
from studio.engine.context import WorkerContext
from studio.engine.evaluation.judge import Judge
from studio.engine.evaluation.lora_card import write_lora_card
from studio.engine.evaluation.scenes import PLACE_NAMES, STYLE_NAMES, STYLE_OPENINGS
from studio.engine.metrics import Clip
from studio.engine.progress import ProgressCallback
from studio.engine.sweeps.job import run_sweep
from studio.engine.training.job import export_checkpoint
from studio.engine.training.prepare import prepare_image
from studio.errors import StudioError, quote
from studio.imaging import decode
from studio.settings import shipped
from studio.storage import atomic
from studio.storage.jobs import Progress
from studio.storage.models.transformers_models import TransformersModelInfo
from studio.storage.training.runs import Run

JUDGE_IMAGE_SIDE_PX = 128
MIN_JUDGE_AGREEMENT = 0.5  # of the dataset's images that the judge calls by one name


def evaluate_training(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Compare a trained LoRA's checkpoints and weights with the base model and write a report.

    Images that the gallery has already are not generated again.

    Args:
        context: The worker's stores and models.
        spec: "run", the id of a stored run; "guest" if the owner's images must not be shared.
        report: Receives the progress; raises Cancelled to stop.

    Returns:
        What report.json holds, with "run" and "card" (the paths of the LoRA card and its image).

    Raises:
        StudioError: If the run is gone, has no checkpoint or no prompts, no CLIP model knows its
            world, or an image of the comparison could not be generated.
    """
    # 1. What is compared: prompts, LoRA files
    run = context.home.runs.get(str(spec.get("run")))
    if run is None:
        raise StudioError(f"The training run {quote(spec.get('run'))} no longer exists.")
    clip_name = _choose_clip(context, run)
    report(Progress(0, 0, "Reading the images"))
    dataset = context.home.training_sets.load_training_set(run.config.dataset)
    # As they were trained with: the trigger word is in all of them.
    captions = [prepare_image(run.config, image).caption for image in dataset.images]
    prompts = rules.build_scene_prompts(run.config, captions, _select_templates(run))
    if not prompts:
        raise StudioError(
            f"{run.config.name} has no trigger word, captions or sample prompts to evaluate it "
            "with."
        )
    lora_steps = _ensure_lora_files(context, run, report)

    # 2. Two sweeps: scenes by checkpoint and weight; the base model's images of the captions
    previous_report = context.home.runs.read_report(run.id)
    sweep_id = context.home.sweeps.save(
        rules.build_sweep(run.config, list(lora_steps), prompts),
        context.owner,
        str(previous_report.get("sweep") or ""),
    )
    reference_rows, reference_sweep = rules.select_references(run.config, captions)
    reference_id = context.home.sweeps.save(
        reference_sweep, context.owner, str(previous_report.get("references") or "")
    )
    for pending_id in (reference_id, sweep_id):
        sweep_spec = {"sweep": pending_id, "guest": spec.get("guest"), "report": run.id}
        run_sweep(context, sweep_spec, report)
    cells, paths = _collect_images(context, sweep_id)
    _, base_paths = _collect_images(context, reference_id)
    dataset_paths = [dataset.images[row].path for row in reference_rows]

    # 3. Judge the images
    report(Progress(len(cells), len(cells), "Judging the images"))
    cell_prompts = [cell.request.prompt for cell in cells]
    verdicts = _judge_images(run, paths, cell_prompts, dataset_paths)
    with metrics.borrow_clip(context.pipelines, clip_name) as clip:
        direction = _compute_concept_direction(clip, dataset_paths, base_paths)
        scores = _score_images(clip, cells, paths, prompts, direction)
    points, base_point = _compute_points(cells, scores, verdicts, lora_steps)
    evaluated = verdict_rules.Evaluated.from_config(
        run.config,
        rules.derive_concept_name(run.config, captions),
        num_scenes=len(prompts),
        num_images=len(captions),
    )
    verdict = verdict_rules.recommend(points, base_point, evaluated)

    # 4. Write the report and the card
    best_point = verdict.best or max(points, key=lambda point: point.concept)
    evaluation = {
        "sweep": sweep_id,
        "references": reference_id,
        "prompts": prompts,
        **verdict_rules.serialize_report(points, base_point, verdict),
        "pairs": _pair_images(cells, paths, best_point, prompts),
    }
    atomic.write(run.folder / "report.json", json.dumps(evaluation, ensure_ascii=False).encode())
    card_paths = write_lora_card(
        context.settings.loras, run, evaluation=evaluation, best_point=best_point
    )
    return {"run": run.id, **evaluation, "card": [str(path) for path in card_paths]}


def _choose_clip(context: WorkerContext, run: Run) -> str:
    """Return the CLIP that judges: the embedded one knows the embedded model's world alone."""
    if run.config.model == DEFAULT_MODEL:
        return DEFAULT_CLIP
    for info in context.pipelines.transformers_models.list_clip_models():
        if isinstance(info, TransformersModelInfo) and not info.bundled:
            return info.name
    raise StudioError(
        f"Evaluating a LoRA for {run.config.model} requires a CLIP model; the built-in one works "
        f"only for {DEFAULT_MODEL}. Put a folder such as openai/clip-vit-large-patch14 into "
        "home/models."
    )


def _select_templates(run: Run) -> tuple[str, ...]:
    """Return templates of scenes that the run's model knows: every place in turn, in each style."""
    if run.config.model != DEFAULT_MODEL:
        return rules.PROMPT_TEMPLATES
    templates = []
    for turn in range(len(STYLE_NAMES)):
        for k, place in enumerate(PLACE_NAMES):
            style = STYLE_NAMES[(k + turn) % len(STYLE_NAMES)]
            templates.append(f"{STYLE_OPENINGS[style]} a {{}} {place}")
    return tuple(templates)


def _ensure_lora_files(
    context: WorkerContext, run: Run, report: ProgressCallback
) -> dict[str, int]:
    """Write the LoRA files of the compared checkpoints where they are missing; name → step."""
    steps = [checkpoint.step for checkpoint in context.home.runs.list_checkpoints(run.id)]
    if not steps:
        raise StudioError(f"{run.config.name} has no checkpoint yet; train it first.")
    lora_steps: dict[str, int] = {}
    for step in rules.select_checkpoints(steps):
        exports = [result for result in run.result.values() if result.get("step") == step]
        name = str(exports[0]["lora"]) if exports else ""
        if not name or not (context.settings.loras / f"{name}.safetensors").is_file():
            name = str(export_checkpoint(context, {"run": run.id, "step": step}, report)["lora"])
        lora_steps[name] = step
    return lora_steps


def _collect_images(context: WorkerContext, sweep_id: str) -> tuple[list[Cell], list[Path]]:
    """Return all cells with their images' paths. Raise StudioError where one is missing.

    Half a comparison would mislead.
    """
    sweep = context.home.sweeps.get(sweep_id)
    results = context.home.sweeps.load_cell_results(sweep_id)
    cells = list(plan_sweep(sweep.spec).cells) if sweep else []
    paths = []
    for cell in cells:
        result = results.get(cell.key)
        if result is None or not result.path:
            reason = result.error if result else "it is missing"
            raise StudioError(f"An image of the comparison could not be generated: {reason}")
        paths.append(result.path)
    return cells, paths


@dataclass(frozen=True)
class _ImageScores:
    """CLIP's numbers for each of n images."""

    concept: np.ndarray  # (n,), float: 0 like the base model's, 1 like the dataset's
    following: np.ndarray  # (n,), bool: whether the image fits its own prompt best
    fit: np.ndarray  # (n,), float: cosine to its prompt


def _compute_concept_direction(
    clip: Clip, dataset_paths: Sequence[Path], base_paths: Sequence[Path]
) -> np.ndarray:
    """Return the direction from the base model's images to the dataset's of the same captions.

    Comparing images of the same words leaves over what only the training can bring.
    """
    embeddings = [
        clip.encode_images([decode.load_image(path).image for path in side])
        for side in (dataset_paths, base_paths)
    ]
    return metrics.compute_discriminant(*embeddings)


def _score_images(
    clip: Clip,
    cells: Sequence[Cell],
    paths: Sequence[Path],
    prompts: Sequence[str],
    direction: np.ndarray,
) -> _ImageScores:
    """Score each cell's image: how far it is along `direction`, and how well it fits its prompt."""
    # Weight 0 is one image in several cells: it is embedded once.
    images = {path: decode.load_image(path).image for path in paths}
    embedding_of = dict(zip(images, clip.encode_images(list(images.values()))))
    embeddings = np.stack([embedding_of[path] for path in paths])
    scenes = np.array([cell.coordinates[0] for cell in cells])
    base_of_scene = {
        scene: embedding
        for scene, embedding, is_base in zip(scenes, embeddings, _mask_base_cells(cells))
        if is_base
    }
    gains = [
        (embedding - base_of_scene[scene]) @ direction
        for scene, embedding in zip(scenes, embeddings)
    ]
    fits = embeddings @ clip.encode_texts(prompts).T
    return _ImageScores(
        concept=np.array(gains),
        following=fits.argmax(1) == scenes,
        fit=fits[np.arange(len(cells)), scenes],
    )


def _mask_base_cells(cells: Sequence[Cell]) -> np.ndarray:
    """Mark the cells (n,) whose LoRA weight is 0: the base model's."""
    return np.array([rules.LORA_WEIGHTS[cell.coordinates[3]] == 0 for cell in cells])


def _compute_points(
    cells: Sequence[Cell],
    scores: _ImageScores,
    verdicts: Sequence[Mapping[str, float]],
    lora_steps: Mapping[str, int],
) -> tuple[list[EvaluationPoint], EvaluationPoint]:
    """Average over the scenes: one point for each LoRA and weight, and the base model's."""

    def average(name: str, weight: float, mask: np.ndarray) -> EvaluationPoint:
        rows = [verdict for verdict, is_chosen in zip(verdicts, mask) if is_chosen]
        judged = {
            key: round(float(np.mean([row[key] for row in rows])), 4)
            for key in (verdicts[0] if verdicts else ())
        }
        is_halfway = scores.concept[mask] >= verdict_rules.HALFWAY_CONCEPT
        return EvaluationPoint(
            lora=name,
            step=lora_steps.get(name, 0),
            weight=weight,
            concept=round(float(scores.concept[mask].mean()), 4),
            # CLIP's direction also moves with blur and colour; the judge sees the thing itself.
            shown=judged.get("concept", round(float(is_halfway.mean()), 4)),
            following=round(float(scores.following[mask].mean()), 4),
            fit=round(float(scores.fit[mask].mean()), 4),
            judged=judged,
        )

    points = []
    for k, name in enumerate(lora_steps):
        for j, weight in enumerate(rules.LORA_WEIGHTS):
            if weight:
                mask = np.array([cell.coordinates[2:] == (k, j) for cell in cells])
                points.append(average(name, weight, mask))
    return points, average("", 0.0, _mask_base_cells(cells))


def _judge_images(
    run: Run, paths: Sequence[Path], prompts: Sequence[str], dataset_paths: Sequence[Path]
) -> list[dict[str, float]]:
    """Return for each image of the embedded model whether the judge sees what was asked for.

    That is the concept that was learned, and the place and style of the prompt: 1.0 or 0.0 each.
    """
    if run.config.model != DEFAULT_MODEL:
        return []
    judge = Judge.load(shipped("assets") / "pocket" / "judge")
    dataset_labels = judge.predict_labels(_load_pixels(dataset_paths))
    ((concept, count),) = Counter(dataset_labels["concept"]).most_common(1)
    if count < MIN_JUDGE_AGREEMENT * len(dataset_paths):  # it does not know what the dataset shows
        concept = ""
    labels = judge.predict_labels(_load_pixels(paths))
    verdicts = []
    for k, prompt in enumerate(prompts):
        opening = STYLE_OPENINGS[labels["style"][k]]
        verdict = {"concept": float(labels["concept"][k] == concept)} if concept else {}
        verdict["place"] = float(labels["place"][k] in prompt)
        verdict["style"] = float(prompt.startswith(opening))
        verdicts.append(verdict)
    return verdicts


def _load_pixels(paths: Sequence[Path]) -> torch.Tensor:
    """Return images as the judge reads them: (n, 3, 128, 128) from -1 to 1."""
    size = (JUDGE_IMAGE_SIDE_PX, JUDGE_IMAGE_SIDE_PX)
    images = [
        decode.load_image(path).image.resize(size, Image.Resampling.LANCZOS) for path in paths
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _pair_images(
    cells: Sequence[Cell],
    paths: Sequence[Path],
    best_point: EvaluationPoint,
    prompts: Sequence[str],
) -> list[dict[str, str]]:
    """Return for each scene the base model's image and the one with the LoRA."""

    def find_path(scene: int, weight: float) -> str:
        for cell, path in zip(cells, paths):
            if cell.coordinates[0] != scene:
                continue
            if rules.LORA_WEIGHTS[cell.coordinates[3]] != weight:
                continue
            if not weight or cell.labels[2] == best_point.lora:
                return str(path)
        raise LookupError(f"no cell of scene {scene} at weight {weight}")

    return [
        {
            "prompt": prompt,
            "before": find_path(scene, 0.0),
            "after": find_path(scene, best_point.weight),
        }
        for scene, prompt in enumerate(prompts)
    ]
