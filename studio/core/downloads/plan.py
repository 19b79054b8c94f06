"""What a download will be: files, sizes, licence, name; said before anything is fetched.

Knows: values alone. Does not know: the network, the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import field_validator

from studio.core.base import Spec, spec_field
from studio.core.downloads.links import MAX_LINK_CHARS

Source = Literal["hub", "civitai", "address"]
Variant = Literal["auto", "fp16", "full"]
BYTES_PER_GB = 1e9
# What has to be on a card to paint with all parts there: the weights, and for what lies between the
# layers about a quarter of that.
WORKING_SHARE = 1.25


class DownloadSpec(Spec):
    """What somebody asks to be fetched."""

    link: str = spec_field(
        ...,
        title="Link",
        help="org/name on the hub, a Civitai page, or the https address of a file.",
        min_length=1,
        max_length=MAX_LINK_CHARS,
    )
    name: str = spec_field(
        "",
        title="Name",
        help="Its name here; empty uses the name it has there.",
        max_length=120,
    )
    variant: Variant = spec_field(
        "auto",
        title="Variant",
        help="Half precision (fp16), full, or auto: fp16 if all of it is available.",
    )
    version: str = spec_field(
        "",
        title="Version",
        help="Which commit or version, so that you download exactly what was shown.",
        max_length=200,
        pattern=r"^[\w./-]*$",
    )
    is_host_confirmed: bool = spec_field(
        False,
        title="Trust this site",
        help="Download from a site other than the hub and Civitai.",
    )

    @field_validator("link", "name")
    @classmethod
    def _strip(cls, text: str) -> str:
        return text.strip()


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be fetched.

    Attributes:
        path: Its path in what is fetched, with slashes; for a single file its name.
        url: Where it is.
        size_bytes: Its size, if that was said.
        sha256: Its content's, if that was said.
        is_size_exact: Whether the size is exact; Civitai rounds.
    """

    path: str
    url: str
    size_bytes: int | None = None
    sha256: str = ""
    is_size_exact: bool = True


@dataclass(frozen=True)
class DownloadPlan:
    """What is behind a link, and what will become of it.

    Attributes:
        source: Where it is.
        title: What it is called there.
        page: The address for people.
        host: The site that it comes from.
        name: What it will be called here, without an ending.
        is_folder: Whether it is a model of many files; else it is one file.
        files: What is fetched.
        version: The commit or the version.
        licence: As it is said there; empty if it is not.
        variant: Of the weights, such as fp16; empty where there is only one.
        notes: Sentences that one should read before.
        details: What Civitai says of it, as it is kept beside the file.
        is_known_host: Whether the site needs no question.
        is_name_known: Whether the site has said what the file is called; else only its address has.
    """

    source: Source
    title: str
    page: str
    host: str
    name: str
    is_folder: bool
    files: tuple[RemoteFile, ...]
    version: str = ""
    licence: str = ""
    variant: str = ""
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    is_known_host: bool = True
    is_name_known: bool = True

    @property
    def size_bytes(self) -> int | None:
        """All files together; None if one does not say its size."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(self)
        values.pop("details")
        return values | {"size_bytes": self.size_bytes}


def estimate_card_bytes(weights_bytes: int) -> int:
    """Return about how much memory a card needs to paint with weights of this size at once."""
    return round(weights_bytes * WORKING_SHARE)


def format_size(num_bytes: float) -> str:
    """Return a size as sites write it: `512 kB`, `4.3 MB`, `6.94 GB`."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    if num_bytes < BYTES_PER_GB:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / BYTES_PER_GB:.2f} GB"
