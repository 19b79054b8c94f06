"""Links as people paste them: what each means, and what is no link."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.downloads.links import AddressLink, CivitaiLink, HubLink, Link, parse_link
from studio.errors import BadFile
from support.sentences import refused

pytestmark = pytest.mark.smoke
REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        (REPOSITORY, HubLink(REPOSITORY)),
        (f" {REPOSITORY}@fp16\n", HubLink(REPOSITORY, "fp16")),
        (f"{REPOSITORY}/vae/a.safetensors", HubLink(REPOSITORY, "", "vae/a.safetensors")),
        (f"https://huggingface.co/{REPOSITORY}", HubLink(REPOSITORY)),
        (f"huggingface.co/{REPOSITORY}/", HubLink(REPOSITORY)),
        (f"https://huggingface.co/{REPOSITORY}/tree/main", HubLink(REPOSITORY, "main")),
        (
            f"https://huggingface.co/{REPOSITORY}/blob/main/sd%20xl.safetensors?download=true",
            HubLink(REPOSITORY, "main", "sd xl.safetensors"),
        ),
        (
            f"https://huggingface.co/{REPOSITORY}/resolve/v1/vae/x.safetensors",
            HubLink(REPOSITORY, "v1", "vae/x.safetensors"),
        ),
        ("https://civitai.com/models/12", CivitaiLink(12)),
        ("https://civitai.com/models/12/moon?modelVersionId=34", CivitaiLink(12, 34)),
        ("https://civitai.red/models/12/moon?modelVersionId=34", CivitaiLink(12, 34)),
        ("civitai.com/api/download/models/34?type=Model", CivitaiLink(0, 34)),
        ("https://example.org/a.safetensors", AddressLink("https://example.org/a.safetensors")),
        # The name of a known site in front of another's, or with a port of its own.
        (
            "https://huggingface.co.example.org/a/b",
            AddressLink("https://huggingface.co.example.org/a/b"),
        ),
        ("https://civitai.com:8443/models/1", AddressLink("https://civitai.com:8443/models/1")),
    ],
)
def test_what_a_link_means(text: str, link: Link) -> None:
    assert parse_link(text) == link


@pytest.mark.parametrize(
    "text",
    [
        "",
        "moon",
        "a b/c",
        "../secrets",
        "http://example.org/a.safetensors",
        "file:///etc/passwd",
        "ftp://example.org/a",
        "https://",
        "https://[::1",
        "https://example.org:99999/a",
        "https://ann:secret@example.org/a.safetensors",
        "https://huggingface.co/datasets/a/b",
        "https://huggingface.co/a",
        "https://huggingface.co/a/b/discussions/1",
        "https://huggingface.co/a/b/resolve/main/../../x",
        "https://civitai.com/articles/5",
        "https://civitai.com/models/99999999999999999999",
        "a/b/../c",
        "https://example.org/\x00",
        "x" * 5000,
    ],
)
def test_no_link(text: str) -> None:
    with refused(BadFile):
        parse_link(text)


@given(st.text(max_size=60) | st.text("ab/:.?#%@[]-", max_size=40).map("https://{}".format))
def test_any_text_is_a_link_or_refused_in_words(text: str) -> None:
    with suppress(BadFile):
        assert isinstance(parse_link(text), HubLink | CivitaiLink | AddressLink)
