"""A dataset's card: who wrote its captions, where its pictures come from, under which licence; and the dataset as one zip with it.

Knows: the card as JSON and as Markdown, the form of the zip. Does not know: where that is recorded (journal.py), the page.

    10_moon/a.png  10_moon/a.txt     as kohya's trainers read it
    metadata.jsonl                   as datasets libraries read it: {"file_name": "10_moon/a.png", "text": "…"}
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

from studio.core.captions.provenance import NOBODY, Source, Writer
from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Picture

DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the zip, so that the same dataset is the same zip
SHOWN = 1000  # pictures that the Markdown lists


@dataclass(frozen=True, slots=True)
class Credit:
    """One writing of a caption: who, when (seconds since 1970; 0: unknown), and what was done."""

    writer: Writer
    when: float
    what: str

    def json(self) -> dict[str, Any]:
        """Without what is empty."""
        told = {key: value for key, value in self.writer.model_dump().items() if value}
        return told | ({"when": date(self.when)} if self.when else {}) | {"what": self.what}


def date(when: float) -> str:
    """ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def credits_of(
    pictures: Sequence[Picture], written: Iterable[tuple[str, str, Step]]
) -> dict[str, list[Credit]]:
    """Who wrote the caption of each picture that has one. `written`: (key, caption, step), the oldest first."""
    steps: dict[str, list[tuple[str, Step]]] = {}
    for key, caption, step in written:
        steps.setdefault(key, []).append((caption, step))
    found: dict[str, list[Credit]] = {}
    for picture in pictures:
        if not picture.caption:
            continue
        known = steps.get(picture.key, [])
        start = next(
            (place + 1 for place in range(len(known) - 1, -1, -1) if not known[place][0]), 0
        )  # emptied: begun anew
        told = [Credit(step.writer, step.made, step.title) for _, step in known[start:]]
        if not told:
            told = [Credit(Writer(by="file"), 0.0, "came with the pictures")]
        elif known[-1][0] != picture.caption:
            told.append(Credit(Writer(by="file"), 0.0, "changed by another program"))
        found[picture.key] = told
    return found


def card(
    name: str,
    pictures: Sequence[Picture],
    credits: Mapping[str, Sequence[Credit]],
    sources: Mapping[str, Source],
    repeats: Mapping[str, int],
) -> dict[str, Any]:
    """All that is known of a dataset, as JSON. `pictures`: those that can be used."""
    rows = []
    for picture in pictures:
        source = {
            key: value
            for key, value in sources.get(picture.key, NOBODY).model_dump().items()
            if value
        }
        rows.append(
            {
                "file": picture.key,
                "sha256": picture.content,
                "width": picture.size[0],
                "height": picture.size[1],
                "caption": picture.caption,
                "written": [credit.json() for credit in credits.get(picture.key, ())],
                **source,
            }
        )
    last = [credits[picture.key][-1] for picture in pictures if picture.key in credits]
    return {
        "name": name,
        "made": date(time.time()),
        "pictures": len(pictures),
        "captioned": len(last),
        "repeats": dict(repeats),
        "generated": sum(bool(row.get("generated")) for row in rows),
        "licences": dict(Counter(str(row.get("licence", "")) for row in rows).most_common()),
        "authors": dict(Counter(str(row.get("author", "")) for row in rows).most_common()),
        "writers": dict(Counter(str(credit.writer) for credit in last).most_common()),
        "files": rows,
    }


def markdown(about: Mapping[str, Any]) -> str:
    """The card for people."""

    def listed(counts: Mapping[str, int], nothing: str) -> list[str]:
        return [f"- {_cell(name) or nothing}: {count}" for name, count in counts.items()] or [
            "- none"
        ]

    lines = [
        f"# {_cell(about['name'])}",
        "",
        f"{about['pictures']} pictures, {about['captioned']} with a caption, "
        f"{about['generated']} made by a model. Card of {about['made']}.",
        "",
        "## Licences",
        "",
        *listed(about["licences"], "**not said**"),
        "",
        "## Authors",
        "",
        *listed(about["authors"], "**not said**"),
        "",
        "## Who wrote the captions, last",
        "",
        *listed(about["writers"], ""),
        "",
        "## How often a picture counts in an epoch",
        "",
        *(f"- {_cell(folder)}: {count}" for folder, count in about["repeats"].items()),
        "",
        "## Pictures",
        "",
        "| file | caption | written | source | author | licence | made by a model |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in about["files"][:SHOWN]:
        told = " → ".join(
            f"{one['what']}" + (f" ({one['when']})" if "when" in one else "")
            for one in row["written"]
        )
        cells = [
            row["file"],
            row["caption"],
            told,
            row.get("source", ""),
            row.get("author", ""),
            row.get("licence", ""),
            "yes" if row.get("generated") else "",
        ]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    if len(about["files"]) > SHOWN:
        lines.append(f"\n… and {len(about['files']) - SHOWN:,} more in card.json.")
    return "\n".join(lines) + "\n"


def pack(to: Path, about: Mapping[str, Any], pictures: Sequence[Picture], concept: str) -> Path:
    """Write the zip. `concept` names kohya's folder of pictures that lie in none. Raises BadFile."""
    used: set[str] = set()
    try:
        with atomic.writing(to) as out, zipfile.ZipFile(out, "w") as zipped:
            rows = []
            for picture in pictures:
                name = _place(picture, concept, used)
                with (
                    open(picture.path, "rb") as source,
                    zipped.open(_info(name), "w", force_zip64=True) as into,
                ):
                    while chunk := source.read(2**20):
                        into.write(chunk)
                if picture.caption:
                    zipped.writestr(
                        _info(os.path.splitext(name)[0] + ".txt"), picture.caption + "\n"
                    )
                rows.append(
                    json.dumps({"file_name": name, "text": picture.caption}, ensure_ascii=False)
                    + "\n"
                )
            zipped.writestr(_info("metadata.jsonl"), "".join(rows))
            zipped.writestr(_info("README.md"), markdown(about))
            zipped.writestr(_info("card.json"), json.dumps(about, ensure_ascii=False, indent=1))
    except OSError as error:
        raise BadFile(f"{to.name} could not be written: {error.strerror or error}.") from None
    return to


def _place(picture: Picture, concept: str, used: set[str]) -> str:
    """A name in the zip that no other has, whatever the system that unpacks it."""
    key = PurePosixPath(picture.key)
    folder = (
        key.parts[0]
        if picture.entry.concept and len(key.parts) > 1
        else f"{picture.entry.repeats}_{concept}"
    )
    inner = key.parts[1:] if len(key.parts) > 1 and key.parts[0] == folder else key.parts
    stem, end = os.path.splitext("-".join(inner))
    made, number = f"{folder}/{stem}", 2
    while made.casefold() in used:
        made, number = f"{folder}/{stem}-{number}", number + 1
    used.add(made.casefold())
    return made + end


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.external_attr = 0o644 << 16
    return info


def _cell(text: object) -> str:
    """Text in a table of Markdown: nothing in it may be more than text."""
    plain = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(
        f"\\{letter}" if letter in "\\|`*_[]#!" else " " if letter in "\r\n" else letter
        for letter in plain
    )
