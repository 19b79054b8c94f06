"""A card that is none: tensors that say they are on CUDA, compute on the CPU, and refuse to meet those that are there.

It tells devices and waits, not numbers: whatever a real card would refuse to mix raises, and each copy or look that a real
card would make the program wait for is counted, with the line of the studio that asked for it. Imports nothing of the studio.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten
CARD = torch.device("cuda", 0)
TOTAL_BYTES = 24 * 2**30
# What a card computes only after it knows a number that the program then waits for.
WAITING = {
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.equal: "equal",
    aten._unique2: "unique",
    aten.linalg_lstsq: "lstsq",
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Claim:
    """The bytes of a storage on the card, as long as a tensor of it lives."""

    def __init__(self, card: Card, raw: torch.Tensor) -> None:
        storage = raw.untyped_storage()
        self.card, self.key, self.size = card, storage.data_ptr(), storage.nbytes()
        card.claim(self)

    def __del__(self) -> None:
        self.card.release(self)


class CardTensor(torch.Tensor):
    """A tensor on the card; `raw` holds its numbers, `claim` its place."""

    raw: torch.Tensor
    claim: Claim | None

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> CardTensor:
        # It shares the numbers, and is dispatched like a tensor on CUDA.
        tensor: Any = torch.Tensor._make_subclass(cls, raw, device_for_backend_keys=CARD)
        tensor.raw = raw
        tensor.claim = Claim(Card.current, raw) if Card.current else None
        return tensor

    @property
    def device(self) -> torch.device:
        return CARD

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Moves are made here: torch's own code takes these tensors for ones on the CPU."""
        kwargs = kwargs or {}
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError(f"a tensor on {CARD} has no numpy array; move it to the CPU first")
        if func is torch.Tensor.tolist:
            return args[0].to("cpu").tolist()
        if func is torch.Tensor.cpu:
            return args[0].to("cpu")
        if func is torch.Tensor.to:
            return _move(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():  # and no class for what is on the CPU
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Card.current, "a tensor of a card that is gone"
        return Card.current.compute(func, args, kwargs or {})


def _move(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Do what `Tensor.to` does."""
    kwargs.pop("copy", None)
    if args and isinstance(args[0], torch.Tensor):
        device, dtype = args[0].device, args[0].dtype
        non_blocking = bool(kwargs.get("non_blocking"))
    else:
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
    dtype = dtype or tensor.dtype
    if device is None or device.type == tensor.device.type:
        # The dtype alone; what is like that already is returned itself.
        return tensor if dtype == tensor.dtype else torch.ops.aten._to_copy(tensor, dtype=dtype)
    return torch.ops.aten._to_copy(tensor, dtype=dtype, device=device, non_blocking=non_blocking)


class CardGenerator(torch.Generator):
    """A source of random numbers; one that is made for the card is told from one on the CPU."""

    on_card: ClassVar[set[int]] = set()  # addresses of theirs in C++

    def __new__(cls, device: Any = "cpu") -> CardGenerator:
        generator = super().__new__(cls, "cpu")
        if torch.device(device).type == CARD.type:
            cls.on_card.add(generator._cdata)  # type: ignore[attr-defined]
        else:
            cls.on_card.discard(generator._cdata)  # type: ignore[attr-defined]
        return generator


class Card(TorchDispatchMode):
    """What is computed while it is there; `waits` counts what a real card would make the program wait for."""

    current: Card | None = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.total_bytes = TOTAL_BYTES
        self.peak_bytes = 0  # the most at once; it may be set back
        self.used_bytes = 0  # kept beside the claims: there are thousands, and every result is one
        self._claims: dict[int, list[int]] = {}  # address → bytes, and how many tensors claim them
        self._lock = RLock()  # tensors of other threads go as well

    def claim(self, claim: Claim) -> None:
        """Take a storage's bytes; raise as a full card does."""
        with self._lock:
            if claim.key in self._claims:
                self._claims[claim.key][1] += 1
                return
            self._claims[claim.key] = [claim.size, 1]
            self.used_bytes += claim.size
            if self.used_bytes > self.total_bytes:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory: {claim.size} bytes on a card of {self.total_bytes}."
                )
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def release(self, claim: Claim) -> None:
        with self._lock:
            entry = self._claims.get(claim.key)
            if entry is None:
                return
            entry[1] -= 1
            if not entry[1]:
                self.used_bytes -= self._claims.pop(claim.key)[0]

    def get_memory(self, *_device: Any) -> tuple[int, int]:
        return max(0, self.total_bytes - self.used_bytes), self.total_bytes

    @property
    def num_waits(self) -> int:
        return sum(self.waits.values())

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count only what happens inside the block: kind and place → how often."""
        before = self.waits.copy()
        block: Counter[str] = Counter()
        yield block
        block.update(self.waits - before)

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        values, spec = tree_flatten((args, kwargs))
        cards = [value for value in values if isinstance(value, CardTensor)]
        target = next((value for value in values if isinstance(value, torch.device)), None)
        to_card = target is not None and target.type == CARD.type
        if not cards and not to_card:
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._check_meeting(func, values, cards)
        self._check_generator(kwargs)
        self._count_wait(func, args, kwargs, to_card)
        plain = [_to_plain(value) for value in values]
        raw_args, raw_kwargs = tree_unflatten(plain, spec)
        if func.overloadpacket is aten.copy_ and "non_blocking" in raw_kwargs:
            raw_kwargs["non_blocking"] = False
        results, result_spec = tree_flatten(func(*raw_args, **raw_kwargs))
        leaves_card = target is not None and not to_card
        if leaves_card or not (to_card or cards) or self._is_on_cpu(func, args):
            return tree_unflatten(results, result_spec)
        wrappers = {
            id(card.raw): card for card in cards
        }  # what was written to stays the same tensor
        wrapped: list[Any] = []
        for result in results:
            if isinstance(result, torch.Tensor):
                wrapper = wrappers.get(id(result))
                result = CardTensor(result) if wrapper is None else wrapper
            wrapped.append(result)
        return tree_unflatten(wrapped, result_spec)

    @staticmethod
    def _is_on_cpu(func: Any, args: Any) -> bool:
        """Whether the result is a tensor of the CPU that was written to."""
        return func.overloadpacket is aten.copy_ and not isinstance(args[0], CardTensor)

    def _check_meeting(self, func: Any, values: list[Any], cards: list[CardTensor]) -> None:
        """Refuse what a real card refuses: tensors of two devices in one call."""
        packet = func.overloadpacket
        if not cards or packet in (aten.copy_, aten._to_copy):
            return
        hosts = [
            value
            for value in values
            if isinstance(value, torch.Tensor)
            and not isinstance(value, CardTensor)
            and value.device.type == "cpu"
        ]
        if packet in INDEXING and isinstance(values[0], CardTensor):
            indices = [host for host in hosts if not host.is_floating_point()]
            self._note("copy", len(indices))  # it fetches them
            hosts = [host for host in hosts if host.is_floating_point() and host.ndim]
        elif torch.Tag.pointwise in func.tags:
            hosts = [host for host in hosts if host.ndim]  # numbers may come from anywhere
        if hosts:
            shapes = [tuple(host.shape) for host in hosts]
            raise RuntimeError(
                f"{func}: all tensors have to be on one device, {CARD} or cpu (there: {shapes})"
            )

    @staticmethod
    def _check_generator(kwargs: dict[str, Any]) -> None:
        generator = kwargs.get("generator")
        if generator is not None and generator._cdata not in CardGenerator.on_card:
            raise RuntimeError(f"the generator is on the CPU, the tensor on {CARD}")

    def _count_wait(self, func: Any, args: Any, kwargs: dict[str, Any], to_card: bool) -> None:
        packet = func.overloadpacket
        if packet in WAITING:
            self._note(WAITING[packet])
        elif packet is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self._note("nonzero")
        elif packet is aten._to_copy:
            changes_device = isinstance(args[0], CardTensor) != (
                to_card or (kwargs.get("device") is None and isinstance(args[0], CardTensor))
            )
            if changes_device and not kwargs.get("non_blocking"):
                self._note("copy")
        elif packet is aten.copy_:
            changes_device = isinstance(args[0], CardTensor) != isinstance(args[1], CardTensor)
            if (
                changes_device
                and not (len(args) > 2 and args[2])
                and not kwargs.get("non_blocking")
            ):
                self._note("copy")

    def _note(self, kind: str, times: int = 1) -> None:
        if not times:
            return
        frame, library = sys._getframe(1), ""
        while frame is not None:
            file = frame.f_code.co_filename
            # A mode that draws the noise stands between diffusers and torch.
            if "/studio/" in file and frame.f_code.co_name != "__torch_function__":
                break
            if "/diffusers/schedulers/" in file or "/torchsde/" in file:
                library = library or "diffusers' scheduler, for "
            frame = frame.f_back  # type: ignore[assignment]
        place = "a test"
        if frame is not None:
            module = frame.f_code.co_filename.rpartition("/")[2].removesuffix(".py")
            place = f"{module}.{frame.f_code.co_name}"
        self.waits[f"{kind} by {library}{place}"] += times


def _to_plain(value: Any) -> Any:
    if isinstance(value, CardTensor):
        return value.raw
    if isinstance(value, torch.device) and value.type == CARD.type:
        return torch.device("cpu")
    return value


def _compute(card: Card, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    return card.compute(func, args, kwargs or {})


# Not in the class: torch would wrap it there, and load its compiler.
Card.__torch_dispatch__ = _compute  # type: ignore[method-assign]


def _let_layers_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers bring layers to the card and back.

    It puts a tensor's numbers into the old one, which is of another class; for torchao's tensors, which are so too, it
    swaps the two instead.
    """
    from diffusers.hooks import group_offloading

    def swap(parameter: Any, source: Any) -> None:
        source._is_param = isinstance(parameter, torch.nn.Parameter)
        torch.utils.swap_tensors(parameter, source)

    monkeypatch.setattr(group_offloading, "_is_torchao_tensor", lambda tensor: True)
    monkeypatch.setattr(group_offloading, "_swap_torchao_tensor", swap)


@contextmanager
def insert_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """Put the card into this machine until the block is left."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the card is there for this thread alone
    import torch._dynamo  # optimizers load it, and it wants torch's functions as they are

    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "a fake card",
        "get_device_capability": (8, 0),
        "is_bf16_supported": True,
        "memory_reserved": 0,
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "set_device": None,
        "synchronize": None,
        "_lazy_init": None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda *args: Card.current and Card.current.get_memory()
    )
    monkeypatch.setattr(torch, "Generator", CardGenerator)
    # Otherwise a module would put the tensor into its old parameter, which is of another class.
    compatible = torch._has_compatible_shallow_copy_type
    monkeypatch.setattr(
        torch,
        "_has_compatible_shallow_copy_type",
        lambda old, new: CardTensor not in (type(old), type(new)) and compatible(old, new),
    )
    _let_layers_come(monkeypatch)
    group = torch._C._group_tensors_by_device_and_dtype  # type: ignore[attr-defined]

    def group_on_card(lists: Any, with_indices: bool = False) -> Any:
        groups = group(lists, with_indices)
        return {
            (lists_of[0][0][0].device, dtype): lists_of for (_, dtype), lists_of in groups.items()
        }

    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", group_on_card)
    card = Card()
    lifts = torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
    Card.current = card
    try:
        # The engine has no thread for the card.
        with torch.autograd.set_multithreading_enabled(False), card:
            yield card
    finally:
        Card.current = None
        torch._C._set_only_lift_cpu_tensors(lifts)  # type: ignore[attr-defined]
