"""As which model a dataset's tokens are counted: in filters, checks and their fixes, for every process alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studio.core.captions.lint import LintRules
from studio.errors import ModelNotFound
from studio.settings import Settings
from studio.storage.datasets.dataset import Dataset, DatasetStore
from support import captioner_makers
from support.models import POCKET
from support.sentences import refused

pytestmark = pytest.mark.smoke
CAPTION = (
    "masterpiece, best quality, highly detailed photograph of an astronaut riding a horse on mars"
)


@pytest.fixture
def store(settings: Settings) -> DatasetStore:
    captioner_makers.dataset(settings.home / "datasets" / "few", 1)
    (settings.home / "datasets" / "few" / "000.txt").write_text(CAPTION)
    return DatasetStore(settings)


def count_long(dataset: Dataset, tokens: int) -> tuple[int, int]:
    """Captions of more tokens by the filter, and by the check."""
    findings = dataset.lint(LintRules(tokens=tokens))
    num_found = sum(finding.kind == "long" for finding in findings)
    return dataset.get_page(filter_query=f"tokens:>{tokens}").total, num_found


def test_a_caption_is_counted_as_clip_reads_it(store: DatasetStore) -> None:
    assert store.token_models.get_model(store.open("few").folder) == ""
    assert count_long(store.open("few"), 25) == (0, 0)  # 17 tokens of CLIP, begin and end included


def test_a_chosen_model_counts_everywhere(store: DatasetStore, settings: Settings) -> None:
    dataset = store.open("few")
    assert store.token_models.list_models() == ["pocket"]
    store.token_models.set_model(dataset.folder, "pocket")
    assert count_long(dataset, 25) == (1, 1)
    other = DatasetStore(settings)  # as a worker opens it
    assert other.token_models.get_model(dataset.folder) == "pocket"
    assert count_long(other.open("few"), 25) == (1, 1)
    store.token_models.set_model(dataset.folder, "")
    assert count_long(other.open("few"), 25) == (0, 0)


def test_a_model_that_is_gone_counts_no_more(store: DatasetStore, settings: Settings) -> None:
    dataset, copy = store.open("few"), settings.models / "small"
    shutil.copytree(POCKET, copy)
    store.token_models.set_model(dataset.folder, "small")
    assert count_long(dataset, 25) == (1, 1)
    shutil.rmtree(copy)
    assert store.token_models.get_model(dataset.folder) == ""
    assert count_long(dataset, 25) == (0, 0)
    with refused(ModelNotFound):
        store.token_models.set_model(dataset.folder, "small")


@pytest.mark.parametrize("text", ["", "[", "[]", "\\0", '{"x": 3}', "[" * 10_000])
def test_a_damaged_list_of_choices_is_clip(
    store: DatasetStore, settings: Settings, text: str
) -> None:
    Path(settings.home / "token_models.json").write_text(text)
    assert store.token_models.get_model(store.open("few").folder) == ""
    store.token_models.set_model(store.open("few").folder, "pocket")
    assert count_long(store.open("few"), 25) == (1, 1)
