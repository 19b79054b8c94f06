"""5,000 files of weights: the second look takes less than a second, also in a new process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from studio.services.model_catalog import CatalogFilter, ModelCatalog
from studio.services.visitor import Visitor
from studio.settings import load
from studio.storage.home import Home
from studio.ui.views.models import LibraryPage, render_library
from support.ldm_files import toy_shapes
from support.weights import kohya_lora, write_weights

pytestmark = pytest.mark.slow
OWNER = Visitor("owner", is_guest=False)
NUM_LORAS, NUM_CHECKPOINTS = 4500, 500
LAYERS = [
    f"down_blocks_{block}_attentions_{attention}_transformer_blocks_0_attn{number}_to_{name}"
    for block in (1, 2)
    for attention in (0, 1)
    for number in (1, 2)
    for name in "qkv"
]


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """A folder of A1111's with LoRAs of 24 layers and checkpoints, nothing but headers."""
    shapes = {}
    for layer in LAYERS:
        shapes |= kohya_lora(layer, width=2048 if "attn2_to_k" in layer else 640)
    tags = json.dumps({"4_ink": {f"tag {number}": number for number in range(50)}})
    for number in range(NUM_LORAS):
        path = tmp_path / f"webui/models/Lora/style{number % 20}/ink-{number:05}.safetensors"
        write_weights(path, shapes, metadata={"ss_tag_frequency": tags})
    for number in range(NUM_CHECKPOINTS):
        path = tmp_path / f"webui/models/Stable-diffusion/big-{number:04}.safetensors"
        write_weights(path, toy_shapes("sdxl"))
    return tmp_path / "webui"


def open_catalog(tmp_path: Path) -> ModelCatalog:
    """Open the home as a new process does: with nothing in memory."""
    return ModelCatalog(Home(load(home=tmp_path / "home", device="cpu")))


def time_list(catalog: ModelCatalog) -> tuple[int, float]:
    begin = time.process_time()
    entries = catalog.list_entries(OWNER)
    return len(entries), time.process_time() - begin


def test_five_thousand_files(
    webui: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = open_catalog(tmp_path)
    first.home.library.folders.add(str(webui))
    num_entries, first_seconds = time_list(first)
    assert num_entries >= NUM_LORAS + NUM_CHECKPOINTS
    again_seconds = time_list(first)[1]
    new = open_catalog(tmp_path)
    num_new, new_seconds = time_list(new)
    with capsys.disabled():
        print(
            f"\n{num_entries} files: first look {first_seconds:.1f} s, again {again_seconds:.2f} s, "
            f"a new process {new_seconds:.2f} s (of CPU)"
        )
    assert num_new == num_entries
    # Below a second on an idle machine; the ratios hold on a busy one too.
    assert again_seconds < first_seconds / 20
    assert new_seconds < first_seconds / 5
    found = CatalogFilter(words="ink-04321").select(new.list_entries(OWNER))
    assert [entry.name for entry in found] == ["a1111/style1/ink-04321"]
    cards = CatalogFilter(kind="lora").select(new.list_entries(OWNER))[:60]
    page = render_library(LibraryPage(cards, num_found=num_new), is_owner=True)
    assert len(page) < 300_000
