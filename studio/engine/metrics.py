"""Numbers about images: how well one fits its prompt, how far it is from another.

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

IMAGE_BATCH_SIZE = 16  # images in one forward pass


@dataclass
class Clip:
    """A CLIP model with the processor that prepares images and texts for it."""

    model: CLIPModel
    processor: Any
    device: torch.device
    model_key: str  # names its content and number format

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Encode images as unit vectors (n, width), float32."""
        features = []
        for start in range(0, len(images), IMAGE_BATCH_SIZE):
            batch = [image.convert("RGB") for image in images[start : start + IMAGE_BATCH_SIZE]]
            inputs = self.processor.image_processor(images=batch, return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
            features.append(self.model.get_image_features(pixel_values=pixels).pooler_output)
        return _normalize(torch.cat(features))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts as unit vectors (n, width), float32.

        Words beyond the model's longest input are cut off.
        """
        max_length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        output = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
        )
        return _normalize(output.pooler_output)

    def score_pairs(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Return the cosine between each image and its text, -1 to 1.

        CLIPScore without its factor (Hessel et al., arXiv:2104.08718).
        """
        cosines = (self.encode_images(images) * self.encode_texts(texts)).sum(-1)
        return [float(cosine) for cosine in cosines]

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before their softmax (the temperature it was trained with)."""
        return float(self.model.logit_scale.detach().exp())


def _normalize(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


@contextmanager
def borrow_clip(pipelines: PipelineManager, name: str = DEFAULT_CLIP) -> Iterator[Clip]:
    """Yield a CLIP model of the library.

    Args:
        pipelines: Lends it.
        name: The default is the bundled one, which knows the bundled model's small world and
            nothing else.

    Raises:
        ModelNotFound: There is none of that name.
        UnknownFamily: It is another kind of model.
        BadFile: Its folder is broken.
    """
    info = pipelines.transformers_models.get_clip_model(name)
    content_hash = pipelines.transformers_models.get_content_hash(info)
    model_key = f"clip {content_hash} {pipelines.device.dtype_name}"

    def load() -> Clip:
        model, processor = transformers_loader.load_model(
            CLIPModel, CLIPProcessor, info, pipelines.device
        )
        return Clip(model, processor, pipelines.device.torch_device, model_key)

    with pipelines.lend(model_key, load, 2 * info.size_bytes, f"CLIP {name}") as clip:
        yield clip


def compute_discriminant(vectors: np.ndarray, reference_vectors: np.ndarray) -> np.ndarray:
    """Return the direction in which pairs of vectors differ.

    Fisher's linear discriminant of the paired differences; their covariance is shrunk half-way to
    its mean variance, as there are fewer pairs than dimensions (Friedman, Regularized Discriminant
    Analysis, 1989).

    Args:
        vectors: (n, width).
        reference_vectors: (n, width); each is the pair of the vector in the same row.

    Returns:
        (width,), scaled so that the mean pair differs by 1 along it.
    """
    differences = (vectors - reference_vectors).astype(np.float64)
    mean = differences.mean(0)
    centered = differences - mean
    covariance = centered.T @ centered / len(differences)
    mean_variance = max(float(np.trace(covariance)) / len(mean), 1e-12)
    direction = np.linalg.solve(covariance + mean_variance * np.eye(len(mean)), mean)
    return direction / max(float(mean @ direction), 1e-12)


def compute_rms_difference(reference: Image.Image, candidate: Image.Image) -> float:
    """Return the root mean square difference of two images' pixels, in % of the full range.

    Args:
        reference: Sets the size of the comparison.
        candidate: Resized to it if needed.
    """
    if reference.size != candidate.size:
        candidate = candidate.resize(reference.size, Image.Resampling.LANCZOS)
    difference = _to_array(reference) - _to_array(candidate)
    return float(np.sqrt(np.mean(difference**2)) * 100)


def compute_sharpness(image: Image.Image) -> float:
    """Return the variance of the Laplacian of the brightness, 0 or more (of a range of 0 … 255).

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000).
    """
    grey = np.pad(np.asarray(image.convert("L"), dtype=np.float64), 1, mode="edge")
    middle = grey[1:-1, 1:-1]
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((neighbours - 4 * middle).var())


def compute_saturation(image: Image.Image) -> float:
    """Return the mean saturation of HSV, in %."""
    pixels = _to_array(image)
    highest, lowest = pixels.max(-1), pixels.min(-1)
    saturation = np.divide(highest - lowest, highest, out=np.zeros_like(highest), where=highest > 0)
    return float(saturation.mean() * 100)


def compute_clipping(image: Image.Image) -> float:
    """Return how many pixels are pure black or pure white, in %."""
    pixels = np.asarray(image.convert("RGB"))
    return float(((pixels == 0).all(-1) | (pixels == 255).all(-1)).mean() * 100)


def _to_array(image: Image.Image) -> np.ndarray:
    """Return RGB (height, width, 3) in 0 … 1, float64."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
