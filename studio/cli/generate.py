"""`studio generate`: import files as inputs, generate, copy the images out.

Knows: paths, folders, masks from transparency, what is printed. Does not know: how images are made;
who may ask for what.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.cli.recipe_file import read_recipe_values
from studio.cli.runner import COMMAND_LINE, job_runner, load_settings, log, print_json
from studio.core.base import PLACEHOLDER_SHA256, is_sha256, validate
from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import find_scheduler_faults
from studio.core.generation.request import GenerationRequest
from studio.core.generation.templates.prompt_list import build_requests, parse_prompt_list
from studio.errors import BadFile, InvalidSpec, StudioError
from studio.services.submission import PreparedJob, Services
from studio.storage import atomic
from studio.storage.gallery import Gallery
from studio.storage.home import Home
from studio.storage.inputs import Inputs
from studio.storage.odd_files import explain_odd_file, read_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif")
MAX_LIST_BYTES = 8 * 2**20  # of a list of prompts
TRANSPARENCY = "transparency"  # in place of a mask's file: the image's own


def run(arguments: argparse.Namespace) -> None:
    """Make images through the queue of a studio that runs on this home, else in place."""
    flags = {
        name: value
        for name, value in vars(arguments).items()
        if name in GenerationRequest.model_fields
    }
    home = Home(load_settings(arguments))
    recipe: dict[str, Any] = {}
    if arguments.recipe_file:
        recipe_file = arguments.recipe_file.expanduser()
        model_name = str(flags.get("model", ""))
        recipe = read_recipe_values(home, recipe_file, arguments.recipe_number, model_name)
    recommended = _read_recommended_settings(home, {**recipe, **flags})
    settings = {**recommended, **recipe}
    if arguments.prompts_from:
        jobs = list(_iter_listed_jobs(home, {**settings, **flags}, arguments.prompts_from))
    else:
        jobs = list(_iter_jobs(home, build_request(flags, settings), arguments))
    if len(jobs) == 1 and isinstance(jobs[0][1], StudioError):
        raise jobs[0][1]  # a wrong name is said before anything is loaded
    failures = []
    with job_runner(home) as run_job:
        for name, job in jobs:
            try:
                if isinstance(job, StudioError):
                    raise job
                _print_result(home.gallery, run_job(job.kind, job.spec), arguments)
            except StudioError as error:
                if len(jobs) == 1:
                    raise
                failures.append(f"{name}: {error}")
    if failures:
        summary = f"{len(failures)} of {len(jobs)} images could not be made."
        raise StudioError("\n".join([summary, *failures]))


def build_request(
    flags: Mapping[str, Any], recommended: Mapping[str, Any] = MappingProxyType({})
) -> GenerationRequest:
    """Return the request behind the flags, with a placeholder for image and mask.

    Args:
        flags: What was given.
        recommended: The model's own settings, for what was not given.

    Raises InvalidSpec with all that is wrong, also for settings that would change nothing.
    """
    placeholders = {name: PLACEHOLDER_SHA256 for name in ("image", "mask") if flags.get(name)}
    request = validate(GenerationRequest, {**recommended, **flags, **placeholders})
    request.reject_inactive(flags)
    return request


def _read_recommended_settings(home: Home, flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the flags' model; none where there is no such model.

    Raises InvalidSpec for a scheduler that does not suit the model's family, before what it could
    run on is discussed.
    """
    try:
        name = flags.get("model", GenerationRequest.model_fields["model"].default)
        model = home.library.get_model(str(name))
    except StudioError:
        return {}
    faults = find_scheduler_faults(str(flags.get("scheduler", "")), FAMILIES[model.family])
    if faults:
        raise InvalidSpec(faults)
    return model.recommended_settings


