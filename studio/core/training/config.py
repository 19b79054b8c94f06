"""Everything that one can ask of a training run, said once.

Knows: the settings, their ranges and help, what empty ones stand for.
Does not know: torch, files, what is in a dataset, which family a model is of (`training_rules.for_family` is asked with one), how
long a run is (`training_steps`).

One rule for the length: `steps` or `epochs` decides, never both; giving both is refused, so nothing is overridden in silence.
An empty setting (`None`) stands for what is usual beside the others; where a setting would do nothing it has to be empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from studio.core.base import Value, above_guests, setting
from studio.core.catalog import DEFAULT_MODEL
from studio.core.generation import prompt as prompts
from studio.core.generation.request import MOST_SEEDS
from studio.core.training.lora_targets import Module, Targets
from studio.core.training.rules import conflicts
from studio.errors import InvalidSpec

Optimizer = Literal["AdamW", "AdamW 8-bit", "Adafactor", "Adafactor (relative step)"]
RateSchedule = Literal[
    "constant", "constant with warm-up", "linear", "cosine", "cosine with restarts", "polynomial"
]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

RELATIVE: Optimizer = "Adafactor (relative step)"
BASICS = (
    "model",
    "dataset",
    "name",
    "trigger",
    "steps",
    "learning_rate",
    "rank",
    "resolution",
)  # the rest can be searched


@dataclass(frozen=True)
class Buckets:
    """Sizes that pictures of other shapes are sorted into; `least` and `most` do not count where nothing is enlarged."""

    least: int
    most: int
    step: int
    no_upscale: bool


class TrainingConfig(Value):
    """A LoRA before it is trained. What is empty or -1 is filled in by `resolved` and the properties."""

    # ---- what
    model: str = setting(
        DEFAULT_MODEL,
        title="Model",
        min_length=1,
        max_length=200,
        help="The checkpoint to start from (base model): the name of a folder in home/models.",
    )
    dataset: str = setting(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="What to learn from: the name of a folder of pictures and captions in home/datasets.",
    )
    name: str = setting(
        ...,
        title="Name",
        min_length=1,
        max_length=100,
        help="What the trained LoRA will be called.",
    )
    trigger: str = setting(
        "",
        title="Trigger word",
        max_length=100,
        help="A rare word that calls the new thing (instance token), such as mysks; put before captions.",
    )
    class_word: str = setting(
        "",
        title="Class word",
        max_length=100,
        help="What kind of thing it is, such as plush toy. The two together caption pictures without.",
    )
    class_pictures: int = setting(
        0,
        title="Class pictures",
        ge=0,
        le=10_000,
        guest=100,
        help="Prior preservation (DreamBooth, arXiv:2208.12242): so many pictures of the class, made by "
        "the model itself, are trained beside yours, so that the class is not forgotten. 0 is off.",
    )
    prior_weight: float | None = setting(
        None,
        title="Prior weight",
        gt=0,
        le=10,
        help="How much the class pictures count (prior loss weight); empty is 1.",
    )
    # ---- how much
    steps: int | None = setting(
        1000,
        title="Steps",
        ge=1,
        le=1_000_000,
        guest=2000,
        help="How often the LoRA is changed (optimizer steps). Leave empty to count in epochs.",
    )
    epochs: int | None = setting(
        None,
        title="Epochs",
        ge=1,
        le=100_000,
        guest=100,
        help="How often every picture is seen, instead of a number of steps.",
    )
    batch: int = setting(
        1,
        title="Batch",
        ge=1,
        le=64,
        guest=4,
        help="Pictures a step (batch size): steadier, and more memory.",
    )
    accumulation: int = setting(
        1,
        title="Accumulation",
        ge=1,
        le=256,
        guest=8,
        help="Batches gathered before a step (gradient accumulation): a larger batch in the same memory.",
    )
    repeats: int = setting(
        1,
        title="Repeats",
        ge=1,
        le=1000,
        guest=100,
        help="How often each picture comes in an epoch; a folder's own number (40_moon) multiplies it.",
    )
    # ---- the LoRA
    rank: int = setting(
        16,
        title="Rank",
        ge=1,
        le=512,
        guest=64,
        help="How much the LoRA can hold (network dim, arXiv:2106.09685): 4 to 16 for a thing, 32 for a style.",
    )
    alpha: float | None = setting(
        None,
        title="Alpha",
        gt=0,
        le=1024,
        help="The LoRA works at alpha ÷ rank of its strength (network alpha). Empty is the rank.",
    )
    dropout: float = setting(
        0.0,
        title="Dropout",
        ge=0,
        lt=1,
        step=0.05,
        help="Share of the LoRA's inputs that is left out at random: against learning by heart.",
    )
    targets: Targets = setting(
        "attention + feed-forward",
        title="Targets",
        help="Which layers get a LoRA (target modules). Kohya's usual is attention + feed-forward; "
        "convolutions make it a LoCon.",
    )
    patterns: str = setting(
        "",
        title="Patterns",
        max_length=2000,
        help="With targets = patterns: which layers, such as `unet.*.attn2.to_k`.",
    )
    conv_rank: int | None = setting(
        None,
        title="Convolution rank",
        ge=1,
        le=512,
        guest=64,
        help="The rank of 3 × 3 convolutions (conv dim); empty is the rank.",
    )
    conv_alpha: float | None = setting(
        None,
        title="Convolution alpha",
        gt=0,
        le=1024,
        help="The alpha of 3 × 3 convolutions; empty is the convolution rank.",
    )
    train_unet: bool = setting(True, title="Train the U-Net", help="The part that paints learns.")
    train_text_encoder: bool = setting(
        False, title="Train the text encoders", help="The part that reads learns, too."
    )
    # ---- how fast
    learning_rate: float | None = setting(
        1e-4,
        title="Learning rate",
        gt=0,
        le=10,
        help="How far each step goes: 1e-4 is usual. Too high burns, too low learns nothing.",
    )
    text_encoder_rate: float | None = setting(
        None,
        title="Text encoders' rate",
        gt=0,
        le=10,
        help="Their own learning rate, usually lower; empty is the learning rate.",
    )
    optimizer: Optimizer = setting(
        "AdamW",
        title="Optimizer",
        help="How steps are taken. 8-bit saves memory on CUDA (bitsandbytes). Adafactor runs at your "
        "rate, or finds its own (relative step: no rate, no schedule).",
    )
    weight_decay: float | None = setting(
        None,
        title="Weight decay",
        ge=0,
        le=1,
        help="Pulls weights towards 0. Empty is the usual: 0.01 for AdamW, 0 for Adafactor.",
    )
    beta1: float | None = setting(
        None, title="Beta 1", ge=0, lt=1, help="AdamW: memory of the direction. Empty is 0.9."
    )
    beta2: float | None = setting(
        None, title="Beta 2", ge=0, lt=1, help="AdamW: memory of the size. Empty is 0.999."
    )
    eps: float | None = setting(
        None, title="Epsilon", gt=0, le=0.1, help="AdamW: against division by 0. Empty is 1e-8."
    )
    scale_parameter: bool | None = setting(
        None,
        title="Scale parameter",
        help="Adafactor: steps as large as a layer's weights. Empty: only with relative step.",
    )
    schedule: RateSchedule = setting(
        "constant", title="Rate schedule", help="How the learning rate changes on the way."
    )
    warmup: float = setting(
        0.0,
        title="Warm-up",
        ge=0,
        le=100_000,
        help="The rate rises from 0 over so many steps; below 1 it is a share of all steps (0.1 is a tenth).",
    )
    cycles: int | None = setting(
        None,
        title="Restarts",
        ge=1,
        le=1000,
        help="Cosine with restarts: how many waves. Empty is 1.",
    )
    power: float | None = setting(
        None,
        title="Power",
        gt=0,
        le=100,
        help="Polynomial: the shape of the fall. Empty is 1, a line.",
    )
    max_grad_norm: float = setting(
        1.0,
        title="Gradient limit",
        ge=0,
        le=1000,
        help="No step goes farther than this (gradient clipping); 0 is no limit.",
    )
    # ---- the loss
    min_snr_gamma: float | None = setting(
        None,
        title="Min-SNR gamma",
        gt=0,
        le=100,
        help="Easy noise levels count less; 5 is usual, empty is off. arXiv:2303.09556",
    )
    noise_offset: float = setting(
        0.0,
        title="Noise offset",
        ge=0,
        le=1,
        step=0.01,
        help="Lets very dark and very bright pictures be learned; 0.05 to 0.1, 0 is off.",
    )
    # ---- captions
    caption_dropout: float = setting(
        0.0,
        title="Caption dropout",
        ge=0,
        le=1,
        step=0.05,
        help="Share of pictures without caption; 0.05 to 0.1 helps guidance. arXiv:2207.12598",
    )
    shuffle_caption: bool = setting(
        False,
        title="Shuffle captions",
        help="The parts between commas come in a new order each time.",
    )
    keep_tokens: int = setting(
        0,
        title="Keep first parts",
        ge=0,
        le=100,
        help="So many parts stay in front when the rest is shuffled (keep tokens), such as the trigger.",
    )
    clip_skip: int = setting(
        1,
        title="Clip skip",
        ge=1,
        le=12,
        help="Which layer of the text encoder speaks, from the last (SD 1.x and 2.x).",
    )
    # ---- pictures
    resolution: int | None = setting(
        None,
        title="Resolution",
        ge=32,
        le=2048,
        multiple_of=8,
        unit="px",
        guest=1024,
        help="The side of a square of the size to train at; empty is the model's own size.",
    )
    flip: bool = setting(
        False,
        title="Flip",
        help="Half of the pictures are mirrored: not for writing or faces that are not even.",
    )
    crop: Literal["center", "random"] = setting(
        "center", title="Crop", help="Which part is kept where a picture does not fit."
    )
    buckets: bool = setting(
        True,
        title="Buckets",
        help="Pictures keep their shape (aspect ratio); off, all are cut to squares.",
    )
    bucket_min: int | None = setting(
        None,
        title="Shortest side",
        ge=8,
        le=4096,
        unit="px",
        help="Of a bucket. Empty is 256, or half the resolution if that is less.",
    )
    bucket_max: int | None = setting(
        None,
        title="Longest side",
        ge=8,
        le=8192,
        unit="px",
        help="Of a bucket. Empty is twice the resolution.",
    )
    bucket_step: int | None = setting(
        None,
        title="Bucket step",
        ge=8,
        le=512,
        multiple_of=8,
        unit="px",
        help="Sides are multiples of this. Empty is 64, or an eighth of a resolution below 512.",
    )
    bucket_no_upscale: bool = setting(
        False, title="Never enlarge", help="Small pictures stay small; sides then have no limits."
    )
    # ---- machine
    precision: Precision = setting(
        "auto",
        title="Precision",
        help="Number format of the frozen model (mixed precision); auto is the best the device has.",
    )
    save_precision: Literal["float32", "float16", "bfloat16"] = setting(
        "float16", title="File precision", help="Number format of the finished LoRA file."
    )
    gradient_checkpointing: bool = setting(
        False, title="Gradient checkpointing", help="Less memory, about a quarter slower."
    )
    cache_latents: Literal["memory", "disk", "off"] = setting(
        "memory",
        title="Keep latents",
        help="Encode each picture once (cache latents), and keep that where.",
    )
    seed: int = setting(
        -1,
        title="Seed",
        ge=-1,
        lt=MOST_SEEDS,
        help="The same seed and settings train the same LoRA. -1 draws a new one.",
    )
    # ---- watching
    sample_prompts: str = setting(
        "",
        title="Sample prompts",
        max_length=10_000,
        help="Pictures to paint on the way, one prompt a line: at the start and at each interval.",
    )
    sample_every: int | None = setting(
        None,
        title="Samples every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often they are painted.",
    )
    sample_every_epochs: int | None = setting(
        None,
        title="Samples every so many epochs",
        ge=1,
        le=100_000,
        unit="epochs",
        help="The same, counted in epochs.",
    )
    checkpoint_every: int | None = setting(
        None,
        title="Checkpoint every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often all is saved, to go on from or to compare. Empty: only at the end.",
    )
    checkpoint_every_epochs: int | None = setting(
        None,
        title="Checkpoint every so many epochs",
        ge=1,
        le=100_000,
        unit="epochs",
        help="The same, counted in epochs.",
    )
    keep_checkpoints: int | None = setting(
        None,
        title="Keep checkpoints",
        ge=0,
        le=10_000,
        help="How many of the last stay; 0 is all, empty is 3.",
    )
    validation_share: float = setting(
        0.0,
        title="Validation share",
        ge=0,
        le=0.5,
        step=0.05,
        help="Share of the pictures that is not trained on, but tells when the LoRA learns by heart.",
    )
    validate_every: int | None = setting(
        None,
        title="Validate every",
        ge=1,
        le=1_000_000,
        unit="steps",
        help="How often the loss on those is measured. Empty is once an epoch.",
    )

    @field_validator("name")
    @classmethod
    def _no_path(cls, name: str) -> str:
        if (
            name != name.strip()
            or name.startswith(".")
            or not name.isprintable()
            or set(name) & set('/\\:*?"<>|')
        ):
            raise ValueError(
                f"is to be a file's name, without / \\ : * ? \" < > | (not {name!r:.60})."
            )
        return name

    @field_validator("trigger", "class_word")
    @classmethod
    def _one_line(cls, words: str) -> str:
        if not words.isprintable():
            raise ValueError(f"has to be words on one line (not {words!r:.60}).")
        return words.strip()

    @field_validator("sample_prompts")
    @classmethod
    def _readable(cls, text: str) -> str:
        for line in text.splitlines():
            prompts.parse(line)  # raises ValueError with a sentence that names the place
        return text

    @model_validator(mode="wrap")
    @classmethod
    def _goes_together(cls, given: Any, make: Callable[[Any], Self]) -> Self:
        """Bad fields and fields that do not go together are told in one go."""
        if not isinstance(given, Mapping):
            return make(given)
        values = _beside(given)
        try:
            made, faults = make(values), []
        except ValidationError as error:
            faults = [
                InitErrorDetails(
                    type=fault["type"],
                    loc=fault["loc"],
                    ctx=fault.get("ctx", {}),
                    input=None if fault["type"] == "missing" else fault["input"],
                )
                for fault in error.errors()
            ]
            bad = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
            made = make(
                {"dataset": "-", "name": "-"}
                | {key: value for key, value in values.items() if key not in bad}
            )
        else:
            bad = set()
        sentences = [
            f"{cls.model_fields[fields[0]].title}: {rest}"
            for fields, rest in conflicts(made)
            if not bad & set(fields)
        ]
        faults += [
            InitErrorDetails(
                type=PydanticCustomError("conflict", "{sentence}", {"sentence": sentence}),
                loc=(),
                input=None,
            )
            for sentence in sentences
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW's two memories."""
        return (
            0.9 if self.beta1 is None else self.beta1,
            0.999 if self.beta2 is None else self.beta2,
        )

    @property
    def decay(self) -> float:
        """The weight decay that counts: one's own, or the optimizer's usual."""
        usual = 0.01 if self.optimizer.startswith("AdamW") else 0.0
        return usual if self.weight_decay is None else self.weight_decay

    @property
    def scaled(self) -> bool:
        """Whether Adafactor scales its steps by the size of the weights."""
        return self.optimizer == RELATIVE if self.scale_parameter is None else self.scale_parameter

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """The learning rates of the U-Net and the text encoders; None where Adafactor finds its own."""
        return (
            self.learning_rate,
            self.learning_rate if self.text_encoder_rate is None else self.text_encoder_rate,
        )

    @property
    def checkpoints_kept(self) -> int:
        """How many of the last checkpoints stay; 0 is all."""
        return 3 if self.keep_checkpoints is None else self.keep_checkpoints

    @property
    def samples(self) -> tuple[str, ...]:
        """The prompts to paint on the way."""
        return tuple(line.strip() for line in self.sample_prompts.splitlines() if line.strip())

    def resolved(self, side: int, seed: int) -> Self:
        """With nothing left open: `side` is the model's own size, `seed` the one drawn for -1."""
        return self.model_copy(
            update={
                "resolution": self.resolution or side,
                "seed": seed % MOST_SEEDS if self.seed < 0 else self.seed,
            }
        )

    def rank_and_alpha(self, module: Module) -> tuple[int, float]:
        """Of one layer's LoRA: as kohya, convolutions wider than 1 × 1 have their own."""
        rank, alpha = self.rank, self.alpha
        if module.kernel > 1 and (self.conv_rank is not None or self.conv_alpha is not None):
            rank, alpha = self.conv_rank or self.rank, self.conv_alpha
        return rank, float(rank) if alpha is None else alpha

    def bucketing(self) -> Buckets | None:
        """The limits that count, or None for squares. Needs a resolved config."""
        if self.resolution is None:
            raise ValueError("bucketing() needs a resolved config: its resolution is still open")
        if not self.buckets:
            return None
        step = self.bucket_step or min(64, max(8, self.resolution // 64 * 8))
        least = self.bucket_min or min(256, max(1, self.resolution // 2 // step) * step)
        return Buckets(least, self.bucket_max or 2 * self.resolution, step, self.bucket_no_upscale)

    def caption(self, written: str = "", folder: str = "") -> str:
        """What a picture is trained with, empty if nothing is known of it. `written` is its caption; `folder` the concept in its
        folder's name, which counts only without a caption (as kohya's)."""
        called = (
            f"a photo of {self.trigger} {self.class_word}"
            if self.trigger and self.class_word
            else self.class_word
        )
        text = written or called or folder or self.trigger
        known = not self.trigger or re.search(
            rf"(?<!\w){re.escape(self.trigger)}(?!\w)", text, re.IGNORECASE
        )
        return text if known else f"{self.trigger}, {text}"

    @property
    def class_prompt(self) -> str:
        """What the class pictures are made from and trained with."""
        return f"a photo of a {self.class_word}" if self.class_word else ""

    def check_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too much."""
        if faults := above_guests(self):
            raise InvalidSpec(faults)


def _beside(given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults give way to what is asked for: whoever names epochs does not have to empty the steps."""
    values = dict(given)
    if values.get("epochs") is not None:
        values.setdefault("steps", None)
    if values.get("optimizer") == RELATIVE:
        values.setdefault("learning_rate", None)
    return values
