"""Sweeps as they run: cells bit for bit the single pictures, or within the bound; none twice, none missing, none torn."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.base import validate
from studio.core.catalog import BATCHING_TOLERANCE, SCHEDULERS
from studio.core.generation import lora_use, request
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.engine.context import WorkerContext
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import generate
from studio.engine.generation.trajectory import Trajectory
from studio.engine.metrics import compute_rms_difference
from studio.engine.models.prompt_encoding import encode_prompts
from studio.engine.sweeps.export import METRICS, PIXEL_METRICS, describe_mode, export_sweep
from studio.engine.sweeps.job import run_sweep
from studio.errors import Cancelled, InvalidSpec, StudioError
from studio.storage.gallery import ImageFilter
from studio.storage.home import Home
from studio.storage.sweeps import CellResult
from studio.storage.verdicts import Verdict
from support import lora_makers as makers
from support.benches import open_bench, read_parts_once
from support.models import POCKET
from support.painting import together
from support.sentences import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
BASE: dict[str, Any] = {
    "prompt": "a red boat by a lake",
    "width": 64,
    "height": 64,
    "steps": 3,
    "seed": 7,
    "scheduler": "Euler",
    "noise_schedule": "Model default",
}


def quiet(progress: Any) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def parts() -> Iterator[None]:
    """Every test has a bench of its own; they need not all read the model anew."""
    with pytest.MonkeyPatch.context() as patch:
        read_parts_once(patch)
        yield


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LoRAs for the embedded model."""
    shelf = tmp_path_factory.mktemp("shelf")
    for seed, name in enumerate(("moon", "sun")):
        makers.kohya(shelf / f"{name}.safetensors", makers.add(makers.stock(POCKET), seed=seed), 2)
    return shelf


@pytest.fixture
def home(tmp_path: Path, toys: Path, shelf: Path) -> Path:
    """With two LoRAs for the embedded model, and a model of another family."""
    home = tmp_path / "home"
    shutil.copytree(shelf, home / "loras")
    (home / "models").mkdir()
    (home / "models" / "toy-sdxl").symlink_to(toys / "toy-sdxl")
    return home


@pytest.fixture
def desk(home: Path) -> Iterator[WorkerContext]:
    bench = open_bench(home)
    yield bench
    bench.home.gallery.close()
    bench.home.sweeps.close()


def spec(*axes: dict[str, Any], fast: bool = False, title: str = "", **base: Any) -> SweepSpec:
    return validate(
        SweepSpec, {"base": BASE | base, "axes": list(axes), "fast": fast, "title": title}
    )


def axis(field: str, values: Any, **more: Any) -> dict[str, Any]:
    return {"field": field, "values": values, **more}


def ran(bench: WorkerContext, asked: SweepSpec, id: str = "") -> tuple[str, dict[str, Any]]:
    id = bench.home.sweeps.save(asked, "local", id)
    return id, run_sweep(bench, {"sweep": id}, quiet)


def pixels(path: Path | str | None) -> np.ndarray:
    assert path
    return np.asarray(Image.open(path))


def counted(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["made"], result["taken"], result["failed"]


# ---- exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(SCHEDULERS)[::8], id="some"),
        pytest.param(list(SCHEDULERS), id="all", marks=pytest.mark.slow),
    ],
)
def test_exact_cells_are_the_single_pictures(desk: WorkerContext, names: list[str]) -> None:
    every = spec(axis("scheduler", names), axis("guidance", [1, 4]))
    id, result = ran(desk, every)
    planned, kept = plan_sweep(every), desk.home.sweeps.load_cell_results(id)
    assert counted(result) == (2 * len(names), 0, 0)
    assert result["rows"] == planned.cost_estimate.rows
    for cell in planned.cells:
        single = generate(desk, cell.request.model_dump(mode="json"), quiet)["pictures"][0]
        assert single["digest"] == kept[cell.key].digest
        assert np.array_equal(pixels(single["path"]), pixels(kept[cell.key].path)), cell.labels


