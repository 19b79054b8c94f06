"""Textual inversions against stock pipelines whose matrices have the same rows, placed by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models.embeddings import EmbeddingTokens, LoadedEmbedding
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.sweeps.job import outline_sweep
from studio.errors import BadFile, InvalidSpec
from studio.services.submission import Services
from support.models import POCKET
from support.pickles import read_pickles_here
from support.sentences import refused

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning:torchsde"
)
QUICK: dict[str, Any] = {
    "steps": 2,
    "width": 64,
    "height": 64,
    "scheduler": "Euler",
    "noise_schedule": "Uniform",
    "seed": 3,
    "guidance": 5,
}
POCKET_WIDTH, TOY_WIDTH = 128, 32
STYLE = torch.randn(1, POCKET_WIDTH, generator=torch.Generator().manual_seed(1))
HANDS = torch.randn(3, POCKET_WIDTH, generator=torch.Generator().manual_seed(2))
XL_L = torch.randn(3, TOY_WIDTH, generator=torch.Generator().manual_seed(3))
XL_G = torch.randn(3, TOY_WIDTH, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def shelf(bench: WorkerContext) -> Iterator[Path]:
    """The home's folder with `style` (1 vector), `hands` (3), and `xl` for SDXL's two encoders."""
    folder = bench.settings.embeddings
    folder.mkdir(exist_ok=True)
    save_file({"emb_params": STYLE}, folder / "style.safetensors")
    save_file({"emb_params": HANDS}, folder / "Hands.safetensors")
    save_file({"clip_l": XL_L, "clip_g": XL_G}, folder / "xl.safetensors")
    yield folder
    shutil.rmtree(folder)
    folder.mkdir()


def place_rows(tokenizer: Any, encoder: Any, rows: dict[str, torch.Tensor]) -> None:
    """Put rows into a stock encoder's matrix, under new words `<name0>`, `<name1>` …"""
    for name, vectors in rows.items():
        words = [f"<{name}{number}>" for number in range(len(vectors))]
        assert tokenizer.add_tokens(words) == len(words)
        encoder.resize_token_embeddings(len(tokenizer))
        ids = tokenizer.convert_tokens_to_ids(words)
        with torch.no_grad():
            encoder.get_input_embeddings().weight[ids] = vectors


def make_stock_pocket() -> Any:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(POCKET, dtype=torch.float32)
    place_rows(pipe.tokenizer, pipe.text_encoder, {"style": STYLE, "hands": HANDS})
    return pipe


def make_stock_sdxl(folder: Path) -> Any:
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    place_rows(pipe.tokenizer, pipe.text_encoder, {"xl": XL_L})
    place_rows(pipe.tokenizer_2, pipe.text_encoder_2, {"xl": XL_G})
    return pipe


def call(pipe: Any, **given: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    config = {k: v for k, v in pipe.scheduler.config.items() if k != "use_karras_sigmas"}
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        config, timestep_spacing="linspace"
    )
    return np.asarray(
        pipe(
            generator=torch.Generator().manual_seed(3),
            num_inference_steps=2,
            guidance_scale=5.0,
            width=64,
            height=64,
            **given,
        ).images[0]
    )


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        pytest.param(
            ("a red boat, STYLE", ""), ("a red boat, <style0>", ""), marks=pytest.mark.slow
        ),
        pytest.param(
            ("style boat", "fog, hands"),
            ("<style0> boat", "fog, <hands0><hands1><hands2>"),
            marks=pytest.mark.slow,
        ),
        (
            ("embedding:hands, a boat, embedding:style.pt", "hands style"),
            ("<hands0><hands1><hands2>, a boat, <style0>", "<hands0><hands1><hands2> <style0>"),
        ),
        (("hands", "hands, hands"), ("<hands0><hands1><hands2>", "<hands0><hands1><hands2>, " * 2)),
    ],
)
def test_pocket_is_bitwise(
    shelf: Path, paint: Callable[..., Any], ours: tuple[str, str], stock: tuple[str, str]
) -> None:
    stock = (stock[0], stock[1].removesuffix(", "))
    reference = call(make_stock_pocket(), prompt=stock[0], negative_prompt=stock[1])
    painted = paint(prompt=ours[0], negative_prompt=ours[1], **QUICK)
    assert np.array_equal(painted, reference)


