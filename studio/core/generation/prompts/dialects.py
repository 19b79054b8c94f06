"""Which grammar a prompt is read by, and what it comes to.

Knows: the grammars by name, the signs that only compel has. Does not know: how any of them reads,
tokens.

    A1111     brackets that weigh, AND, BREAK, [a:b:0.5], [a|b]        a1111_dialect.py
    compel    word++, (a b)1.3, .blend(), .and(), .swap()              compel_dialect.py
    both      A1111's and compel's signs at once, as the studio read them at first (former.py)
    auto      A1111, unless a form stands there that only compel has
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, get_args

from studio.core.generation import lora_use
from studio.core.generation.prompts import former
from studio.core.generation.prompts.a1111_dialect import plan_branches
from studio.core.generation.prompts.a1111_schedules import Pass
from studio.core.generation.prompts.characters import reject_bad_characters, reject_unknown_tags
from studio.core.generation.prompts.compel_dialect import parse_wording
from studio.core.generation.prompts.plan import Branch, Dialect, Phase, PromptPlan

PromptSyntax = Literal["auto", "A1111", "compel", "both"]
Emphasis = Literal["Original", "No norm", "Ignore", "None", "compel"]
PROMPT_SYNTAXES: tuple[str, ...] = get_args(PromptSyntax)
EMPHASES: tuple[str, ...] = get_args(Emphasis)

# Stands for the steps of a pass where only the words matter.
ANY_STEPS = 20
LONGEST_PASS_STEPS = 150  # a prompt that can be read for these can be for fewer
MAX_CACHED_PLANS = 512
# So many letters are never more tokens than one chunk holds: there every grammar cuts alike.
MAX_SHORT_BYTES = 75

# Directly behind what it belongs to and before its bracket: `trees.and (x)` are words.
_METHOD_CALL = re.compile(r"""\)\.(?:blend|and|add)\(|[\w)"]\.(?:swap|attend)\(""")
# Two signs and more behind a word of two letters: C++, +_+ and 18+ are words. Hyphens before a
# blank, and behind a word that has one itself, are a dash.
_SIGNS = re.compile(r"(?<![+-])(?:\+\++(?=[\s,.;:()]|$)|--+(?=[,.;:)]|$))")
_WORD_END = re.compile(r"[^\W\d_][\w'-]{0,40}[^\W_]$")
MAX_WORD_CHARS = 42
# A whole number there may be a count, and hyphens before a blank a dash.
_WEIGHED_BRACKET = re.compile(
    r"(?<!\\)\)(?:(?:[0-9]+\.[0-9]*|\.[0-9]+|\++)(?=[\s,;)]|\.(?![0-9])|$)|-+(?=[,;.)]|$))"
)
_ONLY_A1111 = re.compile(r":\s*[+-]?[0-9.]+\s*\)|\bBREAK\b|\bAND\b|[:|][^\[\]:|]*\]")


def choose_dialect(text: str) -> Dialect:
    """Return the grammar of a prompt that does not say: in doubt A1111's."""
    if _METHOD_CALL.search(text):
        return "compel"
    is_compel = _has_signed_word(text) or _WEIGHED_BRACKET.search(text)
    return "compel" if is_compel and not _ONLY_A1111.search(text) else "A1111"


def _has_signed_word(text: str) -> bool:
    for signs in _SIGNS.finditer(text):
        word = _WORD_END.search(text[max(0, signs.start() - MAX_WORD_CHARS) : signs.start()])
        if word and not (signs[0][0] == "-" and "-" in word[0]):
            return True
    return False


def plan_prompt(
    text: str,
    steps: int = ANY_STEPS,
    *,
    syntax: PromptSyntax = "auto",
    first_pass_steps: int | None = None,
    is_negative: bool = False,
    emphasis: Emphasis = "Original",
) -> PromptPlan:
    """Parse a prompt, without its LoRA tags, for a pass.

    Args:
        text: The prompt.
        steps: Of the pass, as asked for: a step is a step, also with a sampler that asks twice.
        syntax: The grammar.
        first_pass_steps: Of the pass before it; None where it is the first.
        is_negative: Whether it is a negative prompt: there AND is a word.
        emphasis: "None" leaves A1111's brackets and BREAK as words; what the others do is the
            engine's.

    Raises:
        ValueError: Names what is wrong, and mostly the place (counted from 1).
    """
    reads_brackets = emphasis != "None"
    return _plan(text, Pass(steps, first_pass_steps), syntax, is_negative, reads_brackets)


@lru_cache(maxsize=MAX_CACHED_PLANS)
def _plan(
    text: str, timing: Pass, syntax: PromptSyntax, is_negative: bool, reads_brackets: bool
) -> PromptPlan:
    words, tags = lora_use.extract_tags(text)
    dialect = choose_dialect(words) if syntax == "auto" else syntax
    if tags:
        # Errors first, while the places are those of the text that the user wrote.
        blanked = lora_use.blank_tags(text)
        reject_bad_characters(blanked)
        reject_unknown_tags(blanked)
        if dialect == "both":
            former.parse_words(blanked)
    if dialect == "A1111":
        branches = plan_branches(
            words, timing, is_negative=is_negative, reads_brackets=reads_brackets
        )
    else:
        wording = parse_wording(words) if dialect == "compel" else former.parse_words(words)
        branches = (Branch((Phase(timing.steps, wording),)),)
    return PromptPlan(branches, dialect)


@lru_cache(maxsize=MAX_CACHED_PLANS)
def find_differing_dialect(
    text: str, *, syntax: PromptSyntax, is_negative: bool, emphasis: Emphasis
) -> Dialect | None:
    """Return the grammar of a prompt, or None where it reads as the studio did at first.

    Such a prompt has few enough letters for one chunk of tokens: longer ones are cut apart at other
    places by each grammar.
    """
    plan = plan_prompt(text, syntax=syntax, is_negative=is_negative, emphasis=emphasis)
    if plan.dialect == "both":
        return None
    if _is_long(text):
        return plan.dialect
    try:
        former_plan = plan_prompt(text, syntax="both")
    except ValueError:
        return plan.dialect
    return None if plan.branches == former_plan.branches else plan.dialect


@lru_cache(maxsize=MAX_CACHED_PLANS)
def is_emphasis_read(
    text: str, *, syntax: PromptSyntax, is_negative: bool, emphasis: Emphasis
) -> bool:
    """Return whether the emphasis changes anything: A1111's brackets weigh words, or would.

    Words of any step count, of a second pass too. A long prompt is always cut into chunks in two
    ways: A1111's and, for the emphasis of compel, compel's.
    """
    plan = plan_prompt(text, syntax=syntax, is_negative=is_negative)
    if plan.dialect != "A1111":
        return False
    if _is_long(text):
        return True
    if emphasis == "None":
        bare_plan = plan_prompt(text, syntax=syntax, is_negative=is_negative, emphasis="None")
        return bare_plan != plan
    plans = [
        plan_prompt(
            text,
            LONGEST_PASS_STEPS,
            syntax=syntax,
            is_negative=is_negative,
            first_pass_steps=first_pass_steps,
        )
        for first_pass_steps in (None, LONGEST_PASS_STEPS)
    ]
    wordings = [wording for plan in plans for wording in plan.wordings]
    return any(fragment.weight != 1 for wording in wordings for fragment in wording.fragments)


def _is_long(text: str) -> bool:
    """Whether a prompt may be more than one chunk of tokens."""
    words = lora_use.extract_tags(text)[0]
    return len("".join(words.split()).encode()) > MAX_SHORT_BYTES
