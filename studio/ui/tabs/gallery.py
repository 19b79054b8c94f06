"""The Gallery tab: every generated image, searched, looked at, compared, sent on, thrown away.

Knows: its layout, what each button of the grid and of the image in view does. Does not know: how
images are stored, how a page is put together (gallery_page.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from studio.errors import BadFile, DatasetError, InvalidSpec, NotAllowed
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.before_after import BeforeAfterSlider
from studio.ui.components.carry_options import CarryOptionsBox
from studio.ui.components.denoise_strip import DenoiseStrip
from studio.ui.components.export_bar import ExportBar
from studio.ui.components.image_grid import (
    build_image_grid,
    parse_image_id,
    parse_image_ids,
    parse_keys,
)
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, ROW_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.tabs.gallery_page import GalleryPage, build_contents, find_paths
from studio.ui.views.common import pluralize
from studio.ui.views.gallery import describe_binned, render_viewed_image
from studio.ui.views.templates import render_nothing

MAX_IMAGES_AT_ONCE = 100_000  # that one click bins or restores
MAX_UNDO_IMAGES = 2_000  # with more, the bin itself is the way back
MAX_TITLE_CHARS = 50
PIN_LABEL = "Pin to compare"
UNPIN_LABEL = "Unpin"
INVITATION = "Choose an image to see it large, with its settings."


class GalleryTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        with gr.Row(elem_classes="workspace gallery-workspace"):
            with gr.Column(scale=7, min_width=320):
                self.grid = build_image_grid(elem_id="gallery-grid", elem_classes="images")
                self.carry_options = CarryOptionsBox(services)
            with gr.Column(scale=5, min_width=320, elem_classes="stage"):
                self._add_view()
        self.paths: gr.State = gr.State([])
        self.selected_path = gr.State(None)
        self.pinned_path = gr.State(None)  # of the image that the selected one is compared with
        self.wire()

    def _add_view(self) -> None:
        """Place the selected image, its settings, and what can be done with it."""
        self.compare = BeforeAfterSlider("gallery-compare")
        # Its buttons are the grid's, which knows the page.
        self.details = gr.HTML(render_nothing(INVITATION), elem_id="gallery-about")
        with gr.Row(visible=False, elem_classes="send") as self.send_row:
            self.pin = gr.Button(PIN_LABEL, size="sm", elem_id="gallery-pin")
        with gr.Row(visible=False, elem_classes="strip-row") as self.dataset_row:
            self.dataset = gr.Textbox(
                label="Add to a dataset",
                placeholder="name; a new one is created if needed",
                max_lines=1,
                scale=4,
                elem_id="gallery-dataset",
            )
            self.add = gr.Button("Add", size="sm", min_width=80, elem_id="gallery-add")
        self.exports = ExportBar(self.services, "gallery-export", with_page=True)
        self.strip = DenoiseStrip(self.services, "gallery-strip")

    @property
    def page_outputs(self) -> list[Any]:
        return [self.grid, self.paths]

    @property
    def view_outputs(self) -> list[Any]:
        return [
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
        shown: set[Any] = {self.selected_path, self.pinned_path}
        outputs = [*self.page_outputs, *self.view_outputs]
        self.grid.click(
            self.handle_action,
            {*shown, *self.exports.form.inputs},
            outputs,
            preprocess=False,
            **ROW_EVENT_OPTIONS,  # a star, then the next image
        )
        self.pin.click(self.toggle_pin, shown, self.view_outputs, **EVENT_OPTIONS)
        self.add.click(
            self.add_to_dataset, {self.selected_path, self.dataset}, None, **EVENT_OPTIONS
        )

    # ---- the grid -----------------------------------------------------------------------------

    def render_page(self, page: GalleryPage, visitor: Visitor, **more: Any) -> Updates:
        """Render a page of the gallery, with further values for the grid."""
        contents = build_contents(self.services, page, visitor, **more)
        return {self.grid: gr.HTML(options=contents.options), self.paths: contents.paths}

    def handle_action(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Do what the grid asks for.

        All of it comes from the browser, so it is checked.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            page = GalleryPage.parse(data.get("show"))
            match data.get("action"):
                case "show":
                    return self.render_page(page, visitor)
                case "choose":
                    return self._choose(data, values, visitor)
                case "bin":
                    return self._bin(self._find_ids(data, page, visitor), page, values, visitor)
                case "restore":
                    image_ids = self._find_ids(data, page, visitor)
                    return self._restore(image_ids, page, values, visitor)
                case "undo":
                    image_ids = parse_image_ids(data.get("ids"))
                    return self._restore(image_ids, page, values, visitor)
                case "empty":
                    return self._empty_bin(page, values, visitor)
                case "days":
                    visitor.require_owner("Choosing how long images stay in the bin")
                    self.services.home.gallery.bin_options.save_days(_parse_days(data.get("days")))
                    return self.render_page(page, visitor)
                case "stars" | "favourite":
                    return self._judge(data, page, values, visitor)
                case "export":
                    paths = find_paths(self.services, self._find_ids(data, page, visitor), visitor)
                    return self.exports.export_paths([str(path) for path in paths], values, visitor)
            raise BadFile("The page asked for something the studio does not know; reload it.")

    def _find_ids(self, data: dict[str, Any], page: GalleryPage, visitor: Visitor) -> list[int]:
        """Return the images that a browser's keys stand for, those of sweeps and reports too."""
        index = self.services.home.gallery.index
        image_ids, series, is_all = parse_keys(data.get("keys"))
        image_filter = page.build_filter(visitor)
        if is_all:
            return index.list_ids(image_filter, MAX_IMAGES_AT_ONCE)
        for name in series:
            many = index.list_ids(replace(image_filter, series=name), MAX_IMAGES_AT_ONCE)
            image_ids += many if name else []
        return image_ids

    def _bin(
        self, image_ids: list[int], page: GalleryPage, values: Updates, visitor: Visitor
    ) -> Updates:
        """Move images to the bin, those that this visitor may move."""
        binned = self.services.home.gallery.bin.put(image_ids, visitor.owner_filter)
        if not binned:
            raise BadFile("These images cannot be moved to the bin: they are already gone.")
        undo = {"ids": binned, "text": describe_binned(len(binned))}
        more: dict[str, Any] = {"undo": undo, "clear": True}
        if len(binned) > MAX_UNDO_IMAGES:
            more = {"message": f"{describe_binned(len(binned))} Open it to restore them."}
        return self._render_changed(page, values, visitor, **more)

    def _restore(
        self, image_ids: list[int], page: GalleryPage, values: Updates, visitor: Visitor
    ) -> Updates:
        """Take images out of the bin, those that this visitor may take."""
        restored = self.services.home.gallery.bin.restore(image_ids, visitor.owner_filter)
        message = f"Restored {pluralize(len(restored), 'image')}."
        if not restored:
            message = "These images are no longer in the bin."
        return self._render_changed(page, values, visitor, message=message, clear=True)

    def _empty_bin(self, page: GalleryPage, values: Updates, visitor: Visitor) -> Updates:
        """Delete for good what this visitor has in the bin; the page has asked them."""
        num_deleted = self.services.home.gallery.bin.empty(visitor.owner_filter)
        message = f"Deleted {pluralize(num_deleted, 'image')} for good."
        return self._render_changed(page, values, visitor, message=message, clear=True)

    def _render_changed(
        self, page: GalleryPage, values: Updates, visitor: Visitor, **more: Any
    ) -> Updates:
        """Render a page after something happened to its images, and the image in view."""
        updates = self.render_page(page, visitor, **more)
        selected_path = values[self.selected_path]
        if selected_path:
            updates |= self.render_image(selected_path, values[self.pinned_path])
        return updates

    def _judge(
        self, data: dict[str, Any], page: GalleryPage, values: Updates, visitor: Visitor
    ) -> Updates:
        """Give an image stars, or make it a favourite or no favourite any more."""
        image = self._require_image(data.get("id"), visitor)
        sweeps = self.services.home.sweeps
        verdict = sweeps.get_image_verdict(image.path)
        if data.get("action") == "favourite":
            verdict = replace(verdict, best=not verdict.best)
        else:
            verdict = replace(verdict, stars=_parse_stars(data.get("stars")))
        sweeps.set_image_verdict(image.path, verdict)
        return self._render_changed(page, values, visitor)

    def _require_image(self, image_id: Any, visitor: Visitor) -> GeneratedImage:
        image = self.services.home.gallery.get_by_id(parse_image_id(image_id))
        if image is None:
            raise BadFile("That image is gone; choose another.")
        if not visitor.may_see(image.owner):
            raise NotAllowed("That image belongs to somebody else.")
        return image

    # ---- the image in view --------------------------------------------------------------------

    def _choose(self, data: dict[str, Any], values: Updates, visitor: Visitor) -> Updates:
        """Show the image that was clicked."""
        image = self._require_image(data.get("id"), visitor)
        pinned_path = values[self.pinned_path]
        updates = self.render_image(str(image.path), pinned_path)
        before = self._get_image(values[self.selected_path])
        if before is None or pinned_path or image.binned or before.binned:
            return updates
        # All around it is as it was, and each component that changes costs the browser time.
        unchanged = (self.pin, self.pinned_path, self.send_row, self.dataset_row)
        for component in (*unchanged, self.exports.box, *self.compare.outputs):
            updates.pop(component, None)
        if bool(before.settings) == bool(image.settings):
            updates.pop(self.strip.container, None)
        return updates

    def toggle_pin(self, values: Updates) -> Updates:
        """Pin the selected image to compare others with it, or unpin the pinned one."""
        selected_path = values[self.selected_path]
        if values[self.pinned_path]:
            return self.render_image(selected_path, None)
        if selected_path:
            show_info("Pinned. Choose another image to compare it with.")
        return self.render_image(selected_path, selected_path)

    def render_image(self, selected_path: str | None, pinned_path: str | None) -> Updates:
        """Render an image, or it and the pinned one with a slider between them."""
        image = self._find_image(selected_path)
        pinned_image = self._find_image(pinned_path)
        has_image = image is not None and not image.binned
        updates: Updates = {
            self.pinned_path: str(pinned_image.path) if pinned_image else None,
            self.pin: UNPIN_LABEL if pinned_image else PIN_LABEL,
            self.send_row: gr.Row(visible=has_image),
            self.dataset_row: gr.Row(visible=has_image),
            **self.strip.set_visible(image is not None and has_image and bool(image.settings)),
            **self.exports.set_visible(has_image),
        }
        if image is None:
            return updates | {
                self.details: render_nothing("That image is gone."),
                self.selected_path: None,
                **self.compare.hide(),
            }
        comparison = self.compare.hide()
        is_compared = bool(pinned_image and pinned_image.path != image.path)
        if pinned_image and is_compared:
            comparison = self.compare.show(
                (pinned_image.path, f"pinned: {_short_title(pinned_image)}"),
                (image.path, _short_title(image)),
            )
        verdict = self.services.home.sweeps.get_image_verdict(image.path)
        return updates | {
            self.details: render_viewed_image(image, verdict, is_shown=not is_compared),
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
            visitor_from_request(request).require_owner("Adding images to datasets")
            image = self._get_image(values[self.selected_path])
            if image is None:
                raise BadFile("That image is gone; choose another.")
            dataset_name = (values[self.dataset] or "").strip()
            if not dataset_name:
                raise DatasetError("Dataset name: required; enter an existing or a new one.")
            dataset_store = self.services.dataset_registry.dataset_store
            result = dataset_store.import_generated(dataset_name, [image])
            if result.skipped:
                raise DatasetError(" ".join(result.skipped[0]))
            show_info(f"Added to {dataset_name}, with its prompt as the caption.")


def _parse_stars(value: Any) -> int:
    """Return a number of stars; whether there are so many is the store's to say."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) == 1):
        raise InvalidSpec([f"Stars: must be 0 to 5 (you entered {text:.20})."])
    return int(text)


def _parse_days(value: Any) -> Any:
    """Return the number in what a field of the page held, or that itself where it is none."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else text[:40]


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
        on_open=lambda visitor: (
            tab.render_page(GalleryPage(), visitor, opened=True) | tab.carry_options.render(visitor)
        ),
        outputs=[*tab.page_outputs, *tab.carry_options.outputs],
    )
