"""The work behind "Was it worth it?": a stored run → pictures of it at several checkpoints and weights, judged; a LoRA card.

Knows: the order of things, what is measured on which pictures, where it is kept. Does not know: the page; which prompts, which
weights, and by what rule one is recommended (core/training/evaluation.py).

    runs/<id>/report.json     all numbers, the sentences, the sweep's id (its sheet and viewer are the sweep's)
    loras/moon.md, moon.png   the LoRA card of the recommended file, and its pictures
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.core.catalog import DEFAULT_CLIP, DEFAULT_MODEL
from studio.core.sweeps.spec import Cell, plan
from studio.core.training import evaluation as spec_of
from studio.core.training.evaluation import Point
from studio.engine import metrics
from studio.engine.context import Bench
from studio.engine.generation.job import Report
from studio.engine.metrics import Clip
from studio.engine.sweeps.job import run_sweep
from studio.engine.training.job import export_checkpoint
from studio.errors import StudioError
from studio.imaging import decode
from studio.pocket.captions import OPENINGS
from studio.pocket.judge import Judge
from studio.pocket.world import PLACE_NAMES, STYLE_NAMES
from studio.settings import shipped
from studio.storage import atomic
from studio.storage.jobs import Progress
from studio.storage.models.transformers_models import NetworkInfo
from studio.storage.training.runs import Run

SIDE = 192  # of the card's pictures, pixels


def report(bench: Bench, spec: Mapping[str, Any], say: Report) -> dict[str, Any]:
    """Judge a stored run; `spec` has its id as "run". Returns what report.json holds. Pictures that are there stay."""
    run = bench.runs.get(str(spec.get("run")))
    if run is None:
        raise StudioError(f"There is no training run {spec.get('run')!r:.40} here any more.")
    eyes = _clip(bench, run)
    say(Progress(0, 0, "Reading the pictures"))
    data = bench.datasets.open(run.config.dataset)
    captions = [item.caption for item in data.items]
    prompts = spec_of.scenes(run.config, captions, _templates(run))
    if not prompts:
        raise StudioError(
            f"{run.config.name} has neither a trigger word nor captions nor sample prompts to ask it with."
        )
    loras = _loras(bench, run, say)
    asked = spec_of.sweep(run.config, list(loras), prompts)
    before = bench.runs.report(run.id)
    id = bench.sweeps.add(asked, bench.owner, str(before.get("sweep") or ""))
    chosen, plain = spec_of.references(run.config, captions)
    own = [data.items[k].path for k in chosen]
    others = bench.sweeps.add(plain, bench.owner, str(before.get("references") or ""))
    for sweep in (others, id):
        run_sweep(bench, {"sweep": sweep, "guest": spec.get("guest")}, say)
    (cells, pictures), (_, bases) = _pictures(bench, id), _pictures(bench, others)
    say(Progress(len(cells), len(cells), "Judging the pictures"))
    with metrics.clip(bench.pipelines, eyes) as clip:
        points, base = _points(
            clip, cells, pictures, loras, prompts, (own, bases), _judged(run, pictures, own)
        )
    verdict = spec_of.weigh(points, base)
    found = {
        "sweep": id,
        "references": others,
        "prompts": prompts,
        **spec_of.told(points, base, verdict),
    }
    shown = verdict.best or max(points, key=lambda one: one.concept)
    found["pairs"] = _pairs(cells, pictures, shown, prompts)
    atomic.write(run.folder / "report.json", json.dumps(found, ensure_ascii=False).encode())
    card = _card(bench, run, found, shown)
    return {"run": run.id, **found, "card": [str(path) for path in card]}


def _clip(bench: Bench, run: Run) -> str:
    """Whose eyes judge: the embedded CLIP knows the embedded model's world, the home's own know the real one."""
    if run.config.model == DEFAULT_MODEL:
        return DEFAULT_CLIP
    own = [
        one.name
        for one in bench.pipelines.networks.clips()
        if isinstance(one, NetworkInfo) and not one.embedded
    ]
    if not own:
        raise StudioError(
            f"The report needs a CLIP model that knows the world of {run.config.model}; the embedded one knows only "
            f"that of {DEFAULT_MODEL}. Put a folder such as openai/clip-vit-large-patch14 into home/models."
        )
    return own[0]


def _templates(run: Run) -> tuple[str, ...]:
    """Scenes of the world that the model knows: the embedded one's is small."""
    if run.config.model != DEFAULT_MODEL:
        return spec_of.TEMPLATES
    styles = [
        STYLE_NAMES[(k + turn) % len(STYLE_NAMES)]
        for turn in range(len(STYLE_NAMES))
        for k in range(len(PLACE_NAMES))
    ]
    return tuple(
        f"{OPENINGS[style][0]} a {{}} {PLACE_NAMES[k % len(PLACE_NAMES)]}"
        for k, style in enumerate(styles)
    )


