"""`studio upscale`: import files as inputs, make them larger, copy the results out.

Knows: files and folders, what is printed. Does not know: how an image is enlarged.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from studio.cli.generate import copy_image, list_image_files
from studio.cli.runner import COMMAND_LINE, job_runner, load_settings, print_json
from studio.core.base import PLACEHOLDER_SHA256, validate
from studio.core.generation.upscaling import UpscaleSpec
from studio.errors import StudioError
from studio.services.submission import PreparedJob, Services
from studio.storage import gallery
from studio.storage.home import Home


def run(arguments: argparse.Namespace) -> None:
    """Make every image larger; those that cannot be are named at the end."""
    flags = {
        name: value for name, value in vars(arguments).items() if name in UpscaleSpec.model_fields
    }
    spec = validate(UpscaleSpec, {**flags, "image": PLACEHOLDER_SHA256})
    home = Home(load_settings(arguments))
    if spec.upscaler:
        home.library.upscalers.read(spec.upscaler)  # a wrong name is said before anything is read
    else:
        home.library.upscalers.read_pickles()  # the one that suits may be among them
    services = Services(home)
    files = [file for path in arguments.images for file in list_image_files(path.expanduser())]
    failures = []
    with job_runner(home) as run_job:
        for file in files:
            try:
                job = _prepare_job(services, spec, file)
                _print_result(file, run_job(job.kind, job.spec), arguments)
            except StudioError as error:
                if len(files) == 1:
                    raise
                failures.append(f"{file.name}: {error}")
    if failures:
        summary = f"{len(failures)} of {len(files)} images could not be enlarged."
        raise StudioError("\n".join([summary, *failures]))


def _prepare_job(services: Services, spec: UpscaleSpec, file: Path) -> PreparedJob:
    image = services.home.inputs.add(file, keeps_transparency=True).sha256
    return services.prepare_upscale(
        spec.model_copy(update={"image": image}), COMMAND_LINE, gallery.read_request(file)
    )


def _print_result(file: Path, result: dict[str, Any], arguments: argparse.Namespace) -> None:
    for entry in result["pictures"]:
        path = Path(entry["path"])
        if arguments.output:
            path = copy_image(path, arguments.output.expanduser().resolve())
        if not arguments.json:
            print(path, flush=True)
            continue
        line = {
            "path": str(path),
            "source": str(file),
            "upscaler": result["upscaler"],
            "size": result["size"],
            "digest": entry["digest"],
            "seconds": entry["seconds"],
        }
        print_json(line)
