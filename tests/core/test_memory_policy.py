"""Which memory plan is chosen: it fits, it is the first that does, and more memory is never answered with a lower one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.families.family import DENOISER, TEXT_ENCODERS, VAE
from studio.core.generation.memory_policy import (
    WHOLE,
    MemoryPlan,
    MemorySetting,
    MemoryState,
    ModelBytes,
    choose_plan,
    list_plans,
)

pytestmark = pytest.mark.smoke
GIB = 2**30
README = Path(__file__).resolve().parents[2] / "README.md"
amounts = st.integers(0, 40 * GIB)
settings: st.SearchStrategy[MemorySetting] = st.sampled_from(["auto", "low", "lowest"])
sizes = st.builds(
    lambda encoders, denoiser, vae, adapters, denoise, decode: ModelBytes(
        encoders, denoiser, vae, denoiser // 2, adapters, denoise, decode, decode // 4
    ),
    *[amounts] * 6,
)
states = st.builds(MemoryState, amounts, amounts, st.booleans(), st.booleans())
# Half-precision weights in bytes: files of SD 1.5 (2.13 GB) and SDXL (6.94 GB), Z-Image's parts (11.5 GiB, Qwen3-4B of
# 4.02 B numbers); the autoencoder in float32, and what a call holds at the model's own size.
FAMILY_BYTES = {
    "SD 1.5": ModelBytes(
        text_encoders=246_144_152,
        denoiser=1_719_125_304,
        vae=2 * 167_335_342,
        denoiser_fp8=int(1_719_125_304 * 1.01) // 2,
        adapters=0,
        denoise=2 * 128 * 512 * 512 * 2,
        decode=768 * 512 * 512 * 4,
        tiled_decode=768 * 512 * 512 * 4,
    ),
    "SDXL": ModelBytes(
        text_encoders=246_144_152 + 1_389_382_176,
        denoiser=5_135_149_760,
        vae=2 * 167_335_342,
        denoiser_fp8=int(5_135_149_760 * 1.01) // 2,
        adapters=0,
        denoise=2 * 127 * 1024 * 1024 * 2,
        decode=768 * 1024 * 1024 * 4,
        tiled_decode=768 * 512 * 512 * 4,
    ),
    "Z-Image": ModelBytes(
        text_encoders=8_044_936_192,
        denoiser=12_309_817_472,
        vae=2 * 167_666_902,
        denoiser_fp8=int(12_309_817_472 * 1.01) // 2,
        adapters=0,
        denoise=2 * 180 * 1024 * 1024 * 2,
        decode=768 * 1024 * 1024 * 4,
        tiled_decode=768 * 512 * 512 * 4,
    ),
}
CARDS_GB = (6, 8, 12, 16, 24)
KEEP_FREE = GIB  # the setting's default
TABLE = """
| card | SD 1.5 | SDXL | Z-Image |
|---|---|---|---|
| 6 GB | fits whole | parts in turns, 8 bits, decoded in tiles | layer by layer |
| 8 GB | fits whole | parts in turns, decoded in tiles | parts in turns, 8 bits, decoded in tiles |
| 12 GB | fits whole | fits whole | parts in turns, 8 bits |
| 16 GB | fits whole | fits whole | parts in turns |
| 24 GB | fits whole | fits whole | fits whole |
"""


@given(sizes, states, settings)
def test_the_plan_fits_and_all_before_it_do_not(
    sizes: ModelBytes, state: MemoryState, setting: MemorySetting
) -> None:
    def fits(plan: MemoryPlan) -> bool:
        return plan.peak_bytes <= state.free and plan.host_bytes <= state.host_free

    plans = list_plans(sizes, state, setting)
    plan = choose_plan(sizes, state, setting)
    assert plan == choose_plan(sizes, state, setting)
    fitting = [candidate for candidate in plans if fits(candidate)]
    assert plan == (fitting[0] if fitting else None)


@given(sizes, states, settings, amounts, amounts)
def test_more_memory_never_gives_a_lower_plan(
    sizes: ModelBytes, state: MemoryState, setting: MemorySetting, more: int, host_more: int
) -> None:
    plans = list_plans(sizes, state, setting)
    plan = choose_plan(sizes, state, setting)
    larger = replace(state, free=state.free + more, host_free=state.host_free + host_more)
    if plan is not None:
        better = choose_plan(sizes, larger, setting)
        assert better is not None
        assert plans.index(better) <= plans.index(plan)


@given(sizes, states, settings)
def test_what_lies_on_the_device_is_within_the_peak(
    sizes: ModelBytes, state: MemoryState, setting: MemorySetting
) -> None:
    """Counted anew for each moment: prompts are read, the denoiser runs, the image is decoded."""
    for plan in list_plans(sizes, state, setting):
        decode = sizes.tiled_decode if plan.is_tiled else sizes.decode
        encoders = 0 if plan.is_streamed(TEXT_ENCODERS) else sizes.text_encoders
        vae = 0 if plan.is_streamed(VAE) else sizes.vae
        denoiser = sizes.denoiser_fp8 if plan.is_fp8 else sizes.denoiser
        if plan.is_streamed(DENOISER):
            denoiser = 0
        moments = [encoders, denoiser + sizes.denoise, denoiser + vae + decode]
        if plan.level == "whole":
            moments = [encoders + denoiser + vae + max(sizes.denoise, decode)]
        if plan.is_fp8 and plan.drops_parts:
            moments.append(sizes.denoiser)  # while it is read
        assert max(moments) + sizes.adapters <= plan.peak_bytes


@given(sizes, states, settings)
def test_the_next_plan_takes_less(
    sizes: ModelBytes, state: MemoryState, setting: MemorySetting
) -> None:
    plan = choose_plan(sizes, state, setting)
    while plan is not None:
        lower = choose_plan(sizes, state, setting, below=plan)
        assert lower is None or lower.peak_bytes < plan.peak_bytes
        plan = lower


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_setting_is_kept_however_much_there_is(is_shared: bool) -> None:
    state = MemoryState(1000 * GIB, 1000 * GIB, is_shared, stores_fp8=True)
    levels = {}
    for setting in ("auto", "low", "lowest"):
        plan = choose_plan(FAMILY_BYTES["SDXL"], state, setting)
        assert plan
        levels[setting] = plan.level
    lowest = "fp8" if is_shared else "streamed"
    assert levels == {"auto": "whole", "low": "fp8", "lowest": lowest}


def test_where_8_bits_cannot_be_kept_other_plans_are() -> None:
    shared = MemoryState(1000 * GIB, 0, is_shared=True, stores_fp8=False)
    card = replace(shared, is_shared=False, host_free=1000 * GIB)
    for state, level in ((shared, "turns"), (card, "streamed")):
        plan = choose_plan(FAMILY_BYTES["SDXL"], state, "low")
        assert plan
        assert plan.level == level


def test_only_what_changes_the_image_is_in_the_digest() -> None:
    contents = {
        (plan.level, plan.is_tiled): plan.contents
        for plan in list_plans(
            FAMILY_BYTES["SDXL"], MemoryState(0, 0, is_shared=False, stores_fp8=True)
        )
    }
    tiles = {"autoencoder": "in tiles"}
    assert contents == {
        ("whole", False): {},
        ("turns", False): {},
        ("turns", True): tiles,
        ("fp8", False): {"memory": "fp8"},
        ("fp8", True): {"memory": "fp8"} | tiles,
        ("streamed", False): {},
        ("streamed", True): tiles,
    }
    hashes = {"model": "a", "memory": "fp8", "autoencoder": "in tiles"}
    assert WHOLE.update_contents(hashes) == {"model": "a"}


def test_a_machine_with_little_memory_of_its_own() -> None:
    """Where parts cannot wait beside the card, they are dropped and read again; no other plan is left."""
    sdxl = FAMILY_BYTES["SDXL"]
    state = MemoryState(7 * GIB, 2 * GIB, is_shared=False, stores_fp8=True)
    dropped, plans = [], []
    for host_free in (2 * GIB, GIB):
        plan = choose_plan(sdxl, replace(state, host_free=host_free))
        assert plan
        plans.append((plan.level, plan.is_tiled))
        dropped.append(plan.drops_parts)
        assert plan.is_streamed(VAE) != plan.drops_parts
    assert dropped == [False, True]
    assert plans == [("turns", True)] * 2
    assert choose_plan(sdxl, replace(state, free=5 * GIB, host_free=GIB)) is None
    assert choose_plan(sdxl, replace(state, host_free=GIB), "low") is None


def build_table() -> list[str]:
    """The table that README has, by the function itself."""
    lines = [
        f"| card | {' | '.join(FAMILY_BYTES)} |",
        f"|---|{'---|' * len(FAMILY_BYTES)}",
    ]
    for card in CARDS_GB:
        state = MemoryState(card * GIB - KEEP_FREE, 64 * GIB, is_shared=False, stores_fp8=True)
        plans = [choose_plan(sizes, state) for sizes in FAMILY_BYTES.values()]
        titles = [plan.title if plan else "does not fit" for plan in plans]
        lines.append(f"| {card} GB | {' | '.join(titles)} |")
    return lines


def test_the_table_of_cards() -> None:
    """README's, if it has one, is this."""
    assert "\n".join(build_table()) == TABLE.strip()
    readme = README.read_text("utf-8")
    assert TABLE.strip() in readme or TABLE.strip().partition("\n")[0] not in readme
