"""Prompts as they are typed → as they are painted: styles applied, templates filled in.

Knows: the order (styles first, templates then), which fields are meant, what errors say. Does not
know: the rest of a request, files.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.core.base import Spec, spec_field
from studio.core.generation.templates import writer
from studio.core.generation.templates.prompt_files import PromptFiles, Style, find_alike
from studio.core.generation.templates.styles import apply_styles
from studio.errors import InvalidSpec, list_alternatives, quote

PROMPT_TITLES = ("Prompt", "Negative prompt")
MAX_STYLES = 32  # at once


class PromptOrigin(Spec):
    """What was typed, where what is painted is something else."""

    prompt: str = spec_field("", title="Template", max_length=10_000, help="As it was typed.")
    negative_prompt: str = spec_field(
        "", title="Negative Template", max_length=10_000, help="As it was typed."
    )
    styles: tuple[str, ...] = spec_field((), title="Styles", help="Those that were applied.")


def find_styles(names: Sequence[str], files: PromptFiles) -> list[Style]:
    """Return styles by name. Raises InvalidSpec, which names all that are not there."""
    known = files.list_styles()
    faults = [
        f"Styles: there is no style {quote(name)}; available: "
        f"{list_alternatives(find_alike(name, known), known)}."
        for name in names
        if name not in known
    ]
    if faults:
        raise InvalidSpec(faults)
    return [files.get_style(name) for name in names]


def write_prompts(origin: PromptOrigin, seed: int, files: PromptFiles) -> tuple[str, str]:
    """Return both prompts as they are painted with a seed.

    Raises:
        InvalidSpec: A style or a wildcard is not there, a template cannot be filled in.
    """
    styles = find_styles(origin.styles, files)
    typed = apply_styles(styles, origin.prompt, origin.negative_prompt)
    faults: list[str] = []
    for title, text in zip(PROMPT_TITLES, typed):
        try:
            faults += [f"{title}: {fault}" for fault in writer.find_missing_wildcards(text, files)]
        except ValueError as error:
            faults.append(f"{title}: {error}")
    if faults:
        raise InvalidSpec(faults)
    written = []
    for title, text in zip(PROMPT_TITLES, typed):
        try:
            written.append(writer.fill_template(text, seed, files))
        except ValueError as error:
            raise InvalidSpec([f"{title}: {error}"]) from None
    return written[0], written[1]
