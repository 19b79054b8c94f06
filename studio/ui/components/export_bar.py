"""Download the picture in view as another kind of file, with as much of its making as one likes.

Knows: the choices, the file that is handed out. Does not know: how a file is made
(storage/picture_exports.py); which picture is in view, but for where that is kept.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.generation.export_spec import ExportSpec
from studio.errors import BadFile, NotAllowed
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.storage.picture_exports import ExportedFile, export_image, zip_files
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request, write_handed_file
from studio.ui.form import Form

MAX_PICTURES = 500  # of one zip, which is made in memory


class ExportBar:
    """The choices, a button, and the file.

    Args:
        services: The page's services.
        name: Begins the ids of its elements.
        with_page: Whether a whole page of pictures can be had as a zip.
    """

    def __init__(self, services: Services, name: str, with_page: bool = False) -> None:
        self.services = services
        self.form = Form(ExportSpec, name)
        with gr.Accordion("Download as …", open=False, visible=False, elem_id=name) as self.box:
            with gr.Row(elem_classes="strip-row"):
                self.form.add("format", scale=1, min_width=110)
                self.form.add("quality", scale=2, min_width=140)
            with gr.Row(elem_classes="strip-row"):
                self.form.add("carry", scale=2, min_width=140)
                self.form.add("ai_mark", scale=1, min_width=110)
            with gr.Row(elem_classes="strip-row"):
                self.button = gr.Button(
                    "Create file", size="sm", min_width=130, elem_id=f"{name}-make"
                )
                self.page_button = gr.Button(
                    "All on this page",
                    size="sm",
                    min_width=130,
                    visible=with_page,
                    elem_id=f"{name}-page",
                )
            self.file = gr.File(
                visible=False, show_label=False, interactive=False, elem_id=f"{name}-file"
            )

    @property
    def outputs(self) -> list[Any]:
        """The components that change with the picture in view."""
        return [self.box, self.file]

    def wire(self, selected_path: gr.State, paths: gr.State) -> None:
        """Connect the events.

        Args:
            selected_path: Holds the file of the picture in view.
            paths: Holds the files of the page.
        """
        self.selected_path = selected_path
        self.paths = paths
        self.button.click(
            self.export_selected,
            {selected_path, *self.form.inputs},
            self.file,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.page_button.click(
            self.export_page,
            {paths, *self.form.inputs},
            self.outputs,
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def set_visible(self, visible: bool) -> Updates:
        """Show or hide the whole of it, without the file of another picture."""
        return {self.box: gr.Accordion(visible=visible), self.file: gr.File(None, visible=False)}

    def export_selected(self, values: Updates, request: gr.Request) -> Updates:
        """Make the file of the picture in view."""
        with report_errors():
            spec = self.form.read(values)
            image = self._get_image(values[self.selected_path], visitor_from_request(request))
            exported = export_image(self.services.home.gallery, image.path, spec)
            return self._hand_out(exported)

    def export_page(self, values: Updates, request: gr.Request) -> Updates:
        """Make a zip of all pictures of the page."""
        with report_errors():
            return self.export_paths(values[self.paths], values, visitor_from_request(request))

    def export_paths(self, paths: Any, values: Updates, visitor: Visitor) -> Updates:
        """Make a zip of pictures, as the form says.

        Raises:
            StudioError: There are none or too many, one is gone or somebody else's, or the visitor
                is a guest.
        """
        spec = self.form.read(values)
        visitor.require_owner("Downloading a whole page")
        paths = paths or ()
        if len(paths) > MAX_PICTURES:
            raise BadFile(f"Choose at most {MAX_PICTURES} images; these are {len(paths):,}.")
        images = [self._get_image(path, visitor) for path in paths]
        if not images:
            raise BadFile("There are no images on this page.")
        gallery = self.services.home.gallery
        files = [export_image(gallery, image.path, spec) for image in images]
        notes = tuple(dict.fromkeys(note for file in files for note in file.notes))
        opened = {self.box: gr.Accordion(visible=True, open=True)}
        return opened | self._hand_out(ExportedFile("pictures.zip", zip_files(files), notes))

    def _get_image(self, path: Any, visitor: Visitor) -> GeneratedImage:
        image = self.services.home.gallery.get(path) if isinstance(path, str) and path else None
        if image is None or not image.path.is_file():
            raise BadFile("That image is gone; choose another.")
        if not visitor.may_see(image.owner):
            raise NotAllowed("That image belongs to somebody else.")
        return image

    def _hand_out(self, exported: ExportedFile) -> Updates:
        path = write_handed_file(exported.name, exported.data)
        if exported.notes:
            show_info(" ".join(exported.notes))
        return {self.file: gr.File(str(path), visible=True)}
