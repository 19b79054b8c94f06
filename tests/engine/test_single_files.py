"""Single-file checkpoints: the same pictures as stock pipelines of the same weights."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models.components import _mend_end_of_text
from studio.engine.models.part_files import build_clip_tokenizer
from studio.engine.training.job import train
from studio.errors import BadFile, StudioError, UnknownFamily
from studio.storage.models.model_options import ModelOptions
from support import ldm_files
from support.benches import open_bench
from support.sentences import refused
from support.trainings import QUICK, make_small_dataset, silent

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPT = "a red boat by a lake, très joli"
ASKED = {"num_inference_steps": 2, "guidance_scale": 5.0, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def parts() -> Callable[[str], dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}

    def get(kind: str) -> dict[str, Any]:
        if kind not in made:
            made[kind] = ldm_files.make_toy_parts(kind)
        return made[kind]

    return get


@pytest.fixture(scope="module")
def studio(
    tmp_path_factory: pytest.TempPathFactory, parts: Callable[[str], dict[str, Any]]
) -> Iterator[WorkerContext]:
    """A home with a toy file of each family."""
    home = tmp_path_factory.mktemp("files") / "home"
    for kind in ldm_files.TOYS:
        tensors = ldm_files.collect_checkpoint(kind, parts(kind))
        ldm_files.write_checkpoint(home / "models" / "deep" / f"{kind}.safetensors", tensors)
    bench = open_bench(home)
    yield bench
    bench.home.close()


def paint(bench: WorkerContext, **spec: Any) -> np.ndarray:
    asked = {
        "prompt": PROMPT,
        "steps": 2,
        "guidance": 5,
        "width": 64,
        "height": 64,
        "seed": 3,
        "scheduler": "Euler",
        "noise_schedule": "Model default",
    }
    images = generate(bench, asked | spec, lambda progress: None)["pictures"]
    return np.asarray(Image.open(images[0]["path"]))


def call(pipeline: Any, **given: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipeline(PROMPT, generator=generator, **(ASKED | given)).images[0])


@pytest.mark.parametrize(
    ("kind", "negative"),
    [
        ("sd1", ""),
        ("sd2", "fog"),
        ("sdxl", ""),
        ("sdxl", "fog"),
        pytest.param("sd1", "fog", marks=pytest.mark.slow),
        pytest.param("sd2", "", marks=pytest.mark.slow),
    ],
)
def test_a_file_paints_bitwise_what_the_stock_pipeline_does(
    studio: WorkerContext, parts: Callable[[str], dict[str, Any]], kind: str, negative: str
) -> None:
    pipeline = ldm_files.make_pipeline(kind, parts(kind))
    reference = call(pipeline, negative_prompt=negative or None)
    ours = paint(studio, model=f"deep/{kind}", negative_prompt=negative)
    assert np.array_equal(ours, reference)
    assert reference.std() > 5  # of something


# ---- other ways to store the same numbers ---------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WorkerContext]:
    bench = open_bench(tmp_path / "home")
    yield bench
    bench.home.close()


def write(bench: WorkerContext, name: str, tensors: Any, **options: Any) -> Path:
    return ldm_files.write_checkpoint(
        bench.settings.models / f"{name}.safetensors", tensors, **options
    )


def round_to(parts: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The same parts with the numbers that are left in a file of this format."""
    rounded = copy.deepcopy(parts)
    for part in rounded.values():
        if isinstance(part, torch.nn.Module):
            for weight in part.parameters():
                weight.data = weight.data.to(dtype).float()
    return rounded


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float8_e4m3fn,
        pytest.param(torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(torch.float8_e5m2, marks=pytest.mark.slow),
    ],
)
def test_rounded_numbers(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]], dtype: torch.dtype
) -> None:
    tensors = ldm_files.collect_checkpoint("sd1", parts("sd1"))
    write(bench, "it", tensors, dtype=dtype)
    reference = call(ldm_files.make_pipeline("sd1", round_to(parts("sd1"), dtype)))
    assert np.array_equal(paint(bench, model="it"), reference)


