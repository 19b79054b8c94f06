"""Single-file checkpoints: the same pictures as stock pipelines of the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from support import ldm_files
from support.benches import open_bench

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPT = "a red boat by a lake, très joli"
ASKED = {"num_inference_steps": 2, "guidance_scale": 5.0, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def parts() -> Callable[[str], dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}

    def get(kind: str) -> dict[str, Any]:
        if kind not in made:
            made[kind] = ldm_files.make_toy_parts(kind)
        return made[kind]

    return get


@pytest.fixture(scope="module")
def studio(
    tmp_path_factory: pytest.TempPathFactory, parts: Callable[[str], dict[str, Any]]
) -> Iterator[WorkerContext]:
    """A home with a toy file of each family."""
    home = tmp_path_factory.mktemp("files") / "home"
    for kind in ldm_files.TOYS:
        tensors = ldm_files.collect_checkpoint(kind, parts(kind))
        ldm_files.write_checkpoint(home / "models" / "deep" / f"{kind}.safetensors", tensors)
    bench = open_bench(home)
    yield bench
    bench.home.close()


def paint(bench: WorkerContext, **spec: Any) -> np.ndarray:
    asked = {
        "prompt": PROMPT,
        "steps": 2,
        "guidance": 5,
        "width": 64,
        "height": 64,
        "seed": 3,
        "scheduler": "Euler",
        "noise_schedule": "As shipped",
    }
    images = generate(bench, asked | spec, lambda progress: None)["pictures"]
    return np.asarray(Image.open(images[0]["path"]))


def call(pipeline: Any, **given: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipeline(PROMPT, generator=generator, **(ASKED | given)).images[0])


@pytest.mark.parametrize("negative", ["", "fog"])
@pytest.mark.parametrize("kind", ldm_files.TOYS)
def test_a_file_paints_bitwise_what_the_stock_pipeline_does(
    studio: WorkerContext, parts: Callable[[str], dict[str, Any]], kind: str, negative: str
) -> None:
    pipeline = ldm_files.make_pipeline(kind, parts(kind))
    reference = call(pipeline, negative_prompt=negative or None)
    ours = paint(studio, model=f"deep/{kind}", negative_prompt=negative)
    assert np.array_equal(ours, reference)
    assert reference.std() > 5  # of something
