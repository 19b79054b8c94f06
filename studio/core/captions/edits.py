"""Edits of captions as values: what can be done to many at once, and what comes of it before it is done.

Knows: each edit's fields and its effect on one caption; time limits on patterns. Does not know: files, undo (storage/datasets/history.py).
`changed(edit, rows)` is all: a pure function from an edit and rows to new captions, so that a preview and the deed are the same.

To add an edit: a class here with `kind`, fields and `on(row, see)`, and its name in `EDITS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from studio.core.base import Value, check, setting
from studio.core.captions import safe_regex, text
from studio.core.captions.provenance import Source
from studio.core.captions.text import Mode
from studio.errors import InvalidSpec

LONGEST = 16_000  # characters of a caption that an edit may make
PATIENCE = 5.0  # seconds that one edit's pattern may take over all captions


@dataclass(frozen=True, slots=True)
class Row:
    """What edits, filters and lint see of a picture. `tokens` and `content` are filled where they were asked for.

    `below`: the lines of its caption's file that trainers do not read. `fault`: why its caption cannot be read. `reason`: why the
    picture itself cannot be used.
    """

    key: str
    caption: str = ""
    concept: str = ""
    repeats: int = 1
    width: int = 0
    height: int = 0
    bytes: int = 0
    content: str = ""
    tokens: int = 0
    below: str = ""
    fault: str = ""
    reason: str = ""
    written: bool = True  # whether there is a caption at all; an empty file is one


@dataclass
class See:
    """What an edit may look at beside its row: all rows' tags with their counts, how long a caption is, how much time is left."""

    counts: Mapping[str, int] = field(default_factory=dict)
    tokens: Callable[[str], int] = len
    until: float = 0.0


class Put(Value):
    """Captions for certain pictures, by key: typed by hand, or a model's."""

    kind: Literal["put"] = "put"
    texts: dict[str, str]
    mode: Mode = setting(
        "replace",
        title="Mode",
        help="fill: only where there is none; replace: all; append: after what is there.",
    )
    separator: str = setting(
        ", ", title="Separator", help="Between the old caption and what is appended.", max_length=20
    )

    def on(self, row: Row, see: See) -> str:
        new = self.texts.get(row.key)
        return (
            row.caption
            if new is None
            else text.merged(row.caption, text.one_line(new), self.mode, self.separator)
        )


class Replace(Value):
    """Search and replace."""

    kind: Literal["replace"] = "replace"
    find: str = setting(
        ...,
        title="Find",
        help="Text, or a pattern.",
        min_length=1,
        max_length=safe_regex.LONGEST,
    )
    to: str = setting(
        "",
        title="Replace by",
        help=r"In a pattern \1 or \g<name> stand for its groups.",
        max_length=safe_regex.LONGEST,
    )
    pattern: bool = setting(False, title="Pattern", help="Read it as a regular expression.")
    capitals: bool = setting(True, title="Capitals count", help="Boat is not boat.")
    words: bool = setting(False, title="Whole words", help="Find boat, but not in boathouse.")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        try:
            if self.pattern:
                safe_regex.check(self.find, self.to, self.capitals, self.words)
        except ValueError as error:
            raise ValueError(
                f"Find: {self.find!r:.60} is no pattern that can be used: {error}."
            ) from None
        return self

    def on(self, row: Row, see: See) -> str:
        made = safe_regex.compiled(
            self.find, self.pattern, self.capitals, self.words
        )  # those seen before are kept
        try:
            if (left := see.until - time.monotonic()) <= 0:
                raise TimeoutError
            to = self.to if self.pattern else self.to.replace("\\", r"\\")
            new = str(made.sub(to, row.caption, timeout=left, concurrent=True))
            return row.caption if new == row.caption else text.one_line(new)
        except TimeoutError:
            raise InvalidSpec(
                [
                    f"Find: the pattern {self.find!r:.60} takes longer than {PATIENCE:g} seconds (at {row.key:.80}); "
                    "use a simpler one."
                ]
            ) from None


class RenameTags(Value):
    """Tags under another name; several names may become one."""

    kind: Literal["rename_tags"] = "rename_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)
    to: str = setting(
        ..., title="New name", help="The tag that they become.", min_length=1, max_length=500
    )

    def on(self, row: Row, see: See) -> str:
        return text.renamed(row.caption, {text.folded(tag) for tag in self.tags}, self.to.strip())


