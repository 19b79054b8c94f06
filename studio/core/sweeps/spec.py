"""A sweep as a plan: axes → cells, the order to run them in, what that will take.

Knows: what can be an axis, which axes exclude each other, every cell's request, which changes are dear.
Does not know: how cells are painted or kept, which models and LoRAs are here, what this machine can do (rates are handed in).

Axes of one group go hand in hand (a zip), groups multiply. A cell's coordinates say which value of each axis it has; they are
apart from the order of running, in which dear changes are rare. A plan depends on nothing but the spec and the seed: a sweep
that was killed comes to the same cells again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Self, TypeVar

from pydantic import model_validator

from studio.core.base import Value, check, setting
from studio.core.catalog import SCHEDULERS
from studio.core.generation.request import MOST_SEEDS, NEEDS, GenerationRequest
from studio.core.sweeps.axis import LORA_WEIGHTS, Axis, axes, named
from studio.core.sweeps.cost import Prediction, Rates, order, predict
from studio.core.sweeps.value_syntax import Plain, pair
from studio.errors import InvalidSpec

__all__ = ["MOST_CELLS", "Axis", "Cell", "Plan", "Prediction", "Rates", "SweepSpec", "axes", "plan"]

MOST_CELLS = 10_000
MOST_FOR_GUESTS = 64
MOST_AXES = 12
MOST_CHARACTERS = 5_000_000  # of the prompts of all cells: reading them takes about 4 seconds
MOST_FAULTS = 20  # told of all cells; equal ones count as one
TOGETHER = 8  # pictures painted together in a fast sweep whose base does not say
V = TypeVar("V", bound=Value)
_PROMPTS, _LONGEST_PROMPT = ("prompt", "negative_prompt"), 10_000
_LAST = ("lora", *LORA_WEIGHTS, "prompt_replace")  # what has to wait for the other axes, in turn


class _Named(Value):
    title: str = setting("", title="Title", max_length=200, help="What stands over the sheet.")
    fast: bool = setting(
        False,
        title="Fast",
        help="Several cells in one U-Net call: quicker, and the last bits may differ.",
    )


class SweepSpec(_Named):
    """A request and what varies in it."""

    base: GenerationRequest = setting(
        GenerationRequest(), title="Base", help="What all cells share."
    )
    axes: tuple[Axis, ...] = setting(..., title="Axes", help="What varies.")

    @model_validator(mode="before")
    @classmethod
    def _every_fault(cls, given: Any) -> Any:
        """Base and axes are checked one by one, so that all that is wrong is said at once and in whose words it belongs."""
        if not isinstance(given, Mapping):
            return given
        faults: list[str] = []
        values, listed = dict(given), given.get("axes")
        base = values["base"] = _checked(GenerationRequest, values.get("base", {}), "Base", faults)
        if base and base.count > 1:
            faults.append(
                f"Base: Pictures: a cell is one picture (not {base.count}); add an axis of seeds for more."
            )
        if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MOST_AXES:
            faults.append(f"Axes: a sweep needs a list of 1 to {MOST_AXES} axes.")
        else:
            values["axes"] = [
                _checked(Axis, axis, f"Axis {k}", faults) for k, axis in enumerate(listed, 1)
            ]
        _checked(
            _Named,
            {key: value for key, value in values.items() if key not in ("base", "axes")},
            "",
            faults,
        )
        if faults:
            raise InvalidSpec(faults)
        return values

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        faults = []
        decided: dict[str, str] = {}
        fields = [axis.field for axis in self.axes]
        for axis in self.axes:
            twice = [thing for thing in sorted(axis.sets) if thing in decided]
            if twice:
                faults.append(
                    f"{decided[twice[0]]} and {axis.title} both decide {twice[0]}; leave one out."
                )
            decided |= dict.fromkeys(axis.sets, axis.title)
            if (
                axis.field in LORA_WEIGHTS
                and not axis.lora
                and not self.base.untagged().loras
                and "lora" not in fields
            ):
                faults.append(
                    f"{axis.title}: of which LoRA? Name it in `lora`, add one to the base or an axis of LoRAs."
                )
        counts = self.counts
        for group in self.groups:
            first, *others = group
            faults += [
                f"{self.axes[first].title} has {counts[first]} values and {self.axes[k].title} has {counts[k]}: axes of one "
                "group go hand in hand and need equally many."
                for k in others
                if counts[k] != counts[first]
            ]
        factors = [counts[group[0]] for group in self.groups]
        if (cells := math.prod(factors)) > MOST_CELLS:
            faults.append(
                f"{' × '.join(map('{:,}'.format, factors))} values make {cells:,} cells; "
                f"a sweep has {MOST_CELLS:,} at most."
            )
        if faults:
            raise InvalidSpec(faults)
        return self

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Which axes (by their place) go hand in hand; an axis without a group is alone."""
        found: dict[object, list[int]] = {}
        for k, axis in enumerate(self.axes):
            found.setdefault(("alone", k) if axis.group is None else axis.group, []).append(k)
        return tuple(map(tuple, found.values()))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(axis.parsed) for axis in self.axes)

    def check_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too many cells; known before they are built."""
        counts = self.counts
        if (many := math.prod(counts[group[0]] for group in self.groups)) > MOST_FOR_GUESTS:
            raise InvalidSpec(
                [f"Axes: guests may ask for {MOST_FOR_GUESTS} cells at most (not {many:,})."]
            )

    @property
    def open(self) -> bool:
        """Whether a seed has still to be drawn."""
        seeds = [value for axis in self.axes if axis.field == "seed" for value in axis.parsed]
        return -1 in (seeds or [self.base.seed])

    def settled(self, seed: int) -> Self:
        """With no seed left open: the base's -1 becomes `seed`; on an axis of seeds, a -1 in place k (from 0) `seed` + k."""

        def drawn(axis: Axis) -> Axis:
            given = axis.parsed if axis.field == "seed" else ()
            seeds = tuple(
                (seed + k) % MOST_SEEDS if value == -1 else value for k, value in enumerate(given)
            )
            return axis.model_copy(update={"values": seeds}) if -1 in given else axis

        base = (
            self.base.model_copy(update={"seed": seed % MOST_SEEDS})
            if self.base.seed < 0
            else self.base
        )
        return self.model_copy(update={"base": base, "axes": tuple(map(drawn, self.axes))})


