"""The Gallery tab: every generated image, searched, looked at, compared, sent on.

Knows: its layout and paging.
Does not know: how images are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import BadFile, DatasetError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.before_after import BeforeAfterSlider
from studio.ui.components.carry_options import CarryOptionsBox
from studio.ui.components.denoise_strip import DenoiseStrip
from studio.ui.components.export_bar import ExportBar
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.tab import Tab
from studio.ui.views.images import render_image_settings
from studio.ui.views.templates import render_nothing

PAGE_SIZE = 48
MAX_TITLE_CHARS = 50
PIN_LABEL = "Pin to compare"
UNPIN_LABEL = "Unpin"


class GalleryTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=7, min_width=320):
                self._add_grid()
            with gr.Column(scale=5, min_width=320, elem_classes="stage"):
                self._add_view()
        self.page = gr.State(0)
        self.paths: gr.State = gr.State([])
        self.selected_path = gr.State(None)
        self.pinned_path = gr.State(None)  # of the image that the selected one is compared with
        self.wire()

    def _add_grid(self) -> None:
        """Place the search and the page of thumbnails."""
        with gr.Row(elem_classes="search-row"):
            self.query = gr.Textbox(
                placeholder="Search prompts, models, schedulers, seeds",
                show_label=False,
                scale=4,
                max_lines=1,
                elem_id="gallery-search",
                container=False,
            )
            self.newer = gr.Button("← Newer", size="sm", min_width=80)
            self.older = gr.Button("Older →", size="sm", min_width=80)
        self.result_count = gr.HTML(elem_id="gallery-count")
        self.grid = gr.Gallery(
            columns=5,
            fit_columns=False,
            allow_preview=False,
            show_label=False,
            object_fit="cover",
            height="auto",
            elem_id="gallery-grid",
            interactive=False,
            buttons=[],
        )
        self.carry_options = CarryOptionsBox(self.services)

    def _add_view(self) -> None:
        """Place the selected image, its settings, and what can be done with it."""
        self.view = gr.Image(
            show_label=False,
            type="filepath",
            image_mode=None,
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="gallery-view",
            height=480,
        )
        self.compare = BeforeAfterSlider("gallery-compare")
        self.details = gr.HTML(
            render_nothing("Choose a picture to see it large, with its settings."),
            elem_id="gallery-about",
        )
        with gr.Row(visible=False, elem_classes="send") as self.send_row:
            self.pin = gr.Button(PIN_LABEL, size="sm", elem_id="gallery-pin")
            self.delete = gr.Button("Delete", size="sm", variant="stop", elem_id="gallery-delete")
        with gr.Row(visible=False, elem_classes="strip-row") as self.dataset_row:
            self.dataset = gr.Textbox(
                label="Add to a dataset",
                placeholder="its name; a new one is begun",
                max_lines=1,
                scale=4,
                elem_id="gallery-dataset",
            )
            self.add = gr.Button("Add", size="sm", min_width=80, elem_id="gallery-add")
        self.exports = ExportBar(self.services, "gallery-export", with_page=True)
        self.strip = DenoiseStrip(self.services, "gallery-strip")

    @property
    def page_outputs(self) -> list[Any]:
        return [self.grid, self.result_count, self.paths, self.page, self.newer, self.older]

    @property
    def view_outputs(self) -> list[Any]:
        return [
            self.view,
            self.details,
            self.selected_path,
            self.pinned_path,
            self.pin,
            self.send_row,
            self.dataset_row,
            self.strip.container,
            *self.exports.outputs,
            *self.compare.outputs,
        ]

    def wire(self) -> None:
        """Connect events and handlers."""
        self.strip.wire(self.selected_path)
        self.exports.wire(self.selected_path, self.paths)
        page_inputs: set[Any] = {self.query, self.page}
        self.query.change(self.search_images, self.query, self.page_outputs, **EVENT_OPTIONS)
        self.newer.click(self.show_newer, page_inputs, self.page_outputs, **EVENT_OPTIONS)
        self.older.click(self.show_older, page_inputs, self.page_outputs, **EVENT_OPTIONS)
        self.grid.select(
            self.select_image, {self.paths, self.pinned_path}, self.view_outputs, **EVENT_OPTIONS
        )
        self.pin.click(
            self.toggle_pin,
            {self.selected_path, self.pinned_path},
            self.view_outputs,
            **EVENT_OPTIONS,
        )
        self.add.click(
            self.add_to_dataset, {self.selected_path, self.dataset}, None, **EVENT_OPTIONS
        )
        self.delete.click(
            self.delete_image,
            {self.selected_path, *page_inputs},
            [*self.page_outputs, *self.view_outputs],
            **EVENT_OPTIONS,
        )

    def search_images(self, query: str, request: gr.Request) -> Updates:
        """Show the first page of what matches."""
        return self.render_page(query, 0, visitor_from_request(request))

    def render_page(self, query: str | None, page: int, visitor: Visitor) -> Updates:
        """Render a page of thumbnails, the latest images first.

        Args:
            query: Words to search for; None or "" for all images.
            page: Counts from 0; the nearest page there is is shown.
            visitor: Whose images are searched.
        """
        query = query or ""
        total = self.services.home.gallery.count(query, visitor.owner_filter)
        page = max(0, min(page, (total - 1) // PAGE_SIZE))
        offset = page * PAGE_SIZE
        images = self.services.home.gallery.search(query, visitor.owner_filter, PAGE_SIZE, offset)
        if total:
            count_text = f"{offset + 1}–{offset + len(images)} of {total}"
        elif query:
            count_text = "Nothing matches."
        else:
            count_text = "No pictures yet: make one in the txt2img tab and it is kept here."
        return {
            self.newer: gr.Button(interactive=page > 0),
            self.older: gr.Button(interactive=offset + PAGE_SIZE < total),
            self.grid: [str(_thumbnail_path(image)) for image in images],
            self.page: page,
            self.result_count: render_nothing(count_text),
            self.paths: [str(image.path) for image in images],
        }

    def show_newer(self, values: Updates, request: gr.Request) -> Updates:
        """Show the page before this one."""
        visitor = visitor_from_request(request)
        return self.render_page(values[self.query], values[self.page] - 1, visitor)

    def show_older(self, values: Updates, request: gr.Request) -> Updates:
        """Show the page after this one."""
        visitor = visitor_from_request(request)
        return self.render_page(values[self.query], values[self.page] + 1, visitor)

    def select_image(self, values: Updates, event: gr.SelectData) -> Updates:
        """Show the image of a thumbnail."""
        paths = values[self.paths]
        selected_path = None
        if isinstance(event.index, int) and 0 <= event.index < len(paths):
            selected_path = paths[event.index]
        return self.render_image(selected_path, values[self.pinned_path])

    def toggle_pin(self, values: Updates) -> Updates:
        """Pin the selected image to compare others with it, or unpin the pinned one."""
        selected_path = values[self.selected_path]
        if values[self.pinned_path]:
            return self.render_image(selected_path, None)
        if selected_path:
            show_info("Pinned. Choose another picture to compare it with.")
        return self.render_image(selected_path, selected_path)

    def render_image(self, selected_path: str | None, pinned_path: str | None) -> Updates:
        """Render an image, or it and the pinned one with a slider between them."""
        image = self._find_image(selected_path)
        pinned_image = self._find_image(pinned_path)
        updates: Updates = {
            self.pinned_path: str(pinned_image.path) if pinned_image else None,
            self.pin: UNPIN_LABEL if pinned_image else PIN_LABEL,
            self.send_row: gr.Row(visible=image is not None),
            self.dataset_row: gr.Row(visible=image is not None),
            **self.strip.set_visible(image is not None and image.settings is not None),
            **self.exports.set_visible(image is not None),
        }
        if image is None:
            return updates | {
                self.view: gr.Image(visible=False),
                self.details: render_nothing("That picture is gone."),
                self.selected_path: None,
                **self.compare.hide(),
            }
        comparison = self.compare.hide()
        is_compared = False
        if pinned_image and pinned_image.path != image.path:
            is_compared = True
            comparison = self.compare.show(
                (pinned_image.path, f"pinned: {_short_title(pinned_image)}"),
                (image.path, _short_title(image)),
            )
        return updates | {
            self.view: gr.Image(str(image.path), visible=not is_compared),
            self.details: render_image_settings(image),
            self.selected_path: str(image.path),
            **comparison,
        }

    def _find_image(self, path: str | None) -> GeneratedImage | None:
        """Return an image of the gallery, if its file is still there."""
        image = self._get_image(path)
        if image is None or not image.path.is_file():
            return None
        return image

    def _get_image(self, path: str | None) -> GeneratedImage | None:
        return self.services.home.gallery.get(path) if path else None

    def add_to_dataset(self, values: Updates, request: gr.Request) -> None:
        """Add the selected image, marked as generated, with its prompt as its caption."""
        with report_errors():
            visitor_from_request(request).require_owner("Adding pictures to datasets")
            image = self._get_image(values[self.selected_path])
            if image is None:
                raise BadFile("That picture is gone; choose another one.")
            dataset_name = (values[self.dataset] or "").strip()
            if not dataset_name:
                raise DatasetError("Which dataset? Say the name of one, or of a new one.")
            dataset_store = self.services.dataset_registry.dataset_store
            result = dataset_store.import_generated(dataset_name, [image])
            if result.skipped:
                raise DatasetError(" ".join(result.skipped[0]))
            show_info(f"Added to {dataset_name}, with its prompt as its caption.")

    def delete_image(self, values: Updates, request: gr.Request) -> Updates:
        """Delete the selected image."""
        with report_errors():
            visitor = visitor_from_request(request)
            image = self._get_image(values[self.selected_path])
            if image is None:
                return {self.send_row: gr.Row(visible=False)}
            if image.owner != visitor.id:
                visitor.require_owner("Deleting others' pictures")
            self.services.home.gallery.delete(Path(image.path))
            return {
                **self.render_page(values[self.query], values[self.page], visitor),
                **self.render_image(None, None),
                self.details: render_nothing("Deleted."),
            }


def _thumbnail_path(image: GeneratedImage) -> Path:
    return image.thumbnail if image.thumbnail.is_file() else image.path


def _short_title(image: GeneratedImage) -> str:
    """Return an image's prompt, cut short, and its seed."""
    settings = image.settings
    if settings is None:
        return "upscaled"
    title = settings.prompt or settings.task
    if len(title) >= MAX_TITLE_CHARS:
        title = title[: MAX_TITLE_CHARS - 3] + "…"
    return f"{title} · seed {image.request.seed}"


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = GalleryTab(services)
    return Tab(
        selected_path=tab.selected_path,
        send_row=tab.send_row,
        on_open=lambda visitor: tab.render_page("", 0, visitor) | tab.carry_options.render(visitor),
        outputs=[*tab.page_outputs, *tab.carry_options.outputs],
    )
