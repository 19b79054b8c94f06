"""Single files as models: what their headers say, where parts come from, what the owner decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from studio.core.families.model_advice import suggest_settings
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, ModelNotFound, UnknownFamily
from studio.services.model_catalog import ModelCatalog
from studio.settings import load
from studio.storage.home import Home
from studio.storage.models import single_file_cache, single_files
from studio.storage.models.library import Library, ModelInfo, Unusable
from studio.storage.models.model_configs import read_config
from studio.storage.models.model_options import ModelOptions
from support import ldm_files
from support.examples import examples
from support.ldm_files import toy_shapes
from support.sentences import check_sentence, refused
from support.visitors import OWNER
from support.weights import Shapes, write_weights

pytestmark = pytest.mark.smoke
REAL, REAL_TEXTS = ldm_files.REAL, ldm_files.REAL_TEXTS
REAL_VAE, FACTORS = ldm_files.REAL_VAE, ldm_files.FACTORS
TOY = (32,) * 4
Header = Callable[[str], Shapes]


def list_shapes(kind: str, **unet: Any) -> Shapes:
    """The names and shapes of a real checkpoint, without its gigabytes."""
    with torch.device("meta"), init_empty_weights():
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**(REAL[kind] | unet)),
            "vae": AutoencoderKL(**ldm_files.vae_config(*REAL_VAE, FACTORS[kind])),
        }
        for number, config in enumerate(REAL_TEXTS[kind]):
            network = CLIPTextModelWithProjection if number else CLIPTextModel
            parts["text_encoder_2" if number else "text_encoder"] = network(config)
        tensors = ldm_files.collect_checkpoint(kind, parts)
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def shapes() -> Header:
    known: dict[str, Shapes] = {}

    def get(kind: str) -> Shapes:
        if kind not in known:
            known[kind] = list_shapes(kind)
        return dict(known[kind])

    return get


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def library(home: Path) -> Library:
    return Library(load(home=home, device="cpu"))


def get_model(library: Library, name: str) -> ModelInfo:
    (model,) = [model for model in library.list_models() if model.name == name]
    assert library.get_model(name) == model
    return model


def explain(library: Library, name: str) -> str:
    (item,) = [item for item in library.scan_models() if item.name == name]
    assert isinstance(item, Unusable)
    return item.problem


# ---- what a header says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "sdxl" else ()) for kind in REAL]
)
def test_configs_of_the_released_models(
    library: Library, home: Path, shapes: Header, kind: str
) -> None:
    write_weights(home / "models" / "sub" / f"{kind}.safetensors", shapes(kind))
    model = get_model(library, f"sub/{kind}")
    config = read_config(model, "unet")
    with torch.device("meta"):
        ours, stock = UNet2DConditionModel.from_config(config), UNet2DConditionModel(**REAL[kind])
        vae = AutoencoderKL.from_config(read_config(model, "vae"))
    same = {"_use_default_values", "transformer_layers_per_block"}  # 1 stands for 1, 1, 1, 1
    for key in set(stock.config) - same:
        assert json.dumps(ours.config[key]) == json.dumps(stock.config[key]), key
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in stock.state_dict().items()
    }
    assert vae.config.block_out_channels == [128, 256, 512, 512]
    assert vae.config.scaling_factor == FACTORS[kind]
    for number, text in enumerate(REAL_TEXTS[kind]):
        read = read_config(model, "text_encoder_2" if number else "text_encoder")
        assert {key: getattr(text, key) for key in read} == read
    assert (model.family, model.native_size) == (kind, 1024 if kind == "sdxl" else 512)
    assert (model.dtype, model.prediction_type, model.missing) == ("float16", "epsilon", {})
    assert model.component_bytes["unet"] == 2 * sum(t.numel() for t in stock.state_dict().values())


@pytest.mark.parametrize(
    ("depths", "up", "middle"),
    [
        ([0, [2, 2], [4, 4]], [[4, 4, 10], [2, 1, 1], 0], "UNetMidBlock2D"),  # SSD-1B
        ([0, [1, 1], [2, 2]], [[2, 2, 2], [1, 1, 1], 0], "UNetMidBlock2D"),  # Segmind-Vega
        ([0, 2, 5], None, None),  # KOALA
    ],
)
def test_cut_down_sdxls(
    library: Library, home: Path, depths: Any, up: Any, middle: str | None
) -> None:
    config = REAL["sdxl"] | {
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "mid_block_type": middle,
    }
    if up:
        config["reverse_transformer_layers_per_block"] = [depth or 1 for depth in up]
    with torch.device("meta"):
        stock = UNet2DConditionModel(**config)
        tensors = ldm_files.rename_unet(stock.state_dict(), 2)
    write_weights(home / "models/small.safetensors", {n: list(t.shape) for n, t in tensors.items()})
    model = get_model(library, "small")
    with torch.device("meta"):
        ours = UNet2DConditionModel.from_config(read_config(model, "unet"))
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in stock.state_dict().items()
    }


def test_an_inpainting_model(library: Library, home: Path, shapes: Header) -> None:
    changed = shapes("sd1") | {f"{ldm_files.UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}
    write_weights(home / "models/inpaint.safetensors", changed)
    model = get_model(library, "inpaint")
    assert model.is_inpainting
    assert read_config(model, "unet")["in_channels"] == 9


def test_a_moving_average_is_left_aside_and_said(
    library: Library, home: Path, shapes: Header
) -> None:
    plain = shapes("sd1")
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): shape
        for name, shape in plain.items()
        if name.startswith(ldm_files.UNET)
    }
    write_weights(home / "models/ema.safetensors", plain | averages)
    model = get_model(library, "ema")
    assert any("moving average" in note for note in model.notes)
    write_weights(home / "models/plain.safetensors", plain)
    assert model.component_bytes == get_model(library, "plain").component_bytes


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "unet.", ""])
def test_names_of_diffusers_and_other_prefixes(library: Library, home: Path, prefix: str) -> None:
    with torch.device("meta"):
        names = UNet2DConditionModel(**REAL["sd1"]).state_dict()
    own = {f"{prefix}{name}": list(tensor.shape) for name, tensor in names.items()}
    write_weights(home / "models/own.safetensors", own)
    model = get_model(library, "own")
    assert model.parts["unet"].naming == "diffusers"
    assert model.parts["unet"].prefix == prefix
    assert set(model.missing) == {"vae", "text_encoder"}


@pytest.mark.parametrize(
    ("dtype", "title"),
    [("F32", "float32"), ("BF16", "bfloat16"), ("F8_E4M3", "float8"), ("F8_E5M2", "float8")],
)
def test_number_formats(
    library: Library, home: Path, shapes: Header, dtype: str, title: str
) -> None:
    write_weights(home / "models/painter.safetensors", shapes("sd1"), dtype)
    assert get_model(library, "painter").dtype == title


@pytest.mark.parametrize(
    ("add", "metadata", "expected"),
    [
        ({"v_pred": [0]}, {}, ("v_prediction", False)),
        ({"v_pred": [0], "ztsnr": [0]}, {}, ("v_prediction", True)),
        ({}, {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ({}, {"ss_v_parameterization": "True"}, ("v_prediction", False)),
        ({}, {"ss_v_parameterization": "False"}, ("epsilon", False)),
        ({}, {"ss_zero_terminal_snr": "True"}, ("epsilon", True)),
    ],
)
def test_what_it_predicts(
    library: Library,
    home: Path,
    shapes: Header,
    add: Shapes,
    metadata: dict[str, str],
    expected: tuple[str, bool],
) -> None:
    write_weights(home / "models/painter.safetensors", shapes("sdxl") | add, metadata=metadata)
    model = get_model(library, "painter")
    assert (model.prediction_type, model.is_zero_snr) == expected
    config = read_config(model, "scheduler")
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == expected


def test_sd2_that_predicts_v_is_larger(library: Library, home: Path) -> None:
    path = write_weights(home / "models/painter.safetensors", toy_shapes("sd2"))
    path.with_suffix(".yaml").write_text('model: {params: {parameterization: "v"}}\n')
    model = get_model(library, "painter")
    assert (model.prediction_type, model.native_size) == ("v_prediction", 768)
    hashed = library.get_content_hash(model)
    path.with_suffix(".yaml").unlink()
    fresh = Library(load(home=home, device="cpu"))
    model = get_model(fresh, "painter")
    assert (model.prediction_type, model.native_size) == ("epsilon", 512)
    assert fresh.get_content_hash(model) != hashed


# ---- what cannot be used, and why -----------------------------------------------------------------------------------


def remove(name: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {key: shape for key, shape in shapes.items() if name not in key}


SCALED = f"{ldm_files.UNET}out.2"
REFUSED: dict[str, tuple[str, Callable[[Shapes], Shapes], str]] = {
    "a block is missing": ("sd1", remove("input_blocks.5."), "U-Net"),
    "no last layer": ("sd1", remove("out.2.weight"), "lacks out.2.weight"),
    "refiner": (
        "sdxl",
        lambda shapes: (
            {
                name: [*shape[:1], 1280] if "attn2.to_k" in name else shape
                for name, shape in shapes.items()
            }
            | {f"{ldm_files.UNET}label_emb.0.0.weight": [1536, 2560]}
        ),
        "SDXL refiner",
    ),
    "edits by instructions": (
        "sd1",
        lambda shapes: shapes | {f"{ldm_files.UNET}input_blocks.0.0.weight": [320, 8, 3, 3]},
        "InstructPix2Pix",
    ),
    "Playground": ("sdxl", lambda shapes: shapes | {"edm_mean": [4]}, "Playground"),
    "CosXL": ("sdxl", lambda shapes: shapes | {"edm_vpred.sigma_max": [1]}, "CosXL"),
    "wants guidance": (
        "sd1",
        lambda shapes: shapes | {f"{ldm_files.UNET}time_embed_cond.weight": [8, 8]},
        "guidance as an input",
    ),
    "an autoencoder of another kind": (
        "sdxl",
        lambda shapes: shapes | {f"{ldm_files.VAE}decoder.conv_in.weight": [512, 16, 3, 3]},
        "16 channels",
    ),
    "nvfp4": (
        "sdxl",
        lambda shapes: shapes | {f"{SCALED}.weight_scale_2": [1]},
        "quantised",
    ),
    "a scale for parts of rows": (
        "sdxl",
        lambda shapes: shapes | {f"{SCALED}.weight_scale": [7]},
        "quantised",
    ),
    "a mark that is no text": (
        "sdxl",
        lambda shapes: shapes | {f"{SCALED}.comfy_quant": [4]},
        "quantised",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_by_name(library: Library, home: Path, shapes: Header, case: str) -> None:
    kind, change, words = REFUSED[case]
    write_weights(home / "models/painter.safetensors", change(shapes(kind)))
    assert words in explain(library, "painter.safetensors")
    with refused(UnknownFamily):
        library.get_model("painter")


def test_a_format_of_few_bits_is_named(library: Library, home: Path, shapes: Header) -> None:
    layers = {"layers": {"x": {"format": "int8_tensorwise"}}}
    write_weights(
        home / "models/painter.safetensors",
        shapes("sd1"),
        metadata={"_quantization_metadata": json.dumps(layers)},
    )
    assert "int8_tensorwise" in explain(library, "painter.safetensors")


@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_header_breaks_the_list(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Names that are not there and shapes that cannot be: a model, or a sentence why it is none."""
    shapes = toy_shapes(data.draw(st.sampled_from(sorted(REAL))))
    names = st.sampled_from(sorted(shapes))
    for name in data.draw(st.lists(names, max_size=6)):
        shapes.pop(name, None)
    for name in data.draw(st.lists(names, max_size=6)):
        if name in shapes:
            shapes[name] = data.draw(st.lists(st.integers(0, 70), max_size=4))
    home = tmp_path_factory.mktemp("odd")
    write_weights(home / "models/painter.safetensors", shapes)
    library = Library(load(home=home, device="cpu"))
    (item,) = [item for item in library.scan_models() if item.name.startswith("painter")]
    if isinstance(item, Unusable):
        assert item.problem.endswith(".")
    else:
        library.get_content_hash(item, compute=False)


