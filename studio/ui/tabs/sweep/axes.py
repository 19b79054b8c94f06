"""The rows of the Sweep tab that say what varies: up to four axes.

Knows: which parts an axis needs, how they become an axis and back, what is said of its values. Does not know: the rest of the tab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from studio.core.base import check, extra
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import Axis, axes
from studio.core.sweeps.value_syntax import plain
from studio.errors import InvalidSpec
from studio.storage.models.library import Library, LoraInfo
from studio.ui.views import sweep
from studio.ui.widgets import SHORT, Updates

MOST = 4
Raw = dict[str, Any]  # a row as the browser sent it: field, text, ticks, names, lora, find, group
BLANK: Raw = {
    "field": None,
    "text": "",
    "ticks": [],
    "names": [],
    "lora": "",
    "find": "",
    "group": 0,
}
FIRST = BLANK | {"field": "scheduler"}
_AXES = axes()
_COMMON = (
    "scheduler",
    "steps",
    "guidance",
    "seed",
    "lora_weight",
    "lora",
    "prompt_replace",
    "model",
)  # the others follow
_NAMES = ("model", "lora")  # named from the library
_GROUPS = [("every combination", 0), ("hand in hand A", 1), ("hand in hand B", 2)]
_EXAMPLES = {
    "whole": "10-40 (+10)   or   5, 10, 20",
    "number": "0-1 (+0.2)   or   1-12   or   3, 5.5, 7",
    "text": 'moon, sun, "a cat, asleep"',
    "size": "64x64, 128x64",
}


def _titles() -> list[tuple[str, str]]:
    """What can vary, the common things first, each with the expert's word for it."""
    found = []
    for name in (*_COMMON, *(name for name in _AXES if name not in _COMMON)):
        title = _AXES[name].title
        expert = (
            extra(GenerationRequest, name).get("infotext", "")
            if name in GenerationRequest.model_fields
            else ""
        )
        expert = (
            "prompt S/R"
            if name == "prompt_replace"
            else expert
            if expert.casefold() != title.casefold()
            else ""
        )
        title = "Words in the prompt" if name == "prompt_replace" else title
        found.append((f"{title} ({expert})" if expert else title, name))
    return found


