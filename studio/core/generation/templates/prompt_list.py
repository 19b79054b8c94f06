"""Lists of prompts, one a line, as A1111's script "Prompts from file or textbox" reads them.

Knows: plain lines, lines of `--prompt "…" --steps 20`, which of its names are which settings here,
which mean nothing here. Does not know: files, the queue.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.core.base import validate
from studio.core.generation.recipes.sampler_names import read_sampler
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec, quote

MAX_LINES = 1000
MAX_TEXT_CHARS = 2_000_000
# A1111's names → fields; `styles` are names with commas between them.
_FIELD_NAMES = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "styles": "styles",
    "seed": "seed",
    "sampler_name": "scheduler",
    "sampler_index": "scheduler",
    "scheduler": "noise_schedule",
    "batch_size": "batch_size",
    "n_iter": "num_images",
    "steps": "steps",
    "cfg_scale": "guidance",
    "width": "width",
    "height": "height",
    "sd_model": "model",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
    "seed_resize_from_w": "seed_resize_width",
    "seed_resize_from_h": "seed_resize_height",
}
# What A1111 knows and a picture here does not have; each is said.
_IGNORED_NAMES = (
    "outpath_samples",
    "outpath_grids",
    "outpath",
    "prompt_for_display",
    "do_not_save_samples",
    "do_not_save_grid",
    "restore_faces",
    "tiling",
)


@dataclass(frozen=True)
class ListedPrompt:
    """A line of a list.

    Attributes:
        number: Of the line, from 1.
        values: The settings that it says, by field.
        notes: A sentence for each thing that it says and that means nothing here.
    """

    number: int
    values: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())


def parse_prompt_list(text: str) -> list[ListedPrompt]:
    """Read a list; empty lines are left out.

    Raises:
        InvalidSpec: All lines that cannot be read, by number.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidSpec([f"List: has more than {MAX_TEXT_CHARS:,} characters; split it."])
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1)
        if line.strip()
    ]
    if len(lines) > MAX_LINES:
        raise InvalidSpec([f"List: has {len(lines):,} prompts; at most {MAX_LINES:,} are allowed."])
    prompts, faults = [], []
    for number, line in lines:
        try:
            prompts.append(_parse_line(number, line))
        except ValueError as error:
            faults.append(f"Line {number}: {error}")
    if faults:
        raise InvalidSpec(faults)
    return prompts


def build_requests(
    prompts: list[ListedPrompt],
    base: Mapping[str, Any],
    check: Callable[[GenerationRequest], object] = lambda _: None,
) -> list[GenerationRequest]:
    """Return a request for each line.

    Args:
        prompts: The lines.
        base: Settings for what a line does not say.
        check: Raises InvalidSpec for a request that cannot be made here.

    Raises:
        InvalidSpec: All lines that are no request, by number.
    """
    requests, faults = [], []
    for prompt in prompts:
        try:
            request = validate(GenerationRequest, {**base, **prompt.values})
            check(request)
            requests.append(request)
        except InvalidSpec as error:
            faults += [f"Line {prompt.number}: {fault}" for fault in error.faults]
    if faults:
        raise InvalidSpec(faults)
    return requests


def _parse_line(number: int, line: str) -> ListedPrompt:
    """Read one line. Raises ValueError, which names what is wrong."""
    if not line.startswith("--"):
        return ListedPrompt(number, {"prompt": line})
    try:
        words = shlex.split(line)
    except ValueError:
        raise ValueError("a quotation mark is not closed.") from None
    texts: dict[str, str] = {}
    notes: list[str] = []
    position = 0
    while position < len(words):
        flag = words[position]
        name = flag.removeprefix("--").replace("-", "_")
        position += 1
        if not flag.startswith("--"):
            raise ValueError(f"{quote(flag)} belongs to no setting; put --prompt in front of it.")
        value_words = []
        # As there: the words of a prompt may go on until the next sign.
        while position < len(words) and not words[position].startswith("--"):
            value_words.append(words[position])
            position += 1
            if name not in ("prompt", "negative_prompt"):
                break
        if name in _IGNORED_NAMES:
            notes.append(f"Line {number}: --{name} has no meaning here and is ignored.")
        elif name not in _FIELD_NAMES:
            known = ", ".join(f"--{known}" for known in _FIELD_NAMES)
            raise ValueError(f"--{name[:60]} is unknown; available: {known}.")
        elif not value_words:
            raise ValueError(f"--{name} has no value.")
        else:
            texts[_FIELD_NAMES[name]] = " ".join(value_words)
    values: dict[str, Any] = dict(texts)
    if "styles" in texts:
        styles = (style.strip() for style in texts["styles"].split(","))
        values["styles"] = tuple(style for style in styles if style)
    if "scheduler" in texts:
        sampler, schedule = texts["scheduler"], texts.get("noise_schedule", "")
        values |= _read_sampler(sampler, schedule)
        if schedule and read_sampler(sampler).noise_schedule:
            notes.append(
                f"Line {number}: --scheduler {schedule[:60]} is ignored, because the sampler "
                f"{sampler[:60]} already names its schedule."
            )
    return ListedPrompt(number, values, tuple(notes))


def _read_sampler(sampler: str, schedule: str) -> dict[str, Any]:
    """Return what a sampler's name comes to; as in A1111, an old name's schedule goes first."""
    reading = read_sampler(sampler)
    if reading.scheduler is None:  # the request says what there is instead
        return {"scheduler": sampler}
    if schedule and not reading.noise_schedule:
        both = read_sampler(sampler, schedule)
        if both.notes:  # the two do not go together: the request says so
            return {"scheduler": reading.scheduler}
        reading = both
    values: dict[str, Any] = {"scheduler": reading.scheduler}
    if reading.noise_schedule:
        values["noise_schedule"] = reading.noise_schedule
    return values
