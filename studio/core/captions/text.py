"""Captions as text: parts between commas ("tags"), what is put before and after, how a new text meets an old one.

Knows: only strings; all of it is pure. Does not know: edits as values (caption_edits.py), files. Two tags are the same when they
differ in capitals or outer spaces only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal

Mode = Literal["fill", "replace", "append"]


def tags(caption: str) -> list[str]:
    """`a boat, red,, lake ` → ["a boat", "red", "lake"]."""
    return [tag for part in caption.split(",") if (tag := part.strip())]


def joined(parts: Iterable[str]) -> str:
    """The caption of tags."""
    return ", ".join(parts)


def folded(tag: str) -> str:
    """What is compared of a tag."""
    return tag.strip().casefold()


def counted(captions: Iterable[str]) -> list[tuple[str, int]]:
    """Every tag, as it is written most often, and in how many captions it stands; the most frequent first, then by name."""
    spellings: dict[str, Counter[str]] = {}
    captions_with: Counter[str] = Counter()
    for caption in captions:
        found = tags(caption)
        captions_with.update({folded(tag) for tag in found})
        for tag in found:
            spellings.setdefault(folded(tag), Counter())[tag] += 1
    every = [(spellings[tag].most_common(1)[0][0], count) for tag, count in captions_with.items()]
    return sorted(every, key=lambda one: (-one[1], folded(one[0])))


def without(caption: str, gone: Collection[str]) -> str:
    """The caption without these tags (`gone` is folded); as it was where it has none of them."""
    found = tags(caption)
    kept = [tag for tag in found if folded(tag) not in gone]
    return caption if len(kept) == len(found) else joined(kept)


def renamed(caption: str, old: Collection[str], new: str) -> str:
    """The caption with these tags (`old` is folded) under another name; where that stands already, it stands once."""
    found = tags(caption)
    if not any(folded(tag) in old for tag in found):
        return caption
    made, taken = [], False
    for tag in found:
        if folded(tag) not in old and folded(tag) != folded(new):
            made.append(tag)
        elif not taken:
            made.append(new)
            taken = True
    return joined(made)


def added(caption: str, more: Iterable[str], first: bool) -> str:
    """The caption with tags that it lacks, before or after its own."""
    own = {folded(tag) for tag in tags(caption)}
    lacking = [tag for tag in more if folded(tag) not in own]
    if not lacking:
        return caption
    return joined([*lacking, *tags(caption)] if first else [*tags(caption), *lacking])


def deduplicated(caption: str) -> str:
    """Each tag once, where it stands first."""
    once: dict[str, str] = {}
    for tag in tags(caption):
        once.setdefault(folded(tag), tag)
    return caption if len(once) == len(tags(caption)) else joined(once.values())


def has_words(caption: str, words: str) -> bool:
    """Whether words stand in a caption as whole words, whatever their capitals."""
    return (
        re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", caption, re.IGNORECASE) is not None
    )


def dressed(caption: str, prefix: str = "", suffix: str = "", trigger: str = "") -> str:
    """The caption with what is put before and after it (verbatim: bring your own space or comma), once.

    A trigger word that it lacks is put before all, as a tag: `mysks, a plush toy`.
    """
    made = caption if not prefix or caption.startswith(prefix) else prefix + caption
    made = made if not suffix or made.endswith(suffix) else made + suffix
    if trigger.strip() and not has_words(made, trigger):
        made = joined([trigger.strip(), made.strip()] if made.strip() else [trigger.strip()])
    return made.strip()


def merged(old: str, new: str, mode: Mode, separator: str = ", ") -> str:
    """`fill` writes where there is nothing, `replace` everywhere, `append` after what is there (and nothing twice)."""
    if mode == "replace" or not old:
        return new
    if mode == "fill" or not new or old == new or old.endswith(separator + new):
        return old
    return old + separator + new


def one_line(text: str) -> str:
    """Any text as a caption: line breaks and runs of spaces become one space."""
    return " ".join(text.split())


def clean(caption: str) -> str:
    """Outer and double spaces, empty tags and spaces before commas are gone."""
    return joined(one_line(tag) for tag in tags(caption))


def beginnings(caption: str) -> list[str]:
    """Ever shorter beginnings of a caption: first without its last tags, then without its last words."""
    parts = tags(caption)
    words = (parts[0] if parts else "").split()
    return [
        *(joined(parts[:count]) for count in range(len(parts) - 1, 0, -1)),
        *(" ".join(words[:count]) for count in range(len(words) - 1, 0, -1)),
    ]
