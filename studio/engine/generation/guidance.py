"""Guidance: from the predictions for both prompts to the one that a step follows.

Knows: classifier-free guidance (arXiv:2207.12598), its forms and its rescaling (arXiv:2305.08891),
CFG-Zero* (arXiv:2503.18886), adaptive projected guidance (APG, arXiv:2410.02416), in which steps
there is any; how the branches of a prompt are added up (composable diffusion, arXiv:2206.01714).
Does not know: networks, schedulers, which prompt a branch has.

One number means the same for every family: 1, and all below it, is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from studio.core.catalog import SCHEDULERS
from studio.core.families.family import GuidanceKind
from studio.core.generation.request import ResolvedRequest
from studio.engine.models.loaded_model import LoadedModel


class Guidance(Protocol):
    """Whether the negative prompt is asked, and what is made of the predictions."""

    def asks_negative(self, step: int) -> bool:
        """Whether there is a prediction for the negative prompt in a step, counted from 0."""

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
        step: int,
    ) -> torch.Tensor:
        """Return the guided prediction.

        Args:
            negative: Of the negative prompt; None unless it is asked.
            positives: Of each branch of the prompt.
            weights: Of the branches.
            step: Counted from 0.
        """


@dataclass(frozen=True)
class Unguided:
    """The prompt alone; a distilled model takes the guidance as an input.

    Attributes:
        is_composed: Whether branches are added up: what is added is the difference from the
            negative prompt's prediction, so that is asked.
    """

    is_composed: bool = False

    def asks_negative(self, step: int) -> bool:  # noqa: ARG002
        """Whether branches are added up."""
        return self.is_composed

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
        step: int,  # noqa: ARG002
    ) -> torch.Tensor:
        """Return the prediction for the prompt as it is."""
        return add_branches(negative, positives, weights)


class ClassifierFreeGuidance:
    """Away from the negative prompt, in some steps or all; of one image, for APG remembers."""

    def __init__(
        self,
        request: ResolvedRequest,
        kind: GuidanceKind = "cfg",
        *,
        is_composed: bool = False,
        num_skipped_calls: int = 0,
    ) -> None:
        """Take a guided request.

        Args:
            request: The request.
            kind: Which of two forms of CFG, equal up to rounding.
            is_composed: Whether branches of a prompt are added up, also in steps without guidance.
            num_skipped_calls: Of the denoiser, where an image is not painted from noise alone. Its
                start and end are shares of the steps that run; and it has no zero steps, which are
                for a denoiser that knows nothing of the image yet.
        """
        self._request = request
        self._kind = kind
        self._is_composed = is_composed
        self._first_step = SCHEDULERS[request.scheduler].find_step(num_skipped_calls)
        self._num_zero_steps = 0
        if request.guidance_method == "CFG-Zero*" and not num_skipped_calls:
            self._num_zero_steps = request.guidance_zero_steps
        self._momentum: torch.Tensor | None = None

    def asks_negative(self, step: int) -> bool:
        """Whether a step lies between the request's start and end, or branches are added up."""
        return self._is_composed or self._is_on(step)

    def combine(
        self,
        negative: torch.Tensor | None,
        positives: tuple[torch.Tensor, ...],
        weights: tuple[float, ...],
        step: int,
    ) -> torch.Tensor:
        """Return the prediction away from the negative prompt's; as it is in other steps."""
        request = self._request
        positive = add_branches(negative, positives, weights)
        if step < self._num_zero_steps:
            return torch.zeros_like(positive)
        if negative is None or not self._is_on(step):
            return positive
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

    def _is_on(self, step: int) -> bool:
        first_step = self._first_step
        return self._request.is_guided_at(step - first_step, self._request.steps - first_step)

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
    model: LoadedModel,
    request: ResolvedRequest,
    weights: tuple[float, ...] = (1.0,),
    *,
    num_skipped_calls: int = 0,
) -> Guidance:
    """Return how a request is guided by a model.

    Args:
        model: The model.
        request: The request, of this pass.
        weights: Of the branches of its prompt.
        num_skipped_calls: Of the denoiser, where an image is not painted from noise alone.
    """
    is_composed = weights != (1.0,)
    if not request.is_guided or model.is_distilled:
        return Unguided(is_composed)
    return ClassifierFreeGuidance(
        request,
        model.family.guidance,
        is_composed=is_composed,
        num_skipped_calls=num_skipped_calls,
    )
