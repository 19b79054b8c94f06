"""Everything that one can ask of a captioning, said once.

Knows: the settings and which of them go together. Does not know: which captioners there are on this machine, pictures, files; how
texts are put together (caption_text.py).
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from studio.core.base import Value, setting
from studio.core.captions import filter as caption_filter
from studio.core.captions import text as caption_text
from studio.core.captions.text import Mode
from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, ENDPOINT
from studio.errors import InvalidSpec, NotAllowed


class CaptionSpec(Value):
    """Captions to be written by a captioner."""

    dataset: str = setting(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="Whose pictures: the name of a folder in home/datasets.",
    )
    captioner: str = setting(
        DEFAULT_CAPTIONER,
        title="Captioner",
        min_length=1,
        max_length=200,
        help="Who writes: pocket (the embedded one), the name of a folder in home/models, or endpoint.",
    )
    mode: Mode = setting(
        "fill",
        title="Mode",
        help="fill captions what has no caption; replace writes all anew; append adds to "
        "what is there.",
    )
    pictures: tuple[str, ...] = setting(
        (),
        title="Pictures",
        max_length=100_000,
        help="Only these, by their names in the folder; empty is all.",
    )
    filter: str = setting(
        "",
        title="Filter",
        max_length=2000,
        help="Only pictures that it lets through, such as is:missing or tag:moon; empty is all.",
    )
    prefix: str = setting(
        "",
        title="Prefix",
        max_length=500,
        help="Stands before what the captioner says, as it is written here: bring your own space or comma.",
    )
    suffix: str = setting(
        "", title="Suffix", max_length=500, help="Stands behind it, as it is written here."
    )
    trigger: str = setting(
        "",
        title="Trigger word",
        max_length=100,
        help="A rare word that calls the new thing, such as mysks; put before captions that lack it.",
    )
    instruction: str = setting(
        "",
        title="Instruction",
        max_length=4000,
        help="GIT and BLIP: how captions begin, such as a photo of. Florence-2: caption, detailed caption "
        "or more detailed caption. An endpoint: what is asked for. Empty is the captioner's usual.",
    )
    tokens: int | None = setting(
        None,
        title="Longest caption",
        ge=1,
        le=4096,
        unit="tokens",
        help="Captions end there at the latest. Empty is the captioner's usual.",
    )
    batch: int | None = setting(
        None,
        title="At once",
        ge=1,
        le=256,
        help="Pictures in one call of the captioner (batch size): quicker, more memory. Empty is usual.",
    )
    address: str = setting(
        "",
        title="Address",
        max_length=500,
        help="Of an endpoint that speaks as OpenAI's: http://127.0.0.1:1234/v1. Its key is read from the "
        "environment, STUDIO_CAPTION_KEY.",
    )
    model: str = setting(
        "", title="Model at the endpoint", max_length=200, help="What the endpoint calls the model."
    )
    anew: bool = setting(
        False,
        title="Ask anew",
        help="Pictures are captioned again that were captioned before in the same way; "
        "otherwise what was said then is taken.",
    )
    dry_run: bool = setting(
        False,
        title="Only show",
        help="Captions are made and shown beside the present ones; none is written.",
    )

    @field_validator("pictures", mode="before")
    @classmethod
    def _each_once(cls, given: Any) -> Any:
        whole = isinstance(given, (list, tuple)) and all(isinstance(one, str) for one in given)
        return tuple(dict.fromkeys(given)) if whole else given

    @field_validator("prefix", "suffix", "trigger", "model")
    @classmethod
    def _one_line(cls, words: str) -> str:
        if not words.isprintable():
            raise ValueError(f"has to be words on one line (not {words!r:.60}).")
        return words

    @field_validator("filter")
    @classmethod
    def _readable(cls, text: str) -> str:
        try:
            caption_filter.parse(text)
        except InvalidSpec as error:
            raise ValueError(
                " ".join(fault.removeprefix("Filter: ") for fault in error.faults)
            ) from None
        return text

    @field_validator("address")
    @classmethod
    def _an_address(cls, address: str) -> str:
        address = address.strip().rstrip("/")
        if not address:
            return ""
        try:
            parts = urlsplit(address)
            whole = (
                parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            whole = False
        if (
            not whole
            or not address.isprintable()
            or " " in address
            or parts.query
            or parts.fragment
        ):
            raise ValueError(f"has to be like http://127.0.0.1:1234/v1 (not {address!r:.80}).")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "carries a password; leave it out and give the key as STUDIO_CAPTION_KEY in the environment."
            )
        return address

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        faults = []
        for title, value in (
            ("Address", self.address),
            ("Model at the endpoint", self.model.strip()),
        ):
            if self.captioner == ENDPOINT and not value:
                faults.append(f"{title}: is needed for an endpoint.")
            if self.captioner != ENDPOINT and value:
                faults.append(
                    f"{title}: is only for the captioner endpoint (not for {self.captioner!r:.40}); leave it empty."
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def check_guest(self) -> None:
        """Raise NotAllowed if a visitor who is not the owner asks for what only the owner may."""
        if self.captioner == ENDPOINT:
            raise NotAllowed(
                "Captioner: only the owner of this studio may have pictures sent to an endpoint."
            )

    def check_kind(self, kind: str) -> None:
        """Raise InvalidSpec if a captioner of that kind cannot be asked so."""
        info = CAPTIONERS[kind]
        if info.asked == "task" and self.instruction not in ("", *info.tasks):
            tasks = ", ".join(info.tasks)
            raise InvalidSpec(
                [
                    f"Instruction: {info.title} can be asked for {tasks} (not {self.instruction!r:.60})."
                ]
            )

    def caption(self, said: str, before: str) -> str:
        """What a picture's caption becomes, from what the captioner said and the caption that it has."""
        new = caption_text.dressed(caption_text.one_line(said), self.prefix, self.suffix)
        return caption_text.dressed(
            caption_text.merged(before, new, self.mode), trigger=self.trigger
        )
