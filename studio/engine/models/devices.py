"""Device and precision policy, in one table.

Knows: which devices there are, which number format suits each, how much memory they have.
Does not know: models; what is loaded (cache.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from studio.errors import InvalidSpec

# What networks run in where nobody asked for another format. The autoencoder has its own table: in
# float16 SDXL's and some SD 1.x autoencoders overflow and paint black, so it never runs in that.
DEFAULT_DTYPES = {
    "cuda": torch.float16,
    "xpu": torch.bfloat16,
    "mps": torch.float16,
    "cpu": torch.float32,
}
VAE_DTYPES = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.bfloat16,
    torch.float32: torch.float32,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DEVICE_PRIORITY = ("cuda", "xpu", "mps", "cpu")


@dataclass(frozen=True)
class Device:
    """Where and in which number format a worker computes."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def kind(self) -> str:
        return self.torch_device.type

    @property
    def vae_dtype(self) -> torch.dtype:
        return VAE_DTYPES[self.dtype]

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def title(self) -> str:
        """The device's name for people."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        if self.kind == "cpu":
            threads = torch.get_num_threads()
            plural = "" if threads == 1 else "s"
            return f"CPU, {threads} thread{plural}"
        if self.kind == "mps":
            return "Apple GPU (mps)"
        return str(self.torch_device)

    def get_memory(self) -> tuple[int, int]:
        """Return the bytes of memory in all, and those that are free."""
        if self.kind in ("cuda", "xpu"):
            backend = getattr(torch, self.kind)
            free, total = backend.mem_get_info(self.torch_device)
            reserved = backend.memory_reserved(self.torch_device)
            # What torch keeps for later counts as free.
            unused = reserved - backend.memory_allocated(self.torch_device)
            return int(total), int(free + unused)
        memory = psutil.virtual_memory()  # mps shares the machine's
        return int(memory.total), int(memory.available)

    def empty_cache(self) -> None:
        """Give the memory that torch keeps for later back to the device."""
        if self.kind != "cpu":
            getattr(torch, self.kind).empty_cache()


def list_available_devices() -> list[str]:
    """Return the kinds of device that this machine has, best first."""
    return [
        kind for kind in DEVICE_PRIORITY if kind == "cpu" or getattr(torch, kind).is_available()
    ]


def resolve(name: str = "auto", precision: str = "auto") -> Device:
    """Return the device and number format behind two settings.

    Args:
        name: What torch calls the device ("cuda:1"); "auto" is the best one.
        precision: A key of `DTYPES`; "auto" is the device's default.

    Raises:
        InvalidSpec: The device is not on this machine, or cannot compute in that format.
    """
    available = list_available_devices()
    if name == "auto":
        name = available[0]
    device = torch.device(name)
    if device.type not in available:
        raise InvalidSpec(
            [f"Device: {name} is not on this machine; there is {', '.join(available)}."]
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InvalidSpec([f"Device: {name} is not on this machine; it has {count} CUDA devices."])
    dtype = DEFAULT_DTYPES[device.type] if precision == "auto" else DTYPES[precision]
    if device.type == "cpu" and dtype == torch.float16:
        raise InvalidSpec(["Precision: a CPU cannot compute in float16; use float32."])
    return Device(device, dtype)
