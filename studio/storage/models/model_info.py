"""What the library knows of a model, whether it is a folder, a single file, or pieced together.

Knows: where each part's weights and configs come from. Does not know: how a folder or a header is
read (library.py, single_files.py); torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from studio.core.families.family import FamilyName

# Whose names the tensors of a part go by: of the original repositories (LDM, sgm), of the classes
# of diffusers, of transformers' CLIP with and without its first word, of OpenCLIP.
Naming = Literal["ldm", "diffusers", "clip", "bare clip", "open clip"]
FP8_DTYPES = ("F8_E4M3", "F8_E5M2")
DTYPE_BY_SAFETENSORS_CODE = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    **dict.fromkeys(FP8_DTYPES, "float8"),
}


@dataclass(frozen=True)
class PartFile:
    """The weights of one part of a model, in a file that may hold others too.

    Attributes:
        path: The file.
        prefix: What its tensors' names begin with.
        naming: Whose names follow.
        config: What its class is built with.
        num_elements: How many numbers it holds.
    """

    path: Path
    prefix: str
    naming: Naming
    config: Mapping[str, Any] = field(hash=False)
    num_elements: int = 0


@dataclass(frozen=True)
class ModelInfo:
    """A model: a folder in diffusers' layout, or a single file.

    `native_size` is the side in pixels of the images that it was trained on, `variant` the ending
    of its weight files (None or "fp16"), `activation_elements_per_pixel` about how many numbers its
    denoiser holds at once for each pixel of one image, `decode_elements_per_pixel` its autoencoder
    for each pixel that it decodes. An inpainting model's U-Net is also shown
    the mask and the unmasked image: 9 channels instead of 4.

    What is in `parts` and `configs` comes from there, all else from the folder `path`
    (model_configs.py reads both alike).
    """

    name: str
    path: Path
    family: FamilyName
    prediction_type: str
    native_size: int
    dtype: str
    size_bytes: int
    variant: str | None
    bundled: bool
    activation_elements_per_pixel: int
    decode_elements_per_pixel: int
    is_inpainting: bool = False
    component_bytes: Mapping[str, int] = field(default_factory=dict, compare=False)  # by folder
    # Settings that its authors give, where they are not the usual ones.
    recommended_settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    # Weights that lie in files, by folder.
    parts: Mapping[str, PartFile] = field(default_factory=dict, hash=False)
    # Configs that are in no folder, by folder.
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    # Parts that it has not: why, as a sentence with what to do, by folder.
    missing: Mapping[str, str] = field(default_factory=dict, hash=False)
    # What was decided beside its files: (what, how).
    overrides: tuple[tuple[str, str], ...] = ()
    # Sentences that its owner should read.
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_zero_snr(self) -> bool:
        """Whether its last timestep is nothing but noise, as far as this was read or decided."""
        return bool(self.configs.get("scheduler", {}).get("rescale_betas_zero_snr"))

    @property
    def is_file(self) -> bool:
        """Whether it is a single file."""
        return any(part.path == self.path for part in self.parts.values())

    @property
    def lacks_only_vae(self) -> bool:
        """Whether nothing is missing but an autoencoder, which a request can name."""
        return set(self.missing) == {"vae"}

    def with_part(self, component: str, part: PartFile, bytes_per_element: int) -> ModelInfo:
        """Return the model with other weights for one of its parts.

        Args:
            component: The part's folder in diffusers' layout.
            part: Its weights.
            bytes_per_element: Of the number format that `dtype` says.
        """
        component_bytes = dict(self.component_bytes)
        component_bytes[component] = part.num_elements * bytes_per_element
        return replace(
            self,
            parts={**self.parts, component: part},
            missing={name: why for name, why in self.missing.items() if name != component},
            component_bytes=component_bytes,
            size_bytes=sum(component_bytes.values()),
        )
