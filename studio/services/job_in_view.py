"""Which job a visitor's pages name in their header, its place in line, and for how long it waits.

Knows: whose jobs a visitor may see, what was measured of images. Does not know: how it is shown
(ui/components/job_line.py), gradio; how a worker chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.core import jobs as kinds
from studio.core.base import validate_stored
from studio.core.generation.request import GenerationRequest
from studio.errors import StudioError
from studio.services.visitor import Visitor
from studio.storage.gallery import estimate_unet_work
from studio.storage.home import Home
from studio.storage.jobs import Job

MAX_LINE_JOBS = 100  # that are looked at; who waits behind so many is told no time
# What somebody waits for, in words that fit behind "waits for"; a guest is told no more than that
# it is another job.
KIND_NOUNS = {
    kinds.GENERATE.name: "images",
    kinds.DENOISE_STRIP.name: "images",
    kinds.SWEEP.name: "a sweep",
    kinds.SWEEP_EXPORT.name: "an export",
    kinds.TRAIN.name: "a training",
    kinds.TRAINING_DRY_RUN.name: "a training",
    kinds.EXPORT_CHECKPOINT.name: "an export",
    kinds.TRAINING_EVALUATION.name: "an evaluation",
    kinds.CAPTION.name: "captions",
    kinds.CLIP_SEARCH.name: "a search",
    kinds.UPSCALE.name: "an upscale",
}
OTHER_NOUN = "another job"


@dataclass(frozen=True)
class JobInView:
    """A visitor's job, and where it stands.

    Attributes:
        job: The job.
        is_own: Whether this very tab of this browser asked for it.
        place: Its place among those that wait, from 1; 0 while it runs.
        waits_for: What runs now, such as "a training"; empty while it runs, or if nothing does.
        wait_seconds: Until it begins; None where that is not known.
        num_others: How many more of the visitor's jobs run or wait.
    """

    job: Job
    is_own: bool
    place: int = 0
    waits_for: str = ""
    wait_seconds: float | None = None
    num_others: int = 0


def find_job_in_view(home: Home, visitor: Visitor) -> JobInView | None:
    """Return the job that a visitor is most likely to look for; None if they have none open."""
    line = home.jobs.list_open(limit=MAX_LINE_JOBS)
    visible = [job for job in line if visitor.may_see(job.owner)]
    if not visible:
        return None
    job = min(visible, key=lambda job: _rank(job, visitor))
    is_own = (job.owner, job.tab) == (visitor.id, visitor.tab)
    num_others = len(visible) - 1
    if job.state == "running":
        return JobInView(job, is_own, num_others=num_others)
    device_line = [other for other in line if other.kind not in kinds.BACKGROUND_KINDS]
    if job.kind in kinds.BACKGROUND_KINDS:
        device_line = [other for other in line if other.kind in kinds.BACKGROUND_KINDS]
    ahead = device_line[: device_line.index(job)]
    running = [other for other in ahead if other.state == "running"]
    return JobInView(
        job,
        is_own,
        place=1 + len(ahead) - len(running),
        waits_for=_name(running[0], visitor) if running else "",
        wait_seconds=_estimate_wait(home, ahead),
        num_others=num_others,
    )


def _rank(job: Job, visitor: Visitor) -> tuple[bool, bool, bool]:
    """Return what puts a job before others: asked for here, running, soon done."""
    is_long = job.kind in kinds.JOB_KINDS and kinds.JOB_KINDS[job.kind].is_preemptible
    is_elsewhere = (job.owner, job.tab) != (visitor.id, visitor.tab)
    return is_elsewhere, job.state != "running", is_long


def _name(job: Job, visitor: Visitor) -> str:
    if not visitor.may_see(job.owner):
        return OTHER_NOUN
    return KIND_NOUNS.get(job.kind, OTHER_NOUN)


def _estimate_wait(home: Home, ahead: Sequence[Job]) -> float | None:
    """Return the seconds that jobs still take; None where one of them does not say."""
    total = 0.0
    for job in ahead:
        seconds = job.progress.eta_seconds
        if job.state != "running":
            seconds = _estimate_images(home, job)
        if seconds is None:
            return None
        total += seconds
    return total


def _estimate_images(home: Home, job: Job) -> float | None:
    """Return the seconds that a waiting job for images takes, as its model was last measured."""
    if job.kind != kinds.GENERATE.name:
        return None
    try:
        request = validate_stored(GenerationRequest, job.spec)
        rate = home.gallery.get_seconds_per_megapixel(request.model)
        native_size = home.library.get_model(request.model).native_size
        resolved = home.inputs.resolve(request.model_copy(update={"styles": ()}), native_size, 0)
    except StudioError:
        return None
    if rate is None:
        return None
    return rate * estimate_unet_work(resolved) * request.num_images
