"""From a file of weights to an upscaler that can be called.

Knows: which of our two networks a state dict belongs to, that all others are spandrel's, number
formats.
Does not know: where files lie (storage/models/upscalers.py), tiles (tiles.py), who needs one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from studio.engine.models.devices import Device, is_device_lost, is_out_of_memory
from studio.engine.upscaling.compact import CompactNetwork
from studio.engine.upscaling.rrdb import RrdbNetwork
from studio.errors import BadFile
from studio.storage.models.upscaler_header import rename_tensors
from studio.storage.models.upscaler_shapes import CompactSizes, measure_upscaler
from studio.storage.odd_files import explain_odd_file

# What a network of another kind sees around a tile; of ours the same, or less where that is all
# that it looks at.
MAX_REACH_PX = 32
_MISSING_LIBRARY = (
    "needs the library spandrel, which is not installed. Install it with pip install "
    "'picture-studio[upscale]', or use an ESRGAN or Real-ESRGAN upscaler."
)


@dataclass
class Upscaler:
    """A network that enlarges, on a device.

    Attributes:
        network: Maps (n, channels, h, w) from 0 to 1 to the same, `scale` times as large.
        channels: 3 for colour, 1 for grey.
        scale: How many times larger its result is; 1 or more.
        multiple: What height and width of its input have to be multiples of.
        reach_px: How far around a pixel it looks, as far as that counts.
        dtype: The number format that it is in.
    """

    network: nn.Module
    channels: int
    scale: int
    multiple: int
    reach_px: int
    dtype: torch.dtype

    @property
    def modules(self) -> list[nn.Module]:
        """What counts for memory."""
        return [self.network]


def load_upscaler(path: Path, name: str, device: Device) -> Upscaler:
    """Load an upscaler, ready for inference.

    Args:
        path: A safetensors file.
        name: What errors call it.
        device: Where it goes, and in which number format.

    Raises:
        BadFile: It cannot be read, is damaged, or needs a library that is not there.
    """
    with explain_odd_file(path):
        try:
            original = load_file(path)
        except SafetensorError as error:
            raise BadFile(
                f"The upscaler {name} cannot be read ({error!s:.100}); copy it again."
            ) from None
    tensors = {new: original[old] for old, new in rename_tensors(list(original)).items()}
    try:
        network = build_network(tensors)
    except BadFile as error:
        raise BadFile(f"The upscaler {name} cannot be used: {error}") from None
    if network is None:
        return _load_with_spandrel(original, name, device)
    network.load_state_dict(tensors, strict=True, assign=True)
    return Upscaler(
        network=_put_on_device(network, device),
        channels=network.channels,
        scale=network.scale,
        multiple=network.multiple,
        reach_px=min(network.reach_px, MAX_REACH_PX * network.multiple),
        dtype=device.dtype,
    )


def build_network(tensors: dict[str, Tensor]) -> CompactNetwork | RrdbNetwork | None:
    """Return the network that tensors belong to, on no device and without their numbers.

    Args:
        tensors: A whole state dict, under today's names.

    Returns:
        None for a network of another kind.

    Raises:
        BadFile: It is one of ours, but tensors are missing or too many, or of the wrong shape.
    """
    sizes = measure_upscaler({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if sizes is None:
        return None
    with torch.device("meta"):
        if isinstance(sizes, CompactSizes):
            return CompactNetwork(**asdict(sizes))
        return RrdbNetwork(**asdict(sizes))


def _load_with_spandrel(tensors: dict[str, Tensor], name: str, device: Device) -> Upscaler:
    """Load a network of any kind that spandrel knows."""
    try:
        import spandrel
    except ImportError:
        raise BadFile(f"The upscaler {name} {_MISSING_LIBRARY}") from None
    try:
        model: Any = spandrel.ModelLoader(torch.device("cpu")).load_from_state_dict(tensors)
    except Exception as error:  # of odd shapes its networks raise anything
        if is_out_of_memory(error) or is_device_lost(error):
            raise
        raise BadFile(
            f"The upscaler {name} is of a kind that spandrel {spandrel.__version__} does not know "
            f"({type(error).__name__})."
        ) from None
    channels = model.input_channels
    if not isinstance(model, spandrel.ImageModelDescriptor) or (
        channels != model.output_channels or channels not in (1, 3)
    ):
        raise BadFile(f"The upscaler {name} does not enlarge images ({model.purpose}).")
    dtype = device.dtype
    if dtype == torch.float16 and not model.supports_half:
        dtype = torch.float32
    requirements = model.size_requirements
    return Upscaler(
        network=_put_on_device(model.model, device, dtype),
        channels=channels,
        scale=model.scale,
        multiple=requirements.multiple_of,
        reach_px=MAX_REACH_PX,
        dtype=dtype,
    )


def _put_on_device(
    network: nn.Module, device: Device, dtype: torch.dtype | None = None
) -> nn.Module:
    return network.eval().requires_grad_(False).to(device.torch_device, dtype or device.dtype)