def test_an_embedding_changes_the_picture(shelf: Path, paint: Callable[..., Any]) -> None:
    pictures = [paint(prompt=text, **QUICK) for text in ("a red boat, style", "a red boat, styl")]
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize("negative", [None, "fog, xl"])
def test_sdxl_is_bitwise(
    shelf: Path, toys: Path, paint: Callable[..., Any], negative: str | None
) -> None:
    """Both encoders, and the pooled prompt: the end of the text is no longer its highest id."""
    reference = call(
        make_stock_sdxl(toys / "toy-sdxl"),
        prompt="xl red <xl0><xl1><xl2> boat".removeprefix("xl "),
        negative_prompt=negative and negative.replace("xl", "<xl0><xl1><xl2>"),
    )
    painted = paint(model="toy-sdxl", prompt="red xl boat", negative_prompt=negative or "", **QUICK)
    assert np.array_equal(painted, reference)


def test_clip_skip_weights_and_blends(shelf: Path, bench: WorkerContext) -> None:
    """compel on the stock encoder with the rows placed is the reference."""
    from compel import Compel

    pipe = make_stock_pocket()
    tokens = pipe.tokenizer(
        "a <hands0><hands1><hands2> boat",
        padding="max_length",
        max_length=77,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        states = pipe.text_encoder(tokens, output_hidden_states=True).hidden_states
        skipped = pipe.text_encoder.final_layer_norm(states[-2])
    compel = Compel(pipe.tokenizer, pipe.text_encoder, truncate_long_prompts=False)
    with torch.no_grad():
        weighted = compel("a (<style0>)1.3 boat")
        lowered = compel("a (<hands0><hands1><hands2>)0.6 boat")
        mixed = compel('("a <style0>", "a boat").blend(0.7, 0.3)')
    for text, clip_skip, expected in (
        ("a hands boat", 2, skipped),
        ("a (style:1.3) boat", 1, weighted),
        ("a (embedding:hands:0.6) boat", 1, lowered),
        ('("a style", "a boat").blend(0.7, 0.3)', 1, mixed),
    ):
        request = GenerationRequest(prompt=text, clip_skip=clip_skip, emphasis="compel")
        with bench.pipelines.borrow(request) as model:
            rows = encode_prompts(model, request).positives[0].get(0)["prompt_embeds"]
        assert torch.equal(rows, expected), text


def hand_built(tokenizer: Any, encoder: Any, chunks: list[list[int]]) -> list[torch.Tensor]:
    """The outputs for chunks of ids between begin, end and padding."""
    outputs = []
    for words in chunks:
        row = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
        row += [tokenizer.pad_token_id] * (77 - len(row))
        with torch.no_grad():
            outputs.append(encoder(torch.tensor([row]), output_hidden_states=True))
    return outputs


@pytest.mark.parametrize("syntax", ["A1111", "both"])
def test_a_long_prompt_splits_no_embedding(
    shelf: Path, bench: WorkerContext, syntax: Literal["A1111", "both"]
) -> None:
    """74 words and three vectors: the first vector would still fit, and all three go on to the next chunk."""
    pipe = make_stock_pocket()
    (word,) = pipe.tokenizer("boat", add_special_tokens=False).input_ids
    ids = pipe.tokenizer.convert_tokens_to_ids(["<hands0>", "<hands1>", "<hands2>"])
    first, second = hand_built(pipe.tokenizer, pipe.text_encoder, [[word] * 74, [*ids, word]])
    second = second.last_hidden_state.clone()
    if syntax == "both":  # compel gives every chunk the first one's end
        second[:, 5] = first.last_hidden_state[:, 75]
    request = GenerationRequest(prompt="boat " * 74 + "hands boat", prompt_syntax=syntax)
    with bench.pipelines.borrow(request) as model:
        rows = encode_prompts(model, request).positives[0].get(0)["prompt_embeds"]
    assert torch.equal(rows, torch.cat([first.last_hidden_state, second], dim=1))


def test_a_long_prompts_pooled_one_cuts_no_embedding(
    shelf: Path, toys: Path, bench: WorkerContext
) -> None:
    pipe = make_stock_sdxl(toys / "toy-sdxl")
    (word,) = pipe.tokenizer_2("boat", add_special_tokens=False).input_ids
    (first,) = hand_built(pipe.tokenizer_2, pipe.text_encoder_2, [[word] * 74])
    request = GenerationRequest(model="toy-sdxl", prompt="boat " * 74 + "xl")
    with bench.pipelines.borrow(request) as model:
        pooled = encode_prompts(model, request).positives[0].get(0)["pooled_prompt_embeds"]
    assert torch.equal(pooled, first.text_embeds)


def test_old_configs_pool_at_the_end_of_the_text(
    shelf: Path, toys: Path, bench: WorkerContext
) -> None:
    """SDXL's published config says `eos_token_id: 2`: the highest id, which is an embedding's here."""
    old = bench.settings.models / "old-sdxl"
    shutil.copytree(toys / "toy-sdxl", old)
    config_file = old / "text_encoder_2" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"eos_token_id": 2}))
    try:
        pooled = []
        for name in ("toy-sdxl", "old-sdxl"):
            request = GenerationRequest(model=name, prompt="a red xl boat")
            with bench.pipelines.borrow(request) as model:
                pooled.append(
                    encode_prompts(model, request).positives[0].get(0)["pooled_prompt_embeds"]
                )
                assert name != "old-sdxl" or _find_end_ids(model.text_encoders[1]) == {2}
        assert torch.equal(*pooled)
    finally:
        shutil.rmtree(old)


