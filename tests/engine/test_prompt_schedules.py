"""Prompts over the steps of a pass are stock networks fed step by step with the expected embeddings.

The reference is a stock pipeline's text encoder, U-Net and scheduler, called by hand; chunks are
given to it as rows of ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.base import validate_stored
from studio.core.catalog import BATCHING_TOLERANCE, SCHEDULERS
from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.prompts.plan import Branch, Fragment, Phase, PromptPlan, Text, Wording
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import generate
from studio.engine.generation.trajectory import InitImage, Trajectory
from studio.engine.models.loaded_model import Conditioning, LoadedModel
from studio.engine.models.prompt_encoding import encode_prompts
from studio.storage.jobs import Progress
from support.models import POCKET
from support.stock import SEED, SIZE, pipe_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
STEPS, GUIDANCE = 4, 6.0
RED, BLUE, FOG = "a red boat by a lake", "a blue house", "fog"

# ---- what the studio is given --------------------------------------------------------------------


def text(*chunks: str | list[tuple[str, float]]) -> Text:
    """A text of chunks, each a string or weighted strings."""
    return tuple(
        tuple(Fragment(*part) for part in ([(chunk, 1.0)] if isinstance(chunk, str) else chunk))
        for chunk in chunks
    )


def phases(*parts: tuple[int, Text | str]) -> tuple[Phase, ...]:
    return tuple(
        Phase(last, Wording((text(words) if isinstance(words, str) else words,)))
        for last, words in parts
    )


def plan_of(*branches: Branch, emphasis: Any = "Original", negative: Any = FOG) -> PassPlan:
    if isinstance(negative, str):
        negative = phases((STEPS, negative))
    return PassPlan(
        PromptPlan(branches, "A1111"), PromptPlan((Branch(negative),), "A1111"), STEPS, emphasis
    )


def asked(model: str = "pocket", **values: Any) -> ResolvedRequest:
    told = {"scheduler": "Euler", "steps": STEPS, "guidance": GUIDANCE, "seed": SEED}
    told |= {"noise_schedule": "Uniform", "negative_prompt": FOG, "model": model}
    return GenerationRequest(**(told | values)).resolve(SIZE, SEED)


@torch.no_grad()
def encoded(bench: WorkerContext, plan: PassPlan, request: ResolvedRequest) -> Conditioning:
    with bench.pipelines.borrow(request) as model:
        return model.encode_plan(plan, request)


def painted(bench: WorkerContext, plan: PassPlan, request: ResolvedRequest) -> torch.Tensor:
    with bench.pipelines.borrow(request) as model:
        trajectory = trajectory_of(model, plan, request)
        ((_, latents, _),) = Batcher(model, 1).denoise([trajectory])
    assert isinstance(latents, torch.Tensor)
    return latents


@torch.no_grad()
def trajectory_of(model: LoadedModel, plan: PassPlan, request: ResolvedRequest) -> Trajectory:
    return Trajectory(model, request, model.encode_plan(plan, request))


# ---- the reference -------------------------------------------------------------------------------


@cache
def pipe_from(folder: Path) -> Any:
    kind = "StableDiffusionXLPipeline" if "sdxl" in folder.name else "StableDiffusionPipeline"
    return pipe_of(kind, folder, "Euler", "Uniform")


def ids_of(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer(words, add_special_tokens=False).input_ids
    return ids


def chunk_of(tokenizer: Any, ids: Sequence[int]) -> torch.Tensor:
    assert len(ids) <= 75
    row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return torch.tensor([row + [tokenizer.pad_token_id] * (77 - len(row))])


@torch.no_grad()
def states_of(pipe: Any, *chunks: str) -> torch.Tensor:
    """The vectors of texts of up to 75 tokens, each read on its own, end to end."""
    rows = [chunk_of(pipe.tokenizer, ids_of(pipe.tokenizer, words)) for words in chunks]
    return torch.cat([pipe.text_encoder(row)[0] for row in rows], dim=1)


@torch.no_grad()
def xl_states_of(pipe: Any, words: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors and the pooled prompt that SDXL reads of a short text."""
    outputs = [
        encoder(chunk_of(tokenizer, ids_of(tokenizer, words)), output_hidden_states=True)
        for tokenizer, encoder in (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        )
    ]
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1][0]


