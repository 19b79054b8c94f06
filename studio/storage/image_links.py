"""What listed images belong to, and what people think of them, where the index does not know it.

Knows: that sweeps and reports name their images, and that stars are kept with the sweeps. Does not
know: how the index is asked; when it was made anew.

The index forgets what no image's file says when it is rebuilt, and an earlier studio never had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from studio.errors import StudioError
from studio.storage.gallery import Gallery, ImageOrigin
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs


def link_images(gallery: Gallery, sweeps: Sweeps, runs: Runs) -> int:
    """Complete the rows of images that are not linked yet; return how many there were.

    It may be ended at any time, and goes on where it was.
    """
    rows = gallery.list_unlinked()
    if not rows:
        return 0
    run_of_sweep = dict(_iter_report_sweeps(runs))
    num_linked = 0
    while rows:
        gallery.link(
            (
                image_id,
                _find_origin(sweeps, path, created, run_of_sweep),
                *_find_opinion(sweeps, path),
            )
            for image_id, path, created in rows
        )
        num_linked += len(rows)
        rows = gallery.list_unlinked()
    return num_linked


def _find_origin(
    sweeps: Sweeps, path: Path, created: float, run_of_sweep: dict[str, str]
) -> ImageOrigin | None:
    sweep_id = sweeps.find_maker(path, created)
    if sweep_id in run_of_sweep:
        return ImageOrigin("report", run_of_sweep[sweep_id])
    return ImageOrigin("sweep", sweep_id) if sweep_id else None


def _find_opinion(sweeps: Sweeps, path: Path) -> tuple[int, bool]:
    verdict = sweeps.get_image_verdict(path)
    return verdict.stars, verdict.best


def _iter_report_sweeps(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield the sweeps that were made for a report, each with the id of its training run."""
    for run in runs.list_runs():
        try:
            report = runs.read_report(run.id)
        except StudioError:
            continue  # it was deleted meanwhile
        for name in ("sweep", "references"):
            if isinstance(report.get(name), str):
                yield report[name], run.id
