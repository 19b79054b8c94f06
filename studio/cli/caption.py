"""`studio caption`: a folder and flags → a job, what came of it → lines or JSON.

Knows: which folder is meant, how rows are shown. Does not know: how anything is captioned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.cli.runner import COMMAND_LINE, job_runner, load_settings, print_json
from studio.core.base import validate
from studio.core.captions.spec import CaptionSpec
from studio.errors import StudioError
from studio.services.submission import Services
from studio.storage.datasets.caption_files import display_name
from studio.storage.home import Home

MAX_LISTED_FAILURES = 5


def run(arguments: argparse.Namespace) -> None:
    """Caption through the queue of a studio that runs on this home, else in place."""
    home = Home(load_settings(arguments))
    flags = {
        name: value for name, value in vars(arguments).items() if name in CaptionSpec.model_fields
    }
    path = Path(arguments.folder).expanduser()
    spec = validate(CaptionSpec, {"dataset": display_name(path.name) or "dataset", **flags})
    if not path.is_dir() and len(path.parts) == 1:  # the name of a dataset
        path = home.training_sets.find_folder(arguments.folder)
    job = Services(home).prepare_captioning(spec, COMMAND_LINE, path)
    with job_runner(home) as run_job:
        result = run_job(job.kind, job.spec)
    if arguments.json:
        print_json(result)
    else:
        for line in format_result(result):
            print(line, flush=True)
    raise_failures(result)


def format_result(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is printed: a line for each image, or why nothing was done."""
    if not result["rows"] and not result["failed"]:
        subject = f"all {result['kept']:,} images have"
        if result["kept"] == 1:
            subject = "the image has"
        yield (
            f"Nothing to do: {subject} a caption. Use --mode replace to write all captions "
            "again, or --mode append to add to them."
        )
        return
    for row in result["rows"]:
        change = row["after"]
        if result["dry_run"]:
            change = f"{row['before']} → {change}"
        yield f"{row['file']}: {change}"
    if result["more_rows"]:
        yield f"… and {result['more_rows']} more"


def raise_failures(result: Mapping[str, Any]) -> None:
    """Raise StudioError if images could not be captioned, naming them."""
    failures = result["failed"]
    if not failures:
        return
    plural = "s" if len(failures) > 1 else ""
    lines = [f"{len(failures)} image{plural} could not be captioned:"]
    lines += [f"{failure['file']} {failure['error']}" for failure in failures[:MAX_LISTED_FAILURES]]
    if len(failures) > MAX_LISTED_FAILURES:
        lines.append(f"… and {len(failures) - MAX_LISTED_FAILURES} more.")
    raise StudioError("\n".join(lines))