def test_pickles_stay_closed(library: Library, home: Path) -> None:
    (home / "models").mkdir(parents=True, exist_ok=True)
    (home / "models/painter.ckpt").write_bytes(b"\x80\x02" + bytes(100))
    assert "can contain programs" in explain(library, "painter.ckpt")


# ---- parts from elsewhere -------------------------------------------------------------------------------------------


def vae_shapes(channels: int = 4, levels: tuple[int, ...] = REAL_VAE[0]) -> Shapes:
    with torch.device("meta"):
        network = AutoencoderKL(**ldm_files.vae_config(levels, 2, 1.0), latent_channels=channels)
        tensors = ldm_files.rename_vae(network.state_dict(), len(levels), prefix="")
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def text_shapes(number: int) -> Shapes:
    """One of SDXL's text encoders in a file of its own."""
    prefix, part = "conditioner.embedders.0.transformer.", toy_shapes("sdxl")
    if not number:
        return {n.removeprefix(prefix): s for n, s in part.items() if n.startswith(prefix)}
    prefix = "conditioner.embedders.1.model."
    return {n.removeprefix(prefix): s for n, s in part.items() if n.startswith(prefix)}


def test_a_pruned_file_takes_the_only_vae_that_fits(library: Library, home: Path) -> None:
    write_weights(home / "models/painter.safetensors", remove(ldm_files.VAE)(toy_shapes("sd1")))
    request = GenerationRequest(model="painter")
    with refused(BadFile):
        library.check_request(request)
    write_weights(home / "vae/sdxl_vae.safetensors", vae_shapes(levels=TOY))
    write_weights(home / "vae/flux.safetensors", vae_shapes(16))
    assert set(get_model(library, "painter").missing) == {"vae"}  # neither is of SD 1.x
    write_weights(home / "vae/mse.safetensors", vae_shapes(levels=TOY))
    model = library.check_request(request)
    assert model.parts["vae"].path.name == "mse.safetensors"
    assert "mse" in model.notes[0]
    write_weights(home / "vae/anime.safetensors", vae_shapes(levels=TOY))
    with refused(BadFile) as caught:
        library.check_request(request)
    assert "anime, mse" in str(caught.value)
    catalog = ModelCatalog(Home(load(home=home, device="cpu")))
    (entry,) = [e for e in catalog.list_entries(OWNER) if e.name == "painter"]
    assert not entry.problem
    check_sentence(entry.warnings[0])
    named = library.check_request(GenerationRequest(model="painter", vae="mse"))
    assert named.parts["vae"].path.name == "mse.safetensors"
    write_weights(home / "vae/small.safetensors", vae_shapes(levels=(32, 32)))
    for vae in ("flux", "small"):
        with refused(BadFile):
            library.check_request(GenerationRequest(model="painter", vae=vae))
    library.save_options("painter", ModelOptions(vae="anime"))
    assert library.check_request(request).parts["vae"].path.name == "anime.safetensors"
    chosen = library.check_request(GenerationRequest(model="painter", vae="mse"))
    assert chosen.parts["vae"].path.name == "mse.safetensors"