@pytest.mark.parametrize(
    ("prompts", "strengths", "names"),
    [
        pytest.param(["a boat"], [0, 1], ["None", "moon"], id="few"),
        pytest.param(
            ["a boat", "a tree"],
            [0, 0.5, 1],
            ["None", "moon", "sun"],
            id="many",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_exact_cells_of_lora_weights_sizes_prompts_and_models(
    desk: WorkerContext, prompts: list[str], strengths: list[float], names: list[str]
) -> None:
    sizes = axis("size", ["64x64", "64x96"])
    weights = axis("lora_weight", strengths, lora="moon")
    mixed = spec(weights, sizes, axis("prompt", prompts), steps=2)
    loras = spec(axis("lora", names), axis("lora_text_encoder", [0, 1]), loras=["moon"], steps=2)
    models = spec(axis("model", ["pocket", "toy-sdxl"]), axis("steps", [2, 3]))
    seen = []
    for one in (mixed, loras, models):
        id, result = ran(desk, one)
        planned, kept = plan_sweep(one), desk.home.sweeps.load_cell_results(id)
        assert result["failed"] == 0
        assert len(planned.cells) == result["made"] + result["taken"]
        for cell in planned.cells:
            single = generate(desk, cell.request.model_dump(mode="json"), quiet)["pictures"][0]
            seen.append(pixels(kept[cell.key].path))
            assert np.array_equal(pixels(single["path"]), seen[-1]), cell.labels
    base = generate(desk, BASE | {"prompt": "a boat", "steps": 2}, quiet)["pictures"][0]
    assert np.array_equal(pixels(base["path"]), seen[0])
    assert not np.array_equal(seen[0], seen[2 * len(prompts)])  # weight 0 is the base


def test_cells_that_are_the_same_picture_are_painted_once(desk: WorkerContext) -> None:
    one = spec(
        axis("lora", ["moon", "sun"]), axis("lora_weight", [0, 1]), axis("clip_skip", [1, 12])
    )
    id, result = ran(desk, one)
    kept = {
        cell.labels: desk.home.sweeps.load_cell_results(id)[cell.key]
        for cell in plan_sweep(one).cells
    }
    assert counted(result) == (3, 1, 4)
    assert desk.home.gallery.count() == 3
    assert kept["moon", "LoRA 0", "Clip skip 1"].path == kept["sun", "LoRA 0", "Clip skip 1"].path
    assert (
        kept["moon", "LoRA 0", "Clip skip 12"].error
        == kept["sun", "LoRA 0", "Clip skip 12"].error
        != ""
    )


def test_each_digest_is_computed_once_and_tags_are_lifted_once_a_cell(
    desk: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = desk.home.sweeps.save(
        spec(axis("seed", "1-2"), axis("steps", "1-2"), prompt="a boat <lora:moon:0.5>"), "local"
    )
    digests: Counter[str] = Counter()
    lifted: Counter[int] = Counter()
    compute, extract = request._compute_digest, lora_use.extract_tags

    def compute_digest(asked: GenerationRequest, hashes: dict[str, str]) -> str:
        digest = compute(asked, hashes)
        digests[digest] += 1
        return digest

    def extract_tags(text: str) -> Any:
        lifted[text.count("<lora:moon")] += 1
        return extract(text)

    monkeypatch.setattr(request, "_compute_digest", compute_digest)
    counting = SimpleNamespace(**vars(lora_use) | {"extract_tags": extract_tags})
    monkeypatch.setattr(request, "lora_use", counting)
    assert counted(run_sweep(desk, {"sweep": id}, quiet)) == (4, 0, 0)
    assert len(digests) == 2 * 4  # the key of each cell and the digest of its image
    assert set(digests.values()) == {1}
    assert lifted[1] == 4 + 1  # the base has the tag as well


# ---- fast -----------------------------------------------------------------------------------------------------------


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(SCHEDULERS)[1::6], id="some"),
        pytest.param(list(SCHEDULERS), id="all", marks=pytest.mark.slow),
    ],
)
def test_fast_cells_are_within_the_bound(desk: WorkerContext, names: list[str]) -> None:
    every = [
        {
            "scheduler": name,
            "noise_schedule": "Model default",
            "seed": k,
            "guidance": 1 + k % 4,
            "steps": 5 + k % 3,
            "loras": [{"name": "moon", "unet": k % 5 / 4, "text_encoder": k % 3 / 2}],
        }
        for k, name in enumerate(SCHEDULERS)
        if name in names
    ]
    requests = [ResolvedRequest(**BASE | one) for one in every]
    with desk.pipelines.borrow(*requests) as parts:
        from studio.engine.models.adapters import lora

        each = []
        for request in requests:
            with lora.use_adapters(parts, lora.select_adapters(parts, request)):
                each.append(Trajectory(parts, request, encode_prompts(parts, request)))
        batcher = Batcher(parts, 8)
        fast = {one.request.seed: latents for one, latents, _ in batcher.denoise(each)}
        assert batcher.rows == sum(one.num_model_calls * len(one.first_rows) for one in each)
    for request in requests:
        with desk.pipelines.borrow(request) as parts:
            (exact,) = together(parts, request)
        latents = fast[request.seed]
        assert isinstance(latents, torch.Tensor), request.scheduler
        assert apart(latents, exact) < BATCHING_TOLERANCE, request.scheduler


def calls(lengths: list[int], most: int) -> int:
    """How many calls a batch takes that is refilled in turn: by hand."""
    waiting, running, count = list(lengths), [], 0
    while waiting or running:
        while waiting and len(running) < most:
            running.append(waiting.pop(0))
        running, count = [left - 1 for left in running if left > 1], count + 1
    return count


@pytest.mark.parametrize(
    "most", [2, 8, *(pytest.param(most, marks=pytest.mark.slow) for most in (1, 3))]
)
def test_calls_and_rows_are_as_many_as_they_have_to_be(desk: WorkerContext, most: int) -> None:
    steps = [5, 2, 7, 3, 3, 1, 4]
    requests = [
        ResolvedRequest(**BASE | {"steps": n, "seed": n, "guidance": 1 + n % 2, "batch_size": most})
        for n in steps
    ]
    with desk.pipelines.borrow(*requests) as parts:
        each = [Trajectory(parts, request, encode_prompts(parts, request)) for request in requests]
        batcher, sizes = Batcher(parts, most), []
        call = parts.denoiser.forward

        def forward(*given: Any, **named: Any) -> Any:
            sizes.append(len(given[0]))
            return call(*given, **named)

        parts.denoiser.forward = forward
        try:
            assert len(list(batcher.denoise(each))) == len(steps)
        finally:
            del parts.denoiser.forward
    assert batcher.calls == len(sizes) == calls(steps, most)
    assert batcher.rows == sum(sizes) == sum(n * (2 if n % 2 else 1) for n in steps)


@pytest.mark.slow
def test_a_fast_sweep_shares_calls_and_never_stands_in_for_an_exact_one(
    desk: WorkerContext,
) -> None:
    axes = axis("scheduler", ["Euler", "Heun"]), axis("guidance", [1, 4])
    _, fast = ran(desk, spec(*axes, fast=True))
    assert counted(fast) == (4, 0, 0)
    assert fast["calls"] == 5
    assert fast["rows"] == plan_sweep(spec(*axes)).cost_estimate.rows
    exact_id, exact = ran(desk, spec(*axes))
    assert counted(exact) == (4, 0, 0)
    assert exact["calls"] == 3 * 2 + 5 * 2  # nothing taken from the batch
    _, again = ran(desk, spec(axes[0], axis("guidance", [1, 4]), fast=True, title="again"))
    assert counted(again) == (0, 4, 0)
    _, other = ran(desk, spec(*axes, fast=True, seed=8))
    assert counted(other) == (4, 0, 0)
    shutil.rmtree(desk.home.settings.outputs)
    desk.home.settings.outputs.mkdir()
    assert counted(run_sweep(desk, {"sweep": exact_id}, quiet)) == (
        4,
        0,
        0,
    )  # whatever was thrown away is made again


@pytest.mark.slow
def test_prompts_that_change_and_branch_share_calls(desk: WorkerContext) -> None:
    """Fast cells are the exact ones up to a level, exact ones the single pictures."""
    prompts = ["a boat", "[a boat:a tree:1]", "a boat AND a tree :0.5", "[a boat|fog]"]
    kept = {}
    for fast in (True, False):  # a fast sweep would take exact pictures
        every = spec(axis("prompt", prompts), fast=fast)
        id, result = ran(desk, every)
        planned = plan_sweep(every)
        assert counted(result) == (4, 0, 0)
        assert result["rows"] == planned.cost_estimate.rows
        cells = desk.home.sweeps.load_cell_results(id)
        kept[fast] = [pixels(cells[cell.key].path) for cell in planned.cells]
    for cell, exact, fast_pixels in zip(planned.cells, kept[False], kept[True], strict=True):
        values = cell.request.model_dump(mode="json") | {"batch_size": 1}
        single = generate(desk, values, quiet)["pictures"][0]
        assert np.array_equal(pixels(single["path"]), exact), cell.labels
        assert np.abs(fast_pixels.astype(int) - exact).max() <= 1, cell.labels
    assert not np.array_equal(kept[False][0], kept[False][1])
    assert not np.array_equal(kept[False][0], kept[False][2])


@pytest.mark.slow
def test_schedulers_in_which_rounding_grows_are_painted_alone(desk: WorkerContext) -> None:
    one = spec(axis("scheduler", ["Euler", "DPM2", "DDIM", "DPM2 a"]), axis("seed", [1]), fast=True)
    batches = {cell.request.scheduler: cell.request.batch_size for cell in plan_sweep(one).cells}
    assert batches == {"Euler": 8, "DDIM": 8, "DPM2": 1, "DPM2 a": 1}
    _, result = ran(desk, one)
    assert counted(result) == (4, 0, 0)
    assert result["calls"] == 3 + 2 * 5  # two share three calls, two take five each


def test_sizes_and_long_prompts_do_not_share_a_call(desk: WorkerContext) -> None:
    words = " ".join(["boat"] * 90)
    one = spec(axis("size", ["64x64", "96x64"]), axis("prompt", ["a boat", words]), fast=True)
    _, result = ran(desk, one)
    assert counted(result) == (4, 0, 0)
    assert result["calls"] == 4 * 3
    assert result["rows"] == 4 * 3 * 2


@pytest.mark.slow
def test_memory_that_does_not_suffice_halves_the_batch(desk: WorkerContext) -> None:
    axes = axis("seed", "1-8"), axis("guidance", [3])
    with desk.pipelines.borrow(GenerationRequest(**BASE)) as parts:
        call, tried = parts.denoiser.forward, []

        def forward(latents: torch.Tensor, *given: Any, **named: Any) -> Any:
            tried.append(len(latents))
            if len(latents) > 6:
                raise (torch.OutOfMemoryError if len(tried) == 1 else RuntimeError)("out of memory")
            return call(latents, *given, **named)

        parts.denoiser.forward = forward
        try:
            id, result = ran(desk, spec(*axes, fast=True))
        finally:
            del parts.denoiser.forward
    assert counted(result) == (8, 0, 0)
    assert tried[:3] == [16, 8, 4]
    assert set(tried[3:]) == {4}
    assert result["rows"] == 8 * 3 * 2
    kept = desk.home.sweeps.load_cell_results(id)
    for cell in plan_sweep(spec(*axes, fast=True)).cells[::3]:
        exact = generate(desk, cell.request.model_dump(mode="json") | {"batch_size": 1}, quiet)[
            "pictures"
        ][0]
        assert np.abs(pixels(kept[cell.key].path).astype(int) - pixels(exact["path"])).max() <= 1


@pytest.mark.slow
def test_memory_bounds_the_batch_before_it_runs_out(
    desk: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = desk.home.library.get_model("pocket")
    one = info.activation_elements_per_pixel * 64 * 64 * 4 * 2
    free = 3 * one + info.decode_elements_per_pixel * 64 * 64 * 4 + 5
    monkeypatch.setattr(type(desk.pipelines), "free_bytes", property(lambda self: free))
    _, result = ran(desk, spec(axis("seed", "1-6"), fast=True))
    assert result["calls"] == 2 * 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_mode_is_said(dtype: str) -> None:
    assert describe_mode(spec(axis("seed", [1])), dtype).startswith("exact")
    assert ("0.1 %" in describe_mode(spec(axis("seed", [1]), fast=True), dtype)) == (
        dtype == "float32"
    )


# ---- never lost -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(desk: WorkerContext) -> None:
    one = spec(axis("seed", "1-5"))
    id = desk.home.sweeps.save(one, "local")

    def stop(progress: Any) -> None:
        if progress.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_sweep(desk, {"sweep": id}, stop)
    there = {key: kept.path for key, kept in desk.home.sweeps.load_cell_results(id).items()}
    assert len(there) == 2
    assert counted(run_sweep(desk, {"sweep": id}, quiet)) == (3, 2, 0)
    assert {key: desk.home.sweeps.load_cell_results(id)[key].path for key in there} == there


@pytest.mark.slow
def test_more_values_keep_what_is_there(desk: WorkerContext) -> None:
    id, _ = ran(desk, spec(axis("steps", [2, 3]), axis("seed", [1, 2])))
    before = desk.home.sweeps.load_cell_results(id)
    desk.home.sweeps.set_verdict(id, next(iter(before)), Verdict(4, "calm", True))
    _, result = ran(desk, spec(axis("steps", [1, 2, 3]), axis("seed", [1, 2, 3])), id)
    assert counted(result) == (5, 4, 0)
    after = desk.home.sweeps.load_cell_results(id)
    assert all(after[key].path == kept.path for key, kept in before.items())
    assert len(after) == 9
    assert after[next(iter(before))].verdict == Verdict(4, "calm", True)


@pytest.mark.slow
def test_a_changed_file_is_painted_anew(desk: WorkerContext, home: Path) -> None:
    one = spec(axis("lora_weight", [0, 1], lora="moon"))
    id, _ = ran(desk, one)
    makers.kohya(home / "loras" / "moon.safetensors", makers.add(makers.stock(POCKET), seed=9), 2)
    assert counted(run_sweep(desk, {"sweep": id}, quiet)) == (
        1,
        1,
        0,
    )  # without the LoRA it is the same


@pytest.mark.slow
def test_a_failed_cell_says_why_and_the_others_go_on(desk: WorkerContext, home: Path) -> None:
    tensors = makers.add(makers.stock(POCKET), seed=3)
    makers.kohya(
        home / "loras" / "broken.safetensors",
        {
            net: {key: value * float("nan") for key, value in state.items()}
            for net, state in tensors.items()
        },
        2,
    )
    one = spec(axis("lora", ["None", "broken", "moon", "gone"]), axis("clip_skip", [1, 12]))
    id, result = ran(desk, one)
    kept = {
        cell.labels: desk.home.sweeps.load_cell_results(id)[cell.key]
        for cell in plan_sweep(one).cells
    }
    assert counted(result) == (2, 0, 6)
    assert kept["No LoRA", "Clip skip 1"].has_image
    assert kept["moon", "Clip skip 1"].has_image
    assert "not numbers" in kept["broken", "Clip skip 1"].error
    assert "no LoRA 'gone'" in kept["gone", "Clip skip 1"].error
    assert "Clip skip" in kept["No LoRA", "Clip skip 12"].error
    makers.kohya(home / "loras" / "gone.safetensors", makers.add(makers.stock(POCKET), seed=4), 2)
    assert counted(run_sweep(desk, {"sweep": id}, quiet)) == (
        1,
        2,
        5,
    )  # failed ones are tried again


@pytest.mark.slow
def test_guests_take_only_their_own(desk: WorkerContext) -> None:
    one = spec(axis("seed", [1, 2]))
    ran(desk, one)
    guest = replace(desk, owner="guest")
    id = desk.home.sweeps.save(one, "guest")
    assert counted(run_sweep(guest, {"sweep": id, "guest": True}, quiet)) == (2, 0, 0)
    assert {
        desk.home.gallery.get(kept.path or "").owner
        for kept in desk.home.sweeps.load_cell_results(id).values()
    } == {"guest"}  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_binned_cell_is_made_again_only_when_asked(desk: WorkerContext) -> None:
    asked = spec(axis("steps", [2, 3, 4]))
    id, result = ran(desk, asked)
    assert counted(result) == (3, 0, 0)
    home = desk.home
    (first, second, _) = plan_sweep(asked).cells
    binned = home.gallery.get(home.sweeps.load_cell_results(id)[first.key].path)
    assert binned
    home.gallery.bin.put([binned.id])
    for again in (id, home.sweeps.save(asked, "local")):  # and no other sweep brings it back
        result = run_sweep(desk, {"sweep": again}, quiet)
        assert (*counted(result), result["binned"]) == (0, 2, 0, 1)
        assert "1 cell is in the bin" in result["notes"][0]
        cell = home.sweeps.load_cell_results(again)[first.key]
        assert (cell.is_binned, cell.has_image) == (True, False)
    index = json.loads((home.sweeps.get_folder(id) / "index.json").read_text())
    assert [row["state"] for row in index["cells"]] == ["missing", "done", "done"]
    result = run_sweep(desk, {"sweep": id, "remake": [second.key]}, quiet)
    assert counted(result) == (0, 2, 0)
    result = run_sweep(desk, {"sweep": id, "remake": [first.key]}, quiet)
    assert (*counted(result), result["binned"]) == (1, 2, 0, 0)
    made = home.sweeps.load_cell_results(id)[first.key]
    assert made.has_image
    assert made.path != binned.path
    assert (pixels(made.path) == pixels(binned.path)).all()
    page = home.gallery.index.list_page(ImageFilter(), 0, 10)
    assert [(entry.series, entry.num_images) for entry in page.entries] == [(id, 3)]


def test_a_sweep_that_is_gone(desk: WorkerContext) -> None:
    with refused(StudioError):
        run_sweep(desk, {"sweep": "x"}, quiet)


def run_in_child(desk: WorkerContext, id: str, reports: Connection) -> None:
    """Run a sweep in a fork, where the model is loaded already; say each report."""
    own = replace(desk, home=Home(desk.settings))
    run_sweep(own, {"sweep": id}, lambda progress: reports.send("report"))


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on(desk: WorkerContext, kills: int) -> None:
    """kill -9 at random moments, each run going on where the last one was cut off."""
    assert torch.get_num_threads() == 1  # conftest: a fork has but one thread
    chance, many = random.Random(kills), 8 * kills
    one = spec(axis("seed", f"1-{many}"), steps=1, guidance=1)
    id = desk.home.sweeps.save(one, "local")
    with desk.pipelines.borrow(GenerationRequest()):
        pass
    for _ in range(kills):
        reports, ours = get_context("fork").Pipe(duplex=False)
        child = get_context("fork").Process(target=run_in_child, args=(desk, id, ours))
        child.start()
        ours.close()
        with suppress(EOFError):  # it was done before
            for _ in range(chance.randrange(1, 24)):  # two reports a cell
                assert reports.recv() == "report"
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        child.join()
        reports.close()
    result = run_sweep(desk, {"sweep": id}, quiet)
    assert result["made"] + result["taken"] == many
    assert result["taken"] > 0
    digests = []
    for path in desk.home.settings.outputs.rglob("*.png"):
        if not path.name.startswith("."):
            with Image.open(path) as image:
                image.load()
                digests.append(json.loads(image.text["studio"])["digest"])  # type: ignore[attr-defined]
    assert len(digests) == len(set(digests)) == many == desk.home.gallery.count()
    assert set(digests) == {kept.digest for kept in desk.home.sweeps.load_cell_results(id).values()}


# ---- what one hands on ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sheet_viewer_and_index(desk: WorkerContext) -> None:
    one = spec(
        axis("scheduler", ["Euler", "DDIM"]),
        axis("steps", [1, 2]),
        title="A <b>title</b>",
        width=128,
        height=128,
    )
    id, _ = ran(desk, one)
    folder, keys = desk.home.sweeps.get_folder(id), [cell.key for cell in plan_sweep(one).cells]
    assert {path.name for path in folder.iterdir()} == {
        "sheet.png",
        "viewer.html",
        "index.json",
        "index.csv",
    }
    before = Image.open(folder / "sheet.png").size
    desk.home.sweeps.set_verdict(id, keys[1], Verdict(5, "best of all", True))
    made = export_sweep(
        desk,
        {"sweep": id, "numbers": list(METRICS), "reference": keys[0]},
        quiet,
    )
    assert {Path(path).name for path in made["files"]} == {
        "sheet.png",
        "viewer.html",
        "index.json",
        "index.csv",
    }
    assert Image.open(folder / "sheet.png").size[1] > before[1]  # numbers under the cells
    index = json.loads((folder / "index.json").read_text())
    assert index["mode"].startswith("exact")
    assert dict(index["fixed"])["Prompt"] == BASE["prompt"]
    first, second, *_ = index["cells"]
    assert first["numbers"]["difference"] == 0 < second["numbers"]["difference"]
    assert 0 < first["numbers"]["prompt fit"] <= 1
    with Image.open(desk.home.sweeps.load_cell_results(id)[keys[0]].path or "") as image:
        for name, compute in PIXEL_METRICS.items():
            assert first["numbers"][name] == pytest.approx(compute(image), rel=1e-4)
    assert second["verdict"] == {"stars": 5, "note": "best of all", "best": True}
    assert (folder / first["picture"]).resolve() == desk.home.sweeps.load_cell_results(id)[
        keys[0]
    ].path
    assert "<b>title" not in (folder / "viewer.html").read_text()


@pytest.mark.slow
def test_fit_is_higher_for_the_prompt_that_was_painted(desk: WorkerContext) -> None:
    from studio.engine import metrics

    painted = [
        generate(
            desk, {"prompt": f"a photo of a {what}", "seed": 5, "guidance": 3, "steps": 10}, quiet
        )["pictures"][0]["path"]
        for what in ("red ball on a beach", "green tree in the snow")
    ]
    images = [Image.open(path) for path in painted]
    with metrics.borrow_clip(desk.pipelines) as clip:
        right = clip.score_pairs(
            images, ["a photo of a red ball on a beach", "a photo of a green tree in the snow"]
        )
        wrong = clip.score_pairs(
            images, ["a photo of a green tree in the snow", "a photo of a red ball on a beach"]
        )
    assert min(right) > max(wrong) + 0.2
    assert metrics.compute_rms_difference(images[0], images[0]) == 0
    assert (
        metrics.compute_rms_difference(Image.new("RGB", (4, 4)), Image.new("RGB", (8, 8), "white"))
        == 100
    )


def test_each_sampler_is_compared_to_its_own_most_steps(desk: WorkerContext) -> None:
    id, _ = ran(desk, spec(axis("steps", [3, 1, 2]), axis("scheduler", ["Euler", "DDIM"])))
    export_sweep(desk, {"sweep": id, "numbers": ["convergence"]}, quiet)
    results = desk.home.sweeps.load_cell_results(id)
    sweep = desk.home.sweeps.get(id)
    assert sweep
    found = {
        (cell.request.scheduler, cell.request.steps): results[cell.key]
        for cell in plan_sweep(sweep.spec).cells
    }
    for (scheduler, steps), result in found.items():
        images = [Image.open(found[scheduler, count].path or "") for count in (3, steps)]
        assert result.metrics["convergence"] == compute_rms_difference(*images)
        assert (result.metrics["convergence"] == 0) is (steps == 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"numbers": ["beauty"]},
        {"numbers": ["difference"]},
        {"numbers": ["convergence"]},
        {"x": 7},
        {"sweep": "x"},
    ],
    ids=["number", "no cell", "no steps", "axis", "sweep"],
)
def test_nonsense_is_refused_in_words(desk: WorkerContext, bad: dict[str, Any]) -> None:
    id = desk.home.sweeps.save(spec(axis("seed", [1, 2])), "local")
    with refused(StudioError):
        export_sweep(desk, {"sweep": id} | bad, quiet)


