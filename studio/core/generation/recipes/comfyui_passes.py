"""One or two samplers of a ComfyUI graph as a request: the first pass, and a hires pass.

Knows: how steps, strengths and sizes of ComfyUI are said here, what differs. Does not know: which
samplers of a graph count (comfyui.py), how they are read (comfyui_samplers.py).

ComfyUI counts the steps that run: 10 steps at denoise 0.5 are the last 10 of 20. Here the steps of
the whole way are said.

Source: comfyanonymous/ComfyUI's KSampler (set_steps). Facts, no code.
"""

from __future__ import annotations

from studio.core.generation.geometry import count_effective_steps, find_strength
from studio.core.generation.recipes.comfyui_graph import Node
from studio.core.generation.recipes.comfyui_samplers import Origin, Pass, read_pass
from studio.core.generation.recipes.comfyui_values import GraphValues
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.json_text import as_number
from studio.core.generation.recipes.seeds import read_seed

_MAX_STEPS_HERE = 150
_MAX_STEPS_THERE = 10_000
# What ComfyUI's nodes have by default: the ends that Stable Diffusion's own levels have.
_OWN_LEVELS = {"sigma_min": 0.0291675, "sigma_max": 14.614642, "rho": 7.0}
_LEVEL_TOLERANCE = 0.01
_STEPPED_NOISE_WORDS = ("ancestral", "sde", "lcm")


def take_first_pass(
    settings: Pass, origin: Origin, draft: RecipeDraft, *, is_continued: bool = False
) -> None:
    """Take what the first sampler was asked for.

    Args:
        settings: Of that sampler.
        origin: What it began with.
        draft: The recipe.
        is_continued: Whether another sampler goes on with its result.
    """
    _take_noise(settings, draft)
    if settings.cfg is not None:
        draft.take_number("guidance", settings.cfg)
    draft.take_sampler(settings.sampler, settings.schedule)
    _take_levels(settings, draft)
    for sentence in settings.notes:
        draft.note(sentence)
    if isinstance(settings.sampler, str) and any(
        word in settings.sampler for word in _STEPPED_NOISE_WORDS
    ):
        draft.note(
            "Its sampler adds noise at each step, from a different source there: the image will "
            "differ."
        )
    draft.take_size(*origin.size)
    if origin.num_images > 1:
        draft.note(
            f"It is one of {origin.num_images} made in one batch; only the first has this "
            "noise here."
        )
    if origin.is_masked:
        draft.note("Only a masked part was painted; the file contains no mask.")
    if origin.kind == "picture":
        draft.take_size(*(origin.new_size or (None, None)))
        draft.note("It was made from another image, which is not in the file.")
    elif origin.kind == "unknown":
        draft.note("What it started from is not in the file: the size may differ.")
    _note_other_kinds(origin, "What it started from", draft)
    _take_steps(settings, origin, draft)
    if not is_continued:
        _note_early_end(settings, draft)


def _take_noise(settings: Pass, draft: RecipeDraft) -> None:
    """Take the seed, and how Inspire's samplers draw and mix noise."""
    is_cpu = not str(settings.noise_mode or "").startswith("GPU")
    draft.take_seed(settings.seed, is_cpu_noise=is_cpu)
    if not is_cpu and settings.seed is not None:
        draft.take("noise_source", "NV")
    strength = as_number(settings.variation_strength)
    if not strength:
        return
    seed, note = read_seed(settings.variation_seed, is_cpu)
    if note:
        draft.note(note.replace("Seed", "Variation seed", 1))
    elif draft.take("variation_seed", seed):
        draft.take_number("variation_strength", strength)
    if settings.variation_method != "slerp":
        draft.note(
            "The noise of two seeds was mixed linearly, here spherically: the image will differ."
        )


def _take_steps(settings: Pass, origin: Origin, draft: RecipeDraft) -> None:
    """Take the steps, and of a picture how much of them ran."""
    steps, denoise = settings.steps, settings.denoise
    first_step = settings.first_step if steps and 0 < settings.first_step < steps else 0
    is_noise = origin.kind == "noise"
    if not settings.adds_noise and origin.kind != "sampler":
        draft.note("Its sampler added no noise at the start; here it does: the image will differ.")
    if steps and first_step and denoise == 1:
        if is_noise:
            draft.note(
                f"It started at step {first_step} of {steps}, here at the first: the image will "
                "differ."
            )
        else:
            denoise = find_strength(steps, steps - first_step)
            draft.take_number("steps", steps)
            draft.take_number("strength", denoise)
            return
    if steps is not None and 0 < denoise < 1:
        steps, strength = find_share(steps, denoise, draft)
    else:
        strength = denoise
    if steps is not None:
        draft.take_number("steps", steps)
    if denoise < 1 and not is_noise:
        draft.take_number("strength", strength)
    elif denoise < 1:
        draft.note(
            f"Denoise {denoise:g} from pure noise is not available here: the image will differ."
        )


