"""Which files of a repository make a model, on lists as real repositories have them."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.downloads.hub_files import ListedFile, choose_model_files
from studio.core.downloads.plan import DownloadPlan, RemoteFile, estimate_card_bytes, format_size
from studio.errors import BadFile
from support.sentences import refused

pytestmark = pytest.mark.smoke
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": [None, None],
}
PLAIN = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
HALF = [
    "text_encoder/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]
OTHERS = [
    ".gitattributes",
    "README.md",
    "01.png",
    "LICENSE.md",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_base_1.0_0.9vae.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.onnx",
    "text_encoder/openvino_model.xml",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.bin.index.json",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "vae_decoder/model.onnx",
    "safety_checker/model.safetensors",
]


def choose(*paths: str, variant: Any = "auto", index: dict[str, Any] = INDEX) -> set[str]:
    chosen, _ = choose_model_files([ListedFile(path, 10) for path in paths], index, variant)
    return {file.path for file in chosen}


def test_half_precision_where_every_part_has_it_and_nothing_twice() -> None:
    settings = {path for path in PLAIN if not path.endswith(".safetensors")}
    assert choose(*PLAIN, *HALF, *OTHERS) == settings | set(HALF) | {"LICENSE.md"}


def test_full_precision_where_one_part_has_no_half() -> None:
    assert choose(*PLAIN, *HALF[:2], *OTHERS) == {*PLAIN, "LICENSE.md"}
    assert choose(*PLAIN, *HALF, variant="full") == set(PLAIN)


def test_pieces_come_with_their_index_alone() -> None:
    pieces = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    of_half = "unet/diffusion_pytorch_model.safetensors.index.fp16.json"
    without = [path for path in PLAIN if path != "unet/diffusion_pytorch_model.safetensors"]
    assert choose(*without, *pieces, index, of_half) == {*without, *pieces, index}
    assert choose(*PLAIN, *pieces, index) == set(PLAIN)  # whole is there as well


@pytest.mark.parametrize(
    ("paths", "variant"),
    [
        ([path for path in PLAIN if not path.startswith("vae/")], "auto"),
        ([*PLAIN[:-1], "vae/diffusion_pytorch_model.bin"], "auto"),
        ([path for path in PLAIN if not path.endswith(".safetensors")], "auto"),
        (PLAIN, "fp16"),
        ([*(path for path in PLAIN if not path.endswith(".safetensors")), *HALF], "full"),
    ],
)
def test_what_makes_no_model(paths: list[str], variant: str) -> None:
    with refused(BadFile):
        choose(*paths, variant=variant)


def test_an_index_of_nonsense() -> None:
    for index in ({}, {"unet": "x"}, {"unet": [None, None]}, {"_class_name": ["a", "b"]}):
        with pytest.raises(BadFile):
            choose(*PLAIN, index=index)


def test_a_plan_knows_its_size_only_if_all_files_do() -> None:
    def plan(*sizes: int | None) -> DownloadPlan:
        files = tuple(RemoteFile(str(i), "https://a", size) for i, size in enumerate(sizes))
        return DownloadPlan("hub", "t", "p", "h", "n", True, files)

    assert plan(3, 4).size_bytes == 7
    assert plan(3, None).size_bytes is None
    assert estimate_card_bytes(4_000) > 4_000


@pytest.mark.parametrize(
    ("number", "text"), [(512_000, "512 kB"), (4.3e6, "4.3 MB"), (6.94e9, "6.94 GB")]
)
def test_sizes_in_words(number: float, text: str) -> None:
    assert format_size(number) == text