def _loras(bench: Bench, run: Run, say: Report) -> dict[str, int]:
    """The LoRA files of the checkpoints that are compared: name → step. Those that are not written yet are."""
    steps = [one.step for one in bench.runs.checkpoints(run.id)]
    if not steps:
        raise StudioError(f"{run.config.name} has no checkpoint yet; train it first.")
    found: dict[str, int] = {}
    for step in spec_of.spread(steps):
        kept = next(
            (str(one["lora"]) for one in run.result.values() if one.get("step") == step), ""
        )
        if not kept or not (bench.settings.loras / f"{kept}.safetensors").is_file():
            kept = str(export_checkpoint(bench, {"run": run.id, "step": step}, say)["lora"])
        found[kept] = step
    return found


def _pictures(bench: Bench, id: str) -> tuple[list[Cell], list[Path]]:
    """All cells with their pictures. Raises StudioError where one could not be made: half a comparison misleads."""
    sweep, kept = bench.sweeps.get(id), bench.sweeps.cells(id)
    cells = list(plan(sweep.spec).cells) if sweep else []
    paths = []
    for cell in cells:
        one = kept.get(cell.key)
        if one is None or not one.path:
            raise StudioError(
                f"A picture of the comparison could not be made: {one.error if one else 'it is not there'}"
            )
        paths.append(one.path)
    return cells, paths


def _points(
    clip: Clip,
    cells: Sequence[Cell],
    paths: Sequence[Path],
    loras: Mapping[str, int],
    prompts: Sequence[str],
    pairs: tuple[Sequence[Path], Sequence[Path]],
    judged: Sequence[Mapping[str, float]],
) -> tuple[list[Point], Point]:
    """One point for each LoRA and weight, and the base model's. `pairs` are the dataset's pictures and the base model's of their
    captions: comparing pictures of the same words leaves over what only the training can bring."""
    names, weights = list(loras), spec_of.WEIGHTS
    way = metrics.discriminant(
        *(clip.see([decode.load(path).image for path in side]) for side in pairs)
    )
    once = {
        path: decode.load(path).image for path in paths
    }  # weight 0 is one picture in several cells
    seen = dict(zip(once, clip.see(list(once.values()))))
    plain = np.array([weights[cell.coordinates[3]] == 0 for cell in cells])
    start = {
        cell.coordinates[0]: seen[path] for cell, path, alone in zip(cells, paths, plain) if alone
    }
    gains = np.array(
        [(seen[path] - start[cell.coordinates[0]]) @ way for cell, path in zip(cells, paths)]
    )
    fits = np.stack([seen[path] for path in paths]) @ clip.read(prompts).T
    scene = np.array([cell.coordinates[0] for cell in cells])
    follows, fit = fits.argmax(1) == scene, fits[np.arange(len(cells)), scene]

    def point(name: str, weight: float, which: np.ndarray) -> Point:
        shares = {
            key: float(np.mean([judged[k][key] for k in which.nonzero()[0]]))  # type: ignore[call-overload]
            for key in (judged[0] if judged else {})
        }
        concept, following, fitting = (
            round(float(numbers[which].mean()), 4) for numbers in (gains, follows, fit)
        )
        return Point(
            name,
            loras.get(name, 0),
            weight,
            concept,
            following,
            fitting,
            {key: round(share, 4) for key, share in shares.items()},
        )

    points = [
        point(name, weight, np.array([cell.coordinates[2:] == (k, j) for cell in cells]))
        for k, name in enumerate(names)
        for j, weight in enumerate(weights)
        if weight
    ]
    return points, point("", 0.0, plain)


