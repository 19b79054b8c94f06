"""The Hugging Face hub: what is in a repository, and what to do where it is closed.

Knows: the hub's list of files, licences, gated repositories, where a token comes from.
Does not know: how files are fetched (fetching.py); which files make a model (hub_files.py).

The list says of every large file its sha256, so that what arrives can be checked. A token is read
anew for each question, and never kept, shown or logged.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote as quote_url
from urllib.parse import urlsplit

from studio.core.downloads.hub_files import (
    INDEX_FILE,
    ListedFile,
    choose_model_files,
)
from studio.core.downloads.links import HubLink
from studio.core.downloads.plan import DownloadPlan, DownloadSpec, RemoteFile, Variant
from studio.core.families.registry import FAMILIES, find_families
from studio.errors import BadFile, DownloadError, SiteRefusal, quote
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.site_rules import Request
from studio.storage.downloads.weights_gate import SAFETENSORS_SUFFIX, check_suffix

HUB_ADDRESS = "https://huggingface.co"
# What trainers call a file that has no name of its own.
_PLAIN_STEMS = ("pytorch_lora_weights", "adapter_model", "model", "diffusion_pytorch_model")
MAX_NAMED_FILES = 8


def read_hub_address() -> str:
    """Return where the hub is: HF_ENDPOINT for who uses a mirror."""
    return (os.environ.get("HF_ENDPOINT") or HUB_ADDRESS).rstrip("/")


def is_hub_offline() -> bool:
    """Return whether this machine's owner has said that the hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")


def read_hub_token() -> str:
    """Return the token of HF_TOKEN or of the hub's login file; empty if there is none."""
    from huggingface_hub import get_token  # 0.2 s, and only who downloads needs it

    return get_token() or ""


def build_hub_request(path: str) -> Request:
    """Return a request to the hub, with its token."""
    address = read_hub_address()
    return Request(
        f"{address}/{path}", token=read_hub_token(), trusted_host=urlsplit(address).hostname or ""
    )


class Hub:
    """Asks the hub about one repository."""

    def __init__(self, client: SafeClient, repository: str) -> None:
        self._client, self._repository = client, repository

    @property
    def page(self) -> str:
        """The repository's address for people."""
        return f"{read_hub_address()}/{self._repository}"

    def plan(self, link: HubLink, spec: DownloadSpec) -> DownloadPlan:
        """Return what a link to this repository means.

        Raises:
            DownloadError: The hub cannot be asked, or does not show the repository.
            BadFile: There is nothing in it that the studio can use.
        """
        info = self._read_info(spec.version or link.revision)
        commit = str(info["sha"])
        files = _list_files(info)
        if link.file:
            return self._plan_file(link.file, files, info, commit)
        if any(file.path == INDEX_FILE for file in files):
            return self._plan_model(files, info, commit, spec.variant)
        return self._plan_file(self._find_only_weights(files), files, info, commit)

    def _read_info(self, revision: str) -> dict[str, Any]:
        path = f"api/models/{self._repository}"
        path += f"/revision/{quote_url(revision, safe='')}" if revision else ""
        try:
            info = self._client.get_json(build_hub_request(f"{path}?blobs=true"))
        except SiteRefusal as error:
            raise self._explain_refusal(error, revision) from None
        if (
            not isinstance(info, dict)
            or not isinstance(info.get("siblings"), list)
            or not re.fullmatch(r"[0-9a-f]{40}", str(info.get("sha")))
        ):
            raise DownloadError(f"The hub's answer about {self._repository} cannot be read.")
        return info

    def _explain_refusal(self, error: SiteRefusal, revision: str = "") -> SiteRefusal:
        """Say what to do about a refusal."""
        return explain_hub_refusal(error, self._repository, revision)

    def _plan_model(
        self, files: list[ListedFile], info: dict[str, Any], commit: str, variant: Variant
    ) -> DownloadPlan:
        try:
            index = self._client.get_json(self._request_file(INDEX_FILE, commit))
        except SiteRefusal as error:
            raise self._explain_refusal(error) from None
        if not isinstance(index, dict):
            raise BadFile(f"{INDEX_FILE} of {self._repository} is damaged.")
        pipeline_class = str(index.get("_class_name"))
        if not find_families(pipeline_class):
            titles = ", ".join(family.title for family in FAMILIES.values())
            raise BadFile(
                f"{self._repository} is a model of the kind {pipeline_class:.60}; the studio "
                f"supports {titles}."
            )
        chosen, chosen_variant = choose_model_files(files, index, variant)
        return self._build_plan(
            info,
            commit,
            name=self._repository.split("/")[1],
            is_folder=True,
            files=chosen,
            variant=chosen_variant,
        )

    def _plan_file(
        self, path: str, files: list[ListedFile], info: dict[str, Any], commit: str
    ) -> DownloadPlan:
        listed = next((file for file in files if file.path == path), None)
        if listed is None:
            raise BadFile(f"There is no file {quote(path)} in {self._repository}.")
        name = path.split("/")[-1]
        check_suffix(name)
        stem = name.rsplit(".", 1)[0]
        if stem in _PLAIN_STEMS:
            stem = self._repository.split("/")[1]
        return self._build_plan(info, commit, name=stem, is_folder=False, files=[listed])

    def _find_only_weights(self, files: list[ListedFile]) -> str:
        """Return the one file of weights of a repository that is no model of many files."""
        candidates = [file.path for file in files if file.path.endswith(SAFETENSORS_SUFFIX)]
        at_root = [path for path in candidates if "/" not in path]
        if len(at_root) == 1:
            return at_root[0]
        if not candidates:
            raise BadFile(
                f"{self._repository} has no {INDEX_FILE} and no .safetensors file, so the studio "
                "can use nothing in it. For any other file paste the link to it."
            )
        names = ", ".join(candidates[:MAX_NAMED_FILES])
        more = len(candidates) - MAX_NAMED_FILES
        raise BadFile(
            f"{self._repository} has several files of weights; paste the link to one of them, as "
            f"{self._repository}/{candidates[0]}: {names}{f' and {more} more' if more > 0 else ''}."
        )

    def _build_plan(
        self,
        info: dict[str, Any],
        commit: str,
        *,
        name: str,
        is_folder: bool,
        files: list[ListedFile],
        variant: str = "",
    ) -> DownloadPlan:
        notes = []
        if info.get("gated"):
            notes.append(
                f"It is only available after accepting its terms at {self.page}, and needs a hub "
                "token here."
            )
        remote_files = tuple(
            RemoteFile(
                file.path if is_folder else file.path.split("/")[-1],
                self._request_file(file.path, commit).url,
                file.size_bytes,
                file.sha256,
            )
            for file in files
        )
        return DownloadPlan(
            source="hub",
            title=self._repository,
            page=self.page,
            host=urlsplit(read_hub_address()).hostname or "",
            name=name,
            is_folder=is_folder,
            files=remote_files,
            version=commit,
            licence=_find_licence(info),
            variant=variant,
            notes=tuple(notes),
        )

    def _request_file(self, path: str, commit: str) -> Request:
        return build_hub_request(f"{self._repository}/resolve/{commit}/{quote_url(path)}")


