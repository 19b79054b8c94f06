"""The words that a sweep's templates came to, kept with it.

Knows: how they are recorded, and given back to the same cells. Does not know: how words are drawn
(core/generation/templates), axes.

A list of wildcards may change after a sweep was stored; its cells stay what they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.base import Spec, spec_field, validate
from studio.core.generation.request import GenerationRequest, WrittenRequest
from studio.core.generation.templates.prompt_files import PromptFiles
from studio.core.generation.templates.written import PromptOrigin


class SweepWordings(Spec):
    """The words of all cells of one sweep, by their order."""

    spec_digest: str = spec_field(..., title="Digest", max_length=64, help="Of that sweep.")
    words: tuple[tuple[str, str], ...] = spec_field(
        ..., title="Words", help="Prompt, with tags, and negative prompt of each cell."
    )


def hash_spec(values: Mapping[str, Any]) -> str:
    """Return what says that a sweep is the one whose words were recorded."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_out_cell(
    request: GenerationRequest, files: PromptFiles | None, known_words: tuple[str, str] | None
) -> GenerationRequest:
    """Return a cell's request with its words: those that are known, else drawn by its seed.

    Without files and without known words it stays as it is typed.

    Raises InvalidSpec as `GenerationRequest.write_out`.
    """
    if known_words is None or not request.is_open:
        return request.write_out(files) if files else request
    origin = PromptOrigin.model_construct(
        prompt=request.prompt, negative_prompt=request.negative_prompt, styles=request.styles
    )
    values = dict(request) | {"styles": (), "prompt_origin": origin}
    values |= dict(zip(("prompt", "negative_prompt"), known_words))
    return validate(WrittenRequest, values).lift_tags()


def record_words(
    typed: Sequence[GenerationRequest], written: Sequence[GenerationRequest], spec_digest: str
) -> SweepWordings | None:
    """Return the words of all cells; None where no cell has others than are typed."""
    if not any(request.is_open for request in typed) or any(request.is_open for request in written):
        return None
    words = []
    for before, after in zip(typed, written):
        tags = "".join(use.tag for use in after.loras[len(before.loras) :])
        is_changed = before.is_open
        words.append((after.prompt + tags, after.negative_prompt) if is_changed else ("", ""))
    return SweepWordings(spec_digest=spec_digest, words=tuple(words))
