"""Trainings on disk: a folder for each, with all that is known of it.

Knows: the settings that were asked for, log, samples, checkpoints, results, the owner. A run stays
the same run however often it is stopped and resumed. Does not know: torch, how anything is trained,
whether a run is running now (storage/jobs.py).

    runs/<id>/run.json                settings (nothing open), owner, when it was asked for
    runs/<id>/about.json              facts from its start: model, images, steps, prediction type
    runs/<id>/log.jsonl               a line a step: loss, smoothed loss, learning rate, images a
                                      second; a line for each validation
    runs/<id>/samples/00000100-0.png  of the first sample prompt after 100 steps
    runs/<id>/checkpoints/step-…      storage/training/checkpoints.py
    runs/<id>/result.json             the LoRA files that were written
    runs/<id>/report.json             whether it was worth it (engine/evaluation/job.py)
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.base import validate
from studio.core.generation.request import SEED_LIMIT
from studio.core.training.config import TrainingConfig
from studio.errors import BadFile, InvalidSpec, StudioError, quote
from studio.settings import Settings
from studio.storage import atomic, odd_files
from studio.storage.odd_files import explain_odd_file, list_folder
from studio.storage.training import checkpoints
from studio.storage.training.checkpoints import Checkpoint

_RUN_ID = re.compile(r"[0-9a-f]{12}")
MAX_LOG_BYTES = 2**30  # a line of 200 bytes for each of 5 million steps
MAX_TIME = 1e11  # Unix time in the year 5138
_SAMPLE_NAME = re.compile(r"(\d{8})-(\d{1,4})\.png")


@dataclass(frozen=True)
class Run:
    """A stored training.

    `start_info` is empty until it has started, `result` until it has written something.
    """

    id: str
    owner: str
    created: float
    config: TrainingConfig
    folder: Path
    start_info: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def date(self) -> str:
        """When it was asked for, as ISO 8601: the same in every file of the run."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.created))


@dataclass(frozen=True)
class Sample:
    """An image generated during a training, after `step` steps."""

    step: int
    prompt_index: int
    seed: int
    prompt: str
    path: Path


