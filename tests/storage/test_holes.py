"""A file with a hole is listed as one that cannot be used, whichever of its tensors is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, UnknownFamily
from studio.services.model_catalog import ModelCatalog
from studio.settings import load
from studio.storage.home import Home
from studio.storage.models.library import Library, Unusable
from studio.storage.models.model_file import identify_file
from support import ldm_files, upscalers
from support.sentences import check_sentence, refused
from support.upscalers import Tensors
from support.visitors import OWNER
from support.weights import VAE_FILE, Shapes, write_weights

pytestmark = pytest.mark.smoke
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def stock_vae(levels: tuple[int, ...], layers: int, attention: bool = True) -> Tensors:
    config = ldm_files.vae_config(levels, layers, 1.0)
    with torch.device("meta"):
        return AutoencoderKL(**config, mid_block_add_attention=attention).state_dict()


def in_ldm_names(tensors: Tensors) -> Tensors:
    levels = len({name.split(".")[2] for name in tensors if "down_blocks" in name})
    return ldm_files.rename_vae(tensors, levels, prefix="")


def in_old_names(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    return renamed


def name_hole(path: Path, shapes: Shapes, missing: str) -> str:
    """What is wrong with a file of these tensors without one."""
    rest = {name: shape for name, shape in shapes.items() if name != missing}
    return identify_file(write_weights(path, rest)).problem


SMALL, LARGE = ((32,), 2, False), ((32, 64, 64), 1, True)


@pytest.mark.parametrize(
    ("build", "rename"),
    [
        (LARGE, dict),
        pytest.param(LARGE, in_old_names, marks=pytest.mark.slow),
        pytest.param(LARGE, in_ldm_names, marks=pytest.mark.slow),
        *((SMALL, rename) for rename in (dict, in_old_names, in_ldm_names)),
    ],
)
def test_every_tensor_of_an_autoencoder_counts(
    tmp_path: Path,
    rename: Callable[[Tensors], Tensors],
    build: tuple[tuple[int, ...], int, bool],
) -> None:
    path = tmp_path / "x.safetensors"
    shapes = upscalers.list_shapes(rename(stock_vae(*build)))
    assert name_hole(path, shapes, "") == ""
    identifying = "decoder.conv_in.weight"  # without it nobody could tell what the file is
    for missing in shapes.keys() - {identifying}:
        assert f"lacks {missing};" in name_hole(path, shapes, missing)


@pytest.mark.parametrize("build", [upscalers.compact, upscalers.rrdb])
def test_every_tensor_of_an_upscaler_counts(tmp_path: Path, build: Callable[[], Tensors]) -> None:
    path = tmp_path / "x.safetensors"
    shapes = upscalers.list_shapes(build())
    assert name_hole(path, shapes, "") == ""
    for missing in shapes:
        identified = identify_file(
            write_weights(path, {name: shape for name, shape in shapes.items() if name != missing})
        )
        assert identified.problem or identified.kind != "upscaler", missing


@pytest.mark.parametrize("rename", [upscalers.in_first_names, upscalers.in_trunk_names])
def test_older_names_of_upscalers_count_as_well(
    tmp_path: Path, rename: Callable[[Tensors], Tensors]
) -> None:
    path = tmp_path / "x.safetensors"
    shapes = upscalers.list_shapes(rename(upscalers.rrdb()))
    assert name_hole(path, shapes, "") == ""
    hole = next(name for name in shapes if name.endswith("conv3.bias") or "conv3.0.bias" in name)
    assert "lacks body.0.rdb1.conv3.bias" in name_hole(path, shapes, hole)


def test_a_header_of_three_thousand_blocks_is_answered(tmp_path: Path) -> None:
    shapes = upscalers.list_shapes(upscalers.rrdb())
    shapes |= {f"body.{number}.x": [1] for number in range(3_000)}
    assert "lacks" in name_hole(tmp_path / "x.safetensors", shapes, "")


def test_the_lists_say_which_files_have_a_hole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    without_end = {n: s for n, s in VAE_FILE.items() if "decoder.norm_out.bias" not in n}
    write_weights(home / "vae/hole.safetensors", without_end)
    upscaler = upscalers.list_shapes(upscalers.rrdb())
    del upscaler["conv_hr.weight"]
    write_weights(home / "upscalers/4x-hole.safetensors", upscaler)
    studio = Home(load(home=home, device="cpu"))
    entries = {entry.path.stem: entry for entry in ModelCatalog(studio).list_entries(OWNER)}
    check_sentence(entries["hole"].problem)
    check_sentence(entries["4x-hole"].problem)
    assert "4x-hole" not in studio.library.upscalers.list_names()
    with refused(BadFile):
        studio.library.upscalers.get("4x-hole")
    with refused(BadFile):
        studio.library.check_request(GenerationRequest(vae="hole"))
    studio.close()


def test_a_checkpoint_says_which_tensor_its_autoencoder_lacks(tmp_path: Path) -> None:
    shapes = ldm_files.toy_shapes("sd1")
    del shapes[f"{ldm_files.VAE}decoder.mid.attn_1.norm.bias"]
    write_weights(tmp_path / "home/models/painter.safetensors", shapes)
    library = Library(load(home=tmp_path / "home", device="cpu"))
    assert [i.name for i in library.scan_models() if isinstance(i, Unusable)] == [
        "painter.safetensors"
    ]
    with refused(UnknownFamily):
        library.get_model("painter")