@torch.no_grad()
def stepped(
    pipe: Any,
    rows_at: Callable[[int], Sequence[torch.Tensor]],
    weights: Sequence[float] = (1.0,),
    guidance: float = GUIDANCE,
    pooled_at: Callable[[int], Sequence[torch.Tensor]] | None = None,
) -> torch.Tensor:
    """Latents after all steps; `rows_at` gives a step's embeddings, the negative prompt's first."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(SEED))
    latents = latents * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        rows = torch.cat(list(rows_at(step)))
        scaled = scheduler.scale_model_input(torch.cat([latents] * len(rows)), timestep)
        added = None
        if pooled_at:
            sides = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * len(rows), dtype=torch.float32)
            added = {"text_embeds": torch.cat(list(pooled_at(step))), "time_ids": sides}
        predictions = pipe.unet(scaled, timestep, rows, added_cond_kwargs=added, return_dict=False)[
            0
        ]
        negative, *positives = predictions.split(1)
        if list(weights) == [1.0]:
            summed = positives[0]
        else:
            summed = negative
            for weight, positive in zip(weights, positives, strict=True):
                summed = summed + weight * (positive - negative)
        guided = negative + guidance * (summed - negative)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents


# ---- encoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["pocket", "toy-sd2", "toy-sdxl"])
def test_a_plain_prompt_is_bitwise_stock(bench: WorkerContext, toys: Path, model: str) -> None:
    pipe = pipe_from(POCKET if model == "pocket" else toys / model)
    conditioning = encoded(bench, plan_of(Branch(phases((STEPS, RED)))), asked(model))
    told: dict[str, Any] = {"device": "cpu", "num_images_per_prompt": 1}
    told |= {"do_classifier_free_guidance": True, "negative_prompt": FOG}
    positive, negative, *pooled = pipe.encode_prompt(RED, **told)
    row = conditioning.positives[0].get(0)
    assert torch.equal(row["prompt_embeds"], positive)
    assert torch.equal(conditioning.negative.get(0)["prompt_embeds"], negative)
    if pooled:
        assert torch.equal(row["pooled_prompt_embeds"], pooled[0])


def words(letter: str, number: int) -> str:
    return " ".join([letter] * number)


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        (f"{words('a', 75)}", [words("a", 75)]),
        (f"{words('a', 76)}", [words("a", 75), "a"]),
        # A comma among the last 20 tokens: what follows it moves.
        (f"{words('a', 60)}, {words('b', 20)}", [f"{words('a', 60)},", words("b", 20)]),
        (f"{words('a', 55)}, {words('b', 20)}", [f"{words('a', 55)},", words("b", 20)]),
        # One token farther away: it does not.
        (f"{words('a', 54)}, {words('b', 21)}", [f"{words('a', 54)}, {words('b', 20)}", "b"]),
        # A comma itself is never kept back.
        (f"{words('a', 75)}, b", [words("a", 75), ", b"]),
        (f"{words('a', 74)}, b", [f"{words('a', 74)},", "b"]),
        # The comma of the first chunk says nothing of the second.
        (
            f"{words('a', 60)}, {words('b', 76)}",
            [f"{words('a', 60)},", words("b", 75), "b"],
        ),
    ],
)
def test_long_prompts_go_on_behind_a_comma(
    bench: WorkerContext, prompt: str, chunks: list[str]
) -> None:
    conditioning = encoded(bench, plan_of(Branch(phases((STEPS, prompt)))), asked())
    expected = states_of(pipe_from(POCKET), *chunks)
    assert torch.equal(conditioning.positives[0].get(0)["prompt_embeds"], expected)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((RED, BLUE), (RED, BLUE)),
        ((RED, "", BLUE), (RED, "", BLUE)),
        (("", RED), ("", RED)),
        ((RED, ""), (RED,)),
        (("", ""), ("",)),
    ],
)
def test_break_begins_a_chunk(
    bench: WorkerContext, chunks: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    conditioning = encoded(bench, plan_of(Branch(phases((STEPS, text(*chunks))))), asked())
    embeddings = conditioning.positives[0].get(0)["prompt_embeds"]
    assert torch.equal(embeddings, states_of(pipe_from(POCKET), *expected))
    negative = conditioning.negative.get(0)["prompt_embeds"]
    padding = [""] * (len(expected) - 1)
    assert torch.equal(negative, states_of(pipe_from(POCKET), FOG, *padding))


WEIGHTED = [("a ", 1.0), ("red", 1.5), (" boat", 1.0), (" lake", -0.5)]


def weights_of(tokenizer: Any, fragments: list[tuple[str, float]]) -> torch.Tensor:
    inner = [weight for part, weight in fragments for _ in ids_of(tokenizer, part)]
    return torch.tensor([[1.0, *inner, *[1.0] * (76 - len(inner))]])[..., None]


@pytest.mark.parametrize("emphasis", ["Original", "No norm", "Ignore"])
def test_emphasis(bench: WorkerContext, emphasis: str) -> None:
    plan = plan_of(Branch(phases((STEPS, text(WEIGHTED)))), emphasis=emphasis)
    row = encoded(bench, plan, asked()).positives[0].get(0)
    pipe = pipe_from(POCKET)
    plain = states_of(pipe, "a red boat lake")
    weighted = plain * weights_of(pipe.tokenizer, WEIGHTED)
    expected = {
        "Original": weighted * (plain.mean() / weighted.mean()),
        "No norm": weighted,
        "Ignore": plain,
    }
    assert torch.equal(row["prompt_embeds"], expected[emphasis])


def test_each_chunk_has_its_own_mean(bench: WorkerContext) -> None:
    plan = plan_of(Branch(phases((STEPS, text(BLUE, WEIGHTED)))))
    embeddings = encoded(bench, plan, asked()).positives[0].get(0)["prompt_embeds"]
    pipe = pipe_from(POCKET)
    plain = states_of(pipe, "a red boat lake")
    weighted = plain * weights_of(pipe.tokenizer, WEIGHTED)
    assert torch.equal(embeddings[:, :77], states_of(pipe, BLUE))
    assert torch.equal(embeddings[:, 77:], weighted * (plain.mean() / weighted.mean()))


def test_the_wordings_of_a_schedule_share_their_mean(bench: WorkerContext) -> None:
    """A1111 encodes all that a prompt's schedule says in one call."""
    plan = plan_of(Branch(phases((1, text(WEIGHTED)), (STEPS, BLUE))))
    schedule = encoded(bench, plan, asked()).positives[0]
    pipe = pipe_from(POCKET)
    plain = torch.cat([states_of(pipe, "a red boat lake"), states_of(pipe, BLUE)])
    weights = torch.cat([weights_of(pipe.tokenizer, WEIGHTED), torch.ones(1, 77, 1)])
    expected = plain * weights * (plain.mean() / (plain * weights).mean())
    assert torch.equal(schedule.get(0)["prompt_embeds"], expected[:1])
    assert torch.equal(schedule.get(3)["prompt_embeds"], expected[1:])


