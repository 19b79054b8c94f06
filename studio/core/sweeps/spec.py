"""A sweep as a plan: axes → cells, the order to run them in, the time that this takes.

Knows: which axes exclude each other, every cell's request.
Does not know: how cells are painted or saved, which models and LoRAs are installed, how fast this
machine is (timings are handed in).

Axes of one group go hand in hand (a zip), groups multiply. A cell's coordinates say which value of
each axis it has; they are independent of the run order, in which expensive changes are rare. A plan
depends on nothing but the spec and the seed: a sweep that was killed comes to the same cells again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, Self, TypeVar

from pydantic import model_validator

from studio.core.base import Spec, former_names, spec_field, validate
from studio.core.catalog import AUTOMATIC, SCHEDULERS, Scheduler
from studio.core.generation.embeddings import asks_for_embeddings
from studio.core.generation.request import (
    FIELD_REQUIRES,
    SEED_LIMIT,
    GenerationRequest,
    derive_seed,
)
from studio.core.generation.templates.combinations import list_combinations
from studio.core.generation.templates.prompt_files import NoPromptFiles, PromptFiles
from studio.core.generation.templates.writer import find_missing_wildcards
from studio.core.sweeps.axis import LORA_WEIGHT_FIELDS, Axis, list_axes, lora_name
from studio.core.sweeps.cost import CostEstimate, ModelTimings, estimate_cost, order_requests
from studio.core.sweeps.value_syntax import AxisValue, parse_size
from studio.core.sweeps.wordings import SweepWordings, hash_spec, record_words, write_out_cell
from studio.errors import InvalidSpec, quote

__all__ = [
    "MAX_CELLS",
    "Axis",
    "Cell",
    "CostEstimate",
    "ModelSetting",
    "ModelTimings",
    "SweepPlan",
    "SweepSpec",
    "list_axes",
    "plan_sweep",
]

MAX_CELLS = 10_000
MAX_GUEST_CELLS = 64
MAX_AXES = 12
ALL_WORDINGS = "all"  # as a value of an axis of wordings: the base's own template
MAX_TOTAL_PROMPT_CHARS = 5_000_000  # of all cells: parsing them takes about 4 seconds
MAX_REPORTED_FAULTS = 20  # of all cells; equal ones count as one
MAX_NAMED_VALUES = 3  # of an axis that have the same fault
# The end of a fault that names the value, as core/base.py writes it.
_VALUE_END_RE = re.compile(r" \((you entered|you chose) ([^()]+)\)\.$")
FAST_BATCH_SIZE = 8  # images painted together in a fast sweep whose base does not say
SpecT = TypeVar("SpecT", bound=Spec)
_PROMPT_FIELDS = ("prompt", "negative_prompt")
_MAX_PROMPT_CHARS = 10_000
_LORA_AXES = ("lora", *LORA_WEIGHT_FIELDS)
_DEPENDENT_AXES = (*_LORA_AXES, "prompt_replace")  # applied after all others, in this order


class ModelSetting(Spec):
    """A setting of all cells with one model, for which the base's is none."""

    model: str = spec_field(..., title="Model", max_length=200, help="Whose setting it is.")
    field: str = spec_field(..., title="Field", max_length=200, help="A setting's name.")
    value: AxisValue = spec_field(..., title="Value", help="What it is with that model.")


class _SweepOptions(Spec):
    title: str = spec_field("", title="Title", max_length=200, help="The title on the sheet.")
    fast: bool = spec_field(
        False,
        title="Fast",
        help="Batch several cells in one U-Net call: faster, but the last bits may differ.",
    )
    model_settings: tuple[ModelSetting, ...] = spec_field(
        (),
        title="Model settings",
        neutral=[],
        help="Settings that models of an axis use instead of the base's.",
    )
    wordings: SweepWordings | None = spec_field(
        None,
        title="Wordings",
        neutral=None,
        help="What templates expanded to when the sweep was saved.",
    )


