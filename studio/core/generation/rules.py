"""The rules of a request: which settings go together, which change anything, what it costs.

Knows: a request's values. Does not know: images and masks themselves (storage/inputs.py), who asks.
"""

from __future__ import annotations

from collections.abc import Mapping

from studio.core.catalog import SCHEDULERS
from studio.core.generation import geometry
from studio.core.generation.fields import RequestFields
from studio.core.generation.geometry import Box, Size
from studio.core.generation.prompt_plans import count_rows
from studio.core.generation.prompts.dialects import (
    PROMPT_SYNTAXES,
    find_differing_dialect,
    is_emphasis_read,
)
from studio.core.generation.prompts.plan import Dialect
from studio.core.generation.requirements import (
    REQUIRES_A1111_WEIGHT,
    REQUIRES_APG,
    REQUIRES_CHURN,
    REQUIRES_COLOUR_FILL,
    REQUIRES_ETA_SOLVER,
    REQUIRES_EULER,
    REQUIRES_EXTENSION,
    REQUIRES_GUIDANCE,
    REQUIRES_HIRES,
    REQUIRES_HIRES_PIXELS,
    REQUIRES_IMAGE,
    REQUIRES_KARRAS_EULER,
    REQUIRES_LEVEL_RANGE,
    REQUIRES_MASK,
    REQUIRES_MASK_OR_EXTENSION,
    REQUIRES_NOISE_SCALE,
    REQUIRES_ONLY_MASKED_AREA,
    REQUIRES_PROMPT_SIGNS,
    REQUIRES_STEP_NOISE,
    REQUIRES_TILES,
    REQUIRES_UNMASKED_IMAGE,
    REQUIRES_VARIATION,
    REQUIRES_ZERO_STAR,
)

EXTEND_FIELDS = ("extend_left", "extend_top", "extend_right", "extend_bottom")
# At their default they are off, and so is all that needs them.
SWITCH_FIELDS = ("image", "mask", *EXTEND_FIELDS, "hires_scale")


def find_inactive_fields(
    request: RequestFields, requirements: Mapping[str, str], is_open: bool = False
) -> frozenset[str]:
    """Return the settings that change nothing in a request, for what they need is not there.

    A switch that is off is one of them.

    Args:
        request: The request.
        requirements: What each setting needs.
        is_open: Whether styles or templates are not written out yet.
    """
    task = request.task
    is_met = {
        REQUIRES_GUIDANCE: request.is_guided,
        REQUIRES_IMAGE: task != "txt2img",
        REQUIRES_UNMASKED_IMAGE: task == "img2img",
        REQUIRES_MASK: task == "inpaint",
        REQUIRES_MASK_OR_EXTENSION: request.is_masked,
        REQUIRES_ONLY_MASKED_AREA: request.is_masked and request.inpaint_area == "only masked",
        REQUIRES_EXTENSION: task == "outpaint",
        REQUIRES_COLOUR_FILL: task == "outpaint" and request.extend_fill == "colour",
        REQUIRES_HIRES: request.has_hires_pass,
        REQUIRES_HIRES_PIXELS: request.has_hires_pass and request.hires_resize == "pixel",
        REQUIRES_VARIATION: request.variation_strength > 0,
        REQUIRES_TILES: request.has_hires_pass and request.hires_tile > 0,
    }
    is_met |= _find_met_solver_requirements(request)
    # What a template or a style comes to is not known yet: it may have any sign.
    is_met |= (
        dict.fromkeys((REQUIRES_PROMPT_SIGNS, REQUIRES_A1111_WEIGHT), True)
        if is_open
        else _find_met_prompt_requirements(request)
    )
    fields = type(request).model_fields
    switched_off = {
        name for name in SWITCH_FIELDS if getattr(request, name) == fields[name].default
    }
    unmet = {name for name, requirement in requirements.items() if not is_met[requirement]}
    return frozenset(switched_off | unmet)


def list_differing_dialects(request: RequestFields) -> list[Dialect]:
    """Return the grammars of the prompts that read otherwise than the studio did at first."""
    dialects = {
        find_differing_dialect(
            text,
            syntax=request.prompt_syntax,
            is_negative=is_negative,
            emphasis=request.emphasis,
        )
        for text, is_negative in _list_prompts(request)
    }
    return sorted(dialect for dialect in dialects if dialect)


def may_be_read_apart(request: RequestFields) -> bool:
    """Return whether there is a grammar that reads the prompts otherwise than another."""
    try:
        return any(
            list_differing_dialects(request.model_copy(update={"prompt_syntax": syntax}))
            for syntax in PROMPT_SYNTAXES
        )
    except ValueError:  # one of them cannot read it at all
        return True


