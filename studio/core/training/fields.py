"""Every setting of a training run: its range, its help, its names elsewhere.

Knows: the settings one by one. Does not know: which go together (rules.py), what empty ones stand
for (config.py). Form, API, command line and presets are derived from these fields.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from studio.core.base import Spec, spec_field
from studio.core.catalog import DEFAULT_MODEL
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.request import SEED_LIMIT
from studio.core.training.lora_targets import Targets
from studio.errors import quote

Optimizer = Literal["AdamW", "AdamW 8-bit", "Adafactor", "Adafactor (relative step)"]
LRSchedule = Literal[
    "constant", "constant with warm-up", "linear", "cosine", "cosine with restarts", "polynomial"
]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
NetworkType = Literal["LoRA", "LoHa", "LoKr"]
LokrFactors = Literal["second by rank", "both by rank", "both whole"]

ADAFACTOR_RELATIVE_STEP: Optimizer = "Adafactor (relative step)"
# The fields that the page shows first; the others can be searched.
BASIC_FIELDS = (
    "model",
    "dataset",
    "name",
    "trigger",
    "steps",
    "learning_rate",
    "network_type",
    "use_dora",
    "rank",
    "resolution",
)


class TrainingFields(Spec):
    """The settings, each checked by itself; `TrainingConfig` also checks that they go together."""

    # ---- model and data
    model: str = spec_field(
        DEFAULT_MODEL,
        title="Model",
        min_length=1,
        max_length=200,
        help="The checkpoint to start from (base model): the name of a folder in home/models.",
    )
    dataset: str = spec_field(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="What to learn from: the name of a folder of images and captions in home/datasets.",
    )
    name: str = spec_field(
        ...,
        title="Name",
        min_length=1,
        max_length=100,
        help="What the trained LoRA will be called.",
    )
    trigger: str = spec_field(
        "",
        title="Trigger word",
        max_length=100,
        help="A rare word that triggers what is learned (instance token), such as mysks. It is "
        "put in front of captions.",
    )
    class_word: str = spec_field(
        "",
        title="Class word",
        max_length=100,
        help="What kind of thing it is, such as plush toy. With the trigger word, it captions "
        "images that have no caption.",
    )
    num_class_images: int = spec_field(
        0,
        title="Class images",
        ge=0,
        le=10_000,
        guest_max=100,
        help="How many images of the class the model makes and trains on beside yours, so that "
        "it does not forget the class (prior preservation, DreamBooth, arXiv:2208.12242). 0"
        " is off.",
        formerly="class_pictures",
    )
    prior_loss_weight: float | None = spec_field(
        None,
        title="Prior weight",
        gt=0,
        le=10,
        help="How much class images count (prior loss weight). Empty is 1.",
        formerly="prior_weight",
    )
    # ---- length
    steps: int | None = spec_field(
        1000,
        title="Steps",
        ge=1,
        le=1_000_000,
        guest_max=2000,
        help="How many times the LoRA is updated (optimizer steps). Leave empty to count epochs "
        "instead.",
    )
    epochs: int | None = spec_field(
        None,
        title="Epochs",
        ge=1,
        le=100_000,
        guest_max=100,
        help="How many times each image is seen; replaces the number of steps.",
    )
    train_batch_size: int = spec_field(
        1,
        title="Batch size",
        ge=1,
        le=64,
        guest_max=4,
        help="Images per step. More is steadier and needs more memory.",
        formerly="batch",
    )
    gradient_accumulation_steps: int = spec_field(
        1,
        title="Gradient accumulation",
        ge=1,
        le=256,
        guest_max=8,
        help="Batches collected before each step: the effect of a larger batch in the same memory.",
        formerly="accumulation",
    )
    repeats: int = spec_field(
        1,
        title="Repeats",
        ge=1,
        le=1000,
        guest_max=100,
        help="How many times each image counts in an epoch, multiplied by the number in a "
        "folder's name (40_moon).",
    )
    # ---- the LoRA
    rank: int = spec_field(
        16,
        title="Rank",
        ge=1,
        le=512,
        guest_max=64,
        help="Capacity of the LoRA (network dim, arXiv:2106.09685): 4 to 16 for a subject, 32 "
        "for a style.",
    )
    alpha: float | None = spec_field(
        None,
        title="Alpha",
        gt=0,
        le=1024,
        help="Scales the LoRA to alpha ÷ rank of its strength (network alpha). Empty is the rank.",
    )
    dropout: float = spec_field(
        0.0,
        title="Dropout",
        ge=0,
        lt=1,
        step=0.05,
        help="Share of the LoRA's inputs dropped at random, to reduce overfitting.",
    )
    targets: Targets = spec_field(
        "attention + feed-forward",
        title="Target layers",
        help="Which layers get a LoRA (target modules). Kohya's default is attention + feed-"
        "forward; with convolutions it is a LoCon.",
    )
    target_modules: str = spec_field(
        "",
        title="Layer patterns",
        max_length=2000,
        help="With Target layers set to patterns: which layers, such as `unet.*.attn2.to_k`.",
        formerly="patterns",
    )
    conv_rank: int | None = spec_field(
        None,
        title="Convolution rank",
        ge=1,
        le=512,
        guest_max=64,
        help="Rank of 3 × 3 convolutions (conv dim). Empty is the rank.",
    )
    conv_alpha: float | None = spec_field(
        None,
        title="Convolution alpha",
        gt=0,
        le=1024,
        help="Alpha of 3 × 3 convolutions. Empty is the convolution rank.",
    )
    train_unet: bool = spec_field(
        True, title="Train the U-Net", help="Train the part that makes images."
    )
    train_text_encoder: bool = spec_field(
        False, title="Train the text encoders", help="Also train the part that reads prompts."
    )
    # ---- optimizer
    learning_rate: float | None = spec_field(
        1e-4,
        title="Learning rate",
        gt=0,
        le=10,
        help="Size of each step; 1e-4 is usual. Too high ruins the LoRA, too low learns nothing.",
    )
    text_encoder_lr: float | None = spec_field(
        None,
        title="Text encoder learning rate",
        gt=0,
        le=10,
        help="Usually lower. Empty is the learning rate.",
        formerly="text_encoder_rate",
    )
    optimizer: Optimizer = spec_field(
        "AdamW",
        title="Optimizer",
        help="How weights are updated. AdamW 8-bit saves memory on CUDA (bitsandbytes). "
        "Adafactor uses your learning rate or, with relative step, finds its own.",
    )
    weight_decay: float | None = spec_field(
        None,
        title="Weight decay",
        ge=0,
        le=1,
        help="Pulls weights towards 0. Empty is the default: 0.01 for AdamW, 0 for Adafactor.",
    )
    beta1: float | None = spec_field(
        None, title="Beta 1", ge=0, lt=1, help="AdamW: momentum. Empty is 0.9."
    )
    beta2: float | None = spec_field(
        None,
        title="Beta 2",
        ge=0,
        lt=1,
        help="AdamW: decay of the squared gradient's average. Empty is 0.999.",
    )
    eps: float | None = spec_field(
        None, title="Epsilon", gt=0, le=0.1, help="AdamW: keeps divisions stable. Empty is 1e-8."
    )
    scale_parameter: bool | None = spec_field(
        None,
        title="Scale parameter",
        help="Adafactor: scales steps by the size of a layer's weights. Empty: only with "
        "relative step.",
    )
    lr_scheduler: LRSchedule = spec_field(
        "constant",
        title="Learning rate schedule",
        help="How the learning rate changes during training.",
        formerly="schedule",
    )
    lr_warmup: float = spec_field(
        0.0,
        title="Warm-up",
        ge=0,
        le=100_000,
        help="Steps over which the learning rate rises from 0. Below 1 it is a share of all "
        "steps (0.1 is a tenth).",
        formerly="warmup",
    )
    lr_scheduler_num_cycles: int | None = spec_field(
        None,
        title="Restarts",
        ge=1,
        le=1000,
        help="Cosine with restarts: the number of cycles. Empty is 1.",
        formerly="cycles",
    )
    lr_scheduler_power: float | None = spec_field(
        None,
        title="Power",
        gt=0,
        le=100,
        help="Polynomial: the shape of the curve. Empty is 1, a straight line.",
        formerly="power",
    )
    max_grad_norm: float = spec_field(
        1.0,
        title="Gradient clipping",
        ge=0,
        le=1000,
        help="Limits the size of a step (max grad norm). 0 is no limit.",
    )
    # ---- the loss
    min_snr_gamma: float | None = spec_field(
        None,
        title="Min-SNR gamma",
        gt=0,
        le=100,
        help="Gives easy noise levels less weight; 5 is usual, empty is off (arXiv:2303.09556).",
    )
    noise_offset: float = spec_field(
        0.0,
        title="Noise offset",
        ge=0,
        le=1,
        step=0.01,
        help="Helps to learn very dark and very bright images: 0.05 to 0.1. 0 is off.",
    )
    # ---- captions
    caption_dropout: float = spec_field(
        0.0,
        title="Caption dropout",
        ge=0,
        le=1,
        step=0.05,
        help="Share of images trained without their caption; 0.05 to 0.1 helps CFG "
        "(arXiv:2207.12598).",
    )
    shuffle_caption: bool = spec_field(
        False,
        title="Shuffle captions",
        help="Puts the parts between commas in a new order each time.",
    )
    keep_tokens: int = spec_field(
        0,
        title="Keep first tags",
        ge=0,
        le=100,
        help="How many tags stay in front when the rest is shuffled (keep tokens), such as the "
        "trigger word.",
    )
    clip_skip: int = spec_field(
        1,
        title="Clip skip",
        ge=1,
        le=12,
        help="Which layer of the text encoder is used, counted from the last (SD 1.x and 2.x).",
    )
    # ---- images
    resolution: int | None = spec_field(
        None,
        title="Resolution",
        ge=32,
        le=2048,
        multiple_of=8,
        unit="px",
        guest_max=1024,
        help="Side of a square with as many pixels as images are trained at. Empty is the "
        "model's default.",
    )
    random_flip: bool = spec_field(
        False,
        title="Flip images",
        help="Mirrors half of the images. Avoid it for text and asymmetric faces.",
        formerly="flip",
    )
    crop: Literal["center", "random"] = spec_field(
        "center", title="Crop", help="Which part is kept where an image does not fit."
    )
    buckets: bool = spec_field(
        True,
        title="Aspect ratio buckets",
        help="Images keep their aspect ratio. When off, all are cropped to squares.",
    )
    bucket_min: int | None = spec_field(
        None,
        title="Shortest bucket side",
        ge=8,
        le=4096,
        unit="px",
        help="Empty is 256, or half the resolution if that is less.",
    )
    bucket_max: int | None = spec_field(
        None,
        title="Longest bucket side",
        ge=8,
        le=8192,
        unit="px",
        help="Empty is twice the resolution.",
    )
    bucket_step: int | None = spec_field(
        None,
        title="Bucket step",
        ge=8,
        le=512,
        multiple_of=8,
        unit="px",
        help="Bucket sides are multiples of this. Empty is 64, or an eighth of a resolution "
        "below 512.",
    )
    bucket_no_upscale: bool = spec_field(
        False,
        title="Do not enlarge",
        help="Small images stay small. Bucket sides then have no limits.",
    )
    # ---- machine
    precision: Precision = spec_field(
        "auto",
        title="Precision",
        help="Number format of the frozen model (mixed precision). Auto picks the best for the "
        "device.",
    )
    save_precision: Literal["float32", "float16", "bfloat16"] = spec_field(
        "float16", title="File precision", help="Number format of the finished LoRA file."
    )
    gradient_checkpointing: bool = spec_field(
        False,
        title="Gradient checkpointing",
        help="Needs less memory and is about a quarter slower.",
    )
    cache_latents: Literal["memory", "disk", "off"] = spec_field(
        "memory",
        title="Cache latents",
        help="Encodes each image once and keeps the result in memory or on disk.",
    )
    seed: int = spec_field(
        -1,
        title="Seed",
        ge=-1,
        lt=SEED_LIMIT,
        help="The same seed and settings train the same LoRA. -1 draws a new one.",
    )
    # ---- monitoring
    sample_prompts: str = spec_field(
        "",
        title="Sample prompts",
        max_length=10_000,
        help="Images to generate during training, one prompt per line: at the start and at each "
        "interval.",
    )
    sample_every: int | None = spec_field(
        None,
        title="Samples every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often samples are generated.",
    )
    sample_every_epochs: int | None = spec_field(
        None,
        title="Samples every (epochs)",
        ge=1,
        le=100_000,
        unit="epochs",
        help="The same, counted in epochs.",
    )
    checkpoint_every: int | None = spec_field(
        None,
        title="Checkpoint every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often progress is saved, to resume from or to compare. Empty: only at the end.",
    )
    checkpoint_every_epochs: int | None = spec_field(
        None,
        title="Checkpoint every (epochs)",
        ge=1,
        le=100_000,
        unit="epochs",
        help="The same, counted in epochs.",
    )
    checkpoints_total_limit: int | None = spec_field(
        None,
        title="Keep checkpoints",
        ge=0,
        le=10_000,
        help="How many of the latest are kept. 0 is all, empty is 3.",
        formerly="keep_checkpoints",
    )
    validation_split: float = spec_field(
        0.0,
        title="Validation share",
        ge=0,
        le=0.5,
        step=0.05,
        help="Share of the images that is held out to show when the LoRA overfits.",
        formerly="validation_share",
    )
    validate_every: int | None = spec_field(
        None,
        title="Validate every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often the loss on held-out images is measured. Empty is once per epoch.",
    )
    # ---- kinds of LoRA (each neutral, so that runs from before are found again)
    network_type: NetworkType = spec_field(
        "LoRA",
        title="LoRA type",
        help="LoRA is the usual one (network module). LoHa (arXiv:2108.06098) holds more at the "
        "same rank; LoKr (LyCORIS, arXiv:2309.14859) makes a far smaller file.",
        neutral="LoRA",
    )
    use_dora: bool = spec_field(
        False,
        title="DoRA",
        help="Also learns the magnitude of each output of a layer (dora_wd, arXiv:2402.09353): "
        "closer to training the whole model, and slower. Works with every type.",
        neutral=False,
    )
    use_rslora: bool = spec_field(
        False,
        title="Rank-stabilized",
        help="Scales by alpha ÷ √rank (rsLoRA, arXiv:2312.03732), so that a high rank learns as "
        "fast as a low one.",
        neutral=False,
    )
    lokr_factor: int | None = spec_field(
        None,
        title="LoKr factor",
        ge=1,
        le=16_384,
        help="Side of LoKr's small first factor. A lower value makes a larger file that holds "
        "more; 8 is usual. Empty is as square as possible (LyCORIS' -1).",
        neutral=None,
    )
    lokr_factors: LokrFactors = spec_field(
        "second by rank",
        title="LoKr matrices",
        help="Which of LoKr's two factors are low-rank; the others are full (decompose_both, "
        "full_matrix).",
        neutral="second by rank",
    )
    rank_dropout: float = spec_field(
        0.0,
        title="Rank dropout",
        ge=0,
        lt=1,
        step=0.05,
        help="Share of a LoRA's ranks dropped at random; for LoHa and LoKr, of their outputs.",
        neutral=0.0,
    )
    module_dropout: float = spec_field(
        0.0,
        title="Layer dropout",
        ge=0,
        lt=1,
        step=0.05,
        help="Share of layers left unchanged for an image, at random (module dropout).",
        neutral=0.0,
    )
    train_norm: bool = spec_field(
        False,
        title="Train norm layers",
        help="Also trains the U-Net's norm layers between the target layers (LyCORIS' train_norm).",
        neutral=False,
    )
    scale_weight_norms: float | None = spec_field(
        None,
        title="Weight limit",
        gt=0,
        le=1000,
        help="Limits how much any layer is changed (max norm, scale weight norms), against "
        "overtraining. 1 is usual.",
        neutral=None,
    )

    @field_validator("name")
    @classmethod
    def _check_file_name(cls, name: str) -> str:
        has_outer_space = name != name.strip()
        has_forbidden_character = not name.isprintable() or bool(set(name) & set('/\\:*?"<>|'))
        if has_outer_space or has_forbidden_character or name.startswith("."):
            raise ValueError(
                f'must be a file name without / \\ : * ? " < > |, a leading dot or spaces at '
                f"either end (you entered {quote(name)})."
            )
        return name

    @field_validator("trigger", "class_word")
    @classmethod
    def _check_one_line(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError(f"must be text on one line (you entered {quote(text)}).")
        return text.strip()

    @field_validator("sample_prompts")
    @classmethod
    def _check_prompts(cls, text: str) -> str:
        for line in text.splitlines():
            plan_prompt(line)  # raises ValueError with a sentence that names the place
        return text

    @property
    def sample_prompt_list(self) -> tuple[str, ...]:
        """The prompts of the samples painted during the run."""
        return tuple(line.strip() for line in self.sample_prompts.splitlines() if line.strip())
