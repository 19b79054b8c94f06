"""People's opinions of images and of sweeps' cells: stars, a mark, a note.

Knows: what is a valid one, what a sweep's viewer exports. Does not know: where they are kept
(sweeps.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.errors import BadFile, InvalidSpec, quote

MAX_STARS = 5
MAX_NOTE_CHARS = 2_000
MAX_EXPORT_CHARS = 16 * 2**20


@dataclass(frozen=True)
class Verdict:
    """A person's opinion of an image or a cell; 0 stars is none, `best` marks a favourite."""

    stars: int = 0
    note: str = ""
    best: bool = False

    def __bool__(self) -> bool:
        return bool(self.stars or self.note or self.best)


NO_VERDICT = Verdict()


def check_verdict(verdict: Verdict) -> None:
    """Raise InvalidSpec for what is no verdict."""
    faults = []
    if not 0 <= verdict.stars <= MAX_STARS:
        faults.append(f"Stars: must be 0 to {MAX_STARS} (you entered {verdict.stars}).")
    if len(verdict.note) > MAX_NOTE_CHARS:
        faults.append(
            f"Note: must be at most {MAX_NOTE_CHARS:,} characters long, but has "
            f"{len(verdict.note):,}."
        )
    if faults:
        raise InvalidSpec(faults)


def parse_exported_verdicts(text: str, sweep_id: str) -> dict[str, Verdict]:
    """Return the verdicts in a file that a viewer exported, by the keys of cells.

    Raises BadFile for one of another sweep or none of ours.
    """
    try:
        if len(text) > MAX_EXPORT_CHARS:
            raise ValueError(len(text))
        export = json.loads(text)
        verdicts = {str(entry["key"]): _parse_verdict(entry) for entry in export["verdicts"]}
        exported_id = export["sweep"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise BadFile(
            "This is not a ratings file; use the one the viewer's Export button creates."
        ) from None
    if exported_id != sweep_id:
        raise BadFile(f"These ratings belong to another sweep ({quote(exported_id)}).")
    return verdicts


def _parse_verdict(entry: Mapping[str, Any]) -> Verdict:
    stars = int(entry.get("stars", 0))
    note = entry.get("note", "")
    if not 0 <= stars <= MAX_STARS or not isinstance(note, str):
        raise ValueError(stars)
    return Verdict(stars, note[:MAX_NOTE_CHARS], entry.get("best") is True)
