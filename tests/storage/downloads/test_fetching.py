"""Whole downloads into a home: from the hub, from Civitai, from any site; where what lands, and what stays after a failure."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.errors import BadFile, Busy, Cancelled, DiskError, DownloadError, SiteRefusal
from studio.settings import Settings
from studio.storage.downloads import hub
from studio.storage.downloads.fetching import RateMeter, download, part_folder
from studio.storage.downloads.pickle_names import classify_pickle
from studio.storage.downloads.placing import Placed
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from studio.storage.locks import Lock
from studio.storage.models.library import Library
from support.models import POCKET
from support.sentences import check_sentence, refused
from support.sites import (
    CIVITAI,
    CIVITAI_STORAGE,
    HUB,
    OTHER,
    STORAGE,
    Sites,
    add_repository,
    add_version,
    make_large_lora,
    make_weights,
)
from support.weights import CLIP, CROSS, SDXL, WHOLE, kohya_lora

LORA = f"https://{OTHER}/files/moon.safetensors"
EMBEDDING = {"emb_params": [4, 768]}
VAE = {"decoder.conv_in.weight": [512, 4, 3, 3], "encoder.conv_in.weight": [128, 3, 3, 3]}
CONTROLNET = {"controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3]}

Get = Callable[..., Placed]


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_large_lora(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def get(sites: Sites, settings: Settings) -> Get:
    """Look a link up and fetch it."""

    def get(link: str, on_progress: Any = lambda done, total: None, **values: Any) -> Placed:
        spec = DownloadSpec(link=link, is_host_confirmed=True, **values)
        client = SafeClient(sites.network)
        plan = look_up(client, spec)
        return download(settings, plan, client, is_confirmed=True, on_progress=on_progress)

    return get


def list_home(settings: Settings) -> list[str]:
    """The files of a home but the settings' own."""
    home = settings.home
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


def is_part(name: str) -> bool:
    return ".part/" in name


# ---- any site -----------------------------------------------------------------------------------


