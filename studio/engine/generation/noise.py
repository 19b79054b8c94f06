"""All noise of one image: what it starts with, and what its steps add.

Knows: where noise comes from (the CPU's generator, the card's, or NV, which is a card's numbers
made on the CPU), variations between two seeds, noise of one size centred into another. Does not
know: the loop, schedulers, pixels.

Noise from the CPU is drawn from one generator in the order of diffusers' own pipelines. For the
others the encoder of an image keeps to the CPU's generator, so that the first draw of the card's is
the noise of the image, as in A1111 and Forge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from diffusers.utils.torch_utils import randn_tensor
from torch.overrides import TorchFunctionMode

from studio.core.generation.request import ResolvedRequest
from studio.engine.generation.philox import Philox
from studio.engine.models.loaded_model import LoadedModel
from studio.errors import InvalidSpec

# Beyond this cosine two noises are mixed in a straight line: the arc's formula divides by nothing.
PARALLEL_COSINE = 0.9995


class _Stream:
    """Noise by one seed. With a Philox the generator is but a token that stands for it."""

    def __init__(self, generator: torch.Generator, philox: Philox | None = None) -> None:
        self.generator = generator
        self.philox = philox


def _open_stream(request: ResolvedRequest, seed: int, device: torch.device) -> _Stream:
    if request.noise_source == "NV":
        return _Stream(torch.Generator(), Philox(seed))
    noise_device = device if request.noise_source == "GPU" else "cpu"
    return _Stream(torch.Generator(noise_device).manual_seed(seed))


class Noise:
    """The noise of one image, by its request; `encode_generator` is for the encoder of an image."""

    def __init__(self, request: ResolvedRequest, model: LoadedModel) -> None:
        """Draw nothing yet. Raises InvalidSpec where the device has no noise of its own."""
        self._request = request
        self._model = model
        self._device = model.device.torch_device
        if request.noise_source == "GPU" and self._device.type == "cpu":
            raise InvalidSpec(
                [
                    "Noise source: GPU needs a graphics card, but this runs on the CPU; choose "
                    "NV, which gives the same noise on any machine."
                ]
            )
        self._stream = _open_stream(request, request.seed, self._device)
        self._step_stream = self._stream
        self.encode_generator = self._stream.generator
        if request.noise_source != "CPU":
            self.encode_generator = torch.Generator().manual_seed(request.seed)

    def draw(self) -> torch.Tensor:
        """Return the next noise in the shape of the image's latents."""
        return self._draw(self._stream, self._model.latent_shape(*self._request.size))

    def draw_initial(self) -> torch.Tensor:
        """Return the noise that the image starts with.

        As A1111 makes it: of a variation, noise of both seeds along an arc; of another size, drawn
        at that and laid over the middle of the seed's noise.
        """
        request = self._request
        shape = self._model.latent_shape(*request.size)
        former_shape = self._model.latent_shape(
            request.seed_resize_width or request.width,
            request.seed_resize_height or request.height,
        )
        canvas = self._draw(self._stream, shape)
        noise = canvas
        if former_shape != shape:
            noise = self._draw(_open_stream(request, request.seed, self._device), former_shape)
        if request.variation_strength:
            stream = _open_stream(request, request.variation_seed, self._device)
            variation = self._draw(stream, former_shape)
            noise = mix_noise(noise, variation, request.variation_strength)
        if former_shape != shape:
            noise = center_noise(noise, canvas)
        if request.ensd:
            step_seed = request.seed + request.ensd
            self._step_stream = _open_stream(request, step_seed, self._device)
        return noise

    def draw_unused(self) -> None:
        """Draw what stock pipelines draw and do not use; nothing where they are not the model."""
        if self._request.noise_source == "CPU":
            self.draw()

    def plant_tree(self, scheduler: Any, latents: torch.Tensor) -> None:
        """Let a scheduler's Brownian tree grow where its noise is drawn.

        Its nodes would each be copied to the device; so is only what it says of a step.
        """
        if getattr(scheduler, "noise_sampler", self) is not None or self._is_native:
            return
        tree = BrownianTreeNoiseSampler(
            torch.empty_like(latents, device="cpu"),
            scheduler.sigmas[scheduler.sigmas > 0].min().item(),
            scheduler.sigmas.max().item(),
            scheduler.noise_sampler_seed,
        )

        def draw_between(start: float, end: float) -> torch.Tensor:
            noise: torch.Tensor = tree(start, end).to(latents.device)
            return noise

        scheduler.noise_sampler = draw_between

    @property
    def _is_native(self) -> bool:
        """True if the device itself draws the steps' noise."""
        stream = self._step_stream
        return stream.philox is None and stream.generator.device.type == self._device.type

    @contextmanager
    def lend_to_step(self) -> Iterator[torch.Generator]:
        """Lend a scheduler's step a generator; all that it draws comes from the noise source."""
        stream = self._step_stream
        if self._is_native:
            yield stream.generator
            return
        with _SourceMode(stream):
            yield stream.generator

    def _draw(self, stream: _Stream, shape: Sequence[int]) -> torch.Tensor:
        dtype = self._model.latent_dtype
        if stream.philox is not None:
            return torch.from_numpy(stream.philox.randn(shape)).to(self._device, dtype)
        return randn_tensor(tuple(shape), stream.generator, self._device, dtype)