def test_the_pooled_prompt_is_the_first_chunks(bench: WorkerContext, toys: Path) -> None:
    plan = plan_of(Branch(phases((STEPS, text(BLUE, RED)))))
    row = encoded(bench, plan, asked("toy-sdxl")).positives[0].get(0)
    pipe = pipe_from(toys / "toy-sdxl")
    blue, pooled = xl_states_of(pipe, BLUE)
    red, _ = xl_states_of(pipe, RED)
    assert torch.equal(row["prompt_embeds"], torch.cat([blue, red], dim=1))
    assert torch.equal(row["pooled_prompt_embeds"], pooled)


# ---- painting ------------------------------------------------------------------------------------


def test_editing_changes_the_prompt_behind_its_step(bench: WorkerContext) -> None:
    """`[red:blue:1]`: A1111 reads red at steps 0 and 1."""
    plan = plan_of(Branch(phases((1, RED), (STEPS, BLUE))))
    pipe = pipe_from(POCKET)
    red, blue, fog = (states_of(pipe, words) for words in (RED, BLUE, FOG))
    expected = stepped(pipe, lambda step: [fog, red if step <= 1 else blue])
    assert torch.equal(painted(bench, plan, asked()), expected)


def test_words_take_turns(bench: WorkerContext) -> None:
    turns = phases((1, RED), (2, BLUE), (3, RED), (4, BLUE))
    pipe = pipe_from(POCKET)
    red, blue, fog = (states_of(pipe, words) for words in (RED, BLUE, FOG))
    order = [red, red, blue, red]
    expected = stepped(pipe, lambda step: [fog, order[step]])
    assert torch.equal(painted(bench, plan_of(Branch(turns)), asked()), expected)