def _find_end_ids(encoder: Any) -> set[int]:
    return {m.eos_token_id for m in encoder.modules() if hasattr(m, "eos_token_id")}


def test_the_encoder_is_afterwards_what_it_was(shelf: Path, bench: WorkerContext) -> None:
    def digest(encoder: Any) -> str:
        total = hashlib.sha256(repr(encoder).encode())
        for name, tensor in encoder.state_dict().items():
            total.update(name.encode() + tensor.numpy().tobytes())
        return total.hexdigest()

    plain = GenerationRequest(prompt="a boat of its own")
    with bench.pipelines.borrow(plain) as model:
        before = digest(model.text_encoders[0])
        words = model.text_encoders[0].get_input_embeddings()
        conditioning = encode_prompts(model, plain).positives[0].get(0)["prompt_embeds"].clone()
        model.prompt_cache.clear()
    request = GenerationRequest(prompt="hands, style", negative_prompt="style")
    with bench.pipelines.borrow(request) as model:
        encode_prompts(model, request)
        assert digest(model.text_encoders[0]) == before
        assert model.text_encoders[0].get_input_embeddings() is words
    with bench.pipelines.borrow(plain) as model:
        assert not model.embeddings
        assert torch.equal(
            encode_prompts(model, plain).positives[0].get(0)["prompt_embeds"], conditioning
        )


def test_remembered_prompts_go_by_content(shelf: Path, bench: WorkerContext) -> None:
    request = GenerationRequest(prompt="a boat, style")
    rows = []
    for vectors in (STYLE, STYLE + 1):
        save_file({"emb_params": vectors}, shelf / "style.safetensors")
        with bench.pipelines.borrow(request) as model:
            rows.append(encode_prompts(model, request).positives[0].get(0)["prompt_embeds"])
    assert not torch.equal(*rows)


def test_the_digest_counts_the_content(shelf: Path, bench: WorkerContext) -> None:
    def digest(prompt: str) -> str:
        request = GenerationRequest(prompt=prompt).resolve(64, 1)
        return request.digest(bench.pipelines.content_hashes(request))

    request = GenerationRequest(prompt="a boat, STYLE", negative_prompt="embedding:hands")
    hashes = bench.pipelines.content_hashes(request)
    expected = hashlib.sha256((shelf / "style.safetensors").read_bytes()).hexdigest()
    assert hashes["embedding style"] == expected
    assert "embedding Hands" in hashes
    first, plain = digest("a boat, style"), digest("a boat")
    (shelf / "Hands.safetensors").unlink()
    assert digest("a boat, style") == first  # one that is not named does not count
    save_file({"emb_params": STYLE + 1}, shelf / "style.safetensors")
    assert digest("a boat, style") != first
    assert digest("a boat") == plain


