"""Kohya's files → a training run of the studio, and a sentence about every key.

Knows: which file it is (sd-scripts' TOML, the GUI's JSON, a dataset_config, one of the studio's own), the plan behind
`studio train FILE --plan`. Does not know: where models and pictures are; nothing is read but the text.

Faithful: the run is the one that kohya would have done, with its keys that override each other in silence. `as_meant` takes the
other reading where people usually meant it: epochs for `epoch`, Adafactor at the rate that is given, a warm-up that is given,
samples where there are prompts. What the studio has not is said; without an optimizer, schedule or kind of LoRA that it has, or
without a model or dataset, there is no config, and `faults` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.base import check
from studio.core.catalog import Family
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya import dataset as kohya_data
from studio.core.training.kohya import network, optimizer
from studio.core.training.kohya.parser import Given, concept, parse
from studio.core.training.kohya.reader import Notice, Reader, shown
from studio.core.training.kohya.unsupported_keys import ELSEWHERE
from studio.core.training.lora_targets import SHAPES, ModelShape, count, modules
from studio.core.training.steps import steps
from studio.errors import InvalidSpec

__all__ = ["Imported", "Notice", "concept", "plan", "read"]


@dataclass(frozen=True)
class Imported:
    """What came of a file. `values` has every setting, None where it is not known; `config` is there if all of them are."""

    config: TrainingConfig | None
    values: dict[str, Any]
    faults: tuple[str, ...]
    notices: tuple[Notice, ...]
    family: Family | None


def read(text: str, name: str = "", as_meant: bool = False, dataset: str = "") -> Imported:
    """A file's text; `name` is what the file is called, `dataset` the text of a dataset_config beside it.

    Raises InvalidSpec for what cannot be read, and for values that cannot be, all at once.
    """
    given = parse(text)
    if given.form == "own":
        config = check(TrainingConfig, given.values)
        return Imported(config, config.model_dump(mode="json"), (), (), network.guess(config.model))
    if dataset:
        given = _with(given, parse(dataset))
    taker = Reader(given, as_meant)
    family = network.family(taker, name)
    _elsewhere(taker)
    if given.form != "dataset":
        kohya_data.model(taker, family)
        network.length(taker)
        network.network(taker)
        optimizer.optimizer(taker)
        network.settle(taker)
        kohya_data.watching(taker)
    else:
        taker.cannot(
            "model",
            "pretrained_model_name_or_path",
            "a dataset_config says nothing of model, LoRA, rate and length.",
        )
    kohya_data.batches(taker)
    kohya_data.captions(taker)
    kohya_data.pictures(taker)
    kohya_data.dataset(taker, name)
    taker.rest()
    taker.check()
    return _imported(taker, family)


def plan(
    text: str,
    name: str = "",
    as_meant: bool = False,
    *,
    dataset: str = "",
    shape: ModelShape | None = None,
    pictures: int | Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """What `studio train FILE --plan` prints: config, steps, modules, and notices of every key.

    Works without weights and data: what is not known is None, with the reason among the notices. Whoever has the model or the
    pictures hands in their `shape` and how many there are.
    """
    found = read(text, name, as_meant, dataset)
    notices = [notice.model_dump(include={"key", "note", "kind"}) for notice in found.notices]
    complete = _complete(found.values)
    total, layers = None, None
    if found.values["steps"] is None and (found.values["epochs"] is None or pictures is None):
        notices.append(
            {
                "key": "steps",
                "kind": "unknown",
                "note": "depend on how many pictures there are: epochs × pictures × "
                "repeats ÷ "
                "batch ÷ accumulation.",
            }
        )
    else:
        total = steps(complete, pictures or 0)
    shape = shape or (SHAPES[found.family] if found.family else None)
    if shape is None:
        notices.append(
            {
                "key": "modules",
                "kind": "unknown",
                "note": "depend on the model's family, which neither the file nor the "
                "names in it tell.",
            }
        )
    elif found.values["targets"] is None:
        notices.append(
            {"key": "modules", "kind": "unknown", "note": "the studio has no such kind of LoRA."}
        )
    else:
        layers = count(
            modules(
                shape,
                complete.targets,
                complete.patterns,
                unet=complete.train_unet,
                encoders=complete.train_text_encoder,
            )
        )
    return {"config": found.values, "steps": total, "modules": layers, "notices": notices}


def _with(given: Given, beside: Given) -> Given:
    """A dataset_config decides over the pictures; what it overrides is said."""
    if beside.form != "dataset" or given.form == "dataset":
        raise InvalidSpec(
            [
                "dataset_config: the second file has to be a dataset_config, with [[datasets]], beside training "
                "settings."
            ]
        )
    for key in ("train_data_dir", "reg_data_dir", "in_json", *beside.values):
        if given.values.pop(key, None) is not None:
            given.said.append(
                ("conflicting", given.names.get(key, key), "the dataset_config decides over it.")
            )
    given.values.pop("dataset_config", None)
    given.values |= beside.values
    given.names |= beside.names
    given.said += [*beside.said, ("taken", "dataset_config", "is the file beside this one.")]
    return given


def _elsewhere(taker: Reader) -> None:
    for key, family in ELSEWHERE.items():
        if taker.any(key):
            taker.cannot(
                "model",
                key,
                f"is for {family}; the studio trains Stable Diffusion 1.x, 2.x and XL.",
            )


def _complete(values: Mapping[str, Any]) -> TrainingConfig:
    """With something in place of what is not known, so that the rest can be checked."""
    known = {
        key: value
        for key, value in values.items()
        if value is not None or key in ("steps", "learning_rate")
    }
    return check(TrainingConfig, {"dataset": "?", "name": "unknown"} | known)


def _imported(taker: Reader, family: Family | None) -> Imported:
    unknown = taker.unknown
    given = {key: value for key, value in taker.values.items() if key not in unknown}
    try:
        made = check(TrainingConfig, {"dataset": "?", "name": "unknown"} | given)
    except InvalidSpec as error:
        raise InvalidSpec(
            [f"As settings of the studio: {fault}" for fault in error.faults]
        ) from None
    values = made.model_dump(mode="json") | dict.fromkeys(unknown)
    faults = tuple(
        dict.fromkeys(
            shown(sentence) if len(sentence) > 400 else sentence for sentence in unknown.values()
        )
    )
    return Imported(None if unknown else made, values, faults, tuple(taker.notices), family)
