"""One odd file never breaks a list: the good ones beside it are there, it is named, and nothing is waited for.

The table of families is looked at with every bad file of support/bad_files.py; the slow run prints how many those were.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.errors import BadFile, StudioError
from studio.settings import load
from studio.storage import odd_files
from studio.storage.content_hashes import ContentHashes
from studio.storage.datasets.caption_cache import CaptionCache
from studio.storage.gallery import ImageFilter
from studio.storage.home import Home
from studio.storage.models.library import LoraInfo, ModelInfo, Unusable
from studio.storage.timings import load_timings, record_timings
from support.bad_files import BAD_FILES, DOUBTFUL, NO_CONTENT, NO_FILES, clear
from support.examples import examples
from support.limits import hang_limit
from support.models import POCKET
from support.weights import CROSS, kohya_lora, write_weights

QUICK_KINDS = ("a pipe", "a link in a circle", "deep lists", "not UTF-8", "cut at 1/2")
RUN_ID = "0123456789ab"
GOOD_RUN_ID = "ba9876543210"
Seen = tuple[set[str], str]  # the good ones, and all that is said of others


@dataclass(frozen=True)
class FileFamily:
    """Files of one kind in a home.

    Attributes:
        file: The bad one, below the home.
        make: Makes a home with that file, good, and a good neighbour.
        look: Lists them.
        good: What has to be listed.
        name: What the bad one is called where it is listed; empty where it is passed over.
        unnamed: Kinds of bad files that are nothing of this family, or good.
    """

    file: str
    make: Callable[[Home], None]
    look: Callable[[Home], Seen]
    good: set[str]
    name: str = ""
    unnamed: set[str] = field(default_factory=set)


def encode_png(chunks: dict[str, str] | None = None) -> bytes:
    info = PngInfo()
    for key, value in (chunks or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 8, 7)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def sort_out(items: list[Any]) -> Seen:
    """Tell those that can be used from those that cannot."""
    good = {item.name for item in items if not isinstance(item, Unusable)}
    bad = [f"{item.name}: {item.problem}" for item in items if isinstance(item, Unusable)]
    return good, "\n".join(bad)


def make_loras(home: Home) -> None:
    for name in ("odd", "good"):
        write_weights(home.settings.loras / f"{name}.safetensors", kohya_lora(CROSS))


def make_loose_files(home: Home) -> None:
    make_loras(home)
    write_weights(home.settings.models / "odd.safetensors", kohya_lora(CROSS))


def make_peft_lora(home: Home) -> None:
    make_loras(home)
    weights = {f"base_model.model.{CROSS}.lora_A.weight": [4, 768]}
    write_weights(home.settings.loras / "peft" / "adapter_model.safetensors", weights)
    write(home.settings.loras / "peft" / "adapter_config.json", b'{"r": 4, "lora_alpha": 4}')


def make_model(home: Home) -> None:
    folder = home.settings.models / "odd"
    folder.mkdir()
    shutil.copy(POCKET / "model_index.json", folder)
    for part in ("scheduler", "unet", "vae", "text_encoder", "tokenizer"):
        shutil.copytree(POCKET / part, folder / part)


def make_captioner(home: Home) -> None:
    shutil.copytree(POCKET / "captioner", home.settings.models / "odd")


def make_presets(home: Home) -> None:
    home.presets.save("good", GenerationRequest(prompt="a boat"))
    home.presets.save("odd", GenerationRequest(prompt="a boat", steps=7))


def look_at_presets(home: Home) -> Seen:
    good, bad = set(), []
    for presets in (home.presets, home.sweep_presets, home.training_presets):
        for name in presets.list_names():
            try:
                presets.load(name)
                good.add(name)
            except StudioError as error:
                bad.append(str(error))
    return good, "\n".join(bad)


def make_runs(home: Home) -> None:
    for run_id in (RUN_ID, GOOD_RUN_ID):
        added = home.runs.add(TrainingConfig(name="moon", dataset="moon"), "ann")
        (home.settings.runs / added).rename(home.settings.runs / run_id)
        folder = home.settings.runs / run_id
        for name in ("about", "result", "report"):
            write(folder / f"{name}.json", b'{"step": 1}')
        write(folder / "log.jsonl", b'{"step": 1, "loss": 0.5}\n' * 20)
        manifest = {"format": 1, "step": 1, "files": {}}
        write(folder / "checkpoints/step-00000001/manifest.json", json.dumps(manifest).encode())


def look_at_runs(home: Home) -> Seen:
    runs = home.runs.list_runs()
    for run in runs:
        home.runs.read_log(run.id)
        home.runs.list_samples(run.id)
        home.runs.list_checkpoints(run.id)
        home.runs.read_report(run.id)
        assert run.date
    return {run.id for run in runs}, "\n".join(home.runs.list_problems())


def make_gallery(home: Home) -> None:
    request = GenerationRequest(prompt="a boat").resolve(512, 7)
    for seed in (1, 2):
        image = home.gallery.save(
            Image.new("RGB", (64, 64)),
            request.model_copy(update={"seed": seed}),
            digest=str(seed) * 64,
            content_hashes={},
            seconds=1.0,
            owner="ann",
        )
        if seed == 1:
            write(home.settings.outputs / "odd.png", image.path.read_bytes())
            clear(image.path)


def look_at_gallery(home: Home) -> Seen:
    home.gallery.sync()
    images = home.gallery.search()
    assert home.gallery.count() == len(images)
    return {str(image.request.seed) for image in images}, ""


def make_dataset(home: Home) -> None:
    folder = home.settings.home / "datasets" / "moon"
    for name in ("odd", "good"):
        write(folder / f"{name}.png", encode_png())
        write(folder / f"{name}.txt", b"a boat on a lake, with a moon above it")


def make_metadata(home: Home) -> None:
    folder = home.settings.home / "datasets" / "moon"
    write(folder / "good.png", encode_png())
    write(folder / "metadata.jsonl", b'{"file_name": "good.png", "text": "a boat"}\n')


def look_at_dataset(home: Home) -> Seen:
    good = set(home.datasets.names())
    dataset = home.datasets.open("moon")
    dataset.examine()
    dataset.make_thumbnails([image.key for image in dataset.images])
    good |= {image.key for image in dataset.images if not image.image_error}
    return good, "\n".join(f"{file} {reason}" for file, reason in dataset.broken)


def make_hashes(home: Home) -> None:
    write(home.settings.home / "hashes.json", b'{"/x": {"stamp": [1], "sha256": "0"}}')


def look_at_hashes(home: Home) -> Seen:
    model = home.library.get_model("pocket")
    hashes = ContentHashes(home.settings.home)
    files = [model.path / "model_index.json"]
    return {str(bool(hashes.get_hash(model.path, files, model.path)))}, ""


def look_at_timings(home: Home) -> Seen:
    record_timings(home.settings, "pocket", load=1.0)
    return set(load_timings(home.settings, home.gallery, home.library, ["pocket"])), ""


def make_timings(home: Home) -> None:
    write(home.settings.home / "rates.json", b'{"pocket": {"load": 1.5, "encode": 1e-3}}')


def make_captions(home: Home) -> None:
    write(home.settings.home / "cache/captions/odd.jsonl", b'["00", "a boat"]\n' * 9)


def look_at_captions(home: Home) -> Seen:
    try:
        CaptionCache(home.settings.home, "odd").read_all()
    except BadFile as error:
        return set(), str(error)
    return set(), ""


def make_inputs(home: Home) -> None:
    sha256 = home.inputs.add(Image.new("RGB", (64, 64))).sha256
    (home.settings.inputs / f"{sha256}.png").rename(home.settings.inputs / f"{'0' * 64}.png")


def look_at_inputs(home: Home) -> Seen:
    home.inputs.find_unreferenced([])
    try:
        home.inputs.read_size("0" * 64)
        home.inputs.load("0" * 64)
    except StudioError as error:
        return set(), str(error)
    return set(), ""


def look_at_models(home: Home) -> Seen:
    return sort_out(home.library.scan_models())


def look_at_loras(home: Home) -> Seen:
    return sort_out(
        [item for item in home.library.list_loras() if "/assets/" not in str(item.path)]
    )


def look_at_captioners(home: Home) -> Seen:
    models = home.transformers_models
    return sort_out([*models.list_captioners(), *models.list_clip_models()])


MODEL_CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
NO_MODEL = {"a text", "null"}
FAMILIES: dict[str, FileFamily] = {
    "LoRAs": FileFamily(
        "loras/odd.safetensors", make_loras, look_at_loras, {"good"}, "odd", {"a folder"}
    ),
    "loose weights": FileFamily(
        "models/odd.safetensors", make_loose_files, look_at_models, {"pocket"}, "odd", {"a folder"}
    ),
    "GGUF files": FileFamily(
        "models/odd.gguf",
        lambda home: write(home.settings.models / "odd.gguf", b"GGUF\3\0\0\0" + b"\0" * 16),
        look_at_models,
        {"pocket"},
        "odd",
        {"a folder"},
    ),
    "pickles": FileFamily(
        "models/odd.ckpt",
        lambda home: write(home.settings.models / "odd.ckpt", b"\x80\2"),
        look_at_models,
        {"pocket"},
        "odd",
        {"a folder"},
    ),
    "peft's settings": FileFamily(
        "loras/peft/adapter_config.json", make_peft_lora, look_at_loras, {"good"}
    ),
    **{
        f"models' {name}": FileFamily(
            f"models/odd/{name}",
            make_model,
            look_at_models,
            {"pocket"},
            "odd",
            {"an object of odd values"},
        )
        for name in MODEL_CONFIGS
    },
    "models' weights": FileFamily(
        "models/odd/unet/diffusion_pytorch_model.safetensors",
        make_model,
        look_at_models,
        {"pocket"},
        "odd",
        # the header is whole: found when the model is loaded
        {"cut at 1/4", "cut at 1/2"},
    ),
    "captioners": FileFamily(
        "models/odd/config.json", make_captioner, look_at_captioners, {"pocket"}
    ),
    "presets": FileFamily(
        "presets/pictures/odd.toml",
        make_presets,
        look_at_presets,
        {"good"},
        "odd",
        # comments and nothing
        {"a folder", "empty"},
    ),
    "sweep presets": FileFamily(
        "presets/sweeps/odd.toml",
        lambda home: write(home.settings.presets / "sweeps/odd.toml", b'title = "x"'),
        look_at_presets,
        set(),
        "odd",
        {"a folder", "empty"},
    ),
    "training presets": FileFamily(
        "presets/training/odd.toml",
        lambda home: write(home.settings.presets / "training/odd.toml", b'name = "x"'),
        look_at_presets,
        set(),
        "odd",
        {"a folder", "empty"},
    ),
    "trainings": FileFamily(
        f"runs/{RUN_ID}/run.json", make_runs, look_at_runs, {GOOD_RUN_ID}, RUN_ID
    ),
    **{
        f"trainings' {name}": FileFamily(
            f"runs/{RUN_ID}/{name}", make_runs, look_at_runs, {GOOD_RUN_ID, RUN_ID}
        )
        for name in (
            "about.json",
            "result.json",
            "report.json",
            "log.jsonl",
            "checkpoints",
            "checkpoints/step-00000001/manifest.json",
            "checkpoints/step-00000002",
            "samples",
        )
    },
    "gallery": FileFamily("outputs/odd.png", make_gallery, look_at_gallery, {"2"}),
    "datasets' pictures": FileFamily(
        "datasets/moon/odd.png", make_dataset, look_at_dataset, {"moon", "good.png"}, "odd.png"
    ),
    "datasets' captions": FileFamily(
        "datasets/moon/odd.txt",
        make_dataset,
        look_at_dataset,
        {"moon", "good.png", "odd.png"},
        "odd",
        set(NO_CONTENT) - {"NUL", "not UTF-8", "a long line", "half a surrogate"},
    ),
    "datasets' metadata": FileFamily(
        "datasets/moon/metadata.jsonl",
        make_metadata,
        look_at_dataset,
        {"moon", "good.png"},
        "metadata",
        {"empty", "cut at 1/4"},
    ),
    "datasets": FileFamily(
        "datasets/odd",
        lambda home: (make_dataset(home), write(home.settings.home / "datasets/odd", b"x"))[0],
        look_at_dataset,
        {"moon", "good.png"},
    ),
    "content hashes": FileFamily("hashes.json", make_hashes, look_at_hashes, {"True"}),
    "timings": FileFamily("rates.json", make_timings, look_at_timings, {"pocket"}),
    "cached captions": FileFamily(
        "cache/captions/odd.jsonl", make_captions, look_at_captions, set()
    ),
    "inputs": FileFamily(f"inputs/{'0' * 64}.png", make_inputs, look_at_inputs, set(), "0" * 12),
}
counted: dict[str, int] = {}


def look_with_bad_files(family: FileFamily, home: Home, kinds: list[str]) -> None:
    """Look at a family's list with each of these in the place of a good file."""
    family.make(home)
    path = home.settings.home / family.file
    good_bytes = path.read_bytes() if path.is_file() else b""
    for kind in kinds:
        clear(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        BAD_FILES[kind](path, good_bytes or b"x" * 100)
        start = time.thread_time()
        with hang_limit(60):
            good, said = family.look(home)
        assert time.thread_time() - start < 1, kind
        assert family.good <= good, kind
        is_good = kind in DOUBTFUL or kind in family.unnamed
        if family.name and not is_good:
            assert family.name in said, (kind, said)


@pytest.fixture
def home(tmp_path: Path) -> Any:
    home = Home(load(home=tmp_path / "home", device="cpu"))
    yield home
    home.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_an_odd_file_hides_no_other(name: str, home: Home) -> None:
    look_with_bad_files(FAMILIES[name], home, list(QUICK_KINDS))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_bad_file_in_every_place(name: str, home: Home) -> None:
    look_with_bad_files(FAMILIES[name], home, list(BAD_FILES))
    counted[name] = len(BAD_FILES)


@pytest.mark.slow
def test_bad_files_by_family() -> None:
    """Print the table for README."""
    print("\nbad files by family")
    for name, count in counted.items():
        print(f"{name:<40}{count:>6}")
    print(f"{'together':<40}{sum(counted.values()):>6}")
    assert not counted or min(counted.values()) >= 20
    assert len(NO_FILES) >= 6


# ---- the mechanism ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [TypeError, AttributeError, RecursionError, MemoryError, OverflowError, KeyError, ValueError],
)
def test_whatever_reading_raises_is_one_sentence(
    error: type[Exception], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(BadFile, match=rf"^odd\.json cannot be read: .*{error.__name__}"),
        odd_files.explain_odd_file(tmp_path / "odd.json"),
    ):
        raise error("inside")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [TypeError, MemoryError, OSError])
