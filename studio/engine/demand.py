"""Whether anybody needs a worker.

Knows: the lock of a living studio, its version in the job table. Does not know: jobs; torch.
"""

from __future__ import annotations

import time
from contextlib import suppress

from studio import __version__
from studio.errors import DiskError
from studio.settings import Settings
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock

IDLE_TIMEOUT_SECONDS = 10.0  # without a studio, after which an idle worker leaves
CHECK_SECONDS = 1.0  # between two looks whether a studio lives


class Demand:
    """Whether anybody needs this worker: a studio that lives, or did a moment ago."""

    def __init__(
        self, settings: Settings, jobs: Jobs, idle_timeout: float = IDLE_TIMEOUT_SECONDS
    ) -> None:
        self._jobs, self._idle_timeout = jobs, idle_timeout
        self._studio = Lock(settings.home, "studio")
        self._last_needed = self._last_check = time.monotonic()

    def renew(self) -> None:
        """Say that there was work just now."""
        self._last_needed = time.monotonic()

    def is_checked(self) -> bool:
        """Return whether the last check is so recent that none is due."""
        return time.monotonic() - self._last_check < CHECK_SECONDS

    def is_over(self) -> bool:
        """Check whether a studio of another version came, or none has lived for a while."""
        self._last_check = time.monotonic()
        if self.is_replaced():
            return True
        if self.has_studio():
            self.renew()
        return self._last_check - self._last_needed > self._idle_timeout

    def is_replaced(self) -> bool:
        """Return whether a newer studio lives: its own worker comes next."""
        with suppress(DiskError):
            return self._jobs.get_meta("version") not in (None, __version__)
        return False

    def has_studio(self) -> bool:
        """Return whether a web process lives: then its lock is not free."""
        try:
            if not self._studio.acquire():
                return True
            self._studio.release()
        except DiskError:
            pass  # nobody can hold what cannot be opened
        return False
