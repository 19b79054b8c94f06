"""What a guest's page, answers, errors and pictures give away of the owner's: nothing."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.services.submission import Services
from studio.settings import load, shipped
from studio.storage.home import Home
from studio.ui.app import build_page
from support.served import API, Browser, Served

GUEST_HOST = "192.168.7.7"
# In every name and text that is the owner's; no guest's call below says it.
PLANTED = "zqx"
BOAT = {"prompt": "a boat", "width": 64, "height": 64, "steps": 2, "seed": 5}


def plant(folder: Path) -> Path:
    """Make a home that is full of the owner's names, in a folder that says who that is."""
    home_folder = folder / f"{PLANTED}-user" / "home of große"
    home = Home(load(home=home_folder, device="cpu"))
    dataset = home_folder / "datasets" / f"{PLANTED}-dataset"
    dataset.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(dataset / f"{PLANTED}.png")
    (dataset / f"{PLANTED}.txt").write_text(f"{PLANTED} caption")
    request = validate(GenerationRequest, {**BOAT, "prompt": f"{PLANTED} prompt"})
    sweep = validate(
        SweepSpec,
        {"title": f"{PLANTED} sweep", "base": BOAT, "axes": [{"field": "steps", "values": "1-2"}]},
    )
    training = validate(
        TrainingConfig,
        {"name": f"{PLANTED}-run", "dataset": f"{PLANTED}-dataset", "trigger": f"{PLANTED}word"},
    )
    home.presets.save(f"{PLANTED}-preset", request)
    home.sweep_presets.save(f"{PLANTED}-sweep-preset", sweep)
    home.training_presets.save(f"{PLANTED}-training-preset", training)
    home.sweeps.save(sweep, "owner")
    home.runs.add(training, "owner")
    home.jobs.cancel(home.jobs.submit("generate", request.model_dump(mode="json"), "owner"))
    clip = home_folder / "models" / f"{PLANTED}-clip"
    clip.symlink_to(shipped("assets") / "pocket" / "clip")
    tags = {f"1_{PLANTED}": {f"{PLANTED} tag": 3}}
    metadata = {
        "ss_tag_frequency": json.dumps(tags),
        "ss_dataset_dirs": json.dumps({f"1_{PLANTED}": {"n_repeats": 1}}),
        "ss_training_comment": f"{PLANTED} comment",
        "ss_sd_model_name": f"/home/{PLANTED}/base.safetensors",
    }
    key = "lora_unet_mid_block_attentions_0_proj_in"
    weights = {
        f"{key}.lora_down.weight": np.zeros((1, 64), np.float32),
        f"{key}.lora_up.weight": np.zeros((64, 1), np.float32),
        f"{key}.alpha": np.ones((), np.float32),
    }
    save_file(weights, home_folder / "loras" / "somebody.safetensors", metadata)
    home.close()
    return home_folder


def find_leaks(text: str) -> list[str]:
    """Return what stands around everything that is the owner's."""
    words = [PLANTED, platform.node(), str(Path.home()) if Path.home() != Path("/") else PLANTED]
    pattern = "|".join(re.escape(word) for word in words if len(word) > 2)
    return [
        text[max(0, match.start() - 80) : match.end() + 40]
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


@pytest.mark.slow
def test_the_page_is_built_of_nothing_of_the_owners(tmp_path: Path) -> None:
    services = Services(Home(load(home=plant(tmp_path))))
    config = build_page(services).get_config_file()
    services.home.close()
    # What it takes to serve files is hidden at the border.
    text = json.dumps(config, default=str).replace(str(services.home.settings.home), "")
    assert not find_leaks(text)


@pytest.fixture(scope="module")
def planted(open_studio: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    quick = (
        "--guest-requests-per-second",
        "1000",
    )  # so that no call is refused for coming too soon
    return open_studio(plant(tmp_path_factory.mktemp("planted")), *quick)


@pytest.fixture
def guest(planted: Served) -> Iterator[Browser]:
    with Browser(planted, GUEST_HOST) as browser:
        yield browser.arrive()


def call_everything(browser: Browser) -> Iterator[str]:
    """Yield the answers of every function of the page, called with what it stands at and worse."""
    config = browser.get("/config").json()
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    for function in config["dependencies"]:
        if not function["backend_fn"]:
            continue
        as_built = [values.get(part) for part in function["inputs"]]
        for data, event in (
            (as_built, None),
            ([None] * len(as_built), {"action": "open", "target": "1"}),
            (["moon"] * len(as_built), {"index": 0, "value": "moon", "action": "preset"}),
        ):
            body = {
                "data": data,
                "fn_index": function["id"],
                "session_hash": f"s{id(browser)}",
                "event_data": event,
            }
            yield browser.post(f"{API}/run/predict", json=body).text


@pytest.mark.slow
def test_no_function_of_the_page_gives_anything_away(planted: Served, guest: Browser) -> None:
    answers = [guest.get(path).text for path in ("/", "/config", f"{API}/info")]
    answers += call_everything(guest)
    assert len(answers) > 400
    assert not [answer for answer in answers if "too much at once" in answer]
    print(f"{len(answers)} answers")
    leaks = [leak for answer in answers for leak in find_leaks(answer)]
    assert not leaks
    with Browser(planted) as owner:  # it does stand there for who may read it
        owner.get("/")
        assert find_leaks("".join(call_everything(owner)))


@pytest.mark.slow
def test_no_endpoint_file_or_picture_gives_anything_away(planted: Served, guest: Browser) -> None:
    plain = [*GenerationRequest(**BOAT).model_dump(mode="json").values()]
    made = guest.ask("generate", *plain)
    assert made.status_code == 200, made.text
    (picture,) = made.json()["data"][0]
    assert picture["path"].startswith("/studio-home/")
    sweep = guest.ask("sweep", [{"field": "steps", "values": [1, 2]}], "mine", False, BOAT)
    assert sweep.status_code == 200, sweep.text
    answers: list[str] = [made.text, sweep.text]
    for file in [picture, *sweep.json()["data"][0]]:
        answer = guest.get(f"{API}/file={file['path']}")
        assert answer.status_code == 200, file
        answers.append(answer.content.decode("latin-1"))
    nonsense: list[list[Any]] = [[], ["moon"], [None] * 20, [{"path": "/etc/passwd"}] * 5]
    for name in ("dataset", "train", "caption", "search", "inspect", "jobs", "img2img", "sweep"):
        answers += [guest.ask(name, *values).text for values in nonsense]
    for model in ("nothing", "../x", "/etc"):
        answers.append(guest.ask("generate", *(model if v == "pocket" else v for v in plain)).text)
    answers.append(guest.get(f"{API}/file=/studio-home/loras/somebody.safetensors").text)
    answers.append(guest.get(f"{API}/file=/studio-home/jobs.sqlite").text)
    leaks = [leak for answer in answers for leak in find_leaks(answer)]
    assert not leaks


def test_what_a_guest_types_is_not_turned_into_a_path(served: Served) -> None:
    with Browser(served, GUEST_HOST) as guest:
        guest.arrive()
        plain = GenerationRequest(**{**BOAT, "prompt": "/studio-home/outputs"})
        made = guest.ask("generate", *plain.model_dump(mode="json").values())
        (picture,) = made.json()["data"][0]
        content = guest.get(f"{API}/file={picture['path']}").content
        assert b"/studio-home/outputs" in content
        assert str(served.home).encode() not in content
