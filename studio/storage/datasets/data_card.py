"""A dataset's card: who wrote its captions, where its images come from, under which licence.

Knows: the card as JSON and as Markdown, the dataset with its card as one zip. Does not know: where
credits and sources are recorded (history.py), the page.

    10_moon/a.png  10_moon/a.txt     as kohya's trainers read it
    metadata.jsonl                   as dataset libraries read it:
                                     {"file_name": "10_moon/a.png", "text": "…"}
    README.md  card.json             the card
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from studio.core.captions.provenance import UNKNOWN_SOURCE, Source, Writer
from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import DatasetImage

# of every file in the zip, so that the same dataset is the same zip
ZIP_ENTRY_DATE = (1980, 1, 1, 0, 0, 0)
MAX_LISTED_IMAGES = 1000  # in the Markdown

FILE_WRITER = Writer(by="file")


@dataclass(frozen=True, slots=True)
class Credit:
    """One writing of a caption: who, when, and what was done.

    `timestamp` counts seconds since 1970; 0 is unknown.
    """

    writer: Writer
    timestamp: float
    action: str

    def to_dict(self) -> dict[str, Any]:
        """Return the credit as JSON, without empty fields."""
        credit = {key: value for key, value in self.writer.model_dump().items() if value}
        if self.timestamp:
            credit["when"] = format_timestamp(self.timestamp)
        credit["what"] = self.action
        return credit


def format_timestamp(timestamp: float) -> str:
    """Format seconds since 1970 as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp))


def collect_credits(
    images: Sequence[DatasetImage], written_captions: Iterable[tuple[str, str, Step]]
) -> dict[str, list[Credit]]:
    """Collect who wrote the caption of each image that has one, the oldest writing first.

    Args:
        images: of one dataset.
        written_captions: (key, caption, step), the oldest first, as the journal has them.
    """
    writings_by_key: dict[str, list[tuple[str, Step]]] = {}
    for key, caption, step in written_captions:
        writings_by_key.setdefault(key, []).append((caption, step))
    credits_by_key: dict[str, list[Credit]] = {}
    for image in images:
        if image.caption:
            writings = writings_by_key.get(image.key, [])
            credits_by_key[image.key] = _credit_writings(writings, image.caption)
    return credits_by_key


def _credit_writings(writings: Sequence[tuple[str, Step]], caption: str) -> list[Credit]:
    """Return the credits of one caption; a writing that emptied it ends what was before."""
    current: list[tuple[str, Step]] = []
    for written_caption, step in writings:
        if written_caption:
            current.append((written_caption, step))
        else:
            current.clear()
    if not current:
        return [Credit(FILE_WRITER, 0.0, "came with the images")]
    caption_credits: list[Credit] = []
    for _, step in current:
        writer = step.writer
        if writer.by == "affix":  # it is still the caption of whoever wrote it before
            writer = caption_credits[-1].writer if caption_credits else FILE_WRITER
        caption_credits.append(Credit(writer, step.created, step.title))
    if current[-1][0] != caption:
        caption_credits.append(Credit(FILE_WRITER, 0.0, "changed by another program"))
    return caption_credits


def build_card(
    name: str,
    images: Sequence[DatasetImage],
    caption_credits: Mapping[str, Sequence[Credit]],
    sources: Mapping[str, Source],
    repeats: Mapping[str, int],
) -> dict[str, Any]:
    """Build the card of a dataset, as JSON.

    Args:
        name: of the dataset.
        images: those that can be used.
        caption_credits: of each captioned image, by key, the oldest first.
        sources: where images come from, by key.
        repeats: how often the images of each folder count in an epoch.
    """
    rows: list[dict[str, Any]] = []
    for image in images:
        source = sources.get(image.key, UNKNOWN_SOURCE).model_dump()
        rows.append(
            {
                "file": image.key,
                "sha256": image.content_hash,
                "width": image.size[0],
                "height": image.size[1],
                "caption": image.caption,
                "written": [credit.to_dict() for credit in caption_credits.get(image.key, ())],
                **{key: value for key, value in source.items() if value},
            }
        )
    last_credits = [
        caption_credits[image.key][-1] for image in images if image.key in caption_credits
    ]
    return {
        "name": name,
        "made": format_timestamp(time.time()),
        "pictures": len(images),
        "captioned": len(last_credits),
        "repeats": dict(repeats),
        "generated": sum(bool(row.get("generated")) for row in rows),
        "licences": _count_values(row.get("licence", "") for row in rows),
        "authors": _count_values(row.get("author", "") for row in rows),
        "writers": _count_values(credit.writer for credit in last_credits),
        "files": rows,
    }


