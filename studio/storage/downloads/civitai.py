"""Civitai: which file of which version, trigger words, and why it may not be there yet.

Knows: the site's answers, which of the files of a version to take, what is kept beside it.
Does not know: what a file is (its header says that, not the site); how it is fetched.

A token is read from the variable CIVITAI_TOKEN for each question, and never kept, shown or logged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from studio.core.downloads.links import CivitaiLink
from studio.core.downloads.plan import DownloadPlan, DownloadSpec, RemoteFile, Variant
from studio.errors import BadFile, DownloadError, SiteRefusal
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.site_rules import CIVITAI_SITES, Request
from studio.storage.downloads.weights_gate import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, check_suffix

CIVITAI_ADDRESS = "https://civitai.com"
TOKEN_VARIABLE = "CIVITAI_TOKEN"
# Of the site's answer, what is kept in NAME.civitai.info; other programs write the same names.
KEPT_DETAILS = (
    "id",
    "modelId",
    "name",
    "baseModel",
    "trainedWords",
    "description",
    "model",
    "files",
    "images",
    "availability",
    "earlyAccessEndsAt",
    "paidAccess",
)
_TOKEN_ADVICE = (
    f"create a token in your account settings there, put it into the variable {TOKEN_VARIABLE} "
    "and restart the studio"
)


def build_civitai_request(url: str) -> Request:
    """Return a request to Civitai; its token goes to its own addresses alone."""
    host = urlsplit(url).hostname or ""
    is_own = host in CIVITAI_SITES or host.endswith(f".{CIVITAI_SITES[0]}")
    return Request(url, token=os.environ.get(TOKEN_VARIABLE, "").strip() if is_own else "")


def plan_civitai(client: SafeClient, link: CivitaiLink, spec: DownloadSpec) -> DownloadPlan:
    """Return what a link to Civitai means.

    Raises:
        DownloadError: The site cannot be asked, or does not show the model.
        BadFile: There is no file in it that the studio takes.
    """
    version_id = int(spec.version) if spec.version.isdecimal() else link.version_id
    model: dict[str, Any] = {}
    if not version_id:
        model = _ask(client, f"models/{link.model_id}")
        version_id = _find_newest_version(model, link.model_id)
    version = _ask(client, f"model-versions/{version_id}")
    model_id = version.get("modelId")
    if not model and isinstance(model_id, int):
        model = _ask(client, f"models/{model_id}")
    model_name = str(model.get("name") or (version.get("model") or {}).get("name") or "")
    file = choose_civitai_file(version, spec.variant)
    name = str(file["name"])
    return DownloadPlan(
        source="civitai",
        title=" · ".join(filter(None, (model_name, str(version.get("name") or "")))),
        page=f"{CIVITAI_ADDRESS}/models/{model_id}?modelVersionId={version_id}",
        host="civitai.com",
        name=name.rsplit(".", 1)[0],
        is_folder=False,
        files=(_build_remote_file(file, version_id),),
        version=str(version_id),
        licence=describe_licence(model),
        variant=str((file.get("metadata") or {}).get("fp") or ""),
        notes=tuple(_list_notes(version)),
        details={key: version[key] for key in KEPT_DETAILS if key in version},
    )


def _ask(client: SafeClient, path: str) -> dict[str, Any]:
    try:
        answer = client.get_json(build_civitai_request(f"{CIVITAI_ADDRESS}/api/v1/{path}"))
    except SiteRefusal as error:
        if error.status == 404:
            raise SiteRefusal(
                "Civitai shows no such model: the link is misspelt, the model was removed, or it "
                f"is only shown to logged-in users; in that case {_TOKEN_ADVICE}.",
                404,
            ) from None
        raise explain_civitai_refusal(error) from None
    if not isinstance(answer, dict):
        raise DownloadError("Civitai's answer about this model cannot be read.")
    return answer


def explain_civitai_refusal(
    error: SiteRefusal, details: Mapping[str, Any] | None = None
) -> SiteRefusal:
    """Return what a refusal of Civitai means, and what to do.

    Args:
        error: The refusal.
        details: What the site says of the version, if that is known.
    """
    has_token = bool(os.environ.get(TOKEN_VARIABLE, "").strip())
    is_sold, end = _read_access(details or {})
    if error.status == 401 and not (is_sold and has_token):
        sentence = f"Civitai only gives it to logged-in users: {_TOKEN_ADVICE}."
        if has_token:
            sentence = f"Civitai rejected the token in {TOKEN_VARIABLE}; create a new one."
    elif error.status in (401, 403):
        until = f" until {end}" if end else ""
        reason = f"only buyers can download it{until}" if is_sold else "it may be for sale"
        advice = "Choose another version, or wait." if end else "Choose another version, or buy it."
        sentence = f"Civitai refuses to give it to you: {reason}. {advice}"
    else:
        sentence = str(error)
    return SiteRefusal(sentence, error.status, error.code)


def _find_newest_version(model: Mapping[str, Any], model_id: int) -> int:
    versions = model.get("modelVersions")
    if isinstance(versions, list):
        for version in versions:
            if isinstance(version, dict) and isinstance(version.get("id"), int):
                return int(version["id"])
    raise BadFile(f"Model {model_id} on Civitai has no version that can be downloaded.")


def choose_civitai_file(version: Mapping[str, Any], variant: Variant = "auto") -> dict[str, Any]:
    """Return which of a version's files to take.

    A .safetensors goes before a pickle, then the wanted precision, then the pruned one (without
    what only training needs), then the one that the site offers first.

    Raises:
        BadFile: None is of a kind that the studio takes.
    """
    files = [
        file
        for file in version.get("files") or ()
        if isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and file.get("type") not in ("Training Data", "Config", "Archive")
    ]
    usable = [
        file
        for file in files
        if file["name"].lower().endswith((SAFETENSORS_SUFFIX, *PICKLE_SUFFIXES))
    ]
    if not usable:
        if files:
            check_suffix(files[0]["name"])
        raise BadFile("This version on Civitai has no weights file.")

    def rank(file: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
        metadata = file.get("metadata") or {}
        precision = {"full": "fp32"}.get(variant, "fp16")
        return (
            not file["name"].lower().endswith(SAFETENSORS_SUFFIX),
            file.get("type") not in (None, "Model", "Pruned Model"),  # a VAE beside its model
            metadata.get("fp") != precision,
            not (metadata.get("size") == "pruned" or file.get("primary")),
        )

    return min(usable, key=rank)


def _build_remote_file(file: Mapping[str, Any], version_id: int) -> RemoteFile:
    url = file.get("downloadUrl")
    if not isinstance(url, str):
        url = f"{CIVITAI_ADDRESS}/api/download/models/{version_id}"
    hashes = file.get("hashes") if isinstance(file.get("hashes"), dict) else {}
    sha256 = str((hashes or {}).get("SHA256") or "").lower()
    kib = file.get("sizeKB")
    size = round(kib * 1024) if isinstance(kib, int | float) and 0 <= kib < 2**40 else None
    name = str(file["name"]).replace("/", "-")
    return RemoteFile(name, url, size, sha256, is_size_exact=False)


def describe_licence(model: Mapping[str, Any]) -> str:
    """Return in a few words what a model's authors allow."""
    commercial = model.get("allowCommercialUse")
    if commercial is None:
        return ""
    allowed = commercial if isinstance(commercial, list) else [commercial]
    words = ["images may be sold" if {"Image", "Sell"} & set(map(str, allowed)) else "not for sale"]
    if model.get("allowNoCredit") is False:
        words.append("credit required")
    if model.get("allowDerivatives") is False:
        words.append("no merges")
    return ", ".join(words)


def _list_notes(version: Mapping[str, Any]) -> list[str]:
    notes = []
    base = version.get("baseModel")
    if isinstance(base, str) and base:
        notes.append(f"Made for {base:.60}.")
    words = [word for word in version.get("trainedWords") or () if isinstance(word, str)]
    if words:
        notes.append(f"Trigger words: {', '.join(words)[:200]}.")
    is_sold, end = _read_access(version)
    if is_sold:
        until = f" until {end}" if end else ""
        notes.append(f"Only buyers can download it{until}.")
    return notes


def _read_access(version: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a version has to be bought, and the day on which that ends, if it does."""
    paid = version.get("paidAccess")
    if isinstance(paid, dict) and paid:
        end = None if paid.get("permanent") else paid.get("endsAt")
        return True, end[:10] if isinstance(end, str) else ""
    end = version.get("earlyAccessEndsAt") or version.get("earlyAccessDeadline")
    if isinstance(end, str) and end[:10] > time.strftime("%Y-%m-%d", time.gmtime()):
        return True, end[:10]
    return version.get("availability") == "EarlyAccess", ""
