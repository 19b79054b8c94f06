"""Who asks, and what they may do: the one place that decides.

Knows: owner and guest, what is whose. Does not know: cookies and who gives them out
(services/identities.py); proxies (services/connection.py); what a job does; how a refusal is shown;
gradio.

The owner sits at this machine: the connection comes from it and names it (127.0.0.1, localhost).
Everybody else, on the local network or through a public link, is a guest: has to log in, may ask
for less, sees and touches only what is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.errors import NotAllowed
from studio.services.connection import Connection, is_local, parse_host
from studio.storage.inputs import Inputs
from studio.storage.jobs import Job

VISITOR_KEY = "studio.visitor"  # where an ASGI scope has the visitor
TAB_HEADER = "x-studio-tab"  # ui/static/browser_tab.js sends it
MAX_TAB_CHARS = 32
IMAGE_FIELDS = ("image", "mask")  # fields of a request that name a file of inputs/


@dataclass(frozen=True)
class Visitor:
    """One browser, or one guest who has a login of their own.

    `id` opens nothing by itself: tables and files may hold it. `tab` says which of the browser's
    tabs asks, in the tab's own words; it opens nothing that `id` does not.
    """

    id: str
    is_guest: bool
    tab: str = ""

    @property
    def owner_filter(self) -> str | None:
        """Whose things this visitor sees; None is everybody's."""
        return self.id if self.is_guest else None

    def may_see(self, owner: str) -> bool:
        """Return whether this visitor may see what somebody made."""
        return self.owner_filter in (None, owner)

    def require_job_access(self, job: Job) -> None:
        """Raise NotAllowed unless this visitor may cancel, move or retry that job."""
        if not self.may_see(job.owner):
            raise NotAllowed(
                f"Job {job.id} belongs to somebody else; only they and the owner of this studio "
                "can change it."
            )

    def require_owner(self, action: str) -> None:
        """Raise NotAllowed for a guest."""
        if self.is_guest:
            raise NotAllowed(
                f"{action} is only possible for the owner of this studio, at the machine itself."
            )

    def require_inputs(self, inputs: Inputs, spec: GenerationRequest | SweepSpec) -> None:
        """Raise BadPicture for an image or mask that this guest names and never brought.

        What came of it would show it to them.
        """
        if not self.is_guest:
            return
        if isinstance(spec, SweepSpec):
            names = {spec.base.image, spec.base.mask}
            for axis in spec.axes:
                if axis.field in IMAGE_FIELDS:
                    names.update(str(value) for value in axis.parsed_values)
        else:
            names = {spec.image, spec.mask}
        for sha256 in sorted(names - {""}):
            inputs.get_path(sha256, self.owner_filter)


def visitor_from_scope(scope: Mapping[str, Any]) -> Visitor:
    """Return the visitor whom the page's access control found behind an ASGI request.

    A request that has not come through it is a guest's of whom nothing is known.
    """
    visitor = scope.get(VISITOR_KEY)
    return visitor if isinstance(visitor, Visitor) else Visitor("api", is_guest=True)


def is_owner(connection: Connection, origin: str = "") -> bool:
    """Return whether a request is the owner's.

    Args:
        connection: How it came.
        origin: Its Origin header: behind a proxy that hides the name which a browser asked for,
            it still says that name.
    """
    return (
        not connection.is_forwarded
        and is_local(connection.address)
        and is_local(connection.host_name)
        and (not origin or is_local(parse_host(origin.partition("://")[2])))
    )


def mark_visible_jobs(jobs: Iterable[Job], visitor: Visitor) -> list[tuple[Job, bool]]:
    """Return jobs, each with whether this visitor may know what it is about."""
    return [(job, visitor.may_see(job.owner)) for job in jobs]
