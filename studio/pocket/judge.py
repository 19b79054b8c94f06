"""Trains the judge, which names thing, colour, place, style and demo concept of an image.

Knows: its labels, its size, and how drawings are blurred, made noisy and shifted for it; it never
learns from generated images.
Does not know: its network and its file (engine/evaluation/judge.py), captions, the autoencoder.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from studio.engine.evaluation.judge import Judge as Judge
from studio.pocket.data import list_scenes, load_images, to_tensor
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import (
    COLOUR_NAMES,
    CONCEPT_NAMES,
    PLACE_NAMES,
    STYLE_NAMES,
    THING_NAMES,
    Scene,
)

HEAD_LABELS: dict[str, tuple[str, ...]] = {
    "thing": THING_NAMES,
    "colour": COLOUR_NAMES,
    "place": PLACE_NAMES,
    "style": STYLE_NAMES,
    "concept": CONCEPT_NAMES,
}
TRAINING_PLAN = TrainingPlan(
    steps=1_500, learning_rate=2e-3, ema_decay=0.995, weight_decay=0.02, seed=5
)
BATCH_SIZE = 48
WIDTHS = (24, 48, 96, 160)
MAX_SHIFT_PX = 4


def get_true_labels(scenes: Sequence[Scene]) -> dict[str, list[str]]:
    """Return the right label of each head for each scene."""
    return {name: [str(getattr(scene, name)) for scene in scenes] for name in HEAD_LABELS}


def score_accuracy(judge: Judge, images: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the share of right labels per head, 0 to 1.

    Args:
        images: Images (n, 3, 128, 128) from -1 to 1.
        scenes: What the n images show.
    """
    predictions = judge.predict_labels(images)
    targets = get_true_labels(scenes)
    scores = {}
    for name in HEAD_LABELS:
        hits = [a == b for a, b in zip(predictions[name], targets[name], strict=True)]
        scores[name] = float(np.mean(hits))
    return scores


def augment_images(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur a batch, add noise, take detail and colour away, each by chance; shift it.

    Args:
        images: Images (n, 3, 128, 128) from -1 to 1; all of them are changed alike.
    """
    # 1. Less detail
    if rng.random() < 0.5:
        small = functional.interpolate(images, size=int(rng.integers(44, 110)), mode="area")
        images = functional.interpolate(small, size=128, mode="bilinear", align_corners=False)
    # 2. Blurred or sharpened
    if rng.random() < 0.4:
        padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
        blurred = functional.avg_pool2d(padded, 3, 1)
        images = images + float(rng.uniform(-0.8, 1.0)) * (blurred - images)
    # 3. Noise, fine or coarse
    if rng.random() < 0.6:
        side = int(rng.choice([16, 32, 64, 128]))
        grain = torch.randn(len(images), 3, side, side, device=images.device)
        strength = float(rng.uniform(0, 0.16))
        images = images + strength * functional.interpolate(
            grain, size=128, mode="bilinear", align_corners=False
        )
    # 4. Contrast and tint
    gain = 1 + 0.07 * torch.randn(len(images), 3, 1, 1, device=images.device)
    images = images * gain + 0.04 * torch.randn(len(images), 3, 1, 1, device=images.device)
    # 5. A small shift
    dy, dx = (int(offset) for offset in rng.integers(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, 2))
    padded = functional.pad(images, (MAX_SHIFT_PX,) * 4, mode="replicate")
    top = MAX_SHIFT_PX + dy
    left = MAX_SHIFT_PX + dx
    return padded[..., top : top + 128, left : left + 128].clamp(-1, 1)


def train_judge(context: RunContext) -> bool:
    """Train the judge and write output/judge; return whether it is finished."""
    drawings = load_images("judge", context.cache_dir, context.num_workers)
    targets = {
        name: torch.tensor([HEAD_LABELS[name].index(label) for label in labels]).to(context.device)
        for name, labels in get_true_labels(list_scenes("judge")).items()
    }
    torch.manual_seed(5)
    judge = Judge(WIDTHS, HEAD_LABELS)
    judge.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        indices = np.sort(rng.integers(0, len(drawings), BATCH_SIZE))
        images = augment_images(to_tensor(drawings[indices], context.device), rng)
        logits = judge(images.contiguous(memory_format=torch.channels_last))
        losses = {
            name: functional.cross_entropy(
                logits[name], targets[name][indices], label_smoothing=0.02
            )
            for name in HEAD_LABELS
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    is_finished = train_modules("judge", {"judge": judge}, compute_loss, TRAINING_PLAN, context)
    judge.save(context.output_dir / "judge")
    return is_finished
