"""A stored sweep → its table, and from that the files one can hand on: sheets, viewer, index.

Knows: where a sweep's cells are and what is said of them. Does not know: how cells are painted (run.py), how things are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.core.catalog import DEFAULT_MODEL, FAST_BOUND
from studio.core.generation import infotext
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import Cell, SweepSpec, plan
from studio.engine import metrics
from studio.engine.context import Bench
from studio.engine.sweeps.results import Table, TableAxis, TableCell, index_csv, index_json
from studio.engine.sweeps.sheet import write_sheets
from studio.engine.sweeps.viewer import write_viewer
from studio.errors import InvalidSpec, StudioError
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.jobs import Progress
from studio.storage.sweeps import Kept, Sweep

NUMBERS = ("seconds", "prompt fit", "difference")
STEM = "sheet"


def export(bench: Bench, spec: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """The work behind Export: measure what is asked for, then write. `spec`: "sweep", and if wanted "numbers" (of NUMBERS),
    "reference" (the key of the cell that differences are taken to), "x" and "y" (axes, by their place). Returns the files."""
    sweep, numbers = _found(bench, str(spec.get("sweep"))), tuple(spec.get("numbers") or ())
    if wrong := [name for name in numbers if name not in NUMBERS]:
        raise InvalidSpec(
            [f"Numbers: there is no {wrong[0]!r:.40}; choose of {', '.join(NUMBERS)}."]
        )
    x, y, many = spec.get("x"), spec.get("y"), len(sweep.spec.axes)
    if wrong_axes := [
        axis
        for axis in (x, y)
        if axis is not None and not (isinstance(axis, int) and 0 <= axis < many)
    ]:
        raise InvalidSpec(
            [f"Axes: this sweep has {many}; there is none in place {wrong_axes[0]!r:.20}."]
        )
    report(Progress(0, 1, "Measuring"))
    if "prompt fit" in numbers:
        _fit(bench, sweep)
    if "difference" in numbers:
        _difference(bench, sweep, str(spec.get("reference") or ""))
    report(Progress(0, 1, "Drawing the sheet"))
    return {"files": [str(path) for path in write(bench, sweep.id, numbers, x, y)]}


def write(
    bench: Bench,
    id: str,
    numbers: Sequence[str] = (),
    x: int | None = None,
    y: int | None = None,
    folder: Path | None = None,
    copy: bool = False,
) -> list[Path]:
    """Sheets, viewer and index, into the sweep's own folder or another; `copy` puts the pictures beside them."""
    whole, folder = table(bench, _found(bench, id)), folder or bench.sweeps.folder(id)
    folder.mkdir(parents=True, exist_ok=True)
    if copy:
        whole = replace(
            whole,
            cells={at: _copied(cell, folder / "pictures") for at, cell in whole.cells.items()},
        )
    viewer, as_json, as_csv = (folder / name for name in ("viewer.html", "index.json", "index.csv"))
    atomic.write(as_json, index_json(whole, folder).encode())
    atomic.write(
        as_csv, index_csv(whole, folder).encode("utf-8-sig")
    )  # so that spreadsheets know which letters these are
    shown = [name for name in NUMBERS if name in numbers and name in whole.numbers]
    sheets = write_sheets(whole, folder, STEM, x, y, numbers=shown)
    write_viewer(whole, viewer)
    return [*sheets, viewer, as_json, as_csv]


def table(bench: Bench, sweep: Sweep) -> Table:
    """All that is known of a sweep, to be looked at."""
    planned, kept = plan(sweep.spec), bench.sweeps.cells(sweep.id)
    cells = {
        cell.coordinates: _cell(bench, cell, kept.get(cell.key, Kept())) for cell in planned.cells
    }
    axes = tuple(TableAxis(axis.title, axis.labels) for axis in planned.spec.axes)
    groups = tuple(group for group in planned.spec.groups if len(group) > 1)
    title = sweep.spec.title or " × ".join(axis.title for axis in axes)
    fixed = _fixed(planned.spec, [cell.request for cell in planned.cells])
    return Table(
        sweep.id,
        title,
        axes,
        cells,
        fixed,
        mode(sweep.spec, bench.pipelines.device.dtype_name),
        groups,
    )


