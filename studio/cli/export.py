"""`studio export`: pictures as files to hand on.

Knows: files and folders, what is printed. Does not know: how a format holds texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from studio.cli.generate import list_image_files
from studio.cli.runner import load_settings, log, print_json
from studio.core.base import validate
from studio.core.generation.export_spec import ExportSpec
from studio.errors import BadFile, StudioError
from studio.storage import atomic
from studio.storage.home import Home
from studio.storage.picture_exports import ExportedFile, export_image

MAX_SAME_NAMES = 10_000


def run(arguments: argparse.Namespace) -> None:
    """Write every picture; those that cannot be are named at the end."""
    flags = {
        name: value for name, value in vars(arguments).items() if name in ExportSpec.model_fields
    }
    spec = validate(ExportSpec, flags)
    home = Home(load_settings(arguments))
    folder = arguments.output.expanduser().resolve()
    files = [file for path in arguments.images for file in list_image_files(path.expanduser())]
    failures = []
    for file in files:
        try:
            exported = export_image(home.gallery, file, spec)
            target = _write(exported, folder)
        except StudioError as error:
            if len(files) == 1:
                raise
            failures.append(f"{file.name}: {error}")
            continue
        for note in exported.notes:
            log(f"{file.name}: {note}")
        if arguments.json:
            print_json({"path": str(target), "source": str(file), "notes": list(exported.notes)})
        else:
            print(target, flush=True)
    if failures:
        summary = f"{len(failures)} of {len(files)} images could not be exported."
        raise StudioError("\n".join([summary, *failures]))


def _write(exported: ExportedFile, folder: Path) -> Path:
    """Write a file under the first free name. Raises BadFile."""
    name = Path(exported.name)
    for number in range(MAX_SAME_NAMES):
        target = folder / (f"{name.stem}-{number}{name.suffix}" if number else exported.name)
        try:
            atomic.write(target, exported.data, replace=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadFile(f"{folder} cannot be written to: {error.strerror}.") from None
        return target
    raise BadFile(f"{folder} already holds too many files named {exported.name}.")