class Cell(Value):
    """One picture of a sweep: which value of each axis, and the request that comes of it."""

    index: int
    coordinates: tuple[int, ...]
    labels: tuple[str, ...]
    request: GenerationRequest

    @property
    def key(self) -> str:
        """What the cell is known by, whatever its place: the same request is the same cell in a sweep with more values."""
        return self.request.digest({"model": self.request.model})


class Plan(Value):
    """All cells by their coordinates, the last axis fastest; `order` has their indexes as they are to run."""

    spec: SweepSpec
    cells: tuple[Cell, ...]
    order: tuple[int, ...]
    predicted: Prediction

    @property
    def named(self) -> list[GenerationRequest]:
        """One request for each model with each set of LoRAs and each picture: what has to be in the library."""
        return list(
            {
                (
                    cell.request.model,
                    tuple(use.name for use in cell.request.untagged().loras),
                    cell.request.image,
                    cell.request.mask,
                    cell.request.extension,
                ): cell.request
                for cell in self.cells
            }.values()
        )

    def check_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too much."""
        faults: list[str] = []
        for check_one in (
            self.spec.check_guest,
            *(cell.request.check_guest for cell in self.cells),
        ):
            try:
                check_one()
            except InvalidSpec as error:
                faults += [fault for fault in error.faults if fault not in faults]
        if faults:
            raise InvalidSpec(faults[:MOST_FAULTS])


def plan(
    spec: SweepSpec, *, seed: int | None = None, rates: Mapping[str, Rates] | None = None
) -> Plan:
    """Build and validate every cell. Raises InvalidSpec with all that is wrong in any of them.

    `seed` is the one drawn for -1, `rates` what was measured with each model.
    """
    if seed is None and spec.open:
        raise ValueError("plan() needs a seed: one of the spec's is still -1")
    spec = spec.settled(seed or 0)
    values, labels = [axis.parsed for axis in spec.axes], [axis.labels for axis in spec.axes]
    about_loras = any(axis.field in _LAST[:-1] for axis in spec.axes)  # they work on tags as well
    together = (spec.base.batch if spec.base.batch > 1 else TOGETHER) if spec.fast else 1
    base = (spec.base.untagged() if about_loras else spec.base).model_dump() | {"batch": together}
    cells: list[Cell] = []
    faults: list[tuple[str, str]] = []
    characters = 0
    for index, at in enumerate(_coordinates(spec)):
        shown = tuple(label[k] for label, k in zip(labels, at))
        try:
            asked = _values(
                base, [(axis, value[k]) for axis, value, k in zip(spec.axes, values, at)]
            )
            characters += sum(len(str(asked[name])) for name in _PROMPTS)
            request = check(GenerationRequest, asked)
            request = (
                request.model_copy(update={"batch": 1})
                if SCHEDULERS[request.scheduler].alone
                else request
            )
            cells.append(Cell(index=index, coordinates=at, labels=shown, request=request))
        except InvalidSpec as error:
            where = f"Cell {', '.join(str(k + 1) for k in at)} ({' · '.join(f'{label:.60}' for label in shown)})"
            faults += [(where, fault) for fault in error.faults]
        if characters > MOST_CHARACTERS:
            raise InvalidSpec(
                [
                    f"The prompts of all cells have more than {MOST_CHARACTERS:,} characters: too many to read."
                ]
            )
    if told := [*_together(faults), *_moot(spec, cells)]:
        raise InvalidSpec(told)
    running = order([cell.request for cell in cells])
    predicted = predict([cells[k].request for k in running], rates or {})
    return Plan(spec=spec, cells=tuple(cells), order=running, predicted=predicted)


def _moot(spec: SweepSpec, cells: Sequence[Cell]) -> list[str]:
    """A sentence for every axis that changes nothing in any cell."""
    return [
        f"{axis.title}: changes nothing without {NEEDS[axis.field]}."
        for axis in spec.axes
        if axis.field in NEEDS and cells and all(axis.field in cell.request.idle for cell in cells)
    ]


def _coordinates(spec: SweepSpec) -> Iterator[tuple[int, ...]]:
    """Every combination of the groups' places, as a place on each axis."""
    groups, counts = spec.groups, spec.counts
    group_of = {axis: number for number, group in enumerate(groups) for axis in group}
    for chosen in product(*(range(counts[group[0]]) for group in groups)):
        yield tuple(chosen[group_of[axis]] for axis in range(len(spec.axes)))


