"""The index of generated images: its tables, and what of an image's metadata they list.

Knows: columns, indexes, what is searched for. Does not know: files (store.py), which rows somebody
asks for (search.py), who binned what (bin.py).

Metadata lies in a table of its own, so that a search through the words of 100,000 images reads 50
MB instead of 300; all that is filtered by lies in the index `narrow` too: 10 MB. `is_linked` is 0
where it is not known yet which sweep or report an image belongs to and what people think of it
(storage/image_links.py): of rows that an earlier studio wrote, or that were found as files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

SEARCHED_FIELDS = ("prompt", "negative_prompt", "model", "scheduler", "seed")
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS pictures (
        path TEXT PRIMARY KEY, digest TEXT NOT NULL, created REAL NOT NULL, owner TEXT NOT NULL,
        model TEXT NOT NULL, words TEXT NOT NULL, said TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_time ON pictures (created);
    CREATE INDEX IF NOT EXISTS by_digest ON pictures (digest);
    CREATE INDEX IF NOT EXISTS by_model ON pictures (model, created);
    """,
    """
    ALTER TABLE pictures RENAME TO images;
    ALTER TABLE images RENAME COLUMN words TO search_text;
    ALTER TABLE images RENAME COLUMN said TO metadata;
    """,
    """
    ALTER TABLE images RENAME TO former_images;
    DROP INDEX by_time;
    DROP INDEX by_digest;
    DROP INDEX by_model;
    CREATE TABLE images (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, digest TEXT NOT NULL,
        created REAL NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
        series TEXT NOT NULL, day TEXT NOT NULL, stars INTEGER NOT NULL, favourite INTEGER NOT NULL,
        binned REAL NOT NULL, is_linked INTEGER NOT NULL, search_text TEXT NOT NULL
    );
    CREATE TABLE image_metadata (id INTEGER PRIMARY KEY, metadata TEXT NOT NULL);
    CREATE TABLE image_loras (
        lora TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (lora, id)
    ) WITHOUT ROWID;
    INSERT INTO images SELECT rowid, path, digest, created, owner, model, 'txt2img', '',
        coalesce(date(created, 'unixepoch', 'localtime'), ''), 0, 0, 0.0, 0, search_text
        FROM former_images;
    INSERT INTO image_metadata SELECT rowid, metadata FROM former_images;
    DROP TABLE former_images;
    CREATE INDEX by_digest ON images (digest);
    CREATE INDEX by_model ON images (model, created, binned);
    CREATE INDEX narrow ON images (
        binned, series, created, kind, owner, model, stars, favourite, day
    );
    CREATE INDEX by_kind ON images (kind, binned);
    CREATE INDEX by_day ON images (day, binned);
    CREATE INDEX unlinked ON images (is_linked) WHERE is_linked = 0;
    CREATE INDEX loras_of_image ON image_loras (id);
    """,
)
ImageKind = Literal["txt2img", "img2img", "inpaint", "upscale", "sweep", "report", "strip"]
IMAGE_KINDS: tuple[ImageKind, ...] = get_args(ImageKind)


@dataclass(frozen=True)
class ImageOrigin:
    """What an image was made for.

    Attributes:
        kind: What it is listed as.
        series: Of a sweep's image the sweep's id, of a report's the training run's; else empty.
    """

    kind: ImageKind
    series: str = ""


def describe_kind(metadata: Mapping[str, Any]) -> ImageKind:
    """Return what an image is by its settings alone, whatever it was made for."""
    if metadata.get("upscale"):
        return "upscale"
    request = metadata["request"]
    if request.get("mask") or any(request.get("extension") or ()):
        return "inpaint"
    return "img2img" if request.get("image") else "txt2img"


def list_loras(metadata: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the LoRAs that an image was made with."""
    uses = metadata["request"].get("loras") or ()
    return list(dict.fromkeys(str(use["name"]) for use in uses))


def describe_words(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Return the model that an image is listed under, and the words it is found by."""
    request = metadata["request"]
    upscale = metadata.get("upscale")
    words: list[str] = []
    if upscale:
        words = ["upscaled", str(upscale["upscaler"])]
    if upscale and not upscale["has_settings"]:
        return "", " ".join(words)
    words += [str(request.get(name, "")) for name in SEARCHED_FIELDS]
    words += list_loras(metadata)
    return str(request["model"]), " ".join(words)


def format_day(created: float) -> str:
    """Return the local day of a Unix time, as 2026-11-27."""
    return time.strftime("%Y-%m-%d", time.localtime(created))