def test_a_file_that_lacks_more_than_a_vae_is_of_no_use(library: Library, home: Path) -> None:
    unet = {n: s for n, s in toy_shapes("sd1").items() if n.startswith(ldm_files.UNET)}
    write_weights(home / "models/painter.safetensors", unet)
    write_weights(home / "vae/mse.safetensors", vae_shapes(levels=TOY))
    write_weights(home / "vae/anime.safetensors", vae_shapes(levels=TOY))
    catalog = ModelCatalog(Home(load(home=home, device="cpu")))
    (entry,) = [e for e in catalog.list_entries(OWNER) if e.name == "painter"]
    check_sentence(entry.problem)
    with refused(BadFile):
        library.check_request(GenerationRequest(model="painter", vae="mse"))


def test_an_autoencoder_beside_a_file(library: Library, home: Path) -> None:
    path = write_weights(home / "models/painter.safetensors", toy_shapes("sdxl"))
    own = library.get_content_hash(get_model(library, "painter"))
    assert own == hashlib.sha256(path.read_bytes()).hexdigest()
    write_weights(home / "models/painter.vae.safetensors", vae_shapes(levels=TOY))
    model = get_model(library, "painter")
    assert model.parts["vae"].path.name == "painter.vae.safetensors"
    assert read_config(model, "vae")["scaling_factor"] == 0.13025
    assert library.get_content_hash(model) != own
    assert [item.name for item in library.scan_models() if not item.path.is_dir()] == ["painter"]


