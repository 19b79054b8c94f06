"""The four styles of the small world: how flat polygons become a square image.

Knows: photo (round shading, soft shadow, background out of focus), watercolor (ragged paper margin,
wet edges, washes), pixel art (blocks of 4 x 4 pixels in flat inks), cartoon (flat, the thing in a
thick dark outline).
Does not know: what is drawn, or what it is called.

All renderers take the polygons of ground and thing, back to front, a generator of chance, whether
the thing stands on the ground, and a scale; they return pixels (128 * scale, 128 * scale, 3),
float, about 0 to 255. Lengths are those of the image of 128 x 128 pixels times the scale, so a
larger image shows the same drawing with finer edges.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from studio.pocket.objects import Polygon
from studio.pocket.palette import RGB

IMAGE_SIZE_PX = 128
SUPERSAMPLING = 3
PIXEL_BLOCK_PX = 4
OUTLINE_COLOUR: RGB = (24, 20, 34)
PAPER_COLOUR: RGB = (252, 250, 244)


def fill_polygons(
    polygons: Sequence[Polygon],
    size: int,
    base_image: Image.Image | None = None,
    outline_px: float = 0.0,
) -> Image.Image:
    """Fill polygons back to front on a square image.

    Args:
        polygons: Polygons with corners from 0 to 1.
        size: Side of the square in pixels.
        base_image: The image to draw on, in place; a black one if None.
        outline_px: Width of a dark outline around each part that is not tiny; 0 for none.
    """
    image = Image.new("RGB", (size, size)) if base_image is None else base_image
    draw = ImageDraw.Draw(image)
    for part in polygons:
        draw.polygon(_scale_points(part, size), fill=part.colour)
        if outline_px and np.ptp(part.points, 0).max() > 0.1:
            _draw_outline(draw, part, size, max(1, round(outline_px)))
    return image


def _scale_points(part: Polygon, size: int) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in part.points * size]


def _draw_outline(draw: ImageDraw.ImageDraw, part: Polygon, size: int, width: int) -> None:
    points = _scale_points(part, size)
    # The second corner again, so that the joint of the first one is rounded too.
    points += points[:2]
    draw.line(points, fill=OUTLINE_COLOUR, width=width, joint="curve")


def compute_coverage(polygons: Sequence[Polygon], size: int, factor: int) -> np.ndarray:
    """Return how much of each pixel polygons cover, 0 to 1, at size / factor pixels a side."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for part in polygons:
        draw.polygon(_scale_points(part, size), fill=255)
    return downsample_image(image, factor) / 255


def downsample_image(image: Image.Image, factor: int = SUPERSAMPLING) -> np.ndarray:
    """Average blocks of factor x factor pixels: this is the anti-aliasing."""
    return np.asarray(image.reduce(factor), np.float32)