def _find_met_prompt_requirements(request: RequestFields) -> dict[str, bool]:
    """Return what the settings of reading need of the prompts, and whether it is there."""
    return {
        REQUIRES_PROMPT_SIGNS: bool(list_differing_dialects(request)),
        REQUIRES_A1111_WEIGHT: any(
            is_emphasis_read(
                text,
                syntax=request.prompt_syntax,
                is_negative=is_negative,
                emphasis=request.emphasis,
            )
            for text, is_negative in _list_prompts(request)
        ),
    }


def _list_prompts(request: RequestFields) -> tuple[tuple[str, bool], ...]:
    return (request.prompt, False), (request.negative_prompt, True)


def _find_met_solver_requirements(request: RequestFields) -> dict[str, bool]:
    """Return what settings of solvers and of guidance need, and whether it is there."""
    is_euler = request.scheduler == "Euler"
    has_churn = is_euler and request.s_churn > 0
    has_range = is_euler and request.noise_schedule in ("Karras", "Exponential")
    method = request.guidance_method if request.is_guided else ""
    return {
        REQUIRES_ETA_SOLVER: request.scheduler in ("DDIM", "TCD"),
        REQUIRES_EULER: is_euler,
        REQUIRES_CHURN: has_churn,
        REQUIRES_NOISE_SCALE: has_churn or request.scheduler == "DPM++ SDE",
        REQUIRES_LEVEL_RANGE: has_range,
        REQUIRES_KARRAS_EULER: has_range and request.noise_schedule == "Karras",
        REQUIRES_STEP_NOISE: request.draws_step_noise,
        REQUIRES_ZERO_STAR: method == "CFG-Zero*" and _begins_in_noise(request),
        REQUIRES_APG: method == "APG",
    }


def _begins_in_noise(request: RequestFields) -> bool:
    """Return whether a pass runs all its steps, the first of which has nothing but noise."""
    hires_steps = request.hires_steps or request.steps
    return request.steps == request.effective_steps or (
        request.has_hires_pass and hires_steps == request.hires_effective_steps
    )


def find_faults(request: RequestFields) -> list[str]:
    """Return a sentence for each thing that cannot be."""
    faults = []
    if request.image and request.mask and any(request.extension):
        faults.append(
            "Mask: outpainting paints only the new area; leave out the mask or the sides to extend."
        )
    if request.image and request.strength and not request.effective_steps:
        faults.append(_format_too_weak("Denoising strength", request.strength, request.steps))
    if request.image and not request.strength and (not request.has_hires_pass or request.is_masked):
        faults.append(
            "Denoising strength: 0 changes nothing; choose more (0 is only for enlarging an "
            "image, with a hires scale above 1)."
        )
    if request.is_guided and request.guidance_start >= request.guidance_end:
        faults.append(
            f"CFG end: must be above CFG start (you entered {request.guidance_end:g}, with a start "
            f"of {request.guidance_start:g}); a CFG scale of 1 turns it off."
        )
    lowest, highest = request.sigma_min, request.sigma_max
    if lowest and highest and lowest >= highest:
        faults.append(
            f"Highest noise level: must be above the lowest (you entered {highest:g} and "
            f"{lowest:g})."
        )
    if request.s_tmax and request.s_tmin > request.s_tmax:
        faults.append(
            f"Churn up to noise level: must be {request.s_tmin:g} or more, where churn starts "
            f"(you entered {request.s_tmax:g})."
        )
    if request.has_hires_pass:
        faults += _find_hires_faults(request)
    return faults


def plan_hires_tiles(request: RequestFields, size: Size) -> list[Box]:
    """Return the boxes in pixels that the second pass paints; one where it paints all at once.

    Args:
        request: The request.
        size: Width and height in pixels of the first pass.
    """
    if not request.has_hires_pass:
        return []
    large = geometry.upscale_size(size, request.hires_scale)
    return geometry.split_into_tiles(large, request.hires_tile or max(large), request.hires_overlap)


def plan_passes(request: RequestFields, size: Size) -> list[tuple[int, float]]:
    """Return the passes of one image: U-Net calls, and pixels of a call relative to `size`."""
    info = SCHEDULERS[request.scheduler]
    passes = []
    if request.effective_steps:
        passes.append((info.count_model_calls(request.effective_steps, request.steps), 1.0))
    boxes = plan_hires_tiles(request, size)
    if boxes:
        calls = info.count_model_calls(
            request.hires_effective_steps, request.hires_steps or request.steps
        )
        left, top, right, bottom = boxes[0]  # all are equally large
        passes.append((calls * len(boxes), (right - left) * (bottom - top) / size[0] / size[1]))
    return passes


