"""How long images stay in the bin, as the owner chose it: home/bin.json.

Knows: that a flag, a variable or studio.toml comes before what was chosen on the page. Does not
know: what is in the bin.
"""

from __future__ import annotations

import json
import time

from studio.core.base import Spec, spec_field, validate
from studio.errors import InvalidSpec
from studio.settings import MAX_BIN_DAYS, Settings
from studio.storage import atomic, odd_files

DAY_SECONDS = 24 * 3600.0
DEFAULT_BIN_DAYS = 30


class BinChoice(Spec):
    """How long images stay in the bin."""

    days: int = spec_field(
        DEFAULT_BIN_DAYS,
        ge=0,
        le=MAX_BIN_DAYS,
        title="Keep for (days)",
        help="Images are deleted after this many days in the bin. 0 keeps them until you empty it.",
    )


class BinOptions:
    """The choice of one home; it is read anew each time."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.home / "bin.json"
        self._fixed_days = settings.bin_days

    @property
    def is_fixed(self) -> bool:
        """Whether this studio was started with a number of days, which the page cannot change."""
        return self._fixed_days is not None

    def load_days(self) -> int:
        """Return for how many days images stay, 0 for until it is emptied."""
        if self._fixed_days is not None:
            return self._fixed_days
        try:
            return validate(BinChoice, odd_files.read_json(self._file)).days
        except (OSError, ValueError, InvalidSpec):
            return DEFAULT_BIN_DAYS

    def save_days(self, days: object) -> int:
        """Keep what was chosen, and return it. Raises InvalidSpec; DiskError."""
        choice = validate(BinChoice, {"days": days})
        atomic.write(self._file, json.dumps(choice.model_dump(), indent=1).encode())
        return choice.days

    def compute_deadline(self) -> float | None:
        """Return the Unix time before which an image has to be binned to be deleted now."""
        days = self.load_days()
        return time.time() - days * DAY_SECONDS if days else None