class _SourceMode(TorchFunctionMode):
    """While active in this thread, torch.randn draws from a stream.

    Draws with the stream's generator are its next. Draws with another, as those of a Brownian tree,
    which has one for each node, come from a stream of that one's seed, on the CPU; so A1111 and
    Forge draw them.
    """

    def __init__(self, stream: _Stream) -> None:
        super().__init__()
        self._stream = stream

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        philox = self._stream.philox
        is_own = generator is self._stream.generator
        if function is not torch.randn or generator is None or (is_own and philox is None):
            return function(*args, **kwargs)
        shape = kwargs.get("size", args)  # torch takes a size, or its lengths one by one
        if len(shape) == 1 and not isinstance(shape[0], int):
            (shape,) = shape
        shape = tuple(shape)
        seed = generator.initial_seed()
        if philox is None:
            normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        else:
            normal = torch.from_numpy((philox if is_own else Philox(seed)).randn(shape))
        return normal.to(kwargs.get("device"), kwargs.get("dtype") or torch.float32)


def mix_noise(noise: torch.Tensor, variation: torch.Tensor, strength: float) -> torch.Tensor:
    """Return noise between two, along the arc that keeps its spread.

    The arc is that of each column of latents by itself, as A1111's; see `PARALLEL_COSINE`.

    Args:
        noise: (1, channels, rows, columns).
        variation: Of the same shape.
        strength: 0 is the first, 1 the second.
    """
    rows = 2
    direction = noise / torch.norm(noise, dim=rows, keepdim=True)
    variation_direction = variation / torch.norm(variation, dim=rows, keepdim=True)
    cosine = (direction * variation_direction).sum(rows, keepdim=True)
    if cosine.mean() > PARALLEL_COSINE:
        return noise * (1 - strength) + variation * strength
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    weight = torch.sin((1 - strength) * angle) / sine
    variation_weight = torch.sin(strength * angle) / sine
    return weight * noise + variation_weight * variation


def center_noise(noise: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
    """Return noise of one size laid over the middle of that of another, cut where it is larger."""
    result = canvas.clone()
    source, target = [], []
    for length, canvas_length in zip(noise.shape[2:], canvas.shape[2:], strict=True):
        margin = (canvas_length - length) // 2
        overlap = length if margin >= 0 else length + 2 * margin
        target.append(slice(max(margin, 0), max(margin, 0) + overlap))
        source.append(slice(max(-margin, 0), max(-margin, 0) + overlap))
    result[:, :, target[0], target[1]] = noise[:, :, source[0], source[1]]
    return result
