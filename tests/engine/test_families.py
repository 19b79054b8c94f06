"""Every field of every family says what is so: of a model folder, of its networks, of what is made with it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from studio.core.catalog import SCHEDULERS
from studio.core.families.family import DENOISER, TEXT_ENCODERS, VAE, Family, LoraNaming
from studio.core.families.registry import FAMILIES, detect_family, find_families
from studio.core.families.unet_config import get_vae_scale_factor
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.request import GenerationRequest
from studio.core.training.lora_targets import list_modules, parse_model_shape
from studio.engine.context import WorkerContext
from studio.engine.generation.guidance import ClassifierFreeGuidance, build_guidance
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.noise_process import DiffusionProcess, FlowProcess
from studio.engine.models.prompt_encoding import encode_prompts
from studio.errors import OutOfMemory
from studio.settings import load
from studio.storage.models.header_rules import FAMILY_BY_VERSION
from support.models import make_toy, make_toy_z_image
from support.painting import together
from support.sentences import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    """A home with a toy model of each family, called like it."""
    settings = load(home=tmp_path_factory.mktemp("home"), device="cpu", keep_free=0)
    make_toy(settings.models / "sd1", "StableDiffusionPipeline", 32, "epsilon")
    make_toy(settings.models / "sd2", "StableDiffusionPipeline")
    make_toy(settings.models / "sdxl", "StableDiffusionXLPipeline")
    make_toy_z_image(settings.models / "z-image")
    context = WorkerContext.open(settings)
    yield context
    context.home.gallery.close()


def read_config(home: WorkerContext, family: Family, folder: str) -> dict[str, Any]:
    path = home.settings.models / family.name / folder / "config.json"
    return dict(json.loads(path.read_text()))


def check_name(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert FAMILIES[family.name] is family
    assert home.home.library.get_model(family.name).family == family.name
    module = importlib.import_module(
        f"studio.engine.models.families.{family.name.replace('-', '_')}"
    )
    assert type(model) is module.Model


def check_title(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert sum(other.title == family.title for other in FAMILIES.values()) == 1


def check_pipeline_classes(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    config = read_config(home, family, family.denoiser)
    for name in family.pipeline_classes:
        assert hasattr(diffusers, name)
        assert family in find_families(name)
        assert detect_family(name, config) is family


def check_cross_attention_dim(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    if family.cross_attention_dim is not None:
        assert model.denoiser.config.cross_attention_dim == family.cross_attention_dim
        other = detect_family(family.pipeline_classes[0], {"cross_attention_dim": 7})
        assert other is not family


def check_denoiser(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    index = json.loads((model.info.path / "model_index.json").read_text())
    assert index[family.denoiser][1] == type(model.denoiser).__name__
    assert family.part_folders[DENOISER] == (family.denoiser,)


def check_text_encoders(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    index = json.loads((model.info.path / "model_index.json").read_text())
    names = [type(encoder).__name__ for encoder in model.text_encoders]
    assert [index[part.encoder][1] for part in family.text_encoders] == names
    assert len(model.tokenizers) == len(names)
    assert set(model.info.component_bytes) == set(family.components)


def check_read_config(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    facts = family.read_config(
        read_config(home, family, family.denoiser), read_config(home, family, "vae")
    )
    assert facts.native_size == model.info.native_size
    assert not facts.is_inpainting
    assert facts.activation_elements_per_pixel > 0


def check_recommend_settings(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    settings = family.recommend_settings(model.scheduler_config)
    request = GenerationRequest(model=family.name, **settings)
    assert find_family_faults(request, family) == []
    assert model.info.recommended_settings == settings


def check_native_size(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    side = family.native_size
    assert family.list_common_sizes(side)[0] == (side, side)


def check_common_sizes(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert family.list_common_sizes(family.common_sizes[0][0]) == list(family.common_sizes)
    for size in family.list_common_sizes(320):
        assert all(side % family.size_multiple == 0 for side in size)


def check_size_multiple(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    multiple = family.size_multiple
    factor = get_vae_scale_factor(read_config(home, family, "vae"))
    assert multiple % factor == 0
    for side in range(64, 64 + 2 * multiple, 8):
        _, _, rows, columns = model.latent_shape(side, side)
        assert rows == columns == -(-side // multiple) * multiple // factor


def check_noise_process(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    process = model.build_noise_process(build_request(family).resolve(64, 1))
    expected = {"diffusion": DiffusionProcess, "flow": FlowProcess}[family.noise_process]
    assert type(process) is expected
    assert (model.info.prediction_type == "flow") is (family.noise_process == "flow")


def check_guidance(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    request = build_request(family, guidance=5).resolve(64, 1)
    guidance = build_guidance(model, request)
    assert isinstance(guidance, ClassifierFreeGuidance)
    negative, positive = torch.tensor([1.0]), torch.tensor([3.0])
    assert float(guidance.combine(negative, (positive,), (1.0,), step=0)) == 11.0


def check_noise_schedules(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert set(family.list_schedulers()) <= set(SCHEDULERS)
    if not family.noise_schedules:  # all of the catalog: test_schedulers.py builds each
        assert all(
            family.list_noise_schedules(name) == info.noise_schedules
            for name, info in SCHEDULERS.items()
        )
        return
    for name in family.list_schedulers():
        for schedule in family.list_noise_schedules(name):
            values = {"scheduler": name, "noise_schedule": schedule}
            request = build_request(family, **values).resolve(64, 1)
            assert len(model.build_noise_process(request).timesteps)


def check_optimized_levels(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    levels = family.optimized_levels
    assert len(levels) == 11  # of ten steps, and the last one's end
    assert sorted(levels, reverse=True) == list(levels)
    if "Align Your Steps" not in family.list_noise_schedules("Euler"):
        return
    request = build_request(family, noise_schedule="Align Your Steps", scheduler="Euler", steps=11)
    sigmas = model.build_noise_process(request.resolve(64, 1)).scheduler.sigmas.tolist()
    assert sigmas == pytest.approx([*levels, 0.0])


def check_weighs_words(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    plain, weighted = (
        encode_prompts(model, build_request(family, prompt=text)).positives[0].get(0)
        for text in ("a red boat", "a (red:1.5) boat")
    )
    same = all(torch.equal(plain[name], weighted[name]) for name in plain)
    assert same is not family.weighs_words


def check_penultimate_layer(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    if not family.weighs_words:  # no CLIP: its own test compares which layer it reads
        assert not family.penultimate_layer
        return
    text = "a red boat"
    row = encode_prompts(model, build_request(family, prompt=text)).positives[0].get(0)
    tokenizer, encoder = model.tokenizers[0], model.text_encoders[0]
    tokens = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        output = encoder(tokens, output_hidden_states=True)
    layer = output.hidden_states[-2] if family.penultimate_layer else output.last_hidden_state
    width = layer.shape[-1]
    assert torch.equal(row["prompt_embeds"][..., :width], layer)


def check_usual_clip_skip(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    """Counted from the released encoder's last layer; of OpenCLIP ViT-H's 24 diffusers has 23."""
    if family.shape is None:
        assert family.usual_clip_skip == 1
        return
    own_layers = family.shape.text_encoders[0].num_hidden_layers
    released_layers = {"sd2": 24}.get(family.name, own_layers)
    read_layer = own_layers - family.penultimate_layer
    assert family.usual_clip_skip == released_layers - read_layer + 1


def check_pooled_prompt(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    row = encode_prompts(model, build_request(family)).positives[0].get(0)
    assert ("pooled_prompt_embeds" in row) is family.pooled_prompt


def check_max_clip_skip(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    faults = find_family_faults(build_request(family, clip_skip=2), family)
    assert bool(faults) is (family.max_clip_skip == 1)


def check_shape(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert family.is_trainable is (family.shape is not None)
    if family.shape:
        encoders = [read_config(home, family, part.encoder) for part in family.text_encoders]
        toy = parse_model_shape(read_config(home, family, family.denoiser), encoders)
        assert len(toy.text_encoders) == len(family.shape.text_encoders)
        assert {module.part for module in list_modules(toy)} == {
            module.part for module in list_modules(family.shape)
        }


def check_lora_naming(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    naming = family.lora_naming
    assert (naming is None) is (family.shape is None)
    if naming and family.shape:
        assert len(fields(LoraNaming)) == 7
        for module in list_modules(family.shape):
            assert module.name.startswith(naming.prefixes[module.part])
        has_sgm_names = any("input_blocks" in each.name for each in list_modules(family.shape))
        assert has_sgm_names is naming.uses_sgm_names
        assert FAMILY_BY_VERSION[naming.version_mark] == family.name
        marks = [mark for mark in FAMILY_BY_VERSION if mark in naming.base_model_version]
        assert marks[0] == naming.version_mark


def check_training_clip_skip(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    assert family.training_clip_skip or not family.is_trainable or family.penultimate_layer


def check_name_pattern(home: WorkerContext, family: Family, model: LoadedModel) -> None:
    if family.lora_naming:
        assert re.search(family.name_pattern, family.lora_naming.base_model_version)


CHECKS: dict[str, Callable[[WorkerContext, Family, LoadedModel], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_") and name != "check_sentence"
}


def build_request(family: Family, **values: Any) -> GenerationRequest:
    base = {"scheduler": "Euler", "noise_schedule": "Model default", "steps": 3, "prompt": "a boat"}
    return GenerationRequest(**{"model": family.name, **base, **values})


def test_every_field_has_a_check() -> None:
    assert set(CHECKS) == {field.name for field in fields(Family)}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_field_of_a_family(home: WorkerContext, name: str) -> None:
    with home.pipelines.borrow(build_request(FAMILIES[name])) as model:
        for check in CHECKS.values():
            check(home, FAMILIES[name], model)


# ---- parts ------------------------------------------------------------------------------------


def list_parts(home: WorkerContext) -> set[str]:
    residents = home.pipelines._cache.list_residents()
    return {resident["key"].partition(" of ")[0] for resident in residents}


def unload_all(home: WorkerContext) -> None:
    for name in FAMILIES:
        home.pipelines.unload(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("sdxl", "z-image") else pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_text_encoders_leave_when_room_is_short(
    home: WorkerContext, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of which not all fits at once paints the same image: its prompts are read first, its autoencoder comes last."""
    family = FAMILIES[name]
    request = build_request(family).resolve(64, 3)

    def paint() -> torch.Tensor:
        with home.pipelines.borrow(request) as model:
            (latents,) = together(model, request)
            assert VAE not in model.parts
            assert torch.isfinite(model.decode(latents)).all()
            return latents

    unload_all(home)
    plain = paint()
    assert list_parts(home) == {DENOISER, VAE, TEXT_ENCODERS}
    (loaded,) = home.pipelines.loaded
    with monkeypatch.context() as patch:
        unload_all(home)
        patch.setattr(home.pipelines._cache, "_get_limit", lambda: loaded["bytes"] - 1)
        assert torch.equal(paint(), plain)
        assert list_parts(home) == {DENOISER, VAE}
        unload_all(home)
        patch.setattr(home.pipelines._cache, "_get_limit", lambda: loaded["bytes"] // 10)
        with refused(OutOfMemory):
            paint()


def test_a_prompt_that_is_known_loads_no_text_encoder(home: WorkerContext) -> None:
    unload_all(home)
    request = build_request(FAMILIES["sd1"]).resolve(64, 3)
    with home.pipelines.borrow(request) as model:
        together(model, request)
    key = next(
        resident["key"]
        for resident in home.pipelines._cache.list_residents()
        if resident["key"].startswith(TEXT_ENCODERS) and resident["name"] == "sd1"
    )
    assert home.pipelines._cache.evict(key)
    with home.pipelines.borrow(request) as model:
        together(model, request)
    assert TEXT_ENCODERS not in list_parts(home)


def test_prompts_go_with_the_denoiser(home: WorkerContext) -> None:
    """They lie on the device: what has left it keeps nothing there."""
    unload_all(home)
    request = build_request(FAMILIES["sd1"]).resolve(64, 3)
    with home.pipelines.borrow(request) as model:
        together(model, request)
        assert model.prompt_cache
    with home.pipelines.borrow(request) as again:
        assert again is model
    assert home.pipelines.evict_idle()
    with home.pipelines.borrow(request) as again:
        assert not again.prompt_cache


def test_a_copy_of_a_family_is_the_family() -> None:
    import copy
    import pickle

    for family in FAMILIES.values():
        assert copy.deepcopy(family) is family
        assert pickle.loads(pickle.dumps(family)) is family


def test_a_folder_of_an_unknown_family_is_named(home: WorkerContext, tmp_path: Path) -> None:
    from studio.errors import UnknownFamily
    from studio.storage.models.library import read_model_info

    folder = tmp_path / "sd3"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    with pytest.raises(UnknownFamily) as caught:
        read_model_info(folder)
    sentence = str(caught.value)
    assert "StableDiffusion3Pipeline" in sentence
    for family in FAMILIES.values():
        assert family.title in sentence
