"""Reads the keys of a kohya file one by one, and records what became of each.

Knows: types of values, and how to say of a key that it was taken, is inert, conflicts, or is not
supported.
Does not know: what the keys mean.
"""

from __future__ import annotations

import difflib
import math
from contextlib import suppress
from typing import Any

from studio.core.base import Spec, spec_field
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya.parser import KohyaFile, NoticeKind, is_off
from studio.core.training.kohya.unsupported_keys import (
    DEPENDENT_KEYS,
    INERT_KEYS,
    OTHER_FAMILY_KEYS,
    UNSUPPORTED_KEYS,
)
from studio.errors import InvalidSpec, quote

KNOWN_KEYS = {*INERT_KEYS, *UNSUPPORTED_KEYS, *OTHER_FAMILY_KEYS, *DEPENDENT_KEYS}
MAX_TEXT_CHARACTERS = 100_000  # of one text
MAX_FAULTS = 50
MAX_NUMBER = 1e15
KOHYA_DEFAULT = "not in the file: kohya's default"  # of a value that no key gives


class Notice(Spec):
    """What became of one key of a file. `unknown` is for what is not in the file."""

    key: str
    note: str
    kind: NoticeKind = spec_field(
        "taken", title="Kind", help="taken, inert, conflicting, unsupported or unknown."
    )


