"""One generated image and its provenance: as a value, as the JSON that its file carries.

Knows: the `studio` text of a PNG, which of its fields must be there. Does not know: the index
(tables.py), where files lie (store.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from studio.core.base import Spec, validate, validate_stored
from studio.core.generation.recipes.own import OWN_CHUNK, parse_own_json
from studio.core.generation.request import ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import NO_FILES, UsedFiles
from studio.errors import BadPicture, InvalidSpec
from studio.imaging import decode

# Among what an image was made with: where a stop cut it short, such as "step 7 of 20".
STOPPED_KEY = "stopped"


class PngMetadata(Spec):
    """The `studio` text of a PNG; what a later studio adds is ignored."""

    model_config = ConfigDict(extra="ignore")

    request: ResolvedRequest
    digest: str = Field(min_length=1, max_length=200)
    contents: dict[str, str]
    seconds: float = Field(ge=0)
    owner: str
    created: float = Field(ge=0, lt=1e11)
    upscale: UpscaleRecord | None = None
    used_files: UsedFiles = NO_FILES

    @classmethod
    def complete_stored(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        request = ResolvedRequest.complete_stored(values["request"])
        return super().complete_stored({**values, "request": request})


@dataclass(frozen=True)
class GeneratedImage:
    """A saved image and its provenance.

    Attributes:
        path: The PNG.
        thumbnail: A small WebP.
        request: What it was made from.
        digest: The sha256 over everything that decides its pixels.
        content_hashes: Hashes and names that the digest was made over.
        seconds: How long it took.
        owner: Whose it is.
        created: Unix time.
        upscale: How it was made larger afterwards; None where it was not.
        used_files: The files of weights, as other programs know them.
        id: Its number in the index; a rebuilt index may give another.
        binned: Unix time at which it was put into the bin; 0 where it is not there.
    """

    path: Path
    thumbnail: Path
    request: ResolvedRequest
    digest: str
    content_hashes: Mapping[str, str]
    seconds: float
    owner: str
    created: float
    upscale: UpscaleRecord | None = None
    used_files: UsedFiles = NO_FILES
    id: int = field(default=0, compare=False)
    binned: float = 0.0

    @property
    def settings(self) -> ResolvedRequest | None:
        """What it was made from; None for an upscaled image of which that is not known."""
        return None if self.upscale and not self.upscale.has_settings else self.request

    @property
    def stopped_at(self) -> str:
        """Where a stop cut it short, such as "step 7 of 20"; empty for a whole image."""
        return self.content_hashes.get(STOPPED_KEY, "")

    @property
    def source_image(self) -> str:
        """The sha256 of the input that it was made from; empty without one."""
        return self.upscale.image if self.upscale else self.request.image

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the file in pixels; None where it is gone or damaged.

        A second pass or outpainting makes it larger than the request's size.
        """
        try:
            return decode.read_image_size(self.path)
        except BadPicture:
            return None


def read_generated_image(
    path: Path,
    thumbnail: Path,
    metadata: Mapping[str, Any],
    *,
    image_id: int = 0,
    binned: float = 0.0,
) -> GeneratedImage:
    """Return the image that metadata of the index describes.

    Raises:
        StudioError, TypeError, ValueError: The metadata is damaged.
    """
    upscale = metadata.get("upscale")
    return GeneratedImage(
        path=path,
        thumbnail=thumbnail,
        request=validate_stored(ResolvedRequest, metadata["request"]),
        digest=metadata["digest"],
        content_hashes=metadata["contents"],
        seconds=_check_number(metadata["seconds"]),
        owner=str(metadata["owner"]),
        created=_check_number(metadata["created"]),
        upscale=UpscaleRecord.model_validate(upscale) if upscale else None,
        used_files=_read_used_files(metadata),
        id=image_id,
        binned=binned,
    )


def parse_studio_chunk(text_chunks: Mapping[str, str]) -> dict[str, Any]:
    """Return our JSON in a PNG, not yet validated. Raises BadPicture where there is none."""
    try:
        return parse_own_json(text_chunks.get(OWN_CHUNK, ""))
    except ValueError as error:
        raise BadPicture(str(error)) from None


def _read_used_files(metadata: Mapping[str, Any]) -> UsedFiles:
    """Return the files that metadata names; none where it does not, or not as it should."""
    try:
        return validate(UsedFiles, metadata.get("used_files") or {})
    except (InvalidSpec, TypeError, ValueError):
        return NO_FILES


def _check_number(value: Any) -> float:
    """Return a number of metadata. Raises ValueError for one that no clock gives."""
    if type(value) not in (int, float) or not 0 <= value < 1e11:
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)
