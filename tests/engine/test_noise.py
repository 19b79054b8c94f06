"""Noise is A1111's: a card's numbers on any machine, variations, resized seeds, its own seed for the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.noise import Noise, center_noise, mix_noise
from studio.engine.generation.philox import Philox
from studio.errors import InvalidSpec
from support.sentences import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
# The first normals that torch.randn draws on a card with seed 0.
CARD_NORMALS = [
    *(-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564),
    *(-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497),
]
# Philox 4x32-10 as its authors' known-answer tests have it: counter and key of 0, and of ones.
KNOWN_WORDS = {
    0: [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    0xFFFFFFFF: [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
}
SHAPE = (1, 4, 8, 8)


@pytest.fixture
def open_noise(bench: WorkerContext) -> Iterator[Callable[..., Noise]]:
    """The noise of a request for the pocket model."""
    with bench.pipelines.borrow(GenerationRequest()) as model:

        def build(**values: Any) -> Noise:
            request = GenerationRequest(**{"seed": 5, "width": 64, "height": 64} | values)
            return Noise(request.resolve(64, 0), model)

        yield build


@pytest.mark.smoke
def test_numbers_of_a_card() -> None:
    assert np.allclose(Philox(0).randn((12,)), CARD_NORMALS, rtol=0, atol=1e-6)


@pytest.mark.parametrize("word", KNOWN_WORDS)
def test_known_answers_of_philox(word: int) -> None:
    from studio.engine.generation.philox import _encrypt

    counter = [np.full(1, word, np.uint64) for _ in range(4)]
    words = _encrypt(counter, word | word << 32)
    assert [int(value[0]) for value in words] == KNOWN_WORDS[word]


def test_draws_follow_each_other_and_seeds_have_64_bits() -> None:
    stream = Philox(3)
    first, second = stream.randn(SHAPE), stream.randn(SHAPE)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, Philox(3).randn(SHAPE))
    assert not np.array_equal(first, Philox(3 + 2**32).randn(SHAPE))
    large = Philox(1).randn((400, 1000))
    assert abs(float(large.mean())) < 0.01
    assert abs(float(large.std()) - 1) < 0.01


def test_the_cpu_draws_as_stock_pipelines(open_noise: Callable[..., Noise]) -> None:
    generator = torch.Generator().manual_seed(5)
    shape = open_noise()._model.latent_shape(64, 64)
    noise = open_noise()
    assert torch.equal(noise.draw_initial(), torch.randn(shape, generator=generator))
    with noise.lend_to_step() as lent:
        assert torch.equal(torch.randn(4, generator=lent), torch.randn(4, generator=generator))


def test_steps_draw_from_the_same_stream(open_noise: Callable[..., Noise]) -> None:
    """An ancestral step adds the second draw of the card's numbers; nothing else draws from them."""
    noise = open_noise(noise_source="NV", seed=9)
    start = noise.draw_initial()
    stream = Philox(9)
    assert np.array_equal(start.numpy(), stream.randn(start.shape))
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    scheduler.set_timesteps(3)
    zeros = torch.zeros_like(start)
    with noise.lend_to_step() as generator:
        after = scheduler.step(zeros, scheduler.timesteps[0], zeros, generator).prev_sample
    drawn = torch.from_numpy(stream.randn(start.shape))
    assert torch.allclose(after / after.std(), drawn / drawn.std(), atol=1e-5)
    outside = torch.randn(4, generator=torch.Generator().manual_seed(1))
    with noise.lend_to_step():
        inside = torch.randn(4, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(inside, outside)
    assert np.array_equal(inside.numpy(), Philox(1).randn((4,)))  # as a Brownian tree's nodes


def test_a_card_s_tree_is_drawn_on_the_cpu_where_that_is_the_source(
    open_noise: Callable[..., Noise],
) -> None:
    """Each node of a Brownian tree has a generator of its own on the card; the seed is what counts."""
    noise = open_noise()
    noise.draw_initial()
    first = torch.Generator().manual_seed(1)
    own = noise.encode_generator.clone_state()
    noise._device = torch.device("cuda")  # a card, as far as it is looked at here
    with noise.lend_to_step() as generator:
        node = torch.randn((2, 3), generator=first, dtype=torch.float16, device="cpu")
        other = torch.randn((2, 3), generator=first, dtype=torch.float16, device="cpu")
        drawn = torch.randn((2, 3), generator=generator)
    expected = torch.randn((2, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(node, expected.half())
    assert torch.equal(other, node)  # by its seed alone, wherever its generator stands
    assert torch.equal(drawn, torch.randn((2, 3), generator=own))


def test_a_cpu_has_no_noise_of_a_card(open_noise: Callable[..., Noise]) -> None:
    with refused(InvalidSpec, "Noise source"):
        open_noise(noise_source="GPU")


def test_variations_go_from_one_seed_to_the_other(open_noise: Callable[..., Noise]) -> None:
    start, end = open_noise(seed=5).draw_initial(), open_noise(seed=6).draw_initial()
    varied = {"seed": 5, "variation_seed": 6}
    assert torch.allclose(open_noise(**varied, variation_strength=1).draw_initial(), end, atol=1e-5)
    half = open_noise(**varied, variation_strength=0.5).draw_initial()
    # Halfway on the arc both weigh the same, and the spread is kept.
    columns = (start / start.norm(dim=2, keepdim=True), end / end.norm(dim=2, keepdim=True))
    angle = torch.acos((columns[0] * columns[1]).sum(2, keepdim=True))
    assert torch.allclose(half, (start + end) / (2 * torch.cos(angle / 2)), atol=1e-4)
    assert 0.8 < float(half.std()) < 1.2
    assert torch.equal(mix_noise(start, start, 0.3), start * (1 - 0.3) + start * 0.3)


def test_noise_of_another_size_lies_in_the_middle(open_noise: Callable[..., Noise]) -> None:
    own = open_noise(width=128, height=64).draw_initial()
    former = open_noise(width=64, height=64).draw_initial()
    sizes = {"seed_resize_width": 64, "seed_resize_height": 64}
    noise = open_noise(width=128, height=64, **sizes).draw_initial()
    columns = former.shape[3]
    margin = (own.shape[3] - columns) // 2
    assert torch.equal(noise[..., margin : margin + columns], former)
    assert torch.equal(noise[..., :margin], own[..., :margin])
    assert torch.equal(noise[..., margin + columns :], own[..., margin + columns :])
    cut = open_noise(width=64, height=64, seed_resize_width=128).draw_initial()
    assert torch.equal(cut, own[..., margin : margin + columns])


@pytest.mark.parametrize("lengths", [(3, 8), (8, 3), (5, 5), (1, 2), (9, 4)])
def test_any_size_fits_into_any(lengths: tuple[int, int]) -> None:
    length, canvas_length = lengths
    noise = torch.arange(1.0, length + 1).view(1, 1, 1, -1).expand(1, 1, 2, -1)
    result = center_noise(noise, torch.zeros(1, 1, 2, canvas_length))
    assert result.shape[-1] == canvas_length
    kept = result[0, 0, 0][result[0, 0, 0] > 0]
    assert min(length, canvas_length) - 1 <= len(kept) <= min(length, canvas_length)
    assert torch.equal(kept.diff(), torch.ones(len(kept) - 1))


def test_steps_may_have_a_seed_of_their_own(open_noise: Callable[..., Noise]) -> None:
    noise = open_noise(scheduler="Euler a", ensd=31337)
    assert torch.equal(noise.draw_initial(), open_noise().draw_initial())
    with noise.lend_to_step() as generator:
        drawn = torch.randn(4, generator=generator)
    expected = torch.Generator().manual_seed(5 + 31337)
    assert torch.equal(drawn, torch.randn(4, generator=expected))


def test_of_variations_the_seed_stays() -> None:
    request = GenerationRequest(seed=7, num_images=3, variation_strength=0.2, variation_seed=9)
    rows = [(image.seed, image.variation_seed) for image in request.resolve(64, 0).split()]
    assert rows == [(7, 9), (7, 10), (7, 11)]
    drawn = GenerationRequest(variation_strength=0.2).resolve(64, 5)
    assert drawn.seed == 5
    assert 0 <= drawn.variation_seed != 5
    varied = GenerationRequest(seed=7, variation_strength=0.2)
    seeds = {varied.resolve(64, number).variation_seed for number in range(5)}
    assert len(seeds) == 5  # drawn for each, though the seed stays
    assert GenerationRequest().resolve(64, 5).variation_seed == -1  # nothing is drawn for nothing