def _iter_jobs(
    home: Home, request: GenerationRequest, arguments: argparse.Namespace
) -> Iterator[tuple[str, PreparedJob | StudioError]]:
    """Yield the job of each image (a file, a folder's files, an input's sha256), or its error.

    Without an image there is one job, for the request itself.
    """
    services = Services(home)
    image, mask = getattr(arguments, "image", ""), getattr(arguments, "mask", "")
    home.library.get_model(request.model)
    for source in _list_sources(image) if image else [""]:
        name = source.name if isinstance(source, Path) else source[:12]
        try:
            values = _import_files(home.inputs, source, mask) if image else {}
            complete = request.model_copy(update=values)
            if arguments.strip:
                yield name, services.prepare_denoise_strip(complete, arguments.strip, COMMAND_LINE)
            else:
                yield name, services.prepare_generation(complete, COMMAND_LINE)
        except StudioError as error:
            yield name, error


def _iter_listed_jobs(
    home: Home, values: Mapping[str, Any], file: Path
) -> Iterator[tuple[str, PreparedJob | StudioError]]:
    """Yield the job of each line of a list of prompts, with flags for what it does not say.

    Raises InvalidSpec with all lines that are wrong, before anything is made.
    """
    path = file.expanduser()
    with explain_odd_file(path):
        text = read_file(path, MAX_LIST_BYTES).decode("utf-8-sig", "replace")
    services = Services(home)
    prompts = parse_prompt_list(text)
    if not prompts:
        raise BadFile(f"{path.name} contains no prompts; write one per line.")
    for prompt in prompts:
        for note in prompt.notes:
            log(note)
    jobs: list[PreparedJob] = []

    def prepare(request: GenerationRequest) -> None:
        try:
            jobs.append(services.prepare_generation(request, COMMAND_LINE))
        except InvalidSpec:
            raise
        except StudioError as error:
            raise InvalidSpec([str(error)]) from None

    build_requests(prompts, values, prepare)
    for prompt, job in zip(prompts, jobs):
        yield f"line {prompt.number}", job


def _import_files(inputs: Inputs, source: Path | str, mask: str) -> dict[str, str]:
    """Return `image` and `mask` of a request; files become inputs of the home."""
    values = {"image": source if isinstance(source, str) else inputs.add(source).sha256}
    if mask == TRANSPARENCY and isinstance(source, Path):
        values["mask"] = inputs.add_transparency(source).sha256
    elif _is_input_hash(mask):
        values["mask"] = mask
    elif mask:
        values["mask"] = inputs.add_mask(Path(mask).expanduser()).sha256
    return values


def _list_sources(image: str) -> list[Path | str]:
    if _is_input_hash(image):
        return [image]
    return [*list_image_files(Path(image).expanduser())]


def list_image_files(path: Path) -> list[Path]:
    """Return a file itself, or a folder's images by name. Raises BadFile where it has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise BadFile(f"{path} contains no images ({', '.join(IMAGE_SUFFIXES)}).")
    return files


def _is_input_hash(name: str) -> bool:
    return is_sha256(name) and not Path(name).exists()


def _print_result(gallery: Gallery, result: dict[str, Any], arguments: argparse.Namespace) -> None:
    for note in result.get("notes", ()):
        log(note)
    for entry in result["pictures"]:
        path = Path(entry["path"])
        image = gallery.get(path)
        if arguments.output:
            path = copy_image(path, arguments.output.expanduser().resolve())
        if not arguments.json:
            print(path, flush=True)
            continue
        request = image.request.model_dump(mode="json") if image else result["request"]
        line = {
            "path": str(path),
            "request": request,
            "digest": entry["digest"],
            "seconds": entry["seconds"],
        }
        print_json(line)


def copy_image(path: Path, folder: Path) -> Path:
    """Copy an image into a folder, with a number where its name is taken. Raises BadFile."""
    for number in range(10_000):
        target = folder / (f"{path.stem}-{number}{path.suffix}" if number else path.name)
        try:
            atomic.write(target, path.read_bytes(), replace=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadFile(
                f"{folder} cannot be written to: {error.strerror}. The image is at {path}."
            ) from None
        return target
    raise BadFile(
        f"{folder} already holds too many images named {path.name}; the new one is at {path}."
    )
