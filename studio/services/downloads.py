"""What an owner asks before a download: what is behind a link, and whether it fits here.

Knows: who may ask, what is said of a plan before anything is fetched, the starting points.
Does not know: how a site is asked (storage/downloads); jobs (submission.py); how it is shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from studio.core.downloads.links import AddressLink, HubLink, parse_link
from studio.core.downloads.plan import (
    DownloadPlan,
    DownloadSpec,
    estimate_card_bytes,
    format_size,
)
from studio.errors import BadFile, DownloadError, StudioError
from studio.services.visitor import Visitor
from studio.settings import Settings
from studio.storage.downloads.fetching import part_folder
from studio.storage.downloads.hub import is_hub_offline
from studio.storage.downloads.network import LostConnection
from studio.storage.downloads.part_file import RESERVED_DISK_BYTES
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.site_rules import is_known_host
from studio.storage.downloads.sources import look_up
from studio.storage.jobs import Job, Jobs

HIDDEN_DOWNLOADS = "downloads out of the list"  # where the jobs' table keeps them
MAX_HIDDEN = 200  # more than the page ever looks through
LOOK_UP_TRIES = 2  # somebody waits for the answer


@dataclass(frozen=True)
class StartingPoint:
    """Something known to be good for somebody who has nothing yet.

    Attributes:
        link: What is looked up.
        purpose: What it is good for, in a few words.
    """

    link: str
    purpose: str


@dataclass(frozen=True)
class StartingPointFacts:
    """A starting point and what the hub says of it; `problem` says why it says nothing."""

    point: StartingPoint
    plan: DownloadPlan | None = None
    problem: str = ""

    @property
    def card_bytes(self) -> int:
        """About how much memory of a card painting with it takes; 0 for what paints nothing."""
        if self.plan is None or not self.plan.is_folder:
            return 0
        return estimate_card_bytes(self.plan.size_bytes or 0)


STARTING_POINTS = (
    StartingPoint(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "The smallest; works with thousands of LoRAs"
    ),
    StartingPoint(
        "stabilityai/stable-diffusion-xl-base-1.0", "Larger images (1024 px), with its own LoRAs"
    ),
    StartingPoint("Tongyi-MAI/Z-Image-Turbo", "Newest; needs only eight steps and can write text"),
    StartingPoint(
        "Comfy-Org/Real-ESRGAN_repackaged/RealESRGAN_x4plus.safetensors",
        "Enlarges photos four times",
    ),
)


class Downloads:
    """Looks links up for the owner. Any thread may call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def look_up(self, spec: DownloadSpec, visitor: Visitor) -> DownloadPlan:
        """Return what is behind a link.

        Raises:
            NotAllowed: A guest asks.
            BadFile: It is no link, or nothing that the studio can use.
            DownloadError: The site cannot be asked, or refuses.
        """
        visitor.require_owner("Downloading")
        require_online(spec)
        return look_up(SafeClient(max_tries=LOOK_UP_TRIES), spec)

    def describe_starting_points(
        self, visitor: Visitor, points: Sequence[StartingPoint] = STARTING_POINTS
    ) -> list[StartingPointFacts]:
        """Return what the hub says of each starting point now; a failure is said with it.

        Raises NotAllowed for guests.
        """
        visitor.require_owner("Downloading")
        facts = []
        unreachable = ""  # once the hub does not answer, the others are not waited for
        for point in points:
            try:
                if unreachable:
                    raise DownloadError(unreachable)
                plan = self.look_up(DownloadSpec(link=point.link), visitor)
                facts.append(StartingPointFacts(point, plan))
            except StudioError as error:
                unreachable = str(error) if isinstance(error, LostConnection) else unreachable
                facts.append(StartingPointFacts(point, problem=str(error)))
        return facts

    def hide_ended(self, jobs: Jobs, job: Job, visitor: Visitor) -> None:
        """Leave a download that has ended out of the list from now on; what has come is kept.

        Raises:
            NotAllowed: A guest asks.
            BadFile: It has not ended.
        """
        visitor.require_owner("Downloading")
        if job.is_open:
            raise BadFile("That download is still running; cancel it first.")
        hidden = sorted({*self.list_hidden(jobs), job.id})[-MAX_HIDDEN:]
        jobs.set_meta(HIDDEN_DOWNLOADS, " ".join(map(str, hidden)))

    def list_hidden(self, jobs: Jobs) -> set[int]:
        """Return the ids of the jobs that the owner has taken from the list."""
        words = (jobs.get_meta(HIDDEN_DOWNLOADS) or "").split()
        return {int(word) for word in words if word.isdecimal()}

    def list_warnings(self, plan: DownloadPlan) -> list[str]:
        """Return sentences that should be read before a plan is carried out."""
        warnings = list(plan.notes)
        part = part_folder(self._settings, plan)
        there = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        if there:
            warnings.append(
                f"{format_size(there)} of it are already here; the download continues from there."
            )
        free = shutil.disk_usage(self._settings.home).free - RESERVED_DISK_BYTES
        needed = (plan.size_bytes or 0) - there
        if needed > free:
            warnings.append(
                f"It needs {format_size(needed)}, but the disk only has room for "
                f"{format_size(max(0, free))}. Free some space first."
            )
        if not plan.is_known_host:
            warnings.append(
                f"It comes from {plan.host}, a site the studio does not know. Download it only if "
                "you trust that site."
                + ("" if plan.is_name_known else "Until then, the site is not contacted.")
            )
        return warnings


def require_online(spec: DownloadSpec) -> None:
    """Raise DownloadError where this machine is told not to ask the site of a link."""
    if is_hub_offline() and isinstance(parse_link(spec.link), HubLink):
        raise DownloadError(
            "HF_HUB_OFFLINE is set here, so the hub cannot be reached. Unset it, then start the "
            "studio again."
        )


def require_known_site(spec: DownloadSpec) -> None:
    """Raise DownloadError for a link to a site of which nobody has said that it is meant.

    Raises BadFile for what is no link.
    """
    link = parse_link(spec.link)
    if isinstance(link, AddressLink) and not (spec.is_host_confirmed or is_known_host(link.host)):
        raise DownloadError(
            f"The studio does not know the site {link.host}. Select “I trust this site” if you do."
        )
