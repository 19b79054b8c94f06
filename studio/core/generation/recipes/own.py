"""This studio's own pictures: the request as JSON, which loses nothing.

Knows: the JSON of the text `studio`. Does not know: how it comes into a file
(storage/gallery/store.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from studio.core.base import validate, validate_stored
from studio.core.generation.recipes.a1111_keys import MAX_TEXT_CHARS
from studio.core.generation.recipes.recipe import (
    FileReference,
    ImageMetadata,
    Recipe,
    RecipeSource,
)
from studio.core.generation.recipes.xmp import find_studio_json
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.errors import InvalidSpec

OWN_CHUNK = "studio"
_SIDECAR_KEYS = {"request", "digest", "contents"}  # all in one object: nobody else writes it


def parse_own_json(text: str) -> dict[str, Any]:
    """Return our JSON, not yet validated. Raises ValueError where it is none."""
    try:
        metadata = json.loads(text) if text and len(text) <= MAX_TEXT_CHARS else None
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("request"), dict):
        raise ValueError("It contains no settings from this studio.")
    return metadata


def get_embedding_hashes(content_hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of textual inversions by name, of all that a digest was made over."""
    return {
        key.removeprefix("embedding "): content_hash
        for key, content_hash in content_hashes.items()
        if key.startswith("embedding ")
    }


def _find_json(metadata: ImageMetadata) -> str:
    """Return our JSON: a PNG's text, in other formats in the XMP packet, or a file beside it."""
    for text in (metadata.chunks.get(OWN_CHUNK, ""), find_studio_json(metadata.xmp)):
        with suppress(ValueError):
            parse_own_json(text)
            return text
    sidecar = metadata.sidecars.get(".json", "")
    with suppress(ValueError):
        if parse_own_json(sidecar).keys() >= _SIDECAR_KEYS:
            return sidecar
    return ""


def _recognises(metadata: ImageMetadata) -> bool:
    return bool(_find_json(metadata))


def _read(metadata: ImageMetadata) -> Recipe:
    """Return the request of an image that was made here.

    Raises ValueError: A later studio made it, or somebody changed it; A1111's text beside it may
    still be good.
    """
    own = parse_own_json(_find_json(metadata))
    upscale = own.get("upscale")
    try:
        request = validate_stored(GenerationRequest, own["request"])
        record = validate(UpscaleRecord, upscale) if upscale else None
    except InvalidSpec as error:
        raise ValueError(" ".join(error.faults)) from None
    if record and not record.has_settings:
        raise ValueError("It was only enlarged here; how it was made is unknown.")
    contents = own.get("contents")
    pairs = contents.items() if isinstance(contents, dict) else ()
    hashes = {str(key): value for key, value in pairs if isinstance(value, str)}
    return Recipe(
        "studio",
        request.model_dump(mode="json"),
        [
            FileReference("embedding", name, content_hash)
            for name, content_hash in get_embedding_hashes(hashes).items()
        ],
        [f"It was enlarged afterwards, with {record.upscaler}."] if record else [],
        metadata.chunks.get("parameters", "") or metadata.user_comment,
    )


STUDIO = RecipeSource("studio", _recognises, _read)
