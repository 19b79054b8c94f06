"""Guidance: from the predictions for both prompts to the one that a step follows.

Knows: classifier-free guidance (arXiv:2207.12598), its forms and its rescaling (arXiv:2305.08891);
how the branches of a prompt are added up (composable diffusion, arXiv:2206.01714). Does not know:
networks, schedulers, which prompt a branch has.

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
    """Whether the negative prompt is asked, and what is made of the predictions."""

    @property
    def asks_negative(self) -> bool:
        """Whether there is a prediction for the negative prompt."""

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
    ) -> torch.Tensor:
        """Return the guided prediction.

        Args:
            negative: Of the negative prompt; None unless it is asked.
            positives: Of each branch of the prompt.
            weights: Of the branches.
        """


@dataclass(frozen=True)
class Unguided:
    """The prompt alone; a distilled model takes the guidance as an input.

    Attributes:
        asks_negative: Only for branches to be added up: what is added is the difference from it.
    """

    asks_negative: bool = False

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
    ) -> torch.Tensor:
        """Return the prediction for the prompt as it is."""
        return add_branches(negative, positives, weights)


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
    asks_negative: bool = True

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
    ) -> torch.Tensor:
        """Return the prediction away from the negative prompt's."""
        assert negative is not None
        positive = add_branches(negative, positives, weights)
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


def add_branches(
    negative: torch.Tensor | None, positives: tuple[torch.Tensor, ...], weights: tuple[float, ...]
) -> torch.Tensor:
    """Return the predictions for a prompt's branches as one: each adds what it says beyond none.

    Args:
        negative: Of the negative prompt; a single branch of weight 1 needs none.
        positives: Of each branch.
        weights: Of the branches; negative ones lead away.
    """
    if weights == (1.0,):
        return positives[0]  # bit for bit
    assert negative is not None
    total = negative
    for positive, weight in zip(positives, weights, strict=True):
        total = total + weight * (positive - negative)
    return total


def build_guidance(
    model: LoadedModel, request: ResolvedRequest, weights: tuple[float, ...] = (1.0,)
) -> Guidance:
    """Return how a request is guided by a model; `weights` are those of its prompt's branches."""
    if not request.is_guided or model.is_distilled:
        return Unguided(asks_negative=weights != (1.0,))
    return ClassifierFreeGuidance(request.guidance, request.guidance_rescale, model.family.guidance)


def count_rows_per_call(
    model: LoadedModel, request: ResolvedRequest, weights: tuple[float, ...]
) -> int:
    """Return the denoiser's rows of one prediction for an image."""
    return len(weights) + build_guidance(model, request, weights).asks_negative
