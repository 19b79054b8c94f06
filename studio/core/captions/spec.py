"""The settings of a captioning job.

Knows: the settings and which of them go together.
Does not know: which captioners are installed, images, files, how texts are joined (text.py).
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from studio.core.base import Spec, spec_field
from studio.core.captions import filter as caption_filter
from studio.core.captions import text as caption_text
from studio.core.captions.text import MergeMode
from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, ENDPOINT
from studio.errors import InvalidSpec, NotAllowed, quote


class CaptionSpec(Spec):
    """A captioning job: which images, which captioner, what becomes of the captions."""

    dataset: str = spec_field(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="The name of a folder of images in home/datasets.",
    )
    captioner: str = spec_field(
        DEFAULT_CAPTIONER,
        title="Captioning model",
        min_length=1,
        max_length=200,
        help="pocket (built in), the name of a folder in home/models, or endpoint.",
    )
    mode: MergeMode = spec_field(
        "fill",
        title="Existing captions",
        help="fill captions images without a caption; replace writes all captions again; append "
        "adds to what is there.",
    )
    pictures: tuple[str, ...] = spec_field(
        (),
        title="Images",
        max_length=100_000,
        help="Only these, by file name. Empty is all.",
    )
    filter: str = spec_field(
        "",
        title="Filter",
        max_length=2000,
        help="Only images that match, such as is:missing or tag:moon. Empty is all.",
    )
    prefix: str = spec_field(
        "",
        title="Prefix",
        max_length=500,
        help="Added in front of each caption exactly as written: include your own space or comma.",
    )
    suffix: str = spec_field(
        "", title="Suffix", max_length=500, help="Added after each caption exactly as written."
    )
    trigger: str = spec_field(
        "",
        title="Trigger word",
        max_length=100,
        help="A rare word that triggers what is learned, such as mysks. It is put in front of "
        "captions that lack it.",
    )
    instruction: str = spec_field(
        "",
        title="Instruction",
        max_length=4000,
        help="GIT and BLIP: how captions begin, such as a photo of. Florence-2: caption, "
        "detailed caption or more detailed caption. Endpoint: what to ask for. Empty is the"
        " model's default.",
    )
    tokens: int | None = spec_field(
        None,
        title="Maximum length",
        ge=1,
        le=4096,
        unit="tokens",
        help="Longer captions are cut off. Empty is the model's default.",
    )
    batch: int | None = spec_field(
        None,
        title="Batch size",
        ge=1,
        le=256,
        help="Images per call of the captioning model. More is faster and needs more memory. "
        "Empty is the default.",
    )
    address: str = spec_field(
        "",
        title="Address",
        max_length=500,
        help="Address of an OpenAI-compatible endpoint, such as http://127.0.0.1:1234/v1. Its "
        "key is read from the environment variable STUDIO_CAPTION_KEY.",
    )
    model: str = spec_field(
        "", title="Endpoint model", max_length=200, help="The model's name at the endpoint."
    )
    anew: bool = spec_field(
        False,
        title="Re-caption",
        help="Also captions images again that were captioned with the same settings before; "
        "otherwise those captions are reused.",
    )
    dry_run: bool = spec_field(
        False,
        title="Preview",
        help="Shows new captions beside the present ones and writes nothing.",
    )

    @field_validator("pictures", mode="before")
    @classmethod
    def _drop_duplicates(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        if not all(isinstance(name, str) for name in value):
            return value
        return tuple(dict.fromkeys(value))

    @field_validator("prefix", "suffix", "trigger", "model")
    @classmethod
    def _check_one_line(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError(f"must be text on one line (you entered {quote(text)}).")
        return text

    @field_validator("filter")
    @classmethod
    def _check_filter(cls, text: str) -> str:
        try:
            caption_filter.parse_filter(text)
        except InvalidSpec as error:
            raise ValueError(
                " ".join(fault.removeprefix("Filter: ") for fault in error.faults)
            ) from None
        return text

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        address = address.strip().rstrip("/")
        if not address:
            return ""
        if not _is_base_url(address):
            raise ValueError(
                f"must be like http://127.0.0.1:1234/v1 (you entered {quote(address)})."
            )
        parts = urlsplit(address)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "contains a password; remove it, and set the environment variable "
                "STUDIO_CAPTION_KEY to the key."
            )
        return address

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
        faults = []
        for title, value in (
            ("Address", self.address),
            ("Endpoint model", self.model.strip()),
        ):
            if self.captioner == ENDPOINT and not value:
                faults.append(f"{title}: required for an endpoint.")
            if self.captioner != ENDPOINT and value:
                faults.append(
                    f"{title}: used only when Captioning model is endpoint (you chose "
                    f"{quote(self.captioner)}); leave it empty."
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def check_guest(self) -> None:
        """Check that a visitor who is not the owner may start this job.

        Raises:
            NotAllowed: Images would be sent to an endpoint.
        """
        if self.captioner == ENDPOINT:
            raise NotAllowed(
                "Captioning model: only the owner of this studio can send images to an endpoint."
            )

    def check_captioner_kind(self, kind: str) -> None:
        """Check that the instruction suits a captioner.

        Args:
            kind: A key of `CAPTIONERS`.

        Raises:
            InvalidSpec: Captioners of this kind have a list of tasks, and the instruction is none.
        """
        info = CAPTIONERS[kind]
        if info.instruction_kind == "task" and self.instruction not in ("", *info.tasks):
            tasks = ", ".join(info.tasks)
            raise InvalidSpec(
                [
                    f"Instruction: with {info.title}, must be one of {tasks} "
                    f"(you entered {quote(self.instruction)})."
                ]
            )

    def compose_caption(self, generated: str, existing: str) -> str:
        """Return an image's new caption.

        Args:
            generated: The captioner's answer, line breaks included.
            existing: The caption that the image has; empty for none.
        """
        answer = caption_text.collapse_whitespace(generated)
        new = caption_text.add_affixes(answer, self.prefix, self.suffix)
        merged = caption_text.merge_captions(existing, new, self.mode)
        return caption_text.add_affixes(merged, trigger=self.trigger)


def _is_base_url(address: str) -> bool:
    """Whether it is a printable http(s) URL with a host and without query and fragment."""
    try:
        parts = urlsplit(address)
        has_valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_valid_port:
        return False
    if parts.query or parts.fragment:
        return False
    return address.isprintable() and " " not in address