def _make_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return smooth noise (size, size) of unit deviation with about `cells` bumps a side."""
    small = gaussian_filter(rng.standard_normal((cells + 3, cells + 3)), 0.6)
    grid = np.linspace(1, cells + 1, size)
    smooth = map_coordinates(small, np.meshgrid(grid, grid, indexing="ij"), order=3)
    return np.asarray((smooth - smooth.mean()) / (smooth.std() + 1e-6), np.float32)


def render_photo(
    ground: Sequence[Polygon],
    thing: Sequence[Polygon],
    rng: np.random.Generator,
    grounded: bool,
    scale: int = 1,
) -> np.ndarray:
    """Shade by a light from the upper left; soft shadow, blurred background, darker corners."""
    side = scale * IMAGE_SIZE_PX
    size = SUPERSAMPLING * side
    coverage = compute_coverage(thing, size, SUPERSAMPLING)[..., None]
    # 1. The background, with the thing's shadow
    back = downsample_image(fill_polygons(ground, size))
    back = gaussian_filter(back, (1.3 * scale, 1.3 * scale, 0))
    rows, columns = np.mgrid[0:side, 0:side] / side
    if grounded:
        solid_rows, solid_columns = np.nonzero(coverage[..., 0] > 0.5)
        foot = solid_rows.max() / side
        middle = solid_columns.mean() / side
        width = (solid_columns.max() - solid_columns.min()) / side
        across = ((columns - middle - 0.05) / (0.5 * width)) ** 4
        along = ((rows - foot) / 0.05) ** 2
        back *= (1 - 0.3 * np.exp(-(across + along)))[..., None]
    # 2. The thing, lit by the slope of its blurred silhouette
    front = downsample_image(fill_polygons(thing, size))
    slope = np.gradient(gaussian_filter(coverage[..., 0], 5.0 * scale), 1 / scale)
    light = np.clip(1 + 3.2 * (slope[0] + 0.8 * slope[1]), 0.7, 1.3)[..., None]
    brightened = front + (255 * coverage - front) * (light - 1)
    lit = np.where(light > 1, brightened, front * light)
    # 3. Both together, dimmed towards the corners
    pixels = back * (1 - coverage) + lit
    radius_squared = (rows - 0.5) ** 2 + (columns - 0.5) ** 2
    vignette = 1.02 - 0.42 * np.clip(radius_squared - 0.12, 0, None)
    return np.asarray(pixels * vignette[..., None], np.float32)


def render_watercolor(
    ground: Sequence[Polygon],
    thing: Sequence[Polygon],
    rng: np.random.Generator,
    grounded: bool,
    scale: int = 1,
) -> np.ndarray:
    """Paint washes that pool, edges that run, and a ragged margin of bare paper."""
    side = scale * IMAGE_SIZE_PX
    size = SUPERSAMPLING * side
    flat = downsample_image(fill_polygons(thing, size, fill_polygons(ground, size)))
    coverage = compute_coverage(thing, size, SUPERSAMPLING)
    # 1. Edges that run
    pixels_down, pixels_across = np.mgrid[0:side, 0:side].astype(np.float32)
    shift_down = _make_noise(rng, side, 14)
    shift_across = _make_noise(rng, side, 14)
    places = [pixels_down + scale * shift_down, pixels_across + scale * shift_across]
    channels = [map_coordinates(flat[..., k], places, order=1, mode="nearest") for k in range(3)]
    flat = np.stack(channels, -1)
    coverage = np.asarray(map_coordinates(coverage, places, order=1, mode="nearest"))
    # 2. Washes that pool, darker where the thing's edge dried
    wash = 5.0 * _make_noise(rng, side, 4) + 3.0 * _make_noise(rng, side, 9)
    pool = wash[..., None]
    edge = np.abs(coverage - gaussian_filter(coverage, 2.0 * scale))[..., None]
    pixels = (255 - (255 - flat) * (0.9 + 0.012 * pool)) * (1 - 0.35 * edge)
    # 3. The margin, in pixels of the image of 128 x 128
    rows = (pixels_down + 0.5) / scale - 0.5 + shift_down
    columns = (pixels_across + 0.5) / scale - 0.5 + shift_across
    last = IMAGE_SIZE_PX - 1
    border_distance = np.minimum.reduce([rows, columns, last - rows, last - columns])
    inset = border_distance - 8.5 - 1.6 * _make_noise(rng, side, 10)
    painted = np.clip(inset / 1.5 + 0.5, 0, 1)[..., None]
    return np.asarray(painted * pixels + (1 - painted) * np.array(PAPER_COLOUR), np.float32)


def render_pixel_art(
    ground: Sequence[Polygon],
    thing: Sequence[Polygon],
    rng: np.random.Generator,
    grounded: bool,
    scale: int = 1,
) -> np.ndarray:
    """Fill blocks of 4 x 4 pixels with one flat ink each."""
    cells = IMAGE_SIZE_PX // PIXEL_BLOCK_PX
    fine_size = 8 * cells

    def render_blocks(parts: Sequence[Polygon], base_colour: RGB) -> np.ndarray:
        canvas = Image.new("RGB", (fine_size, fine_size), base_colour)
        fine = downsample_image(fill_polygons(parts, fine_size, canvas), 8)
        inks = np.array(sorted({part.colour for part in parts}), np.float32)
        nearest = (-2 * fine @ inks.T + (inks**2).sum(1)).argmin(-1)
        return np.asarray(inks[nearest])

    is_thing = compute_coverage(thing, fine_size, 8) > 0.45
    largest = max(thing, key=lambda part: float(np.ptp(part.points, 0).prod()))
    thing_blocks = render_blocks(thing, largest.colour)
    ground_blocks = render_blocks(ground, OUTLINE_COLOUR)
    blocks = np.where(is_thing[..., None], thing_blocks, ground_blocks)
    block_px = PIXEL_BLOCK_PX * scale
    return np.asarray(blocks.repeat(block_px, 0).repeat(block_px, 1), np.float32)


def render_cartoon(
    ground: Sequence[Polygon],
    thing: Sequence[Polygon],
    rng: np.random.Generator,
    grounded: bool,
    scale: int = 1,
) -> np.ndarray:
    """Fill flat colours, with a thick dark outline around the thing."""
    size = SUPERSAMPLING * scale * IMAGE_SIZE_PX
    image = fill_polygons(ground, size)
    draw = ImageDraw.Draw(image)
    for part in thing:
        _draw_outline(draw, part, size, 8 * SUPERSAMPLING * scale)
    outline_px = 1.6 * SUPERSAMPLING * scale
    return downsample_image(fill_polygons(thing, size, image, outline_px=outline_px))


StyleRenderer = Callable[
    [Sequence[Polygon], Sequence[Polygon], np.random.Generator, bool, int], np.ndarray
]
STYLE_RENDERERS: dict[str, StyleRenderer] = {
    "photo": render_photo,
    "watercolor painting": render_watercolor,
    "pixel art": render_pixel_art,
    "cartoon": render_cartoon,
}