def _judged(run: Run, paths: Sequence[Path], own: Sequence[Path]) -> list[dict[str, float]]:
    """For the embedded model: whether its judge sees what was learned, the place and the style that were asked for."""
    if run.config.model != DEFAULT_MODEL:
        return []
    judge = Judge.load(shipped("assets") / "pocket" / "judge")
    concept = Counter(judge.verdicts(_tensor(own))["concept"]).most_common(1)[0][0]
    asked = [decode.load(path).text.get("parameters", "").partition("\n")[0] for path in paths]
    found = judge.verdicts(_tensor(paths))
    rows = [
        {
            "concept": float(a == concept),
            "place": float(b in text),
            "style": float(text.startswith(OPENINGS[c][0])),
        }
        for a, b, c, text in zip(found["concept"], found["place"], found["style"], asked)
    ]
    return rows if concept else [{key: row[key] for key in ("place", "style")} for row in rows]


def _tensor(paths: Sequence[Path]) -> torch.Tensor:
    pixels = [
        np.asarray(decode.load(path).image.resize((128, 128), Image.Resampling.LANCZOS))
        for path in paths
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _pairs(
    cells: Sequence[Cell], paths: Sequence[Path], best: Point, prompts: Sequence[str]
) -> list[dict[str, str]]:
    """For each scene the base model's picture and the one with the LoRA."""

    def of(scene: int, weight: float) -> str:
        return next(
            str(path)
            for cell, path in zip(cells, paths)
            if cell.coordinates[0] == scene
            and spec_of.WEIGHTS[cell.coordinates[3]] == weight
            and (not weight or cell.labels[2] == best.lora)
        )

    return [
        {"prompt": prompt, "before": of(k, 0.0), "after": of(k, best.weight)}
        for k, prompt in enumerate(prompts)
    ]


def _card(bench: Bench, run: Run, found: Mapping[str, Any], shown: Point) -> list[Path]:
    """The LoRA card beside the file that is recommended (else beside the one that shows most)."""
    pairs, config = found["pairs"], run.config
    strip = Image.new("RGB", (SIDE * len(pairs), SIDE * 2), "white")
    for k, pair in enumerate(pairs):
        for row, which in enumerate(("before", "after")):
            strip.paste(
                decode.load(Path(pair[which])).image.resize((SIDE, SIDE), Image.Resampling.LANCZOS),
                (k * SIDE, row * SIDE),
            )
    picture, card = (bench.settings.loras / f"{shown.lora}.{ending}" for ending in ("png", "md"))
    with atomic.writing(picture) as out:
        strip.save(out, "PNG")
    prompts = "\n".join(f"{k}. {prompt}" for k, prompt in enumerate(found["prompts"], 1))
    prompt = f"{found['prompts'][0]} <lora:{shown.lora}:{shown.weight:g}>"
    rows = "\n".join(
        f"| {one['step']:,} | {one['weight']:g} | {one['concept']:.0%} | {one['following']:.0%} |"
        for one in (found["base"], *found["points"])
    )
    text = f"""# {shown.lora}

{" ".join(found["sentences"])}

- Made for: {config.model} ({run.about.get("family", "")})
- Trigger word: {config.trigger or "none"}; prompt: `{prompt}`
- Learned from: {config.dataset}, {run.about.get("showings", "?")} pictures, {shown.step:,} steps
- Rank {config.rank}, seed {config.seed}, made on {run.date}

![Above without, below with the LoRA]({picture.name})

Above without, below with the LoRA at weight {shown.weight:g}, each pair with the same seed:

{prompts}

| step | weight | concept (0 base, 100 % the dataset) | pictures that follow their prompt |
|---|---|---|---|
{rows}
"""
    atomic.write(card, text.encode())
    return [card, picture]
