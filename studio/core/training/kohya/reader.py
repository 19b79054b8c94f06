"""Takes keys out of a kohya file one by one, and notes of each what became of it.

Knows: types of values, and how to say of a key that it was taken, is inert, conflicts, or is not supported.
Does not know: what the keys mean.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

from studio.core.base import Value, setting
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya.parser import Given, Kind, off
from studio.core.training.kohya.unsupported_keys import BESIDE, ELSEWHERE, INERT, UNSUPPORTED
from studio.errors import InvalidSpec

KNOWN = {*INERT, *UNSUPPORTED, *ELSEWHERE, *BESIDE}
MOST_CHARACTERS = 100_000  # of one text
MOST_FAULTS = 50
LARGEST = 1e15


class Notice(Value):
    """What became of one key of a file. `unknown` is for what the file does not say."""

    key: str
    note: str
    kind: Kind = setting(
        "taken", title="Kind", help="taken, inert, conflicting, unsupported or unknown."
    )


class Reader:
    """The keys that are left, the settings found so far (`values`), and all that was said."""

    def __init__(self, given: Given, as_meant: bool) -> None:
        self.form, self.as_meant, self.names = given.form, as_meant, given.names
        self.left = dict(given.values)
        self.values: dict[str, Any] = {}
        self.unknown: dict[str, str] = {}  # settings that cannot be filled in, and why
        self.notices = [
            Notice(key=shown(key), note=note, kind=kind) for kind, key, note in given.said
        ]
        self.faults: list[str] = []
        self._given, self._asked = dict(given.values), set[str]()

    def name(self, key: str) -> str:
        """The key as the file calls it."""
        return self.names.get(key, key.split(".")[0])

    def say(self, kind: Kind, key: str, note: str) -> None:
        self.notices.append(Notice(key=shown(self.name(key)), note=note, kind=kind))

    def take(self, key: str, field: str, value: Any, more: str = "") -> None:
        """The key gives this setting."""
        self.values[field] = value
        told = (
            ("off", "on")[value]
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else f"{value!s:.80}"
        )
        self.say(
            "taken",
            key,
            f"{TrainingConfig.model_fields[field].title}: {told}{f'; {more}' if more else ''}.",
        )

    def cannot(self, field: str, key: str, why: str) -> None:
        """What decides how the run goes, but is not known or not to be had: there is no config without it."""
        self.unknown[field] = f"{self.name(key)}: {why}"
        self.say("unsupported" if key in self._given else "unknown", key, why)

    def has(self, key: str) -> bool:
        return key in self.left

    def any(self, key: str) -> Any:
        self._asked.add(key)
        return self.left.pop(key, None)

    def number(self, key: str) -> float | None:
        """A finite number, or None if the key is not there. Strings are read, as the GUI writes some."""
        return self.as_number(key, self.any(key))

    def as_number(self, key: str, value: Any) -> float | None:
        if value is None or value == "":
            return None
        try:
            found = (
                float(value)
                if isinstance(value, int | float | str) and not isinstance(value, bool)
                else math.nan
            )
        except (ValueError, OverflowError):
            found = math.nan
        if not abs(found) <= LARGEST:  # nor for NaN
            self.fault(key, "is too large" if abs(found) > LARGEST else "has to be a number", value)
            return None
        return found

    def whole(self, key: str) -> int | None:
        found = self.number(key)
        if found is not None and found != int(found):
            self.fault(key, "has to be a whole number", found)
            return None
        return None if found is None else int(found)

    def flag(self, key: str) -> bool:
        """Switched on; a key that is not there is off."""
        value = self.any(key)
        if isinstance(value, str) and value.strip().casefold() in ("true", "false", ""):
            return value.strip().casefold() == "true"
        if value is None or isinstance(value, bool) or value in (0, 1):
            return bool(value)
        self.fault(key, "has to be true or false", value)
        return False

    def text(self, key: str) -> str:
        value = self.any(key)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            self.fault(
                key, "has to be text" if not isinstance(value, str) else "is too long", value
            )
            return ""
        return value.strip()

    def arguments(self, key: str) -> dict[str, str]:
        """A list of name=value, as sd-scripts has for optimizers and networks."""
        value = self.any(key)
        listed = value.split() if isinstance(value, str) else value
        if listed is None:
            return {}
        if not isinstance(listed, list) or not all(
            isinstance(one, str) and "=" in one for one in listed
        ):
            self.fault(key, "has to be a list of texts such as weight_decay=0.1", value)
            return {}
        return {
            name.strip(): found.strip(" \"'")
            for name, _, found in (one.partition("=") for one in listed)
        }

    def fault(self, key: str, wrong: str, value: Any) -> None:
        self.faults.append(f"{shown(self.name(key))}: {wrong} (not {shown(value)}).")

    def rest(self) -> None:
        """Say something of every key that nobody took."""
        known = KNOWN | self._asked
        for key in list(self.left):
            value = self.any(key)
            if key in INERT:
                self.say("inert", key, INERT[key])
            elif key in BESIDE:
                owner, when = BESIDE[key]
                beside = self._given.get(owner)
                acts = not off(value) and not off(beside) and (not when or beside in when)
                if acts:
                    self.say("unsupported", key, f"the studio has no such variant of {owner}.")
                else:
                    self.say(
                        "inert", key, f"acts only with {owner}{f' {when[0]}' if when else ''}."
                    )
            elif key in UNSUPPORTED:
                why, usual = UNSUPPORTED[key]
                if off(value) or value == usual or str(value) == str(usual):
                    self.say("inert", key, "is off, or as always.")
                else:
                    self.say("unsupported", key, f"the studio does not do this: {why}.")
            elif off(value):
                self.say("inert", key, "is empty, off or 0.")
            else:
                near = difflib.get_close_matches(key[:60], known, 1, 0.8)
                guess = f" Did you mean {near[0]}?" if near else ""
                self.say(
                    "unsupported",
                    key,
                    f"is not known here; sd-scripts passes over keys that it does not know.{guess}",
                )
        told = {notice.key for notice in self.notices}
        for key in sorted(self._given):
            if shown(self.name(key)) not in told:
                self.say("inert", key, "is off, empty, or says what is so anyway.")

    def check(self) -> None:
        """Raise InvalidSpec if values were wrong."""
        if len(self.faults) > MOST_FAULTS:
            self.faults[MOST_FAULTS:] = [f"{len(self.faults) - MOST_FAULTS} more values are wrong."]
        if self.faults:
            raise InvalidSpec(self.faults)


def shown(value: object) -> str:
    """A key or value for people: short, printable."""
    try:
        text = value if isinstance(value, str) and value.isprintable() else f"{value!r:.300}"
    except (ValueError, RecursionError):  # a number of 5000 digits, lists 1000 deep
        return f"this {type(value).__name__}"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= 80 else f"{text[:60]} …"