def render_markdown(card: Mapping[str, Any]) -> str:
    """Render a card for people, with at most MAX_LISTED_IMAGES images."""
    lines = [
        f"# {_escape_cell(card['name'])}",
        "",
        f"{card['pictures']} images, {card['captioned']} with a caption, "
        f"{card['generated']} made by a model. Card of {card['made']}.",
        "",
        "## Licences",
        "",
        *_render_counts(card["licences"], "**not stated**"),
        "",
        "## Authors",
        "",
        *_render_counts(card["authors"], "**not stated**"),
        "",
        "## Who last wrote the captions",
        "",
        *_render_counts(card["writers"], ""),
        "",
        "## How many times an image counts in an epoch",
        "",
        *(f"- {_escape_cell(folder)}: {count}" for folder, count in card["repeats"].items()),
        "",
        "## Images",
        "",
        "| file | caption | written | source | author | licence | made by a model |",
        "|---|---|---|---|---|---|---|",
        *(_render_image_row(row) for row in card["files"][:MAX_LISTED_IMAGES]),
    ]
    if len(card["files"]) > MAX_LISTED_IMAGES:
        lines.append(f"\n… and {len(card['files']) - MAX_LISTED_IMAGES:,} more in card.json.")
    return "\n".join(lines) + "\n"


def write_zip(
    target: Path, card: Mapping[str, Any], images: Sequence[DatasetImage], concept: str
) -> Path:
    """Write a dataset with its card as a zip file.

    Args:
        target: the zip file, replaced if it is there.
        card: as `build_card` returns it.
        images: those that can be used.
        concept: names the kohya folder of images that lie in none.

    Returns:
        `target`.

    Raises:
        BadFile: an image cannot be read, or the disk does not take the zip.
    """
    used_names: set[str] = set()
    records = []
    try:
        with atomic.open_for_writing(target) as file, zipfile.ZipFile(file, "w") as zip_file:
            for image in images:
                name = _zip_entry_name(image, concept, used_names)
                with (
                    open(image.path, "rb") as source,
                    zip_file.open(_zip_info(name), "w", force_zip64=True) as entry,
                ):
                    while chunk := source.read(2**20):
                        entry.write(chunk)
                if image.caption:
                    caption_info = _zip_info(os.path.splitext(name)[0] + ".txt")
                    zip_file.writestr(caption_info, image.caption + "\n")
                record = {"file_name": name, "text": image.caption}
                records.append(json.dumps(record, ensure_ascii=False) + "\n")
            card_json = json.dumps(card, ensure_ascii=False, indent=1)
            zip_file.writestr(_zip_info("metadata.jsonl"), "".join(records))
            zip_file.writestr(_zip_info("README.md"), render_markdown(card))
            zip_file.writestr(_zip_info("card.json"), card_json)
    except OSError as error:
        raise BadFile(f"{target.name} could not be written: {error.strerror or error}.") from None
    return target


def _count_values(values: Iterable[object]) -> dict[str, int]:
    """Count equal values, the most frequent first."""
    return dict(Counter(map(str, values)).most_common())


def _render_counts(counts: Mapping[str, int], empty_name: str) -> list[str]:
    lines = [f"- {_escape_cell(name) or empty_name}: {count}" for name, count in counts.items()]
    return lines or ["- none"]


def _render_image_row(row: Mapping[str, Any]) -> str:
    writings = []
    for credit in row["written"]:
        date = f" ({credit['when']})" if "when" in credit else ""
        writings.append(f"{credit['what']}{date}")
    cells = [
        row["file"],
        row["caption"],
        " → ".join(writings),
        row.get("source", ""),
        row.get("author", ""),
        row.get("licence", ""),
        "yes" if row.get("generated") else "",
    ]
    return "| " + " | ".join(map(_escape_cell, cells)) + " |"


def _zip_entry_name(image: DatasetImage, concept: str, used_names: set[str]) -> str:
    """Claim a name in the zip that is free, whatever the system that unpacks it."""
    parts = PurePosixPath(image.key).parts
    if image.entry.concept and len(parts) > 1:
        folder = parts[0]
    else:
        folder = f"{image.entry.repeats}_{concept}"
    if len(parts) > 1 and parts[0] == folder:
        parts = parts[1:]
    stem, suffix = os.path.splitext("-".join(parts))
    name = f"{folder}/{stem}"
    number = 2
    while name.casefold() in used_names:
        name = f"{folder}/{stem}-{number}"
        number += 1
    used_names.add(name.casefold())
    return name + suffix


def _zip_info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, ZIP_ENTRY_DATE)
    info.external_attr = 0o644 << 16
    return info


def _escape_cell(text: object) -> str:
    """Escape text for a cell of a Markdown table, so that nothing in it is markup."""
    plain = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = plain.replace("\r", " ").replace("\n", " ")
    return "".join(f"\\{char}" if char in "\\|`*_[]#!" else char for char in plain)
