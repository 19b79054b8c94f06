"""The library's textual inversions: which file is which, by which names, for which models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, InvalidSpec
from studio.settings import load
from studio.storage import atomic
from studio.storage.models.embedding_file import find_bundled, read_embeddings
from studio.storage.models.embedding_index import EmbeddingUses
from studio.storage.models.library import Library
from studio.storage.models.lora_file import read_lora_info
from support.sentences import refused

pytestmark = pytest.mark.smoke
SD1, SDXL = (768,), (768, 1280)
REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "embeddings"


def vectors(num: int = 1, width: int = 768) -> np.ndarray:
    return np.ones((num, width), np.float32)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(load(home=tmp_path / "home", device="cpu"))


@pytest.fixture
def folder(library: Library, tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "embeddings"
    (folder / "neg").mkdir(parents=True, exist_ok=True)
    return folder


def resolve(
    library: Library, prompt: str, negative: str = "", widths: tuple[int, ...] = SD1
) -> EmbeddingUses:
    request = GenerationRequest(prompt=prompt, negative_prompt=negative)
    return library.embeddings.build_index(widths, "mymodel").resolve([request])


def names(uses: EmbeddingUses) -> dict[str, str]:
    return {name: info.name for name, info in uses.by_name.items()}


def test_the_end_of_a_path_is_a_name(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "mine/sub/boat.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"emb_params": vectors()}, path)
    library.folders.add(str(tmp_path / "mine"))
    for name in ("mine/sub/boat", "sub/boat", "boat"):
        assert names(resolve(library, f"a embedding:{name}")) == {name: "mine/sub/boat"}


def test_formats(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for tensors, expected in (
        ({"emb_params": vectors(8)}, [("", SD1, 8)]),
        ({"<birb>": vectors()[0]}, [("<birb>", SD1, 1)]),
        ({"<a>": vectors(), "<b>": vectors(2)}, [("<a>", SD1, 1), ("<b>", SD1, 2)]),
        ({"clip_g": vectors(3, 1280), "clip_l": vectors(3)}, [("", SDXL, 3)]),
        ({"string_to_param.*": vectors(2, 1024)}, [("", (1024,), 2)]),
    ):
        save_file(tensors, path)
        found = [(entry.word, entry.widths, entry.num_vectors) for entry in read_embeddings(path)]
        assert found == expected


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": np.ones((2, 3, 768), np.float32)},
        {"emb_params": np.ones((0, 768), np.float32)},
        {"emb_params": np.ones((2, 768), np.int32)},
        {"emb_params": vectors(76)},
        {"clip_g": vectors(1, 1280)},
        {"clip_g": vectors(1, 1280), "clip_l": vectors(2)},
    ],
)
def test_what_holds_no_vectors(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    with refused(BadFile):
        read_embeddings(path)


def test_the_names_of_one(library: Library, folder: Path) -> None:
    save_file({"<birb>": vectors()}, folder / "neg" / "Birb-Style.safetensors")
    for spelling in ("birb-style", "neg/birb-style", "<birb>", "embedding:NEG/Birb-Style.pt"):
        uses = resolve(library, "a boat", f"fog, ({spelling}:1.2), rain")
        assert list(names(uses).values()) == ["neg/Birb-Style"], spelling
        assert not uses.faults
        assert not uses.notes
    assert not resolve(library, "birb style, xbirb-style, <lora:birb-style:1>").by_name


def test_an_ordinary_word_can_be_a_name(library: Library, folder: Path) -> None:
    save_file({"emb_params": vectors()}, folder / "cat.safetensors")
    assert names(resolve(library, "a Cat, cats")) == {"cat": "cat"}


def test_one_for_another_family(library: Library, folder: Path) -> None:
    save_file({"clip_g": vectors(1, 1280), "clip_l": vectors()}, folder / "xl.safetensors")
    uses = resolve(library, "a boat, xl")
    assert not uses.by_name
    assert not uses.faults
    assert uses.notes == [
        "The embedding xl is for Stable Diffusion XL, but mymodel is not; it is read as plain words."
    ]
    assert "is for Stable Diffusion XL" in resolve(library, "embedding:xl").faults[0]
    assert names(resolve(library, "a boat, xl", widths=SDXL)) == {"xl": "xl"}


def test_the_family_chooses_between_two_of_a_name(library: Library, folder: Path) -> None:
    save_file({"emb_params": vectors()}, folder / "neg" / "hands.safetensors")
    save_file({"clip_g": vectors(1, 1280), "clip_l": vectors()}, folder / "hands-xl.safetensors")
    (folder / "xl").mkdir()
    (folder / "hands-xl.safetensors").rename(folder / "xl" / "hands.safetensors")
    assert names(resolve(library, "hands")) == {"hands": "neg/hands"}
    assert names(resolve(library, "hands", widths=SDXL)) == {"hands": "xl/hands"}


def test_of_two_that_fit_the_choice_is_said(library: Library, folder: Path) -> None:
    for place in ("neg", "pos"):
        (folder / place).mkdir(exist_ok=True)
        save_file({"emb_params": vectors()}, folder / place / "hands.safetensors")
    uses = resolve(library, "hands, embedding:pos/hands")
    assert names(uses) == {"hands": "neg/hands", "pos/hands": "pos/hands"}
    assert uses.notes == [
        "hands is the embedding neg/hands; there is also pos/hands. Write embedding:pos/hands for another."
    ]
    save_file({"emb_params": vectors()}, folder / "hands.safetensors")
    uses = resolve(library, "hands")  # the whole name of one
    assert names(uses) == {"hands": "hands"}
    assert not uses.notes


def test_what_is_not_there_is_refused_by_name(library: Library, folder: Path) -> None:
    save_file({"emb_params": vectors()}, folder / "hands.safetensors")
    request = GenerationRequest(prompt="a boat", negative_prompt="embedding:nope")
    with refused(InvalidSpec):
        library.check_request(request)
    assert not resolve(library, "nope").faults


@pytest.mark.parametrize("name", ["<nope>", "<no such>", '"nope"', "'nope'"])
def test_a_word_in_other_signs_is_refused_too(library: Library, name: str) -> None:
    request = GenerationRequest(prompt=f"a boat, embedding:{name}, fog")
    with refused(InvalidSpec):
        library.check_request(request)
    assert not resolve(library, "an embedding: , or embedding:, or").faults


@pytest.mark.parametrize(
    ("name", "written"), [("neg[1]", r"neg\[1\]"), ("x(y)", r"x\(y\)"), ("Bad (v2)", r"Bad \(v2\)")]
)
def test_a_name_with_brackets_is_told_how_to_write_it(
    library: Library, folder: Path, name: str, written: str
) -> None:
    save_file({"emb_params": vectors()}, folder / f"{name}.safetensors")
    (fault,) = resolve(library, f"a boat, embedding:{name}").faults
    assert f"write embedding:{written} for {name}." in fault
    assert names(resolve(library, f"a boat, embedding:{written}")) == {name: name}


def test_a_damaged_one_is_named(library: Library, folder: Path) -> None:
    save_file({"emb_params": vectors(80)}, folder / "hands.safetensors")
    assert "has 80 vectors" in resolve(library, "embedding:hands").faults[0]
    assert "has 80 vectors" in resolve(library, "hands").notes[0]


def test_a_pickle_is_known_before_it_is_read(library: Library, folder: Path) -> None:
    (folder / "bad.pt").write_bytes(b"\x80\x02.")
    assert names(resolve(library, "embedding:bad")) == {"bad": "bad"}
    (info,) = library.embeddings.list_embeddings()
    assert info.widths == ()


def test_the_hashes_of_an_image_tell_which_was_meant(library: Library, folder: Path) -> None:
    save_file({"emb_params": vectors()}, folder / "neg" / "hands.safetensors")
    save_file({"emb_params": vectors(2)}, folder / "style.safetensors")
    hashes = {
        info.short_name: library.embeddings.get_content_hash(info)[:12]
        for info in library.embeddings.list_embeddings()
    }
    compare = library.embeddings.compare_hashes
    assert not compare({"hands": hashes["hands"], "Style": hashes["style"].upper()})
    (renamed,) = compare({"hands-v2": hashes["hands"]})
    assert "is called neg/hands here" in renamed
    (other,) = compare({"hands": "0" * 12})
    assert "not the file" in other
    (missing,) = compare({"nope": "0" * 12})
    assert "is not here" in missing


def test_words_that_a_lora_carries(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_x.lora_down.weight": vectors(4),
        "<s1>": vectors()[0],
        "<s2>": vectors(2),
        "bundle_emb.moon.string_to_param.*": vectors(3),
        "bundle_emb.xl.clip_l": vectors(2),
        "bundle_emb.xl.clip_g": vectors(2, 1280),
        "bundle_emb.half.clip_g": vectors(2, 1280),
        "bundle_emb.odd.emb_params": np.ones((2, 3, 4), np.float32),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    header = atomic.read_safetensors_header(tmp_path / "x.safetensors")
    bundled = find_bundled(header, [name for name in tensors if "lora" not in name])
    assert {(entry.word, entry.tensors, entry.num_vectors) for entry in bundled} == {
        ("<s1>", ("<s1>",), 1),
        ("<s2>", ("<s2>",), 2),
        ("moon", ("bundle_emb.moon.string_to_param.*",), 3),
        ("xl", ("bundle_emb.xl.clip_l", "bundle_emb.xl.clip_g"), 2),
    }


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/embeddings")
def test_a_real_lora_with_two_words() -> None:
    info = read_lora_info(REAL.parent / "loras" / "lora_disney.safetensors")
    assert info.family == "sd1"
    assert read_lora_info(REAL.parent / "loras" / "analog_svd_rank4.safetensors").family == "sd1"
    assert [(entry.word, entry.widths) for entry in info.embeddings] == [
        ("<s1>", SD1),
        ("<s2>", SD1),
    ]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/embeddings")
@pytest.mark.slow
def test_real_files_are_named_and_alike(library: Library, folder: Path) -> None:
    import shutil

    from safetensors.numpy import load_file

    for path in REAL.iterdir():
        shutil.copy(path, folder)
    library.embeddings.read_named_pickles(
        [GenerationRequest(prompt="embedding:birb-style.learned_embeds")]
    )
    infos = library.embeddings.list_embeddings()
    assert [info.name for info in infos] == ["birb-style", "birb-style.learned_embeds"]
    assert {(info.word, info.widths, info.num_vectors) for info in infos} == {
        ("<birb-style>", SD1, 1)
    }
    first, second = (load_file(info.weights_path)["<birb-style>"] for info in infos)
    assert np.array_equal(first, second)
