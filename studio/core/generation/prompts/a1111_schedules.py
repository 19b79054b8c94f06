r"""A1111's words that come, go and change while a picture is painted.

Knows: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b|c]`, nested as deep as `MAX_NESTING`.
Does not know: attention, AND, BREAK; brackets without a time are left in the text for them.

    a [b:3]         b from step 4 on
    [a:b:0.5]       a in the first half, b in the second
    [a::5]          a until step 5
    [a|b]           a, b, a, b, …

A time with a dot is a share of the steps, one without is a step; in a second pass both count on
after the first, so that it has begun at step N, and at share 1. As in A1111 v1.10:

- `\[`, `\:`, `\|` and the like are letters;
- a bracket that is not closed, or is none of the forms, is letters, and so is each around it;
- one `|` that stands in no `[a|b]` makes the whole prompt letters, and so does a `\` at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

MAX_NESTING = 60  # brackets within brackets; 1.1 to that power is a weight of 300
MAX_SCHEDULE_CHARS = 150_000  # of all that a prompt comes to over the steps

_TOKEN = re.compile(r"\\.|[^\\\[\]():|]+|[\[\]():|\\]")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


@dataclass(frozen=True)
class Change:
    """`[before:after:when]`."""

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    when: str


@dataclass(frozen=True)
class Alternation:
    """`[a|b|c]`: one after the other, step by step."""

    choices: tuple[tuple[Node, ...], ...]


Node = str | Change | Alternation


@dataclass(frozen=True)
class Pass:
    """How times are read.

    Attributes:
        steps: Of the pass.
        first_pass_steps: Of the pass before it, None where it is the first.
    """

    steps: int
    first_pass_steps: int | None = None

    def find_last_step(self, when: str) -> int:
        """Return the last step before a change; 0 and less has been, `steps` never comes."""
        time = float(when)
        if "." in when:
            share = time - (0.0 if self.first_pass_steps is None else 1.0)
            last_step = share * self.steps
        else:
            last_step = time - (self.first_pass_steps or 0)
        return int(max(-1.0, min(last_step, self.steps)))


@dataclass
class _Bracket:
    """One that is open: what lies between its separators."""

    opening: str
    position: int
    parts: list[list[Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)


def plan_words(text: str, timing: Pass) -> list[tuple[int, str]]:
    """Return what a prompt says up to and with which step, at least one, neighbours different.

    Raises ValueError where brackets lie too deep, or where it comes to too much text.
    """
    nodes = parse_schedule(text) if "[" in text else (text,)
    boundaries = {timing.steps, *_find_boundaries(nodes, timing)}
    phases: list[tuple[int, str]] = []
    for last_step in sorted(boundaries):
        words = "".join(_write(nodes, last_step, timing))
        if phases and phases[-1][1] == words:
            phases.pop()
        phases.append((last_step, words))
    if sum(map(len, {words for _, words in phases})) > MAX_SCHEDULE_CHARS:
        raise ValueError(
            f"the changing words come to more than {MAX_SCHEDULE_CHARS:,} characters over "
            f"{timing.steps} steps; shorten the prompt."
        )
    return phases


@lru_cache(maxsize=128)  # the same for any number of steps
def parse_schedule(text: str) -> tuple[Node, ...]:
    """Return a prompt's letters and its changes; what is none is letters.

    Raises ValueError where brackets lie too deep.
    """
    base: list[Node] = []
    brackets: list[_Bracket] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "\\":
            return (text,)
        if token in "([":
            brackets.append(_Bracket(token, match.start()))
            if len(brackets) > MAX_NESTING:
                raise ValueError(
                    f"brackets are nested more than {MAX_NESTING} deep at character "
                    f"{match.start() + 1}."
                )
        elif token in ":|" and brackets:
            brackets[-1].separators.append(token)
            brackets[-1].parts.append([])
        elif token in ")]":
            nodes = _close(brackets[-1], token) if brackets else None
            if nodes is None:
                _dissolve(brackets, base)
                base.append(token)
            else:
                brackets.pop()
                (brackets[-1].parts[-1] if brackets else base).extend(nodes)
        else:
            (brackets[-1].parts[-1] if brackets else base).append(token)
    _dissolve(brackets, base)
    return (text,) if "|" in base else tuple(base)


def _close(bracket: _Bracket, closing: str) -> list[Node] | None:
    """Return what a bracket comes to, or None where it is not one of the forms."""
    if closing != {"(": ")", "[": "]"}[bracket.opening]:
        return None
    parts, num_separators = bracket.parts, len(bracket.separators)
    kinds = set(bracket.separators)
    if not num_separators or (bracket.opening == "(" and bracket.separators == [":"]):
        return [bracket.opening, *_join(bracket), closing]
    if bracket.opening == "(":
        return None
    if kinds == {"|"}:
        return [Alternation(tuple(map(tuple, parts)))]
    is_text = all(isinstance(node, str) for node in parts[-1])
    when = _WHEN.fullmatch("".join(map(str, parts[-1]))) if is_text else None
    if kinds != {":"} or num_separators > 2 or not when:
        return None
    before = parts[0] if num_separators == 2 else []
    return [Change(tuple(before), tuple(parts[-2]), when[1])]


def _join(bracket: _Bracket) -> Iterator[Node]:
    """Yield all that lies in a bracket, its separators as letters."""
    for separator, part in zip(["", *bracket.separators], bracket.parts, strict=True):
        if separator:
            yield separator
        yield from part


def _dissolve(brackets: list[_Bracket], base: list[Node]) -> None:
    """Make letters of all brackets that are open; what was complete in them stays."""
    for bracket in brackets:
        base.append(bracket.opening)
        base.extend(_join(bracket))
    brackets.clear()


def _find_boundaries(nodes: tuple[Node, ...], timing: Pass) -> Iterator[int]:
    """Yield the steps after which something may change."""
    for node in nodes:
        if isinstance(node, Change):
            last_step = timing.find_last_step(node.when)
            if last_step >= 1:
                yield last_step
            yield from _find_boundaries(node.before, timing)
            yield from _find_boundaries(node.after, timing)
        elif isinstance(node, Alternation):
            yield from range(1, timing.steps + 1)
            for choice in node.choices:
                yield from _find_boundaries(choice, timing)


def _write(nodes: tuple[Node, ...], step: int, timing: Pass) -> Iterator[str]:
    """Yield the letters that hold at a step, counted from 1."""
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Change):
            is_before = step <= timing.find_last_step(node.when)
            yield from _write(node.before if is_before else node.after, step, timing)
        else:
            yield from _write(node.choices[(step - 1) % len(node.choices)], step, timing)
