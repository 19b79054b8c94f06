"""Numbers about pictures: how well one fits its prompt, how far it is from another.

Knows: CLIP. Does not know: sweeps, training, datasets, who wants to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from studio.core.catalog import DEFAULT_CLIP
from studio.engine.models import transformers_loader
from studio.engine.models.manager import PipelineManager

TOGETHER = 16  # pictures in one forward


@dataclass
class Clip:
    """A CLIP model with what prepares pictures and words for it; `by` names it by its content and number format."""

    model: CLIPModel
    reader: Any
    device: torch.device
    by: str

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Pictures as unit vectors (n, width), float32."""
        parts = []
        for first in range(0, len(images), TOGETHER):
            some = [image.convert("RGB") for image in images[first : first + TOGETHER]]
            seen = self.reader.image_processor(images=some, return_tensors="pt")["pixel_values"]
            parts.append(
                self.model.get_image_features(
                    pixel_values=seen.to(self.device, self.model.dtype)
                ).pooler_output
            )
        return _unit(torch.cat(parts))

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as unit vectors (n, width), float32. Words beyond what the model can read are cut off."""
        longest = self.model.config.text_config.max_position_embeddings
        words = self.reader.tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        said = self.model.get_text_features(
            input_ids=words["input_ids"].to(self.device),
            attention_mask=words["attention_mask"].to(self.device),
        )
        return _unit(said.pooler_output)

    def fit(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Cosine between each picture and its text, -1 to 1 (CLIPScore without its factor; Hessel et al., arXiv:2104.08718)."""
        return [float(value) for value in (self.see(images) * self.read(texts)).sum(-1)]

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before they become shares (the temperature it was trained with)."""
        return float(self.model.logit_scale.detach().exp())


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


@contextmanager
def clip(pipelines: PipelineManager, name: str = DEFAULT_CLIP) -> Iterator[Clip]:
    """A CLIP model of the library. The embedded one knows the embedded model's small world and nothing else.

    Raises ModelNotFound, UnknownFamily and BadFile.
    """
    info = pipelines.networks.clip(name)
    by = f"clip {pipelines.networks.content(info)} {pipelines.device.dtype_name}"

    def load() -> Clip:
        model, reader = transformers_loader.load(CLIPModel, CLIPProcessor, info, pipelines.device)
        return Clip(model, reader, pipelines.device.torch, by)

    with pipelines.hold(by, load, 2 * info.bytes, f"CLIP {name}") as held:
        yield held


def discriminant(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The direction (width,) in which pairs of vectors (n, width) differ, scaled so that the mean pair differs by 1 along it.

    Fisher's linear discriminant of the paired differences; their covariance is shrunk half-way to its mean variance, as there are
    fewer pairs than dimensions (Friedman, Regularized Discriminant Analysis, 1989).
    """
    apart = (own - others).astype(np.float64)
    mean = apart.mean(0)
    spread = (apart - mean).T @ (apart - mean) / len(apart)
    floor = max(float(np.trace(spread)) / len(mean), 1e-12)
    way = np.linalg.solve(spread + floor * np.eye(len(mean)), mean)
    return way / max(float(mean @ way), 1e-12)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Root mean square difference of two pictures' pixels, in % of the whole range; the other is resized to the one's size."""
    if one.size != other.size:
        other = other.resize(one.size, Image.Resampling.LANCZOS)
    a, b = (np.asarray(image.convert("RGB"), dtype=np.float64) / 255 for image in (one, other))
    return float(np.sqrt(np.mean((a - b) ** 2)) * 100)
