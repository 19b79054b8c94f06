"""Generated images: saved, listed, searched, put into the bin; the settings that files carry."""

from studio.storage.gallery.files import THUMBNAIL_SIDE_PX
from studio.storage.gallery.images import (
    STOPPED_KEY,
    GeneratedImage,
    PngMetadata,
    parse_studio_chunk,
)
from studio.storage.gallery.search import ImageFilter
from studio.storage.gallery.settings_in_files import (
    read_image_settings,
    read_request,
    read_text_settings,
)
from studio.storage.gallery.store import Gallery, estimate_unet_work
from studio.storage.gallery.tables import IMAGE_KINDS, ImageOrigin

__all__ = [
    "IMAGE_KINDS",
    "STOPPED_KEY",
    "THUMBNAIL_SIDE_PX",
    "Gallery",
    "GeneratedImage",
    "ImageFilter",
    "ImageOrigin",
    "PngMetadata",
    "estimate_unet_work",
    "parse_studio_chunk",
    "read_image_settings",
    "read_request",
    "read_text_settings",
]
