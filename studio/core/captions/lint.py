"""What is likely to spoil a training, picture by picture, and which edit mends it.

Knows: rows (their `content` and `tokens` filled) and rules. Does not know: files; how a mend is carried out: the page hands
`finding.mend` to `album.apply(mend, keys=[finding.file])`, or `together` of many. Every mend can be undone.

    kind        what                                                        mend
    missing     no caption                                                  a captioner
    short       fewer words than `words`                                    a captioner
    same        most pictures have this very caption                        a captioner
    unreadable  its caption's file cannot be read                           a captioner
    trigger     the trigger word is missing                                 put it in front
    long        more than `tokens` tokens                                   shorten
    lines       lines below the first, which trainers do not read           join them
    twice       a tag stands twice                                          once
    untidy      double spaces, empty tags                                   clean up
    small       fewer pixels than resolution × resolution                   set aside
    duplicate   the same file as another                                    set aside
    broken      cannot be used                                              set aside
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from studio.core.base import Value, setting
from studio.core.captions import text
from studio.core.captions.edits import (
    Clean,
    DedupeTags,
    Dress,
    Edit,
    JoinLines,
    Row,
    SetAside,
    Shorten,
)

Mend = Edit | Literal["caption"]
LEAST_ALIKE = 3  # pictures with one caption before that is told


class Rules(Value):
    """What is asked of a dataset; 0 or nothing leaves a rule out."""

    trigger: str = setting(
        "", title="Trigger word", help="Has to stand in every caption.", max_length=200
    )
    resolution: int = setting(
        0,
        title="Resolution",
        help="Pictures with fewer pixels than its square are enlarged.",
        ge=0,
        le=16384,
        unit="px",
    )
    tokens: int = setting(
        77,
        title="Tokens",
        help="What a caption may have, begin and end included.",
        ge=0,
        le=100_000,
    )
    words: int = setting(
        3, title="Words", help="What a caption should have at least.", ge=0, le=1000
    )


class DatasetRules(Rules):
    """A dataset by its name, and what is asked of it."""

    dataset: str = setting(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="The name of a folder in home/datasets, or of one that came with the studio.",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """`file` is the picture's key; `mend` an edit for that picture, or "caption": let a captioner write it, or do it by hand."""

    kind: str
    file: str
    says: str
    mend: Mend

    def json(self) -> dict[str, Any]:
        """As the command line and the endpoint tell it."""
        mend = self.mend if isinstance(self.mend, str) else self.mend.model_dump(mode="json")
        return {"kind": self.kind, "file": self.file, "says": self.says, "mend": mend}


def lint(rows: Sequence[Row], rules: Rules) -> list[Finding]:
    """All findings, by file."""
    alike = Counter(row.caption for row in rows if row.caption)
    most, often = next(iter(alike.most_common(1)), ("", 0))
    same = most if often >= LEAST_ALIKE and often * 2 > len(rows) else None
    kept = _kept(rows)
    found: list[Finding] = []
    for row in rows:
        told = [
            *_picture(row, rules, kept),
            *(() if row.reason else _caption(row, rules, same, often, len(rows))),
        ]
        found += [Finding(kind, row.key, says, mend) for kind, says, mend in told]
    return found


def together(findings: Iterable[Finding]) -> tuple[Edit, list[str]] | None:
    """One edit for findings of one kind, and the keys of the pictures; None where a captioner is needed, or there is nothing."""
    chosen = list(findings)
    keys = list(dict.fromkeys(finding.file for finding in chosen))
    mend = chosen[0].mend if chosen else "caption"
    if mend == "caption" or len({finding.kind for finding in chosen}) > 1:
        return None
    return (SetAside(keys=tuple(keys)) if isinstance(mend, SetAside) else mend), keys


def _kept(rows: Sequence[Row]) -> dict[str, str]:
    """Of equal files the one that stays: the first with a caption, else the first. By content."""
    kept: dict[str, Row] = {}
    for row in rows:
        if row.content and (
            row.content not in kept or (row.caption and not kept[row.content].caption)
        ):
            kept[row.content] = row
    return {content: row.key for content, row in kept.items()}


def _picture(row: Row, rules: Rules, kept: dict[str, str]) -> Iterable[tuple[str, str, Mend]]:
    aside = SetAside(keys=(row.key,))
    if row.reason:
        yield "broken", row.reason, aside
        return
    if row.content and kept[row.content] != row.key:
        yield "duplicate", f"is the same file as {kept[row.content]}.", aside
    if row.width * row.height < rules.resolution**2:
        yield (
            "small",
            (
                f"is {row.width} x {row.height} pixels large, fewer than {rules.resolution} x {rules.resolution}: "
                "it would be enlarged."
            ),
            aside,
        )


def _caption(
    row: Row, rules: Rules, same: str | None, often: int, many: int
) -> Iterable[tuple[str, str, Mend]]:
    if row.fault:
        yield "unreadable", row.fault, "caption"
        return
    if not row.caption:
        instead = (
            f"; {row.concept!r}, its folder's name, would be used"
            if row.concept and not row.written
            else ""
        )
        yield "missing", f"has no caption{instead}.", "caption"
        return
    if row.caption == same:
        yield "same", f"{often} of {many} pictures have this very caption.", "caption"
    if (words := len(row.caption.split())) < rules.words:
        yield "short", f"its caption has {words} {'word' if words == 1 else 'words'}.", "caption"
    if rules.trigger.strip() and not text.has_words(row.caption, rules.trigger):
        yield "trigger", f"its caption lacks {rules.trigger.strip()}.", Dress(trigger=rules.trigger)
    if rules.tokens and row.tokens > rules.tokens:
        yield (
            "long",
            f"its caption has {row.tokens} tokens; {rules.tokens} are read.",
            Shorten(tokens=max(3, rules.tokens)),
        )
    if row.below:
        yield (
            "lines",
            "its caption has lines below the first; trainers read only the first.",
            JoinLines(),
        )
    if text.deduplicated(row.caption) != row.caption:
        yield "twice", "its caption has a tag twice.", DedupeTags()
    if text.one_line(row.caption) != row.caption or any(
        not part.strip() for part in row.caption.split(",")
    ):
        yield "untidy", "its caption has double spaces or empty tags.", Clean()
