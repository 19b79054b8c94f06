"""A stored sweep → its table, and from that the files one can hand on: sheets, viewer, index.

Knows: where a sweep's cells are and what is known about them.
Does not know: how cells are generated (job.py), how sheets and pages are drawn (sheet.py,
viewer.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.core.catalog import BATCHING_TOLERANCE, DEFAULT_MODEL
from studio.core.comparison.conclusions import MEASURES
from studio.core.generation import infotext
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import Cell, SweepPlan, SweepSpec, plan_sweep
from studio.engine import metrics
from studio.engine.context import WorkerContext
from studio.engine.sweeps.results import (
    Coordinates,
    Table,
    TableAxis,
    TableCell,
    build_index_csv,
    build_index_json,
)
from studio.engine.sweeps.sheet import write_sheets
from studio.engine.sweeps.viewer import write_viewer
from studio.errors import InvalidSpec, StudioError, quote
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.jobs import Progress
from studio.storage.sweeps import CellResult, Sweep

METRICS = tuple(measure.name for measure in MEASURES)
# Numbers of an image alone.
PIXEL_METRICS = {
    "sharpness": metrics.compute_sharpness,
    "saturation": metrics.compute_saturation,
    "clipping": metrics.compute_clipping,
}
SHEET_STEM = "sheet"
SHORT_HASH_CHARS = 12  # of an image's hash among the fixed settings


def export_sweep(context: WorkerContext, spec: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Measure what is asked for and write a sweep's sheets, viewer and index.

    Args:
        context: The worker's stores and models.
        spec: "sweep", the id; optionally "numbers" (of METRICS, shown under the cells),
            "reference" (the key of the cell that differences are taken to), "x" and "y" (indices of
            the axes that go across and down).
        report: Receives the progress; raises Cancelled to stop.

    Returns:
        "files", the paths of what was written.

    Raises:
        InvalidSpec: If there is no such metric, axis or reference.
        StudioError: If the sweep is gone, or CLIP knows none of its images.
    """
    sweep = load_sweep(context, str(spec.get("sweep")))
    metric_names = tuple(spec.get("numbers") or ())
    for name in metric_names:
        if name not in METRICS:
            raise InvalidSpec(
                [f"Numbers: there is no {quote(name)}; choose from {', '.join(METRICS)}."]
            )
    num_axes = len(sweep.spec.axes)
    for axis in (spec.get("x"), spec.get("y")):
        if axis is not None and not (isinstance(axis, int) and 0 <= axis < num_axes):
            raise InvalidSpec([f"Axes: this sweep has {num_axes}; there is no axis {quote(axis)}."])
    report(Progress(0, 1, "Measuring"))
    if "prompt fit" in metric_names:
        _measure_prompt_fit(context, sweep)
    if "difference" in metric_names:
        _measure_difference(context, sweep, str(spec.get("reference") or ""))
    if "convergence" in metric_names:
        _measure_convergence(context, sweep)
    _measure_pixels(context, sweep, metric_names)
    report(Progress(0, 1, "Drawing the sheet"))
    files = write_exports(
        context, sweep, metric_names=metric_names, x_axis=spec.get("x"), y_axis=spec.get("y")
    )
    return {"files": [str(path) for path in files]}


