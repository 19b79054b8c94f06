"""Upscaling networks from their files alone: in all names, of any size, the numbers of an independent formula; bad files refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from studio.engine.models.devices import Device
from studio.engine.upscaling import tiles
from studio.engine.upscaling.loader import Upscaler, load_upscaler
from studio.engine.upscaling.tiles import plan_tiles, upscale_image
from studio.errors import BadFile, OutOfMemory
from studio.storage.models.upscaler_header import read_scale
from support import upscalers
from support.sentences import refused
from support.upscalers import Tensors

CPU = Device(torch.device("cpu"), torch.float32)
REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
REAL_UPSCALER = REAL / "upscaler" / "realesr-animevideov3-x4.safetensors"


def compute_compact(tensors: Tensors, image: Tensor) -> Tensor:
    """The formula of SRVGG-compact, layer after layer from the file."""
    y = image
    last = max(int(name.split(".")[1]) for name in tensors)
    for number in range(last + 1):
        weight = tensors[f"body.{number}.weight"]
        if weight.ndim == 1:
            y = F.prelu(y, weight)
        else:
            y = F.conv2d(y, weight, tensors[f"body.{number}.bias"], padding=1)
    scale = int((tensors[f"body.{last}.weight"].shape[0] / image.shape[1]) ** 0.5)
    return F.pixel_shuffle(y, scale) + F.interpolate(image, scale_factor=scale, mode="nearest")


def compute_rrdb(tensors: Tensors, image: Tensor, doublings: int, fold: int) -> Tensor:
    """The formula of ESRGAN's generator."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)

    def dense(name: str, x: Tensor) -> Tensor:
        maps = x
        for number in range(1, 5):
            added = F.leaky_relu(conv(f"{name}.conv{number}", maps), 0.2)
            maps = torch.cat((maps, added), 1)
        return x + 0.2 * conv(f"{name}.conv5", maps)

    x = conv("conv_first", F.pixel_unshuffle(image, fold) if fold > 1 else image)
    y = x
    block = 0
    while f"body.{block}.rdb1.conv1.weight" in tensors:
        z = y
        for number in (1, 2, 3):
            z = dense(f"body.{block}.rdb{number}", z)
        y = y + 0.2 * z
        block += 1
    x = x + conv("conv_body", y)
    for number in range(1, doublings + 1):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.leaky_relu(conv(f"conv_up{number}", x), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2))


