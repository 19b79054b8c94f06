"""What a model family is, as far as it can be said without torch.

Knows: the form in which a family says what it consists of, how its config is recognised, what can
be asked of it, how its LoRAs are named. Does not know: any family (sd1.py and its neighbours),
which there are (registry.py), how one computes (engine/models/families).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.core.catalog import SCHEDULERS, NoiseSchedule, Scheduler
from studio.core.families.shapes import ModelShape

# The parts of a model that are loaded, and given up, one by one.
DENOISER = "denoiser"
VAE = "vae"
TEXT_ENCODERS = "text_encoders"

FamilyName = str  # as in files: sd1, sd2, sdxl, z-image
# "diffusion" adds noise by alphas (arXiv:2006.11239), "flow" along a straight line
# (arXiv:2210.02747).
NoiseProcessKind = Literal["diffusion", "flow"]
# How the predictions for the prompt and the negative prompt are combined, with a scale g that is 1
# where guidance is off: "cfg" is negative + g · (positive - negative), "cfg from positive" is
# positive + (g - 1) · (positive - negative), the same up to rounding, as a family's stock pipeline
# computes it.
GuidanceKind = Literal["cfg", "cfg from positive"]
# Noise levels of ten steps that were optimised for a model (arXiv:2404.14507): for Stable Diffusion
# 1.5, and all that have no own.
SD1_OPTIMIZED_LEVELS = (
    *(14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
)


@dataclass(frozen=True)
class TextEncoderPart:
    """The folders of a text encoder and its tokenizer in a model folder."""

    tokenizer: str
    encoder: str


@dataclass(frozen=True)
class ConfigFacts:
    """What the configs of a model's denoiser and autoencoder say.

    Attributes:
        native_size: Side in pixels of the images that the model was trained on.
        activation_elements_per_pixel: About how many numbers the denoiser holds at once for each
            pixel of one image; rather too many.
        is_inpainting: Whether the denoiser is also shown the mask and the rest of the image.
    """

    native_size: int
    activation_elements_per_pixel: int
    is_inpainting: bool = False


@dataclass(frozen=True)
class LoraNaming:
    """How other programs write down what a LoRA was made for.

    Attributes:
        prefixes: What kohya's files begin a layer's name with, by the part it is in.
        uses_sgm_names: Whether the denoiser's layers are called as in Stability's sgm.
        architecture: modelspec's name of the family.
        base_model_version: kohya's name of the family.
        version_mark: What occurs in all that trainers call the family.
        implementation: modelspec's name of the code that the layers' names come from.
        says_prediction: Whether kohya's name ends in _v for a model that predicts v.
    """

    prefixes: Mapping[str, str]
    uses_sgm_names: bool
    architecture: str
    base_model_version: str
    version_mark: str
    implementation: str
    says_prediction: bool = True


def _recommend_nothing(_scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, eq=False)
class Family:
    """A kind of model. There is one value for each; two are the same if they are one object.

    Attributes:
        name: Its name in files, and of its modules but for dashes.
        title: Its name for people.
        pipeline_classes: Names of diffusers' pipelines in model_index.json.
        cross_attention_dim: Width of the text embeddings that the denoiser reads, where the
            family is told from another one of the same pipeline by it.
        denoiser: Folder of the denoiser.
        text_encoders: Folders of the text encoders, the pooled one last.
        read_config: Reads the configs of denoiser and autoencoder; it raises UnknownFamily or
            BadFile with words that follow "The model … cannot be used:".
        native_size: Side in pixels of the images that it was made for, unless its configs say
            otherwise.
        common_sizes: Usual (width, height) at `native_size`; for others they are scaled.
        size_multiple: The sides of an image are multiples of this number of pixels.
        noise_process: How noise is added.
        guidance: How guidance is computed.
        noise_schedules: The schedulers that fit, and what each can run on; empty for all of the
            catalog.
        recommend_settings: Returns the settings that the model's authors give, from its
            scheduler's config; they are taken where nothing was chosen.
        weighs_words: Whether parts of a prompt can be weighed, blended and joined.
        max_clip_skip: The most that Clip skip may be, where the encoder's depth does not say it.
        penultimate_layer: Whether the denoiser was trained on the text encoder's last layer but
            one, without the final norm.
        usual_clip_skip: What programs that count from the encoder's last layer call the one that
            the denoiser was trained on.
        pooled_prompt: Whether the denoiser also reads a pooled prompt and the sizes.
        shape: Shapes of the released models, which tell the layers a LoRA can be trained on; None
            where none can be trained.
        lora_naming: How its LoRAs are named; None where `shape` is.
        training_clip_skip: Whether a training may choose the text encoder's layer.
        optimized_levels: Noise levels of ten steps that were optimised for it.
        name_pattern: A regular expression for the names that its models often have.
    """

    name: str
    title: str
    pipeline_classes: tuple[str, ...]
    text_encoders: tuple[TextEncoderPart, ...]
    read_config: Callable[[Mapping[str, Any], Mapping[str, Any]], ConfigFacts]
    native_size: int
    common_sizes: tuple[tuple[int, int], ...]
    cross_attention_dim: int | None = None
    denoiser: str = "unet"
    size_multiple: int = 8
    noise_process: NoiseProcessKind = "diffusion"
    guidance: GuidanceKind = "cfg"
    noise_schedules: Mapping[Scheduler, tuple[NoiseSchedule, ...]] = field(default_factory=dict)
    recommend_settings: Callable[[Mapping[str, Any]], dict[str, Any]] = _recommend_nothing
    weighs_words: bool = True
    penultimate_layer: bool = False
    usual_clip_skip: int = 1
    pooled_prompt: bool = False
    shape: ModelShape | None = None
    lora_naming: LoraNaming | None = None
    max_clip_skip: int | None = None
    training_clip_skip: bool = True
    optimized_levels: tuple[float, ...] = SD1_OPTIMIZED_LEVELS
    name_pattern: str = ""

    @property
    def is_trainable(self) -> bool:
        """Whether LoRAs can be trained on its models."""
        return self.shape is not None

    @property
    def components(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        return (self.denoiser, "vae", *self.part_folders[TEXT_ENCODERS])

    @property
    def part_folders(self) -> dict[str, tuple[str, ...]]:
        """Folders with the weights of each part."""
        encoders = tuple(part.encoder for part in self.text_encoders)
        return {DENOISER: (self.denoiser,), VAE: ("vae",), TEXT_ENCODERS: encoders}

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Folders of the tokenizers."""
        return tuple(part.tokenizer for part in self.text_encoders)

    def list_noise_schedules(self, scheduler: Scheduler) -> tuple[NoiseSchedule, ...]:
        """Return what a scheduler can run on; nothing if it does not fit the family."""
        if self.noise_schedules:
            return self.noise_schedules.get(scheduler, ())
        return SCHEDULERS[scheduler].noise_schedules

    def list_schedulers(self) -> tuple[Scheduler, ...]:
        """Return the schedulers that fit."""
        return tuple(self.noise_schedules or SCHEDULERS)

    def list_common_sizes(self, native_size: int) -> list[tuple[int, int]]:
        """Return usual (width, height) for a model made for `native_size` pixels a side."""
        base = self.common_sizes[0][0]

        def scale(length: int) -> int:
            return round(length * native_size / base / self.size_multiple) * self.size_multiple

        return [(scale(width), scale(height)) for width, height in self.common_sizes]
