"""Device and precision policy, in one table.

Knows: which devices there are, which number format suits each, how much memory they have, which of
torch's errors mean that memory is full or that the device is lost.
Does not know: models; what is loaded (cache.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
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
# Cards without half-precision arithmetic that holds: numbers overflow to NaN in float16.
BROKEN_FLOAT16_CARDS = "GTX 16"

# Parts of the messages of errors that have no class of their own, in lower case.
OUT_OF_MEMORY_WORDS = (
    "out of memory",  # MPS, and contexts of CUDA
    "can't allocate memory",  # the CPU
    "alloc_failed",  # cuBLAS, cuDNN
    "out_of_host_memory",  # XPU
    "out_of_device_memory",
)
LOST_DEVICE_WORDS = (
    "cuda error",
    "hip error",
    "cublas_status_",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cudnn_status_mapping_error",
    "device-side assert",
    "device_lost",  # XPU
    "device lost",
)
NO_KERNEL_WORDS = ("no kernel image", "invalid device function")
# The wheels of CUDA 13, which PyPI has, begin at Turing; those of CUDA 12.6 go back to Maxwell.
FIRST_CAPABILITY_OF_CUDA_13 = (7, 5)
WHEEL_INDEX = "https://download.pytorch.org/whl/"


@dataclass(frozen=True)
class Device:
    """Where and in which number format a worker computes."""

    torch_device: torch.device
    dtype: torch.dtype
    is_training: bool = False

    @property
    def kind(self) -> str:
        return self.torch_device.type

    @property
    def vae_dtype(self) -> torch.dtype:
        """The autoencoder's number format.

        What a training learns from is encoded in float32, once: in bfloat16 the latents are 0.6 %
        off, eight times the spread that the autoencoder itself gives them.
        """
        return torch.float32 if self.is_training else VAE_DTYPES[self.dtype]

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

    @property
    def shares_memory(self) -> bool:
        """Whether its memory is the machine's own."""
        return self.kind in ("cpu", "mps")

    @property
    def stores_fp8(self) -> bool:
        """Whether numbers of 8 bits can be kept there; Metal has none."""
        return self.kind != "mps"

    def get_memory(self) -> tuple[int, int]:
        """Return the bytes of memory in all, and those that are free."""
        if self.kind in ("cuda", "xpu"):
            backend = getattr(torch, self.kind)
            reserved = backend.memory_reserved(self.torch_device)
            try:
                free, total = backend.mem_get_info(self.torch_device)
            except RuntimeError:
                # The drivers of Intel's integrated GPUs cannot say (pytorch#194576).
                if self.kind != "xpu":
                    raise
                total = backend.get_device_properties(self.torch_device).total_memory
                free = total - reserved
            # What torch keeps for later counts as free.
            unused = reserved - backend.memory_allocated(self.torch_device)
            return int(total), int(free + unused)
        memory = psutil.virtual_memory()  # mps shares the machine's
        return int(memory.total), int(memory.available)

    def reset_peak_memory(self) -> int | None:
        """Begin to measure the most memory that is taken; the bytes now, None if nothing tells."""
        if self.kind not in ("cuda", "xpu"):
            return None
        backend = getattr(torch, self.kind)
        backend.reset_peak_memory_stats(self.torch_device)
        return int(backend.memory_allocated(self.torch_device))

    def get_peak_memory(self) -> int:
        """Return the most bytes since `reset_peak_memory`, on a device that tells."""
        return int(getattr(torch, self.kind).max_memory_allocated(self.torch_device))

    def empty_cache(self) -> None:
        """Give the memory that torch keeps for later back to the device."""
        if self.kind != "cpu":
            getattr(torch, self.kind).empty_cache()


def get_free_host_bytes() -> int:
    """Return the bytes of the machine's own memory that are free."""
    return int(psutil.virtual_memory().available)


