"""What `studio caption` reads and says: a folder and flags → a job, what came of it → lines or JSON.

Knows: which folder is meant, how rows are shown. Does not know: how anything is captioned, the job table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.core.base import check
from studio.core.captions.spec import CaptionSpec
from studio.errors import DatasetError, StudioError
from studio.settings import Settings
from studio.storage.datasets.caption_files import shown
from studio.storage.datasets.training_set import Datasets

SHOWN = 5  # failures that are told one by one


def job_of(folder: str, given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The job for a folder, or for a dataset of the home by its name. Raises InvalidSpec and DatasetError."""
    path = Path(folder).expanduser()
    asked = check(CaptionSpec, {"dataset": shown(path.name) or "dataset", **given})
    place = path if path.is_dir() or len(path.parts) > 1 else Datasets(settings).folder(folder)
    if not place.is_dir():
        raise DatasetError(
            f"There is no folder {shown(str(place))}; choose one with pictures in it."
        )
    return asked.model_dump(mode="json") | {"folder": str(place.resolve())}


def lines(result: Mapping[str, Any], as_json: bool) -> list[str]:
    """What is printed: one JSON object, or a line for each picture; a sentence where there was nothing to do."""
    if as_json:
        return [json.dumps(result, ensure_ascii=False)]
    if not result["rows"] and not result["failed"]:
        every = (
            "the picture has" if result["kept"] == 1 else f"all {result['kept']:,} pictures have"
        )
        return [
            f"Nothing to do: {every} a caption already. --mode replace writes all anew, --mode append adds to them."
        ]
    arrow = result["dry_run"]
    said = [
        f"{row['file']}: {row['before']} → {row['after']}"
        if arrow
        else f"{row['file']}: {row['after']}"
        for row in result["rows"]
    ]
    return [*said, f"… and {result['more_rows']} more"] if result["more_rows"] else said


def complain(result: Mapping[str, Any]) -> None:
    """Raise StudioError if pictures could not be captioned, naming them."""
    if failed := result["failed"]:
        told = [f"{one['file']} {one['error']}" for one in failed[:SHOWN]]
        more = [f"… and {len(failed) - SHOWN} more."] if len(failed) > SHOWN else []
        raise StudioError(
            "\n".join(
                [
                    f"{len(failed)} picture{'s' * (len(failed) > 1)} could not be captioned:",
                    *told,
                    *more,
                ]
            )
        )