def test_a_lora_from_any_site(sites: Sites, get: Get, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    placed = get(LORA)
    assert (placed.name, placed.folder, placed.was_there) == ("moon", "loras", False)
    assert list_home(settings) == ["loras/moon.safetensors", "loras/moon.source.json"]
    assert placed.path.read_bytes() == lora
    card = json.loads((settings.loras / "moon.source.json").read_text())
    assert card["page"] == LORA
    assert card["files"][0]["sha256"] == hashlib.sha256(lora).hexdigest()
    assert [entry.name for entry in Library(settings).list_loras() if entry.name == "moon"]


@pytest.mark.parametrize(
    ("shapes", "folder"),
    [
        (kohya_lora(CROSS), "loras"),
        (SDXL | WHOLE | {CLIP: [9, 768]}, "models"),
        (VAE, "vae"),
        (EMBEDDING, "embeddings"),
    ],
)
def test_where_a_file_belongs_its_header_says(
    sites: Sites, get: Get, settings: Settings, tmp_path: Path, shapes: Any, folder: str
) -> None:
    sites.put(LORA, make_weights(tmp_path, shapes))
    assert get(LORA, name="it").path == settings.home / folder / "it.safetensors"


def test_a_kind_without_a_place_is_refused_by_its_header(
    sites: Sites, get: Get, settings: Settings, tmp_path: Path
) -> None:
    sites.put(LORA, make_weights(tmp_path, CONTROLNET))
    with refused(BadFile):
        get(LORA)
    assert list_home(settings) == []


def test_the_same_content_again_is_said_and_done(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    sites.put(LORA, lora)
    get(LORA)
    before = list_home(settings)
    assert get(LORA).was_there
    assert list_home(settings) == before


def test_another_content_of_that_name_is_not_overwritten(
    sites: Sites, get: Get, settings: Settings, lora: bytes, tmp_path: Path
) -> None:
    there = make_weights(tmp_path)
    (settings.loras / "deep").mkdir(parents=True)
    (settings.loras / "deep/Moon.safetensors").write_bytes(there)
    sites.put(LORA, lora)
    with refused(BadFile):
        get(LORA)
    assert list_home(settings) == ["loras/deep/Moon.safetensors"]
    assert get(LORA, name="moon-2").name == "moon-2"
    assert (settings.loras / "deep/Moon.safetensors").read_bytes() == there


def test_an_address_without_a_name(sites: Sites, get: Get, lora: bytes) -> None:
    sites.put(f"https://{OTHER}/download", lora)
    assert get(f"https://{OTHER}/download?id=7").path.name == "download.safetensors"


@pytest.mark.parametrize(
    "path", ["moon.gguf", "moon.ckpt", "moon.zip", "moon.exe", "moon.pkl", "page.html"]
)
def test_what_its_name_says_is_refused_before_anybody_is_asked(
    sites: Sites, get: Get, path: str
) -> None:
    with refused(BadFile):
        get(f"https://{OTHER}/{path}")
    assert sites.log == []


@pytest.mark.parametrize("name", ["../../evil", "a/b", "con", "..", "\x00", " "])
def test_names_stay_in_their_folder(
    sites: Sites, get: Get, settings: Settings, lora: bytes, name: str
) -> None:
    sites.put(LORA, lora)
    try:
        placed = get(LORA, name=name)
    except BadFile:
        assert list_home(settings) == []
    else:
        assert placed.path.parent == settings.loras


def test_a_site_that_was_not_confirmed(sites: Sites, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    client = SafeClient(sites.network)
    plan = look_up(client, DownloadSpec(link=LORA))
    assert not plan.is_known_host
    with refused(DownloadError):
        download(settings, plan, client)
    assert sites.log == []
    assert list_home(settings) == []


# ---- going on -----------------------------------------------------------------------------------


def stop_after(num_bytes: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        assert done <= total
        if done >= num_bytes:
            raise Cancelled

    return stop


def test_a_stopped_download_goes_on_also_under_another_name(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    sites.put(LORA, lora)
    with pytest.raises(Cancelled):
        get(LORA, stop_after(300_000))
    assert all(is_part(name) for name in list_home(settings))
    sites.log.clear()
    placed = get(LORA, name="silver")
    assert [call.headers.get("Range", "")[:6] for call in sites.log] == ["bytes="]
    assert placed.path.read_bytes() == lora
    assert not any(is_part(name) for name in list_home(settings))


def test_two_at_once(sites: Sites, get: Get, settings: Settings, lora: bytes) -> None:
    sites.put(LORA, lora)
    plan = look_up(SafeClient(sites.network), DownloadSpec(link=LORA))
    folder = part_folder(settings, plan)
    folder.mkdir(parents=True)
    lock = Lock(folder, "download")
    assert lock.acquire()
    with refused(Busy):
        get(LORA)
    assert folder.is_dir()  # the other one is just about to write there
    lock.close()
    assert get(LORA).name == "moon"


# ---- the hub ------------------------------------------------------------------------------------


def read_pocket() -> dict[str, bytes]:
    """The embedded model as a repository, with what real ones have beside."""
    files = {
        path.relative_to(POCKET).as_posix(): path.read_bytes()
        for path in POCKET.rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt")
    }
    others = {"README.md": b"# moon", "unet/diffusion_pytorch_model.bin": b"x", "LICENSE": b"MIT"}
    return files | others


def read_small_model(tmp_path: Path) -> dict[str, bytes]:
    """The same with hardly any weights: enough where nobody opens it."""
    few = make_weights(tmp_path)
    return {
        path: few if path.endswith(".safetensors") else data for path, data in read_pocket().items()
    }


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


# ---- Civitai ------------------------------------------------------------------------------------


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


# ---- pickles ------------------------------------------------------------------------------------


def zip_pickle(value: Any) -> bytes:
    """A pickle in the form in which PyTorch writes one, without tensors."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/data/0", bytes(100))
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return (open, ("/tmp/studio-was-here", "w"))


@pytest.mark.parametrize(
    ("name", "value", "folder"),
    [
        ("moon.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": 1}}, "embeddings"),
        ("moon.bin", {"<moon>": 1}, "embeddings"),
        ("moon.pth", {"params_ema": {"conv_first.weight": 1}}, "upscalers"),
        ("moon.pth", {"model.0.weight": 1, "model.1.sub.0.RDB1.conv1.0.weight": 1}, "upscalers"),
    ],
)
def test_pickles_of_embeddings_and_upscalers(
    sites: Sites, get: Get, settings: Settings, name: str, value: Any, folder: str
) -> None:
    url = f"https://{OTHER}/{name}"
    for number, data in enumerate((zip_pickle(value), pickle.dumps(value, protocol=2))):
        sites.put(url, data)
        placed = get(url, name=f"moon{number}")
        assert placed.path == settings.home / folder / f"moon{number}{Path(name).suffix}"


@pytest.mark.parametrize(
    "data",
    [
        zip_pickle({"optimizer": 1}),
        pickle.dumps([1, 2]),
        b"PK\x03\x04" + b"x" * 500,
        b"\x80\x02" + b"\xff" * 500,
    ],
    ids=range(4),
)
def test_other_pickles_are_not_kept(
    sites: Sites, get: Get, settings: Settings, data: bytes
) -> None:
    sites.put(f"https://{OTHER}/moon.pt", data)
    with refused(BadFile):
        get(f"https://{OTHER}/moon.pt")
    assert list_home(settings) == []


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(zip_pickle({"string_to_param": Evil()}))
    assert classify_pickle(path) == "embedding"
    assert not Path("/tmp/studio-was-here").exists()


# ---- failures -----------------------------------------------------------------------------------


def list_faults(sites: Sites, data: bytes) -> Iterator[str]:
    """Do one thing after the other to a file on a site."""
    half = len(data) // 2
    yield "404"
    sites.put(LORA, data[:half])
    yield "cut in the middle"
    sites.put(LORA, b"<html>log in</html>")
    yield "a page"
    sites.on(LORA, lambda asked: asked.answer(503))
    yield "503"
    sites.on(LORA, lambda asked: asked.answer(200, data[:half], Content_Length=str(len(data))))
    yield "hangs up"
    sites.redirect(LORA, "https://127.0.0.1/")
    yield "a redirect to this machine"
    sites.redirect(LORA, LORA)
    yield "a circle"
    sites.on(LORA, lambda asked: asked.wfile.write(b"nonsense"))
    yield "no HTTP"
    sites.on(LORA, lambda asked: asked.answer(200, data, Content_Encoding="gzip"))
    yield "packed"
    sites.put(LORA, b"\x80\x02}." * 99)
    yield "a pickle"


def test_after_any_failure_the_home_has_nothing_new_but_parts(
    sites: Sites, get: Get, settings: Settings, lora: bytes
) -> None:
    (settings.loras).mkdir(parents=True, exist_ok=True)
    before = list_home(settings)
    kinds = 0
    for fault in list_faults(sites, lora):
        kinds += 1
        with pytest.raises((BadFile, DownloadError)):
            get(LORA)
        new = set(list_home(settings)) - set(before)
        assert all(is_part(name) for name in new), (fault, new)
    assert kinds == 10
    sites.put(LORA, lora)
    assert get(LORA).path.read_bytes() == lora
    assert list_home(settings) == ["loras/moon.safetensors", "loras/moon.source.json"]


def test_a_model_that_does_not_fit_the_disk_is_not_begun(
    sites: Sites,
    get: Get,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_repository(sites, "ann/tiny", read_small_model(tmp_path))
    monkeypatch.setattr("studio.storage.downloads.part_file.RESERVED_DISK_BYTES", 2**60)
    with pytest.raises(DiskError):
        get("ann/tiny")
    assert sites.calls_of(STORAGE) == []
    assert list_home(settings) == []


def test_the_rate_of_the_last_seconds() -> None:
    now = [0.0]
    meter = RateMeter(clock=lambda: now[0])
    assert meter.add(0) == 0
    for second in range(1, 30):
        now[0] = second
        rate = meter.add(1000 * second if second < 15 else 15_000)
    assert rate == 0
    now[0] += 1
    assert meter.add(15_800) > 0
