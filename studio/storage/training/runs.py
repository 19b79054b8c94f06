"""Trainings on disk: a folder for each, with all that is known of it.

Knows: the settings as they were asked for, the log, samples, checkpoints, what came of it; whose it is. A run is the same run
however often it is stopped and taken up. Does not know: torch, how anything is trained, whether it runs now (storage/jobs.py).

    runs/<id>/run.json                  settings (nothing open), owner, when
    runs/<id>/about.json                what was found when it began: model, pictures, steps, prediction
    runs/<id>/log.jsonl                 a line a step: loss, smoothed, rate, pictures a second; a line for each validation
    runs/<id>/samples/00000100-0.png    of the first sample prompt after 100 steps
    runs/<id>/checkpoints/step-…        storage/training/checkpoints.py
    runs/<id>/result.json               the LoRA files that were written
    runs/<id>/report.json               whether it was worth it (engine/evaluation/job.py)
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

from studio.core.base import check
from studio.core.generation.request import MOST_SEEDS
from studio.core.training.config import TrainingConfig
from studio.errors import BadFile, InvalidSpec, StudioError
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.training import checkpoints
from studio.storage.training.checkpoints import Checkpoint

_ID = re.compile(r"[0-9a-f]{12}")
_SAMPLE = re.compile(r"(\d{8})-(\d{1,4})\.png")


@dataclass(frozen=True)
class Run:
    """A stored training. `about` and `result` are empty until it has begun, until it has come to something."""

    id: str
    owner: str
    created: float
    config: TrainingConfig
    folder: Path
    about: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def date(self) -> str:
        """When it was asked for, as ISO 8601: the same in every file of the run."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.created))


@dataclass(frozen=True)
class Sample:
    """A picture painted on the way."""

    step: int
    number: int
    seed: int
    prompt: str
    path: Path


class Runs:
    """All runs of a home. Files only; worker and web process each have their own."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.runs

    def add(self, config: TrainingConfig, owner: str) -> str:
        """Store a run; a seed left open is drawn now, so that it is the same run whenever it is taken up. Its id."""
        config = (
            config
            if config.seed >= 0
            else config.model_copy(update={"seed": secrets.randbelow(MOST_SEEDS)})
        )
        id, now = secrets.token_hex(6), time.time()
        said = {"owner": owner, "created": round(now, 3), "config": config.model_dump(mode="json")}
        atomic.write(self._folder / id / "run.json", json.dumps(said, ensure_ascii=False).encode())
        return id

    def get(self, id: str) -> Run | None:
        """None if there is no such run, or it is one of a later studio."""
        folder = self._folder / id
        if not _ID.fullmatch(id):
            return None
        said = _json(folder / "run.json")
        try:
            config = check(TrainingConfig, said["config"])
            return Run(
                id,
                str(said["owner"]),
                float(said["created"]),
                config,
                folder,
                _json(folder / "about.json"),
                _json(folder / "result.json"),
            )
        except (InvalidSpec, KeyError, TypeError, ValueError):
            return None

    def listing(self, owner: str | None = None) -> list[Run]:
        """The newest first."""
        ids = (
            [path.name for path in self._folder.iterdir() if path.is_dir()]
            if self._folder.is_dir()
            else []
        )
        found = [run for id in ids if (run := self.get(id)) and owner in (None, run.owner)]
        return sorted(found, key=lambda run: (run.created, run.id), reverse=True)

    def log(self, id: str, since: int = -1) -> list[dict[str, Any]]:
        """The log's lines with steps above `since`; a line that was cut off is left out."""
        return [row for row in _lines(self._at(id) / "log.jsonl") if row["step"] > since]

    def samples(self, id: str) -> list[Sample]:
        """Pictures painted on the way, by step and prompt."""
        run = self.get(id)
        folder, found = self._at(id) / "samples", []
        for path in sorted(folder.iterdir()) if run and folder.is_dir() else ():
            match = _SAMPLE.fullmatch(path.name)
            if run and match and int(match[2]) < len(run.config.samples):
                step, number = int(match[1]), int(match[2])
                found.append(
                    Sample(
                        step,
                        number,
                        sample_seed(run.config, number),
                        run.config.samples[number],
                        path,
                    )
                )
        return found

    def checkpoints(self, id: str) -> list[Checkpoint]:
        """Those that look whole, the oldest first."""
        return checkpoints.listing(self._at(id) / "checkpoints")

    def report(self, id: str) -> dict[str, Any]:
        """What engine/evaluation/job.py found; empty before that."""
        return _json(self._at(id) / "report.json")

    def delete(self, id: str) -> None:
        """Forget a run; the LoRA files that it made stay."""
        shutil.rmtree(self._at(id), ignore_errors=True)

    # ---- for the worker -----------------------------------------------------------------------------------------

    def restart(self, id: str, step: int = -1) -> None:
        """Forget what the log and the samples say of later steps; without a step everything, the checkpoints too."""
        folder = self._at(id)
        atomic.write(
            folder / "log.jsonl",
            _written(row for row in _lines(folder / "log.jsonl") if row["step"] <= step),
        )
        for sample in self.samples(id):
            if sample.step > step:
                sample.path.unlink(missing_ok=True)
        if step < 0:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def append(self, id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to the log. Raises BadFile when the disk does not take them."""
        path = self._at(id) / "log.jsonl"
        try:
            with open(path, "ab") as out:
                out.write(_written(rows))
        except OSError as error:
            raise BadFile(
                f"{path} could not be written: {error.strerror or error}. Is the disk full?"
            ) from error

    def say(self, id: str, name: str, **said: Any) -> None:
        """Add to about.json or result.json."""
        path = self._at(id) / f"{name}.json"
        atomic.write(path, json.dumps(_json(path) | said, ensure_ascii=False).encode())

    def _at(self, id: str) -> Path:
        if not _ID.fullmatch(id) or not (self._folder / id / "run.json").is_file():
            raise StudioError(f"There is no training run {id!r:.40} here any more.")
        return self._folder / id


def sample_seed(config: TrainingConfig, number: int) -> int:
    """Of a sample prompt: the same at every step."""
    return (config.seed + number) % MOST_SEEDS


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found


def _written(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
