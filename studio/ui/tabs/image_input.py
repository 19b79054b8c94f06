"""What img2img and inpainting have in common: an image in an editor that is worked on.

Knows: how an image comes to the tab and what size it asks for.
Does not know: masks, drawings, what else a tab asks of it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gradio as gr

from studio.core.generation.geometry import (
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    SIZE_MULTIPLE_PX,
    Size,
    resolve_size,
)
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.mask_editor import MaskEditor, SourceImage
from studio.ui.errors import report_errors, show_warning
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.tabs.generation import FALLBACK_SIZE_PX, GenerationTab, native_size_of

REQUEST_DEFAULTS = {
    name: field.get_default() for name, field in GenerationRequest.model_fields.items()
}
# Fields that are about one image, and say nothing about the next.
PER_IMAGE_FIELDS = (
    "image",
    "mask",
    "invert_mask",
    "extend_left",
    "extend_top",
    "extend_right",
    "extend_bottom",
    "hires_scale",
)


class ImageInputTab(GenerationTab):
    """The components of such a tab."""

    EDITOR_MODE: ClassVar[str]  # "mask" or "sketch"
    NATIVE_SIZE_LABEL = "Image size"

    def add_editor(self) -> None:
        """Place the image editor."""
        self.editor = MaskEditor(self.services, self.ID, self.EDITOR_MODE)

    @property
    def inputs(self) -> set[Any]:
        return {*super().inputs, *self.editor.outputs}

    @property
    def estimate_inputs(self) -> set[Any]:
        return {*super().estimate_inputs, self.editor.source}

    @property
    def form_outputs(self) -> list[Any]:
        return [*super().form_outputs, *self.editor.outputs]

    @property
    def size_outputs(self) -> list[Any]:
        """What another size changes."""
        return [self.size_choice, self.form["width"], self.form["height"]]

    def wire(self) -> None:
        """Connect events and handlers."""
        super().wire()
        self.editor.html.click(
            self.handle_editor_event,
            self.estimate_inputs,
            [*self.editor.outputs, *self.size_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        gr.on(
            [self.editor.source.change],
            self.update_estimate,
            self.estimate_inputs,
            self.estimate_outputs,
            preprocess=False,
            trigger_mode="always_last",
            **EVENT_OPTIONS,
        )

    def handle_editor_event(
        self, values: Updates, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Handle a button of the editor, or a file dropped on it."""
        with report_errors():
            visitor = visitor_from_request(request)
            width = _parse_side(values[self.form["width"]])
            height = _parse_side(values[self.form["height"]])
            blank_size = resolve_size((width, height), (FALLBACK_SIZE_PX, FALLBACK_SIZE_PX))
            previous = values[self.editor.source]
            source = self.editor.apply_action(
                event_payload(event), previous, blank_size, visitor.owner_filter
            )
            if source == previous:
                return {self.editor.source: gr.skip()}
            updates = self.editor.show_image(source)
            if source is None or previous is None or source.image != previous.image:
                updates |= self.match_source_size(source, values)
            return updates

    def match_source_size(self, source: SourceImage | None, values: Updates) -> Updates:
        """Fill in the size that suits another image."""
        return self.apply_model_size({**values, self.editor.source: source})

    def default_size(self, values: Updates) -> Size | None:
        """Return the image's own size, unless that is far more than the model was made for."""
        source = values[self.editor.source]
        model = self.selected_model(values)
        if source is None or model is None:
            return super().default_size(values)
        return fit_size(source.size, model.native_size)

    def cheap_fields(self, values: Updates) -> dict[str, Any]:
        """Return the image as it was before anything was drawn on it."""
        source = values[self.editor.source]
        if source is None:
            return {}
        return {"image": source.image}

    def require_source(self, values: Updates) -> SourceImage:
        """Return the image in the editor.

        Raises:
            InvalidSpec: If there is none.
        """
        source = values[self.editor.source]
        if not isinstance(source, SourceImage):
            raise InvalidSpec(
                [
                    "Image: required; drop one on the canvas, choose a file, or send one from "
                    "another tab."
                ]
            )
        return source

    def build_tab(self) -> Tab:
        """Return what the tab is to the other tabs."""
        tab = super().build_tab()
        tab.source_image = self.editor.source
        return tab

    # ---- filling the form ---------------------------------------------------------------------

    def load_request(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """Put a request on the page, and its image into the editor."""
        updates = super().load_request(request, visitor)
        hints = self.editor_hints(request)
        if not request.image:  # a preset, which is for any image
            if hints:
                updates |= self.editor.set_options(hints)
            return updates
        source = self.editor.find_image(
            request.image, request.mask, request.invert_mask, visitor.owner_filter
        )
        if source is None:
            show_warning("The image this was made from is no longer in this home; choose another.")
        return updates | self.editor.show_image(source, hints)

    def editor_hints(self, request: GenerationRequest) -> dict[str, Any]:
        """Return what the editor is to show beside the image (see `MaskEditor.set_options`)."""
        return {}

    def receive_image(
        self, image: GeneratedImage, visitor: Visitor, keep_size: bool = False, **overrides: Any
    ) -> Updates:
        """Put an image from another tab into the editor, and its settings into the form.

        Args:
            image: The image; its own settings are the base.
            visitor: Who works on it.
            keep_size: Whether to generate at the image's own size instead of at one that suits
                the model.
            **overrides: Other values of fields.
        """
        with report_errors():
            input_image = self.services.home.library.inputs.add(
                image.path, guest_id=visitor.owner_filter
            )
            if keep_size:
                width, height = resolve_size((None, None), input_image.size)
            else:
                model = self.models.get(image.request.model)
                width, height = fit_size(input_image.size, native_size_of(model))
            fields = {
                "strength": image.request.strength or REQUEST_DEFAULTS["strength"],
                **{name: REQUEST_DEFAULTS[name] for name in PER_IMAGE_FIELDS},
                "width": width,
                "height": height,
                "num_images": 1,
                **overrides,
                "image": input_image.sha256,
            }
            return self.load_request(image.request.model_copy(update=fields), visitor)


def fit_size(source_size: Size, native_size: int) -> Size:
    """Return the size to generate at from an image.

    Args:
        source_size: Width and height of the image in pixels.
        native_size: The side in pixels that the model was trained at.

    Returns:
        The image's own size, to the nearest multiple of 8; if it is more than twice as large as
        the model was made for, one of the same shape with about as many pixels as that.
    """
    width, height = source_size
    scale = 1.0
    if max(width, height) > 2 * native_size:
        scale = native_size / (width * height) ** 0.5
    scaled_size = (
        max(SIZE_MULTIPLE_PX, round(width * scale)),
        max(SIZE_MULTIPLE_PX, round(height * scale)),
    )
    return resolve_size((None, None), scaled_size)


def _parse_side(value: Any) -> int | None:
    """Return a side that a browser sent, if it can be one."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not MIN_SIDE_PX <= value <= MAX_SIDE_PX or value % SIZE_MULTIPLE_PX:
        return None
    return value
