"""Model families: from a folder in diffusers layout to its parts on a device.

Knows: what SD 1.x, SD 2.x and SDXL consist of, and what SDXL's U-Net wants to be told besides the prompt.
Does not know: when to load (manager.py), prompts (prompts.py), the loop (generation/).

Every part is given its number format: transformers would keep the one that was saved and diffusers take float32, which
makes a half text encoder beside a float U-Net.
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
from studio.errors import BadFile, UnknownFamily
from studio.storage.models.library import ModelInfo

ENCODERS: dict[Family, tuple[tuple[str, str, type], ...]] = {
    "sd1": (("tokenizer", "text_encoder", CLIPTextModel),),
    "sd2": (("tokenizer", "text_encoder", CLIPTextModel),),
    "sdxl": (
        ("tokenizer", "text_encoder", CLIPTextModel),
        ("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
    ),
}


@dataclass
class Parts:
    """A loaded model. Whoever borrows it leaves it as it was."""

    info: ModelInfo
    content: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    tokenizers: list[CLIPTokenizer]
    text_encoders: list[torch.nn.Module]
    shipped: Mapping[str, Any]  # its scheduler_config.json as it came
    zeros_for_empty: (
        bool  # an empty negative prompt is zeros (SDXL) instead of the encoded empty text
    )
    device: Device
    remembered: OrderedDict[Any, Any] = field(
        default_factory=OrderedDict
    )  # conditionings, by prompts.py
    colours: torch.Tensor | None = None  # latents → RGB for previews, by generation/preview.py
    encoding: float = 0.0  # seconds that reading a prompt took last, by prompts.py
    loras: tuple[Any, ...] = ()  # those that are on, by loras.py
    adapters: Mapping[str, tuple[str, Any]] = field(
        default_factory=dict
    )  # of the present borrow: name → content, adapter

    @property
    def channels(self) -> int:
        """Of latents."""
        return int(self.vae.config.latent_channels)

    @property
    def sees_mask(self) -> bool:
        """Whether its U-Net was made for inpainting: it is shown the mask and what is left of the picture beside the latents."""
        return int(self.unet.config.in_channels) > self.channels

    @property
    def scale(self) -> int:
        """Pixels along one side of a latent."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        return 1, self.channels, height // self.scale, width // self.scale

    def added(
        self, pooled: torch.Tensor | None, width: int, height: int
    ) -> dict[str, torch.Tensor]:
        """What the U-Net is told besides the prompt: for SDXL the pooled prompt and the sizes, else nothing."""
        if pooled is None:
            return {}
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.device.dtype).to(
            self.device.torch
        )
        return {"text_embeds": pooled, "time_ids": sizes}

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Pixels (1, 3, height, width) in -1 … 1 → latents, drawn with `generator` from what the autoencoder thinks possible."""
        pixels = pixels.to(self.device.torch, self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.sample(generator)
        mean, std = self._spread()
        scale = self.vae.config.scaling_factor
        if mean is not None:
            return ((latents - mean.to(latents)) * scale / std.to(latents)).to(self.device.dtype)  # type: ignore[union-attr]
        return (scale * latents).to(self.device.dtype)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents → pixels in about -1 … 1, in the autoencoder's own number format."""
        latents, (mean, std) = latents.to(self.vae.dtype), self._spread()
        if mean is not None:
            latents = latents * std.to(latents) / self.vae.config.scaling_factor + mean.to(latents)  # type: ignore[union-attr]
        else:
            latents = latents / self.vae.config.scaling_factor
        return self.vae.decode(latents, return_dict=False)[0]

    def _spread(self) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        """Mean and spread of each latent channel, where the autoencoder names them."""
        mean, std = (self.vae.config.get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return None, None
        return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def load(info: ModelInfo, content: str, device: Device) -> Parts:
    """Read a model's parts from its folder. Raises BadFile for broken files, UnknownFamily for what cannot be run."""
    transformers.utils.logging.disable_progress_bar()  # its home is a terminal, not a worker's log
    diffusers.utils.logging.disable_progress_bar()
    unet = _part(UNet2DConditionModel, info, "unet", device, device.dtype)
    if unet.config.time_cond_proj_dim is not None:
        raise UnknownFamily(
            f"The model {info.name} cannot be used: its U-Net wants the guidance as an input (a distilled model); "
            "take the model's LCM LoRA or another model."
        )
    vae = _part(AutoencoderKL, info, "vae", device, device.autoencoder_dtype)
    tokenizers, encoders = [], []
    for tokenizer, encoder, kind in ENCODERS[info.family]:
        try:
            tokenizers.append(
                CLIPTokenizer.from_pretrained(info.path, subfolder=tokenizer, local_files_only=True)
            )
        except (OSError, ValueError, TypeError) as error:
            raise BadFile(f"The tokenizer of {info.name} cannot be read: {error!s:.200}") from error
        encoders.append(_part(kind, info, encoder, device, device.dtype))
    index = json.loads((info.path / "model_index.json").read_text("utf-8"))
    shipped = json.loads((info.path / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Parts(
        info,
        content,
        unet,
        vae,
        tokenizers,
        encoders,
        shipped,
        info.family == "sdxl" and bool(index.get("force_zeros_for_empty_prompt", True)),
        device,
    )


def _part(kind: Any, info: ModelInfo, name: str, device: Device, dtype: torch.dtype) -> Any:
    try:
        part, told = kind.from_pretrained(
            info.path,
            subfolder=name,
            variant=info.variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadFile(
            f"The {name} of {info.name} cannot be read ({type(error).__name__}: {error!s:.200}). "
            "Copy the model again."
        ) from error
    missing = sorted(key for key in told["missing_keys"] if not key.endswith("position_ids"))
    if missing or told["mismatched_keys"]:
        raise BadFile(
            f"The {name} of {info.name} lacks weights, such as {(missing or list(told['mismatched_keys']))[0]!s:.100}. "
            "Copy the model again."
        )
    return part.eval().requires_grad_(False).to(device.torch)