def scale(tensors: dict[str, torch.Tensor], ending: str, by_row: bool) -> dict[str, torch.Tensor]:
    """8-bit weights of the denoiser's linear layers, each with a scale that it is to be multiplied by."""
    scaled = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(ldm_files.UNET) and name.endswith(".weight") and tensor.dim() == 2:
            most = tensor.float().abs()
            most = most.amax(1) if by_row else most.max()
            factor = most / 448
            rows = factor[:, None] if by_row else factor
            scaled[name] = (tensor.float() / rows).to(torch.float8_e4m3fn)
            scaled[name.removesuffix(".weight") + ending] = factor
            if ending == ".weight_scale":
                mark = json.dumps({"format": "float8_e4m3fn"}).encode()
                scaled[name.removesuffix(".weight") + ".comfy_quant"] = torch.tensor(
                    list(mark), dtype=torch.uint8
                )
    if ending == ".scale_weight":
        scaled[f"{ldm_files.UNET}scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    return scaled


@pytest.mark.parametrize(
    ("ending", "by_row"),
    [
        pytest.param(".scale_weight", False, marks=pytest.mark.slow),
        (".weight_scale", True),
        pytest.param(".weight_scale", False, marks=pytest.mark.slow),
    ],
)
def test_scaled_8_bit_numbers(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]], ending: str, by_row: bool
) -> None:
    tensors = ldm_files.collect_checkpoint("sd1", parts("sd1"))
    write(bench, "it", tensors, change=lambda saved: scale(saved, ending, by_row))
    stock = copy.deepcopy(parts("sd1"))
    own = stock["unet"].state_dict()
    renamed_unet = ldm_files.rename_unet(own, 1)
    saved = scale(renamed_unet, ending, by_row)
    for weight, renamed in zip(own.values(), renamed_unet, strict=True):
        factor = saved.get(renamed.removesuffix(".weight") + ending)
        if renamed.endswith(".weight") and factor is not None:
            rows = factor[:, None] if by_row else factor
            weight.copy_(saved[renamed].float() * rows)
    reference = call(ldm_files.make_pipeline("sd1", stock))
    assert np.array_equal(paint(bench, model="it"), reference)


@pytest.mark.slow
def test_a_denoiser_with_parts_of_the_shelf(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    """By diffusers' names, with files as ComfyUI's folders have them."""
    own = parts("sdxl")
    write(bench, "it", own["unet"].state_dict())
    home = bench.settings.home
    ldm_files.write_checkpoint(
        home / "vae/xl.safetensors", own["vae"].state_dict(), dtype=torch.float32
    )
    first, second = own["text_encoder"].state_dict(), own["text_encoder_2"].state_dict()
    ldm_files.write_checkpoint(
        home / "text_encoders/l.safetensors", ldm_files.rename_clip(first, "")
    )
    ldm_files.write_checkpoint(home / "text_encoders/g.safetensors", second)
    reference = call(ldm_files.make_pipeline("sdxl", own), negative_prompt="fog")
    assert np.array_equal(paint(bench, model="it", negative_prompt="fog"), reference)
    spec = {"prompt": PROMPT, "model": "it", "steps": 1, "width": 64, "height": 64}
    notes = generate(bench, spec, lambda progress: None)["notes"]
    assert "Generated with the autoencoder (VAE) in xl.safetensors." in notes  # nothing in silence


@pytest.mark.slow
def test_sd2_has_a_layer_more_that_nobody_reads(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    stock = copy.deepcopy(parts("sd2"))
    config = ldm_files.text_config(1024, 8, 23)
    stock["text_encoder"] = ldm_files.build(type(stock["text_encoder"]), {"config": config}, 5)
    tensors = ldm_files.collect_checkpoint("sd2", stock)
    tensors |= ldm_files.rename_open_clip(
        stock["text_encoder"].state_dict(), "cond_stage_model.model.", extra_layers=1
    )
    write(bench, "it", tensors)
    reference = call(ldm_files.make_pipeline("sd2", stock), negative_prompt="fog")
    assert np.array_equal(paint(bench, model="it", negative_prompt="fog"), reference)


@pytest.mark.parametrize("lacks", ["out_layers.3.bias", "attn_1.norm.bias"])
def test_what_is_missing_is_named(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]], lacks: str
) -> None:
    tensors = ldm_files.collect_checkpoint("sd1", parts("sd1"))
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(lacks)}
    write(bench, "painter", left)
    with refused((BadFile, UnknownFamily)):  # of an autoencoder the header tells already
        paint(bench, model="painter")


