"""Two images, one over the other with a slider between them; an image before it was worked on.

Knows: how two images are laid over each other. Does not know: where on the page; which two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from studio.errors import BadPicture
from studio.imaging import decode
from studio.services.submission import Services
from studio.ui.events import Updates
from studio.ui.views import sweep

LabeledImage = tuple[str | Path | Image.Image, str]  # an image and what it is called
PADDING_RGB = (128, 128, 128)
ASPECT_TOLERANCE = 0.01  # width / height of an image and its source that count as equal
HEIGHT_PX = 480


class BeforeAfterSlider:
    """A slider between two images, closed at first."""

    def __init__(self, name: str) -> None:
        with gr.Column(visible=False, elem_id=name, elem_classes="compare") as self.container:
            self.labels = gr.HTML(elem_id=f"{name}-captions")
            self.slider = gr.ImageSlider(
                show_label=False,
                type="filepath",
                interactive=False,
                height=HEIGHT_PX,
                max_height=HEIGHT_PX,
                elem_id=f"{name}-slider",
                buttons=["fullscreen"],
                elem_classes="slider",
            )

    @property
    def outputs(self) -> list[Any]:
        """The components that `show` and `hide` update."""
        return [self.container, self.labels, self.slider]

    def hide(self) -> Updates:
        """Close the slider."""
        return {self.container: gr.Column(visible=False)}

    def show(self, left: LabeledImage, right: LabeledImage) -> Updates:
        """Open the slider with these two images."""
        left_image, left_label = left
        right_image, right_label = right
        return {
            self.container: gr.Column(visible=True),
            self.labels: sweep.render_slider_labels(left_label, right_label),
            self.slider: (_slider_value(left_image), _slider_value(right_image)),
        }


def _slider_value(image: str | Path | Image.Image) -> str | Image.Image:
    """Return an image as gr.ImageSlider takes it."""
    return image if isinstance(image, Image.Image) else str(image)


def load_before_image(services: Services, path: str | None) -> Path | Image.Image | None:
    """Return the image that a result was made from, laid out as the result is.

    Args:
        services: The page's services.
        path: The result's file, as the gallery knows it.

    Returns:
        The source's file if it has the result's shape already, else a copy that was cropped, padded
        or stretched as the request asked. None if there was no source, or it is gone.
    """
    result = services.home.gallery.get(path) if path else None
    if result is None or not result.source_image:
        return None
    request = result.request
    inputs = services.home.library.inputs
    try:
        source_path = inputs.get_path(result.source_image)
        if result.upscale:
            return source_path
        width, height = inputs.read_size(request.image)
        result_size = decode.read_image_size(result.path)
        if request.task == "outpaint":
            left, top, right, bottom = request.extension
            extended_size = (width + left + right, height + top + bottom)
            extended_image = Image.new("RGB", extended_size, PADDING_RGB)
            extended_image.paste(inputs.load(request.image), (left, top))
            return extended_image
        if abs(width / height - result_size[0] / result_size[1]) < ASPECT_TOLERANCE:
            return source_path
        image = inputs.load(request.image)
    except BadPicture:
        return None
    if request.resize_mode == "crop":
        return ImageOps.fit(image, result_size)
    if request.resize_mode == "fill":
        return ImageOps.pad(image, result_size)
    return image.resize(result_size)