def write_exports(
    context: WorkerContext,
    sweep: Sweep,
    plan: SweepPlan | None = None,
    *,
    metric_names: Sequence[str] = (),
    x_axis: int | None = None,
    y_axis: int | None = None,
    folder: Path | None = None,
    copy_images: bool = False,
) -> list[Path]:
    """Write sheets, viewer and index of a sweep.

    Args:
        context: The worker's stores and models.
        sweep: A stored sweep.
        plan: The cells of the sweep, where the caller has them.
        metric_names: Metrics that stand under the cells, as far as they are measured.
        x_axis: Index of the axis that goes across; the first one if None.
        y_axis: Index of the axis that goes down; the next one if None.
        folder: Where to write; the sweep's own folder if None.
        copy_images: Whether to copy the images into `folder`/pictures.

    Returns:
        The paths of the sheets' pages, viewer.html, index.json and index.csv.
    """
    table = build_table(context, sweep, plan or plan_sweep(sweep.spec))
    folder = folder or context.home.sweeps.get_folder(sweep.id)
    folder.mkdir(parents=True, exist_ok=True)
    if copy_images:
        cells = {
            coordinates: _copy_image(cell, folder / "pictures")
            for coordinates, cell in table.cells.items()
        }
        table = replace(table, cells=cells)
    json_path = folder / "index.json"
    atomic.write(json_path, build_index_json(table, folder).encode())
    csv_path = folder / "index.csv"
    # With a byte order mark, so that spreadsheets recognise UTF-8.
    atomic.write(csv_path, build_index_csv(table, folder).encode("utf-8-sig"))
    sheet_metrics = [
        name for name in METRICS if name in metric_names and name in table.metric_names
    ]
    is_marked = context.home.gallery.options.load().ai_mark
    sheet_paths = write_sheets(
        table,
        folder,
        SHEET_STEM,
        x_axis=x_axis,
        y_axis=y_axis,
        metric_names=sheet_metrics,
        source_type="trainedAlgorithmicMedia" if is_marked else "",
    )
    viewer_path = folder / "viewer.html"
    write_viewer(table, viewer_path)
    return [*sheet_paths, viewer_path, json_path, csv_path]


def build_table(context: WorkerContext, sweep: Sweep, plan: SweepPlan) -> Table:
    """Return everything that is known about a sweep and its cells, to be looked at."""
    results = context.home.sweeps.load_cell_results(sweep.id)
    axes = tuple(TableAxis(axis.title, axis.labels) for axis in plan.spec.axes)
    return Table(
        id=sweep.id,
        title=sweep.spec.title or " × ".join(axis.title for axis in axes),
        axes=axes,
        cells={
            cell.coordinates: _build_cell(context, cell, results.get(cell.key, CellResult()))
            for cell in plan.cells
        },
        fixed_settings=_collect_fixed_settings([cell.request for cell in plan.cells]),
        mode=describe_mode(sweep.spec, context.pipelines.device.dtype_name),
        axis_groups=tuple(group for group in plan.spec.groups if len(group) > 1),
    )


def describe_mode(spec: SweepSpec, dtype: str) -> str:
    """Return what the sheet says about how exact its cells are; `dtype` as torch names it."""
    if not spec.fast:
        return "exact: identical to single images"
    bound = f"exact except for rounding of {dtype}"
    if dtype == "float32":
        bound = f"latents within {BATCHING_TOLERANCE * 100:g} % of exact"
    return f"fast: batched, {bound}"


def load_sweep(context: WorkerContext, sweep_id: str) -> Sweep:
    """Return a stored sweep. Raises StudioError where there is none."""
    sweep = context.home.sweeps.get(sweep_id)
    if sweep is None:
        raise StudioError(f"The sweep {quote(sweep_id)} no longer exists.")
    return sweep


def _build_cell(context: WorkerContext, cell: Cell, result: CellResult) -> TableCell:
    image = context.home.gallery.get(result.path) if result.has_image and result.path else None
    if image is None:
        return TableCell(
            error=result.error,
            seed=cell.request.seed,
            settings=infotext.format_infotext(cell.request),
            verdict=result.verdict,
            key=cell.key,
        )
    return TableCell(
        image_path=image.path,
        seed=cell.request.seed,
        settings=infotext.format_infotext(image.request, image.used_files),
        metrics={"seconds": image.seconds, **result.metrics},
        verdict=result.verdict,
        thumbnail_path=image.thumbnail if image.thumbnail.is_file() else None,
        key=cell.key,
    )


def _copy_image(cell: TableCell, folder: Path) -> TableCell:
    if cell.image_path is None:
        return cell
    target = folder / cell.image_path.name
    atomic.write(target, cell.image_path.read_bytes())
    return replace(cell, image_path=target)


