"""The rows of the Sweep tab that say what varies: up to four axes.

Knows: which parts an axis needs, how they become an axis and back, what is said of its values.
Does not know: the rest of the tab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from studio.core.base import field_meta, validate
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.repeats import drop_repeated_values, find_repeated_values
from studio.core.sweeps.spec import Axis, list_axes
from studio.core.sweeps.value_syntax import format_value
from studio.errors import InvalidSpec
from studio.services.visitor import Visitor
from studio.storage.models.library import Library, LoraInfo
from studio.ui.components.name_dropdown import MAX_CARRIED, carry_names, load_names_on_focus
from studio.ui.events import EVENT_OPTIONS, Updates
from studio.ui.views import sweep

MAX_AXES = 4
MAX_NAMED_REPEATS = 10
# A row as the browser sent it: field, text, ticks, names, lora, find, group.
RowValues = dict[str, Any]
BLANK_ROW: RowValues = {
    "field": None,
    "text": "",
    "ticks": [],
    "names": [],
    "lora": "",
    "find": "",
    "group": 0,
}
FIRST_ROW = BLANK_ROW | {"field": "scheduler"}
_AXES = list_axes()
# First in the list of what can vary; the rest follows.
_COMMON_FIELDS = (
    "scheduler",
    "steps",
    "guidance",
    "seed",
    "lora_weight",
    "lora",
    "prompt_replace",
    "model",
)
_LIBRARY_FIELDS = ("model", "lora")  # named from the library
_ANY_LORA_CHOICE = ("Any LoRA in use", "")
_GROUP_CHOICES = [("All combinations", 0), ("Linked (A)", 1), ("Linked (B)", 2)]
_PLACEHOLDERS = {
    "whole": "10-40 (+10)   or   5, 10, 20",
    "number": "0-1 (+0.2)   or   1-12   or   3, 5.5, 7",
    "text": 'moon, sun, "a cat, asleep"',
    "size": "64x64, 128x64",
}
_HELP_TEXTS = {
    "text": "Separated by commas or one per line; put quotes around values with commas.",
    "size": "Width and height: 512x768.",
    "whole": "A list or a range: from-to (+step), from-to [count].",
    "number": "A list or a range: from-to (+step), from-to [count].",
}


def _field_choices() -> list[tuple[str, str]]:
    """Return what can vary, the common fields first, as labels and field names."""
    names = dict.fromkeys([*_COMMON_FIELDS, *_AXES])
    return [(_field_label(name), name) for name in names]


def _field_label(name: str) -> str:
    """Return an axis's title with the expert's word for it, where that is another."""
    if name == "prompt_replace":
        return "Words in the prompt (prompt S/R)"
    title = _AXES[name].title
    if name not in GenerationRequest.model_fields:
        return title
    expert_term = field_meta(GenerationRequest, name).get("infotext", "")
    if not expert_term or expert_term.casefold() == title.casefold():
        return title
    return f"{title} ({expert_term})"


class AxisRow:
    """The components of one axis. Which of them are visible depends on what varies."""

    def __init__(self, number: int, initial_values: RowValues | None) -> None:
        elem_id = f"axis-{number}"
        is_visible = initial_values is not None
        field = (initial_values or BLANK_ROW)["field"]
        with gr.Group(visible=is_visible, elem_id=elem_id, elem_classes="axis") as self.container:
            with gr.Row(elem_classes="axis-head"):
                self.field = gr.Dropdown(
                    _field_choices(),
                    value=field,
                    label=f"Axis {number}",
                    scale=5,
                    min_width=140,
                    elem_id=f"{elem_id}-field",
                )
                self.group = gr.Dropdown(
                    list(_GROUP_CHOICES),
                    value=0,
                    label="Combine",
                    scale=4,
                    min_width=140,
                    visible=False,
                    elem_id=f"{elem_id}-group",
                )
                self.remove = gr.Button(
                    "✕",
                    size="sm",
                    scale=0,
                    min_width=40,
                    elem_id=f"{elem_id}-remove",
                    visible=False,
                    elem_classes="axis-remove",
                )
            self.find_text = gr.Textbox(
                label="Words to find in the prompt",
                placeholder="moon",
                max_lines=1,
                visible=False,
                elem_id=f"{elem_id}-find",
            )
            self.lora = gr.Dropdown(
                [_ANY_LORA_CHOICE],
                value="",
                label="LoRA",
                allow_custom_value=True,
                visible=False,
                elem_id=f"{elem_id}-lora",
            )
            self.ticks = gr.CheckboxGroup(
                value_choices(field),
                value=[],
                label="Values",
                visible=is_visible,
                elem_id=f"{elem_id}-ticks",
                elem_classes="ticks",
            )
            self.library_names = gr.Dropdown(
                [],
                value=[],
                label="Values",
                multiselect=True,
                allow_custom_value=True,
                visible=False,
                elem_id=f"{elem_id}-names",
            )
            self.text = gr.Textbox(
                label="Values", max_lines=6, visible=False, elem_id=f"{elem_id}-text"
            )
            self.echo = gr.HTML(elem_id=f"{elem_id}-echo", elem_classes="axis-echo")

    @property
    def inputs(self) -> dict[str, Any]:
        """What a row reads, by the names of `RowValues`."""
        return {
            "field": self.field,
            "text": self.text,
            "ticks": self.ticks,
            "names": self.library_names,
            "lora": self.lora,
            "find": self.find_text,
            "group": self.group,
        }

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [self.container, self.remove, *self.inputs.values()]

    def read_values(self, values: Mapping[Any, Any]) -> RowValues:
        """Return the row as the browser sent it."""
        return {name: values[component] for name, component in self.inputs.items()}

    def show(self, row_values: RowValues, library: Library, is_only_row: bool) -> Updates:
        """Put a row on the page, with the components that its axis needs."""
        field = known_field(row_values["field"])
        axis = _AXES[field] if field else None
        library_names = list_library_names(library, field)
        lora_names = list_row_loras(library, field)
        has_ticks = bool(axis and axis.choices)
        has_names = field in _LIBRARY_FIELDS
        return {
            self.container: gr.Group(visible=True),
            self.remove: gr.Button(visible=not is_only_row),
            self.field: field,
            self.group: gr.Dropdown(
                list(_GROUP_CHOICES), value=row_values["group"], visible=not is_only_row
            ),
            self.find_text: gr.Textbox(
                visible=bool(axis and axis.requires == "find"), value=row_values["find"]
            ),
            self.lora: gr.Dropdown(
                [_ANY_LORA_CHOICE, *carry_names(lora_names, row_values["lora"])],
                value=row_values["lora"],
                allow_custom_value=True,
                visible=bool(field and field.startswith("lora_")),
            ),
            self.ticks: gr.CheckboxGroup(
                value_choices(field), value=row_values["ticks"], visible=has_ticks
            ),
            self.library_names: gr.Dropdown(
                _carry_chosen(library_names, row_values["names"]),
                value=row_values["names"],
                multiselect=True,
                allow_custom_value=True,
                visible=has_names,
            ),
            self.text: gr.Textbox(
                visible=bool(axis) and not has_ticks and not has_names,
                value=row_values["text"],
                placeholder=_PLACEHOLDERS[axis.kind] if axis else "",
                info=_help_text(field),
            ),
        }

    def hide(self) -> Updates:
        """Take the row off the page."""
        return {self.container: gr.Group(visible=False)}


def list_library_names(library: Library, field: Any) -> list[str]:
    """Return the names to choose values from, for an axis of models or LoRAs."""
    if field == "lora":
        return ["None", *list_row_loras(library, field)]
    if field == "model":
        return [model.name for model in library.list_models()]
    return []


def _carry_chosen(names: Sequence[str], chosen: Any) -> list[str]:
    """Return the names that the page carries: the chosen ones and the first of the others."""
    if not isinstance(chosen, list) or len(names) <= MAX_CARRIED:
        return carry_names(names)
    kept = [name for name in names if name in chosen]
    return [*kept, *(name for name in names if name not in chosen)][: max(MAX_CARRIED, len(kept))]


def list_row_loras(library: Library, field: Any) -> list[str]:
    """Return the usable LoRAs, for an axis that is about one."""
    if not isinstance(field, str) or not field.startswith("lora"):
        return []
    return [lora.name for lora in library.list_loras() if isinstance(lora, LoraInfo)]


def known_field(field: Any) -> str | None:
    """Return the name of what varies, if there is such an axis."""
    return field if isinstance(field, str) and field in _AXES else None


def value_choices(field: str | None) -> list[str]:
    """Return the names to tick, for a setting that has them."""
    return list(_AXES[field].choices) if field in _AXES else []


def _help_text(field: str | None) -> str:
    if field not in _AXES:
        return ""
    if field == "prompt_replace":
        return (
            "Replacements, separated by commas or one per line. Put the original first to keep it."
        )
    if field == "prompt_template":
        return (
            'Write all for every wording of the prompt, or templates in quotes: "a {red|blue} '
            'boat".'
        )
    return _HELP_TEXTS[_AXES[field].kind]


def parse_row(row_values: RowValues) -> dict[str, Any]:
    """Return a row as the settings of an axis, not validated yet.

    Raises:
        InvalidSpec: If the row does not say what varies.
    """
    field = known_field(row_values["field"])
    if field is None:
        raise InvalidSpec(["choose a setting, or remove the axis."])
    axis = _AXES[field]
    if axis.choices:
        values = row_values["ticks"]
    elif field in _LIBRARY_FIELDS:
        values = row_values["names"]
    else:
        values = row_values["text"]
    settings = {
        "field": field,
        "values": values,
        "lora": "",
        "find": "",
        "group": row_values["group"] or None,
    }
    if field.startswith("lora_"):
        settings["lora"] = row_values["lora"] or ""
    if axis.requires:
        settings["find"] = row_values["find"] or ""
    return settings


def row_values_of(axis: Axis, group_numbers: list[int]) -> RowValues:
    """Return an axis as a row.

    Args:
        axis: The axis to put on the page.
        group_numbers: The numbers of all groups of the sweep; the page counts them from 1.
    """
    group = 0
    if axis.group in group_numbers:
        group = group_numbers.index(axis.group) + 1
    row_values = BLANK_ROW | {
        "field": axis.field,
        "lora": axis.lora,
        "find": axis.find,
        "group": group if group < len(_GROUP_CHOICES) else 0,
    }
    formatted_values = [format_value(value) for value in axis.parsed_values]
    has_ticks = bool(_AXES[axis.field].choices)
    has_names = axis.field in _LIBRARY_FIELDS
    if has_ticks:
        row_values["ticks"] = formatted_values
    if has_names:
        row_values["names"] = formatted_values
    if not has_ticks and not has_names:
        row_values["text"] = axis.values_text
        if isinstance(axis.values, str):
            row_values["text"] = axis.values
    return row_values


class AxisRows:
    """All rows. `fields` holds what varies in the visible ones."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.rows = [AxisRow(1, FIRST_ROW)]
        self.rows += [AxisRow(number, None) for number in range(2, MAX_AXES + 1)]
        self.add = gr.Button("+ Add axis", size="sm", elem_id="axis-add", elem_classes="axis-add")
        self.fields: gr.State = gr.State([FIRST_ROW["field"]])
        handlers: list[tuple[Any, Any]] = [(self.add.click, self.add_row)]
        for row_index, row in enumerate(self.rows):
            handlers.append((row.field.input, self._field_change_handler(row_index)))
            handlers.append((row.remove.click, self._remove_handler(row_index)))
        for row in self.rows:
            load_names_on_focus(row.library_names, self._list_values, [row.field], is_redrawn=True)
            load_names_on_focus(row.lora, self._list_loras, [row.field], is_redrawn=True)
        for event, handler in handlers:
            event(handler, self.inputs, self.outputs, preprocess=False, **EVENT_OPTIONS)

    def _list_values(self, field: Any, visitor: Visitor) -> list[str]:
        return list_library_names(self.library, field)

    def _list_loras(self, field: Any, visitor: Visitor) -> list[Any]:
        return [_ANY_LORA_CHOICE, *list_row_loras(self.library, field)]

    @property
    def inputs(self) -> set[Any]:
        """What handlers read of all rows."""
        return {self.fields, *self.value_components}

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        row_components = [component for row in self.rows for component in row.outputs]
        return [self.fields, self.add, *row_components]

    @property
    def value_components(self) -> list[Any]:
        """What people choose and type in the rows."""
        return [component for row in self.rows for component in row.inputs.values()]

    @property
    def echoes(self) -> list[Any]:
        return [row.echo for row in self.rows]

    def read_rows(self, values: Mapping[Any, Any]) -> list[RowValues]:
        """Return the visible rows as the browser sent them."""
        return [row.read_values(values) for row in self.rows[: len(values[self.fields])]]

    def parse_axes(self, values: Mapping[Any, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the settings of all axes, and the faults of the rows that are none."""
        axes: list[dict[str, Any]] = []
        faults: list[str] = []
        for number, row_values in enumerate(self.read_rows(values), 1):
            try:
                axes.append(_drop_repeats(parse_row(row_values)))
            except InvalidSpec as error:
                faults += [f"Axis {number}: {fault}" for fault in error.faults]
        return axes, faults

    def is_blank(self, values: Mapping[Any, Any]) -> bool:
        """Return whether nothing was ticked, chosen or typed yet."""
        return not any(
            row_values[name]
            for row_values in self.read_rows(values)
            for name in ("text", "ticks", "names")
        )

    def fill_rows(self, sweep_axes: Sequence[Axis]) -> Updates:
        """Put axes on the page, as many as there is room for."""
        group_numbers = sorted({axis.group for axis in sweep_axes if axis.group is not None})
        return self.show_rows(
            [row_values_of(axis, group_numbers) for axis in sweep_axes[:MAX_AXES]]
        )

    def show_rows(self, rows_values: Sequence[RowValues]) -> Updates:
        """Put these rows on the page, and hide the rest."""
        updates: Updates = {
            self.fields: [row_values["field"] for row_values in rows_values],
            self.add: gr.Button(visible=len(rows_values) < MAX_AXES),
        }
        is_only_row = len(rows_values) == 1
        for row, row_values in zip(self.rows, rows_values):
            updates |= row.show(row_values, self.library, is_only_row)
        for row in self.rows[len(rows_values) :]:
            updates |= row.hide()
        return updates

    def render_echoes(self, values: Mapping[Any, Any]) -> Updates:
        """Render under each row what was understood of it."""
        updates: Updates = dict.fromkeys(self.echoes, "")
        if self.is_blank(values):
            return updates
        for row, row_values in zip(self.rows, self.read_rows(values)):
            updates[row.echo] = _render_echo(row_values)
        return updates

    def add_row(self, values: Updates) -> Updates:
        """Show a blank row below the visible ones."""
        return self.show_rows([*self.read_rows(values), dict(BLANK_ROW)][:MAX_AXES])

    def _remove_handler(self, row_index: int) -> Callable[[Updates], Updates]:
        def remove_row(values: Updates) -> Updates:
            rows_values = self.read_rows(values)
            del rows_values[row_index : row_index + 1]
            return self.show_rows(rows_values or [dict(FIRST_ROW)])

        return remove_row

    def _field_change_handler(self, row_index: int) -> Callable[[Updates], Updates]:
        def change_field(values: Updates) -> Updates:
            """Show the components of the new field, without the values of the field before."""
            rows_values = self.read_rows(values)
            row_values = rows_values[row_index]
            fields = list(values[self.fields])
            previous_field = fields[row_index]
            fields[row_index] = row_values["field"]
            updates: Updates = {self.fields: fields}
            if row_values["field"] == previous_field:
                return updates
            new_values = BLANK_ROW | {
                "field": row_values["field"],
                "group": row_values["group"],
            }
            row = self.rows[row_index]
            return updates | row.show(new_values, self.library, len(rows_values) == 1)

        return change_field


def _render_echo(row_values: RowValues) -> str:
    """Render the values of a row as they were understood, or its faults."""
    try:
        axis = validate(Axis, parse_row(row_values))
    except InvalidSpec as error:
        return sweep.render_note(" ".join(error.faults), is_error=bool(row_values["text"]))
    html = sweep.render_parsed_values([format_value(value) for value in drop_repeated_values(axis)])
    repeated = [format_value(value) for value in find_repeated_values(axis)]
    if repeated:
        listed = ", ".join(repeated[:MAX_NAMED_REPEATS])
        html += sweep.render_note(f"Listed more than once and used once: {listed}")
    return html


def _drop_repeats(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an axis with each value once; as they are where they are wrong."""
    try:
        axis = validate(Axis, settings)
    except InvalidSpec:  # its faults are said where the sweep is validated
        return settings
    if not find_repeated_values(axis):
        return settings
    return {**settings, "values": drop_repeated_values(axis)}
