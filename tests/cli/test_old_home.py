"""The first version's home from outside: the commands, and a studio that is open on it with its worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from studio.settings import load
from studio.storage.home import Home
from support.old_home import DATASET, LORA, SWEEP, unpack
from support.served import Browser, Served

QUICK = {"prompt": "a red ball", "steps": 2, "seed": 3, "width": 64, "height": 64}


def test_the_commands_know_what_is_in_it(
    tmp_path: Path, run_command: Callable[..., CompletedProcess[str]]
) -> None:
    home = unpack(tmp_path)
    where = ("--home", str(home), "--device", "cpu")
    dataset = run_command("dataset", DATASET, "--json", *where)
    assert json.loads(dataset.stdout)["pictures"] == 4
    image = Home(load(home=home, device="cpu")).gallery.search("red ball")[0]
    inspected = run_command("inspect", str(image.path))
    assert "Karras" in inspected.stdout
    plan = run_command("train", str(home / "loras" / f"{LORA}.safetensors"), "--plan", *where)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["config"]["train_batch_size"] == 2
    words = ("--prompt", "a red ball", "--lora", f"{LORA}:1", "--steps", "1", "--width", "64")
    made = run_command("generate", *words, "--height", "64", "--json", *where)
    assert made.returncode == 0, made.stderr
    assert Path(json.loads(made.stdout)["path"]).is_file()


@pytest.mark.slow
def test_a_studio_shows_it_and_its_worker_goes_on_with_it(
    tmp_path: Path, open_studio: Callable[..., Served]
) -> None:
    folder = unpack(tmp_path)
    with Browser(open_studio(folder)) as browser:
        browser.get("/")
        shown = browser.touch("tab-gallery", "select", []).json()["data"][0]
        assert shown["props"]["options"]["images"] == 7
        (dataset,) = browser.ask("dataset", DATASET).json()["data"]
        assert dataset["pictures"] == 4
        made = browser.ask("generate", QUICK["prompt"]).json()["data"][1]
        assert made["pictures"][0]["digest"]
        home = Home(load(home=folder, device="cpu"))
        spec = home.sweeps.get(SWEEP)
        assert spec
        base = spec.spec.base.model_dump(mode="json")
        axes = [axis.model_dump(mode="json") for axis in spec.spec.axes]
        swept = browser.ask("sweep", axes, "", False, base).json()["data"][1]
        assert (swept["made"], swept["taken"], swept["failed"]) == (0, 4, 0)
        home.close()
