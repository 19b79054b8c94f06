"""Tensors that are dear to compute, under keys that say all they depend on.

Knows: memory and disk, torn and foreign files. Does not know: what the tensors are.

A key is a sha256 over everything that decides a tensor, so nothing here is ever stale: what depends on something else has another
key. A file that is not whole, or not the key's, is as good as none.
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
from studio.storage.models.library import ModelInfo

Tensors = dict[str, torch.Tensor]
KEEP = 2 * 2**30  # bytes that stay in memory although they are on disk


def key(*parts: object) -> str:
    """sha256 over parts, in order."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()


def content(info: ModelInfo, *parts: str) -> str:
    """sha256 over the files of some of a model's parts (such as "vae"): two models may share them."""
    total = hashlib.sha256()
    for part in parts:
        for path in sorted((info.path / part).glob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
                with open(path, "rb") as file:
                    total.update(
                        f"{part}/{path.name}\0".encode()
                        + hashlib.file_digest(file, "sha256").digest()
                    )
    return total.hexdigest()


class Cache:
    """With a `folder` tensors outlive the program, and those least recently used leave memory beyond `keep` bytes."""

    def __init__(self, folder: Path | None = None, keep: int = KEEP) -> None:
        self.folder, self.keep = folder, keep
        self.note = ""  # what went wrong with the disk, once
        self.bytes = 0
        self._held: OrderedDict[str, Tensors] = OrderedDict()
        self._unsaved: set[str] = set()

    def get(self, key: str) -> Tensors | None:
        """The tensors of a key; None if they have to be computed (anew)."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        found = _read(self._path(key), key) if self.folder else None
        if found is not None:
            self._hold(key, found)
        return found

    def put(self, key: str, tensors: Tensors) -> None:
        """Keep tensors. A disk that does not take them is noted: then they stay in memory."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._unsaved.add(key)
        if self.folder:
            try:
                atomic.write(
                    self._path(key), save(tensors, {"key": key, "sha256": _digest(tensors)})
                )
                self._unsaved.discard(key)
            except BadFile as error:
                self.note = self.note or f"The cache is kept in memory only: {error}"
        self._hold(key, tensors)

    def _hold(self, key: str, tensors: Tensors) -> None:
        self.bytes += _bytes(tensors) - _bytes(self._held.pop(key, {}))
        self._held[key] = tensors
        while self.bytes > self.keep:
            gone = next(
                (other for other in self._held if other not in self._unsaved and other != key), None
            )
            if gone is None:
                return
            self.bytes -= _bytes(self._held.pop(gone))

    def _path(self, key: str) -> Path:
        assert self.folder
        return self.folder / key[:2] / f"{key}.safetensors"


def _read(path: Path, key: str) -> Tensors | None:
    try:
        told = atomic.safetensors_header(path).get("__metadata__")
        tensors = load(path.read_bytes())
    except (BadFile, SafetensorError, OSError, KeyError, ValueError):
        return None
    whole = (
        isinstance(told, dict) and told.get("key") == key and told.get("sha256") == _digest(tensors)
    )
    return tensors if whole else None


def _digest(tensors: Tensors) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return total.hexdigest()


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
