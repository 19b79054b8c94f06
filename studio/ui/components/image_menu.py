"""What the menu of an image does where no button does it: favourite, bin.

Knows: which image is meant, who may see it. Does not know: how the menu is drawn
(static/image_menu.js), what is reused of an image (tabs/generation.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.errors import BadFile, NotAllowed
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.image_grid import parse_image_id
from studio.ui.errors import show_info


def find_menu_image(
    services: Services, image_id: Any, selected_path: Any, visitor: Visitor
) -> GeneratedImage:
    """Return the image that a menu is about.

    Args:
        services: Where the gallery is.
        image_id: Its number, as a browser sent it; None for the one in view.
        selected_path: The file of the image in view.
        visitor: Who asks.

    Raises:
        BadFile: It is gone.
        NotAllowed: It is somebody else's.
    """
    image = None
    if image_id is not None:
        image = services.home.gallery.get_by_id(parse_image_id(image_id))
    elif isinstance(selected_path, str) and selected_path:
        image = services.home.gallery.get(selected_path)
    if image is None:
        raise BadFile("That image is gone; choose another one.")
    if not visitor.may_see(image.owner):
        raise NotAllowed("That image is somebody else's.")
    return image


def toggle_favourite(services: Services, image: GeneratedImage) -> None:
    """Make an image a favourite, or no favourite any more."""
    sweeps = services.home.sweeps
    verdict = sweeps.get_image_verdict(image.path)
    sweeps.set_image_verdict(image.path, replace(verdict, best=not verdict.best))
    show_info("Removed from favourites." if verdict.best else "Added to favourites.")


def move_to_bin(services: Services, image: GeneratedImage, visitor: Visitor) -> None:
    """Move an image to the bin.

    Raises BadFile where it is there already.
    """
    if not services.home.gallery.bin.put([image.id], visitor.owner_filter):
        raise BadFile("That image cannot be moved to the bin; it is gone already.")
    show_info("Moved to the bin. Restore it in the Gallery.")
