"""Counts and ids against transformers' CLIPTokenizer, with the vocabulary that came with the studio."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studio.storage.models.token_counter import TokenCounter
from support.examples import examples

pytestmark = pytest.mark.smoke
ASSETS = Path(__file__).resolve().parents[2] / "assets"
REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "clip-tokenizer"
LONG = (
    "masterpiece, best quality, highly detailed photograph of an astronaut riding a horse on mars, "
    "cinematic lighting, 35mm, bokeh"
)
CLIP_COUNTER = TokenCounter()


@cache
def make_stock():
    """CLIP's tokenizer as transformers builds it from the merges alone."""
    from transformers import CLIPTokenizer

    lines = (ASSETS / "clip-tokenizer" / "merges.txt").read_text("utf-8").split("\n")[1:]
    merges = [tuple(line.split()) for line in lines if line]
    # OpenAI's bytes_to_unicode, written out.
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    letters = [chr(byte) for byte in kept] + [chr(256 + n) for n in range(len(others))]
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == 49_408
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=77,
    )


def test_ids_are_clips() -> None:
    assert CLIP_COUNTER.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert CLIP_COUNTER("a photo of a cat") == 7


def test_a_usual_prompt_is_no_longer_called_too_long() -> None:
    assert CLIP_COUNTER(LONG) == 28
    assert TokenCounter(ASSETS / "pocket")(LONG) == 76  # of the embedded model's small vocabulary


@settings(max_examples=examples(200), deadline=None)
@example("It's  a CAFÉ — 2024, naïve 月 <|endoftext|> 🙂\n\tok")
@given(st.text(max_size=60))
def test_any_text_has_the_stock_tokenizers_ids(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()  # halves of characters are no text
    assert CLIP_COUNTER.encode(text) == make_stock()(text, add_special_tokens=False).input_ids
    assert CLIP_COUNTER(text) == len(make_stock()(text).input_ids)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/clip-tokenizer")
def test_the_published_file_has_the_same_ids() -> None:
    from transformers import CLIPTokenizer

    stock = CLIPTokenizer.from_pretrained(REAL)
    for text in (LONG, "a photo of a cat", "naïve 月 🙂 don't 1234", ""):
        assert CLIP_COUNTER.encode(text) == stock(text, add_special_tokens=False).input_ids
