"""Captions as text: parts between commas ("tags"), affixes, merging an old and a new text.

Knows: only strings; all of it is pure. Does not know: edits as values (edits.py), files.
Two tags are the same when they differ in capitals or outer spaces only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal

MergeMode = Literal["fill", "replace", "append"]


def split_tags(caption: str) -> list[str]:
    """Split a caption at its commas: `a boat, red,, lake ` → ["a boat", "red", "lake"]."""
    parts = [part.strip() for part in caption.split(",")]
    return [part for part in parts if part]


def join_tags(tags: Iterable[str]) -> str:
    """Join tags to a caption, with a comma and a space between them."""
    return ", ".join(tags)


def normalize_tag(tag: str) -> str:
    """Return the form in which tags are compared: stripped and casefolded."""
    return tag.strip().casefold()


def count_tags(captions: Iterable[str]) -> list[tuple[str, int]]:
    """Count in how many captions each tag stands.

    Returns:
        (tag in its most frequent spelling, number of captions) pairs; the most frequent first, then
        by name.
    """
    spellings: dict[str, Counter[str]] = {}
    caption_counts: Counter[str] = Counter()
    for caption in captions:
        tags = split_tags(caption)
        caption_counts.update({normalize_tag(tag) for tag in tags})
        for tag in tags:
            spellings.setdefault(normalize_tag(tag), Counter())[tag] += 1
    counted_tags = [
        (spellings[normalized].most_common(1)[0][0], count)
        for normalized, count in caption_counts.items()
    ]
    return sorted(counted_tags, key=lambda entry: (-entry[1], normalize_tag(entry[0])))


def remove_tags(caption: str, normalized_tags: Collection[str]) -> str:
    """Return the caption without these tags; unchanged where it has none of them.

    Args:
        caption: A caption of tags.
        normalized_tags: The tags to remove, each as `normalize_tag` returns it.
    """
    tags = split_tags(caption)
    remaining = [tag for tag in tags if normalize_tag(tag) not in normalized_tags]
    return caption if len(remaining) == len(tags) else join_tags(remaining)


def rename_tags(caption: str, old_tags: Collection[str], new_tag: str) -> str:
    """Return the caption with tags under another name, which then stands once.

    Args:
        caption: A caption of tags; without any of `old_tags` it stays unchanged.
        old_tags: The tags to rename, each as `normalize_tag` returns it.
        new_tag: Their new name, at the place of the first of them (or of the same tag).
    """
    tags = split_tags(caption)
    if not any(normalize_tag(tag) in old_tags for tag in tags):
        return caption
    merged_names = {*old_tags, normalize_tag(new_tag)}
    renamed: list[str] = []
    has_new_tag = False
    for tag in tags:
        if normalize_tag(tag) not in merged_names:
            renamed.append(tag)
        elif not has_new_tag:
            renamed.append(new_tag)
            has_new_tag = True
    return join_tags(renamed)


def add_tags(caption: str, new_tags: Iterable[str], prepend: bool) -> str:
    """Return the caption with the tags that it lacks, before or after its own."""
    tags = split_tags(caption)
    existing = {normalize_tag(tag) for tag in tags}
    missing = [tag for tag in new_tags if normalize_tag(tag) not in existing]
    if not missing:
        return caption
    return join_tags([*missing, *tags] if prepend else [*tags, *missing])


def deduplicate_tags(caption: str) -> str:
    """Return the caption with each tag once, where it stands first."""
    tags = split_tags(caption)
    first_spellings: dict[str, str] = {}
    for tag in tags:
        first_spellings.setdefault(normalize_tag(tag), tag)
    return caption if len(first_spellings) == len(tags) else join_tags(first_spellings.values())


def has_words(caption: str, words: str) -> bool:
    """Return whether words stand in a caption as whole words; capitals do not count."""
    pattern = rf"(?<!\w){re.escape(words.strip())}(?!\w)"
    return re.search(pattern, caption, re.IGNORECASE) is not None


def guess_trigger(captions: Iterable[str]) -> str:
    """Guess a trigger word: a first tag of one word that all captions share; "" if there is none.

    Empty captions do not count.
    """
    written = [caption for caption in captions if caption]
    first_tag = next(iter(split_tags(written[0])), "") if written else ""
    if " " in first_tag or not all(has_words(caption, first_tag) for caption in written):
        return ""
    return first_tag


def add_affixes(caption: str, prefix: str = "", suffix: str = "", trigger: str = "") -> str:
    """Put text before and after a caption, and a trigger word in front; nothing is put twice.

    Args:
        caption: The caption; it may be empty.
        prefix: Put before it verbatim (bring your own space or comma).
        suffix: Put after it verbatim.
        trigger: A word that is put before all as a tag where the caption lacks it:
            `mysks, a plush toy`.

    Returns:
        The new caption, stripped.
    """
    if prefix and not caption.startswith(prefix):
        caption = prefix + caption
    if suffix and not caption.endswith(suffix):
        caption += suffix
    caption = caption.strip()
    trigger = trigger.strip()
    if not trigger or has_words(caption, trigger):
        return caption
    return join_tags([trigger, caption]) if caption else trigger


def merge_captions(old: str, new: str, mode: MergeMode, separator: str = ", ") -> str:
    """Return what becomes of a caption when a new one is written over it.

    Args:
        old: The caption that is there; may be empty.
        new: The new caption.
        mode: `fill` writes only where there is none, `replace` always, `append` after what is there
            (and nothing twice).
        separator: Between the two with `append`.
    """
    if mode == "replace" or not old:
        return new
    if mode == "fill" or not new or old == new or old.endswith(separator + new):
        return old
    return old + separator + new


def collapse_whitespace(text: str) -> str:
    """Return any text as a caption: line breaks and runs of spaces become one space."""
    return " ".join(text.split())


def clean_caption(caption: str) -> str:
    """Return the caption without outer and double spaces, empty tags and spaces before commas."""
    return join_tags(collapse_whitespace(tag) for tag in split_tags(caption))


def list_truncations(caption: str) -> list[str]:
    """List ever shorter beginnings: first without its last tags, then without its last words."""
    tags = split_tags(caption)
    words = tags[0].split() if tags else []
    by_tags = [join_tags(tags[:count]) for count in range(len(tags) - 1, 0, -1)]
    by_words = [" ".join(words[:count]) for count in range(len(words) - 1, 0, -1)]
    return by_tags + by_words
