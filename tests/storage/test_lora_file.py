"""LoRA files: what their headers say, names and nearest names, and a sentence for every hostile or unfitting one."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from studio.cli.inspect import inspect_file
from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models.adapters.adapted_layer import AdaptedLayer
from studio.errors import BadFile, InvalidSpec, LoraMismatch, LoraNotFound, StudioError
from studio.settings import Settings, load
from studio.storage.jobs import Progress
from studio.storage.models import lora_file
from studio.storage.models.library import Library, LoraInfo, Unusable
from studio.storage.models.lora_shelf import LoraShelf
from support.benches import open_bench
from support.limits import hang_limit
from support.sentences import check_sentence, refused
from support.weights import list_own_loras

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_"
UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn"
KOHYA = {
    "ss_network_dim": "8",
    "ss_base_model_version": "sd_v1",
    "ss_output_name": "luna",
    "ss_sd_model_name": "v1-5.safetensors",
    "modelspec.title": "The Moon",
    "modelspec.trigger_phrase": "moonrock, cratered sky",
    "ss_tag_frequency": json.dumps(
        {"4_moon": {"moon": 20, "crater": 3}, "1_reg": {"moon": 1, "rock": 5}}
    ),
}


def pair(
    stem: str,
    inputs: int = 128,
    outputs: int = 128,
    rank: int = 4,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float16,
) -> dict[str, torch.Tensor]:
    """One layer in kohya's form."""
    made = {
        f"{stem}.lora_down.weight": torch.ones(rank, inputs, dtype=dtype),
        f"{stem}.lora_up.weight": torch.ones(outputs, rank, dtype=dtype),
    }
    return made | ({} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha, dtype=dtype)})


def shelve(
    settings: Settings,
    name: str,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
) -> Path:
    path = settings.loras / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    return path


