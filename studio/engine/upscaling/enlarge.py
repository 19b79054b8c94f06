"""An image at the size that somebody wants, by the upscaler that somebody chose.

Knows: how a network's own scale and the wanted size come together.
Does not know: how a network works on an image (tiles.py), jobs, the gallery.

As in A1111: a network is used as often as it takes to be large enough, three times at most, and
the rest is Lanczos.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from studio.core.generation.geometry import Size
from studio.core.generation.upscaler_names import INTERPOLATIONS
from studio.engine.context import WorkerContext
from studio.engine.models.manager import PipelineManager
from studio.engine.upscaling.loader import load_upscaler
from studio.engine.upscaling.tiles import TileCallback, upscale_image
from studio.errors import InvalidSpec
from studio.storage.models.upscalers import UpscalerFile

MAX_PASSES = 3
# What a network may make on the way: its pixels lie in memory at once, three bytes each.
MAX_INTERMEDIATE_PIXELS = 300_000_000
_FILTERS = {
    "Lanczos": Image.Resampling.LANCZOS,
    "Nearest": Image.Resampling.NEAREST,
}
assert _FILTERS.keys() == set(INTERPOLATIONS)


@dataclass(frozen=True)
class Enlarger:
    """Enlarges images between two passes, by an upscaler's name."""

    context: WorkerContext

    def __call__(self, image: Image.Image, name: str, size: Size) -> Image.Image:
        """Return an image at another size.

        Raises what `enlarge_image` raises, and what `Upscalers.read` does.
        """
        upscaler_file = self.context.home.library.upscalers.read(name)
        return enlarge_image(self.context.pipelines, upscaler_file, image, size)


def enlarge_image(
    pipelines: PipelineManager,
    upscaler_file: UpscalerFile,
    image: Image.Image,
    size: Size,
    on_tile: TileCallback = lambda _done, _total: None,
) -> Image.Image:
    """Return an image at another size.

    Args:
        pipelines: Lends the network.
        upscaler_file: What to enlarge with.
        image: Of mode RGB.
        size: Width and height in pixels of the result.
        on_tile: Hears of each tile of a network's pass; what it raises ends everything.

    Raises:
        InvalidSpec: It would be too large on the way.
        BadFile: The upscaler cannot be used.
        OutOfMemory: It does not fit.
    """
    if upscaler_file.path is None:
        return image.resize(size, _FILTERS[upscaler_file.name])
    device = pipelines.device
    path = upscaler_file.path
    with pipelines.lend(
        f"upscaler {upscaler_file.content_hash} {device.dtype_name}",
        lambda: load_upscaler(path, upscaler_file.name, device),
        2 * path.stat().st_size,
        f"Upscaler {upscaler_file.name}",
    ) as upscaler:
        for number in range(MAX_PASSES):
            is_large_enough = image.width >= size[0] and image.height >= size[1]
            if number and (is_large_enough or upscaler.scale == 1):
                break
            _check_intermediate_size(image.size, upscaler.scale, upscaler_file.name)
            image = upscale_image(upscaler, image, device, on_tile)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def enlarge_alpha(upscaler_file: UpscalerFile, alpha: Image.Image, size: Size) -> Image.Image:
    """Return the transparency (L) of an image at another size: by its formula, else by Lanczos.

    Networks are trained on colours; of a soft edge they would make a jagged one.
    """
    return alpha.resize(size, _FILTERS.get(upscaler_file.name, Image.Resampling.LANCZOS))


def _check_intermediate_size(size: Size, scale: int, name: str) -> None:
    width, height = scale * size[0], scale * size[1]
    if width * height > MAX_INTERMEDIATE_PIXELS:
        raise InvalidSpec(
            [
                f"Upscaler: {name} would make this image {width} × {height}, more than "
                f"{MAX_INTERMEDIATE_PIXELS // 10**6} million pixels; choose Lanczos or a "
                "smaller image."
            ]
        )
