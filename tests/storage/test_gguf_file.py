"""GGUF files are read from their headers, whatever these claim."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import BadFile
from studio.storage.models import gguf_file
from studio.storage.models.gguf_file import read_gguf_header
from studio.storage.models.model_file import identify_file
from support.examples import examples
from support.weights import write_gguf

pytestmark = pytest.mark.smoke
# Written by the package gguf 0.19: three tensors of a FLUX.1 dev, one of them in Q4_0 and folded from 64 × 64 to
# 16 × 256, with lists of texts and numbers in the metadata.
BY_GGUF = zlib.decompress(
    base64.b85decode(
        "c-rkz!A`?44DAX`<A4MboZx`O6-9i&M0a9ez&Xk?H;tMmBT0eo#3%6yd>UzSrBDPvKwMe2pPwDuU9TS>4zeukwU;"
        "^CbF>09Sf&WGypkTcZ!IhWeu()}wXatb?o-ROmwV==(exRt3%2LyLC+@KQYxUn+rdb<K!P_lXt@VVglH5QLU$Yzi"
        ")h*zT9%`;;bUs)?tf|JxUn#_n&X=&MV5UOHyCi!lwBxjOJb}P)KzQ;L^gs-O<q8X%J(gfq82OETa34+-GuEn%JAB"
        "eyP=qQuZcFcAvJV#a2#g}X1Li@F2{Sda?3P_{&lITVqIA0Ym7Yl9eH$^YxGahew#gy&UYFWuYOGMR{W{U$v2hvgd"
        "`*(2}wvo5|WVrg?s`VQo;u"
    )
)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def test_a_file_of_the_reference_writer(tmp_path: Path) -> None:
    path = tmp_path / "flux.gguf"
    path.write_bytes(BY_GGUF)
    header = read_gguf_header(path)
    assert (header.architecture, header.dtype) == ("flux", "Q4_0")
    assert header.shapes == {
        "double_blocks.0.img_attn.norm.key_norm.scale": (8,),
        "guidance_in.in_layer.weight": (2, 4),
        "img_in.weight": (64, 64),
    }
    assert identify_file(path).sentence == (
        "flux.gguf is a denoiser of FLUX.1 dev (without autoencoder and text encoder, flow "
        "prediction, Q4_0); it is a GGUF file, whose quantised weights the studio cannot read."
    )


@pytest.mark.parametrize(
    ("tensors", "kind", "title"),
    [
        (
            [("input_blocks.0.0.weight", [320, 4, 3, 3], 1), ("x.attn2.to_k.weight", [8, 768], 8)],
            "denoiser",
            "denoiser of SD 1.x",
        ),
        (
            [("blk.0.attn_q.weight", [32, 32], 12), ("token_embd.weight", [151_936, 2560], 12)],
            "text encoder",
            "text encoder Qwen3-4B",
        ),
        (
            [("enc.blk.0.attn_q.weight", [32, 32], 8), ("token_embd.weight", [32_128, 4096], 8)],
            "text encoder",
            "text encoder T5-XXL",
        ),
    ],
)
def test_contents(
    tmp_path: Path, tensors: list[tuple[str, list[int], int]], kind: str, title: str
) -> None:
    identified = identify_file(write_gguf(tmp_path / "file.gguf", tensors, "any"))
    assert (identified.kind, identified.title) == (kind, title)


def test_what_is_not_known_is_told_by_its_architecture(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "file.gguf", [("x.weight", [32, 32], 10)], "mochi")
    assert "architecture 'mochi', Q2_K" in identify_file(path).problem


def test_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "flux.gguf"
    for length in (4, 30, 500, len(BY_GGUF) - 100):
        path.write_bytes(BY_GGUF[:length])
        assert "cut off" in identify_file(path).problem


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (struct.pack(">IQQ", 3, 0, 0), "byte order"),
        (struct.pack("<IQQ", 3, 2**60, 0), "tensors"),
        (struct.pack("<IQQ", 3, 0, 2**60), "entries of metadata"),
        (struct.pack("<IQQQ", 3, 0, 1, 2**60), "bytes in a name"),
        (struct.pack("<IQQ", 3, 0, 1) + text(b"k") + struct.pack("<IQ", 8, 2**60), "bytes in"),
        (struct.pack("<IQQ", 3, 0, 1) + text(b"k") + struct.pack("<I", 77), "unknown type"),
        (struct.pack("<IQQ", 3, 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "unknown type"),
        (struct.pack("<IQQ", 3, 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, 2**60), "items"),
        (struct.pack("<IQQ", 3, 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, 2**24), "texts"),
        (struct.pack("<IQQ", 3, 1, 0) + text(b"t") + struct.pack("<I", 2**31), "dimensions"),
        (struct.pack("<IQQ", 3, 1, 0) + text(b"t") + struct.pack("<IQ", 1, 2**63), "in a row"),
        (
            struct.pack("<IQQ", 3, 0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
            "where its tensors begin",
        ),
        (
            struct.pack("<IQQ", 3, 1, 0) + text(b"t") + struct.pack("<IQIQ", 1, 4, 0, 2**63),
            "cut off",
        ),
    ],
)
def test_a_lying_header(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(gguf_file.SIGNATURE + data + bytes(64))
    with pytest.raises(BadFile, match="is a GGUF file") as caught:
        read_gguf_header(path)
    assert words in str(caught.value)


def test_a_header_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "MAX_HEADER_BYTES", 100)
    path = tmp_path / "file.gguf"
    path.write_bytes(BY_GGUF)
    with pytest.raises(BadFile):
        read_gguf_header(path)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, len(BY_GGUF)),
    st.lists(st.tuples(st.integers(4, 600), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_any_bytes_are_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, length: int, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(BY_GGUF)
    for position, value in changes:
        data[position : position + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "odd.gguf"
    for content in (bytes(data), bytes(data[:length])):
        path.write_bytes(content)
        sentence = identify_file(path).sentence
        assert sentence.startswith("odd.gguf ")
        assert sentence.endswith(".")
        assert sentence.isprintable()