class DeleteTags(Value):
    """Tags taken out."""

    kind: Literal["delete_tags"] = "delete_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)

    def on(self, row: Row, see: See) -> str:
        return text.without(row.caption, {text.folded(tag) for tag in self.tags})


class AddTags(Value):
    """Tags put in where they are lacking."""

    kind: Literal["add_tags"] = "add_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)
    first: bool = setting(
        False, title="In front", help="Before the other tags instead of after them."
    )

    def on(self, row: Row, see: See) -> str:
        return text.added(row.caption, self.tags, self.first)


class SortTags(Value):
    """Tags in another order."""

    kind: Literal["sort_tags"] = "sort_tags"
    by: Literal["name", "count", "reverse"] = setting(
        "count", title="By", help="Name; how many captions have it; or turned round."
    )
    keep: int = setting(
        0, title="Keep in front", help="So many tags stay where they are.", ge=0, le=100
    )

    def on(self, row: Row, see: See) -> str:
        found = text.tags(row.caption)
        kept, rest = found[: self.keep], found[self.keep :]
        if self.by == "reverse":
            rest = rest[::-1]
        else:
            rest = sorted(
                rest,
                key=lambda tag: (
                    -see.counts.get(text.folded(tag), 0) * (self.by == "count"),
                    text.folded(tag),
                ),
            )
        return row.caption if kept + rest == found else text.joined(kept + rest)


class DedupeTags(Value):
    """Each tag once."""

    kind: Literal["dedupe_tags"] = "dedupe_tags"

    def on(self, row: Row, see: See) -> str:
        return text.deduplicated(row.caption)


class KeepTags(Value):
    """Only the first tags."""

    kind: Literal["keep_tags"] = "keep_tags"
    count: int = setting(
        10, title="Tags", help="So many of the first tags stay; the others go.", ge=1, le=1000
    )

    def on(self, row: Row, see: See) -> str:
        found = text.tags(row.caption)
        return row.caption if len(found) <= self.count else text.joined(found[: self.count])


class Dress(Value):
    """Words before and after, and a trigger word where it is missing; nothing is put twice."""

    kind: Literal["dress"] = "dress"
    prefix: str = setting(
        "", title="Prefix", help="Put before the caption as it is written here.", max_length=2000
    )
    suffix: str = setting(
        "", title="Suffix", help="Put after the caption as it is written here.", max_length=2000
    )
    trigger: str = setting(
        "",
        title="Trigger word",
        help="Put in front, with a comma, where the caption lacks it.",
        max_length=200,
    )

    def on(self, row: Row, see: See) -> str:
        new = text.dressed(row.caption, self.prefix, self.suffix, self.trigger)
        return row.caption if new == row.caption else text.one_line(new)


class Clean(Value):
    """Double spaces, empty tags and line breaks gone."""

    kind: Literal["clean"] = "clean"

    def on(self, row: Row, see: See) -> str:
        return text.clean(row.caption)


class JoinLines(Value):
    """All lines of a caption's file as one, for trainers read only the first."""

    kind: Literal["join_lines"] = "join_lines"

    def on(self, row: Row, see: See) -> str:
        return text.one_line(f"{row.caption} {row.below}") if row.below else row.caption


class Shorten(Value):
    """The longest beginning, whole tags if it can be, else whole words, that has no more tokens than that."""

    kind: Literal["shorten"] = "shorten"
    tokens: int = setting(
        77, title="Tokens", help="With the two that mark begin and end.", ge=3, le=100_000
    )

    def on(self, row: Row, see: See) -> str:
        if see.tokens(row.caption) <= self.tokens:
            return row.caption
        return next(
            (one for one in text.beginnings(row.caption) if see.tokens(one) <= self.tokens),
            row.caption,
        )


class SetAside(Value):
    """Pictures moved with their captions into the dataset's hidden folder .aside, where nothing reads them. Undone, they return."""

    kind: Literal["set_aside"] = "set_aside"
    keys: tuple[str, ...] = Field(min_length=1, max_length=100_000)


class SetSource(Value):
    """Where pictures come from; what is empty (None) stays as it was."""

    kind: Literal["set_source"] = "set_source"
    source: str | None = Field(None, max_length=2000)
    author: str | None = Field(None, max_length=500)
    licence: str | None = Field(None, max_length=500)
    generated: bool | None = None
    note: str | None = Field(None, max_length=2000)

    def on(self, old: Source) -> Source:
        """The origin of a picture with what is said here."""
        return old.model_copy(update=self.model_dump(exclude={"kind"}, exclude_none=True))