def sample_image(width: int, height: int, seed: int = 3) -> Image.Image:
    """Smooth colours with some noise."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height)), np.int16)
    noisy = smooth + chance.integers(-20, 21, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None] / 255


def to_pixels(result: Tensor) -> np.ndarray:
    pixels = result[0].clamp(0, 1).mul(255).round().permute(1, 2, 0)
    return np.asarray(pixels.numpy(), np.int16)


def run(upscaler: Upscaler, image: Image.Image, tile_side: int = 4096) -> np.ndarray:
    return np.asarray(upscale_image(upscaler, image, CPU, tile_side=tile_side), np.int16)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("scale", "features", "convs"), [(4, 8, 3), (2, 6, 1), (3, 5, 0), (1, 8, 2), (8, 4, 2)]
)
def test_compact_of_any_size(tmp_path: Path, scale: int, features: int, convs: int) -> None:
    tensors = upscalers.compact(scale, features, convs)
    file = upscalers.write(tmp_path / "x.safetensors", tensors)
    upscaler = load_upscaler(file, "x", CPU)
    assert upscaler.scale == read_scale(file) == scale
    image = sample_image(13, 9)
    expected = compute_compact(tensors, to_tensor(image))
    assert torch.equal(upscaler.network(to_tensor(image)), expected)
    assert np.array_equal(run(upscaler, image), to_pixels(expected))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("doublings", "fold", "scale"), [(2, 1, 4), (2, 2, 2), (2, 4, 1), (1, 1, 2), (3, 1, 8)]
)
def test_esrgan_of_any_scale(tmp_path: Path, doublings: int, fold: int, scale: int) -> None:
    tensors = upscalers.rrdb(doublings, fold)
    file = upscalers.write(tmp_path / "x.safetensors", tensors)
    upscaler = load_upscaler(file, "x", CPU)
    assert (upscaler.scale, upscaler.multiple) == (scale, fold)
    assert read_scale(file) == scale
    image = sample_image(12, 8)
    expected = compute_rrdb(tensors, to_tensor(image), doublings, fold)
    torch.testing.assert_close(upscaler.network(to_tensor(image)), expected, rtol=0, atol=1e-6)
    assert np.abs(run(upscaler, image) - to_pixels(expected)).max() <= 1


@pytest.mark.smoke
@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
@pytest.mark.parametrize("rename", [upscalers.in_first_names, upscalers.in_trunk_names])
def test_older_names_are_the_same_network(
    tmp_path: Path, doublings: int, rename: Callable[..., Tensors]
) -> None:
    tensors = upscalers.rrdb(doublings)
    old = rename(tensors, doublings) if rename is upscalers.in_first_names else rename(tensors)
    assert old.keys() != tensors.keys()
    new = load_upscaler(upscalers.write(tmp_path / "new.safetensors", tensors), "new", CPU)
    upscaler = load_upscaler(upscalers.write(tmp_path / "old.safetensors", old), "old", CPU)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(upscaler.network(x), new.network(x))
    assert read_scale(tmp_path / "old.safetensors") == 2**doublings


@pytest.mark.smoke
def test_a_grey_network_makes_a_grey_image(tmp_path: Path) -> None:
    tensors = upscalers.compact(2, channels=1)
    upscaler = load_upscaler(upscalers.write(tmp_path / "x.safetensors", tensors), "x", CPU)
    image = sample_image(7, 5)
    result = upscale_image(upscaler, image, CPU)
    grey = torch.from_numpy(np.array(image.convert("L"), np.float32))[None, None] / 255
    assert (result.mode, result.size) == ("RGB", (14, 10))
    expected = to_pixels(compute_compact(tensors, grey)).repeat(3, 2)
    assert np.array_equal(np.asarray(result, np.int16), expected)


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (67, 3), (71, 53), (64, 64)])
@pytest.mark.parametrize("fold", [1, 2])
def test_no_seam_between_tiles(tmp_path: Path, size: tuple[int, int], fold: int) -> None:
    tensors = upscalers.rrdb(2, fold, blocks=1)
    upscaler = load_upscaler(upscalers.write(tmp_path / "x.safetensors", tensors), "x", CPU)
    assert upscaler.reach_px == fold * 21  # all that it looks at
    image = sample_image(*size)
    whole = run(upscaler, image)
    assert whole.shape == (size[1] * upscaler.scale, size[0] * upscaler.scale, 3)
    # Sums of other tensors are rounded otherwise; a seam would be many times as large.
    assert np.abs(run(upscaler, image, tile_side=16) - whole).max() <= 1


@pytest.mark.smoke
def test_a_deep_network_is_given_less_around_a_tile_and_shows_no_seam(tmp_path: Path) -> None:
    tensors = upscalers.rrdb(2, blocks=6)
    upscaler = load_upscaler(upscalers.write(tmp_path / "x.safetensors", tensors), "x", CPU)
    assert upscaler.reach_px == 32  # of 96
    image = sample_image(90, 70)
    assert np.abs(run(upscaler, image, tile_side=32) - run(upscaler, image)).max() <= 1


@pytest.mark.smoke
def test_tiles_cover_the_image_once() -> None:
    for width, height, side, reach, multiple in (
        (100, 60, 32, 7, 1),
        (100, 60, 33, 7, 4),
        (4, 4, 32, 9, 4),
        (640, 4, 32, 0, 4),
    ):
        covered = np.zeros((height, width), int)
        for box, shown in plan_tiles(width, height, side, reach, multiple):
            covered[box[1] : box[3], box[0] : box[2]] += 1
            assert max(box[2] - box[0], box[3] - box[1]) <= max(side, multiple) + multiple
            assert all(edge % multiple == 0 for edge in (*box, *shown))
            assert shown[0] in (0, box[0] - -(-reach // multiple) * multiple)
        assert (covered == 1).all()


@pytest.mark.smoke
def test_what_overflows_in_half_precision_is_made_again_in_full(tmp_path: Path) -> None:
    tensors = upscalers.compact(2)
    tensors["body.0.weight"] *= 3e5
    tensors["body.2.weight"] /= 3e5
    file = upscalers.write(tmp_path / "x.safetensors", tensors)
    half = load_upscaler(file, "x", Device(torch.device("cpu"), torch.float16))
    # What is infinite in float16, and is an ordinary number after the next convolution
    assert torch.isinf(half.network.body[0].weight).any()  # type: ignore[index, union-attr]
    half.network.body[0].weight.data = tensors["body.0.weight"].half().clamp(-6e4, 6e4)  # type: ignore[index, union-attr]
    image = sample_image(40, 40)
    with torch.inference_mode():
        assert not torch.isfinite(half.network(to_tensor(image).half())).all()
    result = upscale_image(half, image, CPU, tile_side=32)
    assert half.network.body[0].weight.dtype == torch.float16  # type: ignore[index, union-attr]
    full = Upscaler(half.network.float(), 3, 2, 1, half.reach_px, torch.float32)
    assert np.array_equal(np.asarray(result, np.int16), run(full, image, 32))


@pytest.mark.smoke
def test_numbers_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    tensors = upscalers.compact(2)
    tensors["body.2.bias"][0] = torch.nan
    upscaler = load_upscaler(upscalers.write(tmp_path / "x.safetensors", tensors), "x", CPU)
    with refused(BadFile):
        upscale_image(upscaler, sample_image(8, 8), CPU)


class Hungry(torch.nn.Module):
    """A network on a device that has no memory for more than `limit` pixels."""

    def __init__(self, network: torch.nn.Module, limit: int) -> None:
        super().__init__()
        self.network = network
        self.limit = limit
        self.sizes: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.append(image.shape[-1] * image.shape[-2])
        if self.sizes[-1] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        result: Tensor = self.network(image)
        return result


@pytest.mark.smoke
def test_full_memory_makes_the_tiles_smaller(tmp_path: Path) -> None:
    file = upscalers.write(tmp_path / "x.safetensors", upscalers.compact(2))
    upscaler = load_upscaler(file, "x", CPU)
    image = sample_image(200, 90)
    whole = run(upscaler, image)
    upscaler.network = Hungry(upscaler.network, 50 * 50)
    assert np.abs(run(upscaler, image, 128) - whole).max() <= 1
    assert max(upscaler.network.sizes) > 2500
    upscaler.network = Hungry(upscaler.network.network, 10)
    with pytest.raises(OutOfMemory, match="not have enough memory to enlarge 32 × 32"):
        run(upscaler, image, 128)
    assert tiles.MIN_TILE_SIDE_PX == 32


def without(tensors: Tensors, name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if key != name}


BROKEN: dict[str, Callable[[], Tensors]] = {
    "a bias is missing": lambda: without(upscalers.rrdb(), "body.1.rdb2.conv3.bias"),
    "the last layer is missing": lambda: without(upscalers.rrdb(), "conv_last.weight"),
    "a tensor too many": lambda: upscalers.rrdb() | {"conv_more.weight": torch.zeros(1)},
    "a wrong shape": lambda: upscalers.rrdb() | {"conv_hr.weight": torch.zeros(8, 7, 3, 3)},
    "five channels": lambda: upscalers.rrdb(channels=5),
    "a compact one without its end": lambda: without(upscalers.compact(), "body.8.weight"),
    "a compact one of no scale": lambda: (
        upscalers.compact()
        | {"body.8.weight": torch.zeros(47, 8, 3, 3), "body.8.bias": torch.zeros(47)}
    ),
    "a layer far away": lambda: (
        upscalers.compact() | {"body.9998.weight": torch.zeros(48, 8, 3, 3)}
    ),
    "another kind": lambda: {
        "conv_first.weight": torch.zeros(1),
        "conv_last.weight": torch.zeros(1),
    },
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_such_network_is_refused_in_words(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with refused(BadFile):
        load_upscaler(upscalers.write(tmp_path / "x.safetensors", BROKEN[case]()), "x", CPU)


@pytest.mark.smoke
def test_a_cut_file_is_refused_in_words(tmp_path: Path) -> None:
    file = upscalers.write(tmp_path / "x.safetensors", upscalers.compact())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadFile, match="upscaler x cannot be read"):
        load_upscaler(file, "x", CPU)


@pytest.mark.skipif(not REAL_UPSCALER.is_file(), reason="the real upscaler is not here")
@pytest.mark.slow
def test_the_real_one() -> None:
    tensors = {name: tensor.float() for name, tensor in load_file(REAL_UPSCALER).items()}
    upscaler = load_upscaler(REAL_UPSCALER, "real", CPU)
    assert (upscaler.scale, upscaler.reach_px) == (4, 18)
    image = Image.open(REAL / "photos" / "dog3" / "00.jpg").convert("RGB").resize((181, 137))
    with torch.inference_mode():
        expected = to_pixels(compute_compact(tensors, to_tensor(image)))
    whole = run(upscaler, image)
    assert np.abs(whole - expected).max() <= 1
    assert np.abs(run(upscaler, image, 64) - whole).max() <= 1
    large = Image.open(REAL / "photos" / "dog3" / "00.jpg").convert("RGB").resize((724, 548))
    lanczos = np.asarray(image.resize(large.size, Image.Resampling.LANCZOS), np.int16)
    detail = [np.abs(np.diff(pixels, axis=1)).mean() for pixels in (whole, lanczos)]
    assert detail[0] > 1.05 * detail[1]  # sharper


def test_other_kinds_go_through_spandrel(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel", reason="the extra `upscale` is not installed")
    tensors = upscalers.rrdb()
    expected = spandrel.ModelLoader().load_from_state_dict(dict(tensors)).eval()
    upscaler = load_upscaler(upscalers.write(tmp_path / "x.safetensors", tensors), "x", CPU)
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(upscaler.network(x), expected.model(x), rtol=0, atol=1e-6)
