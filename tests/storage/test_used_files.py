"""The files behind a request, with the hashes by which A1111, Forge and Civitai know them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from studio.core.generation.lora_use import LoraUse
from studio.core.generation.request import GenerationRequest
from studio.core.generation.used_files import UsedFile
from studio.settings import Settings
from studio.storage.models.library import Library
from studio.storage.models.model_options import ModelOptions
from studio.storage.models.used_files import list_used_files
from support.ldm_files import toy_shapes
from support.weights import CROSS, kohya_lora, write_weights

pytestmark = pytest.mark.smoke
INK = kohya_lora(CROSS)


@pytest.fixture
def library(settings: Settings) -> Library:
    return Library(settings)


def use(name: str) -> tuple[LoraUse, ...]:
    return (LoraUse(name=name),)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_tensors(path: Path) -> str:
    """What follows the header: its length stands in the first eight bytes, little end first."""
    data = path.read_bytes()
    return sha256(data[8 + int.from_bytes(data[:8], "little") :])


def test_a_checkpoint_and_a_lora(library: Library, settings: Settings) -> None:
    model = write_weights(settings.models / "painter.safetensors", toy_shapes("sd1"))
    lora = write_weights(settings.loras / "some where/ink.safetensors", INK, metadata={"a": "b"})
    request = GenerationRequest(model="painter", loras=use("some where/ink"))
    contents = {"model": "1" * 64, "embedding bad hands": "2" * 64}
    used = list_used_files(library, request, contents)
    assert used.files == (
        UsedFile(
            kind="model",
            name="painter",
            file_name="painter.safetensors",
            sha256=sha256(model.read_bytes()),
        ),
        UsedFile(
            kind="lora",
            name="some where/ink",
            file_name="ink.safetensors",
            sha256=sha256(lora.read_bytes()),
            tensors_sha256=hash_tensors(lora),
        ),
        UsedFile(kind="embedding", name="bad hands", sha256="2" * 64),
    )
    assert not used.overrides
    assert str(settings.home) not in used.model_dump_json()


def test_a_header_that_says_its_hash_is_believed(library: Library, settings: Settings) -> None:
    """A1111 does so, and looks LoRAs up by it; what is no sha256 is computed."""
    path = settings.loras / "ink.safetensors"
    request = GenerationRequest(loras=use("ink"))
    for stated in ("ab" * 32, "<img src=x>", "AB" * 32, ""):
        write_weights(path, INK, metadata={"sshs_model_hash": stated, "pad": stated * 2})
        (lora,) = list_used_files(library, request, {}).files
        expected = stated if stated == "ab" * 32 else hash_tensors(path)
        assert lora.tensors_sha256 == expected


def test_a_hash_is_computed_once(
    library: Library, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(settings.models / "painter.safetensors", toy_shapes("sd1"))
    path = write_weights(settings.loras / "ink.safetensors", INK)
    request = GenerationRequest(model="painter", loras=use("ink"))
    first = list_used_files(library, request, {})
    read: list[str] = []
    hash_file = hashlib.file_digest

    def count(file: object, name: str) -> object:
        read.append(str(file))
        return hash_file(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", count)
    assert list_used_files(Library(settings), request, {}) == first
    assert not read
    write_weights(path, kohya_lora(CROSS, rank=8))
    assert list_used_files(library, request, {}).list_hashes("lora") != first.list_hashes("lora")
    assert len(read) == 2  # of the whole, and of the tensors


def test_a_folder_has_no_hash_that_anybody_knows(library: Library) -> None:
    assert list_used_files(library, GenerationRequest(), {"model": "1" * 64}).files == ()
    assert list_used_files(library, GenerationRequest(model="gone"), {}).files == ()


def test_a_vae_and_what_was_decided(library: Library, settings: Settings) -> None:
    shapes = toy_shapes("sdxl")
    prefix = "first_stage_model."
    vae = {name.removeprefix(prefix): shape for name, shape in shapes.items() if prefix in name}
    write_weights(settings.models / "painter.safetensors", shapes)
    files = {
        name: write_weights(settings.vaes / f"{name}.safetensors", vae, metadata={"name": name})
        for name in ("anime", "mse")
    }
    hashes = {name: sha256(path.read_bytes()) for name, path in files.items()}
    model = list_used_files(library, GenerationRequest(model="painter"), {})
    assert (model.get("vae"), model.overrides) == (None, ())
    chosen = list_used_files(library, GenerationRequest(model="painter", vae="mse"), {})
    assert chosen.get("model") == model.get("model")  # the file's own, whatever goes with it
    assert chosen.get("vae") == UsedFile(
        kind="vae", name="mse", file_name="mse.safetensors", sha256=hashes["mse"]
    )
    options = ModelOptions(vae="anime", prediction_type="v_prediction", is_zero_snr=True)
    library.save_options("painter", options)
    decided = list_used_files(library, GenerationRequest(model="painter"), {})
    assert decided.get("model") == model.get("model")
    assert decided.get_hash("vae") == hashes["anime"][:10]
    assert decided.overrides == (("prediction_type", "v_prediction"), ("zero_snr", "True"))
