"""The gallery as HTML and as values for its grid: entries, titles, the image in view.

Knows: how an image is called and described. Does not know: gradio; which images are listed
(storage/gallery/search.py); how the grid is drawn (components/image_grid.js).
"""

from __future__ import annotations

from typing import Any

from studio.services.urls import file_url
from studio.storage.gallery import GeneratedImage
from studio.storage.gallery.files import ImageFiles
from studio.storage.gallery.search import ListedImage
from studio.storage.verdicts import MAX_STARS, Verdict
from studio.ui.views.common import pluralize, shorten
from studio.ui.views.images import render_image_settings
from studio.ui.views.templates import render_macro

MAX_TITLE_CHARS = 160
KIND_TITLES = {
    "img2img": "img2img",
    "inpaint": "Inpaint",
    "report": "Report",
    "strip": "Denoising steps",
    "sweep": "Sweep",
    "txt2img": "txt2img",
    "upscale": "Upscale",
}


def describe_entry(entry: ListedImage, files: ImageFiles, series_title: str) -> dict[str, Any]:
    """Return an entry of a page as the grid takes it.

    Args:
        entry: An image, or a sweep's or report's many.
        files: Where the images lie.
        series_title: What the many are called; empty for an image alone.
    """
    title = series_title or shorten(entry.prompt, MAX_TITLE_CHARS)
    title = title or KIND_TITLES.get(entry.kind, entry.kind)
    label = [title]
    if series_title:
        label.append(pluralize(entry.num_images, "image"))
    elif entry.stars:
        label.append(pluralize(entry.stars, "star"))
    if entry.is_favourite and not series_title:
        label.append("favourite")
    return {
        "key": f"s{entry.series}" if series_title else f"i{entry.id}",
        "id": entry.id,
        "series": entry.series if series_title else "",
        "url": file_url(entry.path),
        "thumb": file_url(files.choose_small_file(entry.path)),
        "title": title,
        "label": ", ".join(label),
        "stars": 0 if series_title else entry.stars,
        "favourite": entry.is_favourite and not series_title,
        "count": entry.num_images,
    }


def render_viewed_image(image: GeneratedImage, verdict: Verdict, *, is_shown: bool) -> str:
    """Render the chosen image with its stars and settings.

    Args:
        image: The image.
        verdict: What people think of it.
        is_shown: Whether it is shown here; it is not where it is compared with another.
    """
    settings = image.settings
    return render_macro(
        "gallery.html",
        "viewed_image",
        url=file_url(image.path) if is_shown else "",
        file_name=image.path.name,
        title=shorten(settings.prompt, MAX_TITLE_CHARS) if settings else "upscaled",
        image_id=image.id,
        stars=verdict.stars,
        max_stars=MAX_STARS,
        is_favourite=verdict.best,
        is_binned=bool(image.binned),
        settings=render_image_settings(image),
    )


def describe_binned(num_images: int) -> str:
    """Say that images are in the bin now."""
    if num_images == 1:
        return "Moved 1 image to the bin."
    return f"Moved {num_images:,} images to the bin."