def test_a_denoiser_with_parts_of_the_shelf(library: Library, home: Path) -> None:
    unet = {n: s for n, s in toy_shapes("sdxl").items() if n.startswith(ldm_files.UNET)}
    write_weights(home / "models/painter.safetensors", unet)
    write_weights(home / "vae/sdxl.safetensors", vae_shapes(levels=TOY))
    write_weights(home / "text_encoders/clip_l.safetensors", text_shapes(0))
    assert set(get_model(library, "painter").missing) == {"text_encoder_2"}
    write_weights(home / "text_encoders/clip_g.safetensors", text_shapes(1))
    model = get_model(library, "painter")
    assert not model.missing
    assert read_config(model, "text_encoder_2")["projection_dim"] == 1280
    first = library.get_content_hash(model)
    write_weights(home / "text_encoders/other_l.safetensors", text_shapes(0), "BF16")
    library.save_options("painter", ModelOptions(text_encoders={"text_encoder": "other_l"}))
    model = get_model(library, "painter")
    assert model.parts["text_encoder"].path.name == "other_l.safetensors"
    assert library.get_content_hash(model) != first
    with refused(BadFile):
        library.save_options("painter", ModelOptions(text_encoders={"text_encoder": "clip_g"}))


def test_a_vae_that_does_not_fit_is_refused_by_name(
    library: Library, home: Path, shapes: Header
) -> None:
    write_weights(home / "models/painter.safetensors", shapes("sd1"))
    write_weights(home / "vae/flux.safetensors", vae_shapes(16))
    write_weights(home / "vae/small.safetensors", vae_shapes(levels=(128, 256)))
    for name in ("flux", "small"):
        with refused(BadFile):
            library.check_request(GenerationRequest(model="painter", vae=name))
    with refused(ModelNotFound):
        library.check_request(GenerationRequest(model="painter", vae="none"))