def _note_early_end(settings: Pass, draft: RecipeDraft) -> None:
    steps, last_step = settings.steps, settings.last_step
    if steps and last_step is not None and 0 < last_step < steps:
        ending = "with noise left" if settings.keeps_noise else "without noise from there on"
        draft.note(f"It ended at step {last_step} of {steps}, {ending}; here all steps run.")


def _note_other_kinds(origin: Origin, subject: str, draft: RecipeDraft) -> None:
    if origin.other_kinds:
        words = ", ".join(f"{kind:.40}" for kind in dict.fromkeys(origin.other_kinds))
        draft.note(f"{subject} was changed in a way unknown here: {words}.")


def _take_levels(settings: Pass, draft: RecipeDraft) -> None:
    """Take the ends of the noise levels, where the sampler can be told them."""
    is_changed = any(
        abs(level - _OWN_LEVELS[name]) > _LEVEL_TOLERANCE for name, level in settings.levels.items()
    )
    if not is_changed:
        return
    if draft.values.get("scheduler") != "Euler":
        words = ", ".join(f"{name} {level:g}" for name, level in settings.levels.items())
        draft.note(f"Its own noise levels ({words}) are not available here with its sampler.")
        return
    for name, level in settings.levels.items():
        draft.take_number(name, level)


def find_share(steps: int, denoise: float, draft: RecipeDraft) -> tuple[int, float]:
    """Return the steps of the whole way, and the strength at which as many run as in ComfyUI.

    Args:
        steps: That run there, of int(steps / denoise).
        denoise: Above 0 and below 1.
        draft: What is told where so many steps are not here.
    """
    if not 0 < steps <= _MAX_STEPS_THERE:
        return steps, denoise
    whole_steps = int(min(steps / denoise, 1e9))
    if whole_steps > _MAX_STEPS_HERE:
        running = count_effective_steps(_MAX_STEPS_HERE, denoise)
        draft.note(
            f"There {steps} of {whole_steps} steps ran; here {running} of {_MAX_STEPS_HERE} run, "
            "the maximum."
        )
        return _MAX_STEPS_HERE, denoise
    if count_effective_steps(whole_steps, denoise) == steps:
        return whole_steps, denoise
    return whole_steps, find_strength(whole_steps, steps)


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
                "here the first runs to the end."
            )
        else:
            draft.note("A second sampler repainted it at the same size; that is left out.")
        _note_other_kinds(origin, "What the second sampler started from", draft)
        return
    _note_other_kinds(origin, "What the second pass started from", draft)
    scale = _find_scale(origin, draft, image_size)
    if scale is None:
        draft.note("It was enlarged and repainted; by how much is not in the file.")
        return
    draft.take_number("hires_scale", scale)
    draft.take("hires_resize", "latent" if origin.has_latent_resize else "pixel")
    if origin.upscaler:
        draft.add_file("upscaler", origin.upscaler)
        draft.take("hires_upscaler", origin.upscaler)
    _take_second_steps(settings, draft)
    tile = as_number(values.resolve(node.inputs.get("tile_width"), "tile_width"))
    if tile:
        draft.take_number("hires_tile", int(tile) // 8 * 8)
    draft.note("The second pass draws its noise differently here: details will differ.")
    if (settings.cfg, settings.sampler, settings.schedule) != (
        first.cfg,
        first.sampler,
        first.schedule,
    ):
        draft.note(
            "Its second pass had its own sampler or CFG scale; here it uses those of the first."
        )


def _take_second_steps(settings: Pass, draft: RecipeDraft) -> None:
    steps, strength = settings.steps, settings.denoise
    if steps and 0 < settings.first_step < steps and strength == 1:
        strength = find_strength(steps, steps - settings.first_step)
    elif steps is not None and 0 < strength < 1:
        steps, strength = find_share(steps, strength, draft)
    draft.take_number("hires_strength", strength)
    if steps is not None:
        draft.take_number("hires_steps", steps)
    _note_early_end(settings, draft)


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
