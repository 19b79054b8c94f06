"""Tensors that are expensive to compute, under keys that name everything they depend on.

Knows: memory and disk, truncated and foreign files. Does not know: what the tensors are.

A key is a sha256 over everything that decides a tensor, so nothing here is ever stale: a tensor
that depends on something else has another key. A file that is damaged, or belongs to another key,
counts as missing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from studio.errors import BadFile
from studio.storage import atomic

Tensors = dict[str, torch.Tensor]
MAX_MEMORY_BYTES = 2 * 2**30  # bytes that stay in memory although they are on disk


def make_key(*parts: object) -> str:
    """Return the sha256 over `parts`, in order."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class TensorCache:
    """Tensors in memory and, with a `folder`, on disk as well, where they outlive the process.

    With a folder the least recently used tensors leave memory beyond `max_bytes`.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_MEMORY_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.disk_error = ""  # the first fault of the disk
        self.memory_bytes = 0
        self._tensors: OrderedDict[str, Tensors] = OrderedDict()
        self._unsaved: set[str] = set()

    def get(self, key: str) -> Tensors | None:
        """Return the tensors of a key, or None if they have to be computed."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
            return self._tensors[key]
        if not self.folder:
            return None
        tensors = _read_file(self._key_path(key), key)
        if tensors is not None:
            self._keep_in_memory(key, tensors)
        return tensors

    def put(self, key: str, tensors: Tensors) -> None:
        """Store tensors. Where the disk refuses them, they stay in memory."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._unsaved.add(key)
        if self.folder:
            metadata = {"key": key, "sha256": _hash_tensors(tensors)}
            try:
                atomic.write(self._key_path(key), save(tensors, metadata))
                self._unsaved.discard(key)
            except BadFile as error:
                self.disk_error = self.disk_error or f"The cache is kept in memory only: {error}"
        self._keep_in_memory(key, tensors)

    def _keep_in_memory(self, key: str, tensors: Tensors) -> None:
        self.memory_bytes += _count_bytes(tensors) - _count_bytes(self._tensors.pop(key, {}))
        self._tensors[key] = tensors
        while self.memory_bytes > self.max_bytes:
            evictable = (name for name in self._tensors if name not in self._unsaved)
            oldest = next((name for name in evictable if name != key), None)
            if oldest is None:
                return
            self.memory_bytes -= _count_bytes(self._tensors.pop(oldest))

    def _key_path(self, key: str) -> Path:
        assert self.folder
        return self.folder / key[:2] / f"{key}.safetensors"


def _read_file(path: Path, key: str) -> Tensors | None:
    """Return the tensors of a file, or None unless it is intact and belongs to `key`."""
    try:
        metadata = atomic.read_safetensors_header(path).get("__metadata__")
        tensors = load(path.read_bytes())
    except (BadFile, SafetensorError, OSError, KeyError, ValueError):
        return None
    if not isinstance(metadata, dict) or metadata.get("key") != key:
        return None
    if metadata.get("sha256") != _hash_tensors(tensors):
        return None
    return tensors


def _hash_tensors(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        data = tensor.contiguous().flatten().view(torch.uint8).numpy()
        digest.update(memoryview(data))  # type: ignore[arg-type]
    return digest.hexdigest()


def _count_bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
