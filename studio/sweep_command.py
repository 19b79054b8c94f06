"""`studio sweep`: a file is a stored sweep, whose id and seed come from the file's own words; the same file is the same sweep.

Knows: what the file means, what is handed over at the end. Does not know: how the command is called, how cells are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.errors import BadFile, StudioError
from studio.settings import Settings
from studio.spec.sweep import SweepSpec, plan
from studio.store.library import Library
from studio.store.presets import read
from studio.store.sweeps import Sweeps, from_words
from studio.working import done


def asked(path: Path, fast: bool, settings: Settings) -> tuple[str, SweepSpec]:
    """Id and settings of the file's sweep. Raises InvalidSpec, BadFile, and what the library says of a model or LoRA it lacks."""
    spec = read(path, SweepSpec, f"The sweep {path.name}")
    id, spec = from_words(spec.model_copy(update={"fast": spec.fast or fast}))
    library = Library(settings)
    for request in plan(spec).named:
        library.check(request)  # a wrong name is said before anything is loaded
    return id, spec


def planned(spec: SweepSpec, settings: Settings) -> dict[str, Any]:
    """Cells in order, their digests, what they will take; nothing is made."""
    from studio.engine.bench import Bench
    from studio.engine.sweeps.run import outline
    return outline(Bench.open(settings), spec)


def made(id: str, spec: SweepSpec, settings: Settings, output: Path | None) -> Iterator[Path]:
    """The cells in the order in which they ran, then sheet, viewer and index; in `output` where it is given.

    Raises StudioError with all cells that failed, after the others are handed over; BadFile for a folder that takes no files.
    """
    sweeps, cells = Sweeps(settings), plan(spec)
    sweeps.add(spec, "command-line", id)
    done(settings, "sweep", {"sweep": id, "title": spec.title, "cells": len(cells.cells)})
    kept = sweeps.cells(id)
    ran = [(cells.cells[k], kept[cells.cells[k].key]) for k in cells.order]
    pictures, files = [one.path for _, one in ran if one.path], sweeps.files(id)
    if output:
        from studio.engine.bench import Bench
        from studio.engine.sweeps.export import write
        try:
            files = write(Bench.open(settings), id, folder=output, copy=True)
        except OSError as error:
            raise BadFile(f"{output} cannot be written to: {error.strerror}. The pictures are in the gallery.") from None
        pictures = [output / "pictures" / path.name for path in pictures]
    yield from (*pictures, *files)
    if failed := [f"{' · '.join(cell.labels)}: {one.error}" for cell, one in ran if not one.done]:
        raise StudioError("\n".join([f"{len(failed)} of {len(ran)} cells could not be made; run the same again to try them again.",
                                     *failed]))