def test_a_negative_prompt_changes_too(bench: WorkerContext) -> None:
    plan = plan_of(Branch(phases((STEPS, RED))), negative=phases((0, FOG), (STEPS, BLUE)))
    pipe = pipe_from(POCKET)
    red, blue, fog = (states_of(pipe, words) for words in (RED, BLUE, FOG))
    expected = stepped(pipe, lambda step: [blue if step else fog, red])
    assert torch.equal(painted(bench, plan, asked()), expected)


def test_a_longer_phase_makes_all_rows_long(bench: WorkerContext) -> None:
    plan = plan_of(Branch(phases((1, RED), (STEPS, text(RED, BLUE)))))
    pipe = pipe_from(POCKET)
    short, long, fog = (states_of(pipe, *chunks) for chunks in ((RED, ""), (RED, BLUE), (FOG, "")))
    expected = stepped(pipe, lambda step: [fog, short if step <= 1 else long])
    assert torch.equal(painted(bench, plan, asked()), expected)


@pytest.mark.parametrize(
    ("guidance", "weights"),
    [
        pytest.param(guidance, weights, marks=() if quick else pytest.mark.slow)
        for guidance, weights, quick in (
            (GUIDANCE, (1.0, 1.0), False),
            (GUIDANCE, (1.0, -0.5), True),
            (GUIDANCE, (0.7, 1.2), False),
            (GUIDANCE, (0.5,), True),
            (1.0, (1.0, 1.0), False),
            (1.0, (1.0, -0.5), True),
            (1.0, (0.7, 1.2), False),
            (1.0, (0.5,), False),
        )
    ],
)
def test_and_adds_predictions(
    bench: WorkerContext, weights: tuple[float, ...], guidance: float
) -> None:
    """Without guidance, too, the negative prompt is asked, as A1111 does at CFG 1."""
    texts = (RED, BLUE)[: len(weights)]
    branches = [
        Branch(phases((STEPS, one)), weight) for one, weight in zip(texts, weights, strict=True)
    ]
    pipe = pipe_from(POCKET)
    rows = [states_of(pipe, one) for one in (FOG, *texts)]
    expected = stepped(pipe, lambda _: rows, weights, guidance)
    latents = painted(bench, plan_of(*branches), asked(guidance=guidance))
    if guidance > 1:
        assert torch.equal(latents, expected)
    else:  # n + 1 · (p - n) is p up to rounding
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_branches_have_schedules_of_their_own(bench: WorkerContext) -> None:
    plan = plan_of(Branch(phases((0, RED), (STEPS, BLUE))), Branch(phases((STEPS, BLUE)), 0.5))
    pipe = pipe_from(POCKET)
    red, blue, fog = (states_of(pipe, words) for words in (RED, BLUE, FOG))
    expected = stepped(pipe, lambda step: [fog, blue if step else red, blue], (1.0, 0.5))
    assert torch.equal(painted(bench, plan, asked()), expected)