def copy_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on a device, without waiting for the copy where that is safe.

    CUDA has read a tensor in pageable memory when the call returns. MPS may read it only after
    whoever made it has freed it (pytorch#139550): a training then learns from garbage.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextmanager
def fast_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 matrix products in TF32 on CUDA, as convolutions already are by default."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    previous = matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32 = previous


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory did not suffice, whatever its class.

    MPS, cuBLAS, cuDNN and the CPU raise plain errors that only their words tell.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _has_words(error, OUT_OF_MEMORY_WORDS)


@dataclass
class MemoryCheck:
    """What `catch_out_of_memory` found."""

    is_full: bool = False


@contextmanager
def catch_out_of_memory() -> Iterator[MemoryCheck]:
    """Leave the block early where memory does not suffice inside it, and let go what it held."""
    check = MemoryCheck()
    try:
        yield check
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The frames hold the very tensors that have to go.
        traceback.clear_frames(error.__traceback__)
        check.is_full = True


def is_device_lost(error: BaseException | None) -> bool:
    """Return whether an error, or one behind it, leaves the device unusable for this process."""
    while error is not None:
        if not is_out_of_memory(error) and (
            isinstance(error, torch.AcceleratorError)
            or (isinstance(error, RuntimeError) and _has_words(error, LOST_DEVICE_WORDS))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_words(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


def list_available_devices() -> list[str]:
    """Return the kinds of device that this machine has, best first."""
    return [
        kind for kind in DEVICE_PRIORITY if kind == "cpu" or getattr(torch, kind).is_available()
    ]


def resolve_name(name: str = "auto") -> str:
    """Return the one name of a device that several settings may mean, such as "cuda:0".

    Raises:
        InvalidSpec: The device is not on this machine.
    """
    available = list_available_devices()
    device = torch.device(available[0] if name == "auto" else name)
    if device.type not in available:
        raise InvalidSpec(
            [f"Device: {name} is not on this machine; available: {', '.join(available)}."]
        )
    if device.type not in ("cuda", "xpu"):
        return device.type
    index, count = device.index or 0, getattr(torch, device.type).device_count()
    if index >= count:
        kind = f"{device.type.upper()} devices"
        raise InvalidSpec([f"Device: {name} is not on this machine, which has {count} {kind}."])
    return f"{device.type}:{index}"


def resolve(name: str = "auto", precision: str = "auto") -> Device:
    """Return the device and number format behind two settings, and make it this process's own.

    Args:
        name: What torch calls the device ("cuda:1"); "auto" is the best one.
        precision: A key of `DTYPES`; "auto" is the device's default.

    Raises:
        InvalidSpec: The device is not on this machine, or cannot compute, or not in that format.
    """
    device = torch.device(resolve_name(name))
    if device.type in ("cuda", "xpu"):
        # Otherwise whatever asks or allocates without a device would mean the first card.
        getattr(torch, device.type).set_device(device)
    _try_kernel(device)
    dtype = _choose_dtype(device) if precision == "auto" else DTYPES[precision]
    if device.type == "cpu" and dtype == torch.float16:
        raise InvalidSpec(["Precision: CPUs cannot compute in float16; use float32."])
    return Device(device, dtype)


def _choose_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda" and BROKEN_FLOAT16_CARDS in torch.cuda.get_device_name(device):
        return torch.float32
    return DEFAULT_DTYPES[device.type]


def _try_kernel(device: torch.device) -> None:
    """Compute a little, so that a card that never will says why now and not in every job.

    Raises:
        InvalidSpec: torch has no kernels for the device, or its driver does not work.
    """
    if device.type == "cpu":
        return
    try:
        (torch.ones(1, device=device) + 1).item()
    except RuntimeError as error:
        if is_out_of_memory(error):
            return  # others have it all; it may be free by the first job
        raise InvalidSpec([_describe_useless_device(device, error)]) from error


def _describe_useless_device(device: torch.device, error: RuntimeError) -> str:
    if device.type != "cuda" or not _has_words(error, NO_KERNEL_WORDS):
        return (
            f"Device: {device} does not work ({error!s:.100}). Check its driver, or start with "
            "--device cpu."
        )
    card = torch.cuda.get_device_name(device)
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip:
        advice = "install the ROCm wheel of torch that names this card"
    else:
        wheel = "cu126" if capability < FIRST_CAPABILITY_OF_CUDA_13 else "cu130"
        advice = f"pip install --force-reinstall torch --index-url {WHEEL_INDEX}{wheel}"
    return (
        f"Device: torch {torch.__version__} has no kernels for {card} (capability "
        f"{'.'.join(map(str, capability))}). Install one that has: {advice}. Or start with "
        "--device cpu."
    )
