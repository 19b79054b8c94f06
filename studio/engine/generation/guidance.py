"""Guidance: from the predictions for both prompts to the one that a step follows.

Knows: classifier-free guidance (arXiv:2207.12598), its forms and its rescaling (arXiv:2305.08891),
CFG-Zero* (arXiv:2503.18886), adaptive projected guidance (APG, arXiv:2410.02416), in which steps
there is any. Does not know: networks, schedulers.

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

    def is_on(self, step: int) -> bool:
        """Return whether a step, counted from 0, is guided; otherwise only the prompt is asked."""

    def combine(self, predictions: tuple[torch.Tensor, ...], step: int) -> torch.Tensor:
        """Return the guided prediction; of two the negative prompt's comes first."""


@dataclass(frozen=True)
class Unguided:
    """The prompt alone; a distilled model takes the guidance as an input."""

    branches: int = 1

    def is_on(self, step: int) -> bool:  # noqa: ARG002
        """Return False: no step is."""
        return False

    def combine(self, predictions: tuple[torch.Tensor, ...], step: int) -> torch.Tensor:  # noqa: ARG002
        """Return the one prediction as it is."""
        (positive,) = predictions
        return positive


class ClassifierFreeGuidance:
    """Away from the negative prompt, in some steps or all; of one image, for APG remembers."""

    branches = 2

    def __init__(self, request: ResolvedRequest, kind: GuidanceKind = "cfg") -> None:
        """Take a guided request; `kind` is which of two forms of CFG, equal up to rounding."""
        self._request = request
        self._kind = kind
        self._momentum: torch.Tensor | None = None

    def is_on(self, step: int) -> bool:
        """Return whether a step lies between the request's start and end."""
        return self._request.is_guided_at(step, self._request.steps)

    def combine(self, predictions: tuple[torch.Tensor, ...], step: int) -> torch.Tensor:
        """Return the prediction away from the negative prompt's, which comes first."""
        request = self._request
        positive = predictions[-1]
        if request.guidance_method == "CFG-Zero*" and step < request.guidance_zero_steps:
            return torch.zeros_like(positive)
        if len(predictions) == 1:
            return positive
        negative, positive = predictions
        if request.guidance_method == "CFG-Zero*":
            guided = self._guide_from_scaled(negative, positive)
        elif request.guidance_method == "APG":
            guided = self._guide_by_projection(negative, positive)
        elif self._kind == "cfg":
            guided = negative + request.guidance * (positive - negative)
        else:
            guided = positive + (request.guidance - 1) * (positive - negative)
        if not request.guidance_rescale:
            return guided
        # Section 3.4: the spread of the prompt's prediction is given back, in part.
        dims = list(range(1, guided.ndim))
        positive_std = positive.std(dim=dims, keepdim=True)
        rescaled = guided * (positive_std / guided.std(dim=dims, keepdim=True))
        return request.guidance_rescale * rescaled + (1 - request.guidance_rescale) * guided

    def _guide_from_scaled(self, negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
        """Scale the negative prediction so that it is nearest to the positive one, then guide."""
        dims = list(range(1, positive.ndim))
        product = (positive * negative).sum(dims, keepdim=True)
        scaled = negative * (product / ((negative**2).sum(dims, keepdim=True) + 1e-8))
        return scaled + self._request.guidance * (positive - scaled)

    def _guide_by_projection(self, negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
        """Guide by the part of the difference at right angles to the positive prediction.

        Of the denoiser's own predictions, as diffusers' guider: the paper has those of the image.
        """
        request = self._request
        dims = list(range(1, positive.ndim))
        difference = positive - negative
        if self._momentum is not None:
            difference = difference + request.apg_momentum * self._momentum
        self._momentum = difference
        if request.apg_threshold:
            length = torch.linalg.vector_norm(difference, dim=dims, keepdim=True)
            difference = difference * (request.apg_threshold / length).clamp(max=1)
        # In double where there is such a thing: the two are nearly parallel.
        exact = torch.float32 if positive.device.type == "mps" else torch.float64
        direction = positive.to(exact)
        size = torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
        direction = direction / size.clamp_min(1e-12)
        parallel = (difference.to(exact) * direction).sum(dims, keepdim=True) * direction
        update = difference.to(exact) - (1 - request.apg_eta) * parallel
        return positive + (request.guidance - 1) * update.to(positive.dtype)


def build_guidance(model: LoadedModel, request: ResolvedRequest) -> Guidance:
    """Return how a request is guided by a model."""
    if not request.is_guided or model.is_distilled:
        return Unguided()
    return ClassifierFreeGuidance(request, model.family.guidance)
