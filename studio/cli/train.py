"""`studio train`: settings from a file → a stored run, which can be stopped and resumed.

Knows: kohya's files and the studio's own, a LoRA that carries the settings it was made with,
changes typed on the command line. Does not know: how anything is trained; what a training has to
have (services/submission.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.cli.runner import COMMAND_LINE, job_runner, load_settings, log, print_json
from studio.core.base import former_names, validate
from studio.core.families.registry import FAMILIES
from studio.core.families.shapes import ModelShape
from studio.core.training.config import SETTINGS_METADATA_KEY, TrainingConfig
from studio.core.training.kohya import importer
from studio.core.training.rules import check_family
from studio.errors import BadFile, InvalidSpec, StudioError, quote
from studio.services.submission import Services
from studio.storage import atomic
from studio.storage.home import Home
from studio.storage.models.library import Library
from studio.storage.models.model_shape import read_model_shape
from studio.storage.training.runs import Runs

MAX_SETTINGS_BYTES = 4 * 2**20


def run(arguments: argparse.Namespace) -> None:
    """Train a LoRA and print its file; with --plan, print what will be, and train nothing."""
    path = arguments.file.expanduser()
    if arguments.plan:
        library = Library(load_settings(arguments))
        plan = plan_training(library, path, arguments.as_meant, arguments.set)
        print_json(plan)
        return
    config, notices = load_config(path, arguments.as_meant, arguments.set)
    home = Home(load_settings(arguments))
    services = Services(home)
    services.check_training(config, COMMAND_LINE)
    for notice in notices:
        log(notice)
    run_id = _find_run(home.runs, config) if arguments.resume else ""
    job = services.prepare_training(config, COMMAND_LINE, run_id)
    with job_runner(home) as run_job:
        result = run_job(job.kind, job.spec)
    for note in result.get("notes", ()):
        log(note)
    print(home.settings.loras / f"{result['lora']}.safetensors", flush=True)


def _find_run(runs: Runs, config: TrainingConfig) -> str:
    """Return the id of the last run of these settings. Raises StudioError where there is none."""
    values = config.model_dump(exclude={"seed"} if config.seed < 0 else set())
    for stored in runs.list_runs():
        if stored.config.model_dump(include=set(values)) == values:
            return stored.id
    raise StudioError(
        f"There is no run of {config.name} with these settings to resume; leave out --resume to "
        "start one."
    )


def read_settings_text(path: Path) -> str:
    """Return the settings that a file holds: its own text, or what a LoRA was made with.

    Raises BadFile.
    """
    if path.suffix == ".safetensors":
        try:
            metadata = atomic.read_safetensors_header(path)["__metadata__"]
            return json.dumps(json.loads(metadata[SETTINGS_METADATA_KEY])["config"])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise BadFile(f"{path.name} contains no training settings from this studio.") from None
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise BadFile(
                f"{path.name} is larger than {MAX_SETTINGS_BYTES // 2**20} MiB, so it is not a "
                "settings file."
            )
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise BadFile(f"{path.name} cannot be read: {error}") from None


def plan_training(
    library: Library, path: Path, as_meant: bool, assignments: Sequence[str]
) -> dict[str, Any]:
    """Return config, steps, modules and notices, with what is not known as None.

    Works without the model. Where it is there, its layers are counted.

    Raises:
        InvalidSpec: Settings are wrong, or the model cannot be trained with them.
        BadFile: The file, or a config of the model, cannot be read.
    """
    text = read_settings_text(path)
    overrides = _parse_assignments(assignments)
    if overrides:
        config = _apply_overrides(text, path, as_meant, overrides)
        text = json.dumps(config.model_dump(mode="json", exclude_none=True))
    shape = _read_shape(library, importer.import_config(text, path.name, as_meant))
    return importer.plan_import(text, path.name, as_meant, shape=shape)


def _read_shape(library: Library, imported: importer.KohyaImport) -> ModelShape | None:
    """Return the shape of the model of a training; None if it is not there.

    Raises InvalidSpec if that model cannot be trained so.
    """
    try:
        model = library.get_model(str(imported.values["model"]))
    except StudioError:
        return None
    if imported.config:
        check_family(imported.config, model.family, model.is_inpainting)
    if not FAMILIES[model.family].is_trainable:
        return None
    return read_model_shape(model)[0]


def load_config(
    path: Path, as_meant: bool, assignments: Sequence[str]
) -> tuple[TrainingConfig, list[str]]:
    """Return the settings to train with, and a sentence for each key that was not simply taken.

    Raises InvalidSpec.
    """
    text = read_settings_text(path)
    imported = importer.import_config(text, path.name, as_meant)
    notices = [
        f"{notice.key}: {notice.note}" for notice in imported.notices if notice.kind != "taken"
    ]
    return _apply_overrides(text, path, as_meant, _parse_assignments(assignments)), notices


def _apply_overrides(
    text: str, path: Path, as_meant: bool, overrides: dict[str, Any]
) -> TrainingConfig:
    imported = importer.import_config(text, path.name, as_meant)
    if imported.config is None and not overrides:
        raise InvalidSpec(imported.faults)
    values = {key: value for key, value in imported.values.items() if value is not None}
    former = former_names(TrainingConfig)
    for given_name, value in overrides.items():
        name = former.get(given_name, given_name)
        field = TrainingConfig.model_fields.get(name)
        is_emptied = value == "" and field is not None and field.default is None
        values[name] = None if is_emptied else value
    try:
        return validate(TrainingConfig, values)
    except InvalidSpec as error:
        raise InvalidSpec(list(dict.fromkeys([*error.faults, *imported.faults]))) from None


def _parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` words; values stay texts. Raises InvalidSpec for what is no pair."""
    values, faults = {}, []
    for word in assignments:
        key, equals, value = word.partition("=")
        if key.strip() and equals:
            values[key.strip().replace("-", "_")] = value.strip()
        else:
            faults.append(f"--set: {quote(word)} must be key=value.")
    if faults:
        raise InvalidSpec(faults)
    return values
