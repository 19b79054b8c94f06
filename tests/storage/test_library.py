"""The shelf: what a model folder is, in a sentence why it cannot be run, and a hash of its content that is not made twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.core.catalog import DEFAULT_MODEL
from studio.errors import ModelNotFound, UnknownFamily
from studio.settings import Settings, shipped
from studio.storage.models.library import Library, Unusable, read_model_info
from support.sentences import refused

UNET = "unet/diffusion_pytorch_model.safetensors"


def weights(path: Path, dtype: object = "F16", tensors: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(
        {f"t{k}": {"dtype": dtype, "shape": [1], "data_offsets": [0, 2]} for k in range(tensors)}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")


def make(
    path: Path,
    kind: str = "StableDiffusionPipeline",
    fp16: bool = False,
    prediction: str = "epsilon",
    **unet: Any,
) -> Path:
    """A folder as the library sees it: configs, and weight files that are headers only."""
    configs = {
        "model_index.json": {"_class_name": kind},
        "scheduler/scheduler_config.json": {"prediction_type": prediction},
        "unet/config.json": {"in_channels": 4, "sample_size": 64, "cross_attention_dim": 768}
        | unet,
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
    }
    for name, config in configs.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(config))
    ending = ".fp16.safetensors" if fp16 else ".safetensors"
    for part in ("unet", "vae", "text_encoder", *(["text_encoder_2"] if "XL" in kind else [])):
        weights(
            path
            / part
            / f"{'diffusion_pytorch_model' if part in ('unet', 'vae') else 'model'}{ending}"
        )
    return path


@pytest.mark.smoke
def test_the_embedded_model(settings: Settings) -> None:
    model = Library(settings).get_model(DEFAULT_MODEL)
    folder = shipped("assets") / "pocket"
    assert (model.family, model.native_size, model.prediction_type, model.dtype, model.variant) == (
        "sd1",
        128,
        "epsilon",
        "float16",
        None,
    )
    assert model.bundled
    assert model.path == folder
    assert model.size_bytes == sum(
        path.stat().st_size
        for part in ("unet", "vae", "text_encoder")
        for path in (folder / part).glob("*.safetensors")
    )


def test_families(settings: Settings) -> None:
    make(settings.models / "one")
    make(
        settings.models / "two", cross_attention_dim=1024, sample_size=96, prediction="v_prediction"
    )
    make(
        settings.models / "large",
        "StableDiffusionXLPipeline",
        fp16=True,
        cross_attention_dim=2048,
        sample_size=128,
    )
    make(settings.models / "plain", sample_size=None)
    found = {model.name: model for model in Library(settings).list_models()}
    told = {
        name: (model.family, model.native_size, model.prediction_type, model.variant, model.bundled)
        for name, model in found.items()
    }
    assert told == {
        "one": ("sd1", 512, "epsilon", None, False),
        "two": ("sd2", 768, "v_prediction", None, False),
        "large": ("sdxl", 1024, "epsilon", "fp16", False),
        "plain": ("sd1", 512, "epsilon", None, False),
        "pocket": ("sd1", 128, "epsilon", None, True),
    }


@pytest.mark.parametrize(
    ("dtype", "name"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("I8", "I8")]
)
def test_number_formats(dtype: str, name: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    weights(folder / UNET, dtype)
    assert read_model_info(folder).dtype == name


def test_plain_weights_go_before_halves(tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    for part in ("unet", "vae", "text_encoder"):
        weights(folder / part / "a.fp16.safetensors", tensors=50)
    weights(folder / "unet" / "a.non_ema.safetensors", tensors=50)
    model = read_model_info(folder)
    plain = [path for path in folder.rglob("*.safetensors") if path.name.count(".") == 1]
    assert model.variant is None
    assert model.size_bytes == sum(path.stat().st_size for path in plain)
    assert len(plain) == 3


def edit(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def only_bin(folder: Path) -> None:
    weights_file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights_file.rename(weights_file.with_suffix(".bin"))


def nowhere(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").symlink_to(folder / "gone")


def half(folder: Path) -> None:
    path = folder / UNET
    path.write_bytes(path.read_bytes()[:40])


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no unet": lambda folder: shutil.rmtree(folder / "unet"),
    "no weights": lambda folder: (folder / UNET).unlink(),
    "only .bin": only_bin,
    "a link to nowhere": nowhere,
    "cut off": half,
    "mixed": lambda folder: (folder / UNET).rename(folder / "unet" / "a.fp16.safetensors"),
    "another kind": edit("model_index.json", '{"_class_name": "FluxPipeline"}'),
    "no kind": edit("model_index.json", "{}"),
    "no JSON": edit("model_index.json", "{"),
    "a number": edit("unet/config.json", "7"),
    "deep": edit("vae/config.json", "[" * 100_000),
    "editing": edit("unet/config.json", '{"in_channels": 8}'),
    **{
        f"size {size}": edit("unet/config.json", f'{{"in_channels": 4, "sample_size": {size}}}')
        for size in ('"big"', "[64, 64]", "1e999", "100000000", "-8")
    },
    "no blocks": edit("vae/config.json", '{"block_out_channels": 5}'),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_unusable_and_says_why(how: str, settings: Settings) -> None:
    BROKEN[how](make(settings.models / "broken"))
    make(settings.models / "good")
    library = Library(settings)
    (unusable,) = [model for model in library.scan_models() if isinstance(model, Unusable)]
    assert unusable.name == "broken"
    assert [model.name for model in library.list_models()] == [
        "good",
        "pocket",
    ]  # one broken folder hides no other
    with refused(UnknownFamily) as caught:
        library.get_model("broken")
    assert str(caught.value).endswith(f": {unusable.problem}")


def test_odd_tensors_do_not_stop_the_shelf(tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    weights(folder / UNET, dtype=["F16"])
    assert read_model_info(folder).dtype == "['F16']"
    weights(folder / UNET, tensors=0)
    assert read_model_info(folder).dtype == "?"


def test_an_unknown_name_lists_the_nearest(settings: Settings) -> None:
    for name in ("moon-v1", "moon-v2", "zebra"):
        make(settings.models / name)
    library = Library(settings)
    with refused(ModelNotFound) as caught:
        library.get_model("moon-v3")
    assert "moon-v2, moon-v1" in str(caught.value)
    with refused(ModelNotFound) as caught:
        library.get_model("pokket")
    assert "'pokket'" in str(caught.value)
    for name in ("", "../pocket", str(shipped("assets") / "pocket"), "x" * 5000, "a\0b"):
        with pytest.raises(ModelNotFound) as caught:
            library.get_model(name)
        assert len(str(caught.value)) < 250


def test_what_is_no_model_is_passed_over(settings: Settings) -> None:
    (settings.models / "empty").mkdir()
    (settings.models / "notes.txt").write_bytes(b"x")
    (settings.models / "loop").symlink_to(settings.models / "loop")
    assert [model.name for model in Library(settings).scan_models()] == ["pocket"]
    shutil.rmtree(settings.models)
    assert [model.name for model in Library(settings).scan_models()] == ["pocket"]


def test_the_homes_model_hides_the_shipped_one(settings: Settings) -> None:
    make(settings.models / "pocket", sample_size=8)
    library = Library(settings)
    model = library.get_model("pocket")
    assert model.path == settings.models / "pocket"
    assert not model.bundled
    assert [found.name for found in library.scan_models()] == ["pocket"]


def test_a_model_that_was_just_copied_is_there(settings: Settings) -> None:
    library = Library(settings)
    with pytest.raises(ModelNotFound):
        library.get_model("new")
    make(settings.models / "new")
    assert library.get_model("new").native_size == 512


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really hashed."""
    names: list[str] = []
    real = hashlib.file_digest

    def digest(file: Any, kind: str) -> Any:
        names.append(Path(file.name).name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return names


def test_content_is_hashed_once(settings: Settings, hashed: list[str]) -> None:
    library = Library(settings)
    model = read_model_info(make(settings.models / "one"))
    assert library.get_content_hash(model, compute=False) == ""
    assert hashed == []
    content = library.get_content_hash(model)
    assert len(content) == 64
    assert len(hashed) == 7
    assert [
        library.get_content_hash(model),
        library.get_content_hash(model, compute=False),
        Library(settings).get_content_hash(model),
    ] == [content] * 3
    assert len(hashed) == 7  # neither again nor by the next process


def test_content_is_of_names_and_bytes_only(settings: Settings) -> None:
    library = Library(settings)
    one, two = (
        read_model_info(make(settings.models / "one")),
        read_model_info(make(settings.models / "two")),
    )
    content = library.get_content_hash(one)
    assert library.get_content_hash(two) == content  # wherever it lies, whenever it was copied
    unet = one.path / UNET
    data = unet.read_bytes()
    unet.write_bytes(data[:-1] + b"\1")
    changed = library.get_content_hash(one)
    assert changed != content
    assert library.get_content_hash(two) == content
    unet.write_bytes(data)
    os.utime(unet, (1, 1))
    assert library.get_content_hash(one) == content
    unet.rename(unet.with_name("other.safetensors"))
    assert library.get_content_hash(one) not in (content, changed)


@pytest.mark.parametrize(
    "cache",
    [
        "",
        "{",
        "[1]",
        "7",
        "null",
        '{"PATH": 5}',
        '{"PATH": {"stamp": STAMP}}',
        "[" * 100_000,
        "\ud800",
    ],
    ids=lambda cache: ascii(cache)[:20],
)
def test_a_broken_cache_is_made_anew(cache: str, settings: Settings, hashed: list[str]) -> None:
    library = Library(settings)
    model = read_model_info(make(settings.models / "one"))
    content = library.get_content_hash(model)
    file = settings.home / "hashes.json"
    stamp = json.loads(file.read_text())[str(model.path)]["stamp"]
    file.write_bytes(
        cache.replace("PATH", str(model.path))
        .replace("STAMP", json.dumps(stamp))
        .encode(errors="surrogatepass")
    )
    assert library.get_content_hash(model, compute=False) == ""
    assert library.get_content_hash(model) == content
    assert len(hashed) == 14
    assert library.get_content_hash(model, compute=False) == content


# ---- read anew only where something changed --------------------------------------------------------------------------


@pytest.fixture
def num_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were read, in order, but for the shipped ones."""
    folders: list[str] = []

    def read(path: Path, bundled: bool = False) -> Any:
        if not bundled:
            folders.append(path.name)
        return read_model_info(path, bundled)

    monkeypatch.setattr("studio.storage.models.library.read_model_info", read)
    return folders


def test_a_folder_is_read_once_until_something_in_it_changes(
    settings: Settings, num_reads: list[str]
) -> None:
    folder = make(settings.models / "mine")
    library = Library(settings)
    for _ in range(3):
        assert library.get_model("mine").prediction_type == "epsilon"
    assert num_reads == ["mine"]
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"prediction_type": "v_prediction"}))
    assert library.get_model("mine").prediction_type == "v_prediction"
    weights(folder / UNET, "F32")
    assert library.get_model("mine").dtype == "float32"
    (folder / UNET).unlink()
    with refused(UnknownFamily):
        library.get_model("mine")
    weights(folder / UNET)
    assert library.get_model("mine").name == "mine"


def test_a_piece_that_goes_is_missed(settings: Settings, num_reads: list[str]) -> None:
    folder = make(settings.models / "mine")
    pieces = {"weight_map": {"a": "1.safetensors"}}
    (folder / "unet" / "x.safetensors.index.json").write_text(json.dumps(pieces))
    weights(folder / "unet" / "1.safetensors")
    library = Library(settings)
    assert library.get_model("mine").name == "mine"
    (folder / "unet" / "1.safetensors").unlink()
    with refused(UnknownFamily):
        library.get_model("mine")
    assert num_reads == ["mine", "mine"]


def test_of_two_homes_each_has_its_own_name(settings: Settings, tmp_path: Path) -> None:
    folder = make(tmp_path / "elsewhere")
    settings.models.mkdir(parents=True, exist_ok=True)
    for name in ("one", "two"):
        (settings.models / name).symlink_to(folder)
    library = Library(settings)
    assert [library.get_model(name).name for name in ("one", "two", "one")] == ["one", "two", "one"]
