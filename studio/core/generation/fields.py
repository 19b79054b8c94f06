"""Every setting that an image can be asked for with: its range, its help, its names elsewhere.

Knows: the settings one by one, and what follows from them without anything else. Does not know:
which go together (rules.py), how a request is checked and resolved (request.py). Form, API, command
line, presets, PNG text and history are derived from these fields.
"""

from __future__ import annotations

from studio.core.base import Spec, spec_field
from studio.core.catalog import (
    AUTOMATIC,
    DEFAULT_MODEL,
    SCHEDULERS,
    GuidanceMethod,
    NoiseSchedule,
    NoiseSource,
    Scheduler,
)
from studio.core.generation.geometry import (
    ExtendFill,
    HiresResize,
    InpaintArea,
    MaskedContent,
    ResizeMode,
    Task,
    count_effective_steps,
)
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.prompts.dialects import Emphasis, PromptSyntax
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
from studio.core.generation.templates.written import MAX_STYLES

SEED_LIMIT = 2**32
MAX_PROMPT_CHARS = 10_000


class RequestFields(Spec):
    """The settings of a request, each valid by itself."""

    prompt: str = spec_field(
        "",
        title="Prompt",
        max_length=MAX_PROMPT_CHARS,
        cost=20,
        help="What the picture should show. (word:1.3) stresses a word, [word] tones it down.",
    )
    negative_prompt: str = spec_field(
        "",
        title="Negative prompt",
        max_length=MAX_PROMPT_CHARS,
        infotext="Negative prompt",
        cost=20,
        help="What it should not show; needs a guidance above 1.",
    )
    model: str = spec_field(
        DEFAULT_MODEL,
        title="Model",
        min_length=1,
        max_length=200,
        infotext="Model",
        cost=100,
        help="The checkpoint that paints: the name of a folder in home/models.",
    )
    width: int | None = spec_field(
        None,
        title="Width",
        ge=64,
        le=2048,
        multiple_of=8,
        unit="px",
        guest_max=1024,
        cost=10,
        help="Pixels, a multiple of 8; empty takes the size the model was made for.",
    )
    height: int | None = spec_field(
        None,
        title="Height",
        ge=64,
        le=2048,
        multiple_of=8,
        unit="px",
        guest_max=1024,
        cost=10,
        help="Pixels, a multiple of 8; empty takes the size the model was made for.",
    )
    steps: int = spec_field(
        20,
        title="Steps",
        ge=1,
        le=150,
        infotext="Steps",
        guest_max=60,
        cost=2,
        help="Denoising steps: more is slower and finer.",
    )
    guidance: float = spec_field(
        7.0,
        title="Guidance",
        ge=0,
        le=30,
        infotext="CFG scale",
        step=0.5,
        cost=1,
        help="CFG scale: how strictly the prompt is followed. 1 and less is off, and twice as "
        "fast.",
    )
    scheduler: Scheduler = spec_field(
        "DPM++ 2M",
        title="Scheduler",
        infotext="Sampler",
        cost=3,
        help="Sampler: how the noise is taken away.",
    )
    noise_schedule: NoiseSchedule = spec_field(
        AUTOMATIC,
        title="Schedule",
        infotext="Schedule type",
        cost=3,
        help="Schedule type: how the noise levels are spread over the steps. Automatic is what "
        "suits the scheduler; Model default what the model's own files say.",
        formerly="schedule",
        default_before="Karras",
    )
    seed: int = spec_field(
        -1,
        title="Seed",
        ge=-1,
        lt=SEED_LIMIT,
        infotext="Seed",
        cost=0,
        help="The same seed and settings give the same picture. -1 draws a new one.",
    )
    num_images: int = spec_field(
        1,
        title="Pictures",
        ge=1,
        le=100,
        guest_max=8,
        help="Batch count: how many pictures; each has the next seed.",
        formerly="count",
    )
    batch_size: int = spec_field(
        1,
        title="At once",
        ge=1,
        le=16,
        infotext="Batch size",
        guest_max=4,
        help="Batch size: pictures painted together. Faster for many; 1 repeats bit for bit.",
        formerly="batch",
    )
    clip_skip: int = spec_field(
        1,
        title="Clip skip",
        ge=1,
        le=12,
        infotext="Clip skip",
        cost=15,
        help="Which layer of the text encoder speaks, from the last: 1, or 2 for some anime "
        "models.",
    )
    loras: tuple[LoraUse, ...] = spec_field(
        (),
        title="LoRAs",
        guest_max=4,
        cost=60,
        help="Small add-ons to the model: <lora:name:0.8>, or <lora:name:text:picture> "
        "for two weights; the same tags may stand in the prompt.",
    )

    image: str = spec_field(
        "",
        title="Picture",
        cost=8,
        infotext="Init image",
        help="The picture to work on: its sha256 in home/inputs. Empty begins with noise alone.",
    )
    mask: str = spec_field(
        "",
        title="Mask",
        cost=8,
        infotext="Mask",
        requires=REQUIRES_IMAGE,
        help="White where the picture is repainted, and as large as it: its sha256 in home/inputs.",
    )
    strength: float = spec_field(
        0.75,
        title="Strength",
        ge=0,
        le=1,
        step=0.05,
        infotext="Denoising strength",
        cost=2,
        requires=REQUIRES_IMAGE,
        help="Denoising strength: how much of the picture may change; so much of the steps is run.",
    )
    resize_mode: ResizeMode = spec_field(
        "stretch",
        title="Resize mode",
        infotext="Resize mode",
        requires=REQUIRES_UNMASKED_IMAGE,
        help="How a picture of another shape is brought to width and height: pulled, cut, or edges "
        "added.",
    )
    mask_blur: int = spec_field(
        4,
        title="Mask blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Mask blur",
        requires=REQUIRES_MASK,
        help="How soft the mask's edge is.",
    )
    mask_grow: int = spec_field(
        0,
        title="Mask grow",
        ge=-64,
        le=64,
        unit="px",
        infotext="Mask grow",
        requires=REQUIRES_MASK,
        help="Makes the mask larger all around; below 0 smaller.",
    )
    invert_mask: bool = spec_field(
        False,
        title="Invert mask",
        infotext="Mask mode",
        requires=REQUIRES_MASK,
        help="Repaint what is not masked.",
    )
    masked_content: MaskedContent = spec_field(
        "original",
        title="Masked content",
        infotext="Masked content",
        requires=REQUIRES_MASK,
        help="What is under the mask before painting: the picture, colours from around, noise, "
        "or nothing.",
    )
    inpaint_area: InpaintArea = spec_field(
        "whole picture",
        title="Inpaint area",
        infotext="Inpaint area",
        requires=REQUIRES_MASK_OR_EXTENSION,
        help="Paint the whole picture at width and height, or only the masked part of it, enlarged "
        "to them.",
    )
    mask_padding: int = spec_field(
        32,
        title="Only masked padding",
        ge=0,
        le=256,
        unit="px",
        infotext="Masked area padding",
        requires=REQUIRES_ONLY_MASKED_AREA,
        help="How much around the mask is seen while only that part is painted.",
    )
    extend_left: int = spec_field(
        0,
        title="Extend left",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend left",
        guest_max=512,
        cost=8,
        requires=REQUIRES_IMAGE,
        help="Outpainting: pixels to add on the left.",
    )
    extend_top: int = spec_field(
        0,
        title="Extend top",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend top",
        guest_max=512,
        cost=8,
        requires=REQUIRES_IMAGE,
        help="Outpainting: pixels to add above.",
    )
    extend_right: int = spec_field(
        0,
        title="Extend right",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend right",
        guest_max=512,
        cost=8,
        requires=REQUIRES_IMAGE,
        help="Outpainting: pixels to add on the right.",
    )
    extend_bottom: int = spec_field(
        0,
        title="Extend bottom",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend bottom",
        guest_max=512,
        cost=8,
        requires=REQUIRES_IMAGE,
        help="Outpainting: pixels to add below.",
    )
    extend_fill: ExtendFill = spec_field(
        "edge",
        title="Extend fill",
        infotext="Extend fill",
        requires=REQUIRES_EXTENSION,
        help="What the new area holds before it is painted: the edge's pixels, the picture "
        "mirrored, noise, or one colour.",
    )
    extend_colour: str = spec_field(
        "#808080",
        title="Extend colour",
        infotext="Extend colour",
        requires=REQUIRES_COLOUR_FILL,
        help="The colour of that fill, as #rrggbb.",
    )
    seam_blur: int = spec_field(
        4,
        title="Seam blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Seam blur",
        requires=REQUIRES_EXTENSION,
        help="How softly the new area goes over into the picture; about five times as many pixels "
        "of its edge change.",
    )
    hires_scale: float = spec_field(
        1.0,
        title="Hires scale",
        ge=1,
        le=4,
        step=0.25,
        infotext="Hires upscale",
        guest_max=2,
        cost=9,
        help="A second pass that paints the finished picture again, so many times as large; 1 is "
        "off.",
    )
    hires_resize: HiresResize = spec_field(
        "pixel",
        title="Hires resize",
        infotext="Hires upscaler",
        requires=REQUIRES_HIRES,
        help="What is enlarged between the passes: the pixels, or the latents (which wants a "
        "strength above 0.5).",
    )
    hires_steps: int = spec_field(
        0,
        title="Hires steps",
        ge=0,
        le=150,
        infotext="Hires steps",
        guest_max=60,
        cost=2,
        requires=REQUIRES_HIRES,
        help="Steps of the second pass; 0 takes those of the first.",
    )
    hires_strength: float = spec_field(
        0.7,
        title="Hires strength",
        ge=0,
        le=1,
        step=0.05,
        infotext="Hires strength",
        cost=2,
        requires=REQUIRES_HIRES,
        help="Denoising strength of the second pass.",
    )
    hires_tile: int = spec_field(
        0,
        title="Hires tile",
        ge=0,
        le=2048,
        multiple_of=8,
        unit="px",
        infotext="Hires tile",
        guest_max=1024,
        cost=8,
        requires=REQUIRES_HIRES,
        help="The second pass paints overlapping tiles of this size one by one; 0 paints all in "
        "one piece.",
    )
    hires_overlap: int = spec_field(
        32,
        title="Hires overlap",
        ge=0,
        le=512,
        multiple_of=8,
        unit="px",
        infotext="Hires overlap",
        requires=REQUIRES_TILES,
        help="How far the tiles reach into each other, where they are blended.",
    )
    # New fields come last: programs that use the API give values by their order.
    guidance_rescale: float = spec_field(
        0.0,
        title="Guidance rescale",
        ge=0,
        le=1,
        infotext="CFG rescale",
        step=0.05,
        cost=1,
        neutral=0.0,
        requires=REQUIRES_GUIDANCE,
        help="How much of the contrast that a high guidance adds is taken back; 0.7 suits models "
        "that predict v. 0 is off.",
    )
    hires_upscaler: str = spec_field(
        "",
        title="Hires upscaler",
        max_length=200,
        infotext="Hires upscaler",
        cost=4,
        neutral="",
        requires=REQUIRES_HIRES_PIXELS,
        help="The upscaler that enlarges the pixels between the passes, by its name; empty is "
        "Lanczos.",
    )
    vae: str = spec_field(
        "",
        title="VAE",
        max_length=300,
        infotext="VAE",
        cost=30,
        neutral="",
        help="The autoencoder that turns latents into pixels: the name of a file in home/vae. "
        "Empty takes the model's own.",
    )

    # Prompts: how they are read.
    prompt_syntax: PromptSyntax = spec_field(
        "auto",
        title="Prompt syntax",
        infotext="Prompt syntax",
        cost=20,
        neutral="both",
        requires=REQUIRES_PROMPT_SIGNS,
        default_before="both",
        help="How the prompts are read. Auto takes A1111's signs, unless there are some that only "
        "compel has, such as word++ or .blend().",
    )
    emphasis: Emphasis = spec_field(
        "Original",
        title="Emphasis",
        infotext="Emphasis",
        cost=20,
        neutral="compel",
        requires=REQUIRES_A1111_WEIGHT,
        default_before="compel",
        help="What A1111's weights do to a word: Original keeps the mean of all words as it was, "
        "No norm does not, compel blends with the prompt without the word; Ignore drops the "
        "weights, None takes brackets as words.",
    )

    # Prompts at large: styles.
    styles: tuple[str, ...] = spec_field(
        (),
        title="Styles",
        max_length=MAX_STYLES,
        cost=20,
        neutral=[],
        help="Words that are put around the prompts, by the names that they have in styles.csv of "
        "the home.",
    )

    # Noise: where it comes from.

    noise_source: NoiseSource = spec_field(
        "CPU",
        title="Noise source",
        infotext="RNG",
        cost=1,
        neutral="CPU",
        help="CPU is the same everywhere. GPU is the graphics card's own, as A1111 draws it unless "
        "told otherwise; NV makes the numbers of an NVIDIA card on any machine.",
    )
    variation_strength: float = spec_field(
        0.0,
        title="Variation strength",
        ge=0,
        le=1,
        step=0.01,
        infotext="Variation seed strength",
        cost=1,
        neutral=0.0,
        help="How far the noise goes over into that of the variation seed: 0 is off, 1 is that "
        "seed's. With it the seed stays and the variation seeds count up.",
    )
    variation_seed: int = spec_field(
        -1,
        title="Variation seed",
        ge=-1,
        lt=SEED_LIMIT,
        infotext="Variation seed",
        cost=0,
        neutral=-1,
        requires=REQUIRES_VARIATION,
        help="The seed of the noise that is mixed in. -1 draws a new one.",
    )
    seed_resize_width: int = spec_field(
        0,
        title="Seed resize width",
        ge=0,
        le=2048,
        multiple_of=8,
        unit="px",
        infotext="Seed resize from-1",
        cost=1,
        neutral=0,
        help="Resize seed from: the width at which the seed painted something like what is wanted; "
        "its noise is laid over the middle of the picture. 0 is the picture's own.",
    )
    seed_resize_height: int = spec_field(
        0,
        title="Seed resize height",
        ge=0,
        le=2048,
        multiple_of=8,
        unit="px",
        infotext="Seed resize from-2",
        cost=1,
        neutral=0,
        help="Resize seed from: the height that goes with it; 0 is the picture's own.",
    )

    # Solvers: what their formulas take.

    eta: float | None = spec_field(
        None,
        title="Eta",
        ge=0,
        le=1,
        step=0.05,
        infotext="Eta",
        cost=1,
        neutral=None,
        requires=REQUIRES_ETA_SOLVER,
        help="How much fresh noise DDIM or TCD adds at each step; empty is their own: 0 for DDIM, "
        "0.3 for TCD.",
    )
    s_churn: float = spec_field(
        0.0,
        title="Churn",
        ge=0,
        le=100,
        step=0.5,
        infotext="Sigma churn",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_EULER,
        help="Sigma churn: how much fresh noise Euler adds over all its steps. 0 is off.",
    )
    s_tmin: float = spec_field(
        0.0,
        title="Churn from below",
        ge=0,
        le=1000,
        step=0.1,
        infotext="Sigma tmin",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_CHURN,
        help="Sigma tmin: at noise levels below this one no noise is added.",
    )
    s_tmax: float = spec_field(
        0.0,
        title="Churn to above",
        ge=0,
        le=1000,
        step=0.1,
        infotext="Sigma tmax",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_CHURN,
        help="Sigma tmax: at noise levels above this one no noise is added; 0 has no end.",
    )
    s_noise: float = spec_field(
        1.0,
        title="Noise scale",
        ge=0,
        le=2,
        step=0.01,
        infotext="Sigma noise",
        cost=1,
        neutral=1.0,
        requires=REQUIRES_NOISE_SCALE,
        help="Sigma noise: how strong the noise is that a step adds.",
    )
    sigma_min: float = spec_field(
        0.0,
        title="Lowest noise level",
        ge=0,
        le=10,
        step=0.01,
        infotext="Schedule min sigma",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_LEVEL_RANGE,
        help="Schedule min sigma: the last step's noise level; 0 is the model's.",
    )
    sigma_max: float = spec_field(
        0.0,
        title="Highest noise level",
        ge=0,
        le=1000,
        step=0.1,
        infotext="Schedule max sigma",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_LEVEL_RANGE,
        help="Schedule max sigma: the first step's noise level; 0 is the model's.",
    )
    rho: float = spec_field(
        7.0,
        title="Rho",
        ge=1,
        le=20,
        step=0.5,
        infotext="Schedule rho",
        cost=1,
        neutral=7.0,
        requires=REQUIRES_KARRAS_EULER,
        help="Schedule rho: how much Karras crowds the steps at low noise levels.",
    )
    ensd: int = spec_field(
        0,
        title="Eta noise seed delta",
        ge=0,
        lt=SEED_LIMIT,
        infotext="ENSD",
        cost=0,
        neutral=0,
        requires=REQUIRES_STEP_NOISE,
        help="ENSD: the noise of the steps is that of the seed plus this number, 31337 for some "
        "anime recipes. 0 is off.",
    )

    # Guidance: when, and by which formula.

    guidance_start: float = spec_field(
        0.0,
        title="Guidance start",
        ge=0,
        le=1,
        step=0.05,
        infotext="Guidance start",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_GUIDANCE,
        help="The share of the steps that run after which guidance begins; before it only the "
        "prompt is asked.",
    )
    guidance_end: float = spec_field(
        1.0,
        title="Guidance end",
        ge=0,
        le=1,
        step=0.05,
        infotext="Guidance end",
        cost=1,
        neutral=1.0,
        requires=REQUIRES_GUIDANCE,
        help="The share of the steps that run after which guidance ends; the rest is twice as "
        "fast.",
    )
    guidance_method: GuidanceMethod = spec_field(
        "CFG",
        title="Guidance method",
        infotext="Guidance method",
        cost=1,
        neutral="CFG",
        requires=REQUIRES_GUIDANCE,
        help="CFG is the usual one. CFG-Zero* scales the negative prompt's prediction first; APG "
        "leaves out what only makes colours harsher, so that higher guidance can be used.",
    )
    guidance_zero_steps: int = spec_field(
        0,
        title="Zero steps",
        ge=0,
        le=20,
        infotext="Guidance zero steps",
        cost=1,
        neutral=0,
        requires=REQUIRES_ZERO_STAR,
        help="First steps from noise alone whose prediction is taken as nothing: 1 suits models "
        "that follow a flow, 0 all others.",
    )
    apg_eta: float = spec_field(
        0.0,
        title="APG eta",
        ge=-1,
        le=1,
        step=0.05,
        infotext="APG eta",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_APG,
        help="How much is kept of what points along the prompt's prediction; 1 keeps all.",
    )
    apg_threshold: float = spec_field(
        15.0,
        title="APG threshold",
        ge=0,
        le=1000,
        step=0.5,
        infotext="APG threshold",
        cost=1,
        neutral=15.0,
        requires=REQUIRES_APG,
        help="The longest that a difference of the two predictions may be; 0 is no limit.",
    )
    apg_momentum: float = spec_field(
        -0.5,
        title="APG momentum",
        ge=-1,
        le=1,
        step=0.05,
        infotext="APG momentum",
        cost=1,
        neutral=-0.5,
        requires=REQUIRES_APG,
        help="How much of the last steps' differences is added; below 0 it is taken away.",
    )

    @property
    def task(self) -> Task:
        """What kind of work this is, read off which inputs are there."""
        if not self.image:
            return "txt2img"
        if any(self.extension):
            return "outpaint"
        return "inpaint" if self.mask else "img2img"

    @property
    def extension(self) -> tuple[int, int, int, int]:
        """Pixels to add: left, top, right, bottom."""
        return self.extend_left, self.extend_top, self.extend_right, self.extend_bottom

    @property
    def is_masked(self) -> bool:
        """Whether a part of an image is painted and the rest stays, bit for bit."""
        return self.task in ("inpaint", "outpaint")

    @property
    def is_guided(self) -> bool:
        """Whether each step also asks the denoiser about the negative prompt."""
        return self.guidance > 1

    @property
    def draws_step_noise(self) -> bool:
        """Whether the scheduler draws from the image's own noise in its steps.

        DPM++ SDE has a source of its own.
        """
        if self.scheduler == "DDIM":
            return bool(self.eta)
        if self.scheduler == "Euler":
            return self.s_churn > 0
        return SCHEDULERS[self.scheduler].is_stochastic and self.scheduler != "DPM++ SDE"

    def is_guided_at(self, step: int, steps: int) -> bool:
        """Return whether a step is guided.

        Args:
            step: Counted from 0, from the first that runs.
            steps: How many run.
        """
        # Whole steps only. Rounded first: 0.7 * 90 is 62.99999999999999.
        first, end = (
            int(round(share * steps, 6)) for share in (self.guidance_start, self.guidance_end)
        )
        return self.is_guided and first <= step < end

    @property
    def has_hires_pass(self) -> bool:
        """Whether there is a second pass."""
        return self.hires_scale > 1

    @property
    def effective_steps(self) -> int:
        """How many steps really run in the first pass; 0 where an image is only enlarged."""
        return count_effective_steps(self.steps, self.strength) if self.image else self.steps

    @property
    def hires_effective_steps(self) -> int:
        """How many steps run in the second pass, if there is one."""
        if not self.has_hires_pass:
            return 0
        return count_effective_steps(self.hires_steps or self.steps, self.hires_strength)
