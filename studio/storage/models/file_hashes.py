"""The hashes by which other programs and sites call a file of weights.

Knows: AutoV1 (64 KiB from its middle), AutoV2 and sha256 (all of it), AutoV3 (the tensors alone),
what its header and Civitai's file beside it state; which are known without reading it through.
Does not know: what the file is, which files there are.

Source: what A1111 and Civitai's page "File hashes" document, as facts.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from studio.errors import StudioError
from studio.storage.content_hashes import ContentHashes, compute_short_hash
from studio.storage.models.sidecars import read_civitai_names

MIN_DIGEST_CHARS = 8
MAX_QUICK_BYTES = 512 * 2**20  # read through while somebody waits: under a second
MAX_TENSORS_BYTES = 2 * 2**30  # only LoRAs are called by that hash


class FileHashes:
    """The hashes of files, behind the home's cache."""

    def __init__(self, hashes: ContentHashes) -> None:
        self._hashes = hashes

    def has_digest(self, path: Path, digest: str, compute: bool = False) -> bool | None:
        """Return whether a file is called by a hash, None where that is not known.

        Args:
            path: The file.
            digest: The beginning of one of its hashes, lower case.
            compute: Whether it may be read through where nothing is known; only small ones are.
        """
        if len(digest) < MIN_DIGEST_CHARS:
            return None
        if len(digest) == MIN_DIGEST_CHARS and self._has_short_hash(path, digest):
            return True
        known = self._list_known(path, compute=False)
        if any(name.startswith(digest) for name in known):
            return True
        if not compute or not _is_quick(path):
            return False if _are_all_known(known) else None
        return any(name.startswith(digest) for name in self._list_known(path, compute=True))

    def has_version(self, path: Path, version: str) -> bool:
        """Return whether Civitai's file beside it says that it is a certain version."""
        return bool(version) and read_civitai_names(path)[0] == version

    def _list_known(self, path: Path, compute: bool) -> list[str]:
        """Return what Civitai states, the sha256, and the tensors' hash of what is small enough."""
        names = list(read_civitai_names(path)[1])
        with suppress(OSError):
            names.append(self._hashes.get_hash(path, [path], path.parent, compute))
        with suppress(OSError, StudioError):
            if path.stat().st_size <= MAX_TENSORS_BYTES:
                names.append(self._hashes.get_tensors_hash(path, compute))
        return [name for name in names if name]

    def _has_short_hash(self, path: Path, digest: str) -> bool:
        with suppress(OSError):
            return compute_short_hash(path) == digest
        return False


def _is_quick(path: Path) -> bool:
    try:
        return path.stat().st_size <= MAX_QUICK_BYTES
    except OSError:
        return False


def _are_all_known(names: list[str]) -> bool:
    """Return whether both long hashes are among them: of the file and of its tensors."""
    return len({name for name in names if len(name) == 64}) >= 2
