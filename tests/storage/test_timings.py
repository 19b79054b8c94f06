"""What was measured on this machine, and what is foretold from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.base import validate
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.settings import Settings
from studio.storage.gallery import Gallery
from studio.storage.models.library import Library
from studio.storage.timings import load_timings, record_timings

BASE: dict[str, Any] = {
    "prompt": "a boat",
    "steps": 2,
    "width": 64,
    "height": 64,
    "noise_schedule": "Model default",
    "seed": 1,
}


def known(settings: Settings, together: bool = False) -> Any:
    return load_timings(
        settings, Gallery(settings), Library(settings), ["pocket", "gone"], together
    )


def test_small_changes_are_not_written(settings: Settings) -> None:
    record_timings(settings, "pocket", load=2.0)
    record_timings(settings, "pocket", encode=0.5)
    before = (settings.home / "rates.json").stat().st_mtime_ns
    record_timings(settings, "pocket", load=2.1, encode=0.45)
    assert (settings.home / "rates.json").stat().st_mtime_ns == before
    record_timings(settings, "pocket", load=4.0)
    assert (known(settings)["pocket"].load, known(settings)["pocket"].encode) == (
        4.0,
        0.5,
    )
    assert "gone" not in known(settings)


@pytest.mark.parametrize(
    "broken", ["", "{", "[1]", '{"pocket": 5}', '{"pocket": {"load": "x"}}', "[" * 100_000]
)
def test_a_broken_memory_is_no_memory(settings: Settings, broken: str) -> None:
    (settings.home / "rates.json").write_text(broken)
    assert known(settings)["pocket"].load is None
    record_timings(settings, "pocket", load=2.0)
    assert json.loads((settings.home / "rates.json").read_text()) == {"pocket": {"load": 2.0}}


def test_what_was_painted_foretells_what_comes(bench: Any) -> None:
    from studio.engine.generation.job import generate

    spec = validate(SweepSpec, {"base": BASE, "axes": [{"field": "seed", "values": "1-4"}]})
    for batch in (1, 4):
        generate(
            bench,
            BASE | {"prompt": f"measured {batch}", "num_images": batch, "batch_size": batch},
            lambda progress: None,
        )
    found = load_timings(bench.settings, bench.home.gallery, bench.home.library, ["pocket"])
    predicted = plan_sweep(spec, timings=found).cost_estimate
    assert predicted.seconds
    assert predicted.seconds > 0
    assert predicted.memory
    assert predicted.memory > found["pocket"].model_bytes  # type: ignore[operator]
    row = bench.home.gallery.get_seconds_per_megapixel("pocket")
    assert row
    assert predicted.painting == pytest.approx(row * 4 * 4 * 64 * 64 / 1e6)
    together = load_timings(
        bench.settings, bench.home.gallery, bench.home.library, ["pocket"], batched=True
    )["pocket"].seconds_per_megapixel
    assert together == bench.home.gallery.get_seconds_per_megapixel("pocket", batched=True) != row


def test_memory_of_a_row_is_not_below_what_is_measured(bench: Any) -> None:
    """The largest sum of tensors that live at once in a real call, against what the config foretells."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from studio.core.generation.request import GenerationRequest

    class Peak(TorchDispatchMode):
        now = peak = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            torch.utils._pytree.tree_map_only(torch.Tensor, self.follow, out)
            return out

        def follow(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in followed:
                size, where = storage.nbytes(), storage.data_ptr()
                followed.add(where)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, size, where)

        def gone(self, size: int, where: int) -> None:
            self.now -= size
            followed.discard(where)

    followed: set[int] = set()
    with (
        bench.pipelines.borrow(GenerationRequest()) as parts,
        torch.inference_mode(),
        Peak() as peak,
    ):
        prompt = torch.randn(2, 77, parts.denoiser.config.cross_attention_dim)
        parts.denoiser(
            torch.randn(2, *parts.latent_shape(128, 128)[1:]),
            torch.tensor([5.0, 5.0]),
            encoder_hidden_states=prompt,
        )
    row = peak.peak / 2 / 4 / 128**2  # numbers for a pixel
    assert row < parts.info.activation_elements_per_pixel < 4 * row