@pytest.mark.parametrize("negative", [FOG, ""])
def test_the_large_family_edits_and_adds(bench: WorkerContext, toys: Path, negative: str) -> None:
    """Pooled prompts change with the words; an empty negative prompt is zeros of that length."""
    plan = plan_of(
        Branch(phases((1, RED), (STEPS, BLUE))),
        Branch(phases((STEPS, BLUE)), 0.5),
        negative=negative,
    )
    pipe = pipe_from(toys / "toy-sdxl")
    (red, red_pooled), (blue, blue_pooled) = (xl_states_of(pipe, words) for words in (RED, BLUE))
    fog, fog_pooled = torch.zeros_like(red), torch.zeros_like(red_pooled)
    if negative:
        fog, fog_pooled = xl_states_of(pipe, negative)
    expected = stepped(
        pipe,
        lambda step: [fog, red if step <= 1 else blue, blue],
        (1.0, 0.5),
        pooled_at=lambda step: [fog_pooled, red_pooled if step <= 1 else blue_pooled, blue_pooled],
    )
    latents = painted(bench, plan, asked("toy-sdxl", negative_prompt=negative))
    assert torch.equal(latents, expected)


def rows_by_call(model: LoadedModel, trajectory: Trajectory) -> list[torch.Tensor]:
    """The prompt's row at each call of the U-Net."""
    rows = []
    with torch.inference_mode():
        coroutine = trajectory.run()
        request = next(coroutine)
        while True:
            rows.append(request.rows[-1]["prompt_embeds"])
            latents = [request.latents] * len(request.rows)
            timesteps = [request.timestep] * len(request.rows)
            output = model.predict(latents, timesteps, model.stack_rows(request.rows))
            try:
                request = coroutine.send(tuple(output))
            except StopIteration:
                return rows


QUICK_SOLVERS = ("Euler", "Heun", "DPM2 a", "DPM++ 2S", "DPM++ SDE", "PLMS", "UniPC", "LCM")


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(name, marks=() if name in QUICK_SOLVERS else pytest.mark.slow)
        for name in sorted(SCHEDULERS)
    ],
)
def test_a_step_is_a_step(bench: WorkerContext, scheduler: str) -> None:
    """Solvers that ask twice within a step ask with the same prompt."""
    plan = plan_of(Branch(phases((0, RED), (STEPS, BLUE))))
    request = asked(scheduler=scheduler, noise_schedule=SCHEDULERS[scheduler].noise_schedules[0])
    with bench.pipelines.borrow(request) as model:
        trajectory = trajectory_of(model, plan, request)
        rows = rows_by_call(model, trajectory)
    red = states_of(pipe_from(POCKET), RED)
    num_calls_of_first = 2 if scheduler in ("Heun", "DPM2", "DPM2 a", "DPM++ SDE", "PLMS") else 1
    is_red = [torch.equal(row, red) for row in rows]
    assert is_red == [call < num_calls_of_first for call in range(len(rows))]