class SweepSpec(_SweepOptions):
    """A request and what varies in it."""

    base: GenerationRequest = spec_field(
        GenerationRequest(), title="Base", help="The settings all cells share."
    )
    axes: tuple[Axis, ...] = spec_field(..., title="Axes", help="What varies.")

    @classmethod
    def complete_stored(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        completed = super().complete_stored(values)
        base = completed.get("base", {})
        if isinstance(base, Mapping):
            completed["base"] = _complete_base(base, completed.get("axes"))
        return completed

    def dump_for_file(self) -> dict[str, Any]:
        values = {**super().dump_for_file(), "base": self.base.dump_for_file()}
        values.pop("wordings", None)  # a file's words are drawn where it is run
        return values

    @model_validator(mode="before")
    @classmethod
    def _collect_faults(cls, raw_values: Any) -> Any:
        """Validate base and axes one by one, to report all faults at once and whose they are."""
        if not isinstance(raw_values, Mapping):
            return raw_values
        faults: list[str] = []
        values = dict(raw_values)
        base = _validate_part(GenerationRequest, values.get("base", {}), "Base", faults)
        values["base"] = base
        if base and base.num_images > 1:
            faults.append(
                f"Base: Images: a cell is one image (you entered {base.num_images}); "
                "add an axis of seeds for more."
            )
        axes = values.get("axes")
        if not isinstance(axes, list | tuple) or not 1 <= len(axes) <= MAX_AXES:
            faults.append(f"Axes: a sweep needs a list of 1 to {MAX_AXES} axes.")
        else:
            values["axes"] = [
                _validate_part(Axis, axis, f"Axis {k}", faults) for k, axis in enumerate(axes, 1)
            ]
        options = {key: value for key, value in values.items() if key not in ("base", "axes")}
        _validate_part(_SweepOptions, options, "", faults)
        if faults:
            raise InvalidSpec(faults)
        return values

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
        faults = [*self._find_axis_conflicts(), *self._find_group_conflicts()]
        factors = self._count_group_values()
        cells = math.prod(factors)
        if cells > MAX_CELLS:
            faults.append(
                f"{' × '.join(map('{:,}'.format, factors))} values make {cells:,} cells; a sweep "
                f"can have at most {MAX_CELLS:,}."
            )
        if faults:
            raise InvalidSpec(faults)
        return self

    def _find_axis_conflicts(self) -> Iterator[str]:
        """Yield a sentence for settings that two axes decide, and for weights without a LoRA."""
        has_loras = bool(self.base.with_inline_loras().loras)
        has_loras |= any(axis.field == "lora" for axis in self.axes)
        owners: dict[str, str] = {}  # the title of the axis that decides a setting
        for axis in self.axes:
            shared = [setting for setting in sorted(axis.affected_settings) if setting in owners]
            if shared:
                yield (f"{owners[shared[0]]} and {axis.title} both set {shared[0]}; remove one.")
            owners |= dict.fromkeys(axis.affected_settings, axis.title)
            if axis.field in LORA_WEIGHT_FIELDS and not axis.lora and not has_loras:
                yield (
                    f"{axis.title}: for which LoRA? Name it in `lora`, add one to the base or add "
                    "an axis of LoRAs."
                )

    def _find_group_conflicts(self) -> Iterator[str]:
        """Axes of a group with another number of values than its first."""
        counts = self.value_counts
        for first, *followers in self.groups:
            for k in followers:
                if counts[k] != counts[first]:
                    yield (
                        f"{self.axes[first].title} has {counts[first]} values but "
                        f"{self.axes[k].title} has {counts[k]}: linked axes need the same number "
                        "of values."
                    )

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The indexes of the axes that go hand in hand; an axis without a group is alone."""
        groups: dict[object, list[int]] = {}
        for k, axis in enumerate(self.axes):
            key = ("alone", k) if axis.group is None else axis.group
            groups.setdefault(key, []).append(k)
        return tuple(map(tuple, groups.values()))

    def find_lone_axis(self, field: str) -> int | None:
        """Return the index of the axis that varies a field, if it is linked to no other."""
        alone = {group[0] for group in self.groups if len(group) == 1}
        return next((k for k in sorted(alone) if self.axes[k].field == field), None)

    @property
    def value_counts(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(axis.parsed_values) for axis in self.axes)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that its cells use, each once."""
        axes = [axis for axis in self.axes if axis.field == "model"]
        names = [str(value) for axis in axes for value in axis.parsed_values]
        return tuple(dict.fromkeys(names or [self.base.model]))

    def _count_group_values(self) -> list[int]:
        counts = self.value_counts
        return [counts[group[0]] for group in self.groups]

    def validate_for_guest(self) -> None:
        """Check that a visitor who is not the owner may run it, before any cell is built.

        Raises:
            InvalidSpec: The sweep has too many cells.
        """
        cells = math.prod(self._count_group_values())
        if cells > MAX_GUEST_CELLS:
            raise InvalidSpec(
                [
                    f"Axes: guests may ask for at most {MAX_GUEST_CELLS} cells (you entered "
                    f"{cells:,})."
                ]
            )

    @property
    def has_open_seed(self) -> bool:
        """Whether a seed has still to be drawn."""
        seed_axes = [axis for axis in self.axes if axis.field == "seed"]
        if not seed_axes:
            return self.base.seed == -1
        return any(-1 in axis.parsed_values for axis in seed_axes)

    def resolve_seeds(self, seed: int) -> Self:
        """Return the sweep with every -1 replaced by a seed.

        Args:
            seed: The base's seed; on an axis of seeds a -1 in place k (from 0) becomes `seed` + k.
                Seeds of variations are others by it.
        """
        base = self.base
        variation_seed = derive_seed(seed)
        if base.seed < 0:
            base = base.model_copy(update={"seed": seed % SEED_LIMIT})
        has_variations = base.variation_strength or any(
            axis.field == "variation_strength" for axis in self.axes
        )
        if has_variations and base.variation_seed < 0:
            base = base.model_copy(update={"variation_seed": variation_seed})
        first_seeds = {"seed": seed, "variation_seed": variation_seed}
        axes = tuple(_resolve_axis_seeds(axis, first_seeds.get(axis.field)) for axis in self.axes)
        return self.model_copy(update={"base": base, "axes": axes})


def _resolve_axis_seeds(axis: Axis, seed: int | None) -> Axis:
    if seed is None or -1 not in axis.parsed_values:
        return axis
    seeds = tuple(
        (seed + k) % SEED_LIMIT if value == -1 else value
        for k, value in enumerate(axis.parsed_values)
    )
    return axis.model_copy(update={"values": seeds})


class Cell(Spec):
    """One image of a sweep: which value of each axis, and the request that comes of it."""

    index: int
    coordinates: tuple[int, ...]
    labels: tuple[str, ...]
    request: GenerationRequest

    @cached_property
    def key(self) -> str:
        """The digest of its request: the same cell in a sweep with more values has the same key."""
        return self.request.key


class SweepPlan(Spec):
    """All cells by their coordinates, the last axis fastest.

    `run_order` has their indexes in the order in which to run them.
    """

    spec: SweepSpec
    cells: tuple[Cell, ...]
    run_order: tuple[int, ...]
    cost_estimate: CostEstimate

    @property
    def distinct_requests(self) -> list[GenerationRequest]:
        """One request for each set of files: model, LoRAs, upscaler, images, embeddings by name.

        That is what the library must have.
        """
        requests: dict[tuple[Any, ...], GenerationRequest] = {}
        for cell in self.cells:
            request = cell.request
            loras = tuple(use.name for use in request.with_inline_loras().loras)
            asking = tuple(text for text in request.prompts if asks_for_embeddings(text))
            images = (request.image, request.mask, request.extension)
            key = (request.model, loras, request.active_upscaler, asking, *images)
            requests[key] = request
        return list(requests.values())

    def validate_for_guest(self) -> None:
        """Check that a visitor who is not the owner may run it.

        Raises:
            InvalidSpec: The sweep has too many cells, or a cell goes beyond a guest's limits.
        """
        faults: list[str] = []
        parts: list[SweepSpec | GenerationRequest] = [self.spec]
        parts += [cell.request for cell in self.cells]
        for part in parts:
            try:
                part.validate_for_guest()
            except InvalidSpec as error:
                faults += [fault for fault in error.faults if fault not in faults]
        if faults:
            raise InvalidSpec(faults[:MAX_REPORTED_FAULTS])


def plan_sweep(
    spec: SweepSpec,
    *,
    seed: int | None = None,
    timings: Mapping[str, ModelTimings] | None = None,
    files: PromptFiles | None = None,
) -> SweepPlan:
    """Build and validate every cell of a sweep.

    Args:
        spec: The sweep.
        seed: Replaces -1 (see `SweepSpec.resolve_seeds`); needed where `spec.has_open_seed`.
        timings: What was measured with each model, by its name, for the cost estimate.
        files: The wildcards and styles that there are; each cell's words come by its seed. None
            takes the words that were recorded, and leaves prompts as typed where none were.

    Raises:
        InvalidSpec: Cells are not valid or axes change nothing; it names all faults.
        ValueError: `seed` is missing.
    """
    if seed is None and spec.has_open_seed:
        raise ValueError("plan() needs a seed: one of the spec's is still -1")
    spec = write_out_axes(spec, files or NoPromptFiles())
    if seed is not None:  # a stored sweep keeps what was drawn for it
        spec = spec.resolve_seeds(seed)
    spec_digest = hash_spec(spec.model_dump(mode="json", exclude={"wordings"}))
    words: Sequence[tuple[str, str]] = ()
    if spec.wordings and spec.wordings.spec_digest == spec_digest:
        words = spec.wordings.words
    base_values = _dump_base(spec)
    model_settings: dict[str, dict[str, Any]] = {}
    for setting in spec.model_settings:
        model_settings.setdefault(setting.model, {})[setting.field] = setting.value
    axis_values = [axis.parsed_values for axis in spec.axes]
    axis_labels = [axis.labels for axis in spec.axes]
    cells: list[Cell] = []
    typed_requests: list[GenerationRequest] = []
    faults: list[tuple[str, str]] = []
    characters = 0
    for index, coordinates in enumerate(_iterate_coordinates(spec)):
        values = [options[k] for options, k in zip(axis_values, coordinates)]
        labels = tuple(options[k] for options, k in zip(axis_labels, coordinates))
        try:
            request_values = _build_cell_values(base_values, list(zip(spec.axes, values)))
            request_values |= model_settings.get(str(request_values["model"]), {})
            characters += sum(len(str(request_values[name])) for name in _PROMPT_FIELDS)
            typed = validate(GenerationRequest, request_values)
            known_words = words[index] if index < len(words) else None
            request = write_out_cell(typed, files, known_words)
            typed_requests.append(typed)
            if SCHEDULERS[request.scheduler].is_rounding_sensitive:
                request = request.model_copy(update={"batch_size": 1})
            cell = Cell(index=index, coordinates=coordinates, labels=labels, request=request)
            cells.append(cell)
        except InvalidSpec as error:
            cell_name = format_cell_name(coordinates, labels)
            faults += [(cell_name, fault) for fault in error.faults]
        if characters > MAX_TOTAL_PROMPT_CHARS:
            raise InvalidSpec(
                [
                    f"The prompts of all cells together have more than {MAX_TOTAL_PROMPT_CHARS:,} "
                    "characters, which is too much."
                ]
            )
    sentences = [*group_faults(faults), *_find_inactive_axes(spec, cells)]
    if sentences:
        raise InvalidSpec(sentences)
    run_order = order_requests([cell.request for cell in cells])
    estimate = estimate_cost([cells[k].request for k in run_order], timings or {})
    wordings = record_words(typed_requests, [cell.request for cell in cells], spec_digest)
    spec = spec.model_copy(update={"wordings": wordings})
    return SweepPlan(spec=spec, cells=tuple(cells), run_order=run_order, cost_estimate=estimate)


def write_out_axes(spec: SweepSpec, files: PromptFiles) -> SweepSpec:
    """Return a sweep with an axis of prompts in place of each axis of all wordings.

    Raises:
        InvalidSpec: A template cannot be filled in, or comes to more than a sweep has cells.
    """
    if all(axis.field != "prompt_template" for axis in spec.axes):
        return spec
    axes = [
        _write_out_axis(axis, spec.base.prompt, files) if axis.field == "prompt_template" else axis
        for axis in spec.axes
    ]
    return validate(SweepSpec, {**dict(spec), "axes": axes})


def _write_out_axis(axis: Axis, prompt: str, files: PromptFiles) -> Axis:
    texts: dict[str, None] = {}
    for value in axis.parsed_values:
        template = prompt if value == ALL_WORDINGS else str(value)
        try:
            faults = find_missing_wildcards(template, files)
            wordings = [] if faults else list_combinations(template, files, MAX_CELLS)
        except ValueError as error:
            faults = [str(error)]
        if faults:
            raise InvalidSpec([f"{axis.title}: {fault}" for fault in faults])
        texts |= dict.fromkeys(wordings)
    if len(texts) > MAX_CELLS:
        raise InvalidSpec(
            [
                f"{axis.title}: {quote(prompt)} produces more than {MAX_CELLS:,} wordings; a "
                f"sweep can have at most {MAX_CELLS:,} cells."
            ]
        )
    return validate(Axis, {"field": "prompt", "values": list(texts), "group": axis.group})


def _dump_base(spec: SweepSpec) -> dict[str, Any]:
    """Return the values that all cells share."""
    base = spec.base
    # Axes of LoRAs apply to those in tags as well.
    if any(axis.field in _LORA_AXES for axis in spec.axes):
        base = base.with_inline_loras()
    batch_size = 1
    if spec.fast:
        batch_size = base.batch_size if base.batch_size > 1 else FAST_BATCH_SIZE
    return base.model_dump() | {"batch_size": batch_size}


def format_cell_name(coordinates: Sequence[int], labels: Sequence[str]) -> str:
    """Return what errors call a cell."""
    places = ", ".join(str(k + 1) for k in coordinates)
    return f"Cell {places} ({' · '.join(f'{label:.60}' for label in labels)})"


def _find_inactive_axes(spec: SweepSpec, cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for every axis that changes nothing in any cell."""
    if not cells:
        return []
    return [
        f"{axis.title}: has no effect without {FIELD_REQUIRES[axis.field]}."
        for axis in spec.axes
        if axis.field in FIELD_REQUIRES
        and all(axis.field in cell.request.inactive_fields for cell in cells)
    ]


def _iterate_coordinates(spec: SweepSpec) -> Iterator[tuple[int, ...]]:
    """Yield every combination of values as an index on each axis."""
    groups = spec.groups
    counts = spec.value_counts
    group_of_axis = {axis: number for number, group in enumerate(groups) for axis in group}
    for indexes in product(*(range(counts[group[0]]) for group in groups)):
        yield tuple(indexes[group_of_axis[axis]] for axis in range(len(spec.axes)))


def _build_cell_values(
    base_values: Mapping[str, Any], axis_values: Sequence[tuple[Axis, AxisValue]]
) -> dict[str, Any]:
    """Return a cell's request, not yet validated.

    Plain settings come first, then the LoRA, then weights (of all, then of one), then words.
    """
    values = dict(base_values)
    loras = {str(lora["name"]): dict(lora) for lora in base_values["loras"]}
    replacements: dict[str, str] = {}
    for axis, value in sorted(axis_values, key=_axis_sort_key):
        match axis.field:
            case "size":
                values["width"], values["height"] = parse_size(str(value))
            case "lora":
                weights = loras.get(axis.lora, {"unet": 1.0, "text_encoder": 1.0})
                name = lora_name(value)
                loras = {name: weights | {"name": name}} if name else {}
            case "lora_weight" | "lora_unet" | "lora_text_encoder":
                weights = dict.fromkeys(LORA_WEIGHT_FIELDS[axis.field], value)
                for name in [axis.lora] if axis.lora else list(loras):
                    loras.setdefault(name, {"name": name}).update(weights)
            case "prompt_replace":
                replacements[axis.find] = str(value)
            case field:
                values[field] = value
    values["loras"] = tuple(loras.values())
    return _replace_words(values, replacements) if replacements else values


def _axis_sort_key(axis_value: tuple[Axis, AxisValue]) -> tuple[int, bool]:
    axis, _ = axis_value
    stage = 0
    if axis.field in _DEPENDENT_AXES:
        stage = _DEPENDENT_AXES.index(axis.field) + 1
    return stage, bool(axis.lora)


def _replace_words(values: dict[str, Any], replacements: Mapping[str, str]) -> dict[str, Any]:
    """Replace words in both prompts, all at once: none is found in another's replacement."""
    longest_first = sorted(replacements, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    matched: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        matched.add(match[0])
        return replacements[match[0]]

    for name in _PROMPT_FIELDS:
        text = str(values[name])
        growth = sum(text.count(find) * len(new) for find, new in replacements.items())
        if len(text) + growth > 10 * _MAX_PROMPT_CHARS:
            raise InvalidSpec(
                [f"Replace: the prompt becomes longer than {_MAX_PROMPT_CHARS:,} characters."]
            )
        values[name] = pattern.sub(replace, text)
    missing = [find for find in replacements if find not in matched]
    if missing:
        raise InvalidSpec([f"Replace: {quote(find)} is not in the prompts." for find in missing])
    return values


def _list_values(values: Sequence[str]) -> str:
    """Return the first values and how many more there are: `151, 152, 153 and 847 more`."""
    if len(values) <= MAX_NAMED_VALUES + 1:
        return f"{', '.join(values[:-1])} or {values[-1]}"
    num_more = len(values) - MAX_NAMED_VALUES
    return f"{', '.join(values[:MAX_NAMED_VALUES])} and {num_more:,} more"


def group_faults(faults: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each different fault: the first cell that has it, and how many more do.

    Where several values of an axis have the same fault, one line names the values instead.
    """
    cells_by_fault: dict[str, list[str]] = {}
    for cell, fault in faults:
        cells_by_fault.setdefault(fault, []).append(cell)
    values_by_stem: dict[str, list[str]] = {}
    for fault in cells_by_fault:
        if match := _VALUE_END_RE.search(fault):
            values_by_stem.setdefault(fault[: match.start()], []).append(match[2])
    lines = []
    for fault, cells in cells_by_fault.items():
        match = _VALUE_END_RE.search(fault)
        values = values_by_stem.get(fault[: match.start()], []) if match else []
        if match and len(values) > 1:
            if values[0] == match[2]:  # at the first of them
                stem, verb = fault[: match.start()], match[1]
                lines.append(f"{stem} ({verb} {_list_values(values)}).")
            continue
        line = f"{cells[0]}: {fault}"
        if len(cells) > 1:
            others = "one more cell" if len(cells) == 2 else f"{len(cells) - 1:,} more cells"
            line += f" The same applies to {others}."
        lines.append(line)
    surplus = len(lines) - MAX_REPORTED_FAULTS
    if surplus > 0:
        faulty_cells = {cell for cell, _ in faults}
        lines[MAX_REPORTED_FAULTS:] = [
            f"{surplus:,} more problems like these, in {len(faulty_cells):,} cells in total."
        ]
    return lines


def _complete_base(base: Mapping[str, Any], axes: Any) -> GenerationRequest | Mapping[str, Any]:
    """Return a stored base with what it means by not naming a field.

    What was not named stays open for what a model's authors recommend; a base that is not valid is
    returned as it is, for its faults to be said. Where an axis has schedulers that cannot run on
    the schedule of before, which made the sweep impossible, each gets what suits it.
    """
    former = former_names(GenerationRequest)
    named = {former.get(name, name) for name in base}
    completed = GenerationRequest.complete_stored(base)
    if "noise_schedule" not in named:
        possible = [SCHEDULERS[name].noise_schedules for name in _list_axis_schedulers(axes)]
        if any(completed["noise_schedule"] not in schedules for schedules in possible):
            completed["noise_schedule"] = AUTOMATIC
    try:
        request = validate(GenerationRequest, completed)
    except InvalidSpec:
        return base
    request.model_fields_set.intersection_update(named)
    return request


def _list_axis_schedulers(axes: Any) -> list[Scheduler]:
    """Return the schedulers of the catalog that stored axes name."""
    names: list[Scheduler] = []
    for axis in axes if isinstance(axes, list | tuple) else ():
        try:
            parsed = validate(Axis, axis) if isinstance(axis, Mapping) else None
        except InvalidSpec:
            continue
        if parsed and parsed.field == "scheduler":
            values = {str(value).casefold() for value in parsed.parsed_values}
            names += [name for name in SCHEDULERS if name.casefold() in values]
    return names


def _validate_part(model: type[SpecT], value: Any, label: str, faults: list[str]) -> SpecT | None:
    """Return the validated value; or None, with its faults added to `faults`."""
    if isinstance(value, model):
        return value
    try:
        return validate(model, value if isinstance(value, Mapping) else {"": value})
    except InvalidSpec as error:
        sentences = error.faults
    if not isinstance(value, Mapping):
        sentences = ("must be a table of settings.",)
    faults += [f"{label}: {sentence}" if label else sentence for sentence in sentences]
    return None