def test_whatever_one_lora_raises_the_others_are_listed(
    error: type[Exception], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loras(home)
    read = odd_files.open_file

    def fail_for_one(path: Path) -> Any:
        if path.name == "odd.safetensors":
            raise error("inside")
        return read(path)

    monkeypatch.setattr("studio.storage.models.lora_file.open_file", fail_for_one)
    good, said = look_at_loras(home)
    assert good == {"good"}
    assert "odd" in said


@pytest.mark.parametrize("dtype", [["F32"], {"F32": 1}, None, 7, True, "f" * 10**6])
def test_a_number_format_that_is_no_word(home: Home, dtype: Any) -> None:
    """Such a header broke the page and both lists."""
    make_loose_files(home)
    entry = {"dtype": dtype, "shape": [4, 8], "data_offsets": [0, 128]}
    text = dump({f"lora_unet_{CROSS}.lora_down.weight": entry})
    content = len(text).to_bytes(8, "little") + text + b"\0" * 128
    for folder in (home.settings.loras, home.settings.models):
        write(folder / "odd.safetensors", content)
    assert look_at_loras(home)[0] == {"good"}
    assert "odd" in look_at_loras(home)[1]
    assert "pocket" in look_at_models(home)[0]
    assert "odd" in look_at_models(home)[1]


# ---- any JSON anywhere --------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["F32", "linspace()", "../x", "\0", "\ud800", "__metadata__"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
PROPERTY = hypothesis_settings(
    max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def dump(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def spoil(draw: Any, document: Any) -> Any:
    """Put any value in one place of a document."""
    if draw(st.integers(0, 3)) == 0 or not isinstance(document, dict | list) or not document:
        return draw(VALUES)
    if isinstance(document, list):
        index = draw(st.integers(0, len(document) - 1))
        return [*document[:index], spoil(draw, document[index]), *document[index + 1 :]]
    key = draw(st.sampled_from(sorted(document)))
    return {**document, key: spoil(draw, document[key])}


@given(data=st.data())
@PROPERTY
def test_any_header_of_weights(home: Home, data: Any) -> None:
    header = {
        "__metadata__": {"ss_tag_frequency": "{}", "modelspec.title": "x", "unet": "[]"},
        f"lora_unet_{CROSS}.lora_down.weight": {
            "dtype": "F32",
            "shape": [4, 8],
            "data_offsets": [0, 128],
        },
        f"lora_unet_{CROSS}.lora_up.weight": {
            "dtype": "F32",
            "shape": [8, 4],
            "data_offsets": [128, 256],
        },
        f"lora_unet_{CROSS}.alpha": {"dtype": "F32", "shape": [], "data_offsets": [256, 260]},
    }
    text = dump(spoil(data.draw, header))
    content = len(text).to_bytes(8, "little") + text + b"\0" * 260
    write(home.settings.loras / "odd.safetensors", content)
    write(home.settings.models / "odd.safetensors", content)
    write_weights(home.settings.loras / "good.safetensors", kohya_lora(CROSS))
    loras = look_at_loras(home)
    assert "good" in loras[0]
    assert "odd" in loras[0] or "odd" in loras[1]
    assert any(isinstance(item, ModelInfo) for item in home.library.scan_models())
    assert all(isinstance(item, LoraInfo | Unusable) for item in home.library.list_loras())


@pytest.mark.parametrize("name", MODEL_CONFIGS)
@given(data=st.data())
@PROPERTY
def test_any_config_of_a_model(home: Home, name: str, data: Any) -> None:
    if not (home.settings.models / "odd").exists():
        make_model(home)
    document = json.loads((POCKET / name).read_text())
    write(home.settings.models / "odd" / name, dump(spoil(data.draw, document)))
    good, said = look_at_models(home)
    assert "pocket" in good
    assert "odd" in good or "odd" in said


@given(data=st.data())
@PROPERTY
def test_any_config_of_a_captioner_and_of_peft(home: Home, data: Any) -> None:
    if not (home.settings.models / "odd").exists():
        make_captioner(home)
        make_peft_lora(home)
    document = json.loads((POCKET / "captioner" / "config.json").read_text())
    write(home.settings.models / "odd" / "config.json", dump(spoil(data.draw, document)))
    settings = {"r": 4, "lora_alpha": 4, "rank_pattern": {"x": 1}, "alpha_pattern": {}}
    write(home.settings.loras / "peft/adapter_config.json", dump(spoil(data.draw, settings)))
    assert "pocket" in look_at_captioners(home)[0]
    assert "good" in look_at_loras(home)[0]


@given(data=st.data())
@PROPERTY
def test_any_training_log_and_manifest(home: Home, data: Any) -> None:
    if not (home.settings.runs / RUN_ID).exists():
        make_runs(home)
    folder = home.settings.runs / RUN_ID
    record = json.loads((home.settings.runs / GOOD_RUN_ID / "run.json").read_text())
    write(folder / "run.json", dump(spoil(data.draw, record)))
    write(folder / "log.jsonl", dump(spoil(data.draw, {"step": 1, "loss": 0.5})))
    manifest = {"format": 1, "step": 1, "files": {"a": {"bytes": 1, "sha256": "x"}}}
    write(folder / "checkpoints/step-00000001/manifest.json", dump(spoil(data.draw, manifest)))
    good, said = look_at_runs(home)
    assert GOOD_RUN_ID in good
    assert RUN_ID in good or RUN_ID in said


@given(data=st.data())
@PROPERTY
def test_any_text_in_a_picture_and_any_row_of_the_gallery(home: Home, data: Any) -> None:
    if not home.gallery.count():
        make_gallery(home)
        row = home.gallery._database.execute("SELECT * FROM image_metadata")[0]
        home.gallery._database.execute(
            "INSERT INTO images SELECT 99, '/odd', 'x', 9e9, owner, model, kind, series, day, 0, 0, "
            "0.0, 0, search_text FROM images WHERE id = ?",
            row["id"],
        )
        home.gallery._database.execute("INSERT INTO image_metadata VALUES (99, ?)", row["metadata"])
    metadata = next(home.gallery.iter_metadata())
    spoiled = dump(spoil(data.draw, json.loads(metadata))).decode("utf-8", "surrogatepass")
    home.gallery._database.execute("UPDATE image_metadata SET metadata = ? WHERE id = 99", spoiled)
    home.gallery._database.execute("UPDATE images SET is_linked = 0 WHERE id = 99")
    assert home.link_images() == 1
    assert len(home.gallery.index.list_page(ImageFilter(), 0, 10).entries) >= 1
    images = home.gallery.search()
    assert 2 in {image.request.seed for image in images}
    home.gallery.get("/odd")
    write(home.settings.outputs / "odd.png", encode_png({"studio": spoiled, "parameters": spoiled}))
    home.gallery.get_seconds_per_megapixel("pocket")


@given(data=st.data())
@PROPERTY
def test_any_line_of_metadata(home: Home, data: Any) -> None:
    make_metadata(home)
    folder = home.settings.home / "datasets" / "moon"
    line = dump(spoil(data.draw, {"file_name": "good.png", "text": "a boat"}))
    write(folder / "metadata.jsonl", b'{"file_name": "good.png", "text": "x"}\n' + line)
    dataset = home.datasets.open("moon")
    assert [image.key for image in dataset.images] == ["good.png"]


@given(data=st.data())
@PROPERTY
def test_any_spec_of_a_stored_sweep(home: Home, data: Any) -> None:
    spec = SweepSpec.model_validate(
        {"base": {"prompt": "x", "seed": 1}, "axes": [{"field": "steps", "values": "5, 9"}]}
    )
    home.sweeps.save(spec, "ann", "good")
    home.sweeps.save(spec, "ann", "odd")
    spoiled = spoil(data.draw, spec.model_dump(mode="json"))
    home.sweeps._database.execute(
        "UPDATE sweeps SET spec = ? WHERE id = 'odd'",
        dump(spoiled).decode("utf-8", "surrogatepass"),
    )
    assert "good" in {sweep.id for sweep in home.sweeps.list_sweeps()}


@pytest.mark.slow
@given(text=st.text(max_size=60) | VALUES.map(lambda value: f"steps = {json.dumps(value)}"))
@PROPERTY
def test_any_preset(home: Home, text: str) -> None:
    home.presets.save("good", GenerationRequest(prompt="a boat"))
    write(home.settings.presets / "pictures/odd.toml", text.encode("utf-8", "surrogatepass"))
    assert "good" in look_at_presets(home)[0]


def test_thousands_of_unknown_settings_are_counted(home: Home) -> None:
    lines = [f"unknown{number} = 1" for number in range(9_000)]
    write(home.settings.presets / "pictures/odd.toml", "\n".join(lines).encode())
    with pytest.raises(StudioError) as caught:
        home.presets.load("odd")
    assert len(str(caught.value).splitlines()) == 11
    assert str(caught.value).endswith("… and 8,990 more like these.")
