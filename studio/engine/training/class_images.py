"""Class pictures for prior preservation: what the model itself makes of the class word, so that it does not forget it.

Knows: where they are kept, that they are painted when missing. Does not know: how they are weighed in the loss.

DreamBooth: arXiv:2208.12242. They are painted once for a model, a prompt and a size, and taken again by later runs:
home/class_pictures/<key>/0000.png …
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.engine.context import Bench
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import decode
from studio.engine.generation.trajectory import Trajectory
from studio.engine.models.prompt_encoding import condition
from studio.errors import StudioError
from studio.storage import atomic
from studio.storage.datasets import training_set
from studio.storage.datasets.training_set import Item
from studio.storage.jobs import Progress
from studio.storage.models.library import ModelInfo

TOGETHER = 4  # painted in one U-Net call


def pictures(
    bench: Bench, config: TrainingConfig, info: ModelInfo, report: Callable[[Progress], None]
) -> list[Item]:
    """So many class pictures as are asked for. `config` is resolved. Raises what painting raises."""
    if not config.class_pictures:
        return []
    made = f"{bench.library.content(info)} {config.class_prompt} {info.side}"
    folder = bench.settings.home / "class_pictures" / hashlib.sha256(made.encode()).hexdigest()[:16]
    paths = [folder / f"{number:04d}.png" for number in range(config.class_pictures)]
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if missing:
        _paint(bench, config, missing, report)
    found = {item.path: item for item in training_set.read(folder).items}
    broken = [path.name for path in paths if path not in found]
    if broken:
        raise StudioError(
            f"The class picture {broken[0]} in {folder} cannot be used; delete it, and it is painted again."
        )
    return [replace(found[path], caption=config.class_prompt, repeats=1) for path in paths]


def _paint(
    bench: Bench,
    config: TrainingConfig,
    missing: list[tuple[int, Path]],
    report: Callable[[Progress], None],
) -> None:
    request, done = GenerationRequest(prompt=config.class_prompt, model=config.model, seed=0), 0

    def say() -> None:
        report(Progress(done, len(missing), "Painting class pictures"))

    with bench.pipelines.borrow(request) as parts:
        told = condition(parts, request)
        one = request.resolved(parts.info.side, 0)
        each = [
            Trajectory(parts, one.model_copy(update={"seed": number}), told)
            for number, _ in missing
        ]  # the same for all runs
        where = dict(zip(each, (path for _, path in missing)))
        for trajectory, latents, _ in Batcher(parts, TOGETHER).paint(each, say):
            if isinstance(latents, StudioError):
                raise latents
            out = io.BytesIO()
            decode(parts, latents).save(out, "PNG")
            atomic.write(where[trajectory], out.getvalue())
            done += 1
