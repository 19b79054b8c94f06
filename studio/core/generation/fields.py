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
        help="Describe the image. (word:1.3) strengthens a word, [word] weakens it.",
    )
    negative_prompt: str = spec_field(
        "",
        title="Negative prompt",
        max_length=MAX_PROMPT_CHARS,
        infotext="Negative prompt",
        cost=20,
        help="What to keep out of the image; needs a CFG scale above 1.",
    )
    model: str = spec_field(
        DEFAULT_MODEL,
        title="Model",
        min_length=1,
        max_length=200,
        infotext="Model",
        cost=100,
        help="The checkpoint to use: the name of a folder in home/models.",
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
        help="In pixels, a multiple of 8. Leave empty for the model's default size.",
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
        help="In pixels, a multiple of 8. Leave empty for the model's default size.",
    )
    steps: int = spec_field(
        20,
        title="Steps",
        ge=1,
        le=150,
        infotext="Steps",
        guest_max=60,
        cost=2,
        help="Denoising steps. More steps: slower, often better.",
    )
    guidance: float = spec_field(
        7.0,
        title="CFG scale",
        ge=0,
        le=30,
        infotext="CFG scale",
        step=0.5,
        cost=1,
        help="How closely to follow the prompt (classifier-free guidance). 1 or less turns it off "
        "and is twice as fast.",
    )
    scheduler: Scheduler = spec_field(
        "DPM++ 2M",
        title="Sampler",
        infotext="Sampler",
        cost=3,
        help="The method that removes the noise step by step.",
    )
    noise_schedule: NoiseSchedule = spec_field(
        AUTOMATIC,
        title="Schedule",
        infotext="Schedule type",
        cost=3,
        help="How the noise levels are spread over the steps (schedule type). Automatic picks "
        "what suits the sampler; Model default uses the model's own setting.",
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
        help="The same seed and settings give the same image. -1 picks a new seed each time.",
    )
    num_images: int = spec_field(
        1,
        title="Images",
        ge=1,
        le=100,
        guest_max=8,
        help="How many images to make (batch count). Each one uses the next seed.",
        formerly="count",
    )
    batch_size: int = spec_field(
        1,
        title="Batch size",
        ge=1,
        le=16,
        infotext="Batch size",
        guest_max=4,
        help=(
            "How many images are made in parallel. Larger is faster for many images; 1 makes "
            "results repeatable bit for bit."
        ),
        formerly="batch",
    )
    clip_skip: int = spec_field(
        1,
        title="Clip skip",
        ge=1,
        le=12,
        infotext="Clip skip",
        cost=15,
        help="Which layer of the text encoder is read, counted from the last: 1, or 2 for some "
        "anime models.",
    )
    loras: tuple[LoraUse, ...] = spec_field(
        (),
        title="LoRAs",
        guest_max=4,
        cost=60,
        help="Small add-on files that change style or subject: <lora:name:0.8>, or "
        "<lora:name:text:image> for two weights. The same tags also work in the prompt.",
    )

    image: str = spec_field(
        "",
        title="Image",
        cost=8,
        infotext="Init image",
        help="The image to start from: its sha256 in home/inputs. Empty starts from pure noise.",
    )
    mask: str = spec_field(
        "",
        title="Mask",
        cost=8,
        infotext="Mask",
        requires=REQUIRES_IMAGE,
        help=(
            "White where the image is repainted. Must have the image's size: its sha256 in "
            "home/inputs."
        ),
    )
    strength: float = spec_field(
        0.75,
        title="Denoising strength",
        ge=0,
        le=1,
        step=0.05,
        infotext="Denoising strength",
        cost=2,
        requires=REQUIRES_IMAGE,
        help="How much of the image may change. Only this share of the steps is run.",
    )
    resize_mode: ResizeMode = spec_field(
        "stretch",
        title="Resize mode",
        infotext="Resize mode",
        requires=REQUIRES_UNMASKED_IMAGE,
        help="How to fit an image with other proportions to width and height: stretch it, crop "
        "it, or fill the edges.",
    )
    mask_blur: int = spec_field(
        4,
        title="Mask blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Mask blur",
        requires=REQUIRES_MASK,
        help="How soft the edge of the mask is.",
    )
    mask_grow: int = spec_field(
        0,
        title="Mask grow",
        ge=-64,
        le=64,
        unit="px",
        infotext="Mask grow",
        requires=REQUIRES_MASK,
        help="Grows the mask on all sides; below 0 shrinks it.",
    )
    invert_mask: bool = spec_field(
        False,
        title="Invert mask",
        infotext="Mask mode",
        requires=REQUIRES_MASK,
        help="Repaint everything outside the mask.",
    )
    masked_content: MaskedContent = spec_field(
        "original",
        title="Masked content",
        infotext="Masked content",
        requires=REQUIRES_MASK,
        help="What the masked area starts from: the original image, colours from around it, "
        "noise, or nothing.",
    )
    inpaint_area: InpaintArea = spec_field(
        "whole picture",
        title="Inpaint area",
        infotext="Inpaint area",
        requires=REQUIRES_MASK_OR_EXTENSION,
        help="Paint the whole image at width and height, or only the masked area, enlarged to "
        "them.",
    )
    mask_padding: int = spec_field(
        32,
        title="Only masked padding",
        ge=0,
        le=256,
        unit="px",
        infotext="Masked area padding",
        requires=REQUIRES_ONLY_MASKED_AREA,
        help=(
            "How much of the image around the mask is taken into account when only the masked "
            "area is painted."
        ),
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
        help="Outpainting: pixels to add at the top.",
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
        help="Outpainting: pixels to add at the bottom.",
    )
    extend_fill: ExtendFill = spec_field(
        "edge",
        title="Extend fill",
        infotext="Extend fill",
        requires=REQUIRES_EXTENSION,
        help="What the new area starts from: the edge pixels, a mirror image, noise, or a single "
        "colour.",
    )
    extend_colour: str = spec_field(
        "#808080",
        title="Extend colour",
        infotext="Extend colour",
        requires=REQUIRES_COLOUR_FILL,
        help="The fill colour, as #rrggbb.",
    )
    seam_blur: int = spec_field(
        4,
        title="Seam blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Seam blur",
        requires=REQUIRES_EXTENSION,
        help="How softly the new area blends into the image. About five times as many pixels "
        "along its edge change.",
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
        help="A second pass repaints the finished image this many times as large (Hires fix). 1 "
        "turns it off.",
    )
    hires_resize: HiresResize = spec_field(
        "pixel",
        title="Upscale in",
        infotext="Hires upscaler",
        requires=REQUIRES_HIRES,
        help="What is enlarged between the two passes: the pixels, or the latents (which need a "
        "denoising strength above 0.5).",
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
        help="Steps of the second pass; 0 uses as many as the first.",
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
        help="Paints the second pass in overlapping tiles of this size; 0 paints it in one piece.",
    )
    hires_overlap: int = spec_field(
        32,
        title="Tile overlap",
        ge=0,
        le=512,
        multiple_of=8,
        unit="px",
        infotext="Hires overlap",
        requires=REQUIRES_TILES,
        help="How many pixels neighbouring tiles share, where they are blended.",
    )
    # New fields come last: programs that use the API give values by their order.
    guidance_rescale: float = spec_field(
        0.0,
        title="CFG rescale",
        ge=0,
        le=1,
        infotext="CFG rescale",
        step=0.05,
        cost=1,
        neutral=0.0,
        requires=REQUIRES_GUIDANCE,
        help="How much of the extra contrast of a high CFG scale is taken back. 0.7 suits "
        "v-prediction models; 0 turns it off.",
    )
    hires_upscaler: str = spec_field(
        "",
        title="Hires upscaler",
        max_length=200,
        infotext="Hires upscaler",
        cost=4,
        neutral="",
        requires=REQUIRES_HIRES_PIXELS,
        help="The upscaler that enlarges the pixels between the two passes. Empty uses Lanczos.",
    )
    vae: str = spec_field(
        "",
        title="VAE",
        max_length=300,
        infotext="VAE",
        cost=30,
        neutral="",
        help="The autoencoder that turns latents into pixels: the name of a file in home/vae. "
        "Empty uses the model's own.",
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
        help="How prompts are read. Auto uses A1111's syntax, unless a prompt contains signs only "
        "compel knows, such as word++ or .blend().",
    )
    emphasis: Emphasis = spec_field(
        "Original",
        title="Emphasis",
        infotext="Emphasis",
        cost=20,
        neutral="compel",
        requires=REQUIRES_A1111_WEIGHT,
        default_before="compel",
        help="How A1111's weights act on a word. Original restores the mean of all words, No norm "
        "does not, compel blends with the prompt without the word. Ignore drops the weights; "
        "None treats brackets as text.",
    )

    # Prompts at large: styles.
    styles: tuple[str, ...] = spec_field(
        (),
        title="Styles",
        max_length=MAX_STYLES,
        cost=20,
        neutral=[],
        help="Text that is added around the prompts, by its name in the home's styles.csv.",
    )

    # Noise: where it comes from.

    noise_source: NoiseSource = spec_field(
        "CPU",
        title="Noise source",
        infotext="RNG",
        cost=1,
        neutral="CPU",
        help="CPU gives the same noise on every machine. GPU uses the graphics card's own, which "
        "is A1111's default; NV reproduces an NVIDIA card's noise on any machine.",
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
        help="How far the noise moves towards that of the variation seed: 0 is off, 1 uses only "
        "the variation seed. With it the seed stays the same and the variation seed counts "
        "up.",
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
        help="The seed of the noise that is mixed in. -1 picks a new one each time.",
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
        help="Resize seed from: the width at which this seed gave the composition you want. Its "
        "noise is placed in the middle of the image. 0 uses the image's own width.",
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
        help="Resize seed from: the matching height. 0 uses the image's own height.",
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
        help="How much fresh noise DDIM or TCD adds at each step. Empty uses their default: 0 for "
        "DDIM, 0.3 for TCD.",
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
        help="Sigma churn: how much fresh noise Euler adds over all steps. 0 turns it off.",
    )
    s_tmin: float = spec_field(
        0.0,
        title="Churn from noise level",
        ge=0,
        le=1000,
        step=0.1,
        infotext="Sigma tmin",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_CHURN,
        help="Sigma tmin: no noise is added at noise levels below this one.",
    )
    s_tmax: float = spec_field(
        0.0,
        title="Churn up to noise level",
        ge=0,
        le=1000,
        step=0.1,
        infotext="Sigma tmax",
        cost=1,
        neutral=0.0,
        requires=REQUIRES_CHURN,
        help="Sigma tmax: no noise is added at noise levels above this one. 0 sets no limit.",
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
        help="Sigma noise: how strong the noise added at each step is.",
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
        help="Schedule min sigma: the noise level of the last step. 0 uses the model's.",
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
        help="Schedule max sigma: the noise level of the first step. 0 uses the model's.",
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
        help="Schedule rho: how strongly Karras crowds the steps at low noise levels.",
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
        help="ENSD: each step's noise comes from the seed plus this number; some anime recipes "
        "use 31337. 0 turns it off.",
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
        help="The share of the steps after which CFG starts. Until then only the prompt is "
        "followed.",
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
        help="The share of the steps after which CFG stops. The remaining steps are twice as fast.",
    )
    guidance_method: GuidanceMethod = spec_field(
        "CFG",
        title="Guidance method",
        infotext="Guidance method",
        cost=1,
        neutral="CFG",
        requires=REQUIRES_GUIDANCE,
        help="CFG is the standard. CFG-Zero* first scales the negative prompt's prediction; APG "
        "leaves out what only makes colours harsher, so that higher CFG scales can be used.",
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
        help="How many of the first steps from pure noise count the prediction as zero: 1 suits "
        "flow models, 0 all others.",
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
        help="How much of the part along the prompt's prediction is kept; 1 keeps all of it.",
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
        help="The largest allowed difference between the two predictions; 0 sets no limit.",
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
        help="How much of the previous steps' differences is added; below 0 it is subtracted.",
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
