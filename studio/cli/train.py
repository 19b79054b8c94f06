"""What `studio train` reads and says: a file → settings of a training, or all that is known of it without data and weights.

Knows: kohya's files and the studio's own, a LoRA that carries the settings it was made with, changes typed on the command line.
Does not know: how anything is trained, the job table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.core.base import check
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya import importer
from studio.errors import BadFile, InvalidSpec
from studio.storage import atomic

MOST_BYTES = 4 * 2**20
OURS = "studio.training"  # where a LoRA of this studio carries its settings


def text_of(path: Path) -> str:
    """The settings that a file holds: its own text, or what a LoRA was made with. Raises BadFile."""
    if path.suffix == ".safetensors":
        try:
            return json.dumps(
                json.loads(atomic.safetensors_header(path)["__metadata__"][OURS])["config"]
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            raise BadFile(
                f"{path.name} carries no settings of a training of this studio."
            ) from None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFile(
                f"{path.name} is larger than {MOST_BYTES // 2**20} MiB: it holds no settings."
            )
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise BadFile(f"{path.name} cannot be read: {error}") from None


def planned(path: Path, as_meant: bool, typed: Sequence[str]) -> dict[str, Any]:
    """Config, steps, modules and notices, with what is not known as None."""
    text = text_of(path)
    if changes := _typed(typed):
        text = json.dumps(
            _changed(text, path, as_meant, changes).model_dump(mode="json", exclude_none=True)
        )
    return importer.plan(text, path.name, as_meant)


def config_of(path: Path, as_meant: bool, typed: Sequence[str]) -> tuple[TrainingConfig, list[str]]:
    """The settings to train with, and a sentence for each key that was not simply taken. Raises InvalidSpec."""
    text = text_of(path)
    found = importer.read(text, path.name, as_meant)
    said = [f"{notice.key}: {notice.note}" for notice in found.notices if notice.kind != "taken"]
    return _changed(text, path, as_meant, _typed(typed)), said


def _changed(text: str, path: Path, as_meant: bool, changes: dict[str, Any]) -> TrainingConfig:
    found = importer.read(text, path.name, as_meant)
    if found.config is None and not changes:
        raise InvalidSpec(found.faults)
    known = {key: value for key, value in found.values.items() if value is not None}
    try:
        return check(TrainingConfig, known | changes)
    except InvalidSpec as error:
        raise InvalidSpec(list(dict.fromkeys([*error.faults, *found.faults]))) from None


def _typed(words: Sequence[str]) -> dict[str, Any]:
    """`key=value`, each value as the field takes it. Raises InvalidSpec for what is no pair."""
    pairs = [word.partition("=") for word in words]
    if wrong := [
        word for word, (key, equals, _) in zip(words, pairs) if not (key.strip() and equals)
    ]:
        raise InvalidSpec([f"--set: {word!r:.60} has to be key=value." for word in wrong])
    return {key.strip().replace("-", "_"): value.strip() for key, _, value in pairs}