# ---- what the owner decides -----------------------------------------------------------------------------------------


def test_a_prediction_that_was_decided_goes_by_the_content(library: Library, home: Path) -> None:
    path = write_weights(home / "models/xl-vpred.safetensors", toy_shapes("sdxl"))
    model = get_model(library, "xl-vpred")
    assert model.prediction_type == "epsilon"
    assert any("v_prediction" in note for note in model.notes)  # asked, not guessed
    before = library.get_content_hash(model)
    library.save_options("xl-vpred", ModelOptions("v_prediction", is_zero_snr=True))
    path.rename(path.with_name("moved.safetensors"))
    moved = Library(load(home=home, device="cpu"))
    model = moved.get_model("moved")
    assert (model.prediction_type, model.is_zero_snr) == ("v_prediction", True)
    assert moved.get_content_hash(model) != before
    assert not model.notes
    moved.save_options("moved", ModelOptions("epsilon"))
    assert moved.get_content_hash(moved.get_model("moved")) == before
    moved.save_options("moved", ModelOptions())
    assert json.loads((home / "model_settings.json").read_text()) == {}
    assert sorted(file.name for file in (home / "models").iterdir()) == ["moved.safetensors"]


def test_a_folder_is_decided_about_too(library: Library, toys: Path, home: Path) -> None:
    (home / "models").mkdir(parents=True, exist_ok=True)
    (home / "models/toy-sd2").symlink_to(toys / "toy-sd2")
    before = library.get_content_hash(library.get_model("toy-sd2"))
    library.save_options("toy-sd2", ModelOptions("epsilon"))
    model = library.get_model("toy-sd2")
    assert read_config(model, "scheduler")["prediction_type"] == "epsilon"
    assert library.get_content_hash(model) != before
    library.save_options("toy-sd2", ModelOptions())
    assert library.get_content_hash(library.get_model("toy-sd2")) == before


