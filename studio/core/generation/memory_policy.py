"""Which parts of a model lie where, and in what form, so that an image fits into the memory.

Knows: the plans, from all at once to one layer at a time, what each takes at its peak, which of
them change the image. Does not know: torch, files, how a part is put where the plan says
(engine/models/part_placement.py), how much is free (engine/models/memory_planner.py).

The first plan that fits is taken; what is exact and fast comes first. One image at a time is
reckoned with: more in one call are a matter of the batch, which shrinks by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from studio.core.families.family import DENOISER, VAE

MemorySetting = Literal["auto", "low", "lowest"]
# whole: every part stays. turns: the text encoders and the autoencoder come only while they work.
# fp8: so, and the denoiser is kept in 8 bits. streamed: every part comes layer by layer.
Level = Literal["whole", "turns", "fp8", "streamed"]
PLAN_CONTENTS = ("memory", "autoencoder")  # what a digest holds of a plan
MEMORY_RAN_OUT_NOTE = "Memory ran out along the way; the rest was made with less."
# Of a part that comes layer by layer its largest layer is on the device at once. Of the released
# models' parts that is a tenth at most (Qwen3-4B: 9.7 %, SDXL's U-Net: 1.1 %), and where it is
# more, under this (CLIP-L's words: 51 MB in half precision, 101 MB in float32).
STREAMED_SHARE = 10
MIN_STREAMED_BYTES = 128 * 2**20
# What of a denoiser is not kept in 8 bits, such as norms, is under 0.1 %; the embedders of Z-Image,
# which stay too, 0.3 %.
FP8_SHARE = 1.01


@dataclass(frozen=True)
class ModelBytes:
    """What a request takes, in bytes, with all numbers in the format to compute in.

    Attributes:
        text_encoders: Their weights.
        denoiser: Its weights.
        vae: The autoencoder's weights.
        denoiser_fp8: The denoiser's weights in 8 bits.
        adapters: What LoRAs add.
        denoise: What a call of the denoiser holds for one image, both branches.
        decode: What the autoencoder holds at its peak.
        tiled_decode: The same in tiles.
    """

    text_encoders: int
    denoiser: int
    vae: int
    denoiser_fp8: int
    adapters: int
    denoise: int
    decode: int
    tiled_decode: int


@dataclass(frozen=True)
class MemoryState:
    """What a device has for one model.

    Attributes:
        free: Bytes for it on the device, what it has there already included.
        host_free: The same in the machine's own memory.
        is_shared: Whether the device's memory is the machine's: then nothing waits elsewhere.
        stores_fp8: Whether numbers of 8 bits can be kept there.
    """

    free: int
    host_free: int
    is_shared: bool
    stores_fp8: bool


@dataclass(frozen=True)
class MemoryPlan:
    """Where the parts of a model lie while an image is made.

    Attributes:
        level: What is done to save memory.
        is_tiled: Whether the autoencoder works in tiles.
        drops_parts: Whether parts that are not needed are given up and read again, instead of
            waiting in the machine's memory.
        peak_bytes: The most that lies on the device at once.
        host_bytes: The most that lies in the machine's memory, where that is another.
        denoise_bytes: What is left free for a call of the denoiser.
        decode_bytes: What is left free for the autoencoder.
    """

    level: Level
    is_tiled: bool = False
    drops_parts: bool = False
    peak_bytes: int = 0
    host_bytes: int = 0
    denoise_bytes: int = 0
    decode_bytes: int = 0

    @property
    def is_fp8(self) -> bool:
        """Whether the denoiser is kept in 8 bits."""
        return self.level == "fp8"

    def is_streamed(self, part: str) -> bool:
        """Return whether a part waits in the machine's memory and comes layer by layer."""
        if self.drops_parts or self.level == "whole":
            return False
        return self.level == "streamed" or part != DENOISER

    def describe_form(self, part: str) -> str:
        """Return a word for how a part is kept; empty where nothing is special."""
        if self.is_streamed(part):
            return "streamed"
        return "fp8" if self.is_fp8 and part == DENOISER else ""

    def get_working_bytes(self, part: str) -> int:
        """Return what has to stay free beside a part while it works."""
        return {DENOISER: self.denoise_bytes, VAE: self.decode_bytes}.get(part, 0)

    @property
    def contents(self) -> dict[str, str]:
        """What a digest is made over, of all that changes the image; nothing of a whole model."""
        contents = {"memory": "fp8"} if self.is_fp8 else {}
        return contents | ({"autoencoder": "in tiles"} if self.is_tiled else {})

    def update_contents(self, content_hashes: Mapping[str, str]) -> dict[str, str]:
        """Return what a digest is made over, with this plan in the place of another."""
        kept = {key: value for key, value in content_hashes.items() if key not in PLAN_CONTENTS}
        return kept | self.contents

    @property
    def title(self) -> str:
        """The plan in a few words."""
        words = {
            "whole": "fits whole",
            "turns": "parts in turns",
            "fp8": "parts in turns, 8 bits",
            "streamed": "layer by layer",
        }[self.level]
        return f"{words}, decoded in tiles" if self.is_tiled else words

    @property
    def notes(self) -> list[str]:
        """Sentences for whoever asked for an image; none if the whole model fits."""
        waiting = "are loaded" if self.drops_parts else "are loaded onto the card"
        sentences = {
            "whole": [],
            "turns": [f"To save memory, text encoders and autoencoder {waiting} only when needed."],
            "fp8": [
                f"To save memory, text encoders and autoencoder {waiting} only when needed, and "
                "the model is kept in 8 bits: the image differs from one made with more memory."
            ],
            "streamed": [
                "To save memory, the model is loaded onto the card layer by layer: the image is "
                "the same, but takes longer."
            ],
        }[self.level]
        if self.is_tiled:
            sentences.append(
                "To save memory, the image is decoded in tiles, whose colours may differ slightly."
            )
        return sentences