class SetRepeats(Value):
    """How often an epoch shows each picture of one of kohya's folders: the number that the folder's name begins with."""

    kind: Literal["set_repeats"] = "set_repeats"
    folder: str = setting(
        ..., title="Folder", help="Its name, such as 10_moon.", min_length=1, max_length=255
    )
    repeats: int = setting(
        ...,
        title="Repeats",
        help="So often each of its pictures counts in an epoch.",
        ge=1,
        le=10_000,
    )


TextEdit = (
    Put
    | Replace
    | RenameTags
    | DeleteTags
    | AddTags
    | SortTags
    | DedupeTags
    | KeepTags
    | Dress
    | Clean
    | JoinLines
    | Shorten
)
Edit = TextEdit | SetAside | SetSource | SetRepeats
EDITS: dict[str, type[Edit]] = {
    str(made.model_fields["kind"].default): made
    for made in (
        Put,
        Replace,
        RenameTags,
        DeleteTags,
        AddTags,
        SortTags,
        DedupeTags,
        KeepTags,
        Dress,
        Clean,
        JoinLines,
        Shorten,
        SetAside,
        SetSource,
        SetRepeats,
    )
}


def edit_of(values: Mapping[str, Any]) -> Edit:
    """An edit from JSON: `{"kind": "replace", "find": "boat", "to": "ship"}`. Raises InvalidSpec with all that is wrong."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in EDITS:
        raise InvalidSpec([f"Edit: kind has to be one of {', '.join(EDITS)} (not {kind!r:.40})."])
    return check(EDITS[kind], values)


def changed(
    edit: TextEdit,
    rows: Iterable[Row],
    everything: Iterable[Row] = (),
    tokens: Callable[[str], int] = len,
) -> dict[str, str]:
    """New captions of those rows that the edit changes, by key.

    `everything`: all rows of the dataset, for counts of tags; `tokens` counts those of a caption. Raises InvalidSpec for a pattern
    that takes too long or a caption that becomes too long; nothing is changed then.
    """
    counts: dict[str, int] = {}
    if isinstance(edit, SortTags) and edit.by == "count":
        counts = {
            text.folded(tag): count
            for tag, count in text.counted(row.caption for row in everything)
        }
    see, made = See(counts, tokens, time.monotonic() + PATIENCE), {}
    for row in rows:
        new = edit.on(row, see)
        if len(new) > LONGEST:
            raise InvalidSpec(
                [
                    f"The caption of {row.key:.80} would become {len(new):,} characters long; "
                    f"at most {LONGEST:,} can be."
                ]
            )
        if (
            new != row.caption
            or (isinstance(edit, JoinLines) and row.below)
            or (isinstance(edit, Put) and edit.texts.get(row.key) == "" and not row.written)
        ):
            made[row.key] = new
    return made


def title(edit: Edit) -> str:
    """What an edit is called in the history."""
    match edit:
        case Put():
            return (
                f"{len(edit.texts)} captions"
                if len(edit.texts) != 1
                else f"Caption of {next(iter(edit.texts)):.60}"
            )
        case Replace():
            return f"Replace {edit.find!r:.40} by {edit.to!r:.40}"
        case RenameTags():
            return f"Rename {', '.join(edit.tags):.60} to {edit.to:.40}"
        case DeleteTags():
            return f"Delete {', '.join(edit.tags):.80}"
        case AddTags():
            return f"Add {', '.join(edit.tags):.80}"
        case Dress():
            told = edit.model_dump(exclude={"kind"}).items()
            return " · ".join(f"{name} {value!r:.40}" for name, value in told if value) or "Dress"
        case KeepTags():
            return f"Keep the first {edit.count} tags"
        case Shorten():
            return f"Shorten to {edit.tokens} tokens"
        case SetAside():
            return f"Set {len(edit.keys)} pictures aside"
        case SetSource():
            return "Source of pictures"
        case SetRepeats():
            return f"Repeats of {edit.folder:.60}: {edit.repeats:,}"
    return {
        "sort_tags": "Sort tags",
        "dedupe_tags": "Each tag once",
        "clean": "Clean up",
        "join_lines": "Join lines",
    }[edit.kind]
