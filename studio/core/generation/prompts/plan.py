"""What a prompt comes to: which words are encoded, at which steps, with which weights.

Knows: the values that every grammar is parsed into and that the engine encodes. Does not know: any
grammar (dialects.py names them), tokens, embeddings.

    PromptPlan   branches, each predicted for on its own, added up             a AND b :0.5
    Branch       one weight, and phases one after the other                    [a:b:10]
    Phase        what is encoded up to a step                                  until step 10
    Wording      texts that are encoded apart, then joined or mixed            ("a", "b").blend()
    Text         chunks, each encoded with its own begin and end               a BREAK b
    Chunk        fragments, each with a weight                                 (a:1.2) b
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

# Which grammar a prompt was read by.
Dialect = Literal["A1111", "compel", "both"]


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and its weight (1 is neutral)."""

    text: str
    weight: float


@dataclass(frozen=True)
class Swap:
    """compel's `.swap()`: words that are read in place of others, with the others' attention.

    Attributes:
        original: What the layout comes from.
        edited: What is painted there.
        options: compel's own, such as `t_start`, by name.
    """

    original: tuple[Fragment, ...]
    edited: tuple[Fragment, ...]
    options: tuple[tuple[str, float], ...] = ()


Chunk = tuple[Fragment | Swap, ...]
Text = tuple[Chunk, ...]


@dataclass(frozen=True)
class Wording:
    """What is encoded at one moment.

    Attributes:
        texts: Mostly one; several of compel's are joined.
        join: Whether they are laid end to end ("and") or mixed ("blend").
        weights: One for each text.
        is_normalized: Whether the weights of a blend are scaled to a sum of 1.
        separator: What stands between fragments: compel's are whole words without blanks.
    """

    texts: tuple[Text, ...]
    join: Literal["and", "blend"] = "and"
    weights: tuple[float, ...] = (1.0,)
    is_normalized: bool = True
    separator: str = field(default="", compare=False)

    @property
    def fragments(self) -> Iterator[Fragment]:
        """All fragments, of swaps both sides."""
        for text in self.texts:
            for chunk in text:
                for part in chunk:
                    if isinstance(part, Swap):
                        yield from part.original
                        yield from part.edited
                    else:
                        yield part

    @property
    def is_weighted(self) -> bool:
        """Whether any of it is weighed, joined, mixed, swapped or broken into chunks."""
        return (
            len(self.texts) > 1
            or any(len(text) > 1 for text in self.texts)
            or any(
                isinstance(part, Swap) for text in self.texts for chunk in text for part in chunk
            )
            or any(fragment.weight != 1 for fragment in self.fragments)
        )

    @property
    def plain_text(self) -> str:
        """The words alone, without weights."""
        return " ".join(
            self.separator.join(
                fragment.text
                for part in chunk
                for fragment in (part.edited if isinstance(part, Swap) else (part,))
            )
            for text in self.texts
            for chunk in text
        )


@dataclass(frozen=True)
class Phase:
    """A wording that holds up to and with a step.

    Steps are counted from 0 within the pass, as A1111 compares them: `[a:b:3]` paints four steps
    with a, one more than its documentation says.
    """

    last_step: int
    wording: Wording


@dataclass(frozen=True)
class Branch:
    """A prediction of its own, and how strongly it counts."""

    phases: tuple[Phase, ...]
    weight: float = 1.0

    def find_wording(self, step: int) -> Wording:
        """Return what is read at a step, counted from 0."""
        for phase in self.phases:
            if step <= phase.last_step:
                return phase.wording
        return self.phases[-1].wording


@dataclass(frozen=True)
class PromptPlan:
    """A parsed prompt for a pass of so many steps.

    Attributes:
        branches: Mostly one; A1111's AND makes more.
        dialect: The grammar it was read by.
    """

    branches: tuple[Branch, ...]
    dialect: Dialect

    @property
    def wordings(self) -> tuple[Wording, ...]:
        """All that is ever encoded, each once, in order."""
        phases = (phase for branch in self.branches for phase in branch.phases)
        return tuple(dict.fromkeys(phase.wording for phase in phases))

    @property
    def is_plain(self) -> bool:
        """Whether it is one text without any weight, letter for letter."""
        wordings = self.wordings
        is_single = len(self.branches) == 1 and self.branches[0].weight == 1
        return is_single and len(wordings) == 1 and not wordings[0].is_weighted
