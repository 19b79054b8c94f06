"""Checkpoints and runs on disk: whole or not there, whatever breaks and whenever."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from studio.core.base import validate
from studio.core.training.config import TrainingConfig
from studio.engine.context import WorkerContext
from studio.engine.models import loaded_model
from studio.engine.training import prepare
from studio.engine.training.checkpoint import CheckpointManager
from studio.engine.training.data_loader import BatchLoader
from studio.engine.training.job import train
from studio.engine.training.latent_cache import TensorCache
from studio.engine.training.lora_network import LoraNetwork
from studio.engine.training.monitor import reset_trainer, snapshot_weights
from studio.engine.training.trainer import Trainer
from studio.errors import BadFile, Cancelled, StudioError
from studio.settings import Settings
from studio.storage.jobs import Progress
from studio.storage.training import checkpoints
from studio.storage.training.runs import Runs
from support.benches import open_bench
from support.sentences import refused
from support.trainings import QUICK, add, hasten, make_home, same, silent, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PARTS = {"weights.safetensors": b"w" * 50, "state.json": b"{}"}
LONG: dict[str, Any] = {
    "steps": 6,
    "checkpoint_every": 2,
    "checkpoints_total_limit": 2,
    "save_precision": "float32",
    "dropout": 0.2,
    "caption_dropout": 0.3,
    "lr_scheduler": "cosine",
    "gradient_accumulation_steps": 2,
    "train_text_encoder": True,
}
OPERATIONS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    bench = open_bench(make_home(tmp_path_factory.mktemp("training") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield bench
    bench.home.gallery.close()


@pytest.fixture(scope="module")
def whole(bench: WorkerContext) -> dict[str, torch.Tensor]:
    """The file of the run that is never stopped."""
    return weights(bench, train(bench, {"run": add(bench, name="whole", **LONG)}, silent)["lora"])


def trainer(bench: WorkerContext) -> Trainer:
    """Alone, without a run."""
    found = prepare.prepare_training(bench, validate(TrainingConfig, QUICK), silent)
    parts = loaded_model.load_model(found.model_info, "", found.device)
    data = BatchLoader(found.plan, TensorCache(), parts)
    data.fill_cache(parts)
    return Trainer(
        LoraNetwork(parts, found.config, found.target_modules),
        data,
        found.config,
        found.total_steps,
    )


# ---- folders --------------------------------------------------------------------------------------------------------


def test_kept_found_pruned(tmp_path: Path) -> None:
    assert checkpoints.find_newest(tmp_path / "none") == (None, [])
    assert checkpoints.list_checkpoints(tmp_path / "none") == []
    for step in (5, 10, 100):
        made = checkpoints.save(tmp_path, step, PARTS)
        assert (made.step, made.path.name, made.size_bytes) == (step, f"step-{step:08d}", 52)
    assert [one.step for one in checkpoints.list_checkpoints(tmp_path)] == [5, 10, 100]
    one, notes = checkpoints.find_newest(tmp_path)
    assert one
    assert one.step == 100
    assert not notes
    assert checkpoints.read_files(one) == PARTS
    checkpoints.prune(tmp_path, 0)
    assert len(checkpoints.list_checkpoints(tmp_path)) == 3
    checkpoints.prune(tmp_path, 2)
    assert [one.step for one in checkpoints.list_checkpoints(tmp_path)] == [10, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    again = checkpoints.save(tmp_path, 100, PARTS | {"state.json": b"[1]"})
    assert checkpoints.read_files(again)["state.json"] == b"[1]"
    assert len(list(tmp_path.iterdir())) == 2


def spoil_state(path: Path) -> None:
    (path / "state.json").write_bytes(b"[]")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda path: (path / "weights.safetensors").write_bytes(b"w" * 49),
            "its weights.safetensors is missing or cut off",
        ),
        (
            lambda path: (path / "weights.safetensors").unlink(),
            "its weights.safetensors is missing or cut off",
        ),
        (spoil_state, "its state.json has changed since it was saved"),
        (lambda path: (path / "manifest.json").unlink(), "it is not a complete checkpoint"),
        (lambda path: (path / "manifest.json").write_text("{"), "it is not a complete checkpoint"),
        (
            lambda path: (path / "manifest.json").write_text("[" * 100_000),
            "it is not a complete checkpoint",
        ),
        (
            lambda path: (path / "manifest.json").write_text(
                json.dumps({"format": 1, "step": 7, "files": {}})
            ),
            "it is not a complete",
        ),
        (
            lambda path: (path / "manifest.json").write_text(
                json.dumps(
                    {"format": 1, "step": 20, "files": {"../../x": {"bytes": 1, "sha256": ""}}}
                )
            ),
            "it is not a complete checkpoint",
        ),
        (
            lambda path: (shutil.rmtree(path), path.write_text("a file")),
            "it is not a complete checkpoint",
        ),
    ],
)
def test_torn_and_foreign_ones_are_skipped_and_named(
    tmp_path: Path, spoil: Callable[[Path], Any], why: str
) -> None:
    checkpoints.save(tmp_path, 10, PARTS)
    spoil(checkpoints.save(tmp_path, 20, PARTS).path)
    (tmp_path / "notes").mkdir()
    one, notes = checkpoints.find_newest(tmp_path)
    assert one
    assert one.step == 10
    assert notes == [next(note for note in notes if note.startswith("step-00000020 was skipped"))]
    assert why in notes[0]


class Dead(BaseException):
    """The process is gone: nothing after it runs that a kill would not let run."""


def _breaking(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> list[str]:
    """The file operation of that number raises; which there were is noted."""
    seen: list[str] = []
    for name in OPERATIONS:
        real = getattr(os, name)

        def operation(*given: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            seen.append(name)
            if len(seen) == at or (isinstance(error, Dead) and len(seen) > at):
                raise error
            return real(*given, **more)

        monkeypatch.setattr(os, name, operation)
    return seen


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), Dead()], ids=["full", "killed"]
)
def test_whichever_operation_breaks_the_older_one_is_whole(
    tmp_path: Path, error: BaseException
) -> None:
    """As SQLite tests itself: the first operation fails, then the second …, until a run passes untouched."""
    for at in range(1, 100):
        folder = tmp_path / str(at)
        for step in (1, 2):
            checkpoints.save(folder, step, PARTS)
        told: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            seen = _breaking(patch, at, error)
            try:
                checkpoints.save(folder, 3, PARTS)
                checkpoints.prune(folder, 2)
            except (BadFile, Dead) as raised:
                told = raised
        assert told is None or isinstance(error, Dead) or "Is the disk full?" in str(told)
        one, notes = checkpoints.find_newest(folder)
        assert one
        assert one.step in (2, 3)
        assert checkpoints.read_files(one) == PARTS
        assert not notes
        checkpoints.delete_leftovers(folder)
        assert all(path.name.startswith("step-") for path in folder.iterdir())
        assert len(checkpoints.list_checkpoints(folder)) >= 2
        if len(seen) < at:
            assert at > 10
            return
    raise AssertionError("it never passed")


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_a_folder(settings: Settings) -> None:
    runs = Runs(settings)
    config = validate(
        TrainingConfig, QUICK | {"seed": -1, "sample_prompts": "a moon\na cat", "sample_every": 2}
    )
    first, second = runs.add(config, "ann"), runs.add(config, "bob")
    run = runs.get(first)
    assert run
    assert run.config.seed >= 0
    assert run.config == config.model_copy(update={"seed": run.config.seed})
    assert [one.id for one in runs.list_runs()] == [second, first]
    assert [one.id for one in runs.list_runs("ann")] == [first]
    runs.append_log(first, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    with open(run.folder / "log.jsonl", "ab") as out:
        out.write(b'{"step": 3, "lo')  # a kill in the middle of a line
    assert [row["step"] for row in runs.read_log(first)] == [1, 2]
    assert [row["step"] for row in runs.read_log(first, 1)] == [2]
    (run.folder / "samples").mkdir()
    for name in ("00000000-1.png", "00000002-0.png", "00000002-2.png", "x.png"):
        (run.folder / "samples" / name).touch()
    told = [
        (sample.step, sample.seed - run.config.seed, sample.prompt)
        for sample in runs.list_samples(first)
    ]
    assert told == [(0, 1, "a cat"), (2, 0, "a moon")]
    runs.rewind(first, 1)
    assert [row["step"] for row in runs.read_log(first)] == [1]
    assert [sample.step for sample in runs.list_samples(first)] == [0]
    checkpoints.save(run.folder / "checkpoints", 5, PARTS)
    assert [one.step for one in runs.list_checkpoints(first)] == [5]
    runs.update_record(first, "result", lora={"lora": "moon"})
    assert runs.get(first).result == {"lora": {"lora": "moon"}}  # type: ignore[union-attr]
    runs.rewind(first)
    assert runs.read_log(first) == []
    assert runs.list_samples(first) == []
    assert runs.list_checkpoints(first) == []
    runs.delete(first)
    assert runs.get(first) is None
    assert [one.id for one in runs.list_runs()] == [second]


@pytest.mark.parametrize(
    "id", ["", "..", "../../x", "ABCDEF012345", "abcdefabcdef", "a" * 500, "abc\0"]
)
def test_no_such_run(settings: Settings, id: str) -> None:
    runs = Runs(settings)
    assert runs.get(id) is None
    for verb in (runs.read_log, runs.list_samples, runs.list_checkpoints, runs.delete):
        with refused(StudioError):
            verb(id)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "7", '{"config": {"steps": "x"}, "owner": "a", "created": 1}', "{" * 9999],
)
def test_a_broken_run_is_not_there(settings: Settings, text: str) -> None:
    runs = Runs(settings)
    id = runs.add(validate(TrainingConfig, QUICK), "ann")
    (settings.runs / id / "run.json").write_text(text)
    assert runs.get(id) is None
    assert runs.list_runs() == []


# ---- bit for bit ----------------------------------------------------------------------------------------------------


class Stop:
    """A report that asks for a stop when it hears a step for the n-th time."""

    def __init__(self, step: int, time: int = 1) -> None:
        self.step, self.left = step, time

    def __call__(self, progress: Progress) -> None:
        if progress.message == "Training" and progress.step == self.step:
            self.left -= 1
            if not self.left:
                raise Cancelled


@pytest.mark.parametrize(
    ("optimizer", "stops"),
    [
        pytest.param("AdamW", [(0, 2), (3, 1), (5, 2)], id="AdamW"),
        pytest.param(
            "AdamW",
            [(0, 1), (0, 2), (1, 2), (3, 1), (4, 2), (5, 2)],
            id="AdamW, everywhere",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "Adafactor (relative step)",
            [(1, 1), (3, 2)],
            id="Adafactor (relative step)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    bench: WorkerContext,
    whole: dict[str, torch.Tensor],
    optimizer: str,
    stops: list[tuple[int, int]],
) -> None:
    """Stopped before a step, and between its two batches; each time a new trainer takes it up."""
    values = (
        LONG
        if optimizer == "AdamW"
        else LONG | {"optimizer": optimizer, "learning_rate": None, "lr_scheduler": "constant"}
    )
    wanted = (
        whole
        if optimizer == "AdamW"
        else weights(bench, train(bench, {"run": add(bench, **values)}, silent)["lora"])
    )
    id = add(bench, name="stopped", **values)
    for step, time_ in stops:
        with pytest.raises(Cancelled):
            train(bench, {"run": id}, Stop(step, time_))
        assert bench.home.runs.list_checkpoints(id)[-1].step == step
        assert not bench.pipelines.loaded
    name = train(bench, {"run": id}, silent)["lora"]
    assert same(weights(bench, name), wanted)
    assert [row["step"] for row in bench.home.runs.read_log(id)] == list(range(1, 7))
    assert [one.step for one in bench.home.runs.list_checkpoints(id)] == [max(4, stops[-1][0]), 6]


KIND_RUNS: dict[str, dict[str, Any]] = {
    "LoHa with DoRA": {"network_type": "LoHa", "use_dora": True, "module_dropout": 0.3},
    "LoKr": {"network_type": "LoKr", "rank_dropout": 0.3, "scale_weight_norms": 0.05},
    "LoKr of two ranks with DoRA": {
        "network_type": "LoKr",
        "lokr_factors": "both by rank",
        "rank": 1,
        "use_dora": True,
    },
    "DoRA with norms": {"use_dora": True, "train_norm": True, "rank_dropout": 0.3},
    "LoHa": {"network_type": "LoHa", "rank_dropout": 0.3, "module_dropout": 0.3},
}


@pytest.mark.parametrize(
    "kind",
    [
        name if name in ("LoHa with DoRA", "LoKr") else pytest.param(name, marks=pytest.mark.slow)
        for name in KIND_RUNS
    ],
)
def test_every_kind_goes_on_bit_for_bit(bench: WorkerContext, kind: str) -> None:
    values = LONG | {"steps": 4} | KIND_RUNS[kind]
    wanted = weights(bench, train(bench, {"run": add(bench, **values)}, silent)["lora"])
    id = add(bench, name="stopped kind", **values)
    with pytest.raises(Cancelled):
        train(bench, {"run": id}, Stop(3, 2))
    assert same(weights(bench, train(bench, {"run": id}, silent)["lora"]), wanted)


def test_a_plain_lora_is_stored_as_when_its_layers_were_pefts(bench: WorkerContext) -> None:
    """Names, order and shapes: checkpoints from before are read on."""
    one = trainer(bench)
    names = list(one.network.state_dict())
    assert [name.rpartition("|")[2] for name in names] == ["down", "up"] * (len(names) // 2)
    assert [tuple(p.shape) for p in one.parameters] == [
        tuple(t.shape) for t in one.network.state_dict().values()
    ]
    assert one.network.alphas == dict.fromkeys((name.rpartition("|")[0] for name in names), 2.0)


@pytest.mark.parametrize(
    ("error", "every"),
    [
        pytest.param(OSError(28, "No space left on device"), 1, id="full", marks=pytest.mark.slow),
        pytest.param(Dead(), 4, id="killed"),
        pytest.param(Dead(), 1, id="killed everywhere", marks=pytest.mark.slow),
    ],
)
def test_broken_at_a_file_operation_and_resumed(
    bench: WorkerContext, tmp_path: Path, error: BaseException, every: int
) -> None:
    """An operation of a checkpoint breaks; another trainer takes up what is there, and ends with the same numbers."""
    first, second = trainer(bench), trainer(bench)
    begun = snapshot_weights(first)
    for _ in range(3):
        first.step()
    wanted = snapshot_weights(first)
    reset_trainer(first, begun)
    first.step()
    CheckpointManager(tmp_path / "one", "mine", 1).save(first)
    first.step()
    for at in range(1, 100, every):
        keeper = CheckpointManager(tmp_path / str(at), "mine", 1)
        shutil.copytree(tmp_path / "one", keeper.folder)
        with pytest.MonkeyPatch.context() as patch:
            seen = _breaking(patch, at, error)
            with suppress(BadFile, Dead):
                keeper.save(first)
        checkpoints.delete_leftovers(keeper.folder)
        one, notes = keeper.find_newest()
        assert one
        assert one.step in (1, 2)
        assert not notes
        CheckpointManager(keeper.folder, "mine", 1).restore(second, one)
        assert second.global_step == one.step
        while second.global_step < 3:
            second.step()
        assert same(second.network.state_dict(), wanted)
        if len(seen) < at:
            assert at > 10
            return
    raise AssertionError("it never passed")


@pytest.mark.parametrize(
    "refusals",
    [(9, 23, 1000), pytest.param((2, 9, 23, 41, 1000), marks=pytest.mark.slow)],
    ids=["two", "four"],
)
def test_a_disk_that_refuses_is_told_in_words_and_the_job_goes_on_later(
    bench: WorkerContext, whole: dict[str, torch.Tensor], refusals: tuple[int, ...]
) -> None:
    id = add(bench, name="refused", **LONG)
    num_refused = 0
    for at in refusals:
        with pytest.MonkeyPatch.context() as patch:
            _breaking(patch, at, OSError(28, "No space left on device"))
            try:
                name = train(bench, {"run": id}, silent)["lora"]
            except BadFile as error:
                num_refused += "Is the disk full?" in str(error)
    assert num_refused >= len(refusals) // 2
    assert same(weights(bench, name), whole)


@pytest.mark.slow
def test_another_dataset_or_other_settings_are_refused_or_begun_anew(bench: WorkerContext) -> None:
    id = add(bench, **LONG | {"dataset": "other"})
    with pytest.raises(Cancelled):
        train(bench, {"run": id}, Stop(5))
    caption = bench.settings.home / "datasets" / "other" / "004.txt"
    before = caption.read_text()
    caption.write_text("a cheese")
    with refused(StudioError):
        train(bench, {"run": id}, silent)
    assert bench.home.runs.list_checkpoints(id)[-1].step == 5
    caption.write_text(before)
    said = bench.settings.runs / id / "run.json"
    told = json.loads(said.read_text())
    said.write_text(json.dumps(told | {"config": told["config"] | {"rank": 3}}))
    with refused(StudioError):
        train(bench, {"run": id}, silent)
    train(bench, {"run": id, "resume": False}, silent)
    said.write_text(
        json.dumps(told | {"config": told["config"] | {"checkpoint_every": 4, "rank": 3}})
    )
    assert (
        train(bench, {"run": id}, silent)["steps"] == 6
    )  # what does not change its steps may change


@pytest.mark.slow
def test_spoilt_checkpoints_are_named_and_the_one_before_is_taken(
    bench: WorkerContext, whole: dict[str, torch.Tensor]
) -> None:
    id = add(bench, name="spoilt", **LONG)
    with pytest.raises(Cancelled):
        train(bench, {"run": id}, Stop(5))
    newest = bench.home.runs.list_checkpoints(id)[-1].path / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert same(weights(bench, train(bench, {"run": id}, silent)["lora"]), whole)
    assert bench.home.runs.get(id).start_info["left_aside"] == [  # type: ignore[union-attr]
        "step-00000005 was skipped: its optimizer.safetensors has changed since it was saved."
    ]


def killed_and_resumed(bench: WorkerContext, times: int, seed: int) -> str:
    """The name of the file of a run whose process was killed so often, at any moment, before it was let to its end.

    The processes are forks: they have imported everything already, so that a kill falls into the training."""
    chance, id = Random(seed), add(bench, name="killed", **LONG | {"steps": 16})
    for _ in range(times):
        process = get_context("fork").Process(target=train, args=(bench, {"run": id}, silent))
        process.start()
        process.join(chance.uniform(0.5, 3.0))
        process.kill()
        process.join()
    return str(train(bench, {"run": id}, silent)["lora"])


@pytest.fixture
def undisturbed(bench: WorkerContext) -> dict[str, torch.Tensor]:
    assert torch.get_num_threads() == 1  # conftest: a fork has but one thread
    return weights(
        bench,
        train(bench, {"run": add(bench, name="undisturbed", **LONG | {"steps": 16})}, silent)[
            "lora"
        ],
    )


@pytest.mark.slow
def test_killed_at_any_moment_often(
    bench: WorkerContext, undisturbed: dict[str, torch.Tensor]
) -> None:
    for seed in range(10):
        assert same(weights(bench, killed_and_resumed(bench, 5, seed)), undisturbed)
