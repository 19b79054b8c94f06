"""The shipped Pocket presets from a fresh home: minutes of training, and what the judge sees in scenes that are no captions."""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from pathlib import Path
from statistics import median
from typing import Any

SCENES = 24  # at most; those that are captions are left out
# What a kind changes of the preset.
DEMO_KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "LoHa": {"network_type": "LoHa"},
    "LoKr": {"network_type": "LoKr"},
    "LoKr, factor 4": {"network_type": "LoKr", "lokr_factor": 4, "learning_rate": 2e-3},
}


def demos(flags: argparse.Namespace) -> None:
    """Print, for each preset, minutes and the judge's shares before and after, at weight 1 and guidance 6, in new scenes.

    With kinds it is the Moon with each of them, and its file and seconds a step too.
    """
    if not flags.kind:
        for name in ("moon-pocket", "plush-pocket"):
            _demo(flags, name, name, {})
        return
    for kind in flags.kind:
        _demo(flags, f"moon-pocket {kind}", "moon-pocket", DEMO_KINDS[kind])


def _demo(flags: argparse.Namespace, title: str, name: str, changes: dict[str, Any]) -> None:
    import torch

    from studio.core.base import validate
    from studio.core.training.config import TrainingConfig
    from studio.engine.context import WorkerContext
    from studio.engine.training.job import train
    from studio.settings import load, shipped

    with tempfile.TemporaryDirectory() as place:
        bench = WorkerContext.open(
            load(
                home=Path(place),
                device=flags.device,
                precision=flags.precision,
                keep_free=0,
                preview_every=0,
            )
        )
        said = tomllib.loads((shipped("presets") / "training" / f"{name}.toml").read_text("utf-8"))
        run, began = (
            bench.home.runs.add(validate(TrainingConfig, said | changes), "bench"),
            time.perf_counter(),
        )
        lora = train(bench, {"run": run}, lambda progress: None)["lora"]
        took = time.perf_counter() - began
        config = bench.home.runs.get(run)
        assert config
        speeds = [row["speed"] for row in bench.home.runs.read_log(run) if "speed" in row]
        pictures_a_step = config.config.train_batch_size * config.config.gradient_accumulation_steps
        size = (bench.settings.loras / f"{lora}.safetensors").stat().st_size
        print(
            f"{title}: {took / 60:.1f} min on {bench.pipelines.device.title} "
            f"({torch.get_num_threads()} threads), {pictures_a_step / median(speeds):.3f} s a step, "
            f"a file of {size / 1024:,.0f} KiB",
            flush=True,
        )
        for said_of, weight in (("before", 0.0), ("after", 1.0)):
            shares = _judged(bench, config.config, lora, weight)
            print(
                f"  {said_of:7s} "
                + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()),
                flush=True,
            )


def _judged(bench: Any, config: Any, lora: str, weight: float) -> dict[str, float]:
    import numpy as np
    import torch

    from studio.core.generation.lora_use import LoraUse
    from studio.core.generation.request import GenerationRequest
    from studio.core.training.evaluation import derive_concept_name
    from studio.engine.generation.batcher import Batcher
    from studio.engine.generation.trajectory import Trajectory
    from studio.engine.generation.trajectory_runner import decode_latents
    from studio.engine.models.prompt_encoding import encode_prompts
    from studio.pocket.captions import OPENINGS
    from studio.pocket.judge import Judge
    from studio.pocket.world import PLACE_NAMES, STYLE_NAMES
    from studio.settings import shipped

    captions = [
        item.caption for item in bench.home.training_sets.load_training_set(config.dataset).images
    ]
    name, concept = derive_concept_name(config, captions), config.trigger
    every = [
        (f"{OPENINGS[style][0]} a {name} {place}", place, style)
        for style in STYLE_NAMES
        for place in PLACE_NAMES
    ]
    new = [one for one in every if one[0] not in captions]
    asked = [new[k] for k in np.random.default_rng(3).permutation(len(new))[:SCENES]]
    use = (LoraUse(name=lora, unet=weight, text_encoder=weight),)
    requests = [
        GenerationRequest(prompt=text, seed=2000 + k, guidance=6, loras=use)
        for k, (text, _, _) in enumerate(asked)
    ]
    with bench.pipelines.borrow(requests[0]) as parts:
        each = [
            Trajectory(parts, one.resolve(parts.info.native_size, 0), encode_prompts(parts, one))
            for one in requests
        ]
        made = {one: latents for one, latents, _ in Batcher(parts, 8).denoise(each)}
        pixels = [np.asarray(decode_latents(parts, made[one], one.request.size)) for one in each]
    found = Judge.load(shipped("assets") / "pocket" / "judge").predict_labels(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    )
    wanted = {
        "concept": [concept] * len(asked),
        "place": [place for _, place, _ in asked],
        "style": [style for *_, style in asked],
        "colour": ["white"] * len(asked),
    }
    return {
        key: float(np.mean([a == b for a, b in zip(found[key], labels)]))
        for key, labels in wanted.items()
    }
