"""Which LoRAs paint along and how strongly: the value, its text forms, tags in a prompt.

Knows: `LoraUse`, how it is written and read. Does not know: which LoRAs are here (storage/models/library.py), what they do.

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

from studio.core.base import Value, check, setting
from studio.errors import InvalidSpec

MOST = 16  # LoRAs at once
LONGEST = 10_000  # characters of a text of tags
_TAG = re.compile(r"<\s*(?:lora|lyco)\s*(?:>|:([^<>]*)(>?))", re.IGNORECASE)
_NUMBER = re.compile(
    r"\s*[+-]?(?:\d{1,9}\.?\d{0,20}|\.\d{1,20})(?:e[+-]?\d{1,3})?\s*", re.IGNORECASE
)


class LoraUse(Value):
    """One LoRA with its weights. Weight w paints base + w · (effect − base): 0 is the base, 1 the LoRA as it was trained."""

    name: str = setting(
        ...,
        title="Name",
        min_length=1,
        max_length=200,
        help="A file in home/loras without its ending; in a subfolder also folder/name.",
    )
    unet: float = setting(
        1.0,
        title="Weight in the U-Net",
        ge=-4,
        le=4,
        step=0.05,
        help="How strong it is in the picture.",
    )
    text_encoder: float = setting(
        1.0,
        title="Weight in the text encoder",
        ge=-4,
        le=4,
        step=0.05,
        help="How strong it is in the reading of the prompt.",
    )

    @field_validator("name")
    @classmethod
    def _can_be_written(cls, name: str) -> str:
        if name != name.strip() or re.search(r"[<>:\x00-\x1f]", name):
            raise ValueError(
                f"{name!r:.60} has characters that a tag cannot hold (<, >, :, blanks at an end)."
            )
        return name

    def __str__(self) -> str:
        """As short as it can be written: `read` gives the same back, to the last bit."""
        unet, encoder = (
            f"{self.unet!r}".removesuffix(".0"),
            f"{self.text_encoder!r}".removesuffix(".0"),
        )
        return f"{self.name}:{unet}" if unet == encoder else f"{self.name}:{encoder}:{unet}"

    @property
    def tag(self) -> str:
        return f"<lora:{self}>"

    @property
    def off(self) -> bool:
        """Whether it changes nothing."""
        return not self.unet and not self.text_encoder


def lift(text: str) -> tuple[str, tuple[LoraUse, ...]]:
    """A prompt without its tags (as A1111 leaves it; the ends stripped), and the tags.

    Raises ValueError with the place of a tag that cannot be read (counted from 1).
    """
    found = tuple(_tagged(tag) for tag in _TAG.finditer(text))
    return (_TAG.sub("", text).strip(), found) if found else (text, ())


def blank(text: str) -> str:
    """A prompt with spaces in place of its tags, so that all other characters keep their places."""
    return _TAG.sub(lambda tag: " " * len(tag[0]), text)


def read(given: Any) -> tuple[LoraUse, ...]:
    """A list of uses, mappings or texts, or one text of tags. Raises ValueError that names what is wrong."""
    if isinstance(given, str):
        if len(given) > LONGEST:
            raise ValueError(
                f"has to be at most {LONGEST:,} characters long, but has {len(given):,}."
            )
        rest, uses = lift(given)
        if rest.strip(" ,\n\t"):
            raise ValueError(f"{rest.strip(' ,')!r:.40} is no tag; write <lora:name:0.8>.")
        return uses
    if not isinstance(given, list | tuple):
        raise ValueError(f"has to be a list or a text of tags (not {type(given).__name__}).")
    if len(given) > MOST:
        raise ValueError(f"{MOST} at most (not {len(given)}).")
    return tuple(_one(item, number) for number, item in enumerate(given, 1))


def _one(item: Any, number: int) -> LoraUse:
    if isinstance(item, LoraUse):
        return item
    try:
        if isinstance(item, str):
            tag = _TAG.fullmatch(item.strip())
            return _tagged(tag) if tag else _parsed(item)
        if isinstance(item, Mapping) and all(isinstance(key, str) for key in item):
            return check(LoraUse, item)
    except InvalidSpec as error:
        raise ValueError(f"number {number}: {' '.join(error.faults)}") from None
    except ValueError as error:
        raise ValueError(f"number {number}: {error}") from None
    raise ValueError(f"number {number} has to be a name with weights (not {type(item).__name__}).")


def _tagged(tag: re.Match[str]) -> LoraUse:
    where = f"{tag[0]!r:.60} at character {tag.start() + 1}"
    if tag[2] != ">":
        raise ValueError(
            f"the tag {where} is never closed; write <lora:name:0.8>."
            if tag[1] is not None
            else f"the tag {where} names no LoRA; write <lora:name:0.8>."
        )
    try:
        return _parsed(tag[1])
    except (InvalidSpec, ValueError) as error:
        raise ValueError(f"the tag {where} cannot be read: {error}".replace("\n", " ")) from None


def _parsed(text: str) -> LoraUse:
    """`name:0.8` and its relatives. Raises ValueError and InvalidSpec."""
    name, *parts = text.split(":")
    plain: list[float] = []
    named: dict[str, float] = {}
    for part in parts:
        key, equals, number = part.rpartition("=")
        if not _NUMBER.fullmatch(number):
            raise ValueError(
                f"{number.strip()!r:.40} is no weight; write name:0.8 or name:te:unet."
            )
        if equals and key.strip() in ("te", "unet") and key.strip() not in named:
            named[key.strip()] = float(number)
        elif not equals and not named and len(plain) < 2:
            plain.append(float(number))
        else:
            raise ValueError(
                f"{part.strip()!r:.40} is too much; write name:0.8, name:te:unet or name:te=0.5:unet=1."
            )
    encoder = named.get("te", plain[0] if plain else 1.0)
    unet = named.get("unet", plain[1] if len(plain) > 1 else encoder)
    return check(LoraUse, {"name": name.strip(), "unet": unet, "text_encoder": encoder})
