"""`studio sweep`: a file is a stored sweep, whose id and seed come from the file's own words; the same file is the same sweep.

Knows: what the file means, what is handed over at the end. Does not know: how the command is called, how cells are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.cli.runner import done
from studio.core.sweeps.spec import Plan, SweepSpec, plan
from studio.errors import BadFile, StudioError
from studio.settings import Settings
from studio.storage.models.library import Library
from studio.storage.presets import read
from studio.storage.sweeps import Sweeps, from_words


def asked(path: Path, fast: bool) -> tuple[str, Plan]:
    """Id and plan of the file's sweep. Raises InvalidSpec and BadFile."""
    spec = read(path, SweepSpec, f"The sweep {path.name}")
    id, spec = from_words(spec.model_copy(update={"fast": spec.fast or fast}))
    return id, plan(spec)


def check(found: Plan, settings: Settings) -> None:
    """Raise what the library says of a model, LoRA or picture that it lacks: before anything is loaded."""
    library = Library(settings)
    for request in found.named:
        library.check(request)


def planned(found: Plan, settings: Settings) -> dict[str, Any]:
    """Cells in order, their digests, what they will take; nothing is made."""
    from studio.engine.context import Bench
    from studio.engine.sweeps.job import outline

    return outline(Bench.open(settings), found.spec)


def made(id: str, found: Plan, settings: Settings, output: Path | None) -> Iterator[Path]:
    """The cells in the order in which they ran, then sheet, viewer and index; in `output` where it is given.

    Raises StudioError with all cells that failed, after the others are handed over; BadFile for a folder that takes no files.
    """
    sweeps = Sweeps(settings)
    sweeps.add(found.spec, "command-line", id)
    done(settings, "sweep", {"sweep": id, "title": found.spec.title, "cells": len(found.cells)})
    kept = sweeps.cells(id)
    ran = [(found.cells[k], kept[found.cells[k].key]) for k in found.order]
    pictures, files = [one.path for _, one in ran if one.path], sweeps.files(id)
    if output:
        from studio.engine.context import Bench
        from studio.engine.sweeps.export import write

        try:
            files = write(Bench.open(settings), id, folder=output, copy=True)
        except OSError as error:
            raise BadFile(
                f"{output} cannot be written to: {error.strerror}. The pictures are in the gallery."
            ) from None
        pictures = [output / "pictures" / path.name for path in pictures]
    yield from (*pictures, *files)
    if failed := [f"{' · '.join(cell.labels)}: {one.error}" for cell, one in ran if not one.done]:
        raise StudioError(
            "\n".join(
                [
                    f"{len(failed)} of {len(ran)} cells could not be made; run the same again to try them again.",
                    *failed,
                ]
            )
        )
