"""Device and precision policy, in one table.

Knows: which devices there are, which number format suits each, how much memory they have.
Does not know: models; what is loaded (residency.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from studio.errors import InvalidSpec

# What networks run in where nobody asked for another format. The autoencoder is apart: in float16 SDXL's and some SD 1.x
# autoencoders overflow and paint black, so it never runs in that.
NETWORKS = {
    "cuda": torch.float16,
    "xpu": torch.bfloat16,
    "mps": torch.float16,
    "cpu": torch.float32,
}
AUTOENCODERS = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.bfloat16,
    torch.float32: torch.float32,
}
FORMATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PREFERRED = ("cuda", "xpu", "mps", "cpu")


@dataclass(frozen=True)
class Device:
    """Where and in which format a worker computes."""

    torch: torch.device
    dtype: torch.dtype  # type: ignore[name-defined]

    @property
    def kind(self) -> str:
        return self.torch.type

    @property
    def autoencoder_dtype(self) -> torch.dtype:  # type: ignore[name-defined]
        return AUTOENCODERS[self.dtype]

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def title(self) -> str:
        """Its name for people."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch)
        threads = torch.get_num_threads()
        return {
            "cpu": f"CPU, {threads} thread{'s' * (threads != 1)}",
            "mps": "Apple GPU (mps)",
        }.get(self.kind, str(self.torch))

    def memory(self) -> tuple[int, int]:
        """(total, free) bytes."""
        if self.kind in ("cuda", "xpu"):
            backend = getattr(torch, self.kind)
            free, total = backend.mem_get_info(self.torch)
            kept = backend.memory_reserved(self.torch) - backend.memory_allocated(
                self.torch
            )  # torch's own, but unused
            return int(total), int(free + kept)
        memory = psutil.virtual_memory()  # mps shares the machine's
        return int(memory.total), int(memory.available)

    def empty_cache(self) -> None:
        """Give memory that torch keeps for later back to the device."""
        if self.kind != "cpu":
            getattr(torch, self.kind).empty_cache()


def there() -> list[str]:
    """The kinds of device that this machine has, best first."""
    return [kind for kind in PREFERRED if kind == "cpu" or getattr(torch, kind).is_available()]


def resolve(name: str = "auto", precision: str = "auto") -> Device:
    """The device of that name; auto is the best one. Raises InvalidSpec for one that is not there or cannot do it."""
    found = there()
    name = found[0] if name == "auto" else name
    device = torch.device(name)
    if device.type not in found:
        raise InvalidSpec([f"Device: {name} is not on this machine; there is {', '.join(found)}."])
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidSpec(
            [
                f"Device: {name} is not on this machine; it has {torch.cuda.device_count()} CUDA devices."
            ]
        )
    dtype = NETWORKS[device.type] if precision == "auto" else FORMATS[precision]
    if device.type == "cpu" and dtype == torch.float16:
        raise InvalidSpec(["Precision: a CPU cannot compute in float16; use float32."])
    return Device(device, dtype)
