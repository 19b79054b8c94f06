"""What is likely to spoil a training, image by image, and which edit fixes it.

Knows: rows (with `content_hash` and `token_count` filled) and rules.
Does not know: files; how a fix is applied: the page hands `finding.fix`, or `combine_fixes` of many
findings, to the dataset (storage/datasets), and every fix can be undone.

    kind        problem                                                     fix
    missing     no caption                                                  a captioner
    short       fewer words than `words`                                    a captioner
    same        most images have this very caption                        a captioner
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

from studio.core.base import Spec, spec_field
from studio.core.captions import text
from studio.core.captions.edits import (
    AddAffixes,
    CaptionRow,
    Clean,
    DedupeTags,
    Edit,
    JoinLines,
    SetAside,
    Shorten,
)

Fix = Edit | Literal["caption"]
MIN_IDENTICAL_CAPTIONS = 3  # so many images with one caption are reported


class LintRules(Spec):
    """What a dataset has to fulfil; 0 or an empty text leaves a rule out."""

    trigger: str = spec_field(
        "", title="Trigger word", help="A word that every caption must contain.", max_length=200
    )
    resolution: int = spec_field(
        0,
        title="Resolution",
        help="Images with fewer pixels than this square would be enlarged.",
        ge=0,
        le=16384,
        unit="px",
    )
    tokens: int = spec_field(
        77,
        title="Tokens",
        help="The most a caption may have, including start and end.",
        ge=0,
        le=100_000,
    )
    words: int = spec_field(
        3, title="Words", help="The fewest a caption should have.", ge=0, le=1000
    )


class DatasetLintRules(LintRules):
    """A dataset by its name, and what it has to fulfil."""

    dataset: str = spec_field(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="The name of a folder in home/datasets or of a built-in dataset.",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of one image.

    `file` is the image's key; `fix` an edit for that image, or "caption": have a captioner write
    the caption, or write it by hand.
    """

    kind: str
    file: str
    message: str
    fix: Fix

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as the command line and the endpoint print it."""
        fix = self.fix if isinstance(self.fix, str) else self.fix.model_dump(mode="json")
        return {"kind": self.kind, "file": self.file, "says": self.message, "mend": fix}


def lint(rows: Sequence[CaptionRow], rules: LintRules) -> list[Finding]:
    """Check every image and caption of a dataset.

    Args:
        rows: All rows, with `content_hash` and `token_count` filled.
        rules: What they have to fulfil.

    Returns:
        All findings, in the order of the rows.
    """
    common_caption, common_count = _find_common_caption(rows)
    originals = _choose_originals(rows)
    findings: list[Finding] = []
    for row in rows:
        problems = list(_lint_image(row, rules, originals))
        if not row.image_error:
            problems += _lint_caption(row, rules, common_caption, common_count, len(rows))
        findings += [Finding(kind, row.key, message, fix) for kind, message, fix in problems]
    return findings


def combine_fixes(findings: Iterable[Finding]) -> tuple[Edit, list[str]] | None:
    """Combine findings of one kind into one edit.

    Returns:
        The edit and the keys of its images; None where a captioner is needed, where the findings
        are of several kinds, or where there are none.
    """
    findings = list(findings)
    if len({finding.kind for finding in findings}) != 1:
        return None
    fix = findings[0].fix
    if fix == "caption":
        return None
    keys = list(dict.fromkeys(finding.file for finding in findings))
    if isinstance(fix, SetAside):
        fix = SetAside(keys=tuple(keys))
    return fix, keys


def _find_common_caption(rows: Sequence[CaptionRow]) -> tuple[str | None, int]:
    """Return the caption that most images share and how many do; (None, 0) if there is none."""
    caption_counts = Counter(row.caption for row in rows if row.caption)
    if not caption_counts:
        return None, 0
    ((caption, count),) = caption_counts.most_common(1)
    if count < MIN_IDENTICAL_CAPTIONS or count * 2 <= len(rows):
        return None, 0
    return caption, count


def _choose_originals(rows: Sequence[CaptionRow]) -> dict[str, str]:
    """Return which of equal files stays, by hash: the first with a caption, else the first."""
    originals: dict[str, CaptionRow] = {}
    for row in rows:
        if not row.content_hash:
            continue
        original = originals.get(row.content_hash)
        if original is None or (row.caption and not original.caption):
            originals[row.content_hash] = row
    return {content_hash: row.key for content_hash, row in originals.items()}


def _lint_image(
    row: CaptionRow, rules: LintRules, originals: dict[str, str]
) -> Iterable[tuple[str, str, Fix]]:
    set_aside = SetAside(keys=(row.key,))
    if row.image_error:
        yield "broken", row.image_error, set_aside
        return
    if row.content_hash and originals[row.content_hash] != row.key:
        yield "duplicate", f"is the same file as {originals[row.content_hash]}.", set_aside
    if row.width * row.height < rules.resolution**2:
        message = (
            f"is only {row.width} x {row.height} pixels large and would be enlarged to "
            f"{rules.resolution} x {rules.resolution}."
        )
        yield "small", message, set_aside


def _lint_caption(
    row: CaptionRow, rules: LintRules, common_caption: str | None, common_count: int, total: int
) -> Iterable[tuple[str, str, Fix]]:
    if row.caption_error:
        yield "unreadable", row.caption_error, "caption"
        return
    if not row.caption:
        fallback = ""
        if row.concept and not row.has_caption_file:
            fallback = f"; the name of its folder, {row.concept!r}, would be used"
        yield "missing", f"has no caption{fallback}.", "caption"
        return
    if row.caption == common_caption:
        yield "same", f"{common_count} of {total} images have exactly this caption.", "caption"
    word_count = len(row.caption.split())
    if word_count < rules.words:
        unit = "word" if word_count == 1 else "words"
        yield "short", f"its caption has {word_count} {unit}.", "caption"
    trigger = rules.trigger.strip()
    if trigger and not text.has_words(row.caption, trigger):
        yield "trigger", f"its caption lacks {trigger}.", AddAffixes(trigger=rules.trigger)
    if rules.tokens and row.token_count > rules.tokens:
        message = f"its caption has {row.token_count} tokens, of which {rules.tokens} are read."
        yield "long", message, Shorten(tokens=max(3, rules.tokens))
    if row.extra_lines:
        message = "its caption has lines below the first; trainers read only the first."
        yield "lines", message, JoinLines()
    if text.deduplicate_tags(row.caption) != row.caption:
        yield "twice", "its caption has a tag twice.", DedupeTags()
    has_extra_spaces = text.collapse_whitespace(row.caption) != row.caption
    has_empty_tags = any(not part.strip() for part in row.caption.split(","))
    if has_extra_spaces or has_empty_tags:
        yield "untidy", "its caption has double spaces or empty tags.", Clean()
