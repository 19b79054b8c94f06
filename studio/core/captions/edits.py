"""Edits of captions as values: what can be done to many at once, and its result before it is done.

Knows: each edit's fields and its effect on one caption; the time limit on patterns.
Does not know: files, undo (storage/datasets/history.py).

`edit_captions(edit, rows)` is a pure function from an edit and rows to new captions, so a preview
shows exactly what the edit then does.

To add an edit: a class here with `kind`, fields and `apply(row, context)`, and an entry in `EDITS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from studio.core.base import Spec, spec_field, validate
from studio.core.captions import safe_regex, text
from studio.core.captions.provenance import Source
from studio.core.captions.text import MergeMode
from studio.errors import InvalidSpec, quote

MAX_CAPTION_CHARACTERS = 16_000  # characters of a caption that an edit may make
PATTERN_TIMEOUT_SECONDS = 5.0  # seconds that one edit's pattern may take over all captions


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """What edits, filters and lint see of an image.

    `token_count` and `content_hash` are filled only where the caller needs them. `extra_lines`:
    the lines of its caption's file that trainers do not read. `caption_error`: why its caption
    cannot be read. `image_error`: why the image itself cannot be used.
    """

    key: str
    caption: str = ""
    concept: str = ""
    repeats: int = 1
    width: int = 0
    height: int = 0
    file_size: int = 0
    content_hash: str = ""
    token_count: int = 0
    extra_lines: str = ""
    caption_error: str = ""
    image_error: str = ""
    has_caption_file: bool = True  # whether there is a caption at all; an empty file is one


@dataclass
class EditContext:
    """What an edit may look at beside its row."""

    tag_counts: Mapping[str, int] = field(default_factory=dict)  # of all rows, by normalized tag
    count_tokens: Callable[[str], int] = len
    deadline: float = 0.0  # for patterns, on the clock of time.monotonic()


class SetCaptions(Spec):
    """Captions for certain images, by key: typed by hand, or a model's."""

    kind: Literal["put"] = "put"
    texts: dict[str, str]
    mode: MergeMode = spec_field(
        "replace",
        title="Mode",
        help="fill writes only missing captions; replace writes all; append adds to them.",
    )
    separator: str = spec_field(
        ", ", title="Separator", help="Between the old caption and what is appended.", max_length=20
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the new caption of the row, merged with the old one as `mode` says."""
        new_text = self.texts.get(row.key)
        if new_text is None:
            return row.caption
        new = text.collapse_whitespace(new_text)
        return text.merge_captions(row.caption, new, self.mode, self.separator)


class Replace(Spec):
    """Search and replace."""

    kind: Literal["replace"] = "replace"
    find: str = spec_field(
        ...,
        title="Find",
        help="Text or a regular expression.",
        min_length=1,
        max_length=safe_regex.MAX_PATTERN_CHARACTERS,
    )
    to: str = spec_field(
        "",
        title="Replace with",
        help=r"In a regular expression, \1 or \g<name> stand for its groups.",
        max_length=safe_regex.MAX_PATTERN_CHARACTERS,
    )
    pattern: bool = spec_field(False, title="Pattern", help="Treats Find as a regular expression.")
    capitals: bool = spec_field(True, title="Match case", help="Treats Boat and boat as different.")
    words: bool = spec_field(False, title="Whole words", help="Finds boat, but not boathouse.")

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        try:
            if self.pattern:
                safe_regex.check_pattern(self.find, self.to, self.capitals, self.words)
        except ValueError as error:
            raise ValueError(
                f"Find: {quote(self.find)} is not a usable regular expression: {error}."
            ) from None
        return self

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption after the replacement; stops at the context's deadline."""
        # The library caches patterns, so compiling per row costs nothing.
        pattern = safe_regex.compile_pattern(self.find, self.pattern, self.capitals, self.words)
        replacement = self.to if self.pattern else self.to.replace("\\", r"\\")
        try:
            timeout = context.deadline - time.monotonic()
            if timeout <= 0:
                raise TimeoutError
            new = str(pattern.sub(replacement, row.caption, timeout=timeout, concurrent=True))
        except TimeoutError:
            raise InvalidSpec(
                [
                    f"Find: the pattern {quote(self.find)} takes longer than "
                    f"{PATTERN_TIMEOUT_SECONDS:g} seconds (at {row.key:.80}); use a simpler one."
                ]
            ) from None
        return row.caption if new == row.caption else text.collapse_whitespace(new)


class RenameTags(Spec):
    """Tags under another name; several names may become one."""

    kind: Literal["rename_tags"] = "rename_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)
    to: str = spec_field(
        ..., title="New name", help="What the tags become.", min_length=1, max_length=500
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption with the tags under their new name."""
        old_tags = {text.normalize_tag(tag) for tag in self.tags}
        return text.rename_tags(row.caption, old_tags, self.to.strip())


class DeleteTags(Spec):
    """Tags taken out."""

    kind: Literal["delete_tags"] = "delete_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption without the tags."""
        return text.remove_tags(row.caption, {text.normalize_tag(tag) for tag in self.tags})


class AddTags(Spec):
    """Tags put in where they are lacking."""

    kind: Literal["add_tags"] = "add_tags"
    tags: tuple[str, ...] = Field(min_length=1, max_length=1000)
    first: bool = spec_field(
        False, title="In front", help="Before the other tags instead of after them."
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption with the tags that it lacks."""
        return text.add_tags(row.caption, self.tags, self.first)


class SortTags(Spec):
    """Tags in another order."""

    kind: Literal["sort_tags"] = "sort_tags"
    by: Literal["name", "count", "reverse"] = spec_field(
        "count",
        title="By",
        help="name: A to Z; count: most frequent first; reverse: in reverse order.",
    )
    keep: int = spec_field(
        0, title="Keep in front", help="How many tags stay in place.", ge=0, le=100
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption with its tags sorted behind the first `keep`."""
        tags = text.split_tags(row.caption)
        movable = tags[self.keep :]

        def by_count(tag: str) -> tuple[int, str]:
            normalized = text.normalize_tag(tag)
            return -context.tag_counts.get(normalized, 0), normalized

        match self.by:
            case "reverse":
                movable.reverse()
            case "count":
                movable.sort(key=by_count)
            case "name":
                movable.sort(key=text.normalize_tag)
        sorted_tags = tags[: self.keep] + movable
        return row.caption if sorted_tags == tags else text.join_tags(sorted_tags)


class DedupeTags(Spec):
    """Each tag once."""

    kind: Literal["dedupe_tags"] = "dedupe_tags"

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption with each tag once."""
        return text.deduplicate_tags(row.caption)


class KeepTags(Spec):
    """Only the first tags."""

    kind: Literal["keep_tags"] = "keep_tags"
    count: int = spec_field(
        10, title="Tags", help="How many of the first tags stay.", ge=1, le=1000
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the first tags of the row's caption."""
        tags = text.split_tags(row.caption)
        return row.caption if len(tags) <= self.count else text.join_tags(tags[: self.count])


class AddAffixes(Spec):
    """Words before and after, and a trigger word where it is missing; nothing is put twice."""

    kind: Literal["dress"] = "dress"
    prefix: str = spec_field(
        "",
        title="Prefix",
        help="Added in front of the caption exactly as written.",
        max_length=2000,
    )
    suffix: str = spec_field(
        "", title="Suffix", help="Added after the caption exactly as written.", max_length=2000
    )
    trigger: str = spec_field(
        "",
        title="Trigger word",
        help="Added in front, with a comma, if the caption lacks it.",
        max_length=200,
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption with prefix, suffix and trigger word, each once."""
        new = text.add_affixes(row.caption, self.prefix, self.suffix, self.trigger)
        return row.caption if new == row.caption else text.collapse_whitespace(new)


class Clean(Spec):
    """Double spaces, empty tags and line breaks gone."""

    kind: Literal["clean"] = "clean"

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the row's caption without double spaces, empty tags and line breaks."""
        return text.clean_caption(row.caption)


class JoinLines(Spec):
    """All lines of a caption's file as one, because trainers read only the first."""

    kind: Literal["join_lines"] = "join_lines"

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return all lines of the row's caption file as one."""
        if not row.extra_lines:
            return row.caption
        return text.collapse_whitespace(f"{row.caption} {row.extra_lines}")


class Shorten(Spec):
    """The longest beginning that fits a number of tokens: of whole tags if possible, else words."""

    kind: Literal["shorten"] = "shorten"
    tokens: int = spec_field(
        77,
        title="Tokens",
        help="Including the two that mark the start and the end.",
        ge=3,
        le=100_000,
    )

    def apply(self, row: CaptionRow, context: EditContext) -> str:
        """Return the longest beginning of the row's caption that has few enough tokens."""
        for candidate in (row.caption, *text.list_truncations(row.caption)):
            if context.count_tokens(candidate) <= self.tokens:
                return candidate
        return row.caption


class SetAside(Spec):
    """Images moved with their captions into the dataset's folder .aside, which nothing reads.

    Undoing the edit brings them back.
    """

    kind: Literal["set_aside"] = "set_aside"
    keys: tuple[str, ...] = Field(min_length=1, max_length=100_000)


class SetSource(Spec):
    """Where images come from; a field that is None stays as it was."""

    kind: Literal["set_source"] = "set_source"
    source: str | None = Field(None, max_length=2000)
    author: str | None = Field(None, max_length=500)
    licence: str | None = Field(None, max_length=500)
    generated: bool | None = None
    note: str | None = Field(None, max_length=2000)

    def apply(self, source: Source) -> Source:
        """Return the origin of an image with the fields that are set here."""
        return source.model_copy(update=self.model_dump(exclude={"kind"}, exclude_none=True))


class SetRepeats(Spec):
    """How often an epoch shows each image of one of kohya's folders: the number in its name."""

    kind: Literal["set_repeats"] = "set_repeats"
    folder: str = spec_field(
        ...,
        title="Folder",
        help="The folder's name, such as 10_moon.",
        min_length=1,
        max_length=255,
    )
    repeats: int = spec_field(
        ...,
        title="Repeats",
        help="How many times each of its images counts in an epoch.",
        ge=1,
        le=10_000,
    )


TextEdit = (
    SetCaptions
    | Replace
    | RenameTags
    | DeleteTags
    | AddTags
    | SortTags
    | DedupeTags
    | KeepTags
    | AddAffixes
    | Clean
    | JoinLines
    | Shorten
)
Edit = TextEdit | SetAside | SetSource | SetRepeats
EDITS: dict[str, type[Edit]] = {
    str(edit_class.model_fields["kind"].default): edit_class
    for edit_class in (
        SetCaptions,
        Replace,
        RenameTags,
        DeleteTags,
        AddTags,
        SortTags,
        DedupeTags,
        KeepTags,
        AddAffixes,
        Clean,
        JoinLines,
        Shorten,
        SetAside,
        SetSource,
        SetRepeats,
    )
}


def parse_edit(data: Mapping[str, Any]) -> Edit:
    """Read an edit from JSON values: `{"kind": "replace", "find": "boat", "to": "ship"}`.

    Raises:
        InvalidSpec: `kind` is unknown or fields are wrong; it names all of them.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in EDITS:
        kinds = ", ".join(EDITS)
        raise InvalidSpec([f"Edit: kind must be one of {kinds} (you entered {quote(kind)})."])
    return validate(EDITS[kind], data)


def edit_captions(
    edit: TextEdit,
    rows: Iterable[CaptionRow],
    all_rows: Iterable[CaptionRow] = (),
    count_tokens: Callable[[str], int] = len,
) -> dict[str, str]:
    """Compute the new captions of those rows that an edit changes.

    Args:
        edit: The edit.
        rows: The rows to edit.
        all_rows: All rows of the dataset, for counts of tags.
        count_tokens: Returns the number of tokens of a caption, begin and end included.

    Returns:
        New captions by the key of their row; rows that stay as they are have none.

    Raises:
        InvalidSpec: A pattern takes too long, or a caption becomes too long.
    """
    tag_counts: dict[str, int] = {}
    if isinstance(edit, SortTags) and edit.by == "count":
        counted_tags = text.count_tags(row.caption for row in all_rows)
        tag_counts = {text.normalize_tag(tag): count for tag, count in counted_tags}
    deadline = time.monotonic() + PATTERN_TIMEOUT_SECONDS
    context = EditContext(tag_counts, count_tokens, deadline)
    new_captions: dict[str, str] = {}
    for row in rows:
        new = edit.apply(row, context)
        if len(new) > MAX_CAPTION_CHARACTERS:
            raise InvalidSpec(
                [
                    f"The caption of {row.key:.80} would become {len(new):,} characters long; "
                    f"at most {MAX_CAPTION_CHARACTERS:,} are allowed."
                ]
            )
        if new != row.caption or _writes_same_caption(edit, row):
            new_captions[row.key] = new
    return new_captions


def _writes_same_caption(edit: TextEdit, row: CaptionRow) -> bool:
    """Whether a row's file has to be written although the caption in it stays the same."""
    match edit:
        case JoinLines():
            return bool(row.extra_lines)
        case SetCaptions():
            return edit.texts.get(row.key) == "" and not row.has_caption_file
    return False


def describe_edit(edit: Edit) -> str:
    """Return the title of an edit in the history."""
    match edit:
        case SetCaptions():
            if len(edit.texts) == 1:
                return f"Caption of {next(iter(edit.texts)):.60}"
            return f"{len(edit.texts)} captions"
        case Replace():
            return f"Replace {quote(edit.find)} with {quote(edit.to)}"
        case RenameTags():
            return f"Rename {', '.join(edit.tags):.60} to {edit.to:.40}"
        case DeleteTags():
            return f"Delete {', '.join(edit.tags):.80}"
        case AddTags():
            return f"Add {', '.join(edit.tags):.80}"
        case AddAffixes():
            fields = edit.model_dump(exclude={"kind"}).items()
            return " · ".join(f"{name} {quote(value)}" for name, value in fields if value) or "Text"
        case KeepTags():
            return f"Keep the first {edit.count} tags"
        case Shorten():
            return f"Shorten to {edit.tokens} tokens"
        case SetAside():
            return f"Exclude {len(edit.keys)} images"
        case SetSource():
            return "Image sources"
        case SetRepeats():
            return f"Repeats of {edit.folder:.60}: {edit.repeats:,}"
    return {
        "sort_tags": "Sort tags",
        "dedupe_tags": "Remove duplicate tags",
        "clean": "Clean up",
        "join_lines": "Join lines",
    }[edit.kind]
