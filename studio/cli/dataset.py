"""`studio dataset FOLDER`: what lies there, what is wrong with it, as JSON or as a table.

Knows: the words of that command's answer. Does not know: what is told of a dataset (storage/datasets/summary.py).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from studio.core.captions.lint import Rules
from studio.settings import Settings
from studio.storage.datasets.dataset import Albums
from studio.storage.datasets.summary import summary

SHOWN = 12  # findings of a kind, and tags, that the table lists


def look(settings: Settings, folder: str, rules: Rules) -> dict[str, Any]:
    """What `--json` prints. `folder`: a path, or the name of a dataset. Raises DatasetError where there are no pictures."""
    path = Path(folder).expanduser()
    album = Albums(settings).open(path if path.is_dir() or len(path.parts) > 1 else folder)
    return summary(album, rules, _heard)


def in_words(found: dict[str, Any]) -> str:
    """The same for people."""
    told = ", ".join(
        f"{folder} x {count}"
        for folder, count in found["repeats"].items()
        if folder != "." or count > 1
    )
    lines = [
        f"{found['name']}: {found['pictures']} pictures, {found['captioned']} with a caption ({found['layout']})",
        *([f"repeats: {told}"] if told else []),
        *found["notes"],
    ]
    lines += [f"broken   {one['file']}  {one['says']}" for one in found["broken"]]
    kinds = Counter(finding["kind"] for finding in found["lint"] if finding["kind"] != "broken")
    for kind, count in kinds.most_common():
        lines.append(f"{kind:<10} {count}")
        chosen = [finding for finding in found["lint"] if finding["kind"] == kind]
        lines += [f"    {finding['file']}  {finding['says']}" for finding in chosen[:SHOWN]]
        lines += [f"    … and {count - SHOWN} more"] * (count > SHOWN)
    if not kinds and not found["broken"]:
        lines.append("nothing to mend")
    tags = list(found["tags"].items())
    lines += ["tags", *(f"    {count:>5}  {tag}" for tag, count in tags[:SHOWN])] if tags else []
    return "\n".join(line.encode(errors="replace").decode() for line in lines)


def _heard(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(
            f"\r\033[K{done}/{of} pictures",
            end="" if done < of else "\r\033[K",
            file=sys.stderr,
            flush=True,
        )
