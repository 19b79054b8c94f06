"""Downloads from the hub: models and single files, closed doors, secrets, mirrors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.errors import BadFile, Cancelled, SiteRefusal
from studio.settings import Settings
from studio.storage.downloads import hub
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from studio.storage.models.library import Library
from support.downloads import Get, is_part, list_home, read_pocket, read_small_model, stop_after
from support.sentences import check_sentence, refused
from support.sites import (
    HUB,
    OTHER,
    STORAGE,
    Sites,
    add_repository,
)


def test_a_model_from_the_hub(sites: Sites, get: Get, settings: Settings) -> None:
    files = read_pocket()
    add_repository(sites, "ann/tiny", files, licence="apache-2.0")
    seen: list[tuple[int, int]] = []
    placed = get("ann/tiny", lambda done, total: seen.append((done, total)))
    assert (placed.name, placed.folder) == ("tiny", "models")
    model = Library(settings).get_model("tiny")
    original = Library(settings).get_model("pocket")
    assert (model.family, model.size_bytes) == (original.family, original.size_bytes)
    names = {name.removeprefix("models/tiny/") for name in list_home(settings)}
    assert "README.md" not in names
    assert "unet/diffusion_pytorch_model.bin" not in names
    assert {"LICENSE", "source.json", "model_index.json"} <= names
    card = json.loads((settings.models / "tiny/source.json").read_text())
    assert card["version"].startswith("c0ffee")
    assert card["licence"] == "apache-2.0"
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == sum(file["size"] for file in card["files"])


def test_a_model_that_was_cut_goes_on_with_what_is_missing(
    sites: Sites, get: Get, settings: Settings
) -> None:
    files = read_pocket()
    add_repository(sites, "ann/tiny", files)
    largest = max(len(data) for path, data in files.items())
    total = sum(len(data) for data in files.values())
    with pytest.raises(Cancelled):
        get("ann/tiny", stop_after(total - largest // 2))
    assert list_home(settings)
    assert all(is_part(name) for name in list_home(settings))
    first = {call.path for call in sites.log if "/resolve/" in call.path}
    sites.log.clear()
    get("ann/tiny")
    again = {call.path for call in sites.log if "/resolve/" in call.path}
    assert len(again & first) <= 2  # the index, to see which parts there are, and what was cut
    assert any("Range" in call.headers for call in sites.calls_of(STORAGE))
    for path, data in files.items():
        copy = settings.models / "tiny" / path
        assert not copy.exists() or copy.read_bytes() == data
    assert Library(settings).get_model("tiny")


def test_the_same_model_again_and_another_of_that_name(
    sites: Sites, get: Get, tmp_path: Path
) -> None:
    files = read_small_model(tmp_path)
    add_repository(sites, "ann/tiny", files)
    add_repository(sites, "bob/tiny", files)
    get("ann/tiny")
    sites.log.clear()
    assert get("ann/tiny").was_there
    assert sites.calls_of(STORAGE) == []
    with refused(BadFile):
        get("bob/tiny")
    assert get("bob/tiny", name="tiny-2").name == "tiny-2"


def test_a_model_may_not_have_the_name_of_the_embedded_one(
    sites: Sites, get: Get, tmp_path: Path
) -> None:
    add_repository(sites, "ann/pocket", read_small_model(tmp_path))
    with refused(BadFile):
        get("ann/pocket")


def test_one_file_of_a_repository(sites: Sites, get: Get, lora: bytes) -> None:
    add_repository(sites, "ann/loras", {"sub/moon.safetensors": lora, "b.safetensors": lora})
    assert get("ann/loras/sub/moon.safetensors").path.name == "moon.safetensors"
    page = f"https://{HUB}/ann/loras/blob/c0ffee{'0' * 34}/sub/moon.safetensors"
    assert get(page).was_there
    with refused(BadFile):
        get("ann/loras/missing.safetensors")
    with refused(BadFile):
        get(f"https://{HUB}/ann/loras/blob/c0ffee{'0' * 34}/README.md")


def test_a_repository_of_one_file_is_that_file(sites: Sites, get: Get, lora: bytes) -> None:
    """Under the repository's name where the file has none of its own."""
    add_repository(sites, "ann/moon-lora", {"pytorch_lora_weights.safetensors": lora})
    assert get("ann/moon-lora").path.name == "moon-lora.safetensors"


