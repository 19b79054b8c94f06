"""Captions that captioners have written, by image content, so that none is computed twice.

Knows: one file for each way of asking, a line for each image. Does not know: captioners, what
becomes of the captions.

A line is appended in one write; one that a kill has cut off is passed over when the file is read,
and its image captioned again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.odd_files import read_file

MAX_FILE_BYTES = 2**30  # more than a million long captions


class CaptionCache:
    """All captions of one way of asking; `key` is a hash of all that decides them but the image."""

    def __init__(self, home: Path, key: str) -> None:
        self._file = home / "cache" / "captions" / f"{key}.jsonl"
        self._write_lock = threading.Lock()

    def read_all(self) -> dict[str, str]:
        """Read all captions by the sha256 of their image; the last one counts.

        Raises:
            BadFile: the file is there but cannot be read.
        """
        try:
            lines = read_file(self._file, MAX_FILE_BYTES).split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BadFile(f"{self._file} cannot be read: {error.strerror}.") from None
        captions: dict[str, str] = {}
        for line in lines:
            try:
                content_hash, caption = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(content_hash, str) and isinstance(caption, str):
                captions[content_hash] = caption
        return captions

    def add(self, captions: Mapping[str, str]) -> None:
        """Append captions, from any thread.

        Args:
            captions: by the sha256 of their image.

        Raises:
            BadFile: the disk does not take them.
        """
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in captions.items()]
        data = "".join(lines).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._write_lock, open(self._file, "a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # the last line was cut off
                        data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise atomic.write_error(self._file, error) from None
