"""A plain upscale as a job: the formula's pixels, saved with what they came from, the same digest for the same picture, refused in words."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.upscaling import UpscaleSpec
from studio.core.jobs import UPSCALE, describe_job
from studio.engine.context import WorkerContext
from studio.engine.upscaling import enlarge
from studio.engine.upscaling.job import upscale
from studio.errors import BadFile, BadPicture, Cancelled, InvalidSpec, ModelNotFound
from studio.services.submission import Services
from studio.storage.gallery import Gallery, read_image_settings, read_request
from studio.storage.jobs import Progress
from support import upscalers
from support.benches import open_bench
from support.pickles import read_pickles_here
from support.sentences import refused
from support.visitors import ANN, BOB, OWNER
from support.weights import VAE_FILE, write_weights

pytestmark = pytest.mark.smoke
MADE_WITH = ResolvedRequest(
    prompt="a red boat", model="other", width=64, height=64, seed=7, steps=3
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WorkerContext]:
    (tmp_path / "home").mkdir()
    bench = open_bench(tmp_path / "home")
    folder = bench.settings.upscalers
    upscalers.write(folder / "toy-2x.safetensors", upscalers.compact(2))
    upscalers.write(folder / "deep" / "RealESRGAN_x4plus.safetensors", upscalers.rrdb(blocks=1))
    write_weights(folder / "a-vae.safetensors", VAE_FILE)
    yield bench
    bench.home.close()


def sample(width: int = 20, height: int = 12) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def run(
    bench: WorkerContext, image: Image.Image, reports: list[Progress] | None = None, **spec: Any
) -> dict[str, Any]:
    sha256 = bench.home.inputs.add(image).sha256
    heard = [] if reports is None else reports
    return upscale(bench, {"image": sha256, **spec}, heard.append)


def open_result(result: dict[str, Any]) -> Image.Image:
    return Image.open(result["pictures"][0]["path"])


@pytest.mark.parametrize(("name", "resample"), [("Lanczos", 1), ("Nearest", 0)])
def test_formulas_are_pillows(bench: WorkerContext, name: str, resample: int) -> None:
    result = run(bench, sample(), upscaler=name.lower(), scale=2.5)
    expected = sample().resize((50, 30), resample)
    assert np.array_equal(open_result(result).convert("RGB"), expected)
    assert (result["upscaler"], result["size"]) == (name, [50, 30])


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({"scale": 2}, 1),
        ({"scale": 1.5}, 1),
        ({"scale": 1}, 1),
        ({"scale": 3}, 2),
        ({"scale": 8}, 3),
        ({"longer_side": 50}, 2),
    ],
)
def test_a_network_is_used_until_it_is_large_enough_and_the_rest_is_lanczos(
    bench: WorkerContext, wanted: dict[str, Any], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = enlarge.upscale_image

    def count(*values: Any) -> Image.Image:
        calls.append(real(*values))
        return calls[-1]

    monkeypatch.setattr(enlarge, "upscale_image", count)
    result = run(bench, sample(), upscaler="toy-2x", **wanted)
    assert len(calls) == passes
    assert calls[-1].size == (20 * 2**passes, 12 * 2**passes)
    size = (50, 30) if "longer_side" in wanted else (20 * wanted["scale"], 12 * wanted["scale"])
    expected = calls[-1].resize([round(side) for side in size], Image.Resampling.LANCZOS)
    assert np.array_equal(open_result(result).convert("RGB"), expected)


def test_the_result_says_what_it_is(bench: WorkerContext) -> None:
    request = MADE_WITH.model_dump(mode="json")
    result = run(bench, sample(), upscaler="R-ESRGAN 4x+", scale=4, request=request)
    saved = bench.home.gallery.get(result["pictures"][0]["path"])
    assert saved
    assert saved.size == (80, 48)
    assert saved.upscale
    assert (saved.upscale.upscaler, saved.upscale.scale) == ("deep/RealESRGAN_x4plus", 4)
    assert saved.settings == saved.request == MADE_WITH
    assert (
        saved.content_hashes["upscaler"]
        == bench.home.library.upscalers.get("deep/RealESRGAN_x4plus").content_hash
    )
    assert bench.home.inputs.load(saved.source_image).size == (20, 12)
    text = open_result(result).info["parameters"]
    assert text.startswith("a red boat\nSteps: 3")
    assert text.endswith("Postprocess upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+")
    settings = read_image_settings(saved.path)
    assert settings.values["prompt"] == "a red boat"
    assert settings.notes == ["It was enlarged afterwards, with deep/RealESRGAN_x4plus."]
    assert [image.path for image in bench.home.gallery.search("boat upscaled")] == [saved.path]
    assert bench.home.gallery.get_seconds_per_megapixel("other") is None


def test_a_photo_gets_no_settings_that_nobody_chose(bench: WorkerContext) -> None:
    result = run(bench, sample(), upscaler="Lanczos", scale=2)
    saved = bench.home.gallery.get(result["pictures"][0]["path"])
    assert saved
    assert saved.settings is None
    assert saved.upscale
    assert open_result(result).info["parameters"] == (
        "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    )
    assert read_request(saved.path) is None
    assert bench.home.gallery.count("pocket") == 0
    assert bench.home.gallery.count("Lanczos") == 1
    bench.home.gallery.close()
    for file in bench.settings.home.glob("gallery.sqlite*"):
        file.unlink()
    again = Gallery(bench.settings)
    again.sync()
    assert again.get(saved.path) == saved  # the index comes back from the files alone
    again.close()


def test_the_same_picture_has_the_same_digest(bench: WorkerContext) -> None:
    def digest(**spec: Any) -> str:
        return str(run(bench, sample(), **spec)["pictures"][0]["digest"])

    base = digest(upscaler="toy-2x", scale=2)
    folder = bench.settings.upscalers
    (folder / "toy-2x.safetensors").rename(folder / "renamed.safetensors")
    assert digest(upscaler="renamed", scale=2) == base
    assert digest(upscaler="renamed", longer_side=40) == base
    upscalers.write(folder / "renamed.safetensors", upscalers.compact(2, seed=5))
    others = [
        digest(upscaler="renamed", scale=2),
        digest(upscaler="renamed", scale=3),
        digest(upscaler="Lanczos", scale=2),
        str(run(bench, sample(21), upscaler="Lanczos", scale=2)["pictures"][0]["digest"]),
    ]
    assert len({base, *others}) == 5


def test_the_network_stays_and_tiles_are_told(bench: WorkerContext) -> None:
    reports: list[Progress] = []
    result = run(bench, sample(300, 140), reports, upscaler="toy-2x", scale=2)
    tiles = [(report.step, report.total) for report in reports if report.total == 6]
    assert tiles[0] == (0, 6)
    assert (6, 6) in tiles
    assert reports[-1].images[0]["path"] == result["pictures"][0]["path"]
    (resident,) = bench.pipelines.loaded
    assert resident["name"] == "Upscaler toy-2x"
    weights = sum(tensor.numel() * 4 for tensor in upscalers.compact(2).values())
    assert (resident["bytes"], resident["lent"]) == (weights, False)


def test_a_stop_is_heard_at_each_tile_and_nothing_is_saved(bench: WorkerContext) -> None:
    sha256 = bench.home.inputs.add(sample(300, 140)).sha256

    def report(progress: Progress) -> None:
        if (progress.step, progress.total) == (2, 6):
            raise Cancelled

    with pytest.raises(Cancelled):
        upscale(bench, {"image": sha256, "upscaler": "toy-2x", "scale": 2}, report)
    assert bench.home.gallery.count() == 0
    assert not any(resident["lent"] for resident in bench.pipelines.loaded)


def test_names_and_defaults(bench: WorkerContext) -> None:
    upscaler_files = bench.home.library.upscalers
    assert upscaler_files.list_names() == [
        "Lanczos",
        "Nearest",
        "pocket-x4",
        "deep/RealESRGAN_x4plus",
        "toy-2x",
    ]
    for name in ("R-ESRGAN 4x+", "r-esrgan 4X+", "RealESRGAN_x4plus", "realesrgan-x4PLUS"):
        assert upscaler_files.get(name).name == "deep/RealESRGAN_x4plus"
    assert upscaler_files.choose_default(None) == "deep/RealESRGAN_x4plus"
    assert upscaler_files.choose_default(MADE_WITH) == "deep/RealESRGAN_x4plus"
    assert upscaler_files.choose_default(GenerationRequest()) == "pocket-x4"
    for file in bench.settings.upscalers.rglob("*.safetensors"):
        file.unlink()
    assert upscaler_files.choose_default(None) == "Lanczos"
    for name in ("toy-2x", "../../etc/passwd", "x" * 300):
        with refused(ModelNotFound):
            upscaler_files.get(name)


def test_a_name_of_several_is_said_to_be_one(bench: WorkerContext) -> None:
    folder = bench.settings.upscalers
    upscalers.write(folder / "more" / "RealESRGAN_x4plus.safetensors", upscalers.rrdb(blocks=1))
    with refused(ModelNotFound) as caught:
        bench.home.library.upscalers.get("RealESRGAN_x4plus.safetensors")
    assert "More than one upscaler" in str(caught.value)


def test_a_photo_gets_one_that_enlarges(bench: WorkerContext) -> None:
    folder = bench.settings.upscalers
    upscalers.write(folder / "1x-clean.safetensors", upscalers.compact(1))
    save_file(
        {"conv_first.weight": torch.ones(1), "conv_last.weight": torch.ones(1)},
        folder / "0.safetensors",
    )
    choose = bench.home.library.upscalers.choose_default
    assert choose(None) == "deep/RealESRGAN_x4plus"
    assert choose(None, 2) == "toy-2x"
    assert choose(None, 3) == choose(None, 4) == "deep/RealESRGAN_x4plus"
    assert run(bench, sample(), scale=2)["upscaler"] == "toy-2x"
    for name in ("toy-2x", "deep/RealESRGAN_x4plus"):
        (folder / f"{name}.safetensors").unlink()
    assert choose(None, 1) == choose(None, 2) == "Lanczos"


def test_a_pickle_is_read_when_it_is_named(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    folder = bench.settings.upscalers
    torch.save({"params": upscalers.compact(2)}, folder / "2x_pick.pth")
    (folder / "other.pth").write_bytes(b"\x80\x02.")
    library = bench.home.library
    services = Services(bench.home)
    assert "2x_pick" in library.upscalers.list_names()
    expected = open_result(run(bench, sample(), upscaler="toy-2x", scale=2))
    spec = UpscaleSpec(image=bench.home.inputs.add(sample()).sha256, upscaler="2X-pick", scale=2)
    job = services.prepare_upscale(spec, OWNER)
    assert job.spec["upscaler"] == "2x_pick"
    assert len(library.list_unread_pickles()) == 2  # the page itself opens none
    result = upscale(bench, job.spec, lambda _progress: None)
    assert result["upscaler"] == "2x_pick"
    assert np.array_equal(open_result(result), expected)
    assert library.list_unread_pickles() == [folder / "other.pth"]
    again = run(bench, sample(), upscaler="2x_pick.pth", scale=2)
    assert again["pictures"][0]["digest"] == result["pictures"][0]["digest"]
    (folder / "more").mkdir()
    torch.save({"params": upscalers.compact(3)}, folder / "more" / "RealESRGAN_x4plus.pth")
    with refused(ModelNotFound):  # of which nobody may have read the second
        library.upscalers.get("R-ESRGAN 4x+")


@pytest.mark.parametrize(
    "values",
    [
        {"scale": 0.5},
        {"scale": 9},
        {"scale": float("nan")},
        {"image": "../x"},
        {"longer_side": 99999},
        {"upscaler": "x" * 201},
        {"nonsense": 1},
    ],
)
def test_a_spec_that_cannot_be(values: dict[str, Any]) -> None:
    with refused(InvalidSpec):
        validate(UpscaleSpec, {"image": "0" * 64, **values})


def test_what_the_submission_checks(bench: WorkerContext) -> None:
    services = Services(bench.home)
    image = bench.home.inputs.add(sample(2000, 8), guest_id="ann").sha256
    spec = UpscaleSpec(image=image, scale=4)
    job = services.prepare_upscale(spec, ANN, GenerationRequest())
    assert job.spec["upscaler"] == "pocket-x4"  # it is said what was chosen
    assert job.spec["request"]["width"] == 512
    assert services.prepare_upscale(spec, OWNER).spec["request"] is None
    with refused(BadPicture):
        services.prepare_upscale(spec, BOB)
    for changes in ({"scale": 8.0}, {"longer_side": 8000}):
        too_much = spec.model_copy(update=changes)
        with refused(InvalidSpec):
            services.prepare_upscale(too_much, ANN)
        services.prepare_upscale(spec.model_copy(update={"scale": 8.0}), OWNER)
    for changes in ({"longer_side": 1999}, {"upscaler": "4x-none"}, {"upscaler": "a-vae"}):
        with refused((InvalidSpec, ModelNotFound)):
            services.prepare_upscale(spec.model_copy(update=changes), OWNER)


def test_too_large_on_the_way_is_refused(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarge, "MAX_INTERMEDIATE_PIXELS", 1_000)
    with refused(InvalidSpec):
        run(bench, sample(40, 40), upscaler="toy-2x", scale=1.5)


def test_a_damaged_file_fails_the_job_alone(bench: WorkerContext) -> None:
    tensors = upscalers.compact(2)
    tensors["body.4.bias"] = torch.zeros(9)
    upscalers.write(bench.settings.upscalers / "broken.safetensors", tensors)
    with refused(BadFile):
        run(bench, sample(), upscaler="broken", scale=2)
    assert run(bench, sample(), upscaler="toy-2x", scale=2)["size"] == [40, 24]


def sticker() -> Image.Image:
    """A red disc with a soft edge, on transparent black."""
    ring = Image.new("L", (96, 64))
    ImageDraw.Draw(ring).ellipse((20, 10, 76, 54), fill=255)
    alpha = ring.resize((48, 32)).resize(ring.size)
    image = Image.new("RGBA", ring.size)
    image.paste((250, 10, 10), mask=alpha.point(lambda opacity: 255 if opacity else 0))
    image.putalpha(alpha)
    return image


def enlarge_file(bench: WorkerContext, image: Image.Image, upscaler: str) -> Image.Image:
    """What becomes of a file that was taken in with its transparency."""
    file = io.BytesIO()
    image.save(file, "PNG")
    sha256 = bench.home.inputs.add(file.getvalue(), keeps_transparency=True).sha256
    return open_result(upscale(bench, {"image": sha256, "upscaler": upscaler, "scale": 2}, print))


@pytest.mark.parametrize(
    ("upscaler", "resample"),
    [
        ("Lanczos", Image.Resampling.LANCZOS),
        ("Nearest", Image.Resampling.NEAREST),
        ("toy-2x", Image.Resampling.LANCZOS),
    ],
)
def test_transparent_places_stay_transparent(
    bench: WorkerContext, upscaler: str, resample: Image.Resampling
) -> None:
    image = sticker()
    result = enlarge_file(bench, image, upscaler)
    assert (result.mode, result.size) == ("RGBA", (192, 128))
    expected = image.getchannel("A").resize(result.size, resample)
    assert np.array_equal(np.asarray(result.getchannel("A")), np.asarray(expected))


def test_what_hides_in_transparent_places_makes_no_rim(bench: WorkerContext) -> None:
    result = np.asarray(enlarge_file(bench, sticker(), "Lanczos"))
    visible = result[result[..., 3] > 0][:, :3].astype(int)
    assert np.abs(visible - (250, 10, 10)).max() < 20  # black would be 250 away


def test_an_opaque_picture_gets_no_transparency(bench: WorkerContext) -> None:
    image = sample()
    opaque = image.copy()
    opaque.putalpha(255)
    result = enlarge_file(bench, opaque, "Lanczos")
    assert result.mode == "RGB"
    assert np.array_equal(np.asarray(result), np.asarray(image.resize((40, 24), 1)))


def test_words_of_the_queue() -> None:
    spec = {"scale": 4.0, "upscaler": "toy", "longer_side": 0}
    assert describe_job(UPSCALE.name, spec) == "upscale × 4 with toy"
    assert describe_job(UPSCALE.name, spec | {"longer_side": 900}) == "upscale to 900 px with toy"
