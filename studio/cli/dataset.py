"""`studio dataset FOLDER`: a report on a folder, as JSON or as a table. Nothing is changed.

Knows: the words of that command's answer. Does not know: what is told of a dataset
(storage/datasets/summary.py).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from studio.cli.runner import load_settings, print_json
from studio.core.base import validate
from studio.core.captions.lint import LintRules
from studio.storage.datasets.summary import summarize_dataset
from studio.storage.home import Home

MAX_LISTED = 12  # findings of a kind, and tags, that the table lists


def run(arguments: argparse.Namespace) -> None:
    """Print what is in a folder."""
    rules = validate(LintRules, {"trigger": arguments.trigger, "resolution": arguments.resolution})
    report = inspect_dataset(Home(load_settings(arguments)), arguments.folder, rules)
    if arguments.json:
        print_json(report)
    else:
        print(format_report(report))


def inspect_dataset(home: Home, folder: str, rules: LintRules) -> dict[str, Any]:
    """Return what `--json` prints.

    Args:
        home: Where datasets are looked up by name.
        folder: A path, or the name of a dataset.
        rules: What findings are judged by.

    Raises:
        DatasetError: There are no images.
    """
    path = Path(folder).expanduser()
    is_path = path.is_dir() or len(path.parts) > 1
    dataset = home.datasets.open(path if is_path else folder)
    return summarize_dataset(dataset, rules, _print_progress)


def format_report(report: dict[str, Any]) -> str:
    """Return the same for people."""
    lines = [
        f"{report['name']}: {report['pictures']} images, {report['captioned']} with a caption "
        f"({report['layout']})"
    ]
    repeats = ", ".join(
        f"{folder} x {count}"
        for folder, count in report["repeats"].items()
        if folder != "." or count > 1
    )
    if repeats:
        lines.append(f"repeats: {repeats}")
    lines += report["notes"]
    lines += [f"broken   {entry['file']}  {entry['says']}" for entry in report["broken"]]
    kinds = Counter(finding["kind"] for finding in report["lint"] if finding["kind"] != "broken")
    for kind, count in kinds.most_common():
        lines.append(f"{kind:<10} {count}")
        findings = [finding for finding in report["lint"] if finding["kind"] == kind]
        lines += [f"    {finding['file']}  {finding['says']}" for finding in findings[:MAX_LISTED]]
        if count > MAX_LISTED:
            lines.append(f"    … and {count - MAX_LISTED} more")
    if not kinds and not report["broken"]:
        lines.append("no problems found")
    if report["tags"]:
        tags = list(report["tags"].items())[:MAX_LISTED]
        lines += ["tags", *(f"    {count:>5}  {tag}" for tag, count in tags)]
    return "\n".join(line.encode(errors="replace").decode() for line in lines)


def _print_progress(completed: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "" if completed < total else "\r\033[K"
        print(f"\r\033[K{completed}/{total} images", end=end, file=sys.stderr, flush=True)
