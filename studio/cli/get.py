"""`studio get`: fetch a model, LoRA, VAE, embedding or upscaler by its link.

Knows: what is said and asked at a terminal. Does not know: sites (storage/downloads); torch; the
queue: it fetches by itself, whether a studio is open or not.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from studio.cli.runner import COMMAND_LINE, load_settings, log, print_json
from studio.core.base import validate
from studio.core.downloads.plan import DownloadPlan, DownloadSpec, format_size
from studio.errors import Cancelled, InvalidSpec
from studio.services.downloads import Downloads
from studio.settings import Settings
from studio.storage.downloads.fetching import RateMeter, download
from studio.storage.downloads.safe_http import SafeClient
from studio.ui.views.common import format_eta

MAX_LISTED_FILES = 40


def run(arguments: argparse.Namespace) -> None:
    """Say what is behind a link, ask, and fetch it."""
    settings = load_settings(arguments)
    values = {name: getattr(arguments, name) for name in ("link", "name", "variant")}
    spec = validate(DownloadSpec, values | {"is_host_confirmed": bool(arguments.yes)})
    downloads = Downloads(settings)
    plan = downloads.look_up(spec, COMMAND_LINE)
    warnings = downloads.list_warnings(plan)
    if not arguments.json:
        print(format_plan(plan, warnings))
    if not arguments.yes and not _confirm(plan):
        raise Cancelled
    if not plan.is_name_known:  # now the site may be asked
        confirmed = spec.model_copy(update={"is_host_confirmed": True})
        plan = downloads.look_up(confirmed, COMMAND_LINE)
    try:
        placed = download(
            settings,
            plan,
            SafeClient(),
            # The person has read from where it comes, or said that it does not matter.
            is_confirmed=arguments.yes or not plan.is_known_host,
            on_progress=_build_progress_line(),
        )
    except KeyboardInterrupt:
        _end_line()
        log("the part already downloaded is kept; run the same command to continue")
        raise
    _end_line()
    if arguments.json:
        print_json(_build_result(settings, plan, placed))
    elif placed.was_there:
        print(f"{placed.name} is already in {placed.folder}/.")
    else:
        print(f"{placed.name} is now in {placed.folder}/: {placed.title}.")


def format_plan(plan: DownloadPlan, warnings: list[str]) -> str:
    """Return what will be fetched as lines for a person."""
    size = plan.size_bytes
    size_text = format_size(size) if size is not None else "unknown until the download starts"
    lines = [
        f"{plan.title}",
        f"from      {plan.page}",
        f"licence   {plan.licence or 'unknown'}",
        f"size      {size_text}" + (f", {plan.variant}" if plan.variant else ""),
        f"name      {plan.name}",
    ]
    for file in plan.files[:MAX_LISTED_FILES]:
        file_size = format_size(file.size_bytes) if file.size_bytes is not None else "?"
        lines.append(f"{file_size:>12}  {file.path}")
    if len(plan.files) > MAX_LISTED_FILES:
        lines.append(f"{'':>12}  and {len(plan.files) - MAX_LISTED_FILES} more")
    return "\n".join([*lines, *warnings])


def _confirm(plan: DownloadPlan) -> bool:
    """Ask at the terminal. Raises InvalidSpec where nobody can answer."""
    if not sys.stdin.isatty():
        raise InvalidSpec(["--yes: required when nobody can be asked."])
    question = f"Download it from {plan.host}? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _build_progress_line() -> Any:
    meter = RateMeter()

    def show(num_bytes: int, total: int) -> None:
        rate = meter.add(num_bytes)
        if not sys.stderr.isatty():
            return
        eta = format_eta((total - num_bytes) / rate) if rate > 0 else ""
        line = f"{format_size(num_bytes)} of {format_size(total)}, {format_size(rate)}/s"
        line = ", ".join(filter(None, (line, eta)))
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    return show


def _end_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _build_result(settings: Settings, plan: DownloadPlan, placed: Any) -> dict[str, Any]:
    return {
        "name": placed.name,
        "folder": placed.folder,
        "path": str(placed.path),
        "what": placed.title,
        "was_there": placed.was_there,
        "home": str(settings.home),
        "plan": plan.to_dict(),
    }