def _collect_fixed_settings(
    requests: Sequence[GenerationRequest],
) -> tuple[tuple[str, str], ...]:
    """Return titles and values of the settings that all cells share and that say something."""
    settings = []
    for name, field in GenerationRequest.model_fields.items():
        if name in ("num_images", "batch_size"):
            continue
        values = {
            "" if name in request.inactive_fields else _format_value(getattr(request, name))
            for request in requests
        }
        neutral = {"", "None", "1"} if name == "clip_skip" else {"", "None"}
        if len(values) != 1 or values & neutral:
            continue
        (value,) = values
        if name in ("image", "mask"):
            value = value[:SHORT_HASH_CHARS]
        settings.append((str(field.title), value))
    return tuple(settings)


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _measure_prompt_fit(context: WorkerContext, sweep: Sweep) -> None:
    """Measure the cosine of image and prompt where the embedded model generated the image.

    The embedded CLIP knows no other world.
    """
    images = {}
    for key, path in _list_image_paths(context, sweep).items():
        image = context.home.gallery.get(path)
        if image and image.request.model == DEFAULT_MODEL:
            images[key] = image
    if not images:
        raise StudioError(
            f"Prompt fit: the embedded CLIP only knows images of the model {DEFAULT_MODEL}, and "
            "there are none."
        )
    scores = {}
    with metrics.borrow_clip(context.pipelines) as clip:
        for key, image in images.items():
            pixels = decode.load_image(image.path).image
            scores[key] = clip.score_pairs([pixels], [image.request.prompt])[0]
    context.home.sweeps.set_metric(sweep.id, "prompt fit", scores)


def _measure_difference(context: WorkerContext, sweep: Sweep, reference_key: str) -> None:
    """Measure how far each image is from the reference cell's."""
    paths = _list_image_paths(context, sweep)
    if reference_key not in paths:
        raise InvalidSpec(["Difference: choose a reference cell that has an image."])
    reference = decode.load_image(paths[reference_key]).image
    differences = {
        key: metrics.compute_rms_difference(reference, decode.load_image(path).image)
        for key, path in paths.items()
    }
    context.home.sweeps.set_metric(sweep.id, "difference", differences)


def _measure_convergence(context: WorkerContext, sweep: Sweep) -> None:
    """Measure how far each image is from that of the most steps which is else the same.

    Where that one has no image, nothing is measured.
    """
    axis = sweep.spec.find_lone_axis("steps")
    if axis is None:
        raise InvalidSpec(
            ["Convergence: needs Steps as an axis that is not linked; this sweep has none."]
        )
    paths = _list_image_paths(context, sweep)
    plan = plan_sweep(sweep.spec)
    alike: dict[Coordinates, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        if cell.key in paths:
            at = cell.coordinates
            alike[at[:axis] + at[axis + 1 :]].append(cell)
    most_steps = max(cell.request.steps for cell in plan.cells)
    differences = {}
    for cells in alike.values():
        most = next((cell for cell in cells if cell.request.steps == most_steps), None)
        if most is None:
            continue
        reference = decode.load_image(paths[most.key]).image
        for cell in cells:
            image = decode.load_image(paths[cell.key]).image
            differences[cell.key] = metrics.compute_rms_difference(reference, image)
    context.home.sweeps.set_metric(sweep.id, "convergence", differences)


def _measure_pixels(context: WorkerContext, sweep: Sweep, metric_names: Sequence[str]) -> None:
    """Measure those of the numbers that need no more than each image."""
    wanted = [name for name in PIXEL_METRICS if name in metric_names]
    measured: dict[str, dict[str, float]] = {name: {} for name in wanted}
    for key, path in _list_image_paths(context, sweep).items() if wanted else ():
        image = decode.load_image(path).image
        for name in wanted:
            measured[name][key] = PIXEL_METRICS[name](image)
    for name, values in measured.items():
        context.home.sweeps.set_metric(sweep.id, name, values)


def _list_image_paths(context: WorkerContext, sweep: Sweep) -> dict[str, Path]:
    """Return the image files of a sweep by their cells' keys."""
    results = context.home.sweeps.load_cell_results(sweep.id)
    return {key: result.path for key, result in results.items() if result.has_image and result.path}
