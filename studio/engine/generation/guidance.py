"""Guidance: from the predictions for both prompts to the one that a step follows.

Knows: classifier-free guidance (arXiv:2207.12598), its forms and its rescaling (arXiv:2305.08891).
Does not know: networks, schedulers.

One number means the same for every family: 1, and all below it, is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from studio.core.families.family import GuidanceKind
from studio.core.generation.request import ResolvedRequest
from studio.engine.models.loaded_model import LoadedModel


class Guidance(Protocol):
    """How many branches a prediction has, and what is made of them."""

    @property
    def branches(self) -> int:
        """Rows of the denoiser for one prediction: the prompt's, and the negative prompt's."""

    def combine(self, predictions: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the guided prediction; of two the negative prompt's comes first."""


@dataclass(frozen=True)
class Unguided:
    """The prompt alone; a distilled model takes the guidance as an input."""

    branches: int = 1

    def combine(self, predictions: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the one prediction as it is."""
        (positive,) = predictions
        return positive


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Away from the negative prompt.

    Attributes:
        scale: How far; above 1.
        rescale: How much of the contrast that a large scale adds is taken back, 0 to 1.
        kind: Which of two forms, equal up to rounding.
    """

    scale: float
    rescale: float = 0.0
    kind: GuidanceKind = "cfg"
    branches: int = 2

    def combine(self, predictions: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the prediction away from the negative prompt's, which comes first."""
        negative, positive = predictions
        if self.kind == "cfg":
            guided = negative + self.scale * (positive - negative)
        else:
            guided = positive + (self.scale - 1) * (positive - negative)
        if not self.rescale:
            return guided
        # Section 3.4: the spread of the prompt's prediction is given back, in part.
        dims = list(range(1, guided.ndim))
        positive_std = positive.std(dim=dims, keepdim=True)
        rescaled = guided * (positive_std / guided.std(dim=dims, keepdim=True))
        return self.rescale * rescaled + (1 - self.rescale) * guided


def build_guidance(model: LoadedModel, request: ResolvedRequest) -> Guidance:
    """Return how a request is guided by a model."""
    if not request.is_guided or model.is_distilled:
        return Unguided()
    return ClassifierFreeGuidance(request.guidance, request.guidance_rescale, model.family.guidance)
