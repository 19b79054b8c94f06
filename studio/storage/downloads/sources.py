"""What is behind a link: asks the site that it names, and fetches nothing.

Knows: which source a link belongs to, what an address is that names no file. Does not know: how
each source is asked (hub.py, civitai.py); how files are fetched (fetching.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from email.message import Message
from typing import Any
from urllib.parse import unquote, urlsplit

from studio.core.downloads.links import AddressLink, CivitaiLink, HubLink, parse_link
from studio.core.downloads.plan import DownloadPlan, DownloadSpec, RemoteFile
from studio.errors import BadFile, SiteRefusal, quote
from studio.storage import atomic
from studio.storage.downloads.civitai import (
    build_civitai_request,
    explain_civitai_refusal,
    plan_civitai,
)
from studio.storage.downloads.hub import Hub, build_hub_request, explain_hub_refusal
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.site_rules import Request, is_known_host
from studio.storage.downloads.weights_gate import (
    PICKLE_SUFFIXES,
    SAFETENSORS_SUFFIX,
    check_suffix,
)

WEIGHTS_SUFFIXES = (SAFETENSORS_SUFFIX, *PICKLE_SUFFIXES)
# Endings that say of an address what the file is, and are refused before anything is asked.
_TELLING_SUFFIXES = (".gguf", ".ckpt", ".pkl", ".pickle", ".zip", ".7z", ".rar", ".exe", ".html")


def look_up(client: SafeClient, spec: DownloadSpec) -> DownloadPlan:
    """Return what is behind a link, with the name that was asked for.

    Raises:
        BadFile: It is no link, or nothing that the studio can use.
        DownloadError: The site cannot be asked, or refuses.
    """
    link = parse_link(spec.link)
    if isinstance(link, HubLink):
        plan = Hub(client, link.repository).plan(link, spec)
    elif isinstance(link, CivitaiLink):
        plan = plan_civitai(client, link, spec)
    else:
        plan = plan_address(client, link, is_confirmed=spec.is_host_confirmed)
    return replace(plan, name=atomic.safe_name(spec.name or plan.name))


def plan_address(
    client: SafeClient, link: AddressLink, *, is_confirmed: bool = False
) -> DownloadPlan:
    """Return what the address of a file means.

    The site is asked only where the address does not end as files of weights do: it may be a page.
    One that is not known is not asked before a person has said that it is meant.

    Args:
        client: Who asks.
        link: The address.
        is_confirmed: Whether a person has said so.

    Raises:
        BadFile: It is no file of weights.
        DownloadError: The site is on a private network, or cannot be asked.
    """
    parts = urlsplit(link.url)
    name = unquote(parts.path).rstrip("/").rsplit("/", 1)[-1] or link.host
    if name.lower().endswith(_TELLING_SUFFIXES):
        check_suffix(name)
    is_name_known = name.lower().endswith(WEIGHTS_SUFFIXES)
    if is_name_known or not (is_confirmed or is_known_host(link.host)):
        client.network.find_endpoints(link.host, parts.port or 443)
    else:
        request = Request(link.url, is_confirmed=is_confirmed)
        name = client.retry(lambda: _ask_name(client, request)) or name
        is_name_known = True
    stem = name
    if name.lower().endswith(WEIGHTS_SUFFIXES):
        stem = name.rsplit(".", 1)[0]
    else:
        name = f"{name}{SAFETENSORS_SUFFIX}"  # its first bytes have to prove it
    name = atomic.safe_name(name)
    return DownloadPlan(
        source="address",
        title=name,
        page=link.url,
        host=link.host,
        name=atomic.safe_name(stem),
        is_folder=False,
        files=(RemoteFile(name, link.url),),
        is_known_host=is_known_host(link.host),
        is_name_known=is_name_known,
    )


def _ask_name(client: SafeClient, request: Request) -> str:
    """Return the name of the file behind an address as its site says it; empty if it says none.

    Raises:
        BadFile: It is a page, or a file of another kind.
        DownloadError: The site cannot be asked, or refuses.
    """
    with client.open(request) as answer:
        message = Message()
        message["Content-Disposition"] = answer.header("content-disposition") or "inline"
        name = (message.get_filename() or "").replace("\\", "/").rsplit("/", 1)[-1]
        if name:
            check_suffix(name)
        elif answer.header("content-type").lower().startswith("text/"):
            raise BadFile(
                f"{quote(request.url)} is a web page, not a file; paste the link of its download "
                f"button, which often ends in {SAFETENSORS_SUFFIX}."
            )
        return name


def build_request(plan: DownloadPlan, file: RemoteFile, *, is_confirmed: bool) -> Request:
    """Return how a file of a plan is asked for: a secret only where it belongs."""
    if plan.source == "hub":
        return replace(build_hub_request(""), url=file.url, is_confirmed=is_confirmed)
    if plan.source == "civitai":
        return replace(build_civitai_request(file.url), is_confirmed=is_confirmed)
    return Request(file.url, is_confirmed=is_confirmed)


def explain_refusal(error: SiteRefusal, plan: DownloadPlan) -> SiteRefusal:
    """Return what a refusal means while a plan is carried out."""
    if plan.source == "hub":
        return explain_hub_refusal(error, plan.title, plan.version)
    if plan.source == "civitai":
        details: Mapping[str, Any] = plan.details
        return explain_civitai_refusal(error, details)
    return error