class KohyaReader:
    """The keys that remain to be read, the settings read so far (`values`), notices and faults."""

    def __init__(self, kohya_file: KohyaFile, as_meant: bool) -> None:
        self.file_format = kohya_file.file_format
        self.as_meant = as_meant
        self.original_names = kohya_file.original_names
        self.remaining = dict(kohya_file.values)
        self.values: dict[str, Any] = {}
        self.unresolved: dict[str, str] = {}  # settings that cannot be filled in, and why
        self.notices = [
            Notice(key=format_value(key), note=note, kind=kind)
            for kind, key, note in kohya_file.notices
        ]
        self.faults: list[str] = []
        self._original_values = dict(kohya_file.values)
        self._read_keys: set[str] = set()

    def get_original_name(self, key: str) -> str:
        """Return a key as the file calls it."""
        return self.original_names.get(key, key.split(".")[0])

    def add_notice(self, kind: NoticeKind, key: str, note: str) -> None:
        """Record what became of a key."""
        name = format_value(self.get_original_name(key))
        self.notices.append(Notice(key=name, note=note, kind=kind))

    def withdraw_notices(self, key: str) -> None:
        """Forget what was said of a key that another one has overridden."""
        name = format_value(self.get_original_name(key))
        self.notices = [notice for notice in self.notices if notice.key != name]

    def set_field(self, key: str, field: str, value: Any, detail: str = "") -> None:
        """Set a field of the config from a key, and record it.

        Args:
            key: The key by sd-scripts' name.
            field: The field of TrainingConfig.
            value: Its value.
            detail: What the notice says in addition.
        """
        self.values[field] = value
        if isinstance(value, bool):
            text = "on" if value else "off"
        elif isinstance(value, float):
            text = f"{value:g}"
        else:
            text = f"{value!s:.80}"
        if detail:
            text = f"{text}; {detail}"
        self.add_notice("taken", key, f"{TrainingConfig.model_fields[field].title}: {text}.")

    def mark_unresolved(self, field: str, key: str, reason: str) -> None:
        """Record a field that decides how the run goes but is unknown; there is no config then."""
        self.unresolved[field] = f"{self.get_original_name(key)}: {reason}"
        is_in_file = key.split(".")[0] in self._original_values
        self.add_notice("unsupported" if is_in_file else "unknown", key, reason)

    def has(self, key: str) -> bool:
        """Return whether a key is in the file and not yet read."""
        return key in self.remaining

    def read_value(self, key: str) -> Any:
        """Take a key out of the file and return its value; None if it is not there."""
        self._read_keys.add(key)
        return self.remaining.pop(key, None)

    def read_number(self, key: str) -> float | None:
        """Return a finite number, or None if the key is not there."""
        return self.parse_number(key, self.read_value(key))

    def parse_number(self, key: str, value: Any) -> float | None:
        """Return a finite number, or None for no value; the GUI writes some as text."""
        if value is None or value == "":
            return None
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                number = float(value)
        if math.isnan(number):
            self.add_fault(key, "must be a number", value)
            return None
        if abs(number) > MAX_NUMBER:
            self.add_fault(key, "is too large", value)
            return None
        return number

    def read_integer(self, key: str) -> int | None:
        """Return a whole number, or None if the key is not there."""
        number = self.read_number(key)
        if number is None:
            return None
        if number != int(number):
            self.add_fault(key, "must be a whole number", number)
            return None
        return int(number)

    def read_flag(self, key: str) -> bool:
        """Return whether a key is switched on; one that is not there is off."""
        value = self.read_value(key)
        if isinstance(value, str):
            text = value.strip().casefold()
            if text in ("true", "false", ""):
                return text == "true"
        if value is None or isinstance(value, bool) or value in (0, 1):
            return bool(value)
        self.add_fault(key, "must be true or false", value)
        return False

    def read_text(self, key: str) -> str:
        """Return a text, stripped; an empty one if the key is not there."""
        value = self.read_value(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.add_fault(key, "must be text", value)
            return ""
        if len(value) > MAX_TEXT_CHARACTERS:
            self.add_fault(key, "is too long", value)
            return ""
        return value.strip()

    def read_arguments(self, key: str) -> dict[str, str]:
        """Return a list of name=value, as sd-scripts has for optimizers and networks."""
        value = self.read_value(key)
        arguments = value.split() if isinstance(value, str) else value
        if arguments is None:
            return {}
        is_list = isinstance(arguments, list)
        if not is_list or not all(isinstance(item, str) and "=" in item for item in arguments):
            self.add_fault(key, "must be a list of texts such as weight_decay=0.1", value)
            return {}
        pairs = [argument.split("=", 1) for argument in arguments]
        return {name.strip(): text.strip(" \"'") for name, text in pairs}

    def add_fault(self, key: str, problem: str, value: Any) -> None:
        """Record a wrong value."""
        name = format_value(self.get_original_name(key))
        self.faults.append(f"{name}: {problem} (the file has {format_value(value)}).")

    def report_remaining(self) -> None:
        """Add a notice for every key that was not read, and for those read without one."""
        known_keys = KNOWN_KEYS | self._read_keys
        for key in list(self.remaining):
            value = self.read_value(key)
            if key in INERT_KEYS:
                self.add_notice("inert", key, INERT_KEYS[key])
            elif key in DEPENDENT_KEYS:
                self._report_dependent_key(key, value)
            elif key in UNSUPPORTED_KEYS:
                self._report_unsupported_key(key, value)
            elif is_off(value):
                self.add_notice("inert", key, "empty, off or 0.")
            else:
                matches = difflib.get_close_matches(key[:60], known_keys, 1, 0.8)
                guess = f" Did you mean {matches[0]}?" if matches else ""
                self.add_notice(
                    "unsupported",
                    key,
                    f"unknown key; sd-scripts ignores keys it does not know.{guess}",
                )
        reported = {notice.key for notice in self.notices}
        for key in sorted(self._original_values):
            if format_value(self.get_original_name(key)) not in reported:
                self.add_notice("inert", key, "off, empty, or the default anyway.")

    def _report_dependent_key(self, key: str, value: Any) -> None:
        owner, active_values = DEPENDENT_KEYS[key]
        owner_value = self._original_values.get(owner)
        owner_acts = not is_off(owner_value)
        if active_values:
            owner_acts = owner_acts and owner_value in active_values
        if owner_acts and not is_off(value):
            self.add_notice("unsupported", key, f"the studio has no such variant of {owner}.")
            return
        condition = f"{owner} {active_values[0]}" if active_values else owner
        self.add_notice("inert", key, f"used only with {condition}.")

    def _report_unsupported_key(self, key: str, value: Any) -> None:
        reason, off_value = UNSUPPORTED_KEYS[key]
        if is_off(value) or value == off_value or str(value) == str(off_value):
            self.add_notice("inert", key, "off, or the default.")
        else:
            self.add_notice("unsupported", key, f"the studio does not support this: {reason}.")

    def raise_faults(self) -> None:
        """Raise InvalidSpec if values were wrong."""
        surplus = len(self.faults) - MAX_FAULTS
        if surplus > 0:
            self.faults[MAX_FAULTS:] = [f"{surplus} more values are wrong."]
        if self.faults:
            raise InvalidSpec(self.faults)


def format_value(value: object) -> str:
    """Return a key or value as people read it: short, printable."""
    # Python writes out neither a number of 5000 digits nor lists 1000 deep.
    try:
        text = value if isinstance(value, str) and value.isprintable() else f"{quote(value, 300)}"
    except (ValueError, RecursionError):
        return f"this {type(value).__name__}"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= 80 else f"{text[:60]} …"
