"""Every error that a user should read.

Knows: the tree below. Does not know: how an error is shown (`ui/errors.py` and `cli/main.py`
translate it, each in one place).

    StudioError            one plain sentence: the thing, the bad value, what to do
    ├── InvalidSpec        a request that cannot be; lists every bad field
    ├── ModelNotFound      no such model in the library
    ├── UnknownFamily      a model folder that the studio cannot run
    ├── LoraNotFound       no such LoRA in the library
    ├── LoraMismatch       a LoRA made for another kind of model
    ├── OutOfMemory        did not fit; says what to lower
    ├── DatasetError       a folder that nothing can be trained on
    ├── BadPicture         a file that is no image we take
    ├── BadFile            any other file that is broken, hostile or of the wrong kind
    │   └── DiskError      the disk does not take what has to be written: full, read-only, failing
    ├── DownloadError      a file that could not be fetched: the network, the site or what it sent
    │   └── SiteRefusal    the site answered with a refusal
    ├── NotAllowed         a guest asked for what only the owner may do
    └── Busy               somebody else holds what is needed
        └── TooSoon        asked again before a pause is over; says when it is

Anything else that is raised is a bug: its traceback goes to the log, one plain line to the screen.
`Cancelled` stands apart: it is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Sequence

# Of one request, in its message: so many are all listed, and of more only the first ones.
MAX_FAULTS = 40
NUM_LISTED_FAULTS = 10
MAX_LISTED_NAMES = 5


def quote(value: object, max_chars: int = 60) -> str:
    """Return a value as an error names it: in quotes if it is text, cut with an ellipsis."""
    if isinstance(value, str) and len(value) > max_chars:
        return f"{value[:max_chars]!r} …"
    try:
        text = repr(value)
    # Python writes out neither a number of 5000 digits nor lists 1000 deep.
    except (ValueError, RecursionError):
        return f"this {type(value).__name__}"
    return text if len(text) <= 2 * max_chars else f"{text[:max_chars]} …"


def list_alternatives(matches: Sequence[str], names: Sequence[str]) -> str:
    """Return the names that may be meant; where none is alike, the first of all that there are."""
    if matches or len(names) <= MAX_LISTED_NAMES:
        return ", ".join(matches or names) or "none"
    return f"{', '.join(names[:MAX_LISTED_NAMES])} and {len(names) - MAX_LISTED_NAMES} more"


class StudioError(Exception):
    """An error whose text is written for the user.

    `may_pass` says whether the very same, asked again, may succeed.
    """

    may_pass = False


class InvalidSpec(StudioError):
    """A request that cannot be fulfilled as it is; `faults` has a sentence for every bad field.

    The message has all of them, or of more than MAX_FAULTS the first ones and how many more.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = list(self.faults)
        if len(lines) > MAX_FAULTS:
            rest = f"… and {len(lines) - NUM_LISTED_FAULTS:,} more like these."
            lines = [*lines[:NUM_LISTED_FAULTS], rest]
        super().__init__("\n".join(lines))


class ModelNotFound(StudioError):
    """No model of that name is in the library."""


class UnknownFamily(StudioError):
    """A model folder that is there, but that the studio cannot run."""


class LoraNotFound(StudioError):
    """No LoRA of that name is in the library."""


class LoraMismatch(StudioError):
    """A LoRA that does not go with the model."""


class OutOfMemory(StudioError):
    """The device's memory did not suffice; the message says what to lower."""


class DatasetError(StudioError):
    """A folder of images that cannot be trained on; the message says what is missing."""


class BadPicture(StudioError):
    """A file that is no image which the studio takes."""


class BadFile(StudioError):
    """A file that is missing, broken, hostile or of the wrong kind."""


class DiskError(BadFile):
    """The disk does not take a file, or a table on it; it may once there is space again."""

    may_pass = True


class DownloadError(StudioError):
    """Something could not be fetched; the message says from where and what to do."""


class SiteRefusal(DownloadError):
    """A site refused; `status` is HTTP's number, `code` the reason in the site's own words."""

    def __init__(self, text: str, status: int, code: str = "") -> None:
        self.status, self.code = status, code
        self.may_pass = status >= 500  # its own trouble, whatever the number says
        super().__init__(text)


class NotAllowed(StudioError):
    """A guest asked for something that only the owner of this studio may do."""


class Busy(StudioError):
    """Another process holds what is needed."""

    may_pass = True


class TooSoon(Busy):
    """Somebody asked again before a pause was over; `seconds` is how long it still is."""

    def __init__(self, text: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(text)


class Cancelled(BaseException):
    """Somebody asked for a stop.

    Not an `Exception`, so that no `except Exception` on the way swallows it.
    """
