"""Captions of a folder against a loop of `model.generate` on one picture at a time, both warm, in turns.

The other side reads a picture, lets the stock processor prepare it, calls `generate` and writes a caption file, picture by picture,
as a script does. Ours is the whole work as the page asks for it: dataset read, several pictures a call, journal, captions written.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def captioning(flags: argparse.Namespace) -> None:
    """Print seconds a picture of both and their ratio; --captions in each turn, --runs turns, --batch pictures a call."""
    from PIL import Image

    from studio.engine.captioning.job import caption_dataset
    from studio.engine.context import WorkerContext
    from studio.pocket.world import render_scene, sample_scene
    from studio.settings import load

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
        ours, theirs = Path(place) / "datasets" / "ours", Path(place) / "theirs"
        for folder in (ours, theirs):
            folder.mkdir(parents=True)
            for k in range(flags.captions):
                Image.fromarray(render_scene(sample_scene(95_000_000 + k))).save(
                    folder / f"{k:04}.png"
                )
        spec = {"dataset": "ours", "mode": "replace", "anew": True, "batch": flags.batch}
        loop = _loop(bench, theirs)
        ways: dict[str, Callable[[], Any]] = {
            "one at a time": loop,
            "ours": lambda: caption_dataset(bench, spec, lambda told: None),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        busy = dict.fromkeys(
            ways, 0.0
        )  # of this process: tells more than the clock where others share the cores
        for turn in range(flags.runs + 1):  # the first one warms
            for name, way in ways.items():
                began, worked = time.perf_counter(), time.process_time()
                way()
                if turn:
                    times[name].append((time.perf_counter() - began) / flags.captions)
                    busy[name] += time.process_time() - worked
        same = sum(
            (ours / path.name).read_text().strip() == path.read_text()
            for path in theirs.glob("*.txt")
        )
        print(
            f"captioning: pocket, {flags.captions} pictures, {flags.batch or 'the usual number'} a call, "
            f"{bench.pipelines.device.title}, {flags.precision}, {flags.runs} turns; {same} captions are the same"
        )
        middle = {name: statistics.median(taken) for name, taken in times.items()}
        for name, taken in times.items():
            print(
                f"  {name:13s} {middle[name] * 1000:7.1f} ms a picture ({min(taken) * 1000:.1f} … {max(taken) * 1000:.1f})"
            )
        ratios = [one / other for one, other in zip(times["one at a time"], times["ours"])]
        print(
            f"  ratio {middle['one at a time'] / middle['ours']:.2f} ({min(ratios):.2f} … {max(ratios):.2f}, goal ≥ 1.5); "
            f"in processor time {busy['one at a time'] / busy['ours']:.2f}"
        )


def _loop(bench: Any, folder: Path) -> Callable[[], None]:
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from studio.settings import shipped

    place, device = shipped("assets") / "pocket" / "captioner", bench.pipelines.device
    model = (
        AutoModelForImageTextToText.from_pretrained(place, dtype=device.dtype)
        .eval()
        .to(device.torch_device)
    )
    reader = AutoProcessor.from_pretrained(place)

    @torch.inference_mode()
    def loop() -> None:
        for path in sorted(folder.glob("*.png")):
            seen = reader(
                images=Image.open(path).convert("RGB"), return_tensors="pt"
            ).pixel_values.to(device.torch_device, device.dtype)
            ids = model.generate(pixel_values=seen, max_new_tokens=50)
            path.with_suffix(".txt").write_text(
                reader.batch_decode(ids, skip_special_tokens=True)[0]
            )

    return loop