WHOLE = MemoryPlan("whole")


def choose_plan(
    sizes: ModelBytes,
    state: MemoryState,
    setting: MemorySetting = "auto",
    below: MemoryPlan | None = None,
) -> MemoryPlan | None:
    """Return the first plan that fits; None if none does.

    Args:
        sizes: What the request takes.
        state: What there is.
        setting: "low" takes turns and 8 bits at least, "lowest" comes layer by layer.
        below: A plan that turned out not to fit; only those that take less come into question.
    """
    for plan in list_plans(sizes, state, setting):
        if below is not None and plan.peak_bytes >= below.peak_bytes:
            continue
        if plan.peak_bytes <= state.free and plan.host_bytes <= state.host_free:
            return plan
    return None


def list_plans(
    sizes: ModelBytes, state: MemoryState, setting: MemorySetting = "auto"
) -> list[MemoryPlan]:
    """Return the plans that a device and a setting allow, in the order of preference."""
    return [
        _build_plan(sizes, level, drops_parts=drops_parts, is_tiled=is_tiled)
        for level, drops_parts in _list_levels(state, setting)
        for is_tiled in ((False,) if level == "whole" else (False, True))
    ]


def _list_levels(state: MemoryState, setting: MemorySetting) -> Iterator[tuple[Level, bool]]:
    """Yield the levels that come into question, and whether parts are dropped meanwhile.

    Where the device's memory is the machine's, nothing can wait elsewhere; and a processor that
    has to unpack 8 bits for each layer does so only when it is asked to. A card drops parts only
    where the machine has no room for them.
    """
    if state.is_shared:
        if setting == "auto":
            yield "whole", False
        yield "fp8" if state.stores_fp8 and setting != "auto" else "turns", True
        return
    if setting == "auto":
        yield "whole", False
        yield "turns", False
        yield "turns", True
    if setting != "lowest" and state.stores_fp8:
        yield "fp8", False
    yield "streamed", False


def _build_plan(
    sizes: ModelBytes, level: Level, *, drops_parts: bool, is_tiled: bool
) -> MemoryPlan:
    decode = sizes.tiled_decode if is_tiled else sizes.decode
    if level == "whole":
        weights = sizes.text_encoders + sizes.denoiser + sizes.vae
        # Pieces that the denoiser leaves are not always of use to the autoencoder.
        peak_bytes = weights + sizes.denoise + decode
    elif drops_parts:
        held_bytes = sizes.denoiser_fp8 if level == "fp8" else sizes.denoiser
        if sizes.adapters:  # a LoRA keeps all that it may be on
            held_bytes += sizes.text_encoders
        peak_bytes = max(
            sizes.text_encoders,
            sizes.denoiser,  # as it is read
            held_bytes + max(sizes.denoise, sizes.vae + decode),
        )
    else:
        streamed_denoiser = get_streamed_bytes(sizes.denoiser)
        held_denoiser = {"turns": sizes.denoiser, "fp8": sizes.denoiser_fp8}.get(level, 0)
        peak_bytes = held_denoiser + max(
            sizes.denoise + (streamed_denoiser if level == "streamed" else 0),
            get_streamed_bytes(sizes.text_encoders),
            get_streamed_bytes(sizes.vae) + decode,
        )
    host_bytes = 0
    if not drops_parts and level != "whole":
        host_bytes = sizes.text_encoders + sizes.vae
        if level != "turns":  # one in 8 bits passes through it
            host_bytes += sizes.denoiser
    return MemoryPlan(
        level,
        is_tiled,
        drops_parts,
        peak_bytes=peak_bytes + sizes.adapters,
        host_bytes=host_bytes,
        denoise_bytes=sizes.denoise,
        decode_bytes=decode,
    )


def get_streamed_bytes(part_bytes: int) -> int:
    """Return what of a part that comes layer by layer is on the device at once, at most."""
    return max(part_bytes // STREAMED_SHARE, min(part_bytes, MIN_STREAMED_BYTES))