def mode(spec: SweepSpec, dtype: str) -> str:
    """What the sheet says about how exact its cells are."""
    if not spec.fast:
        return "exact: each cell is bit for bit the single picture"
    bound = (
        f"latents within {FAST_BOUND * 100:g} % of exact"
        if dtype == "float32"
        else f"exact but for the rounding of {dtype}"
    )
    return f"fast: several in one U-Net call, {bound}"


def _found(bench: Bench, id: str) -> Sweep:
    sweep = bench.sweeps.get(id)
    if sweep is None:
        raise StudioError(f"There is no sweep {id!r:.40} here any more.")
    return sweep


def _cell(bench: Bench, cell: Cell, kept: Kept) -> TableCell:
    picture = bench.gallery.get(kept.path) if kept.done and kept.path else None
    if picture is None:
        return TableCell(
            None,
            kept.error,
            cell.request.seed,
            infotext.write(cell.request),
            verdict=kept.verdict,
            key=cell.key,
        )
    numbers = {"seconds": picture.seconds, **kept.numbers}
    return TableCell(
        picture.path,
        "",
        cell.request.seed,
        infotext.write(picture.request, picture.contents.get("model", "")),
        numbers,
        kept.verdict,
        picture.thumb if picture.thumb.is_file() else None,
        cell.key,
    )


def _copied(cell: TableCell, folder: Path) -> TableCell:
    if cell.picture is None:
        return cell
    target = folder / cell.picture.name
    atomic.write(target, cell.picture.read_bytes())
    return replace(cell, picture=target)


def _fixed(spec: SweepSpec, requests: Sequence[GenerationRequest]) -> tuple[tuple[str, str], ...]:
    """Settings that all cells share, as far as they say something."""
    found = []
    for name, field in GenerationRequest.model_fields.items():
        values = {
            "" if name in request.idle else str(_words(getattr(request, name)))
            for request in requests
        }
        unsaid = {"", "None", "1"} if name == "clip_skip" else {"", "None"}
        if name not in ("count", "batch") and len(values) == 1 and not values & unsaid:
            value = values.pop()
            found.append((str(field.title), value[:12] if name in ("image", "mask") else value))
    return tuple(found)


def _words(value: Any) -> Any:
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else value
    )


def _fit(bench: Bench, sweep: Sweep) -> None:
    """Cosine to the prompt, for cells that the embedded model painted: the embedded CLIP knows no other world."""
    made = {
        key: picture
        for key, kept in bench.sweeps.cells(sweep.id).items()
        if kept.done
        and kept.path
        and (picture := bench.gallery.get(kept.path))
        and picture.request.model == DEFAULT_MODEL
    }
    if not made:
        raise StudioError(
            f"Prompt fit: the embedded CLIP knows only pictures of the model {DEFAULT_MODEL}, and there are none."
        )
    with metrics.clip(bench.pipelines) as clip:
        found = {
            key: clip.fit([decode.load(picture.path).image], [picture.request.prompt])[0]
            for key, picture in made.items()
        }
    bench.sweeps.measured(sweep.id, "prompt fit", found)


def _difference(bench: Bench, sweep: Sweep, reference: str) -> None:
    kept = {
        key: one.path for key, one in bench.sweeps.cells(sweep.id).items() if one.done and one.path
    }
    if reference not in kept:
        raise InvalidSpec(
            [
                "Difference: choose the cell that the others are compared to, and one that has a picture."
            ]
        )
    base = decode.load(kept[reference]).image
    found = {key: metrics.difference(base, decode.load(path).image) for key, path in kept.items()}
    bench.sweeps.measured(sweep.id, "difference", found)