def explain_hub_refusal(error: SiteRefusal, repository: str, revision: str = "") -> SiteRefusal:
    """Return what a refusal of the hub means, and what to do.

    Args:
        error: The refusal.
        repository: What was asked for.
        revision: Which version of it.
    """
    page = f"{read_hub_address()}/{repository}"
    has_token = bool(read_hub_token())
    how = (
        "This machine's token has no access to it."
        if has_token
        else "Then put a hub token into the variable HF_TOKEN, or log in with `hf auth login`, "
        "and restart the studio."
    )
    if error.code == "GatedRepo" or (error.status == 403 and error.code != "RepoNotFound"):
        sentence = (
            f"{repository} requires you to accept its terms first: open {page} and accept them. "
            f"{how}"
        )
    elif error.code == "RevisionNotFound":
        sentence = f"{repository} has no version {quote(revision)}."
    elif error.code == "EntryNotFound":
        sentence = f"A file of {repository} no longer exists; look up the link again."
    elif error.status in (401, 404):
        sentence = (
            f"The hub shows no {repository}: the name is misspelt, or it is private. "
            f"{how if has_token else 'A private one needs a token in HF_TOKEN.'}"
        )
    else:
        sentence = str(error)
    return SiteRefusal(sentence, error.status, error.code)


def _list_files(info: dict[str, Any]) -> list[ListedFile]:
    files = []
    for entry in info["siblings"]:
        path = entry.get("rfilename") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not is_plain_path(path):
            continue
        lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
        size = lfs.get("size", entry.get("size"))
        sha256 = lfs.get("sha256") or ""
        if isinstance(size, int) and size >= 0 and isinstance(sha256, str):
            files.append(ListedFile(path, size, sha256))
    return files


def is_plain_path(path: str) -> bool:
    """Return whether a path that a site names stays in its folder, on every system."""
    names = path.split("/")
    return (
        path.isprintable()
        and len(path) < 400
        and not any(char in path for char in '\\:<>"|?*')
        and not {"", ".", ".."} & set(names)
        and not any(name.startswith(".") or name.endswith((".", " ", ".part")) for name in names)
    )


def _find_licence(info: dict[str, Any]) -> str:
    card = info.get("cardData")
    values = card if isinstance(card, dict) else {}
    licence = values.get("license_name") or values.get("license") or ""
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return str(licence)[:100]