def _values(base: Mapping[str, Any], chosen: Sequence[tuple[Axis, Plain]]) -> dict[str, Any]:
    """What a cell asks for, not yet checked. Plain settings first, then the LoRA, then weights (all, then one), then words."""
    values = dict(base)
    loras = {str(one["name"]): dict(one) for one in base["loras"]}
    words: dict[str, str] = {}
    for axis, value in sorted(chosen, key=_turn):
        match axis.field:
            case "size":
                values["width"], values["height"] = pair(str(value))
            case "lora":
                kept = loras.get(axis.lora, {"unet": 1.0, "text_encoder": 1.0})
                loras = {name: kept | {"name": name} for name in [named(value)] if name}
            case "lora_weight" | "lora_unet" | "lora_text_encoder":
                for name in [axis.lora] if axis.lora else list(loras):
                    loras.setdefault(name, {"name": name}).update(
                        dict.fromkeys(LORA_WEIGHTS[axis.field], value)
                    )
            case "prompt_replace":
                words[axis.find] = str(value)
            case field:
                values[field] = value
    values["loras"] = tuple(loras.values())
    return _replaced(values, words) if words else values


def _turn(chosen: tuple[Axis, Plain]) -> tuple[int, bool]:
    axis = chosen[0]
    return _LAST.index(axis.field) + 1 if axis.field in _LAST else 0, bool(axis.lora)


def _replaced(values: dict[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Other words in both prompts, all at once: what one axis puts in is not found by another."""
    pattern = re.compile("|".join(re.escape(find) for find in sorted(words, key=len, reverse=True)))
    met: set[str] = set()

    def other(found: re.Match[str]) -> str:
        met.add(found[0])
        return words[found[0]]

    for name in _PROMPTS:
        text = str(values[name])
        if (
            len(text) + sum(text.count(find) * len(new) for find, new in words.items())
            > 10 * _LONGEST_PROMPT
        ):
            raise InvalidSpec(
                [f"Replace: the prompt becomes far longer than {_LONGEST_PROMPT:,} characters."]
            )
        values[name] = pattern.sub(other, text)
    if missed := [find for find in words if find not in met]:
        raise InvalidSpec([f"Replace: {find!r:.60} is not in the prompts." for find in missed])
    return values


def _together(faults: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each different fault, with the first cell that has it and how many more do."""
    where: dict[str, list[str]] = {}
    for cell, fault in faults:
        where.setdefault(fault, []).append(cell)
    lines = [
        f"{cells[0]}: {fault}"
        + (f" The same in {len(cells) - 1:,} more cells." if len(cells) > 1 else "")
        for fault, cells in where.items()
    ]
    if len(lines) > MOST_FAULTS:
        lines[MOST_FAULTS:] = [
            f"{len(lines) - MOST_FAULTS:,} more faults like these, in {len({cell for cell, _ in faults}):,} "
            "cells altogether."
        ]
    return lines


def _checked(model: type[V], given: Any, whose: str, faults: list[str]) -> V | None:
    """The value, or None and its faults among `faults`."""
    if isinstance(given, model):
        return given
    try:
        return check(model, given if isinstance(given, Mapping) else {"": given})
    except InvalidSpec as error:
        told = error.faults if isinstance(given, Mapping) else ("has to be a table of settings.",)
        faults += [f"{whose}: {fault}" if whose else fault for fault in told]
        return None
