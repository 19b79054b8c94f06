"""Transparent images in two layers that can be enlarged one by one: colours and transparency.

Knows: that what hides in transparent places would shine through at their edges. Does not know:
files, how a layer is enlarged.
"""

from __future__ import annotations

from PIL import Image

# Visible colours are spread over hidden ones from coarse to fine, by squares of these sides in
# pixels; what is further away stays white.
SPREAD_SIDES_PX = (32, 8, 2)


def split_transparency(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of an image (RGB) and its transparency (L, 0 is transparent), if any.

    Colours of places that are fully transparent are those of visible ones near by: a filter or a
    network mixes a pixel with its neighbours, and what a program left there (mostly black) would
    become a rim.

    Args:
        image: Of mode RGB or RGBA.
    """
    if image.mode != "RGBA":
        return image, None
    alpha = image.getchannel("A")
    colours = Image.new("RGB", image.size, "white")
    for side in SPREAD_SIDES_PX:
        # Pillow weighs the colours of RGBA by their opacity.
        coarse = image.reduce(side)
        layer = coarse.resize(
            (coarse.width * side, coarse.height * side), Image.Resampling.NEAREST
        ).crop((0, 0, *image.size))
        colours.paste(layer.convert("RGB"), mask=_mark_visible(layer.getchannel("A")))
    colours.paste(image.convert("RGB"), mask=_mark_visible(alpha))
    return colours, alpha


def _mark_visible(alpha: Image.Image) -> Image.Image:
    return alpha.point(lambda opacity: 255 if opacity else 0)
