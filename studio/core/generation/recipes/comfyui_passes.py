"""One or two samplers of a ComfyUI graph as a request: the first pass, and a hires pass.

Knows: how steps, strengths and sizes of ComfyUI are said here, what differs. Does not know: which
samplers of a graph count (comfyui.py), how they are read (comfyui_samplers.py).

ComfyUI counts the steps that run: 10 steps at denoise 0.5 are the last 10 of 20. Here the steps of
the whole way are said.

Source: comfyanonymous/ComfyUI's KSampler (set_steps). Facts, no code.
"""

from __future__ import annotations

from studio.core.generation.geometry import count_effective_steps
from studio.core.generation.recipes.comfyui_graph import Node
from studio.core.generation.recipes.comfyui_samplers import Origin, Pass, read_pass
from studio.core.generation.recipes.comfyui_values import GraphValues
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import as_number

_MAX_STEPS_HERE = 150
# What ComfyUI's nodes have by default: the ends that Stable Diffusion's own levels have.
_OWN_LEVELS = {"sigma_min": 0.0291675, "sigma_max": 14.614642, "rho": 7.0}
_LEVEL_TOLERANCE = 0.01
_STEPPED_NOISE_WORDS = ("ancestral", "sde", "lcm")


def take_first_pass(settings: Pass, origin: Origin, draft: RecipeDraft) -> None:
    draft.take_seed(settings.seed)
    if settings.cfg is not None:
        draft.take_number("guidance", settings.cfg)
    draft.take_sampler(settings.sampler, settings.schedule)
    _take_levels(settings, draft)
    for sentence in settings.notes:
        draft.note(sentence)
    steps = settings.steps
    if steps is not None and 0 < settings.denoise < 1:
        steps = find_whole_steps(steps, settings.denoise)
    if steps is not None:
        draft.take_number("steps", steps)
    if isinstance(settings.sampler, str) and any(
        word in settings.sampler for word in _STEPPED_NOISE_WORDS
    ):
        draft.note("Its sampler adds noise at each step, there from another source: it differs.")
    draft.take_size(*origin.size)
    if origin.num_images > 1:
        draft.note(
            f"It is one of {origin.num_images} painted at once; only the first has this noise here."
        )
    if origin.is_masked:
        draft.note("Only a masked part was painted; the file holds no mask.")
    if origin.kind == "picture":
        draft.take_size(*(origin.new_size or (None, None)))
        draft.note("It was made from another picture, which the file does not hold.")
    elif origin.kind == "unknown":
        draft.note("What it began with is not in the file: the size may be another.")
    if settings.denoise < 1 and origin.kind != "noise":
        draft.take_number("strength", settings.denoise)
    elif settings.denoise < 1:
        draft.note(f"Denoise {settings.denoise:g} from pure noise is not here: it will differ.")


def _take_levels(settings: Pass, draft: RecipeDraft) -> None:
    """Take the ends of the noise levels, where the sampler can be told them."""
    is_changed = any(
        abs(level - _OWN_LEVELS[name]) > _LEVEL_TOLERANCE for name, level in settings.levels.items()
    )
    if not is_changed:
        return
    if draft.values.get("scheduler") != "Euler":
        words = ", ".join(f"{name} {level:g}" for name, level in settings.levels.items())
        draft.note(f"Noise levels of its own ({words}) are not here with its sampler.")
        return
    for name, level in settings.levels.items():
        draft.take_number(name, level)


def find_whole_steps(steps: int, denoise: float) -> int:
    """Return of how many steps so many run at a strength; ComfyUI counts those that run.

    Args:
        steps: That run.
        denoise: Above 0 and below 1.
    """
    for whole_steps in range(steps, _MAX_STEPS_HERE + 1):
        if count_effective_steps(whole_steps, denoise) >= steps:
            return whole_steps
    return _MAX_STEPS_HERE


def take_second_pass(
    values: GraphValues,
    first: Pass,
    step: tuple[Node, Origin],
    draft: RecipeDraft,
    image_size: tuple[int, int] | None,
) -> None:
    node, origin = step
    settings = read_pass(values, node)
    if not origin.is_enlarged:
        if settings.first_step or not settings.adds_noise:
            draft.note(
                f"From step {settings.first_step} on another sampler went on (a refiner, maybe); "
                "here the first goes on to the end."
            )
        else:
            draft.note("A second sampler painted it again at the same size; that is left out.")
        return
    scale = _find_scale(origin, draft, image_size)
    if scale is None:
        draft.note("It was enlarged and painted again, by how much is not in the file.")
        return
    draft.take_number("hires_scale", scale)
    draft.take("hires_resize", "latent" if origin.has_latent_resize else "pixel")
    if origin.upscaler:
        draft.add_file("upscaler", origin.upscaler)
        draft.take("hires_upscaler", origin.upscaler)
    draft.take_number("hires_strength", settings.denoise)
    if settings.steps is not None:
        steps = settings.steps
        if 0 < settings.denoise < 1:
            steps = find_whole_steps(steps, settings.denoise)
        draft.take_number("hires_steps", steps)
    tile = as_number(values.resolve(node.inputs.get("tile_width"), "tile_width"))
    if tile:
        draft.take_number("hires_tile", int(tile) // 8 * 8)
    draft.note("The second pass draws its noise in another way here: details will differ.")
    if (settings.cfg, settings.sampler, settings.schedule) != (
        first.cfg,
        first.sampler,
        first.schedule,
    ):
        draft.note("Its second pass had a sampler or guidance of its own; here it has the first's.")


def _find_scale(
    origin: Origin, draft: RecipeDraft, image_size: tuple[int, int] | None
) -> float | None:
    """Return how many times as large the second pass is."""
    if origin.scale is not None and not origin.upscaler:
        return round(origin.scale, 4)
    width: int | None = draft.values.get("width")
    new_width = as_number(origin.new_size[0]) if origin.new_size else None
    if not new_width and image_size and origin.kind == "sampler":
        new_width = image_size[0]
    if width and new_width and new_width >= width:
        return round(new_width / width, 4)
    return round(origin.scale, 4) if origin.scale is not None else None
