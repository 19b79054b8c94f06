"""LoRAs with their weights: the value, its text forms, tags in a prompt.

Knows: `LoraUse`, how it is written and read. Does not know: which LoRAs the library has
(storage/models/library.py), what they do.

    moon                  weight 1
    moon:0.8              0.8 in the U-Net and in the text encoders
    moon:0.5:1            0.5 in the text encoders, 1 in the U-Net, in A1111's order
    moon:te=0.5:unet=1    the same; `te` alone sets both, as in A1111
    <lora:moon:0.8>       the same as a tag in a prompt; <lyco:…> is taken for it

Source: A1111's wiki "Extra networks" for the tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import field_validator

from studio.core.base import Spec, spec_field, validate
from studio.core.decimals import replace_decimal_comma
from studio.errors import InvalidSpec, quote

MAX_LORAS = 16  # at once
MAX_LORA_WEIGHT = 4.0  # above or below 0
MAX_TAGS_CHARS = 10_000  # of a text of tags
_TAG_PATTERN = re.compile(r"<\s*(?:lora|lyco)\s*(?:>|:([^<>]*)(>?))", re.IGNORECASE)
_NUMBER_PATTERN = re.compile(
    r"\s*[+-]?(?:\d{1,9}\.?\d{0,20}|\.\d{1,20})(?:e[+-]?\d{1,3})?\s*", re.IGNORECASE
)


class LoraUse(Spec):
    """One LoRA with its weights.

    Weight w gives base + w · (effect − base): 0 is the base, 1 the LoRA as it was trained.
    """

    name: str = spec_field(
        ...,
        title="Name",
        min_length=1,
        max_length=200,
        help="A file in home/loras without its extension; in a subfolder also folder/name.",
    )
    unet: float = spec_field(
        1.0,
        title="Weight in the U-Net",
        ge=-MAX_LORA_WEIGHT,
        le=MAX_LORA_WEIGHT,
        step=0.05,
        help="How strongly it affects the image.",
    )
    text_encoder: float = spec_field(
        1.0,
        title="Weight in the text encoder",
        ge=-MAX_LORA_WEIGHT,
        le=MAX_LORA_WEIGHT,
        step=0.05,
        help="How strongly it affects how the prompt is read.",
    )

    @field_validator("name")
    @classmethod
    def _reject_unwritable_name(cls, name: str) -> str:
        if name != name.strip() or re.search(r"[<>:\x00-\x1f]", name):
            raise ValueError(
                f"{quote(name)} has characters that a tag cannot contain (<, >, :, spaces at "
                "either end)."
            )
        return name

    def __str__(self) -> str:
        """Return the shortest text that `parse_loras` reads back to the last bit."""
        unet = f"{self.unet!r}".removesuffix(".0")
        encoder = f"{self.text_encoder!r}".removesuffix(".0")
        if unet == encoder:
            return f"{self.name}:{unet}"
        return f"{self.name}:{encoder}:{unet}"

    @property
    def tag(self) -> str:
        """The tag that stands for it in a prompt."""
        return f"<lora:{self}>"

    @property
    def is_inactive(self) -> bool:
        """Whether it changes nothing."""
        return not self.unet and not self.text_encoder


def extract_tags(text: str) -> tuple[str, tuple[LoraUse, ...]]:
    """Return a prompt without its tags, as A1111 leaves it (the ends stripped), and the tags.

    Raises ValueError with the place of a tag that cannot be read (counted from 1).
    """
    uses = tuple(_parse_tag(tag) for tag in _TAG_PATTERN.finditer(text))
    if not uses:
        return text, ()
    return _TAG_PATTERN.sub("", text).strip(), uses


def blank_tags(text: str) -> str:
    """Return a prompt with blanks for its tags, so that all other characters keep their places."""
    return _TAG_PATTERN.sub(lambda tag: " " * len(tag[0]), text)


def parse_loras(value: Any) -> tuple[LoraUse, ...]:
    """Return the LoRAs in a value from outside.

    Args:
        value: A list of uses, mappings or texts, or one text of tags.

    Raises:
        ValueError: It names what is wrong.
    """
    if isinstance(value, str):
        if len(value) > MAX_TAGS_CHARS:
            raise ValueError(
                f"must be at most {MAX_TAGS_CHARS:,} characters long, but has {len(value):,}."
            )
        remainder, uses = extract_tags(value)
        if remainder.strip(" ,\n\t"):
            raise ValueError(f"{quote(remainder.strip(' ,'))} is not a tag; write <lora:name:0.8>.")
        return uses
    if not isinstance(value, list | tuple):
        raise ValueError(
            f"must be a list or text with tags (you entered a value of type "
            f"{type(value).__name__})."
        )
    if len(value) > MAX_LORAS:
        raise ValueError(f"at most {MAX_LORAS} are allowed (you entered {len(value)}).")
    return tuple(_parse_item(item, number) for number, item in enumerate(value, 1))


def _parse_item(item: Any, position: int) -> LoraUse:
    if isinstance(item, LoraUse):
        return item
    try:
        if isinstance(item, str):
            tag = _TAG_PATTERN.fullmatch(item.strip())
            return _parse_tag(tag) if tag else _parse_use(item)
        if isinstance(item, Mapping) and all(isinstance(key, str) for key in item):
            return validate(LoraUse, item)
    except InvalidSpec as error:
        raise ValueError(f"number {position}: {' '.join(error.faults)}") from None
    except ValueError as error:
        raise ValueError(f"number {position}: {error}") from None
    raise ValueError(
        f"number {position} must be a name with weights (you entered a value of "
        f"type {type(item).__name__})."
    )


def _parse_tag(tag: re.Match[str]) -> LoraUse:
    where = f"{quote(tag[0])} at character {tag.start() + 1}"
    if tag[1] is None:
        raise ValueError(f"the tag {where} names no LoRA; write <lora:name:0.8>.")
    if tag[2] != ">":
        raise ValueError(f"the tag {where} is not closed; write <lora:name:0.8>.")
    try:
        return _parse_use(tag[1])
    except (InvalidSpec, ValueError) as error:
        raise ValueError(f"the tag {where} cannot be read: {error}".replace("\n", " ")) from None


def _parse_use(text: str) -> LoraUse:
    """Read `name:0.8` and its relatives. Raises ValueError and InvalidSpec."""
    name, *parts = text.split(":")
    positional: list[float] = []
    keywords: dict[str, float] = {}
    for part in parts:
        key, equals, number = part.rpartition("=")
        key, number = key.strip(), replace_decimal_comma(number)
        if not _NUMBER_PATTERN.fullmatch(number):
            raise ValueError(
                f"{quote(number.strip())} is not a weight; write name:0.8 or name:te:unet."
            )
        if equals and key in ("te", "unet") and key not in keywords:
            keywords[key] = float(number)
        elif not equals and not keywords and len(positional) < 2:
            positional.append(float(number))
        else:
            raise ValueError(
                f"{quote(part.strip())} is one part too many; write name:0.8, name:te:unet or "
                "name:te=0.5:unet=1."
            )
    encoder = keywords.get("te", positional[0] if positional else 1.0)
    unet = keywords.get("unet", positional[1] if len(positional) > 1 else encoder)
    return validate(LoraUse, {"name": name.strip(), "unet": unet, "text_encoder": encoder})