def test_weights_of_another_shape_are_named(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    tensors = ldm_files.collect_checkpoint("sd1", parts("sd1"))
    name = f"{ldm_files.UNET}out.0.weight"
    write(bench, "painter", tensors | {name: torch.ones(5)})
    with refused(BadFile):
        paint(bench, model="painter")


# ---- what is decided ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_decided_prediction_paints_as_the_stock_pipeline(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    write(bench, "it", ldm_files.collect_checkpoint("sd1", parts("sd1")))
    plain = paint(bench, model="it")
    before = bench.pipelines.content_hashes(GenerationRequest(model="it"))
    bench.home.library.save_options("it", ModelOptions("v_prediction", is_zero_snr=True))
    pipeline = ldm_files.make_pipeline(
        "sd1", parts("sd1"), prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    reference = call(pipeline)
    assert np.array_equal(paint(bench, model="it"), reference)
    assert not np.array_equal(plain, reference)
    assert bench.pipelines.content_hashes(GenerationRequest(model="it")) != before


@pytest.mark.slow
def test_another_vae_leaves_the_denoiser_where_it_is(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    write(bench, "it", ldm_files.collect_checkpoint("sd1", parts("sd1")))
    other = ldm_files.make_toy_vae("sd1", 8)
    ldm_files.write_checkpoint(
        bench.settings.vaes / "other.safetensors",
        ldm_files.rename_vae(other.state_dict(), 4, prefix=""),
    )
    plain = paint(bench, model="it")
    denoiser = "denoiser of"
    (key,) = [key for key in list_residents(bench) if key.startswith(denoiser)]
    reference = call(ldm_files.make_pipeline("sd1", parts("sd1") | {"vae": other}))
    own = bench.pipelines._cache._residents[key].value
    assert np.array_equal(paint(bench, model="it", vae="other"), reference)
    assert [k for k in list_residents(bench) if k.startswith(denoiser)] == [key]
    assert bench.pipelines._cache._residents[key].value is own
    assert not np.array_equal(plain, reference)
    assert np.array_equal(paint(bench, model="it"), plain)
    request = GenerationRequest(model="it", vae="other")
    with (
        bench.pipelines.borrow(request) as outer,
        bench.pipelines.borrow(GenerationRequest(model="it")) as inner,
    ):
        assert inner is outer
        assert torch.equal(
            inner.vae.decoder.conv_in.weight, parts("sd1")["vae"].decoder.conv_in.weight
        )
    hashes = bench.pipelines.content_hashes(request)
    assert (
        hashes["vae"]
        == hashlib.sha256((bench.settings.vaes / "other.safetensors").read_bytes()).hexdigest()
    )


@pytest.mark.slow
def test_a_file_without_a_vae_paints_with_the_one_that_is_named(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    tensors = ldm_files.collect_checkpoint("sd1", parts("sd1"))
    pruned = {name: t for name, t in tensors.items() if not name.startswith(ldm_files.VAE)}
    write(bench, "it", pruned)
    for name, seed in (("own", 3), ("other", 8)):
        vae = ldm_files.make_toy_vae("sd1", seed)
        ldm_files.write_checkpoint(bench.settings.vaes / f"{name}.safetensors", vae.state_dict())
    with refused(BadFile) as caught:
        paint(bench, model="it")
    assert "Choose a VAE" in str(caught.value)
    reference = call(ldm_files.make_pipeline("sd1", parts("sd1")))
    assert np.array_equal(paint(bench, model="it", vae="own"), reference)
    assert not np.array_equal(paint(bench, model="it", vae="other"), reference)


def list_residents(bench: WorkerContext) -> list[str]:
    return [resident["key"] for resident in bench.pipelines._cache.list_residents()]


def test_old_folders_get_the_real_end_of_a_text(tmp_path: Path) -> None:
    """With tokens that were added, the old one takes the wrong place."""
    config = ldm_files.text_config(768, 64, 2)
    config.eos_token_id = 2
    network = ldm_files.build(CLIPTextModel, {"config": config}, 3)
    _mend_end_of_text(network)
    ids = torch.tensor([[49406, 320, 49407, 49407]])
    pooled = network(ids).pooler_output
    states = network(ids).last_hidden_state
    assert torch.equal(pooled, states[:, 2])
    inner = [module for module in network.modules() if hasattr(module, "eos_token_id")]
    assert inner
    assert {module.eos_token_id for module in inner} == {49407}


def test_the_tokenizer_is_clips(tmp_path: Path) -> None:
    tokenizer = build_clip_tokenizer(CLIPTokenizer, "!")
    stock = ldm_files.make_tokenizer("!")
    texts = ["a photo of a cat", "Ünïcode – 日本 🙂 don't", "word " * 100]
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    for text in texts:
        options = {"padding": "max_length", "truncation": True}
        assert tokenizer(text, **options).input_ids == stock(text, **options).input_ids
    assert len(tokenizer) == 49408
    assert tokenizer.pad_token_id == 0


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lora_is_trained_from_a_file(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    """And names it by the hashes that other programs know it by."""
    path = write(bench, "xl", ldm_files.collect_checkpoint("sdxl", parts("sdxl")))
    make_small_dataset(bench.settings.home)
    values = {
        **QUICK,
        "model": "xl",
        "steps": 1,
        "save_precision": "float32",
        "train_text_encoder": False,
    }
    run = bench.home.runs.add(validate(TrainingConfig, values), "ann")
    lora = train(bench, {"run": run}, silent)["lora"]
    content = path.read_bytes()
    with safe_open(bench.settings.loras / f"{lora}.safetensors", "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["ss_sd_model_name"] == "xl"
    assert metadata["ss_new_sd_model_hash"] == hashlib.sha256(content).hexdigest()
    old = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]  # as kohya's model_hash
    assert metadata["ss_sd_model_hash"] == old
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert any(name.startswith("lora_unet_input_blocks_") for name in names)
    plain, changed = (
        paint(bench, model="xl"),
        paint(bench, model="xl", prompt=f"{PROMPT} <lora:{lora}:4>"),
    )
    assert not np.array_equal(plain, changed)
    pipeline = ldm_files.make_pipeline("sdxl", copy.deepcopy(parts("sdxl")))
    pipeline.load_lora_weights(str(bench.settings.loras / f"{lora}.safetensors"))
    assert pipeline.get_active_adapters()


def test_a_vae_of_no_numbers_and_a_broken_one_are_said(
    bench: WorkerContext, parts: Callable[[str], dict[str, Any]]
) -> None:
    """A black picture would be saved in silence otherwise, or the model be blamed for another file."""
    write(bench, "it", ldm_files.collect_checkpoint("sd1", parts("sd1")))
    weights = {name: tensor.clone() for name, tensor in parts("sd1")["vae"].state_dict().items()}
    weights["decoder.conv_out.bias"][:] = torch.nan
    folder = bench.settings.vaes
    ldm_files.write_checkpoint(folder / "nan.safetensors", weights, dtype=torch.float32)
    weights.pop("decoder.conv_norm_out.weight")
    ldm_files.write_checkpoint(folder / "hole.safetensors", weights, dtype=torch.float32)
    for vae in ("nan", "hole"):
        with refused((StudioError, BadFile)):
            paint(bench, model="it", vae=vae)
    assert not list(bench.settings.outputs.rglob("*.png"))