def test_notes_and_refusals(
    shelf: Path, bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)

    def run(**spec: Any) -> dict[str, Any]:
        return generate(bench, QUICK | spec, lambda progress: None)

    assert "read as plain words" in run(prompt="a boat, xl")["notes"][0]
    for prompt in ("embedding:xl", "embedding:nope"):
        with refused(InvalidSpec, "Prompt"):
            run(prompt=prompt)
    save_file({"emb_params": STYLE * float("nan")}, shelf / "style.safetensors")
    with refused(BadFile):
        run(prompt="a boat, style")
    torch.save([1], shelf / "odd.pt")
    assert "odd cannot be used" in run(prompt="an odd boat")["notes"][0]
    with refused(InvalidSpec, "Prompt"):
        run(prompt="embedding:odd")


def test_cells_of_a_sweep_are_the_single_pictures(shelf: Path, bench: WorkerContext) -> None:
    def plan(*prompts: str) -> SweepSpec:
        base = {k: v for k, v in QUICK.items() if k != "seed"} | {"prompt": "a boat", "seed": 3}
        axis = {"field": "prompt", "values": list(prompts)}
        return validate(SweepSpec, {"base": base, "axes": [axis]})

    prompts = ("a boat", "a boat, style", "a boat, hands, style")
    cells = outline_sweep(bench, plan(*prompts))["cells"]
    for cell in cells:
        request = validate(ResolvedRequest, cell["request"])
        assert cell["digest"] == request.digest(bench.pipelines.content_hashes(request))
    assert len({cell["digest"] for cell in cells}) == 3
    services = Services(bench.home)
    services.check_plan(plan_sweep(plan(*prompts)))
    with refused(InvalidSpec, "Prompt"):
        services.check_plan(plan_sweep(plan("a boat", "a boat, embedding:nope")))


@pytest.mark.slow
def test_words_that_a_lora_carries_come_with_it(
    shelf: Path, bench: WorkerContext, paint: Callable[..., Any], toys: Path
) -> None:
    """With the LoRA on it is the embedding, without it a plain word."""
    name = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_q"
    layer = diffusers.UNet2DConditionModel.from_pretrained(POCKET / "unet").get_submodule(
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
    )
    rows, columns = layer.weight.shape
    tensors = {
        f"lora_unet_{name}.lora_down.weight": torch.zeros(1, columns),
        f"lora_unet_{name}.lora_up.weight": torch.zeros(rows, 1),
        "<s1>": STYLE[0].clone(),
        "bundle_emb.mystyle.string_to_param.*": STYLE,
    }
    path = bench.settings.loras / "pivotal.safetensors"
    save_file(tensors, path)
    try:
        expected = paint(prompt="a boat, style", **QUICK)
        for word in ("<s1>", "mystyle", "embedding:mystyle"):
            prompt = f"a boat, {word} <lora:pivotal:1>"
            assert np.array_equal(paint(prompt=prompt, **QUICK), expected), word
        assert not np.array_equal(paint(prompt="a boat, mystyle", **QUICK), expected)
    finally:
        path.unlink()


def test_a_pickle_is_read_when_it_is_named(
    shelf: Path, paint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    painted = paint(prompt="a boat, style", **QUICK)
    (shelf / "style.safetensors").unlink()
    torch.save({"string_to_param": {"*": STYLE}, "name": "x"}, shelf / "style.pt")
    assert np.array_equal(paint(prompt="a boat, style", **QUICK), painted)


@pytest.mark.smoke
def test_a_split_moves_before_an_embedding() -> None:
    encoder = torch.nn.Module()
    words = torch.nn.Embedding(10, 4)
    encoder.get_input_embeddings = lambda: words  # type: ignore[assignment]
    tokens = EmbeddingTokens.build(
        encoder,
        {
            "a": LoadedEmbedding("", (torch.ones(3, 4),)),
            "b": LoadedEmbedding("", (torch.ones(2, 4),)),
        },
        0,
    )
    assert tokens.ids == {"a": range(10, 13), "b": range(13, 15)}
    row = [1, 10, 11, 12, 10, 11, 12, 13, 14, 2]
    assert [tokens.move_split(row, split) for split in range(1, 11)] == [
        *(1, 1, 1, 4, 4, 4, 7, 7, 9, 10)
    ]
    assert tokens.hide(row, 8, 7) == [1, 7, 7, 8, 7, 7, 8, 7, 8, 2]