def test_repainting_counts_from_the_first_step_that_runs(bench: WorkerContext) -> None:
    plan = plan_of(Branch(phases((0, RED), (STEPS, BLUE))))
    request = asked()
    with bench.pipelines.borrow(request) as model, torch.no_grad():
        conditioning = model.encode_plan(plan, request)
        start = InitImage(0.5, latents=torch.zeros(1, 4, SIZE // 8, SIZE // 8))
        rows = rows_by_call(model, Trajectory(model, request, conditioning, start))
    pipe = pipe_from(POCKET)
    assert len(rows) == STEPS // 2
    assert torch.equal(rows[0], states_of(pipe, RED))
    assert torch.equal(rows[1], states_of(pipe, BLUE))


# ---- together ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_name", [pytest.param("pocket", marks=pytest.mark.slow), "toy-sdxl"])
def test_images_of_all_kinds_share_calls(bench: WorkerContext, model_name: str) -> None:
    """A scheduled prompt, a plain one, two branches and an unguided one, in one batch."""
    plain = plan_of(Branch(phases((STEPS, RED))))
    plans = [
        (plan_of(Branch(phases((1, RED), (STEPS, BLUE)))), GUIDANCE),
        (plain, GUIDANCE),
        (plan_of(Branch(phases((STEPS, RED))), Branch(phases((STEPS, BLUE)), 0.5)), 3.0),
        (plain, 1.0),
    ]
    requests = [asked(model_name, guidance=guidance) for _, guidance in plans]
    alone = [
        painted(bench, plan, request) for (plan, _), request in zip(plans, requests, strict=True)
    ]
    with bench.pipelines.borrow(*requests) as model:
        each = [
            trajectory_of(model, plan, request)
            for (plan, _), request in zip(plans, requests, strict=True)
        ]
        batcher = Batcher(model, len(each))
        came = {one: latents for one, latents, _ in batcher.denoise(each)}
    assert batcher.calls == STEPS
    assert batcher.rows == STEPS * (2 + 2 + 3 + 1)
    for trajectory, expected in zip(each, alone, strict=True):
        latents = came[trajectory]
        assert isinstance(latents, torch.Tensor)
        assert float((latents - expected).norm() / expected.norm()) < BATCHING_TOLERANCE
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[2], alone[1])


def test_rows_that_stay_are_stacked_once(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(Branch(phases((1, RED), (STEPS, BLUE))))
    request = asked()
    with bench.pipelines.borrow(request) as model:
        stack_rows, stacked = model.stack_rows, []
        monkeypatch.setattr(
            model, "stack_rows", lambda rows: stacked.append(rows) or stack_rows(rows)
        )
        list(Batcher(model, 1).denoise([trajectory_of(model, plan, request)]))
    assert len(stacked) == 2


# ---- as people write it --------------------------------------------------------------------------


def generated(bench: WorkerContext, **spec: Any) -> Image.Image:
    told = {"model": "pocket", "seed": SEED, "steps": STEPS, "width": SIZE, "height": SIZE}
    told |= {"prompt_syntax": "auto", "emphasis": "Original"}
    result = generate(bench, told | spec, lambda progress: None)
    return Image.open(result["pictures"][0]["path"])


def test_the_second_pass_reads_its_own_words(bench: WorkerContext) -> None:
    """`[red:blue:1.0]` is red in the first pass and blue in the second."""
    hires = {"hires_scale": 2, "hires_strength": 0.5}
    both = generated(bench, prompt=f"[{RED}:{BLUE}:1.0]", **hires)
    first = generated(bench, prompt=RED)
    image = bench.home.library.inputs.add(first).sha256
    second = generated(bench, prompt=BLUE, image=image, strength=0, **hires)
    assert np.array_equal(np.asarray(both), np.asarray(second))


def test_prompts_are_painted_as_they_are_written(bench: WorkerContext) -> None:
    """From the words of a request to the same latents as by hand."""
    prompt = f"[{RED}:{BLUE}:1] AND {BLUE} :0.5"
    request = asked(prompt=prompt)
    pipe = pipe_from(POCKET)
    red, blue, fog = (states_of(pipe, words) for words in (RED, BLUE, FOG))
    expected = stepped(pipe, lambda step: [fog, red if step <= 1 else blue, blue], (1.0, 0.5))
    with bench.pipelines.borrow(request) as model:
        trajectory = Trajectory(model, request, encode_prompts(model, request))
        ((_, latents, _),) = Batcher(model, 1).denoise([trajectory])
    assert isinstance(latents, torch.Tensor)
    assert torch.equal(latents, expected)


def test_progress_counts_all_branches(bench: WorkerContext) -> None:
    seen: list[Progress] = []
    spec = {"model": "pocket", "prompt": f"{RED} AND {BLUE}", "steps": STEPS, "seed": SEED}
    spec |= {"prompt_syntax": "auto", "width": SIZE, "height": SIZE}
    generate(bench, spec, seen.append)
    painting = {progress.step for progress in seen if progress.message == "Generating"}
    assert painting == set(range(STEPS + 1))


def test_old_requests_are_read_as_they_were(bench: WorkerContext) -> None:
    """What names no syntax in a file: signs of both, weighed as compel does."""
    stored = validate_stored(GenerationRequest, {"prompt": "a (red:1.3) boat++", "model": "pocket"})
    request = GenerationRequest(prompt='a "red"1.3 boat++', model="pocket")
    with bench.pipelines.borrow(stored) as model:
        old = encode_prompts(model, stored).positives[0].get(0)["prompt_embeds"]
        compel = encode_prompts(model, request).positives[0].get(0)["prompt_embeds"]
    torch.testing.assert_close(old, compel, rtol=1e-4, atol=1e-4)