def test_a_repository_of_several_files_asks_which(sites: Sites, get: Get, lora: bytes) -> None:
    add_repository(sites, "ann/loras", {"a.safetensors": lora, "b.safetensors": lora})
    with refused(BadFile):
        get("ann/loras")


def test_repositories_without_anything_of_use(sites: Sites, get: Get) -> None:
    add_repository(sites, "ann/empty", {"README.md": b"x"})
    add_repository(sites, "ann/text", {"model.gguf": b"x", "config.json": b"{}"})
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer"]}
    add_repository(sites, "ann/flux", {"model_index.json": json.dumps(index).encode()})
    add_repository(sites, "ann/broken", {"model_index.json": b"[]"})
    for name in ("ann/empty", "ann/text", "ann/flux", "ann/broken"):
        with refused(BadFile):
            get(name)


HEADERS = {
    "gated": (401, "GatedRepo"),
    "gated for others": (403, "GatedRepo"),
    "private": (401, "RepoNotFound"),
    "misspelt": (404, "RepoNotFound"),
    "no such version": (404, "RevisionNotFound"),
}


@pytest.mark.parametrize("token", ["", "hf_secret"])
@pytest.mark.parametrize("kind", HEADERS)
def test_what_to_do_where_the_hub_says_no(
    sites: Sites, get: Get, monkeypatch: pytest.MonkeyPatch, kind: str, token: str
) -> None:
    status, code = HEADERS[kind]
    sites.on(
        f"https://{HUB}/api/models/ann/x", lambda asked: asked.answer(status, X_Error_Code=code)
    )
    monkeypatch.setattr(hub, "read_hub_token", lambda: token)
    with refused(SiteRefusal) as caught:
        get("ann/x")
    assert "hf_secret" not in str(caught.value)


def test_a_gated_file_says_it_too_and_the_list_says_it_before(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    add_repository(sites, "ann/moon", {"moon.safetensors": lora}, gated=True)
    plan = look_up(SafeClient(sites.network), DownloadSpec(link="ann/moon"))
    check_sentence(plan.notes[0])
    sites.on(plan.files[0].url, lambda asked: asked.answer(403, X_Error_Code="GatedRepo"))
    with refused(SiteRefusal):
        get("ann/moon")
    assert list_home(settings) == []


def test_the_token_goes_to_the_hub_alone(
    sites: Sites, get: Get, settings: Settings, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "read_hub_token", lambda: "hf_secret")
    add_repository(sites, "ann/moon", {"moon.safetensors": lora})
    get("ann/moon")
    asked = {(call.host, "Bearer hf_secret" in call.headers.values()) for call in sites.log}
    assert asked == {(HUB, True), (STORAGE, False)}
    for path in settings.home.rglob("*"):
        assert not path.is_file() or b"hf_secret" not in path.read_bytes()


def test_the_token_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert hub.read_hub_token() == "hf_mine"


def test_a_mirror_of_the_hub(
    sites: Sites, get: Get, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_repository(sites, "ann/moon", {"moon.safetensors": lora})
    for (host, path), act in list(sites.acts.items()):
        if host == HUB:
            sites.acts[OTHER, path] = act
    monkeypatch.setenv("HF_ENDPOINT", f"https://{OTHER}/")
    assert get("ann/moon").name == "moon"
    assert sites.calls_of(HUB) == []


def test_paths_in_a_list_that_lead_out_are_left_out(
    sites: Sites, get: Get, settings: Settings, tmp_path: Path
) -> None:
    files = read_small_model(tmp_path)
    evil = {"unet/../../../evil.json": b"{}", "/etc/x.json": b"{}", "unet\\x.json": b"{}"}
    add_repository(sites, "ann/tiny", files | evil)
    get("ann/tiny")
    assert not any("evil" in name or "\\" in name for name in list_home(settings))


@pytest.mark.parametrize(
    ("path", "is_plain"),
    [
        ("model_index.json", True),
        ("unet/diffusion_pytorch_model.fp16.safetensors", True),
        ("unet/../../evil.json", False),
        ("../evil.json", False),
        ("/etc/passwd", False),
        ("unet//x.json", False),
        ("unet/./x.json", False),
        ("C:/x.json", False),
        ("unet\\x.json", False),
        ("unet/x.json.", False),
        ("unet/x.part", False),
        (".git/config", False),
        ("unet/a\nb.json", False),
        ("x" * 500, False),
    ],
)
def test_which_paths_of_a_list_are_taken(path: str, is_plain: bool) -> None:
    assert hub.is_plain_path(path) is is_plain
