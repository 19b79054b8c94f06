"""The judge: a small network that names what an image of the embedded world shows.

Knows: its layers (one head per attribute), its files (model.safetensors in fp16, config.json with
"widths" and "heads").
Does not know: how it is trained (pocket/judge.py), what the attributes mean, captions, the
autoencoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

IMAGES_PER_FORWARD = 64


class DownBlock(nn.Module):
    """A convolution that halves height and width, then one residual step."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(in_channels, out_channels, 4, 2, 1)
        self.first = nn.GroupNorm(8, out_channels)
        self.second = nn.GroupNorm(8, out_channels)
        self.step = nn.Conv2d(out_channels, out_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, h/2, w/2)."""
        x = functional.silu(self.first(self.down(x)))
        return x + functional.silu(self.second(self.step(x)))


class Judge(nn.Module):
    """A classifier with several heads on one convolutional body.

    Args:
        widths: Channels after each block; every block halves height and width.
        head_labels: The labels of each head, by the head's name.
    """

    def __init__(self, widths: Sequence[int], head_labels: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.head_labels = {name: tuple(labels) for name, labels in head_labels.items()}
        in_channels = (3, *self.widths[:-1])
        self.body = nn.Sequential(*map(DownBlock, in_channels, self.widths))
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(2 * self.widths[-1], len(labels))
                for name, labels in self.head_labels.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head (n, labels) for images (n, 3, 128, 128) from -1 to 1."""
        features = self.body(x)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        return {name: head(pooled) for name, head in self.heads.items()}

    @torch.inference_mode()
    def predict_labels(self, images: Tensor) -> dict[str, list[str]]:
        """Return the most likely label of each head for each image.

        Args:
            images: Images (n, 3, 128, 128) from -1 to 1.

        Returns:
            Head name → n labels, in the order of the images.
        """
        predictions: dict[str, list[str]] = {name: [] for name in self.head_labels}
        for batch in images.split(IMAGES_PER_FORWARD):
            for name, logits in self(batch).items():
                labels = self.head_labels[name]
                predictions[name] += [labels[int(index)] for index in logits.argmax(1)]
        return predictions

    def save(self, folder: Path) -> None:
        """Write the weights (fp16) and the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.half().contiguous().cpu() for key, value in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {"widths": self.widths, "heads": self.head_labels}
        (folder / "config.json").write_text(json.dumps(config, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the trained judge of a folder in fp32, ready for inference."""
        config = json.loads((folder / "config.json").read_text("utf-8"))
        judge = cls(config["widths"], config["heads"])
        weights = load_file(folder / "model.safetensors")
        judge.load_state_dict({key: value.float() for key, value in weights.items()})
        return judge.eval()