class Row:
    """The parts of one axis. Which of them are seen depends on what varies."""

    def __init__(self, number: int, shown: Raw | None) -> None:
        mark = f"axis-{number}"
        raw = shown or BLANK
        with gr.Group(visible=shown is not None, elem_id=mark, elem_classes="axis") as self.place:
            with gr.Row(elem_classes="axis-head"):
                self.field = gr.Dropdown(
                    _titles(),
                    value=raw["field"],
                    label=f"What varies · {number}",
                    scale=5,
                    min_width=140,
                    elem_id=f"{mark}-field",
                )
                self.group = gr.Dropdown(
                    list(_GROUPS),
                    value=0,
                    label="With the others",
                    scale=4,
                    min_width=140,
                    visible=False,
                    elem_id=f"{mark}-group",
                )
                self.remove = gr.Button(
                    "✕",
                    size="sm",
                    scale=0,
                    min_width=40,
                    elem_id=f"{mark}-remove",
                    visible=False,
                    elem_classes="axis-remove",
                )
            self.find = gr.Textbox(
                label="Words to find in the prompt",
                placeholder="moon",
                max_lines=1,
                visible=False,
                elem_id=f"{mark}-find",
            )
            self.lora = gr.Dropdown(
                [("whichever is there", "")],
                value="",
                label="Of which LoRA",
                allow_custom_value=True,
                visible=False,
                elem_id=f"{mark}-lora",
            )
            self.ticks = gr.CheckboxGroup(
                choices_of(raw["field"]),
                value=[],
                label="Values",
                visible=shown is not None,
                elem_id=f"{mark}-ticks",
                elem_classes="ticks",
            )
            self.names = gr.Dropdown(
                [],
                value=[],
                label="Values",
                multiselect=True,
                allow_custom_value=True,
                visible=False,
                elem_id=f"{mark}-names",
            )
            self.text = gr.Textbox(
                label="Values", max_lines=6, visible=False, elem_id=f"{mark}-text"
            )
            self.echo = gr.HTML(elem_id=f"{mark}-echo", elem_classes="axis-echo")

    @property
    def inputs(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "text": self.text,
            "ticks": self.ticks,
            "names": self.names,
            "lora": self.lora,
            "find": self.find,
            "group": self.group,
        }

    @property
    def outputs(self) -> list[Any]:
        return [self.place, self.remove, *self.inputs.values()]

    def raw(self, values: Mapping[Any, Any]) -> Raw:
        return {name: values[part] for name, part in self.inputs.items()}

    def show(self, raw: Raw, library: Library, alone: bool) -> Updates:
        """Put a row on the page, with the parts that its axis needs."""
        field = known(raw["field"])
        info = _AXES[field] if field else None
        ticks, names = bool(info and info.choices), field in _NAMES
        loras = (
            [item.name for item in library.loras() if isinstance(item, LoraInfo)]
            if field and field.startswith("lora")
            else []
        )
        listed = (
            ["None", *loras]
            if field == "lora"
            else [model.name for model in library.models()]
            if field == "model"
            else []
        )
        return {
            self.place: gr.Group(visible=True),
            self.remove: gr.Button(visible=not alone),
            self.field: field,
            self.group: gr.Dropdown(list(_GROUPS), value=raw["group"], visible=not alone),
            self.find: gr.Textbox(visible=bool(info and info.needs == "find"), value=raw["find"]),
            self.lora: gr.Dropdown(
                [("whichever is there", ""), *loras],
                value=raw["lora"],
                allow_custom_value=True,
                visible=bool(field and field.startswith("lora_")),
            ),
            self.ticks: gr.CheckboxGroup(choices_of(field), value=raw["ticks"], visible=ticks),
            self.names: gr.Dropdown(
                listed, value=raw["names"], multiselect=True, allow_custom_value=True, visible=names
            ),
            self.text: gr.Textbox(
                visible=bool(info) and not ticks and not names,
                value=raw["text"],
                placeholder=_EXAMPLES[info.kind] if info else "",
                info=_help(field),
            ),
        }

    def hide(self) -> Updates:
        return {self.place: gr.Group(visible=False)}


def known(field: Any) -> str | None:
    """The name of what varies, if it is one."""
    return field if isinstance(field, str) and field in _AXES else None


def choices_of(field: str | None) -> list[str]:
    """The names to tick, for a setting that has them."""
    return list(_AXES[field].choices) if field in _AXES else []


def _help(field: str | None) -> str:
    if field not in _AXES:
        return ""
    if field == "prompt_replace":
        return "What stands there instead: with commas, or a line each. Begin with the words themselves to keep them."
    kind = _AXES[field].kind
    return {
        "text": "With commas, or a line each; quotes around what has a comma.",
        "size": "Width and height: 512x768.",
        "whole": "A list, or a range: from-to (+step), from-to [how many].",
        "number": "A list, or a range: from-to (+step), from-to [how many].",
    }[kind]


def read(raw: Raw) -> dict[str, Any]:
    """What a row says, as an axis's settings, not yet judged. Raises InvalidSpec for a row that says nothing."""
    field = known(raw["field"])
    if field is None:
        raise InvalidSpec(["choose what varies, or take the row away."])
    values = (
        raw["ticks"] if _AXES[field].choices else raw["names"] if field in _NAMES else raw["text"]
    )
    return {
        "field": field,
        "values": values,
        "lora": raw["lora"] or "" if field.startswith("lora_") else "",
        "find": raw["find"] or "" if _AXES[field].needs else "",
        "group": raw["group"] or None,
    }


def raw_of(axis: Axis, groups: list[int]) -> Raw:
    """An axis as a row; `groups` are the numbers of all groups, which the page knows by their turn."""
    listed = [plain(value) for value in axis.parsed]
    ticks, names = bool(_AXES[axis.field].choices), axis.field in _NAMES
    group = groups.index(axis.group) + 1 if axis.group in groups else 0
    return BLANK | {
        "field": axis.field,
        "lora": axis.lora,
        "find": axis.find,
        "group": group if group < len(_GROUPS) else 0,
        "ticks": listed if ticks else [],
        "names": listed if names else [],
        "text": ""
        if ticks or names
        else axis.values
        if isinstance(axis.values, str)
        else axis.text,
    }


