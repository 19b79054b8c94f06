"""A model that is lent: its parts, and what every family has to be able to do with them.

Knows: the parts of a model and when they are loaded; latents and pixels; what a borrower keeps of a
model (prompts, the preview's line, the adapters that are on).
Does not know: any family (families/), when to load (manager.py), the loop (generation/).
"""

from __future__ import annotations

import importlib
import inspect
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from diffusers import AutoencoderKL

from studio.core.families.family import DENOISER, TEXT_ENCODERS, VAE, Family
from studio.core.families.registry import FAMILIES
from studio.core.generation.memory_policy import WHOLE, MemoryPlan
from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.engine.models.components import load_network, load_tokenizer
from studio.engine.models.devices import Device, catch_out_of_memory
from studio.engine.models.embeddings import LoadedEmbedding
from studio.engine.models.noise_process import NoiseProcess
from studio.engine.models.tiled_vae import use_tiles
from studio.storage.models.model_configs import SCHEDULER, read_config
from studio.storage.models.model_info import ModelInfo

PARTS = (TEXT_ENCODERS, DENOISER, VAE)
MAX_CACHED_PROMPTS = 64  # of 0.1 to 0.3 MB each

# What the denoiser is given besides latents and timestep, by name: of one row, or of several
# stacked.
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class RowSchedule:
    """An encoded prompt over the steps of a pass.

    Attributes:
        rows: That of each step, counted from 0; the last one holds to the end. What stays the same
            is the same object.
    """

    rows: tuple[Row, ...]

    @classmethod
    def build(cls, rows: Iterable[Row]) -> RowSchedule:
        """Return the schedule of these rows, one for each step."""
        kept = list(rows)
        while len(kept) > 1 and kept[-1] is kept[-2]:
            kept.pop()
        return cls(tuple(kept))

    def get(self, step: int) -> Row:
        """Return the row of a step, counted from 0."""
        return self.rows[min(step, len(self.rows) - 1)]

    def change(self, change: Callable[[Row], Row]) -> RowSchedule:
        """Return the schedule with every row changed, each once."""
        changed: dict[int, Row] = {}
        for row in self.rows:
            if id(row) not in changed:
                changed[id(row)] = change(row)
        return RowSchedule(tuple(changed[id(row)] for row in self.rows))


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The encoded prompts of a pass: what each is to the denoiser, by names of the family's.

    Attributes:
        negative: The negative prompt.
        positives: The prompt's branches; mostly one.
        weights: How strongly each branch counts.
        hires: Of the second pass, if there is one: its steps are others.
    """

    negative: RowSchedule
    positives: tuple[RowSchedule, ...]
    weights: tuple[float, ...] = (1.0,)
    hires: Conditioning | None = None


@dataclass(eq=False)
class TextEncoders:
    """The text encoders of a model, each with its tokenizer."""

    tokenizers: list[Any]
    encoders: list[torch.nn.Module]


class PartProvider(Protocol):
    """Whoever owns the parts of a model and lends them."""

    def hold(self, name: str) -> Any:
        """Return a part that stays until the model is given back."""

    def lend(self, name: str) -> AbstractContextManager[Any]:
        """Lend a part for the time of a block."""

    def make_room(self) -> bool:
        """Throw out whatever is not lent; return whether there was any."""


@dataclass(eq=False)
class LoadedModel(ABC):
    """A model whose parts are loaded when they are first asked for.

    Whoever borrows it leaves it as it was. Without a `provider` the parts are its own.
    """

    # Said by each family: the class of its denoiser, and of each text encoder's tokenizer and
    # network.
    denoiser_class: ClassVar[type]
    text_classes: ClassVar[tuple[tuple[type, type], ...]]

    info: ModelInfo
    content_hash: str
    device: Device
    provider: PartProvider | None = None
    parts: dict[str, Any] = field(default_factory=dict)  # those that are held
    # How they lie in memory during the present borrow.
    plan: MemoryPlan = WHOLE
    # Encoded prompts, by `remember`.
    prompt_cache: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    # Latents → RGB for previews, by generation/latent_preview.py.
    preview_matrix: torch.Tensor | None = None
    # Duration of the last prompt's encoding.
    encode_seconds: float = 0.0
    # Duration of the last load of each part, by manager.py.
    load_seconds: dict[str, float] = field(default_factory=dict)
    # How often memory did not suffice for an image in one piece (see tiled_vae.py).
    num_tiled_calls: int = 0
    # Those that are on, by adapters/lora.py.
    active_adapters: tuple[Any, ...] = ()
    # Of the present borrow, by manager.py: the model with the VAE that the request names, and the
    # content of that; None and empty for its own.
    vae_info: ModelInfo | None = None
    vae_hash: str = ""
    # Of the present borrow: LoRA's name → (content hash, adapter), by manager.py.
    adapters: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    # Of the present borrow: the textual inversions that its prompts name, by manager.py.
    embeddings: Mapping[str, LoadedEmbedding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.family: Family = FAMILIES[self.info.family]
        self._vae_configs: dict[str, Mapping[str, Any]] = {}  # by the content of a chosen VAE
        # The model's own, but for what its owner decided.
        self.scheduler_config: Mapping[str, Any] = read_config(self.info, SCHEDULER)

    # ---- parts ----------------------------------------------------------------------------------

    @property
    def denoiser(self) -> Any:
        """The network that predicts: a U-Net or a transformer."""
        return self._get_part(DENOISER)

    @property
    def vae(self) -> Any:
        """The autoencoder; it stays until the model is given back (see `lend_vae`)."""
        return self._get_part(VAE)

    @property
    def text_encoders(self) -> list[torch.nn.Module]:
        """The text encoders; they stay until the model is given back (see `lend_text_encoders`)."""
        encoders: TextEncoders = self._get_part(TEXT_ENCODERS)
        return encoders.encoders

    @property
    def tokenizers(self) -> list[Any]:
        """The tokenizers of the text encoders."""
        encoders: TextEncoders = self._get_part(TEXT_ENCODERS)
        return encoders.tokenizers

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All networks that are held."""
        return [network for part in self.parts.values() for network in list_networks(part)]

    def lend_text_encoders(self) -> AbstractContextManager[TextEncoders]:
        """Lend the text encoders for the time of a block: their room may be needed afterwards."""
        return self._lend_part(TEXT_ENCODERS)

    def lend_vae(self) -> AbstractContextManager[Any]:
        """Lend the autoencoder for the time of a block: the denoiser may need its room."""
        return self._lend_part(VAE)

    def _lend_part(self, name: str) -> AbstractContextManager[Any]:
        if name in self.parts or self.provider is None:
            return nullcontext(self._get_part(name))
        return self.provider.lend(name)

    def load_all(self) -> None:
        """Load every part now."""
        for name in PARTS:
            self._get_part(name)

    def load_part(self, name: str) -> Any:
        """Read a part of the model, to where it is put from. Raises BadFile."""
        device = self.get_reading_device(name)
        if name == VAE:
            info = self.vae_info or self.info
            return load_network(AutoencoderKL, info, "vae", device, device.vae_dtype)
        if name == DENOISER:
            folder = self.family.denoiser
            return load_network(self.denoiser_class, self.info, folder, device, device.dtype)
        tokenizers, encoders = [], []
        classes = zip(self.family.text_encoders, self.text_classes, strict=True)
        for part, (tokenizer_class, encoder_class) in classes:
            tokenizers.append(load_tokenizer(tokenizer_class, self.info, part.tokenizer))
            encoders.append(
                load_network(encoder_class, self.info, part.encoder, device, device.dtype)
            )
        return TextEncoders(tokenizers, encoders)

    def get_reading_device(self, name: str) -> Device:
        """Return where a part is read to: the host if the plan brings it on in another form."""
        if not self.plan.describe_form(name):
            return self.device
        return replace(self.device, torch_device=torch.device("cpu"))

    def _get_part(self, name: str) -> Any:
        if name not in self.parts:
            hold = self.load_part if self.provider is None else self.provider.hold
            self.parts[name] = hold(name)
        return self.parts[name]

    # ---- prompts --------------------------------------------------------------------------------

    @abstractmethod
    def encode_plan(self, plan: PassPlan, request: GenerationRequest) -> Conditioning:
        """Encode both prompts of a pass.

        Args:
            plan: What the prompts come to.
            request: The settings beside them, such as clip skip.

        Raises:
            InvalidSpec: The text encoder cannot do what the request asks for.
        """

    def remember(self, key: tuple[Any, ...], encode: Callable[[], Any]) -> Any:
        """Return what a prompt was encoded to, or encode it now."""
        if key not in self.prompt_cache:
            start_time = time.perf_counter()
            self.prompt_cache[key] = encode()
            self.encode_seconds = time.perf_counter() - start_time
            if len(self.prompt_cache) > MAX_CACHED_PROMPTS:
                self.prompt_cache.popitem(last=False)
        self.prompt_cache.move_to_end(key)
        return self.prompt_cache[key]

    # ---- the denoiser ---------------------------------------------------------------------------

    @property
    def latent_dtype(self) -> torch.dtype:
        """The number format in which latents are between two steps."""
        return self.device.dtype

    @property
    def is_distilled(self) -> bool:
        """Whether the denoiser takes the guidance as an input."""
        return False

    @abstractmethod
    def build_noise_process(self, request: ResolvedRequest) -> NoiseProcess:
        """Prepare the scheduler of a request, with its timesteps set.

        Raises:
            InvalidSpec: The scheduler cannot take so many steps.
        """

    @abstractmethod
    def build_row(self, prompt: Row, request: ResolvedRequest) -> Row:
        """Return all that a branch of a request gives to the denoiser, of the encoded prompt."""

    @abstractmethod
    def get_row_key(self, row: Row) -> tuple[Any, ...]:
        """Return what has to be equal for two rows to share a call."""

    @abstractmethod
    def stack_rows(self, rows: Sequence[Row]) -> Row:
        """Stack rows for a call."""

    def predict(
        self, latents: Sequence[torch.Tensor], timesteps: Sequence[torch.Tensor], stacked: Row
    ) -> list[torch.Tensor]:
        """Call the denoiser once for several rows.

        Args:
            latents: One row each, (1, channels, height, width).
            timesteps: One for each row, of the row's own scheduler: (1,), float32, on the device.
            stacked: What `stack_rows` made of these rows.

        Returns:
            Of each row what its noise process expects, (1, channels, height, width).
        """
        rows = torch.cat(list(latents))
        return list(self.call_denoiser(rows, torch.cat(list(timesteps)), stacked).split(1))

    @abstractmethod
    def call_denoiser(
        self, latents: torch.Tensor, timesteps: torch.Tensor, stacked: Row
    ) -> torch.Tensor:
        """Call the denoiser.

        Args:
            latents: (rows, channels, height, width); of an inpainting model all of its channels.
            timesteps: (rows,), on the device.
            stacked: The rows' conditioning.

        Returns:
            What the noise process expects, (rows, channels, height, width).
        """

    # ---- latents --------------------------------------------------------------------------------

    @property
    def vae_config(self) -> Mapping[str, Any]:
        """The autoencoder's config, read without its weights: its room may not be free yet."""
        if VAE in self.parts:
            config: Mapping[str, Any] = self.parts[VAE].config
            return config
        if self.vae_hash not in self._vae_configs:
            defaults = {
                name: parameter.default
                for name, parameter in inspect.signature(AutoencoderKL.__init__).parameters.items()
            }
            own = read_config(self.vae_info or self.info, "vae")
            self._vae_configs[self.vae_hash] = defaults | own
        return self._vae_configs[self.vae_hash]

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae_config["latent_channels"])

    @property
    def is_inpainting(self) -> bool:
        """Whether the denoiser also takes the mask and the masked image."""
        return self.info.is_inpainting

    @property
    def vae_scale_factor(self) -> int:
        """Pixels along one side of a latent."""
        return int(2 ** (len(self.vae_config["block_out_channels"]) - 1))

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the shape (1, channels, rows, columns) of an image's latents; sides in pixels.

        An image whose sides the family cannot take gets a margin on the right and below.
        """
        right, below = self._get_margin(width, height)
        rows = (height + below) // self.vae_scale_factor
        columns = (width + right) // self.vae_scale_factor
        return 1, self.latent_channels, rows, columns

    def _get_margin(self, width: int, height: int) -> tuple[int, int]:
        """Return the pixels to add on the right and below."""
        multiple = self.family.size_multiple
        return -width % multiple, -height % multiple

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Encode an image, sampling from the autoencoder's posterior.

        Args:
            pixels: (1, 3, height, width) in -1 … 1.
            generator: Source of the sample's noise.

        Returns:
            Latents (1, channels, rows, columns), scaled, in the latents' number format.
        """
        right, below = self._get_margin(pixels.shape[3], pixels.shape[2])
        if right or below:
            pixels = torch.nn.functional.pad(pixels, (0, right, 0, below), mode="replicate")
        latent_side = max(pixels.shape[2:]) // self.vae_scale_factor
        with self.lend_vae() as vae:
            pixels = pixels.to(self.device.torch_device, vae.dtype)
            posterior = self._call_vae(vae, lambda: vae.encode(pixels), latent_side).latent_dist
            config = vae.config
        latents = posterior.sample(generator)
        scaling_factor = config.scaling_factor
        shift_factor = config.get("shift_factor")
        stats = _read_latent_stats(config)
        if stats is not None:
            mean, std = stats
            latents = (latents - mean.to(latents)) * scaling_factor / std.to(latents)
        elif shift_factor:
            latents = (latents - shift_factor) * scaling_factor
        else:
            latents = scaling_factor * latents
        return latents.to(self.latent_dtype)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pixels.

        Args:
            latents: (n, channels, rows, columns), scaled.

        Returns:
            Pixels (n, 3, height, width) in about -1 … 1, in the autoencoder's own number format.
        """
        with self.lend_vae() as vae:
            latents = _unscale(latents.to(vae.dtype), vae.config)
            latent_side = max(latents.shape[2:])
            pixels: torch.Tensor = self._call_vae(
                vae, lambda: vae.decode(latents, return_dict=False), latent_side
            )[0]
        return pixels

    def _call_vae(self, vae: Any, call: Callable[[], Any], latent_side: int) -> Any:
        """Call the autoencoder; in tiles if that is planned, or where memory does not suffice."""
        if self.plan.level != "whole":
            self.device.empty_cache()  # what the denoiser left is in pieces
        if not self.plan.is_tiled:
            with catch_out_of_memory():
                return call()
            if self.provider is not None and self.provider.make_room():
                with catch_out_of_memory():
                    return call()
            self.device.empty_cache()
        with use_tiles(vae, latent_side, self.vae_scale_factor):
            result = call()
        self.num_tiled_calls += 1
        return result


def _unscale(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Return latents as an autoencoder of this config itself makes them."""
    stats = _read_latent_stats(config)
    if stats is not None:
        mean, std = stats
        return latents * std.to(latents) / config.scaling_factor + mean.to(latents)
    latents = latents / config.scaling_factor
    shift_factor = config.get("shift_factor")
    return latents + shift_factor if shift_factor else latents


def _read_latent_stats(config: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return mean and spread of each latent channel, if the autoencoder's config has them."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return None
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def list_networks(part: Any) -> list[torch.nn.Module]:
    """Return the networks of a part of a model."""
    return part.encoders if isinstance(part, TextEncoders) else [part]


def open_model(info: ModelInfo, content_hash: str, device: Device) -> LoadedModel:
    """Return a model of which nothing is loaded yet.

    Args:
        info: What the library knows of the model.
        content_hash: The library's hash of its files.
        device: Where the parts go, and in which number format.
    """
    module_name = info.family.replace("-", "_")
    module = importlib.import_module(f"studio.engine.models.families.{module_name}")
    model: LoadedModel = module.Model(info, content_hash, device)
    return model


def load_model(info: ModelInfo, content_hash: str, device: Device) -> LoadedModel:
    """Read a model with all its parts.

    Args:
        info: What the library knows of the model.
        content_hash: The library's hash of its files.
        device: Where the parts go, and in which number format.

    Raises:
        BadFile: A file is broken.
    """
    model = open_model(info, content_hash, device)
    model.load_all()
    return model