def test_odd_decisions_are_left_out(library: Library, home: Path) -> None:
    write_weights(home / "models/painter.safetensors", toy_shapes("sd1"))
    with refused(BadFile):
        library.save_options("painter", ModelOptions("velocity"))
    library.save_options("painter", ModelOptions("v_prediction"))
    file = home / "model_settings.json"
    (entry,) = json.loads(file.read_text()).values()
    sha256 = library.get_own_hash(library.get_model("painter"))
    odd = entry | {"prediction_type": ["v"], "is_zero_snr": 5, "vae": 7, "text_encoders": [1]}
    file.write_text(json.dumps({sha256: odd, "x": 3}))
    assert library.get_options(library.get_model("painter")) == ModelOptions()
    file.write_text("{")
    assert library.get_model("painter").prediction_type == "epsilon"
    with refused(BadFile):
        library.save_options("painter", ModelOptions("v_prediction"))
    assert file.read_text() == "{"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dreamshaperXL_lightningDPMSDE", {"steps": 6, "guidance": 1.5}),
        ("sub/juggernaut-Lightning_4steps", {"steps": 4, "guidance": 1.5}),
        ("sdxl_turbo", {"steps": 6, "guidance": 1.5}),
        ("realvisxl-hyper-8step", {"steps": 8, "guidance": 1.5}),
        (
            "my_lcm",
            {"steps": 6, "guidance": 1.0, "scheduler": "LCM", "noise_schedule": "Automatic"},
        ),
        ("hyperion", {}),
        ("turbocharged", {}),
        ("v1-5-pruned-emaonly", {}),
    ],
)
def test_names_of_distilled_merges(name: str, expected: dict[str, Any]) -> None:
    assert suggest_settings(name, "sdxl") == expected
    GenerationRequest(**suggest_settings(name, "sdxl"))
    assert suggest_settings(name, "z-image") == {}


# ---- remembered for the next process ----


def test_the_next_process_reads_no_checkpoint(
    library: Library, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_file_cache, "WORTH_KEEPING_SECONDS", 0)
    write_weights(home / "models/a.safetensors", toy_shapes("sdxl"))
    cut = {name: shape for name, shape in toy_shapes("sdxl").items() if ".out.2." not in name}
    write_weights(home / "models/b.safetensors", cut)
    first = library.scan_models()

    def refuse(*_: Any) -> Any:
        raise AssertionError("it was read again")

    monkeypatch.setattr(single_files, "read_single_file", refuse)
    assert Library(load(home=home, device="cpu")).scan_models() == first
    kinds = {model.path.stem: type(model) for model in first}
    assert (kinds["a"], kinds["b"]) == (ModelInfo, Unusable)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"files": {"a": 1}}'])
def test_a_broken_cache_is_read_anew(home: Path, content: bytes) -> None:
    write_weights(home / "models/a.safetensors", toy_shapes("sdxl"))
    (home / "cache").mkdir(exist_ok=True)
    (home / "cache/checkpoints.json").write_bytes(content)
    get_model(Library(load(home=home, device="cpu")), "a")


def test_an_autoencoder_that_comes_beside_a_file_is_seen(library: Library, home: Path) -> None:
    path = write_weights(home / "models/a.safetensors", toy_shapes("sdxl"))
    assert get_model(library, "a").parts["vae"].path == path
    vae = {
        name.removeprefix(ldm_files.VAE): shape
        for name, shape in toy_shapes("sdxl").items()
        if name.startswith(ldm_files.VAE)
    }
    beside = write_weights(home / "models/a.vae.safetensors", vae)
    assert get_model(library, "a").parts["vae"].path == beside
