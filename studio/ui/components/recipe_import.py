"""Settings from a picture: dropped as a file or pasted as its text, and what became of them.

Knows: the drop field, the text field, the panel that says who made it and what was taken. Does not
know: how a recipe is read (storage/gallery/settings_in_files.py), looked up
(services/recipe_files.py), what else a tab shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from studio.core.generation.recipes.recipe import Recipe
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.valid_values import merge_valid
from studio.errors import BadPicture
from studio.services.recipe_files import look_up_files
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import gallery
from studio.ui.components.picture_link import PictureLink
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    Updates,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import Form, single_file
from studio.ui.private_gradio import event_payload
from studio.ui.views.recipes import render_recipe

MAX_CHOICES = 12
MAX_PASTED_CHARS = 2_000_000
MAX_HANDED_CHARS = 60_000  # of values that a button carries
# What a recipe is varied in first; people go on from there.
VARIED_AXES = ({"field": "guidance", "values": "4, 7, 10"}, {"field": "steps", "values": "15, 30"})
# Settings of one picture alone, which are not said to be missing.
_UNSAID_FIELDS = frozenset({"num_images", "batch_size"})


class RecipeImport:
    """The part of a tab that fills its form from a picture of any program."""

    def __init__(
        self,
        services: Services,
        form: Form[GenerationRequest],
        element_id: Callable[[str], str],
        complete: Callable[[Mapping[str, Any], Updates], Updates],
        *,
        can_vary: bool = False,
    ) -> None:
        """Place the components.

        Args:
            services: Where the library is.
            form: What is filled.
            element_id: Makes the ids of elements.
            complete: Returns what else of the tab follows from values that are filled in, over the
                page's.
            can_vary: Whether the tab hands recipes over to the sweeps.
        """
        self.services = services
        self.form = form
        self._complete = complete
        self._can_vary = can_vary
        self.file = gr.File(
            label="An image from any program, or its .txt or .json",
            height=110,
            elem_id=element_id("drop"),
            type="filepath",
        )
        with gr.Row():
            self.text = gr.Textbox(
                label="Or paste its text",
                placeholder="prompt, Negative prompt: …, Steps: …, or JSON",
                lines=2,
                max_lines=6,
                scale=3,
                elem_id=element_id("pasted"),
            )
            self.take = gr.Button(
                "Load settings", scale=1, min_width=110, elem_id=element_id("take-text")
            )
        self.picture_link = PictureLink(element_id)
        self.panel = gr.HTML(
            visible=False, js_on_load=BUTTON_CLICK_JS, elem_id=element_id("recipe")
        )
        self.recipe = gr.State(None)  # the last one that was read, for its choices

    @property
    def outputs(self) -> list[Any]:
        """Components that the handlers update beside the form's."""
        return [self.file, self.text, *self.picture_link.inputs, self.panel, self.recipe]

    def wire(self, more_outputs: Sequence[Any] = ()) -> None:
        """Connect the drop field, the button of the text, and those of the panel.

        Args:
            more_outputs: What else `complete` updates.
        """
        outputs = [*self.outputs, *self.form.outputs, *more_outputs]
        options = {"preprocess": False, **EVENT_OPTIONS}
        self.file.upload(self.import_file, {self.file, *self.form.inputs}, outputs, **options)
        self.take.click(self.import_text, {self.text, *self.form.inputs}, outputs, **options)
        self.picture_link.fetch.click(
            self.import_link, {*self.picture_link.inputs, *self.form.inputs}, outputs, **options
        )
        self.panel.click(self.choose, {self.recipe, *self.form.inputs}, outputs, **options)

    def import_file(self, values: Updates, request: gr.Request) -> Updates:
        """Fill in the settings of a dropped file; those that it does not have stay as they are."""
        with report_errors():
            path, file_name = resolve_upload(single_file(values.pop(self.file)))
            guest_id = visitor_from_request(request).owner_filter
            max_pixels = self.services.home.inputs.max_pixels(guest_id)
            recipe = gallery.read_image_settings(path, file_name, max_pixels)
            return {**self._take(recipe, values), self.recipe: recipe, self.file: None}

    def import_text(self, values: Updates, request: gr.Request) -> Updates:
        """Fill in the settings of a pasted text."""
        with report_errors():
            visitor_from_request(request)
            text = values.pop(self.text)
            if not isinstance(text, str) or not text.strip():
                raise BadPicture("Paste an image's settings text first.")
            recipe = gallery.read_text_settings(text[:MAX_PASTED_CHARS])
            return {**self._take(recipe, values), self.recipe: recipe, self.text: ""}

    def import_link(self, values: Updates, request: gr.Request) -> Updates:
        """Fill in the settings of a picture on the web."""
        with report_errors():
            recipe = self.picture_link.take(values, visitor_from_request(request))
            taken = self._take(recipe, values)
            return {**taken, self.recipe: recipe, **self.picture_link.cleared}

    def choose(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Fill in another one of a file's recipes."""
        click = event_payload(event)
        recipe = values.pop(self.recipe, None)
        if click.get("action") != "choose" or not isinstance(recipe, Recipe):
            return {self.panel: gr.skip()}
        number = str(click.get("target"))
        choices = recipe.choices[:MAX_CHOICES]
        if not number.isdecimal() or int(number) >= len(choices):
            return {self.panel: gr.skip()}
        with report_errors():
            visitor_from_request(request)
            chosen = choices[int(number)][1]
            return self._take(chosen, values, choices=recipe.choices)

    def build_handoff(self, event: gr.EventData, _visitor: Visitor) -> tuple[str, Any] | None:
        """Return what a button of the panel hands over: a sweep around the recipe."""
        click = event_payload(event)
        if click.get("action") != "vary":
            return None
        with report_errors():
            try:
                values = json.loads(str(click.get("target"))[:MAX_HANDED_CHARS])
            except (ValueError, RecursionError):
                values = None
            if not isinstance(values, dict):
                raise BadPicture("That recipe is gone; drop the image again.")
            base, _ = merge_valid(GenerationRequest, {}, {**values, "num_images": 1})
            return "sweep", SweepSpec(base=base, axes=VARIED_AXES)

    def _take(
        self,
        recipe: Recipe,
        values: Updates,
        choices: list[tuple[str, Recipe]] | None = None,
    ) -> Updates:
        """Fill the form with a recipe as far as it goes, and say what became of it."""
        written = self.form.read_raw(values)
        model_name = str(written.get("model") or "")
        found_recipe, _ = look_up_files(self.services.home.library, recipe, model_name)
        settings = {
            name: value
            for name, value in found_recipe.values.items()
            if name in self.form.components
        }
        unsaid = self._list_unsaid(found_recipe, written)
        updates, faults = self.form.fill_valid({**unsaid, **settings}, written)
        taken = {name: settings[name] for name in settings if self.form[name] in updates}
        updates |= self._complete(taken, values)
        notes = [*found_recipe.notes, *faults, *self._name_absent(found_recipe.values)]
        accepted, _ = merge_valid(GenerationRequest, {}, found_recipe.values)
        titles = [title for title, _ in choices or recipe.choices][:MAX_CHOICES]
        handed = json.dumps(accepted)
        panel = render_recipe(
            recipe.program,
            taken,
            notes,
            titles=titles,
            unsaid=[name for name in unsaid if self.form[name] in updates],
            handed=handed if self._can_vary and len(handed) <= MAX_HANDED_CHARS else "",
        )
        return {**updates, self.panel: gr.HTML(panel, visible=True)}

    def _list_unsaid(self, recipe: Recipe, written: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the page that a recipe does not name and that were otherwise."""
        return {
            name: default
            for name, default in recipe.defaults.items()
            if name in self.form.components
            and name not in recipe.values
            and name in written
            and written[name] != default
        }

    def _name_absent(self, values: Mapping[str, Any]) -> list[str]:
        """Return a sentence on settings of a recipe that this tab has no place for."""
        fields = GenerationRequest.model_fields
        absent = [
            fields[name].title or name
            for name, value in values.items()
            if name in fields
            and name not in self.form.components
            and name not in _UNSAID_FIELDS
            and value != fields[name].get_default()
        ]
        return [f"Not on this tab: {', '.join(absent)}."] if absent else []
