"""The judge: a small network that says what a picture shows; a head each for thing, colour, place, style and demo concept.

Knows: drawings, also blurred, noisy and compressed ones; it never learns from generated pictures. Does not know: captions, the autoencoder.
Its file is read by `Judge.load`; no other module knows its inside.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from studio.pocket.data import pictures, scenes, to_tensor
from studio.pocket.train_loop import Place, Plan, train
from studio.pocket.world import (
    COLOUR_NAMES,
    CONCEPT_NAMES,
    PLACE_NAMES,
    STYLE_NAMES,
    THING_NAMES,
    Scene,
)

HEADS: dict[str, tuple[str, ...]] = {
    "thing": THING_NAMES,
    "colour": COLOUR_NAMES,
    "place": PLACE_NAMES,
    "style": STYLE_NAMES,
    "concept": CONCEPT_NAMES,
}
PLAN = Plan(steps=1_500, rate=2e-3, average=0.995, decay=0.02, seed=5)
BATCH = 48
WIDTHS = (24, 48, 96, 160)


class Block(nn.Module):
    """Half the size, then one residual step."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inside, outside, 4, 2, 1)
        self.first, self.second = nn.GroupNorm(8, outside), nn.GroupNorm(8, outside)
        self.step = nn.Conv2d(outside, outside, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inside, h, w) to (n, outside, h/2, w/2)."""
        x = functional.silu(self.first(self.down(x)))
        return x + functional.silu(self.second(self.step(x)))


class Judge(nn.Module):
    """Pictures (n, 3, 128, 128) from -1 to 1 in; logits of every head out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(Block(a, b) for a, b in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True))
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * WIDTHS[-1], len(labels)) for name, labels in HEADS.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The logits of each head."""
        seen = self.body(x)
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
        return {name: head(pooled) for name, head in self.heads.items()}

    @torch.inference_mode()
    def verdicts(self, images: Tensor) -> dict[str, list[str]]:
        """The most likely label of each head for each picture."""
        heads = [self(part) for part in images.split(64)]
        return {
            name: [labels[int(k)] for head in heads for k in head[name].argmax(1)]
            for name, labels in HEADS.items()
        }

    def save(self, folder: Path) -> None:
        """Write weights (fp16) and labels."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.half().contiguous().cpu() for key, value in self.state_dict().items()},
            folder / "model.safetensors",
        )
        (folder / "config.json").write_text(
            json.dumps({"widths": WIDTHS, "heads": HEADS}, indent=1)
        )

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """The finished judge, in fp32."""
        judge = cls()
        judge.load_state_dict(
            {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        )
        return judge.eval()


def truth(told: Sequence[Scene]) -> dict[str, list[str]]:
    """The right label of each head for each scene."""
    return {name: [str(getattr(scene, name)) for scene in told] for name in HEADS}


def right(judge: Judge, images: Tensor, told: Sequence[Scene]) -> dict[str, float]:
    """The share of right verdicts per head."""
    said, meant = judge.verdicts(images), truth(told)
    return {
        name: float(np.mean([a == b for a, b in zip(said[name], meant[name], strict=True)]))
        for name in HEADS
    }


def wear(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise of several sizes, loss of detail and of colour: each by chance, for the whole batch; then a small shift."""
    if rng.random() < 0.5:
        small = functional.interpolate(images, size=int(rng.integers(44, 110)), mode="area")
        images = functional.interpolate(small, size=128, mode="bilinear", align_corners=False)
    if rng.random() < 0.4:
        blurred = functional.avg_pool2d(
            functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1
        )
        images = images + float(rng.uniform(-0.8, 1.0)) * (blurred - images)
    if rng.random() < 0.6:
        grain = torch.randn(
            len(images), 3, *(2 * [int(rng.choice([16, 32, 64, 128]))]), device=images.device
        )
        images = images + float(rng.uniform(0, 0.16)) * functional.interpolate(
            grain, size=128, mode="bilinear", align_corners=False
        )
    gain = 1 + 0.07 * torch.randn(len(images), 3, 1, 1, device=images.device)
    images = images * gain + 0.04 * torch.randn(len(images), 3, 1, 1, device=images.device)
    shift = [int(k) for k in rng.integers(-4, 5, 2)]
    return functional.pad(images, (4, 4, 4, 4), mode="replicate")[
        ..., 4 + shift[0] : 132 + shift[0], 4 + shift[1] : 132 + shift[1]
    ].clamp(-1, 1)


def make(place: Place) -> bool:
    """Train the judge and write output/judge; True when it is finished."""
    drawn, told = pictures("judge", place.cache, place.workers), scenes("judge")
    answers = {
        name: torch.tensor([HEADS[name].index(label) for label in labels], device=place.device)
        for name, labels in truth(told).items()
    }
    torch.manual_seed(5)
    judge = Judge().to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = np.sort(rng.integers(0, len(drawn), BATCH))
        images = wear(to_tensor(drawn[chosen], place.device), rng).contiguous(
            memory_format=torch.channels_last
        )
        heads = judge(images)
        parts = {
            name: functional.cross_entropy(heads[name], answers[name][chosen], label_smoothing=0.02)
            for name in HEADS
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    done = train("judge", {"judge": judge}, loss, PLAN, place)
    judge.save(place.output / "judge")
    return done