class Runs:
    """All runs of a home. Files only; worker and web process each have their own object."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.runs

    def add(self, config: TrainingConfig, owner: str) -> str:
        """Store a run and return its id.

        A seed that is left open is drawn now, so that every resumed run is the same one.
        """
        if config.seed < 0:
            config = config.model_copy(update={"seed": secrets.randbelow(SEED_LIMIT)})
        run_id = secrets.token_hex(6)
        record = {
            "owner": owner,
            "created": round(time.time(), 3),
            "config": config.model_dump(mode="json"),
        }
        data = json.dumps(record, ensure_ascii=False).encode()
        atomic.write(self._folder / run_id / "run.json", data)
        return run_id

    def get(self, run_id: str) -> Run | None:
        """Load a run; None if there is none of this id that can be read."""
        try:
            return self._load(run_id)
        except StudioError:
            return None

    def _load(self, run_id: str) -> Run:
        """Load a run. Raises StudioError: it is none, is damaged, or a later studio wrote it."""
        folder = self._folder / run_id
        path = folder / "run.json"
        if not _RUN_ID.fullmatch(run_id):
            raise BadFile(f"{quote(run_id)} is not the name of a training run.")
        with explain_odd_file(path, f"The training run {run_id}"):
            record = odd_files.read_json(path)
            created = float(record["created"])
            if not 0 <= created <= MAX_TIME or not isinstance(record["config"], dict):
                raise BadFile(f"The training run {run_id} cannot be read: its run.json is damaged.")
            try:
                config = validate(TrainingConfig, record["config"])
            except InvalidSpec as error:
                raise BadFile(f"The training run {run_id} cannot be read: {error}") from None
            return Run(
                id=run_id,
                owner=str(record["owner"]),
                created=created,
                config=config,
                folder=folder,
                start_info=_read_json(folder / "about.json"),
                result=_read_json(folder / "result.json"),
            )

    def list_runs(self, owner: str | None = None) -> list[Run]:
        """List the runs of an owner, or all, the newest first."""
        runs = []
        for run_id in self._list_ids():
            run = self.get(run_id)
            if run and owner in (None, run.owner):
                runs.append(run)
        return sorted(runs, key=lambda run: (run.created, run.id), reverse=True)

    def list_problems(self) -> list[str]:
        """Return a sentence for each training that `list_runs` leaves out."""
        problems = []
        for run_id in self._list_ids():
            try:
                self._load(run_id)
            except StudioError as error:
                problems.append(str(error))
        return problems

    def _list_ids(self) -> list[str]:
        """List the folders that are named like a training, whatever is in them."""
        return [path.name for path in list_folder(self._folder) if _RUN_ID.fullmatch(path.name)]

    def read_log(self, run_id: str, after_step: int = -1) -> list[dict[str, Any]]:
        """Read the log's lines of steps above `after_step`, except one that was cut off.

        Raises:
            StudioError: there is no such run.
        """
        rows = _read_jsonl(self._run_folder(run_id) / "log.jsonl")
        return [row for row in rows if row["step"] > after_step]

    def list_samples(self, run_id: str) -> list[Sample]:
        """List the images generated during a training, by step and prompt.

        Raises:
            StudioError: there is no such run.
        """
        run = self.get(run_id)
        folder = self._run_folder(run_id) / "samples"
        if run is None or not folder.is_dir():
            return []
        prompts = run.config.sample_prompt_list
        samples = []
        for path in sorted(folder.iterdir()):
            match = _SAMPLE_NAME.fullmatch(path.name)
            if match is None:
                continue
            index = int(match[2])
            if index < len(prompts):
                seed = sample_seed(run.config, index)
                samples.append(Sample(int(match[1]), index, seed, prompts[index], path))
        return samples

    def list_checkpoints(self, run_id: str) -> list[Checkpoint]:
        """List the checkpoints that look intact, the oldest first.

        Raises:
            StudioError: there is no such run.
        """
        return checkpoints.list_checkpoints(self._run_folder(run_id) / "checkpoints")

    def read_report(self, run_id: str) -> dict[str, Any]:
        """Read the report of engine/evaluation/job.py; empty before there is one.

        Raises:
            StudioError: there is no such run.
        """
        return _read_json(self._run_folder(run_id) / "report.json")

    def delete(self, run_id: str) -> None:
        """Delete a run; the LoRA files that it wrote stay.

        Raises:
            StudioError: there is no such run.
        """
        shutil.rmtree(self._run_folder(run_id), ignore_errors=True)

    # ---- for the worker ------------------------------------------------------------------------

    def rewind(self, run_id: str, step: int = -1) -> None:
        """Drop log lines and samples of later steps; without a step all, the checkpoints too.

        Raises:
            StudioError: there is no such run, or the disk does not take the log.
        """
        folder = self._run_folder(run_id)
        rows = [row for row in _read_jsonl(folder / "log.jsonl") if row["step"] <= step]
        atomic.write(folder / "log.jsonl", _dump_jsonl(rows))
        for sample in self.list_samples(run_id):
            if sample.step > step:
                sample.path.unlink(missing_ok=True)
        if step < 0:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def append_log(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to the log.

        Raises:
            BadFile: the disk does not take them.
            StudioError: there is no such run.
        """
        path = self._run_folder(run_id) / "log.jsonl"
        try:
            with open(path, "ab") as file:
                file.write(_dump_jsonl(rows))
        except OSError as error:
            raise atomic.write_error(path, error) from error

    def update_record(self, run_id: str, name: str, **values: Any) -> None:
        """Add values to a record of a run.

        Args:
            run_id: the run.
            name: "about" or "result", the file's name without .json.
            **values: what to add, by key.

        Raises:
            StudioError: there is no such run, or the disk does not take the file.
        """
        path = self._run_folder(run_id) / f"{name}.json"
        atomic.write(path, json.dumps(_read_json(path) | values, ensure_ascii=False).encode())

    def _run_folder(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id) or not (self._folder / run_id / "run.json").is_file():
            raise StudioError(f"The training run {quote(run_id)} no longer exists.")
        return self._folder / run_id


def sample_seed(config: TrainingConfig, prompt_index: int) -> int:
    """Return the seed of a sample prompt: the same at every step."""
    return (config.seed + prompt_index) % SEED_LIMIT


def _read_json(path: Path) -> dict[str, Any]:
    """Read a record of a run; empty where it cannot be read."""
    try:
        return odd_files.read_json(path)
    except (OSError, ValueError):
        return {}


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        lines = odd_files.read_file(path, MAX_LOG_BYTES).split(b"\n")
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _dump_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
