"""LoRAs in pictures: latents bit for bit those of a stock pipeline with peft's own layers, and of stock load_lora_weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.core.generation.request import GenerationRequest, LoraUse
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.models.adapters.adapted_layer import AdaptedLayer
from studio.engine.models.prompt_encoding import encode_prompts
from support import lora_makers as makers
from support.benches import open_toy_bench
from support.lora_pictures import PROMPT
from support.lora_pictures import paint_ours as ours
from support.lora_pictures import paint_stock as theirs
from support.models import POCKET

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
MODELS = ["pocket", "toy-sdxl"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, toys: Path) -> Iterator[Any]:
    """One of our own: LoRAs stay on a lent model."""
    bench = open_toy_bench(tmp_path_factory.mktemp("loras"), toys)
    yield bench
    bench.home.gallery.close()


def folder(model: str, toys: Path) -> Path:
    return POCKET if model == "pocket" else toys / model


def shelf(bench: WorkerContext, name: str) -> Path:
    return bench.settings.loras / f"{name}.safetensors"


QUICK = [("pocket", "LoRA")]
KINDS = {
    "LoRA": {},
    "LoCon": {"convs": True},
    "U-Net only": {"only": "unet"},
    "text only": {"only": "text"},
}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (model, kind)
        if (model, kind) in QUICK
        else pytest.param(model, kind, marks=pytest.mark.slow)
        for model in MODELS
        for kind in KINDS
    ],
)
def test_every_format_is_bitwise_what_peft_computes(
    bench: WorkerContext, toys: Path, tmp_path: Path, model: str, kind: str
) -> None:
    """At weights 0, ½ and 1; alpha 2 of rank 4 where the format can say it, else alpha is the rank."""
    base = ours(bench, model)
    pipe = makers.stock(folder(model, toys))
    assert torch.equal(theirs(pipe), base)
    made = makers.add(pipe, **KINDS[kind])
    expected = {}
    for weight in (0, 0.5, 1, 2):
        makers.weigh(pipe, weight)
        expected[weight] = theirs(pipe)
    assert torch.equal(expected[0], base)
    names = {
        "kohya": makers.kohya(shelf(bench, f"{model} {kind} kohya"), made, 2),
        "no alpha": makers.kohya(shelf(bench, f"{model} {kind} plain"), made, None),
        "diffusers": makers.saved_by_diffusers(
            shelf(bench, f"{model} {kind} diffusers"), pipe, made
        ),
        "converted": makers.saved_by_diffusers(
            shelf(bench, f"{model} {kind} converted"), pipe, made, converted=True
        ),
    }
    if "unet" in made:
        peft = makers.saved_by_peft(
            bench.settings.loras / f"{model} {kind}", pipe, {"unet": made["unet"]}
        )
        if kind == "U-Net only":
            names["peft"] = peft
        if model == "toy-sdxl":
            names["sgm"] = makers.kohya(shelf(bench, f"{model} {kind} sgm"), made, 2, sgm=True)
    for form, path in names.items():
        name = path.relative_to(bench.settings.loras).with_suffix("").as_posix()
        for weight in (0.5, 1, 0):
            use = LoraUse(name=name, unet=weight, text_encoder=weight)
            reference, found = (
                expected[2 * weight if form == "no alpha" else weight],
                ours(bench, model, loras=[use]),
            )
            assert torch.equal(found, reference), f"{form} at {weight}"
            assert torch.equal(found, base) == (weight == 0)  # which is as if it were not named
    assert torch.equal(ours(bench, model), base)


@pytest.mark.parametrize(
    ("model", "kind", "form"),
    [
        ("pocket", "LoRA", "old"),
        ("pocket", "LoCon", "diffusers"),
        ("toy-sdxl", "LoRA", "sgm"),
        pytest.param("pocket", "LoRA", "kohya", marks=pytest.mark.slow),
        pytest.param("pocket", "LoRA", "diffusers", marks=pytest.mark.slow),
        pytest.param("toy-sdxl", "LoRA", "diffusers", marks=pytest.mark.slow),
        pytest.param("toy-sdxl", "LoCon", "sgm", marks=pytest.mark.slow),
    ],
)
def test_bitwise_what_diffusers_loads(
    bench: WorkerContext, toys: Path, model: str, kind: str, form: str
) -> None:
    """The same file in `load_lora_weights`, weights apart in `set_adapters`. (It cannot read LoCon of SD 1.x in kohya's names.)"""
    donor, pipe = (makers.stock(folder(model, toys)) for _ in range(2))
    made = makers.add(donor, seed=3, **(KINDS[kind] if form != "old" else {"only": "unet"}))
    if form == "old":
        made = {"unet": {key: tensor for key, tensor in made["unet"].items() if ".attn" in key}}
    path = shelf(bench, f"stock {model} {kind} {form}")
    saved = {
        "diffusers": lambda: makers.saved_by_diffusers(path, donor, made),
        "old": lambda: makers.old_diffusers(path, made),
    }
    saved.get(form, lambda: makers.kohya(path, made, 2, sgm=form == "sgm"))()
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
    readers = [name for name in made if name != "unet"]
    for unet, reader in ((1.0, 1.0), (0.5, 0.5), (0.5, 1.0)):
        pipe.set_adapters(["it"], [{"unet": unet, **dict.fromkeys(readers, reader)}])
        use = LoraUse(name=path.stem, unet=unet, text_encoder=reader)
        assert torch.equal(ours(bench, model, loras=[use]), theirs(pipe)), (unet, reader)


@pytest.fixture(scope="module")
def two(bench: WorkerContext) -> dict[str, dict[str, Any]]:
    """LoRAs `one` and `two` for pocket, as kohya saves them."""
    made = {}
    for seed, name in enumerate(("one", "two")):
        made[name] = makers.add(makers.stock(POCKET), rank=4 + 4 * seed, seed=7 + seed)
        makers.kohya(shelf(bench, f"styles/{name}"), made[name], 2)
    return made


@pytest.mark.slow
def test_two_at_once_and_weights_apart(bench: WorkerContext, two: dict[str, Any]) -> None:
    pipe = makers.stock(POCKET)
    for name in two:
        pipe.load_lora_weights(
            bench.settings.loras / "styles", weight_name=f"{name}.safetensors", adapter_name=name
        )
    weights = {"one": (0.5, 1.0), "two": (0.75, -0.25)}
    pipe.set_adapters(
        list(weights), [{"unet": unet, "text_encoder": reader} for unet, reader in weights.values()]
    )
    uses = [
        LoraUse(name=name, unet=unet, text_encoder=reader)
        for name, (unet, reader) in weights.items()
    ]
    both = ours(bench, loras=uses)
    assert torch.equal(both, theirs(pipe))
    assert torch.equal(
        ours(bench, prompt=f"{PROMPT} <lora:one:1:0.5><lora:two:te=-0.25:unet=0.75>"), both
    )
    assert torch.equal(
        ours(bench, prompt=f"<lora:two:-0.25:0.75>{PROMPT}", loras=["styles/one:1:0.5"]), both
    )
    apart = [
        ours(bench, loras=[LoraUse(name="one", unet=unet, text_encoder=reader)])
        for unet, reader in ((1, 0), (0, 1), (1, 1))
    ]
    pictures = [ours(bench), *apart]
    assert all(not torch.equal(a, b) for k, a in enumerate(pictures) for b in pictures[:k])


def test_one_file_under_two_names_adds_up(bench: WorkerContext, two: dict[str, Any]) -> None:
    shelf(bench, "copy").write_bytes(shelf(bench, "styles/one").read_bytes())
    twice = ours(bench, loras=["one:0.25", "copy:0.5"])
    assert torch.equal(twice, ours(bench, loras=["one:0.75"]))


def test_the_base_comes_back_after_anything(bench: WorkerContext, two: dict[str, Any]) -> None:
    """Also after an error inside, within another borrow, and when the LoRA is thrown out again."""
    base = ours(bench)
    dressed = GenerationRequest(loras=["one", "two:0.5"])
    with pytest.raises(RuntimeError, match="inside"), bench.pipelines.borrow(dressed):
        raise RuntimeError("inside")
    assert torch.equal(ours(bench), base)
    alone = ours(bench, loras=["two:0.5"])
    with bench.pipelines.borrow(dressed) as parts:
        assert torch.equal(ours(bench), base)
        assert torch.equal(ours(bench, loras=["two:0.5"]), alone)
        assert [one.name for one in parts.active_adapters] == ["one", "two"]
    assert parts.active_adapters == ()
    assert torch.equal(ours(bench), base)
    assert bench.pipelines.unload("LoRA one"), bench.pipelines.loaded
    assert torch.equal(ours(bench, loras=["two:0.5"]), alone)
    assert torch.equal(ours(bench), base)


@pytest.mark.slow
def test_attached_once_counted_and_thrown_out(
    bench: WorkerContext, two: dict[str, Any], toys: Path
) -> None:
    """The bytes are those of its matrices; it hangs on its model, and goes before it."""
    for held in bench.pipelines.loaded:
        bench.pipelines.unload(held["name"])
    ours(bench, loras=["one"])
    with bench.pipelines.borrow(GenerationRequest(loras=["one:0.5"])) as parts:
        plain = makers.stock(POCKET)
        layers = parts.active_adapters[0].adapter.layers
        assert len(layers) * 2 == sum(map(len, two["one"].values()))
        held = {held["name"]: held for held in bench.pipelines.loaded}
        assert list(held) == ["LoRA one", "pocket"]
        assert all(one["lent"] for one in held.values())
        assert held["LoRA one"]["bytes"] == 4 * sum(
            t.numel() for made in two["one"].values() for t in made.values()
        )
        again = next(iter(layers.values()))
    with bench.pipelines.borrow(GenerationRequest(loras=["one"])) as parts:
        assert next(iter(parts.active_adapters[0].adapter.layers.values())) is again
    assert bench.pipelines.unload("LoRA one")
    with bench.pipelines.borrow(GenerationRequest()) as parts:  # nothing of ours is left
        assert parts.denoiser.state_dict().keys() == plain.unet.state_dict().keys()
        assert parts.text_encoders[0].state_dict().keys() == plain.text_encoder.state_dict().keys()
    ours(bench, loras=["one"])
    assert bench.pipelines.unload("pocket")
    assert bench.pipelines.loaded == []
    ours(bench, loras=["one:0"])
    assert [held["name"] for held in bench.pipelines.loaded] == [
        "pocket"
    ]  # one that is off is not even loaded


def test_conditionings_are_remembered_by_what_reads(
    bench: WorkerContext, two: dict[str, Any]
) -> None:
    def told(*uses: LoraUse) -> torch.Tensor:
        request = GenerationRequest(prompt="a boat", loras=uses)
        with bench.pipelines.borrow(request) as parts:
            return encode_prompts(parts, request).positives[0].get(0)["prompt_embeds"]

    plain, strong = told(), told(LoraUse(name="one"))
    assert told(LoraUse(name="one", text_encoder=0)) is plain
    assert told(LoraUse(name="one", unet=0.5)) is strong
    assert not torch.equal(plain, strong)
    assert not torch.equal(told(LoraUse(name="one", text_encoder=0.5)), strong)
    assert told() is plain
    assert not torch.equal(told(LoraUse(name="two")), strong)


def test_the_record_has_content_and_weights(bench: WorkerContext, two: dict[str, Any]) -> None:
    def made(**values: Any) -> dict[str, Any]:
        spec = {"steps": 1, "width": 64, "height": 64, "seed": 1, "prompt": "a boat"} | values
        return generate(bench, spec, lambda progress: None)

    tagged, listed = made(prompt="a boat <lora:one:0.5>"), made(loras=["one:0.5"])
    assert tagged["request"] == listed["request"]
    assert tagged["request"]["prompt"] == "a boat"
    assert tagged["notes"] == []
    digests = [
        result["pictures"][0]["digest"]
        for result in (
            tagged,
            listed,
            made(loras=["copy:0.5"]),
            made(loras=["one:0.75"]),
            made(),
            made(loras=["one:0"]),
        )
    ]
    assert digests[0] == digests[1] == digests[2]
    assert digests[4] == digests[5]
    assert len(set(digests)) == 3
    picture = bench.home.gallery.get(tagged["pictures"][0]["path"])
    assert picture
    assert picture.content_hashes["lora one"] == bench.home.library.get_content_hash(
        bench.home.library.get_lora("one")
    )
    assert picture.path in [found.path for found in bench.home.gallery.search("one boat")]


@pytest.mark.parametrize("count", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_many_attached_cost_no_more_to_switch(
    bench: WorkerContext, two: dict[str, Any], count: int
) -> None:
    """Switching touches the layers of what goes on and off only."""
    for k in range(count):
        makers.kohya(shelf(bench, f"many{k}"), makers.add(makers.stock(POCKET), seed=10 + k), 2)
        ours(bench, loras=[f"many{k}"])
    with bench.pipelines.borrow(GenerationRequest(loras=["one"])) as parts:
        name = parts.active_adapters[0].content_hash
        on = [
            layer
            for network in (parts.denoiser, *parts.text_encoders)
            for layer in network.modules()
            if isinstance(layer, AdaptedLayer) and name in layer.adapters
        ]
        assert {
            [adapter for adapter, _ in layer.active] == list(layer.adapters[name]) for layer in on
        } == {True}
    assert {len(layer.active) for layer in on} == {0}