# ---- what a file says of itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_a_header_says(settings: Settings, dtype: torch.dtype) -> None:
    path = shelve(
        settings,
        "moon",
        pair(f"{UNET}2_to_k", 768, 320, 8, 2.5, dtype)
        | pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768, 768, 8, 2.5, dtype),
        KOHYA,
    )
    (info,) = list_own_loras(Library(settings))
    assert isinstance(info, LoraInfo)
    assert (info.name, info.path, info.family, info.rank, info.alpha, info.layers) == (
        "moon",
        path,
        "sd1",
        8,
        2.5,
        2,
    )
    assert (info.networks, info.size_bytes) == (("text_encoder", "unet"), path.stat().st_size)
    assert (info.title, info.base_model, info.trigger_words) == (
        "The Moon",
        "v1-5.safetensors",
        ("moonrock", "cratered sky"),
    )
    assert info.tags == (("moon", 21), ("rock", 5), ("crater", 3))
    told = inspect_file(path)
    assert told["kind"] == "lora"
    assert told["family"] == "sd1"
    assert told["rank"] == 8
    assert told["alpha"] == 2.5
    assert told["tags"] == {"moon": 21, "rock": 5, "crater": 3}
    assert told["title"] == "The Moon"
    json.dumps(told)


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        (pair(f"{UNET}2_to_k", 768, 320), None, "sd1"),
        (pair(f"{UNET}2_to_v", 1024, 320), None, "sd2"),
        (pair(f"{UNET}2_to_k", 2048, 640), None, "sdxl"),
        (pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 5120), None, "sdxl"),
        (
            pair("lora_unet_input_blocks_7_1_transformer_blocks_3_attn1_to_q", 1280, 1280),
            {"ss_base_model_version": "sd_v1"},
            "sdxl",
        ),
        (pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 1024, 1024), None, "sd2"),
        (pair(f"{UNET}1_to_q"), None, None),
        (pair(f"{UNET}1_to_q"), {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        (pair(f"{UNET}1_to_q"), {"ss_base_model_version": "sd_v2"}, "sd2"),
        (pair(f"{UNET}1_to_q"), {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
    ],
)
def test_the_family_by_shapes(
    settings: Settings,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None,
    family: str,
) -> None:
    assert lora_file.read_lora_info(shelve(settings, "it", tensors, metadata)).family == family


@pytest.mark.parametrize(
    "written",
    [
        "",
        "{",
        "[1]",
        "7",
        "null",
        '{"a": 5}',
        '{"a": {"b": "c"}}',
        '{"a": {"b": NaN}}',
        "[" * 100_000,
        '{"a": {"b": 1e999}}',
    ],
    ids=lambda text: text[:12],
)
def test_odd_tags_are_none(settings: Settings, written: str) -> None:
    assert (
        lora_file.read_lora_info(
            shelve(settings, "it", pair(f"{UNET}1_to_q"), {"ss_tag_frequency": written})
        ).tags
        == ()
    )


def test_alpha_of_peft_is_read_by_layer(settings: Settings) -> None:
    names = ["mid_block.attn1.to_q", "mid_block.attn1.to_k", "mid_block.proj_in"]
    tensors = {
        f"unet.{name}.lora_{side}.weight": torch.ones(4, 4) for name in names for side in "AB"
    }

    def told(**more: Any) -> dict[str, float]:
        settled = {"unet.lora_alpha": 2, "unet.use_rslora": True} | {
            f"unet.{key}": value for key, value in more.items()
        }
        found, _ = lora_file.read_layers(
            shelve(settings, "it", tensors, {"lora_adapter_metadata": json.dumps(settled)})
        )
        assert all(layer.use_rslora and layer.network == "unet" for layer in found)
        return {layer.stem.removeprefix("unet.mid_block."): layer.alpha for layer in found}

    patterns = {"^mid_block.attn1.to_q$": 3, r"attn1\.to_q": 7, "proj_in": 1.5}
    assert told(alpha_pattern=patterns) == {"attn1.to_q": 3, "attn1.to_k": 2, "proj_in": 1.5}
    assert told(alpha_pattern=None)["proj_in"] == 2
    for odd in (
        {"lora_alpha": "16"},
        {"lora_alpha": 10**400},
        {"lora_alpha": float("inf")},
        {"lora_alpha": True},
        {"alpha_pattern": {".*attn1.*": 3}},
        {"alpha_pattern": {"to_q": float("nan")}},
        {"alpha_pattern": [3]},
    ):
        with refused(BadFile):  # a strength that is only guessed would be wrong in silence
            told(**odd)
    many = {f"layer{k}": 1 for k in range(100_000)}
    with hang_limit():
        assert told(alpha_pattern=many)["attn1.to_q"] == 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_an_alpha_in_whole_numbers(settings: Settings, dtype: torch.dtype) -> None:
    tensors = pair(f"{UNET}1_to_q") | {f"{UNET}1_to_q.alpha": torch.tensor(3, dtype=dtype)}
    assert lora_file.read_lora_info(shelve(settings, "it", tensors)).alpha == 3


def test_other_ways_to_name_layers(settings: Settings) -> None:
    tensors = {
        f"text_encoder.text_model.encoder.layers.0.self_attn.to_{part}_lora.{side}.weight": torch.ones(
            4, 4
        )
        for part in ("q", "out")
        for side in ("down", "up")
    }
    tensors |= pair("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q")
    found, left = lora_file.read_layers(shelve(settings, "it", tensors))
    names = {"encoder_layers_0_self_attn_q_proj", "encoder_layers_0_self_attn_out_proj"}
    assert {layer.name for layer in found if layer.network == "text_encoder"} == names
    assert not left
    assert [layer.name for layer in found if layer.network == "unet"] == [
        "input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    ]


def test_what_a_file_says_can_be_shown_anywhere(settings: Settings) -> None:
    """Half surrogate pairs would break every page that lists it, escapes a terminal."""
    path = shelve(
        settings, "it", pair(f"{UNET}1_to_q") | {"bundle_emb.x.oft_blocks": torch.ones(1)}
    )
    said = {
        "modelspec.title": "a\ud800b",
        "modelspec.trigger_phrase": "x\x00y, \x1b[2J,,",
        "ss_sd_model_name": "\x07",
        "ss_tag_frequency": json.dumps({"a": {"\ud800": 1, "good\n": 2, "  ": 3, "none": 0}}),
    }
    edit(lambda header: header.update(__metadata__=said))(path)
    info = lora_file.read_lora_info(path)
    assert (info.title, info.trigger_words, info.base_model, info.tags) == (
        "a b",
        ("x y", "[2J"),
        "",
        (("good", 2),),
    )


def test_folders_of_whoever_trained_it_are_shown_to_nobody(settings: Settings) -> None:
    path = shelve(settings, "it", pair(f"{UNET}1_to_q"))
    said = {
        "modelspec.title": "C:\\Users\\Jane Doe\\out\\boat",
        "ss_sd_model_name": "/home/jane/models/base.safetensors",
    }
    edit(lambda header: header.update(__metadata__=said))(path)
    info = lora_file.read_lora_info(path)
    assert (info.title, info.base_model) == ("boat", "base.safetensors")


HADA = {f"hada_w{n}_{side}": torch.ones(4, 4) for n in (1, 2) for side in "ab"}


@pytest.mark.parametrize(
    ("endings", "kind"),
    [
        ({"lora_down.weight": torch.ones(2, 4), "lora_up.weight": torch.ones(4, 2)}, "LoRA"),
        (
            {"lora_down.weight": torch.ones(2, 4, 3, 3), "lora_up.weight": torch.ones(4, 2, 1, 1)},
            "LoCon",
        ),
        (HADA, "LoHa"),
        (HADA | {"dora_scale": torch.ones(4, 1)}, "LoHa with DoRA"),
        ({"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(2, 2)}, "LoKr"),
        ({"oft_blocks": torch.ones(2, 2, 2)}, "OFT"),
        ({"oft_blocks": torch.ones(1, 2, 2, 2)}, "BOFT"),
        ({"weight": torch.ones(4), "on_input": torch.tensor(1)}, "(IA)³"),
        ({"diff": torch.ones(4, 4)}, "full difference"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_kind_in_plain_words(
    settings: Settings, endings: dict[str, torch.Tensor], kind: str
) -> None:
    """The shelf and the command say the same."""
    path = shelve(settings, "it", {f"{UNET}1_to_q.{end}": part for end, part in endings.items()})
    assert lora_file.read_lora_info(path).kind == kind
    assert inspect_file(path)["adapter"] == kind


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_are_stems_or_paths(settings: Settings) -> None:
    for name in ("moon", "art/moon", "art/ink", "old/fog", "näh"):
        shelve(settings, name, pair(f"{UNET}1_to_q"))
    library = Library(settings)
    assert sorted(item.name for item in list_own_loras(library)) == [
        "art/moon",
        "fog",
        "ink",
        "moon",
        "näh",
    ]
    assert (
        library.get_lora("art/ink").path
        == library.get_lora("ink").path
        == settings.loras / "art" / "ink.safetensors"
    )
    assert library.get_lora("moon").path == settings.loras / "moon.safetensors"
    assert library.get_content_hash(library.get_lora("art/moon")) == library.get_content_hash(
        library.get_lora("fog")
    )
    with refused(LoraNotFound) as caught:
        library.check_request(GenerationRequest(prompt="<lora:mon:1>"))
    assert "moon" in str(caught.value)
    for name in ("../models/x", "/etc/passwd", "x" * 200, "art", "oon", "moon.safe"):
        with pytest.raises(LoraNotFound):
            library.get_lora(name)
    assert library.get_lora("moon.safetensors") == library.get_lora("moon")
    (settings.loras / "moon.safetensors").unlink()
    assert library.get_lora("moon").path == settings.loras / "art" / "moon.safetensors"
    shelve(settings, "old/moon", pair(f"{UNET}1_to_q"))
    with refused(LoraNotFound) as caught:
        library.get_lora("moon")
    assert "art/moon, old/moon" in str(caught.value)


def test_a_name_that_no_tag_can_hold(settings: Settings) -> None:
    shelve(settings, "a:b<c>", pair(f"{UNET}1_to_q"))
    (item,) = list_own_loras(Library(settings))
    assert isinstance(item, Unusable)
    assert item.problem.startswith("its name contains characters that a tag cannot")


def test_folders_behind_links_and_what_is_nowhere(settings: Settings, tmp_path: Path) -> None:
    """A folder of A1111's can be linked in; loops are passed over, and dead links named."""
    other = load(home=tmp_path / "other")
    shelve(other, "far/away", pair(f"{UNET}1_to_q"))
    shelve(settings, "near", pair(f"{UNET}1_to_q"))
    (settings.loras / "linked").symlink_to(other.loras)
    (other.loras / "loop").symlink_to(other.loras)
    (settings.loras / "dead.safetensors").symlink_to(tmp_path / "nothing")
    (settings.loras / "folder.safetensors").mkdir()
    library = Library(settings)
    names = [item.name for item in list_own_loras(library)]
    assert sorted(names) == ["away", "dead", "near"]
    assert (
        library.get_lora("linked/far/away").path
        == settings.loras / "linked" / "far" / "away.safetensors"
    )


def test_a_file_that_goes_or_changes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path, library = shelve(settings, "it", pair(f"{UNET}1_to_q", alpha=2.0)), Library(settings)
    assert library.get_lora("it").alpha == 2
    shelve(settings, "it", pair(f"{UNET}1_to_q", alpha=3.0))
    os.utime(path, (1, 1))
    assert library.get_lora("it").alpha == 3
    monkeypatch.setattr(LoraShelf, "list_own_files", lambda self: [path])
    path.unlink()
    (item,) = list_own_loras(library)
    assert isinstance(item, Unusable)
    check_sentence(item.problem)
    beside = settings.loras / "peft" / "adapter_model.safetensors"
    monkeypatch.setattr(LoraShelf, "list_own_files", lambda self: [beside])
    beside.parent.mkdir()
    save_file(
        {
            f"base_model.model.mid_block.proj_in.lora_{side}.weight": torch.ones(4, 4)
            for side in "AB"
        },
        beside,
    )
    for alpha in (16, 8):
        beside.with_name("adapter_config.json").write_text(
            json.dumps({"lora_alpha": alpha, "note": " " * alpha})
        )
        assert library.get_lora("adapter_model").alpha == alpha


def test_the_nearest_names(settings: Settings) -> None:
    for name in ("MoonRock", "zebra", "\udcff"):
        path = settings.loras / f"{name}.safetensors"
        save_file(pair(f"{UNET}1_to_q"), settings.loras / "made")
        os.replace(settings.loras / "made", path)
    with refused(LoraNotFound) as caught:
        Library(settings).get_lora("moonrok")
    assert "MoonRock" in str(caught.value)
    with pytest.raises(LoraNotFound) as caught:
        Library(settings).get_lora("qqq")
    str(caught.value).encode()  # it can be sent


def test_a_file_is_added_once_and_only_if_it_is_one(settings: Settings, tmp_path: Path) -> None:
    library, sent = Library(settings), tmp_path / "sent"
    save_file(pair(f"{UNET}1_to_q"), sent)
    assert library.add_lora(sent, "../My <moon>:1.safetensors").name == "My -moon-1"
    assert library.get_lora("My -moon-1").path.read_bytes() == sent.read_bytes()
    with refused(BadFile):
        library.add_lora(sent, "My <moon>:1.SAFETENSORS")
    for name in ("moon.pt", "moon", ""):
        with refused(BadFile):
            library.add_lora(sent, name)
    sent.write_bytes(b"hello")
    with refused(BadFile):
        library.add_lora(sent, "new.safetensors")
    assert [path.name for path in settings.loras.iterdir()] == ["My -moon-1.safetensors"]


def test_a_text_of_tags_is_not_endless() -> None:
    for given in ("<lora:a:1>" * 200_000, "x" * 2_000_000):
        with hang_limit(), refused(InvalidSpec, "LoRAs"):
            validate(GenerationRequest, {"loras": given})


# ---- hostile files --------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def headless(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def spoilt(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tensors = load_file(path)
        tensors[f"{UNET}1_to_q.lora_up.weight"][3, 1] = value
        save_file(tensors, path)

    return spoil


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the header of a file in place."""

    def edited(path: Path) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        written = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + data[8 + length :])

    return edited


def instead(tensors: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path)


def pickled(path: Path) -> None:
    torch.save({"a": torch.ones(3)}, path)


DOWN, UP = f"{UNET}1_to_q.lora_down.weight", f"{UNET}1_to_q.lora_up.weight"
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "cut off": cut,
    "only the head": headless,
    "NaN": spoilt(float("nan")),
    "infinite": spoilt(float("inf")),
    "NaN alpha": instead(pair(f"{UNET}1_to_q", alpha=float("nan"))),
    "rank 100000": instead(pair(f"{UNET}1_to_q", 2, 2, rank=100_000)),
    "claimed rank": edit(
        lambda header: (
            header[DOWN].update(shape=[100_000, 128]),
            header[UP].update(shape=[128, 100_000]),
        )
    ),
    "empty": instead({}),
    "a model": instead({"conv_in.weight": torch.ones(3)}),
    "unlike matrices": instead(pair(f"{UNET}1_to_q") | {UP: torch.ones(128, 5)}),
    "whole numbers": instead({key: tensor.int() for key, tensor in pair(f"{UNET}1_to_q").items()}),
    "shape": edit(lambda header: header[DOWN].update(shape="big")),
    "no layer fits": instead(pair("lora_unet_mid_block_foo")),
    "Flux": instead(pair("transformer.transformer_blocks.1.attn.to_q") | pair(f"{TEXT}q_proj")),
    "Flux with a text encoder": instead(
        pair("lora_unet_double_blocks_0_img_attn_proj") | pair(f"{TEXT}q_proj")
    ),
    "short": edit(lambda header: header[DOWN].update(shape=[4, 127])),
    "nowhere": edit(lambda header: header[DOWN].update(data_offsets=[5, 2])),
    "half a letter": edit(lambda header: header.update({"\ud800.x": header[DOWN]})),
    "escape": edit(lambda header: header.update({"\x1b[2J": header[DOWN]})),
    "huge alpha": instead(pair(f"{UNET}1_to_q", alpha=1e30, dtype=torch.float32)),
    "huge header": edit(
        lambda header: header.update(__metadata__={"ss_tag_frequency": "x" * 2**24})
    ),
    "other widths": instead(pair(f"{UNET}1_to_q", 320, 320)),
    "SDXL": instead(pair(f"{UNET}2_to_k", 2048, 640)),
    "half a LoHa": instead({f"{UNET}1_to_q.hada_w1_a": torch.ones(2, 2)}),
    "DoRA of another width": instead(
        pair(f"{UNET}1_to_q") | {f"{UNET}1_to_q.dora_scale": torch.ones(64)}
    ),
    "GLoRA": instead({f"{UNET}1_to_q.a1.weight": torch.ones(128, 4)}),
    "OFT of 2023": instead({f"{UNET}1_to_q.oft_diag": torch.ones(4, 32, 32)}),
    "BOFT of peft": instead({"base_model.model.mid_block.to_q.boft_s": torch.ones(128, 1)}),
    "OFT without its config": instead(
        {"base_model.model.mid_block.to_q.oft_R.weight": torch.ones(4, 496)}
    ),
    "DoRA without magnitudes": lambda path: save_file(
        {f"unet.mid_block.to_q.lora_{side}.weight": torch.ones(4, 4) for side in "AB"},
        path,
        {"lora_adapter_metadata": json.dumps({"unet.use_dora": True})},
    ),
    "numbers alone": instead({"unet:0:up": torch.ones(4, 2), "unet:0:down": torch.ones(2, 4)}),
    "pickle": pickled,
    "text": lambda path: path.write_text("hello"),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("hostile")
    bench = open_bench(home)
    yield bench
    bench.home.gallery.close()


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_files_get_their_sentence(bench: WorkerContext, how: str) -> None:
    """Before anything is attached for good: the model stays as it was."""
    path = shelve(bench.settings, "it", pair(f"{UNET}1_to_q"))
    HOSTILE[how](path)
    with refused((BadFile, LoraMismatch)) as caught:
        generate(
            bench, {"loras": ["it"], "steps": 1, "width": 64, "height": 64}, lambda progress: None
        )
    assert len(str(caught.value)) < 300
    with bench.pipelines.borrow(GenerationRequest()) as parts:
        assert not any(isinstance(module, AdaptedLayer) for module in parts.denoiser.modules())
        assert parts.active_adapters == ()
    assert not [held for held in bench.pipelines.loaded if held["name"].startswith("LoRA")]
    path.unlink()


def test_a_pickle_with_its_own_name_is_listed_and_refused(settings: Settings) -> None:
    pickled(settings.loras / "old.pt")
    (item,) = list_own_loras(Library(settings))
    assert isinstance(item, Unusable)
    check_sentence(item.problem)
    with refused(BadFile):
        Library(settings).check_request(GenerationRequest(loras=["old"]))


def test_a_part_that_fits_is_used_and_counted(bench: WorkerContext) -> None:
    good, strange = pair(f"{UNET}1_to_q"), pair("lora_unet_foo") | pair(f"{UNET}1_to_k", 5, 5)
    strange["bundle_emb.x.string_to_param"] = torch.ones(2)
    spec = {"steps": 1, "width": 64, "height": 64, "seed": 1}
    shelve(bench.settings, "whole", good)
    shelve(bench.settings, "part", good | strange)
    seen: list[Progress] = []
    whole = generate(bench, spec | {"loras": ["whole"]}, lambda progress: None)
    part = generate(bench, spec | {"loras": ["part"]}, seen.append)
    (note,) = part["notes"]
    assert note.startswith("1 of 3 layers of the LoRA part fit pocket; ignored: ")
    assert whole["notes"] == []
    assert all(name in note for name in ("lora_unet_foo", f"{UNET}1_to_k", "bundle_emb.x"))
    assert note in [one.message for one in seen]
    assert np.array_equal(
        *(np.asarray(Image.open(made["pictures"][0]["path"])) for made in (whole, part))
    )


def test_layers_are_counted_and_not_tensors(bench: WorkerContext) -> None:
    """A layer with a half too little is one that does not fit; a tensor too much is none."""
    good = pair(f"{UNET}1_to_q") | pair(f"{UNET}2_to_q")
    half = pair(f"{UNET}1_to_k", alpha=1.0)
    del half[f"{UNET}1_to_k.lora_down.weight"]
    biases = {f"{UNET}{k}_to_q.lora_B.bias": torch.ones(128) for k in (1, 2)}
    spec = {"steps": 1, "width": 64, "height": 64, "seed": 1}
    for name, more, words in (
        ("half", half, "2 of 3 layers of the LoRA half fit"),
        ("biases", biases, "2 tensors are of no layer"),
    ):
        shelve(bench.settings, name, good | more)
        (note,) = generate(bench, spec | {"loras": [name]}, lambda progress: None)["notes"]
        assert words in note
        assert note.count("layer") == 1


def test_one_part_in_two_dialects_is_refused(settings: Settings) -> None:
    """Which of the two counts nobody can say; either would be dropped silently."""
    other = {
        f"{UNET}1_to_q.lora_A.weight": torch.zeros(4, 128),
        f"{UNET}1_to_q.lora_B.weight": torch.zeros(128, 4),
    }
    path = shelve(settings, "twice", pair(f"{UNET}1_to_q") | other)
    with refused(BadFile):
        lora_file.read_lora_info(path)


@pytest.mark.parametrize("number_format", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("alpha", [0.0, 2.0**-9, 0.0625, 1.0, 3.5, 4.0, 448.0, -6.0])
def test_alphas_of_eight_bits(settings: Settings, number_format: torch.dtype, alpha: float) -> None:
    """Some converters take along every tensor of a file."""
    expected = torch.tensor(alpha).to(number_format)
    tensors = pair(f"{UNET}1_to_q") | {f"{UNET}1_to_q.alpha": expected}
    path = shelve(
        settings, "small", {key: tensor.to(number_format) for key, tensor in tensors.items()}
    )
    (layer,), _ = lora_file.read_layers(path)
    assert layer.alpha == float(expected)


@pytest.mark.parametrize("number_format", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_of_eight_bits_is_as_torch_reads_it(
    settings: Settings, number_format: torch.dtype
) -> None:
    for byte in range(0, 256, 5):
        alpha = torch.tensor(byte, dtype=torch.uint8).view(number_format)
        path = shelve(settings, "small", pair(f"{UNET}1_to_q") | {f"{UNET}1_to_q.alpha": alpha})
        try:
            (layer,), _ = lora_file.read_layers(path)
        except BadFile:
            assert not alpha.float().isfinite()
        else:
            assert layer.alpha == float(alpha)


def test_tensors_on_the_same_bytes_are_refused(settings: Settings) -> None:
    path = shelve(settings, "lying", pair(f"{UNET}1_to_q"))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    (up,) = [entry for name, entry in header.items() if "up" in name]
    up["data_offsets"] = [0, 1024]
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + length :])
    with refused(BadFile):
        lora_file.read_lora_info(path)


def test_names_that_are_left_out_are_counted(settings: Settings) -> None:
    for name in ("aaa1", "aaa2", "aaa3", "aaa4", "aaa5", "aaa6"):
        shelve(settings, name, pair(f"{UNET}1_to_q"))
    with refused(LoraNotFound) as caught:
        Library(settings).get_lora("wwww")
    assert "more" in str(caught.value)


def test_a_lora_for_another_family_is_listed_as_one(settings: Settings) -> None:
    layer = "diffusion_model.layers.0.attention.qkv"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(4, 8),
        f"{layer}.lora_B.weight": torch.ones(8, 4),
    }
    path = shelve(settings, "z", tensors)
    (item,) = list_own_loras(Library(settings))
    assert isinstance(item, Unusable)
    check_sentence(item.problem)
    facts = inspect_file(path)
    assert (facts["kind"], facts["family"], facts["adapter"]) == ("lora", "z-image", "LoRA")
    assert facts["sentence"] == item.problem


def test_any_bytes_are_a_sentence(settings: Settings) -> None:
    """Every cut and many flipped bytes of a real file: a LoRA or a StudioError."""
    path = shelve(settings, "it", pair(f"{UNET}1_to_q", alpha=2.0), KOHYA)
    data = path.read_bytes()
    for at in [*range(0, 400, 3), *range(400, len(data), 97)]:
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            path.write_bytes(bad)
            with suppress(StudioError):
                lora_file.read_lora_info(path)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("width", "extra", "family"),
    [
        (768, {}, "sd1"),
        (1024, {}, "sd2"),
        (640, {}, None),
        (640, {"<s1>": torch.ones(2, 768)}, "sd1"),
    ],
)
def test_numbered_layers_tell_their_family_by_widths(
    settings: Settings, width: int, extra: dict[str, torch.Tensor], family: str | None
) -> None:
    """As lora_diffusion saves them: no layer has a name, and nothing else says what it is for."""
    tensors = dict(extra)
    for number, inputs in enumerate((320, 1280, width)):
        tensors[f"unet:{number}:down"] = torch.ones(4, inputs)
        tensors[f"unet:{number}:up"] = torch.ones(320, 4)
    path = shelve(settings, "numbered", tensors, {"unet": '["CrossAttention"]'})
    assert lora_file.read_lora_info(path).family == family