class AxisRows:
    """All rows. `fields` says what varies in those that are seen."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.rows = [Row(number, FIRST if number == 1 else None) for number in range(1, MOST + 1)]
        self.add = gr.Button(
            "+ Vary something else too", size="sm", elem_id="axis-add", elem_classes="axis-add"
        )
        self.fields: gr.State = gr.State([FIRST["field"]])
        for place, row in enumerate(self.rows):
            row.field.input(self._fit(place), self.inputs, self.outputs, preprocess=False, **SHORT)
            row.remove.click(
                self._removed(place), self.inputs, self.outputs, preprocess=False, **SHORT
            )
        self.add.click(self.added, self.inputs, self.outputs, preprocess=False, **SHORT)

    @property
    def inputs(self) -> set[Any]:
        return {self.fields, *(part for row in self.rows for part in row.inputs.values())}

    @property
    def outputs(self) -> list[Any]:
        return [self.fields, self.add, *(part for row in self.rows for part in row.outputs)]

    @property
    def echoes(self) -> list[Any]:
        return [row.echo for row in self.rows]

    def raw(self, values: Mapping[Any, Any]) -> list[Raw]:
        return [row.raw(values) for row in self.rows[: len(values[self.fields])]]

    def read(self, values: Mapping[Any, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """All axes as settings, and what is wrong with rows that are none."""
        found, wrong = [], []
        for number, raw in enumerate(self.raw(values), 1):
            try:
                found.append(read(raw))
            except InvalidSpec as error:
                wrong += [f"Axis {number}: {fault}" for fault in error.faults]
        return found, wrong

    def blank(self, values: Mapping[Any, Any]) -> bool:
        """Whether nothing was ticked, chosen or typed yet."""
        return not any(raw[name] for raw in self.raw(values) for name in ("text", "ticks", "names"))

    def fill(self, listed: Sequence[Axis]) -> Updates:
        """Put axes on the page, as many as there is room for."""
        groups = sorted({axis.group for axis in listed if axis.group is not None})
        return self.show([raw_of(axis, groups) for axis in listed[:MOST]])

    def show(self, raws: Sequence[Raw]) -> Updates:
        updates: Updates = {
            self.fields: [raw["field"] for raw in raws],
            self.add: gr.Button(visible=len(raws) < MOST),
        }
        for place, row in enumerate(self.rows):
            updates |= (
                row.show(raws[place], self.library, len(raws) == 1)
                if place < len(raws)
                else row.hide()
            )
        return updates

    def echo(self, values: Mapping[Any, Any]) -> Updates:
        """Under each row, what was understood of it."""
        updates: Updates = dict.fromkeys(self.echoes, "")
        if self.blank(values):
            return updates
        for row, raw in zip(self.rows, self.raw(values)):
            try:
                updates[row.echo] = sweep.echo(
                    [plain(value) for value in check(Axis, read(raw)).parsed]
                )
            except InvalidSpec as error:
                updates[row.echo] = sweep.note(" ".join(error.faults), bad=bool(raw["text"]))
        return updates

    def added(self, values: Updates) -> Updates:
        return self.show([*self.raw(values), dict(BLANK)][:MOST])

    def _removed(self, place: int) -> Any:
        def removed(values: Updates) -> Updates:
            raws = self.raw(values)
            return self.show(raws[:place] + raws[place + 1 :] or [dict(FIRST)])

        return removed

    def _fit(self, place: int) -> Any:
        def fit(values: Updates) -> Updates:
            """Another thing varies: its own parts, and none of the values of what varied before."""
            raws, before = self.raw(values), list(values[self.fields])
            field, before[place] = before[place], raws[place]["field"]
            if field == raws[place]["field"]:
                return {self.fields: before}
            raws[place] = BLANK | {"field": raws[place]["field"], "group": raws[place]["group"]}
            return {
                self.fields: before,
                **self.rows[place].show(raws[place], self.library, len(raws) == 1),
            }

        return fit
