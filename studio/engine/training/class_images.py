"""Class images for prior preservation: the model's own images of the class prompt.

Knows: where they are stored, that missing ones are generated.
Does not know: how they are weighted in the loss.

DreamBooth: arXiv:2208.12242. Class images are generated once for a model, a prompt and a size, and
used again by later runs: home/class_pictures/<key>/0000.png …
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import Trajectory
from studio.engine.generation.trajectory_runner import decode_latents
from studio.engine.models.prompt_encoding import encode_prompts
from studio.errors import StudioError
from studio.storage import atomic
from studio.storage.datasets import training_set
from studio.storage.datasets.training_set import TrainingImage
from studio.storage.jobs import Progress
from studio.storage.models.library import ModelInfo

MAX_BATCH_SIZE = 4  # images that are generated in one U-Net call


def ensure_class_images(
    context: WorkerContext,
    config: TrainingConfig,
    info: ModelInfo,
    report: Callable[[Progress], None],
) -> list[TrainingImage]:
    """Return `config.num_class_images` class images; missing ones are generated.

    `config` is resolved. Raises StudioError for an unusable image, and what generation raises.
    """
    if not config.num_class_images:
        return []
    identity = (
        f"{context.home.library.get_content_hash(info)} {config.class_prompt} {info.native_size}"
    )
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = context.settings.home / "class_pictures" / key
    paths = [folder / f"{index:04d}.png" for index in range(config.num_class_images)]
    missing = [(index, path) for index, path in enumerate(paths) if not path.is_file()]
    if missing:
        _generate_missing(context, config, missing, report)
    images = {image.path: image for image in training_set.read_training_set(folder).images}
    broken = [path.name for path in paths if path not in images]
    if broken:
        raise StudioError(
            f"The class image {broken[0]} in {folder} cannot be used; "
            "delete it, and it is generated again."
        )
    return [replace(images[path], caption=config.class_prompt, repeats=1) for path in paths]


def _generate_missing(
    context: WorkerContext,
    config: TrainingConfig,
    missing: list[tuple[int, Path]],
    report: Callable[[Progress], None],
) -> None:
    """Generate the images with these indices, which are also their seeds: the same in all runs."""
    request = GenerationRequest(prompt=config.class_prompt, model=config.model, seed=0)
    num_generated = 0

    def report_progress() -> None:
        report(Progress(num_generated, len(missing), "Generating class images"))

    plan = context.pipelines.plan_memory(request)
    for note in plan.notes:
        report(Progress(0, len(missing), note))
    with context.pipelines.borrow(request, plan=plan) as model:
        conditioning = encode_prompts(model, request)
        resolved = request.resolve(model.info.native_size, 0)
        paths = {}
        for seed, path in missing:
            seeded_request = resolved.model_copy(update={"seed": seed})
            paths[Trajectory(model, seeded_request, conditioning)] = path
        batcher = Batcher(model, MAX_BATCH_SIZE)
        for trajectory, latents, _ in batcher.denoise(list(paths), report_progress):
            if isinstance(latents, StudioError):
                raise latents
            buffer = io.BytesIO()
            decode_latents(model, latents, resolved.size).save(buffer, "PNG")
            atomic.write(paths[trajectory], buffer.getvalue())
            num_generated += 1
