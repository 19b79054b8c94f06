"""The samplers of a ComfyUI graph: what each was asked for, and what it began with.

Knows: sampler nodes of one piece and of parts, the way of a latent back to noise, a picture or an
earlier sampler. Does not know: prompts, models.

Source: the inputs of comfyanonymous/ComfyUI's samplers (nodes, nodes_custom_sampler).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from studio.core.generation.recipes.comfyui_graph import Link, Node
from studio.core.generation.recipes.comfyui_nodes import (
    DETAILER_WORDS,
    KNOWN_LATENT_WORDS,
    SAMPLER_NODES,
    SCHEDULE_NODES,
)
from studio.core.generation.recipes.comfyui_values import MAX_CHAIN, GraphValues
from studio.core.generation.recipes.draft import get_file_name
from studio.core.generation.recipes.json_text import as_number, as_whole_number

_ASSEMBLED = ("SamplerCustom", "SamplerCustomAdvanced")
# Where a latent or a picture comes into a node that changes it.
_PASSED_KEYS = (
    *("samples", "latent_image", "latent", "pixels", "image", "images", "optional_latent"),
    *("upscaled_image", "LATENT", "IMAGE"),
)


@dataclass
class Pass:
    """What one sampler was asked for; None is what the graph does not say.

    `levels` are the ends of the noise levels and their curve, by the names of a request's fields;
    `keeps_noise` says whether noise stays where it stops early; `noise_mode`, `variation_seed`,
    `variation_strength` and `variation_method` are Inspire's.
    """

    seed: Any = None
    steps: int | None = None
    cfg: Any = None
    sampler: Any = None
    schedule: Any = None
    denoise: float = 1.0
    first_step: int = 0
    last_step: int | None = None
    adds_noise: bool = True
    keeps_noise: bool = False
    noise_mode: Any = None
    variation_seed: Any = None
    variation_strength: Any = None
    variation_method: Any = None
    model: Any = None
    positive: Any = None
    negative: Any = None
    levels: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Origin:
    """What a sampler began with, and what was done to it on the way.

    Attributes:
        kind: Noise, a picture that was loaded, an earlier sampler, or something unknown.
        node: The earlier sampler.
        size: Of the noise.
        num_images: Of the noise.
        scale: How many times as large it was made on the way.
        new_size: The size that it was brought to on the way.
        has_latent_resize: Whether latents were enlarged, no pixels.
        upscaler: The network that enlarged it.
        is_masked: Whether only a part is painted.
        other_kinds: Of nodes on the way that do something not known here.
    """

    kind: Literal["noise", "picture", "sampler", "unknown"] = "unknown"
    node: Node | None = None
    size: tuple[Any, Any] = (None, None)
    num_images: int = 1
    scale: float | None = None
    new_size: tuple[Any, Any] | None = None
    has_latent_resize: bool = False
    upscaler: str = ""
    is_masked: bool = False
    other_kinds: list[str] = field(default_factory=list)

    @property
    def is_enlarged(self) -> bool:
        """Whether it was made larger on the way."""
        return self.scale is not None or self.new_size is not None or bool(self.upscaler)


def is_sampler(node: Node) -> bool:
    """Return whether a node is a sampler of a whole picture."""
    if node.kind in _ASSEMBLED:
        return True
    if any(word in node.kind for word in DETAILER_WORDS):
        return False
    kind = node.kind.casefold()
    is_named = "sampler" in kind or "ultimatesdupscale" in kind or "hiresfix" in kind
    inputs = node.inputs
    return (
        is_named
        and "steps" in inputs
        and any(
            isinstance(inputs.get(key), Link) for key in ("model", "positive", "pipe", "basic_pipe")
        )
    )


def read_pass(values: GraphValues, node: Node) -> Pass:
    """Return what a sampler was asked for."""
    if node.kind in _ASSEMBLED:
        return _read_assembled(values, node)

    def resolve(key: str) -> Any:
        return values.resolve(values.find_input(node, key), key)

    seed = resolve("seed")
    denoise = as_number(resolve("denoise"))
    settings = Pass(
        seed=resolve("noise_seed") if seed is None else seed,
        steps=as_whole_number(resolve("steps")),
        cfg=resolve("cfg"),
        sampler=resolve("sampler_name"),
        schedule=resolve("scheduler"),
        denoise=1.0 if denoise is None else denoise,
        first_step=as_whole_number(resolve("start_at_step")) or 0,
        last_step=as_whole_number(resolve("end_at_step")),
        adds_noise=resolve("add_noise") not in ("disable", False),
        keeps_noise=resolve("return_with_leftover_noise") in ("enable", True),
        model=values.find_input(node, "model"),
        positive=values.find_input(node, "positive"),
        negative=values.find_input(node, "negative"),
    )
    _read_noise(values, node, settings)
    return settings


def _read_noise(values: GraphValues, node: Node, settings: Pass) -> None:
    """Read how a node of Inspire draws its noise."""
    for key in ("noise_mode", "variation_seed", "variation_strength", "variation_method"):
        setattr(settings, key, values.resolve(node.inputs.get(key), key))


def _read_assembled(values: GraphValues, node: Node) -> Pass:
    """Read a sampler whose parts are nodes of their own: noise, guider, sampler, noise levels."""
    inputs = node.inputs
    guider = values.get_node(inputs.get("guider")) or node
    noise = values.get_node(inputs.get("noise")) or node
    settings = Pass(
        seed=values.resolve(noise.inputs.get("noise_seed"), "noise_seed"),
        cfg=values.resolve(guider.inputs.get("cfg", guider.inputs.get("cfg_conds")), "cfg"),
        model=guider.inputs.get("model"),
        positive=guider.inputs.get("positive", guider.inputs.get("conditioning")),
        negative=guider.inputs.get("negative"),
        adds_noise=noise.kind != "DisableNoise" and inputs.get("add_noise") is not False,
    )
    if guider.kind == "BasicGuider":
        settings.cfg = 1  # no negative prompt is asked
    elif guider is not node and guider.kind != "CFGGuider":
        settings.notes.append(
            f"Guidance by {guider.kind!r:.60} is not available here: the image will differ."
        )
    _read_noise(values, noise, settings)
    _read_solver(values, inputs.get("sampler"), settings)
    _read_noise_levels(values, inputs.get("sigmas"), settings)
    return settings


def _read_solver(values: GraphValues, link: Any, settings: Pass) -> None:
    solver = values.get_node(link)
    if solver is None:
        return
    settings.sampler = values.resolve(solver.inputs.get("sampler_name"), "sampler_name")
    if solver.kind in SAMPLER_NODES:
        settings.sampler = SAMPLER_NODES[solver.kind]
        if solver.inputs.get("solver_type") == "heun":
            settings.sampler = f"{settings.sampler}_heun"
        changed = [
            f"{key} {solver.inputs[key]!r:.20}"
            for key in ("eta", "s_noise")
            if as_number(solver.inputs.get(key)) not in (None, 1.0)
        ]
        if changed:
            settings.notes.append(f"The sampler's {' and '.join(changed)} is not loaded.")
    elif settings.sampler is None:
        settings.notes.append(f"Sampler {solver.kind!r:.60} is not available here; left unchanged.")


def _read_noise_levels(values: GraphValues, link: Any, settings: Pass) -> None:
    """Read steps, schedule and denoise off the node that makes the noise levels."""
    for _ in range(MAX_CHAIN):
        node = values.get_node(link)
        if node is None:
            return
        if "steps" in node.inputs and "sigmas" not in node.inputs:
            break
        settings.notes.append(
            f"The noise levels were changed by {node.kind!r:.60}: the image will differ."
        )
        link = node.inputs.get("sigmas")
    else:
        return
    settings.steps = as_whole_number(values.resolve(node.inputs.get("steps"), "steps"))
    settings.schedule = SCHEDULE_NODES.get(node.kind) or values.resolve(
        node.inputs.get("scheduler"), "scheduler"
    )
    if settings.schedule is None:
        settings.notes.append(f"Schedule {node.kind!r:.60} is not available here; left unchanged.")
    for key in ("sigma_min", "sigma_max", "rho"):
        level = as_number(values.resolve(node.inputs.get(key), key))
        if level is not None and node.kind in ("KarrasScheduler", "ExponentialScheduler"):
            settings.levels[key] = level
    denoise = as_number(values.resolve(node.inputs.get("denoise"), "denoise"))
    settings.denoise = 1.0 if denoise is None else denoise


def trace_origin(values: GraphValues, sampler: Node) -> Origin:
    """Return what a sampler began with."""
    origin = Origin()
    node: Node | None = sampler
    seen: set[str] = set()
    is_first = True
    while node is not None and node.node_id not in seen and len(seen) < MAX_CHAIN:
        seen.add(node.node_id)
        if not is_first and is_sampler(node):
            origin.kind, origin.node = "sampler", node
            return origin
        scale = as_number(values.resolve(node.inputs.get("upscale_by"), "upscale_by"))
        if scale is not None:
            origin.scale = (origin.scale or 1) * scale
        if not is_first or scale is not None:
            _note_step(values, node, origin)
        link = next(
            (node.inputs[key] for key in _PASSED_KEYS if isinstance(node.inputs.get(key), Link)),
            None,
        )
        link = link or (values.find_input(node, "latent_image") if is_first else None)
        if link is None:
            if not is_first or "empty_latent_width" in node.inputs:
                _end_at(values, node, origin)
            return origin
        node, is_first = values.get_node(link), False
    return origin


def _end_at(values: GraphValues, node: Node, origin: Origin) -> None:
    """Say what the last node of the way is: noise of a size, or a picture."""
    for prefix in ("", "empty_latent_"):
        keys = (f"{prefix}width", f"{prefix}height")
        size = [values.resolve(node.inputs.get(key), key.removeprefix(prefix)) for key in keys]
        if None in size and any(key in node.inputs for key in ("dimensions", "resolution")):
            link = Link(node.node_id, 0)
            size = [values.resolve(link, key) for key in ("width", "height")]
        if None not in size:
            count = as_whole_number(values.resolve(node.inputs.get("batch_size"), "batch_size"))
            origin.kind, origin.size = "noise", (size[0], size[1])
            origin.num_images = count or 1
            return
    if "Load" in node.kind and "Image" in node.kind.replace(" ", ""):
        origin.kind = "picture"


def _note_step(values: GraphValues, node: Node, origin: Origin) -> None:
    """Note what a node between does: enlarging, a mask."""
    kind, inputs = node.kind, node.inputs
    if "mask" in inputs and isinstance(inputs["mask"], Link):
        origin.is_masked = True
    if "upscale_model" in inputs:
        loader = values.get_node(inputs["upscale_model"])
        path = loader.inputs.get("model_name") if loader else None
        origin.upscaler = get_file_name(path) if isinstance(path, str) else ""
    scale = as_number(values.resolve(inputs.get("scale_by"), "scale_by"))
    is_resize = ("scale" in kind.casefold() or "resize" in kind.casefold()) and "width" in inputs
    if scale is not None:
        origin.scale = (origin.scale or 1) * scale
    elif is_resize and origin.new_size is None:
        width, height = (values.resolve(inputs.get(key), key) for key in ("width", "height"))
        origin.new_size = width, height
    if kind.startswith("LatentUpscale"):
        origin.has_latent_resize = True
    is_detailer = any(word in kind for word in DETAILER_WORDS)
    is_known = is_resize or scale is not None or any(word in kind for word in KNOWN_LATENT_WORDS)
    if (is_detailer or not is_known) and not is_sampler(node) and len(origin.other_kinds) < 5:
        origin.other_kinds.append(kind)