def test_a_verdict_that_cannot_be_is_refused(desk: WorkerContext) -> None:
    id = desk.home.sweeps.save(spec(axis("seed", [1, 2])), "local")
    with refused(InvalidSpec, "Stars"):
        desk.home.sweeps.set_verdict(id, "a", Verdict(6))
    with refused(InvalidSpec, "Note"):
        desk.home.sweeps.set_verdict(id, "a", Verdict(1, "x" * 3000))


def test_a_store_keeps_lists_and_forgets(desk: WorkerContext) -> None:
    store, one = desk.home.sweeps, spec(axis("seed", [1, 2]), title="One")
    id = store.save(one, "ann")
    store.save(spec(axis("seed", [3]), title="Two"), "bob")
    store.save_cell_result(id, "k", CellResult(error="no"))
    store.set_metric(id, "seconds", {"k": 2.0})
    assert [sweep.spec.title for sweep in store.list_sweeps()] == [
        "Two",
        "One",
    ]
    assert store.list_sweeps("ann")[0].spec == one
    assert store.load_cell_results(id)["k"].error == "no"
    assert store.load_cell_results(id)["k"].metrics == {"seconds": 2.0}
    store.delete(id)
    assert store.get(id) is None
    assert store.load_cell_results(id) == {}
    assert len(store.list_sweeps()) == 1
    with pytest.raises(ValueError, match="seed"):
        store.save(spec(axis("steps", [1]), seed=-1), "ann")
