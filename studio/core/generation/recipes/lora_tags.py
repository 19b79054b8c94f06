"""Tags of other programs' prompts: taken as far as they go, never lost in silence.

Knows: `<lora:…>`, `<lyco:…>` and `<hypernet:…>` with all that A1111 and its extensions write into
them. Does not know: what becomes of them (draft.py), our own prompts, where a tag that cannot be
read is refused (lora_use.py).

    <lora:ink:0.5:lbw=OUTALL>   half of ink; the blocks are not weighed here
    <lora:ink:te=1:unet=0.5>    as here
    <lora:ink:0.5:unet=1>       a name counts more than a place
    <hypernet:mood:0.3>         not here

Source: A1111's wiki "Extra networks", sd-webui-lora-block-weight's README.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from studio.core.generation.recipes.json_text import as_number

MAX_TAGS = 500  # more are taken out unread
MAX_PARTS = 8
MAX_NESTED = 3
MAX_SHOWN_CHARS = 60
_TAG = re.compile(r"<\s*(lora|lyco|hypernet)\s*(?:>|:([^<>]*)>?)", re.IGNORECASE)


@dataclass(frozen=True)
class ForeignTag:
    """A tag as it was written.

    Attributes:
        text: The tag, shortened.
        name: Of the file; empty where there is none.
        is_lora: Whether it is a LoRA's, or one of its relatives'.
        unet: Its weight in the picture.
        text_encoder: Its weight in the reading of the prompt.
        unread: What else it says.
    """

    text: str
    name: str
    is_lora: bool = True
    unet: float = 1.0
    text_encoder: float = 1.0
    unread: tuple[str, ...] = ()


def split_tags(text: str) -> tuple[str, list[ForeignTag], int]:
    """Return a prompt without its tags, as A1111 leaves it, the tags, and how many are unread."""
    tags: list[ForeignTag] = []
    num_tags = 0
    for _ in range(MAX_NESTED):  # what is left of one tag may make another
        matches = list(_TAG.finditer(text))
        if not matches:
            break
        num_tags += len(matches)
        tags += [_read_tag(match) for match in matches[: MAX_TAGS - len(tags)]]
        text = _TAG.sub("", text).strip()
    else:
        text = re.sub(r"<(?=\s*(?:lora|lyco|hypernet))", "", text, flags=re.IGNORECASE)
    return text, tags, num_tags - len(tags)


def _read_tag(match: re.Match[str]) -> ForeignTag:
    name, *parts = (match[2] or "").split(":", MAX_PARTS)
    positional: list[float] = []
    named: dict[str, float] = {}
    unread = []
    for part in parts:
        key, equals, digits = part.rpartition("=")
        key, number = key.strip().casefold(), as_number(digits.strip())
        if number is not None and key in ("te", "unet") and key not in named:
            named[key] = number
        elif number is not None and not equals and len(positional) < 2:
            positional.append(number)
        elif part.strip():
            unread.append(part.strip()[:MAX_SHOWN_CHARS])
    encoder = named.get("te", positional[0] if positional else 1.0)
    return ForeignTag(
        match[0] if len(match[0]) <= MAX_SHOWN_CHARS else f"{match[0][:MAX_SHOWN_CHARS]} …",
        name.strip(),
        match[1].casefold() != "hypernet",
        named.get("unet", positional[1] if len(positional) > 1 else encoder),
        encoder,
        tuple(unread),
    )
