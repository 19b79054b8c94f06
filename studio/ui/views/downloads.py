"""Downloads as HTML: what is behind a link, how far each is, models to begin with.

Knows: how these look (templates/downloads.html). Does not know: gradio; sites; who may see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.core.downloads.plan import DownloadPlan, format_size
from studio.services.downloads import StartingPointFacts
from studio.storage.jobs import Job
from studio.ui.views.common import compute_fraction, format_eta
from studio.ui.views.jobs import STATE_LABELS
from studio.ui.views.templates import render_macro

MAX_LISTED_FILES = 40
SOURCE_TITLES = {"hub": "Hugging Face", "civitai": "Civitai"}


def render_plan(plan: DownloadPlan, warnings: Sequence[str]) -> str:
    """Render what is behind a link, before anything is fetched."""
    size = plan.size_bytes
    facts = [
        ("from", SOURCE_TITLES.get(plan.source, plan.host)),
        ("licence", plan.licence or "unknown"),
        ("size", format_size(size) if size is not None else "unknown until the download starts"),
    ]
    if plan.variant:
        facts.append(("variant", plan.variant))
    files = [
        (file.path, format_size(file.size_bytes) if file.size_bytes is not None else "")
        for file in plan.files[:MAX_LISTED_FILES]
    ]
    return render_macro(
        "downloads.html",
        "plan",
        title=plan.title,
        facts=facts,
        files=files,
        more=max(0, len(plan.files) - MAX_LISTED_FILES),
        warnings=list(warnings),
    )


def render_downloads(jobs: Sequence[Job]) -> str:
    """Render downloads that run, wait or ended a while ago."""
    return render_macro("downloads.html", "progress", rows=[_build_row(job) for job in jobs])


def _build_row(job: Job) -> dict[str, Any]:
    match job.state:
        case "done":
            buttons = [("remove", "Remove from list")]
        case "failed" if _is_final(job):
            buttons = [("remove", "Remove from list")]
        case "failed":  # what has come is gone on with
            buttons = [("again", "Try again"), ("remove", "Remove from list")]
        case _ if job.is_open:
            buttons = [("cancel", "Cancel")]
        case _:
            buttons = [("again", "Resume"), ("remove", "Remove from list")]
    return {
        "id": job.id,
        "state": job.state,
        "label": STATE_LABELS[job.state],
        "title": str(job.spec.get("name") or job.spec.get("link") or "a file"),
        "message": _describe(job),
        "fraction": compute_fraction(job.progress.step, job.progress.total),
        "buttons": buttons,
    }


def _is_final(job: Job) -> bool:
    """Return whether a download that failed would fail again in the same way."""
    return isinstance(job.result, dict) and job.result.get("is_final") is True


def _describe(job: Job) -> str:
    match job.state:
        case "queued":
            return "waiting in the queue"
        case "running":
            eta = format_eta(job.progress.eta_seconds)
            return ", ".join(filter(None, (job.progress.message, eta))) or "starting"
        case "done":
            result = job.result if isinstance(job.result, dict) else {}
            verb = "was already here" if result.get("was_there") else "is ready to use"
            return f"{result.get('name', 'It')} in {result.get('folder', 'the library')}/ {verb}."
        case "cancelled":
            return "The part already downloaded is kept; it can continue from there."
        case "interrupted":
            return (
                "The connection was cut. The part already downloaded is kept; it can continue "
                "from there."
            )
    advice = "Look up the link again once that has changed." if _is_final(job) else ""
    return f"{job.error or ''}{advice}"


def render_first_steps(facts: Sequence[StartingPointFacts]) -> str:
    """Render models to begin with, each with what the hub says of it now."""
    return render_macro(
        "downloads.html", "first_steps", cards=[_build_card(entry) for entry in facts]
    )


def _build_card(entry: StartingPointFacts) -> dict[str, Any]:
    plan = entry.plan
    card: dict[str, Any] = {
        "link": entry.point.link,
        "title": plan.name if plan else entry.point.link.split("/")[-1],
        "purpose": entry.point.purpose,
        "problem": entry.problem,
    }
    if plan is None:
        return card
    facts = [
        ("licence", plan.licence or "unknown"),
        ("size", format_size(plan.size_bytes or 0) + (f", {plan.variant}" if plan.variant else "")),
    ]
    if entry.card_bytes:
        facts.append(("card", f"about {format_size(entry.card_bytes)} of memory"))
    return card | {"facts": facts}
