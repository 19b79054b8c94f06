"""Downloads from Civitai: which file, what is kept beside it, what is for sale."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.errors import BadFile, DownloadError, SiteRefusal
from studio.settings import Settings
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from support.downloads import Get, list_home
from support.sentences import check_sentence, refused
from support.sites import (
    CIVITAI,
    CIVITAI_STORAGE,
    HUB,
    Sites,
    add_version,
)


def test_a_lora_from_civitai(
    sites: Sites, get: Get, settings: Settings, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page says it is a checkpoint, and its header that it is a LoRA."""
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    page = add_version(sites, lora)
    plan = look_up(SafeClient(sites.network), DownloadSpec(link=page))
    assert plan.title == "Moon style · v2.0"
    check_sentence(plan.licence)
    for note in plan.notes:
        check_sentence(note)
    assert plan.size_bytes == pytest.approx(len(lora), abs=100)
    placed = get(page)
    assert placed.path == settings.loras / "moonStyle_v2.safetensors"
    info = json.loads((settings.loras / "moonStyle_v2.civitai.info").read_text())
    assert info["trainedWords"] == ["moonlight", "silver"]
    assert info["baseModel"] == "SD 1.5"
    asked = {(call.host, "Bearer civ_secret" in call.headers.values()) for call in sites.log}
    assert asked == {(CIVITAI, True), (CIVITAI_STORAGE, False)}
    for path in settings.home.rglob("*"):
        assert not path.is_file() or b"civ_secret" not in path.read_bytes()


@pytest.mark.parametrize(
    "link",
    [
        "https://civitai.com/models/12",
        "https://civitai.com/models/12?modelVersionId=34",
        "https://civitai.com/api/download/models/34",
    ],
)
def test_all_links_to_a_version(sites: Sites, get: Get, lora: bytes, link: str) -> None:
    add_version(sites, lora)
    assert get(link).name == "moonStyle_v2"


def test_which_file_of_a_version(sites: Sites, get: Get, lora: bytes) -> None:
    def entry(name: str, number: int, **metadata: str) -> dict[str, Any]:
        url = f"https://{CIVITAI}/api/download/models/34?n={number}"
        return {"name": name, "type": "Model", "metadata": metadata, "downloadUrl": url}

    files = [
        entry("full.safetensors", 1, fp="fp32", size="full"),
        entry("pickle.pt", 2, fp="fp16", size="pruned"),
        entry("half.safetensors", 3, fp="fp16", size="full"),
        entry("small.safetensors", 4, fp="fp16", size="pruned"),
        {**entry("vae.safetensors", 5, fp="fp16", size="pruned"), "type": "VAE"},
        {**entry("training.zip", 6), "type": "Training Data"},
    ]
    page = add_version(sites, lora, files=files)
    client = SafeClient(sites.network)

    def choose(variant: Any) -> str:
        return look_up(client, DownloadSpec(link=page, variant=variant)).files[0].path

    assert choose("auto") == "small.safetensors"
    assert choose("full") == "full.safetensors"


SOLD: dict[str, dict[str, Any]] = {
    "free": {},
    "early": {"availability": "EarlyAccess", "earlyAccessEndsAt": "2199-12-24T00:00:00Z"},
    "was early": {"availability": None, "earlyAccessEndsAt": "2019-12-24T00:00:00Z"},
    "paid for a while": {"paidAccess": {"permanent": False, "endsAt": "2199-12-24T00:00:00Z"}},
    "paid": {"paidAccess": {"permanent": True}},
}


@pytest.mark.parametrize("token", ["", "civ_secret"])
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("kind", SOLD)
def test_what_to_do_where_civitai_says_no(
    sites: Sites,
    get: Get,
    settings: Settings,
    lora: bytes,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: str,
    token: str,
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", token)
    page = add_version(sites, lora, **SOLD[kind])
    sites.on(f"https://{CIVITAI}/api/download/models/34", lambda asked: asked.answer(status))
    with refused(SiteRefusal):
        get(page)
    assert list_home(settings) == []


def test_that_it_has_to_be_bought_is_said_before(sites: Sites, lora: bytes) -> None:
    for kind in SOLD:
        page = add_version(sites, lora, trainedWords=[], baseModel="", **SOLD[kind])
        plan = look_up(SafeClient(sites.network), DownloadSpec(link=page))
        check_sentence(f"{kind}: {' '.join(plan.notes)}")


def test_a_login_page_of_civitai_is_a_401_and_a_shop_a_403(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    page = add_version(sites, lora)
    login = f"https://{CIVITAI}/login?returnUrl=%2Fmodels&reason=download-auth"
    sites.redirect(f"https://{CIVITAI}/api/download/models/34", login, 307)
    sites.on(f"https://{CIVITAI}/login", lambda asked: asked.answer(200, b"<html>Log in"))
    with refused(SiteRefusal):
        get(page)
    shop = f"https://{CIVITAI}/models/12/purchase"
    sites.redirect(f"https://{CIVITAI}/api/download/models/34", shop, 307)
    with refused(SiteRefusal):
        get(page)
    assert list_home(settings) == []


def test_an_answer_of_the_hub_without_a_commit(sites: Sites, get: Get) -> None:
    for answer in (b"[]", b"{}", b'{"siblings": [], "sha": "main/../x"}', b'{"siblings": 1}'):
        sites.on(
            f"https://{HUB}/api/models/ann/x", lambda asked, body=answer: asked.answer(200, body)
        )
        with pytest.raises(DownloadError):
            get("ann/x")


def test_models_that_civitai_does_not_show(sites: Sites, get: Get, lora: bytes) -> None:
    with refused(SiteRefusal):
        get("https://civitai.com/models/999")
    page = add_version(sites, lora, files=[])
    with refused(BadFile):
        get(page)
    page = add_version(sites, lora, file={"name": "moon.ckpt"})
    with refused(BadFile):
        get(page)


def test_a_token_of_civitai_goes_to_no_other_site_that_its_answer_names(
    sites: Sites, get: Get, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    elsewhere = sites.put(f"https://{HUB}/steal", lora)
    page = add_version(sites, lora, file={"downloadUrl": elsewhere})
    get(page)
    assert all("civ_secret" not in str(call.headers) for call in sites.calls_of(HUB))


def test_a_wrong_sha256(sites: Sites, get: Get, settings: Settings, lora: bytes) -> None:
    page = add_version(sites, lora, file={"hashes": {"SHA256": "AB" * 32}})
    with refused(BadFile):
        get(page)
    assert list_home(settings) == []
