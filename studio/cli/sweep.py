"""`studio sweep`: a file is a stored sweep, whose id and seed come from the file's own words.

Knows: what the file means, what is handed over at the end. Does not know: how cells are made; who
may ask for what.

The same file is the same sweep: run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.cli.runner import COMMAND_LINE, job_runner, load_settings, print_json
from studio.core.sweeps.spec import SweepPlan, SweepSpec, plan_sweep
from studio.errors import BadFile, StudioError
from studio.services.submission import Services
from studio.storage.home import Home
from studio.storage.presets import load_spec
from studio.storage.sweeps import deterministic_id_and_seed


def run(arguments: argparse.Namespace) -> None:
    """Make what the sweep of a file lacks; print its files."""
    sweep_id, spec = load_sweep(arguments.file.expanduser(), arguments.fast)
    home = Home(load_settings(arguments))
    services = Services(home)
    plan = plan_sweep(services.apply_recommended_settings(spec), files=home.prompt_files)
    services.check_plan(plan)  # before anything is loaded
    if arguments.plan:
        from studio.engine.context import WorkerContext
        from studio.engine.sweeps.job import outline_sweep

        outline = outline_sweep(WorkerContext.for_home(home), plan.spec)
        print_json(outline)
        return
    output = arguments.output.expanduser().resolve() if arguments.output else None
    remake = [cell.key for cell in plan.cells] if arguments.remake_binned else []
    for path in run_sweep(services, plan, sweep_id, output, remake):
        print(path, flush=True)


def load_sweep(path: Path, fast: bool) -> tuple[str, SweepSpec]:
    """Return id and spec of a file's sweep, its seed drawn. Raises InvalidSpec and BadFile."""
    spec = load_spec(path, SweepSpec, f"The sweep {path.name}")
    spec = spec.model_copy(update={"fast": spec.fast or fast})
    return deterministic_id_and_seed(spec)


def run_sweep(
    services: Services,
    plan: SweepPlan,
    sweep_id: str,
    output: Path | None,
    remake: Sequence[str] = (),
) -> Iterator[Path]:
    """Yield the cells' images in the order in which they ran, then sheet, viewer and index.

    Args:
        services: Of the home.
        plan: The sweep's cells.
        sweep_id: The stored sweep's.
        output: A folder that gets a copy of all; None for none.
        remake: Keys of cells that are made again though their images are in the bin.

    Raises:
        StudioError: Cells that failed, all of them, after the others are handed over; cells that
            are in the bin.
        BadFile: The folder `output` takes no files.
    """
    home = services.home
    job = services.prepare_sweep(plan.spec, COMMAND_LINE, sweep_id, remake)
    with job_runner(home) as run_job:
        run_job(job.kind, job.spec)
    results = home.sweeps.load_cell_results(sweep_id)
    cells = [plan.cells[index] for index in plan.run_order]
    images = [
        result.path for cell in cells if (result := results[cell.key]).path and not result.is_binned
    ]
    files = home.sweeps.list_files(sweep_id)
    if output:
        files = _export(home, sweep_id, plan, output)
        images = [output / "pictures" / path.name for path in images]
    yield from (*images, *files)
    failures = [
        f"{' · '.join(cell.labels)}: {results[cell.key].error}"
        for cell in cells
        if not results[cell.key].has_image and not results[cell.key].is_binned
    ]
    num_binned = sum(results[cell.key].is_binned for cell in cells)
    if num_binned and not failures:
        raise StudioError(
            f"{num_binned} of {len(cells)} images are in the bin. Restore them in the Gallery, or "
            "run this with --remake-binned to make them again."
        )
    if failures:
        summary = (
            f"{len(failures)} of {len(cells)} cells failed; run the same command to retry them."
        )
        raise StudioError("\n".join([summary, *failures]))


def _export(home: Home, sweep_id: str, plan: SweepPlan, output: Path) -> list[Path]:
    from studio.engine.context import WorkerContext
    from studio.engine.sweeps.export import load_sweep, write_exports

    try:
        context = WorkerContext.for_home(home)
        sweep = load_sweep(context, sweep_id)
        return write_exports(context, sweep, plan, folder=output, copy_images=True)
    except OSError as error:
        raise BadFile(
            f"{output} cannot be written to: {error.strerror}. The images are in the gallery."
        ) from None
