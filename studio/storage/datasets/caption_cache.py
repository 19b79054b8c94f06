"""What captioners have said about pictures: kept by content, so that nothing is asked twice.

Knows: one file for each way of asking, a line for each picture. Does not know: who is asked, what becomes of the words.

A line is appended at once and whole; one that a kill has cut off is left out when the file is read, and asked for again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from studio.errors import BadFile


class Answers:
    """All answers to one way of asking; `key` is a hash of all that decides them but the picture."""

    def __init__(self, home: Path, key: str) -> None:
        self._file, self._writing = home / "cache" / "captions" / f"{key}.jsonl", threading.Lock()

    def all(self) -> dict[str, str]:
        """Words by content; the last ones where there are several."""
        try:
            lines = self._file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BadFile(f"{self._file} cannot be read: {error.strerror}.") from None
        found: dict[str, str] = {}
        for line in lines:
            try:
                content, words = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(content, str) and isinstance(words, str):
                found[content] = words
        return found

    def keep(self, answers: Mapping[str, str]) -> None:
        """Add some, from whatever thread. Raises BadFile when the disk does not take them."""
        data = "".join(
            json.dumps([content, words], ensure_ascii=False) + "\n"
            for content, words in answers.items()
        ).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._writing, open(self._file, "a+b") as out:
                if out.tell():
                    out.seek(-1, os.SEEK_END)
                    data = (
                        data if out.read(1) == b"\n" else b"\n" + data
                    )  # after a line that was cut off
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise BadFile(
                f"{self._file} could not be written: {error.strerror or error}. Is the disk full?"
            ) from None
