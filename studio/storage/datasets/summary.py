"""A dataset and what is wrong with it, as plain data for the command line and for programs.

Knows: which facts are reported. Does not know: how a folder is read (dataset.py), what spoils a
training (core/captions/lint.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.core.captions.lint import LintRules
from studio.errors import DatasetError
from studio.storage.datasets.dataset import Dataset
from studio.storage.datasets.training_set import explain_no_images


def summarize_dataset(
    dataset: Dataset, rules: LintRules, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Summarize a dataset: counts, repeats, broken files, lint findings, the most frequent tags.

    Args:
        dataset: every image of it that is new or changed is decoded.
        rules: what lint looks for.
        report: called with (images decoded, of how many).

    Raises:
        DatasetError: it has no images.
    """
    if not dataset.images and not dataset.broken:
        raise DatasetError(explain_no_images(dataset.folder, []))
    dataset.examine(report)
    counts = dataset.count_images()
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "pictures": counts.images,
        "captioned": counts.captioned,
        "layout": counts.layout,
        "repeats": dict(counts.repeats),
        "broken": [{"file": file, "says": reason} for file, reason in dataset.broken],
        "lint": [finding.to_dict() for finding in dataset.lint(rules)],
        "tags": dict(dataset.count_tags()[:100]),
        "notes": dataset.notes,
    }
