"""Folders that other programs have: told apart, named, used where they lie, never written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from studio.errors import BadFile, LoraNotFound, ModelNotFound, UnknownFamily
from studio.settings import Settings, load
from studio.storage.models.comfy_paths import list_paths
from studio.storage.models.folder_layouts import detect_layout
from studio.storage.models.hub_cache import read_blob_hash
from studio.storage.models.library import Library, LoraInfo, ModelInfo, Unusable
from support.models import POCKET
from support.sentences import refused
from support.weights import CROSS, SD1, SDXL, VAE_FILE, WHOLE, kohya_lora, write_weights

pytestmark = pytest.mark.smoke
LORA = kohya_lora(CROSS)
VAE_SHAPES = VAE_FILE


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


@pytest.fixture
def library(settings: Settings) -> Library:
    return Library(settings)


def own_loras(library: Library) -> dict[str, LoraInfo]:
    return {
        lora.name: lora
        for lora in library.list_loras()
        if isinstance(lora, LoraInfo) and "assets" not in lora.path.parts
    }


def make_a1111(folder: Path) -> Path:
    write_weights(folder / "models/Stable-diffusion/big.safetensors", SDXL | WHOLE)
    write_weights(folder / "models/Lora/style/ink.safetensors", LORA)
    write_weights(folder / "models/LyCORIS/style/ink.safetensors", kohya_lora(CROSS, rank=8))
    write_weights(folder / "models/VAE/anime.safetensors", VAE_SHAPES)
    write_weights(folder / "embeddings/hands.safetensors", {"emb_params": [4, 768]})
    (folder / "config.json").write_text("{}")  # A1111's own settings
    return folder


def make_hub(folder: Path, name: str, commit: str = "c" * 40) -> Path:
    """Copy the embedded model as the hub's client stores it; return the snapshot."""
    repository = folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    for path in sorted(POCKET.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            blob = blobs / (digest if path.suffix == ".safetensors" else digest[:40])
            blob.write_bytes(data)
            link = snapshot / path.relative_to(POCKET)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    return snapshot


# ---- layouts ----------------------------------------------------------------------------------


def test_a1111(library: Library, tmp_path: Path) -> None:
    folder = make_a1111(tmp_path / "webui")
    before = sorted(folder.rglob("*"))
    added = library.folders.add(str(folder))
    assert (added.name, added.layout) == ("a1111", "A1111 or Forge")
    assert set(own_loras(library)) == {"a1111/style/ink", "a1111/LyCORIS/style/ink"}
    assert library.get_lora("a1111/LyCORIS/style/ink").rank == 8
    assert library.get_lora("a1111/style/ink").rank == 4
    shelf = library.shelf
    assert [file.name for file in shelf.list_files("vae")] == ["a1111/anime"]
    assert [file.name for file in shelf.list_files("checkpoint")] == ["a1111/big"]
    assert [file.name for file in shelf.list_files("embedding")] == ["a1111/hands"]
    assert sorted(folder.rglob("*")) == before


def test_the_folder_of_models_itself_is_enough(library: Library, tmp_path: Path) -> None:
    make_a1111(tmp_path / "webui")
    assert library.folders.add(str(tmp_path / "webui/models")).layout == "A1111 or Forge"
    assert "a1111/style/ink" in own_loras(library)


def test_comfy_with_its_list(library: Library, tmp_path: Path) -> None:
    comfy = tmp_path / "ComfyUI"
    write_weights(comfy / "models/loras/own.safetensors", LORA)
    (comfy / "models/checkpoints").mkdir()
    write_weights(tmp_path / "shared/lora/one.safetensors", LORA)
    write_weights(tmp_path / "shared/more/two.safetensors", LORA)
    (comfy / "extra_model_paths.yaml").write_text(
        f"a111:\n  base_path: {tmp_path}/shared\n  is_default: true\n"
        "  loras: |\n    lora\n    more\n  custom_nodes: nodes\n"
        "comfyui:\n  vae: relative/vae\n"
    )
    write_weights(comfy / "relative/vae/x.safetensors", VAE_SHAPES)
    assert library.folders.add(str(comfy)).layout == "ComfyUI"
    assert set(own_loras(library)) == {"comfyui/own", "comfyui/one", "comfyui/two"}
    assert library.shelf.get_file("vae", "comfyui/x").path.parent.name == "vae"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch pwned']",
        "[" * 5000,
        "- just\n- a list",
        "a: {base_path: 1, loras: [x]}\nb: 3",
        "\x00\xff",
        "x" * 100_000,
    ],
)
def test_a_hostile_list_does_nothing(
    text: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    comfy = tmp_path / "ComfyUI"
    write_weights(comfy / "models/checkpoints/own.safetensors", LORA)
    (comfy / "extra_model_paths.yaml").write_text(text, "latin-1")
    library.folders.add(str(comfy))
    assert set(own_loras(library)) == {"comfyui/own"}
    assert not (tmp_path / "pwned").exists()


def test_aliases_of_aliases_take_no_time(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    begin = time.monotonic()
    with refused(BadFile):
        list_paths(tmp_path / "x.yaml")
    assert time.monotonic() - begin < 2


def test_a_list_names_neither_the_disk_nor_the_home(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "home/loras/moon2.safetensors", LORA)
    comfy = tmp_path / "ComfyUI"
    (comfy / "models/checkpoints").mkdir(parents=True)
    (comfy / "extra_model_paths.yaml").write_text(
        f"a:\n  base_path: /\n  loras: .\n  vae: {tmp_path}\n"
    )
    library.folders.add(str(comfy))
    roots = [root.path for root in library.folders.list_roots()]
    assert roots == [comfy / "models"]
    (folder,) = library.folders.list_folders()
    assert "/ is the whole disk" in folder.problem
    assert "contains the studio's own folder" in folder.problem
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with refused(BadFile):
        library.folders.add(str(bad))


def test_a_folder_named_models_gets_another_name(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "my/models/x.safetensors", LORA)
    assert library.folders.add(str(tmp_path / "my/models")).name == "models-2"


def test_invoke_and_swarm(library: Library, tmp_path: Path) -> None:
    invoke = tmp_path / "invoke"
    write_weights(invoke / "models/0f3a-77/moonlight.safetensors", LORA)
    (invoke / "databases").mkdir()
    (invoke / "databases/invokeai.db").write_bytes(b"")
    swarm = tmp_path / "swarm"
    write_weights(swarm / "Models/Lora/sun.safetensors", LORA)
    (swarm / "Models/Stable-Diffusion").mkdir()
    assert library.folders.add(str(invoke)).layout == "InvokeAI"
    assert library.folders.add(str(swarm)).layout == "SwarmUI"
    assert set(own_loras(library)) == {"invokeai/moonlight", "swarmui/sun"}


def test_any_folder(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "my files/a/x.safetensors", LORA)
    shutil.copytree(POCKET, tmp_path / "my files/toys/tiny")
    assert library.folders.add(str(tmp_path / "my files")).name == "my-files"
    assert set(own_loras(library)) == {"my-files/a/x"}
    assert library.get_model("my-files/toys/tiny").path == tmp_path / "my files/toys/tiny"


def test_a_model_by_itself(library: Library, tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path / "tiny")
    library.folders.add(str(tmp_path / "tiny"), "mine")
    assert library.get_model("mine").family == "sd1"


# ---- the hub's cache --------------------------------------------------------------------------


def test_the_hub(library: Library, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    snapshot = make_hub(cache, "org/tiny")
    assert library.folders.add(str(cache)).layout == "Hugging Face cache"
    assert library.get_model("hub/org/tiny").path == snapshot


def test_a_download_that_was_cut_is_said(library: Library, tmp_path: Path) -> None:
    snapshot = make_hub(tmp_path / "hub", "org/tiny")
    weights = next((snapshot / "vae").glob("*.safetensors"))
    blob = weights.resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    library.folders.add(str(tmp_path / "hub"))
    (model,) = [item for item in library.scan_models() if item.name == "hub/org/tiny"]
    assert isinstance(model, Unusable)
    index = snapshot / "vae/x.safetensors.index.json"
    blob.with_name(f"{blob.name}.incomplete").rename(blob)
    index.write_text(json.dumps({"weight_map": {"a": "missing-00002-of-00002.safetensors"}}))
    (model,) = [item for item in library.scan_models() if item.name == "hub/org/tiny"]
    assert isinstance(model, Unusable)
    assert "missing-00002-of-00002.safetensors is missing" in model.problem


def test_a_blobs_name_is_its_hash(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_hub(tmp_path / "hub", "org/tiny")
    library.folders.add(str(tmp_path / "hub"))
    model = library.get_model("hub/org/tiny")
    copied = library.get_model("pocket")
    assert isinstance(copied, ModelInfo)
    read: list[Path] = []
    opened = hashlib.file_digest
    monkeypatch.setattr(
        hashlib,
        "file_digest",
        lambda file, name: read.append(Path(file.name)) or opened(file, name),
    )
    assert library.get_content_hash(model) == library.get_content_hash(copied)
    hashed = [path for path in read if path.is_relative_to(snapshot)]
    assert hashed
    assert not [path for path in hashed if path.suffix == ".safetensors"]


def test_only_a_link_into_blobs_is_believed(tmp_path: Path) -> None:
    digest = "a" * 64
    blob = tmp_path / "shared/blobs" / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x")
    second = tmp_path / "repo/blobs" / ("b" * 12)
    second.parent.mkdir(parents=True)
    second.symlink_to(blob)
    (tmp_path / "two-hops").symlink_to(second)
    assert read_blob_hash(tmp_path / "two-hops") == digest
    other = tmp_path / "elsewhere" / digest
    other.parent.mkdir()
    other.write_bytes(b"x")
    (tmp_path / "no-blob").symlink_to(other)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "shared/blobs" / ("c" * 64))
    for path in ("no-blob", "circle", "nowhere"):
        assert read_blob_hash(tmp_path / path) == ""
    assert read_blob_hash(blob) == ""  # no link


# ---- names ------------------------------------------------------------------------------------


def test_a_bare_name_is_enough_where_it_is_unique(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "a/ink.safetensors", LORA)
    library.folders.add(str(tmp_path / "a"))
    assert library.get_lora("ink").name == "a/ink"
    write_weights(tmp_path / "b/ink.safetensors", LORA)
    library.folders.add(str(tmp_path / "b"))
    with refused(LoraNotFound):
        library.get_lora("ink")
    write_weights(tmp_path / "home/loras/ink.safetensors", kohya_lora(CROSS, rank=8))
    assert library.get_lora("ink").rank == 8  # the home's own needs no more than its name


def test_a_misplaced_lora_works_where_it_is(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "home/models/ink.safetensors", LORA)
    assert library.get_lora("ink").path.parent.name == "models"
    write_weights(tmp_path / "home/loras/ink.safetensors", kohya_lora(CROSS, rank=8))
    assert library.get_lora("ink").rank == 8
    assert library.get_lora("models/ink").rank == 4
    assert {"ink", "models/ink"} <= set(own_loras(library))


# ---- the list ---------------------------------------------------------------------------------


def test_what_may_not_be_added(library: Library, tmp_path: Path) -> None:
    for folder in ("a/deep", "b", "c/d"):
        write_weights(tmp_path / folder / "x.safetensors", LORA)
    (tmp_path / "empty").mkdir()
    (tmp_path / "home/loras/taken").mkdir()
    library.folders.add(str(tmp_path / "a"))
    before = (tmp_path / "home/folders.json").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    file = tmp_path / "file.txt"
    file.write_text("x")
    for path, name in (
        ("/", ""),
        (tmp_path, ""),
        (tmp_path / "home", ""),
        (tmp_path / "home/loras", ""),
        (tmp_path / "a", ""),
        (tmp_path / "a/deep", ""),
        (tmp_path / "link", ""),
        (tmp_path / "nowhere", ""),
        (file, ""),
        ("", ""),
        ("a\0b", ""),
        (tmp_path / "b", "a/b"),
        (tmp_path / "b", "A"),
        (tmp_path / "b", "taken"),
        (tmp_path / "b", "<script>"),
        (tmp_path / "b", "Models"),
        (tmp_path / "empty", ""),
        ("webui/models", ""),
        ("C:\\sd\\webui", ""),
        ("file:///data/webui", ""),
        ("https://civitai.com/models/1", ""),
    ):
        with refused(BadFile):
            library.folders.add(str(path), name)
    assert (tmp_path / "home/folders.json").read_bytes() == before
    library.folders.add(f"  '{tmp_path / 'b'}' ")
    library.folders.add(str(tmp_path / "c/d"))
    with refused(BadFile):
        library.folders.add(str(tmp_path / "c"))


def test_an_unplugged_disk_is_said_and_comes_back(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "usb/ink.safetensors", LORA)
    library.folders.add(str(tmp_path / "usb"))
    (tmp_path / "usb").rename(tmp_path / "away")
    (folder,) = library.folders.list_folders()
    assert (folder.is_there, own_loras(library)) == (False, {})
    assert "connect its disk" in folder.problem
    (tmp_path / "away").rename(tmp_path / "usb")
    assert set(own_loras(library)) == {"usb/ink"}
    library.folders.remove("usb")
    assert own_loras(library) == {}
    assert (tmp_path / "usb/ink.safetensors").is_file()
    with refused(BadFile):
        library.folders.remove("usb")


def test_those_of_studio_toml(tmp_path: Path) -> None:
    write_weights(tmp_path / "one/x.safetensors", LORA)
    write_weights(tmp_path / "two/y.safetensors", LORA)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/studio.toml").write_text(
        f'folders = ["/", "{tmp_path}/one", "named={tmp_path}/two", "{tmp_path}/home"]'
    )
    library = Library(load(home=tmp_path / "home", device="cpu"))
    assert set(own_loras(library)) == {"one/x", "named/y"}
    assert "the studio's own folder" in library.folders.list_folders()[3].problem
    write_weights(tmp_path / "three/z.safetensors", LORA)
    library.folders.add(str(tmp_path / "three"))  # the refused / is not in its way
    with refused(BadFile):
        library.folders.remove("named")


@pytest.mark.parametrize("text", ["{", "[]", '{"folders": 3}', '{"folders": [{}]}'])
def test_a_broken_list_is_said_and_kept(text: str, library: Library, tmp_path: Path) -> None:
    (tmp_path / "home/folders.json").write_text(text)
    (tmp_path / "a").mkdir()
    assert library.folders.list_folders() == []
    assert "folders.json cannot be read" in library.folders.problem
    with refused(BadFile):
        library.folders.add(str(tmp_path / "a"))
    assert (tmp_path / "home/folders.json").read_text() == text


def test_circles_depth_and_what_may_not_be_read(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    write_weights(folder / "x.safetensors", LORA)
    write_weights(folder / "/".join("abcdefghijklmnopqrst") / "deep.safetensors", LORA)
    (folder / "circle").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "dead.safetensors").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "folder.safetensors").mkdir()
    library.folders.add(str(folder))
    assert "odd/x" in own_loras(library)
    scan = library.shelf.scan()
    problems = {file.relative: sentence for file, _, sentence in scan.unreadable}
    assert set(problems) == {"dead.safetensors", "pipe.safetensors"}


def test_a_folder_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    assert detect_layout(tmp_path)[0].title == "folder of models"


# ---- names --------------------------------------------------------------------------------------


def test_the_end_of_a_name_is_enough(library: Library, settings: Settings, tmp_path: Path) -> None:
    webui = make_a1111(tmp_path / "webui")
    write_weights(webui / "models/Stable-diffusion/anime/ink.safetensors", SD1 | WHOLE)
    write_weights(webui / "models/VAE/deep/soft.safetensors", VAE_SHAPES)
    write_weights(settings.loras / "pack/style/weapons.safetensors", LORA)
    library.folders.add(str(webui))
    for name in ("ink", "anime/ink", "anime_ink", "ink.safetensors", "a1111/anime/ink"):
        candidates = library.shelf.find_candidates(name)
        assert "a1111/anime/ink" in [file.name for file in candidates], name
        with pytest.raises(UnknownFamily, match="The model a1111/anime/ink "):
            library.get_model(name)  # found, though it is not whole
    for name in ("soft", "deep/soft", "deep_soft", "soft.safetensors"):
        assert library.shelf.get_file("vae", name).name == "a1111/deep/soft"
    for name in ("style/weapons", "style_weapons", "weapons.safetensors"):
        assert library.get_lora(name).name == "weapons"
    assert library.get_lora("LyCORIS/style/ink").name == "a1111/LyCORIS/style/ink"
    for name in ("nk", "eapons", "anime_", "_ink", "/", "."):
        with pytest.raises(LoraNotFound):
            library.get_lora(name)
        with pytest.raises(ModelNotFound):
            library.get_model(name)


def test_a_name_of_several_lists_them(library: Library, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(POCKET, tmp_path / folder / "models/ink")
        write_weights(tmp_path / folder / "ink.safetensors", LORA)
        library.folders.add(str(tmp_path / folder))
    with refused(ModelNotFound):
        library.get_model("ink")
    with refused(LoraNotFound):
        library.get_lora("ink")
    assert library.get_model("b/models/ink").path == tmp_path / "b/models/ink"


def test_what_cannot_be_used_elsewhere_says_why(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "webui"
    make_a1111(folder)
    broken = folder / "models/Stable-diffusion/broken.safetensors"
    broken.write_bytes(b"<html>not found</html>")
    (broken.parent / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    library.folders.add(str(folder))
    for name in ("a1111/broken", "broken", "old", "big"):
        with refused(UnknownFamily):
            library.get_model(name)


def test_only_what_can_be_used_is_offered(library: Library, settings: Settings) -> None:
    for name in ("pocked", "pockets"):
        (settings.models / name).mkdir()
        (settings.models / name / "model_index.json").write_text("{}")
    with refused(ModelNotFound) as caught:
        library.get_model("pokket")
    assert "pocked" not in str(caught.value)