def count_steps(request: RequestFields, size: Size) -> int:
    """Return the steps of one image, over all its passes and tiles."""
    num_tiles = len(plan_hires_tiles(request, size))
    return request.effective_steps + request.hires_effective_steps * num_tiles


def count_model_calls(request: RequestFields, size: Size) -> int:
    """Return the predictions that one image takes, over all its passes and tiles."""
    return sum(calls for calls, _ in plan_passes(request, size))


def count_unet_rows(request: RequestFields, size: Size, is_distilled: bool = False) -> int:
    """Return the denoiser's rows of one image; a distilled model is guided by an input."""
    return sum(rows for rows, _ in _plan_rows(request, size, is_distilled))


def estimate_unet_megapixels(request: RequestFields, size: Size) -> float:
    """Return how much one image asks of the U-Net: millions of pixels times rows."""
    area = sum(rows * share for rows, share in _plan_rows(request, size))
    return area * size[0] * size[1] / 1e6


def _plan_rows(
    request: RequestFields, size: Size, is_distilled: bool = False
) -> list[tuple[int, float]]:
    """Return the passes of one image: rows of the denoiser, and pixels relative to `size`."""
    info = SCHEDULERS[request.scheduler]
    row_counts = {is_guided: count_rows(request, is_guided) for is_guided in (False, True)}
    passes = plan_passes(request, size)
    steps = [request.steps] * bool(request.effective_steps)
    steps += [request.hires_steps or request.steps] * (len(passes) - len(steps))
    rows = []
    for number, (calls, share) in enumerate(passes):
        total_steps = steps[number]
        is_hires = number == len(passes) - 1 and request.has_hires_pass
        tiles = len(plan_hires_tiles(request, size)) if is_hires else 1
        calls_per_tile = calls // tiles
        total_calls = info.count_model_calls(total_steps)
        # Guidance counts from the first step that runs (engine/generation/guidance.py).
        first_call = total_calls - calls_per_tile
        first_step = info.find_step(first_call)
        steps_run = total_steps - first_step
        rows_per_tile = sum(
            row_counts[
                not is_distilled
                and request.is_guided_at(info.find_step(call) - first_step, steps_run)
            ]
            for call in range(first_call, total_calls)
        )
        rows.append((rows_per_tile * tiles, share))
    return rows


def _find_hires_faults(request: RequestFields) -> list[str]:
    faults = []
    if request.is_masked:
        faults.append(
            "Hires scale: a second pass repaints the whole image, which inpainting and "
            "outpainting must not; choose 1, and enlarge the finished image."
        )
    if not request.hires_effective_steps:
        faults.append(
            _format_too_weak(
                "Hires strength", request.hires_strength, request.hires_steps or request.steps
            )
        )
    tile, overlap = request.hires_tile, request.hires_overlap
    if tile and tile < max(geometry.MIN_SIDE_PX, 2 * overlap):
        faults.append(
            f"Hires tile: must be {geometry.MIN_SIDE_PX} or more and at least twice the overlap "
            f"(you entered {tile}, with an overlap of {overlap})."
        )
    if tile and request.hires_resize == "latent":
        faults.append("Upscale in: tiles are cut from pixels; choose pixel, or a hires tile of 0.")
    if request.width and request.height:
        width, height = geometry.upscale_size((request.width, request.height), request.hires_scale)
        if (
            max(width, height) > geometry.MAX_IMAGE_SIDE_PX
            or width * height > geometry.MAX_IMAGE_PIXELS
        ):
            faults.append(
                f"Hires scale: {width} × {height} is too large; at most "
                f"{geometry.MAX_IMAGE_PIXELS // 10**6} million pixels are allowed."
            )
        elif not tile and max(width, height) > geometry.MAX_UNTILED_SIDE_PX:
            faults.append(
                f"Hires scale: {width} × {height} is too large for one piece "
                f"({geometry.MAX_UNTILED_SIDE_PX} a side at most); choose a hires tile."
            )
    return faults


def _format_too_weak(title: str, strength: float, steps: int) -> str:
    return (
        f"{title}: {strength:g} of {steps} steps is less than one step; choose {1 / steps:.2g} or "
        "more, or more steps."
    )
