"""compel's `.swap()`: attention put together from two prompts, computed here token by token."""

from __future__ import annotations

import pytest
import torch

from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.prompts.plan import Branch, Fragment, Phase, PromptPlan, Swap, Wording
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import Trajectory
from studio.engine.models.families.attention_swaps import use_swaps
from studio.errors import InvalidSpec
from support.sentences import refused
from support.stock import SEED, SIZE

STEPS = 5
NEVER, ALWAYS = (("t_start", 1.0),), (("t_start", 0.0),)


def plan_of(*parts: Fragment | Swap) -> PassPlan:
    def branch(*chunk: Fragment | Swap) -> Branch:
        return Branch((Phase(STEPS, Wording(((chunk,),))),))

    negative = branch(Fragment("fog", 1.0))
    return PassPlan(
        PromptPlan((branch(*parts),), "compel"), PromptPlan((negative,), "compel"), STEPS
    )


def words(text: str) -> tuple[Fragment, ...]:
    return (Fragment(text, 1.0),)


def swapped(
    options: tuple[tuple[str, float], ...] = ALWAYS, edited: str = "green house"
) -> tuple[Fragment | Swap, ...]:
    return *words("a red"), Swap(words("boat"), words(edited), options), *words("by a lake")


def asked(model: str = "pocket", **values: object) -> ResolvedRequest:
    told = {"scheduler": "Euler", "noise_schedule": "Uniform", "steps": STEPS, "seed": SEED}
    return GenerationRequest(model=model, negative_prompt="fog", **(told | values)).resolve(
        SIZE, SEED
    )


def painted(bench: WorkerContext, request: ResolvedRequest, *plans: PassPlan) -> list[torch.Tensor]:
    with bench.pipelines.borrow(request) as model, torch.no_grad():
        each = [Trajectory(model, request, model.encode_plan(plan, request)) for plan in plans]
        before = dict(model.denoiser.attn_processors)
        came = {one: latents for one, latents, _ in Batcher(model, len(each)).denoise(each)}
        assert dict(model.denoiser.attn_processors) == before
    latents = [came[one] for one in each]
    assert all(isinstance(one, torch.Tensor) for one in latents)
    return latents


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@torch.no_grad()
def test_attention_token_by_token(bench: WorkerContext) -> None:
    """What shared tokens get is the original's, what the edited ones get is the edited prompt's."""
    request = asked()
    with bench.pipelines.borrow(request) as model:
        row = model.encode_plan(plan_of(*swapped()), request).positives[0].get(0)
        tokenizer = model.tokenizers[0]
        count = {
            text: len(tokenizer(text, add_special_tokens=False).input_ids)
            for text in ("a red", "boat", "green house", "by a lake")
        }
        attention = next(
            module for name, module in model.denoiser.named_modules() if name.endswith("attn2")
        )
        generator = torch.Generator().manual_seed(3)
        places = torch.randn(1, 6, attention.query_dim, generator=generator)
        with use_swaps(model.denoiser, model.stack_rows([row])):
            ours = attention(places, encoder_hidden_states=row["prompt_embeds"])
        original, edited = row["prompt_embeds"], row["swap_embeds"]
        heads, width = attention.heads, attention.inner_dim // attention.heads
        query, values = attention.to_q(places)[0], attention.to_v(edited)[0]
        before = 1 + count["a red"]
        behind = before + count["green house"]
        end = behind + count["by a lake"] + 1
        shift = count["boat"] - count["green house"]
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = [
                torch.softmax(
                    query[:, part] @ attention.to_k(side)[0][:, part].T / width**0.5, dim=-1
                )
                for side in (original, edited)
            ]
            taken = scores[1].clone()
            for token in [*range(before), *range(behind, end)]:
                source = token if token < before else token + shift
                taken[:, token] = scores[0][:, source]
            mixed.append(taken @ values[:, part])
        expected = attention.to_out[0](torch.cat(mixed, dim=-1))[None]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [pytest.param("pocket", marks=pytest.mark.slow), "toy-sdxl"])
def test_a_swap_that_never_holds_is_the_original(bench: WorkerContext, model: str) -> None:
    plain = (*words("a red"), *words("boat"), *words("by a lake"))
    request = asked(model)
    (ours,) = painted(bench, request, plan_of(*swapped(NEVER)))
    (expected,) = painted(bench, request, plan_of(*plain))
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("model", [pytest.param("pocket", marks=pytest.mark.slow), "toy-sdxl"])
def test_a_swap_for_the_same_words_changes_nothing(bench: WorkerContext, model: str) -> None:
    plain = (*words("a red"), *words("boat"), *words("by a lake"))
    request = asked(model)
    (ours,) = painted(bench, request, plan_of(*swapped(edited="boat")))
    (expected,) = painted(bench, request, plan_of(*plain))
    assert distance(ours, expected) < 1e-4


def test_a_swap_is_neither_of_its_sides(bench: WorkerContext) -> None:
    request = asked()
    (ours,) = painted(bench, request, plan_of(*swapped()))
    for side in ("boat", "green house"):
        plain = plan_of(*words("a red"), *words(side), *words("by a lake"))
        (latents,) = painted(bench, request, plain)
        assert distance(ours, latents) > 1e-3


def test_a_swap_begins_after_a_fifth_of_the_steps(bench: WorkerContext) -> None:
    request = asked()
    with bench.pipelines.borrow(request) as model, torch.no_grad():
        schedule = model.encode_plan(plan_of(*swapped(())), request).positives[0]
    assert ["swap_embeds" in schedule.get(step) for step in range(STEPS)] == [False, *[True] * 4]


@pytest.mark.slow
def test_swaps_share_calls_with_plain_prompts(bench: WorkerContext) -> None:
    request = asked()
    plans = [plan_of(*swapped(())), plan_of(*words("a tree")), plan_of(*swapped(ALWAYS, "cow"))]
    alone = [painted(bench, request, plan)[0] for plan in plans]
    for ours, expected in zip(painted(bench, request, *plans), alone, strict=True):
        assert distance(ours, expected) < 1e-4


def test_a_swap_beside_a_longer_negative_prompt(bench: WorkerContext) -> None:
    long = Wording(((words("fog"), words("rain")),))
    plan = plan_of(*swapped())
    negative = PromptPlan((Branch((Phase(STEPS, long),)),), "A1111")
    request = asked()
    with bench.pipelines.borrow(request) as model, torch.no_grad():
        row = (
            model.encode_plan(PassPlan(plan.positive, negative, STEPS), request).positives[0].get(0)
        )
    assert {value.shape[1] for name, value in row.items()} == {154}


@pytest.mark.parametrize(
    "parts",
    [(*swapped(), *words("a " * 80)), swapped(edited="very " * 80 + "house")],
)
def test_long_prompts_take_no_swap(
    bench: WorkerContext, parts: tuple[Fragment | Swap, ...]
) -> None:
    request = asked()
    with bench.pipelines.borrow(request) as model, torch.no_grad(), refused(InvalidSpec, "Prompt"):
        model.encode_plan(plan_of(*parts), request)
