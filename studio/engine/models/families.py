"""Model families: from a folder in diffusers layout to its parts on a device.

Knows: what SD 1.x, SD 2.x and SDXL consist of, and SDXL's conditioning besides the prompt.
Does not know: when to load (manager.py), prompts (prompt_encoding.py), the loop (generation/).

Every part gets its number format explicitly: transformers would keep the saved one and diffusers
take float32, which puts a half-precision text encoder beside a float U-Net.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from studio.core.catalog import Family
from studio.engine.models.devices import Device
from studio.engine.models.transformers_loader import find_missing_weights
from studio.errors import BadFile, UnknownFamily
from studio.storage.models.library import ModelInfo

TEXT_ENCODERS: dict[Family, tuple[tuple[str, str, type], ...]] = {
    "sd1": (("tokenizer", "text_encoder", CLIPTextModel),),
    "sd2": (("tokenizer", "text_encoder", CLIPTextModel),),
    "sdxl": (
        ("tokenizer", "text_encoder", CLIPTextModel),
        ("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
    ),
}


@dataclass
class LoadedModel:
    """A loaded model. Whoever borrows it leaves it as it was."""

    info: ModelInfo
    content_hash: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    tokenizers: list[CLIPTokenizer]
    text_encoders: list[torch.nn.Module]
    # The model's own scheduler_config.json, unchanged.
    scheduler_config: Mapping[str, Any]
    # An empty negative prompt is zeros (SDXL) instead of the encoded empty text.
    force_zeros_for_empty_prompt: bool
    device: Device
    # Conditionings, by prompt_encoding.py.
    prompt_cache: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    # Latents → RGB for previews, by generation/latent_preview.py.
    preview_matrix: torch.Tensor | None = None
    # Duration of the last prompt's encoding, by prompt_encoding.py.
    encode_seconds: float = 0.0
    # Those that are on, by adapters/lora.py.
    active_adapters: tuple[Any, ...] = ()
    # Of the present borrow: LoRA's name → (content hash, adapter), by manager.py.
    adapters: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def is_inpainting(self) -> bool:
        """Whether the U-Net also takes the mask and the masked image."""
        return int(self.unet.config.in_channels) > self.latent_channels

    @property
    def vae_scale_factor(self) -> int:
        """Pixels along one side of a latent."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the shape (1, channels, rows, columns) of an image's latents; sides in pixels."""
        rows = height // self.vae_scale_factor
        columns = width // self.vae_scale_factor
        return 1, self.latent_channels, rows, columns

    def added_cond_kwargs(
        self, pooled: torch.Tensor | None, width: int, height: int
    ) -> dict[str, torch.Tensor]:
        """Return the U-Net's conditioning besides the prompt: empty except for SDXL.

        Args:
            pooled: The pooled prompt (1, width); None for a family that has none.
            width: Of the image, in pixels.
            height: Of the image, in pixels.
        """
        if pooled is None:
            return {}
        # Original size, crop offset, target size.
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.device.dtype)
        return {"text_embeds": pooled, "time_ids": sizes.to(self.device.torch_device)}

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Encode an image, sampling from the autoencoder's posterior.

        Args:
            pixels: (1, 3, height, width) in -1 … 1.
            generator: Source of the sample's noise.

        Returns:
            Latents (1, channels, rows, columns), scaled, in the device's number format.
        """
        pixels = pixels.to(self.device.torch_device, self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.sample(generator)
        scaling_factor = self.vae.config.scaling_factor
        stats = self._latent_stats()
        if stats is None:
            return (scaling_factor * latents).to(self.device.dtype)
        mean, std = stats
        latents = (latents - mean.to(latents)) * scaling_factor / std.to(latents)
        return latents.to(self.device.dtype)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pixels.

        Args:
            latents: (n, channels, rows, columns), scaled.

        Returns:
            Pixels (n, 3, height, width) in about -1 … 1, in the autoencoder's own number format.
        """
        latents = latents.to(self.vae.dtype)
        scaling_factor = self.vae.config.scaling_factor
        stats = self._latent_stats()
        if stats is None:
            latents = latents / scaling_factor
        else:
            mean, std = stats
            latents = latents * std.to(latents) / scaling_factor + mean.to(latents)
        return self.vae.decode(latents, return_dict=False)[0]

    def _latent_stats(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return mean and spread of each latent channel, if the autoencoder's config has them."""
        mean = self.vae.config.get("latents_mean")
        std = self.vae.config.get("latents_std")
        if mean is None or std is None:
            return None
        return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def load_model(info: ModelInfo, content_hash: str, device: Device) -> LoadedModel:
    """Read a model's parts from its folder.

    Args:
        info: What the library knows of the model.
        content_hash: The library's hash of its files.
        device: Where the parts go, and in which number format.

    Raises:
        BadFile: A file is broken.
        UnknownFamily: The U-Net needs an input that we do not give.
    """
    # Progress bars belong in a terminal, not in a worker's log.
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    unet = _load_component(UNet2DConditionModel, info, "unet", device, device.dtype)
    if unet.config.time_cond_proj_dim is not None:
        raise UnknownFamily(
            f"The model {info.name} cannot be used: its U-Net wants the guidance as an input "
            "(a distilled model); take the model's LCM LoRA or another model."
        )
    vae = _load_component(AutoencoderKL, info, "vae", device, device.vae_dtype)
    tokenizers = []
    text_encoders = []
    for tokenizer_folder, encoder_folder, encoder_class in TEXT_ENCODERS[info.family]:
        tokenizers.append(_load_tokenizer(info, tokenizer_folder))
        text_encoders.append(
            _load_component(encoder_class, info, encoder_folder, device, device.dtype)
        )
    index = json.loads((info.path / "model_index.json").read_text("utf-8"))
    scheduler_path = info.path / "scheduler" / "scheduler_config.json"
    force_zeros = bool(index.get("force_zeros_for_empty_prompt", True))
    return LoadedModel(
        info=info,
        content_hash=content_hash,
        unet=unet,
        vae=vae,
        tokenizers=tokenizers,
        text_encoders=text_encoders,
        scheduler_config=json.loads(scheduler_path.read_text("utf-8")),
        force_zeros_for_empty_prompt=info.family == "sdxl" and force_zeros,
        device=device,
    )


def _load_tokenizer(info: ModelInfo, subfolder: str) -> CLIPTokenizer:
    try:
        return CLIPTokenizer.from_pretrained(info.path, subfolder=subfolder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(f"The tokenizer of {info.name} cannot be read: {error!s:.200}") from error


def _load_component(
    component_class: Any, info: ModelInfo, subfolder: str, device: Device, dtype: torch.dtype
) -> Any:
    try:
        component, loading_info = component_class.from_pretrained(
            info.path,
            subfolder=subfolder,
            variant=info.variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadFile(
            f"The {subfolder} of {info.name} cannot be read "
            f"({type(error).__name__}: {error!s:.200}). Copy the model again."
        ) from error
    missing = find_missing_weights(loading_info)
    if missing:
        raise BadFile(
            f"The {subfolder} of {info.name} lacks weights, such as {missing[0]!s:.100}. "
            "Copy the model again."
        )
    return component.eval().requires_grad_(False).to(device.torch_device)
