"""What people paste: a repository on the hub, a page of Civitai, the address of a file.

Knows: how such links are written. Does not know: the network; what is behind a link.

    org/name                                     a repository, also org/name@revision
    org/name/vae/big.safetensors                 one file of it
    https://huggingface.co/org/name/blob/main/x  the same as the browser shows it
    https://civitai.com/models/12?modelVersionId=34
    https://civitai.com/api/download/models/34
    https://example.org/moon.safetensors         any other file
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from studio.errors import BadFile, quote

MAX_LINK_CHARS = 4096
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Two doors of one site, with the same numbers; it answers programs at the first.
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red")
_REPOSITORY = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]{0,95})/(?P<name>[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>[\w./-]{1,200}))?(?P<file>(?:/[^/?#@]+)+)?"
)
_WAYS = "paste org/name from Hugging Face, a Civitai page, or the https address of a file"


@dataclass(frozen=True)
class HubLink:
    """A repository on the hub, or one `file` of it; `revision` empty is its main one."""

    repository: str
    revision: str = ""
    file: str = ""


@dataclass(frozen=True)
class CivitaiLink:
    """A model on Civitai, by the number of the model or of one version of it; 0 is not known."""

    model_id: int = 0
    version_id: int = 0


@dataclass(frozen=True)
class AddressLink:
    """A file at any https address."""

    url: str

    @property
    def host(self) -> str:
        """Whose address it is."""
        return urlsplit(self.url).hostname or ""


Link = HubLink | CivitaiLink | AddressLink


def parse_link(text: str) -> Link:
    """Return what a pasted text means. Raises BadFile for what is no link that can be followed."""
    text = text.strip()
    if not text:
        raise BadFile(f"Link: required; {_WAYS}.")
    if len(text) > MAX_LINK_CHARS or not text.isprintable():
        raise BadFile(f"{quote(text)} is not a link; {_WAYS}.")
    if "://" not in text and text.split("/")[0].lower() in (*HUB_HOSTS, *CIVITAI_HOSTS):
        text = f"https://{text}"
    if "://" not in text:
        match = _REPOSITORY.fullmatch(text)
        if match is None:
            raise BadFile(f"{quote(text)} is not a link; {_WAYS}.")
        repository = f"{match['owner']}/{match['name']}"
        return _check_file(HubLink(repository, match["revision"] or "", (match["file"] or "")[1:]))
    parts = _split_address(text)
    host = (parts.hostname or "").lower()
    if host in HUB_HOSTS and parts.port in (None, 443):
        return _parse_hub_path(parts, text)
    if host in CIVITAI_HOSTS and parts.port in (None, 443):
        return _parse_civitai_path(parts, text)
    return AddressLink(text)


def _split_address(text: str) -> SplitResult:
    """Return the parts of an https address. Raises BadFile for any other."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise BadFile(f"{quote(text)} is not an address; {_WAYS}.") from None
    if parts.scheme.lower() != "https":
        raise BadFile(
            f"{quote(text)} does not begin with https://; files sent without https could be "
            "altered on the way, so only https is accepted."
        )
    if not host:
        raise BadFile(f"{quote(text)} contains no site; {_WAYS}.")
    if parts.username is not None or parts.password is not None:
        raise BadFile("The link contains a user name or password; remove them.")
    return parts


def _parse_hub_path(parts: SplitResult, text: str) -> HubLink:
    names = [unquote(name) for name in parts.path.split("/") if name]
    if names and names[0] in ("datasets", "spaces", "collections", "papers"):
        raise BadFile(f"{quote(text)} is not a model on the hub; paste the page of a model.")
    if len(names) < 2 or not _REPOSITORY.fullmatch("/".join(names[:2])):
        raise BadFile(f"{quote(text)} is not a model page; it should end with org/name.")
    repository = "/".join(names[:2])
    if len(names) == 2:
        return HubLink(repository)
    if names[2] in ("tree", "commit") and len(names) == 4:
        return HubLink(repository, names[3])
    if names[2] in ("blob", "resolve", "raw") and len(names) > 4:
        return _check_file(HubLink(repository, names[3], "/".join(names[4:])))
    raise BadFile(f"{quote(text)} is neither the page of a model nor of one of its files.")


def _check_file(link: HubLink) -> HubLink:
    """Raise BadFile for a path that leads out of its repository."""
    if {"", ".", ".."} & set(link.file.split("/")) and link.file:
        raise BadFile(f"{quote(link.file)} is not a file in a repository.")
    return link


def _parse_civitai_path(parts: SplitResult, text: str) -> CivitaiLink:
    names = [name for name in parts.path.split("/") if name]
    match names:
        case ["api", "download", "models", number] if _is_number(number):
            return CivitaiLink(version_id=int(number))
        case ["models", number, *_] if _is_number(number):
            versions = parse_qs(parts.query).get("modelVersionId", [""])
            version = int(versions[0]) if _is_number(versions[0]) else 0
            return CivitaiLink(model_id=int(number), version_id=version)
        case ["model-versions", number] if _is_number(number):
            return CivitaiLink(version_id=int(number))
    raise BadFile(
        f"{quote(text)} is not a model page on Civitai; those look like civitai.com/models/123."
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 13
