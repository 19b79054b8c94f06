"""Pickles read in a child process: real formats come out, hostile ones do nothing and get a sentence."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from studio.core.generation.request import GenerationRequest
from studio.engine.models import pickle_reader
from studio.errors import DiskError
from studio.settings import Settings, load
from studio.storage.models.embedding_index import EmbeddingUses
from studio.storage.models.library import Library
from studio.storage.models.pickles import Pickles
from support import upscalers
from support.faulty_disk import faulty_disk
from support.pickles import read_pickles_here

VECTORS = torch.arange(2 * 768, dtype=torch.float32).reshape(2, 768) / 1000


class Evil:
    """What runs a program when an ordinary unpickler reads it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


def make_a1111(vectors: torch.Tensor = VECTORS, **more: Any) -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "hands",
        "step": 1500,
        "sd_checkpoint_name": None,
        **more,
    }


def save_old_parameter_dict(path: Path) -> None:
    """A1111's of 2022: the parameter lies in torch 1's ParameterDict."""
    params = nn.ParameterDict()
    params.__dict__.pop("_keys", None)
    params.__dict__["_parameters"] = collections.OrderedDict({"*": nn.Parameter(VECTORS)})
    torch.save(make_a1111() | {"string_to_param": params}, path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


@pytest.fixture
def folder(settings: Settings) -> Path:
    settings.embeddings.mkdir(parents=True, exist_ok=True)
    settings.upscalers.mkdir(parents=True, exist_ok=True)
    return settings.embeddings


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def write_hostile(folder: Path, proof: Path) -> dict[str, str]:
    """Write pickles that no program should open; return what is said of each."""
    torch.save({"x": Evil(proof)}, folder / "evil.pt")
    (folder / "plain-evil.pt").write_bytes(pickle.dumps(Evil(proof)))
    view = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"emb_params": view}, folder / "view.pt")
    torch.save(make_a1111(), folder / "whole.pt")
    (folder / "cut.pt").write_bytes((folder / "whole.pt").read_bytes()[:4000])
    (folder / "whole.pt").unlink()
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(60 * 2**20))
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    (folder / "deep.pt").write_bytes(deep)
    # A legacy file whose one number is a text of 8 GB.
    huge = b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"x"
    (folder / "huge.pt").write_bytes(huge)
    torch.save([1, 2, 3], folder / "list.pt")
    (folder / "pointer.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (folder / "link.pt").symlink_to(folder / "nowhere.pt")
    torch.save({"conv.weight": torch.zeros(3, 3)}, folder / "other.pt")
    (folder / "large.pt").write_bytes(b"PK\x03\x04" + bytes(20 * 2**20))
    program = "is a pickle that wants to run a program, and was not opened."
    damaged = "is damaged, or no pickle of weights."
    return {
        "evil.pt": program,
        "plain-evil.pt": program,
        "view.pt": "unpacks to more than it should.",
        "bomb.pt": "unpacks to more than it should.",
        "cut.pt": damaged,
        "list.pt": "is a pickle without tensors by name.",
        "other.pt": "is a pickle that contains no textual inversion; nothing else is read from pickles.",
        "pointer.bin": "is a Git LFS pointer, not the file itself; download it with `git lfs pull`.",
        "link.pt": "cannot be read (No such file or directory).",
        "large.pt": "is a pickle of more than 20 MB and is not opened.",
    }


def test_formats_that_people_have(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    torch.save(make_a1111(), folder / "hands.pt")
    save_old_parameter_dict(folder / "old.pt")
    torch.save({"<birb>": VECTORS[0]}, folder / "learned_embeds.bin")
    torch.save({"clip_l": VECTORS, "clip_g": torch.ones(2, 1280)}, folder / "xl.pt")
    both = torch.zeros(4, 768)
    torch.save({"<a>": both[0], "<b>": both[1]}, folder / "shared.bin")
    layers = upscalers.compact(2, convs=1)
    upscaler = settings.upscalers / "x4.pth"
    torch.save({"params_ema": layers, "params": {}, "iter": 5}, upscaler)
    before = {path: path.read_bytes() for path in [*folder.iterdir(), upscaler]}

    pickles = Pickles(settings)
    assert all(pickles.is_unread(path) for path in before)
    results = pickles.convert(before)
    assert {path: path.read_bytes() for path in before} == before  # nothing of theirs is written
    tensors = {path.name: read(result)[0] for path, result in results.items()}
    assert torch.equal(tensors["hands.pt"]["emb_params"], VECTORS)
    assert torch.equal(tensors["old.pt"]["emb_params"], VECTORS)
    assert torch.equal(tensors["learned_embeds.bin"]["<birb>"], VECTORS[0])
    assert tensors["xl.pt"]["clip_g"].shape == (2, 1280)
    assert sorted(tensors["shared.bin"]) == ["<a>", "<b>"]
    assert sorted(tensors["x4.pth"]) == sorted(layers)
    assert read(results[folder / "hands.pt"])[1] == {"name": "hands", "step": "1500"}
    digest = hashlib.sha256(before[folder / "hands.pt"]).hexdigest()
    assert results[folder / "hands.pt"].name == f"{digest}.safetensors"

    # Another process knows them without any work, and the shelf lists them under their kinds.
    shelf = Library(settings).shelf
    assert [file.name for file in shelf.list_files("embedding")] == [
        "hands",
        "learned_embeds",
        "old",
        "shared",
        "xl",
    ]
    file = shelf.get_file("upscaler", "x4")
    assert file.path == upscaler
    assert file.model_file.weights_path == results[upscaler]

    # A pickle that changed is another one.
    torch.save(make_a1111(VECTORS + 1), folder / "hands.pt")
    assert Pickles(settings).get_converted(folder / "hands.pt") is None
    assert Pickles(settings).is_unread(folder / "hands.pt")


@pytest.mark.slow
def test_hostile_pickles_do_nothing(
    settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    expected = write_hostile(folder, proof)
    names = [*expected, "deep.pt", "huge.pt"]
    good = folder / "z-good.pt"
    torch.save(make_a1111(), good)
    pickles = Pickles(settings)
    results = pickles.convert([*(folder / name for name in names), good])
    assert not proof.exists()
    said = {name: str(results[folder / name]).removeprefix(f"{name} ") for name in names}
    assert {name: said[name] for name in expected} == expected
    for name in ("deep.pt", "huge.pt"):
        assert said[name].startswith("is "), said[name]
    assert isinstance(results[good], Path)  # the child's end is not the others'
    # What was said is remembered: no child is started again.
    monkeypatch.setattr(pickles, "_run_child", None)
    assert pickles.convert([folder / "evil.pt"]) == {
        folder / "evil.pt": f"evil.pt {expected['evil.pt']}"
    }
    assert not Library(settings).shelf.list_files("embedding")[1:]
    assert not Library(settings).list_unread_pickles()


def test_a_child_that_dies_costs_only_its_file(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.pt", "b.pt", "c.pt"]
    for name in names:
        (folder / name).write_bytes(b"\x80\x02" + name.encode())
    asked = []

    def die(paths: list[Path], _entries: Any, _max_bytes: int) -> list[str]:
        asked.append([path.name for path in paths])
        return ["holds nothing"] if len(asked) == 1 else []

    pickles = Pickles(settings)
    monkeypatch.setattr(pickles, "_run_child", die)
    results = pickles.convert(folder / name for name in names)
    assert asked == [names, ["c.pt"]]
    assert results[folder / "a.pt"] == "a.pt holds nothing."
    assert "memory or time" in str(results[folder / "b.pt"])
    assert "memory or time" in str(results[folder / "c.pt"])


def test_other_pickles_stay_closed(settings: Settings, folder: Path) -> None:
    models = settings.home / "models"
    models.mkdir(exist_ok=True)
    torch.save({"x": torch.zeros(1)}, models / "big.ckpt")
    pickles = Pickles(settings)
    assert not pickles.is_unread(models / "big.ckpt")
    (said,) = pickles.convert([models / "big.ckpt"]).values()
    assert said == "big.ckpt is a pickle, which can contain programs; it is not opened."


def test_a_full_disk_is_no_fault_of_the_file(settings: Settings, folder: Path) -> None:
    (folder / "a.pt").write_bytes(b"\x80\x02.")
    pickles = Pickles(settings)
    with faulty_disk(settings.home) as disk:
        disk.arm(1, 28)
        with pytest.raises(DiskError):
            pickles.convert([folder / "a.pt"])
        disk.disarm()
    assert pickles.is_unread(folder / "a.pt")


@pytest.mark.skipif(os.name != "posix", reason="needs limits of the system")
def test_the_child_may_take_only_so_much(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from studio.engine.models import pickle_reader as r\n"
        "r.limit_memory(100 * 2**20)\nr.limit_time(30)\n"
        "try:\n    x = bytearray(200 * 2**20)\n"
        "except MemoryError:\n    print('refused')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "refused\n", answer.stderr


def test_flatten_takes_only_dense_tensors_by_name() -> None:
    sparse = torch.eye(2).to_sparse()
    tensors, _ = pickle_reader.flatten({"a": torch.ones(1), 5: torch.ones(1), "s": sparse, "n": 3})
    assert list(tensors) == ["a"]
    with pytest.raises(pickle_reader.Unreadable):
        pickle_reader.flatten({"string_to_param": {"*": torch.ones(1), "+": torch.ones(1)}})


@pytest.mark.slow
def test_the_job_reads_what_is_new(settings: Settings, folder: Path) -> None:
    from studio.core.jobs import READ_PICKLES
    from studio.engine.models.pickle_job import read_pickles
    from studio.services.submission import Services
    from studio.storage.home import Home
    from studio.storage.jobs import Progress
    from support.visitors import ANN, OWNER

    torch.save(make_a1111(), folder / "hands.pt")
    torch.save([1], folder / "odd.pt")
    home = Home(settings)
    services = Services(home)
    assert services.submit_pickle_reading(ANN) is None
    assert services.submit_pickle_reading(OWNER)
    assert services.submit_pickle_reading(OWNER) is None  # it waits already
    (job,) = home.jobs.list_open(kind=READ_PICKLES.name)
    context = SimpleNamespace(home=home)
    seen: list[Progress] = []
    result = read_pickles(context, job.spec, seen.append)  # type: ignore[arg-type]
    assert result == {"read": 1, "notes": ["odd.pt is a pickle without tensors by name."]}
    assert [file.name for file in home.library.shelf.list_files("embedding")] == ["hands"]
    assert not home.library.list_unread_pickles()
    home.jobs.cancel(job.id)
    assert services.submit_pickle_reading(OWNER) is None
    home.close()


def test_a_word_inside_counts_at_the_first_time(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt means the same before the page has looked at a pickle and afterwards."""
    read_pickles_here(monkeypatch)
    torch.save({"<birb>": VECTORS[0]}, folder / "learned_embeds.bin")
    old_format = {"sks": VECTORS[1]}
    torch.save(old_format, folder / "plain.bin", _use_new_zipfile_serialization=False)
    torch.save({"<moon>": VECTORS[0]}, folder / "z-other.bin")
    library = Library(settings)

    def resolve(prompt: str) -> EmbeddingUses:
        index = library.embeddings.build_index((768,), "mymodel")
        return index.resolve([GenerationRequest(prompt=prompt)])

    asked = "a <birb> of embedding:sks"
    assert not resolve(f"{asked}, embedding:<birb>").faults  # whoever paints it will know
    assert "no embedding '<cat>'" in resolve("embedding:<cat>").faults[0]
    library.embeddings.read_named_pickles([GenerationRequest(prompt=asked)])
    uses = resolve(asked)
    assert {name: info.name for name, info in uses.by_name.items()} == {
        "<birb>": "learned_embeds",
        "sks": "plain",
    }
    assert not uses.faults
    assert library.list_unread_pickles() == [folder / "z-other.bin"]


@pytest.mark.slow
def test_a_text_that_is_no_word_hides_no_name(settings: Settings, folder: Path) -> None:
    torch.save(make_a1111(name="cat hat"), folder / "other.pt")
    torch.save(make_a1111(VECTORS + 1), folder / "cat.pt")
    library = Library(settings)
    request = GenerationRequest(prompt="a cat hat")
    library.embeddings.read_named_pickles([request])
    uses = library.embeddings.build_index((768,), "mymodel").resolve([request])
    assert {name: info.widths for name, info in uses.by_name.items()} == {"cat": (768,)}
