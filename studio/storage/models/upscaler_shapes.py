"""Whether the tensors of an upscaler are all there and go together, from names and shapes alone.

Knows: the sizes of SRVGG-compact and of ESRGAN's generator (RRDB), and what each has of them. Does
not know: torch, files, what the networks compute (engine/upscaling), other kinds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from studio.errors import BadFile
from studio.storage.models.upscaler_header import rename_tensors

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
KERNEL = 3
NUM_DENSE_CONVS = 5
_COMPACT_TENSOR = re.compile(r"body\.\d{1,4}\.(weight|bias)")
_DENSE_TENSOR = re.compile(r"body\.\d+\.rdb[123]\.conv[1-5]\.")
_DOUBLING = re.compile(r"conv_up\d\.weight")


@dataclass(frozen=True)
class CompactSizes:
    """Sizes of a SRVGG-compact.

    Attributes:
        channels: Channels of the image, in and out.
        features: Channels between.
        num_convs: Convolutions between the first and the last.
        scale: How many times larger the result is.
    """

    channels: int
    features: int
    num_convs: int
    scale: int

    def list_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all its tensors."""
        shapes: dict[str, Shape] = {}
        for index in range(self.num_convs + 1):
            inputs = self.features if index else self.channels
            shapes |= _list_conv(f"body.{2 * index}", self.features, inputs)
            shapes[f"body.{2 * index + 1}.weight"] = (self.features,)
        outputs = self.channels * self.scale**2
        return shapes | _list_conv(f"body.{2 * self.num_convs + 2}", outputs, self.features)


@dataclass(frozen=True)
class RrdbSizes:
    """Sizes of ESRGAN's generator.

    Attributes:
        channels: Channels of the image, in and out.
        features: Channels between.
        growth: Channels that each convolution of a dense block adds.
        num_blocks: How many times three dense blocks.
        num_doublings: How many times the features are made twice as large.
        fold: Side of the squares of pixels that become channels before anything else.
    """

    channels: int
    features: int
    growth: int
    num_blocks: int
    num_doublings: int
    fold: int

    def list_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all its tensors."""
        shapes = _list_conv("conv_first", self.features, self.channels * self.fold**2)
        for block in range(self.num_blocks):
            for dense in (1, 2, 3):
                for index in range(1, NUM_DENSE_CONVS + 1):
                    outputs = self.features if index == NUM_DENSE_CONVS else self.growth
                    inputs = self.features + (index - 1) * self.growth
                    shapes |= _list_conv(f"body.{block}.rdb{dense}.conv{index}", outputs, inputs)
        doublings = [f"conv_up{number}" for number in range(1, self.num_doublings + 1)]
        for name in ("conv_body", *doublings, "conv_hr"):
            shapes |= _list_conv(name, self.features, self.features)
        return shapes | _list_conv("conv_last", self.channels, self.features)


def find_upscaler_problem(shapes: Shapes) -> str:
    """Return why an upscaler's file cannot be used, as the end of a sentence; empty if it can.

    Args:
        shapes: Of its tensors, under the names in the file.
    """
    renamed = {new: shapes[old] for old, new in rename_tensors(list(shapes)).items()}
    try:
        measure_upscaler(renamed)
    except BadFile as error:
        return f"{str(error).removeprefix('it ').removesuffix('.')}; copy the file again"
    return ""


def measure_upscaler(shapes: Shapes) -> CompactSizes | RrdbSizes | None:
    """Return the sizes of the network that tensors belong to.

    Args:
        shapes: Of a whole state dict, under today's names (`rename_tensors`).

    Returns:
        None for a network of another kind.

    Raises:
        BadFile: It is one of ours, but tensors are missing or too many, or of the wrong shape; a
            sentence that begins with "it".
    """
    sizes: CompactSizes | RrdbSizes
    if "body.0.weight" in shapes and all(map(_COMPACT_TENSOR.fullmatch, shapes)):
        sizes = _measure_compact(shapes)
    elif any(map(_DENSE_TENSOR.match, shapes)):
        if any(".conv1x1." in name for name in shapes):
            return None  # ESRGAN+
        sizes = _measure_rrdb(shapes)
    else:
        return None
    expected = sizes.list_shapes()
    for name in sorted(expected.keys() - shapes.keys()):
        raise BadFile(f"it lacks {name}.")
    for name in sorted(shapes.keys() - expected.keys()):
        raise BadFile(f"it has {name!a:.80}, which no such network has.")
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise BadFile(f"it has {name} in the shape {list(shapes[name])} and not {list(shape)}.")
    return sizes


def _measure_compact(shapes: Shapes) -> CompactSizes:
    first = shapes["body.0.weight"]
    last_index = max(int(name.split(".")[1]) for name in shapes)
    last = shapes.get(f"body.{last_index}.weight", ())
    # Two tensors for each convolution, one for each activation between them.
    num_tensors = 2 * (last_index // 2 + 1) + last_index // 2
    is_chain = last_index >= 2 and last_index % 2 == 0
    if is_chain and len(shapes) < num_tensors <= 2 * len(shapes):
        _check_chain(shapes, last_index)
    if not is_chain or len(shapes) != num_tensors or len(first) != 4 or len(last) != 4:
        raise BadFile("it has layers that are not those of a compact upscaler.")
    channels = first[1]
    scale = math.isqrt(last[0] // channels) if channels else 0
    if channels not in (1, 3) or scale < 1 or last[0] != channels * scale**2:
        raise BadFile(f"it makes {last[0]} channels out of {channels}, which is no enlarged image.")
    return CompactSizes(channels, first[0], last_index // 2 - 1, scale)


def _check_chain(shapes: Shapes, last_index: int) -> None:
    """Raise BadFile for the first tensor that is missing in a row of layers."""
    for index in range(last_index + 1):
        for kind in ("weight", "bias") if index % 2 == 0 else ("weight",):
            if f"body.{index}.{kind}" not in shapes:
                raise BadFile(f"it lacks body.{index}.{kind}.")


def _measure_rrdb(shapes: Shapes) -> RrdbSizes:
    names = ("conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight")
    missing = [name for name in names if len(shapes.get(name, ())) != 4]
    if missing:
        raise BadFile(f"it lacks {missing[0]}.")
    features, in_channels = shapes[names[0]][:2]
    channels = shapes[names[1]][0]
    fold = math.isqrt(in_channels // channels) if channels else 0
    num_doublings = sum(bool(_DOUBLING.fullmatch(name)) for name in shapes)
    is_image = channels in (1, 3) and in_channels == channels * fold**2
    if not is_image or fold not in (1, 2, 4) or 2**num_doublings < fold:
        raise BadFile(
            f"it makes {channels} channels out of {in_channels} in {num_doublings} steps, "
            "which is no enlarged image."
        )
    block_numbers = {name.split(".")[1] for name in shapes if name.startswith("body.")}
    # A file may name as many blocks as it likes; each has 30 tensors.
    if 2 * len(shapes) < 30 * len(block_numbers):
        raise BadFile("it lacks most of its blocks.")
    return RrdbSizes(
        channels,
        features,
        shapes[names[2]][0],
        len(block_numbers),
        num_doublings=num_doublings,
        fold=fold,
    )


def _list_conv(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, KERNEL, KERNEL), f"{name}.bias": (outputs,)}
