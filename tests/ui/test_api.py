"""The API as a program meets it: gradio's own client against a real studio."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from studio.core.base import former_names
from studio.core.generation.request import FIELD_REQUIRES, GenerationRequest
from studio.core.generation.rules import SWITCH_FIELDS
from studio.imaging.decode import load_image
from studio.settings import shipped
from studio.storage.gallery import read_image_settings
from studio.ui.api import TASK_FIELDS
from support import lora_makers as makers
from support.models import POCKET
from support.request_fields import OTHER_VALUES
from support.sentences import refused
from support.served import API, Browser, Served

QUICK: dict[str, Any] = {"prompt": "a red ball", "steps": 2, "width": 64, "height": 64, "seed": 7}
# What of them is painted: small and few steps.
OTHER = OTHER_VALUES | {
    "width": 128,
    "steps": 3,
    "loras": [{"name": "moon", "unet": 0.5, "text_encoder": 1.0}],
    "vae": "anime",
    "styles": ["Ink"],
    "noise_source": "NV",
    "seed_resize_width": 128,
    "seed_resize_height": 192,
}


@pytest.fixture(scope="module")
def client(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    makers.kohya(
        served.home / "loras" / "moon.safetensors", makers.add(makers.stock(POCKET), only="unet"), 2
    )
    shutil.copy(
        POCKET / "vae/diffusion_pytorch_model.safetensors", served.home / "vae/anime.safetensors"
    )
    (served.home / "styles.csv").write_text("name,prompt\nInk,ink drawing of {prompt}\n")
    connected = Client(
        served.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads"))
    )
    yield connected
    connected.close()


def test_named_typed_endpoints_and_no_others(client: Client) -> None:
    told = client.view_api(return_format="dict", print_info=False)
    assert set(told["named_endpoints"]) == {
        "/generate",
        "/img2img",
        "/inpaint",
        "/outpaint",
        "/upscale",
        "/sweep",
        "/train",
        "/dataset",
        "/caption",
        "/search",
        "/export",
        "/inspect",
        "/jobs",
        "/models",
    }
    assert not told["unnamed_endpoints"]
    parameters = told["named_endpoints"]["/generate"]["parameters"]
    former = former_names(GenerationRequest)
    assert [part["parameter_name"] for part in parameters] == [
        *GenerationRequest.model_fields,
        *former,
    ]
    assert {
        part["parameter_name"]: part["parameter_default"] for part in parameters
    } == GenerationRequest().model_dump(mode="json") | dict.fromkeys(former)
    types = {part["parameter_name"]: part["python_type"]["type"] for part in parameters}
    assert (types["steps"], types["guidance"], types["width"]) == ("int", "float", "None | int")
    assert "'Euler a'" in types["scheduler"]
    assert [
        part["parameter_name"] for part in told["named_endpoints"]["/inspect"]["parameters"]
    ] == ["file"]
    assert [part["parameter_name"] for part in told["named_endpoints"]["/jobs"]["parameters"]] == [
        "limit"
    ]
    for name, files, there, absent in (
        ("/img2img", ["image"], {"strength", "resize_mode", "hires_tile"}, {"mask", "extend_left"}),
        ("/inpaint", ["image", "mask"], {"mask_blur", "mask_padding"}, {"resize_mode"}),
        ("/outpaint", ["image"], {"extend_top", "seam_blur"}, {"mask", "mask_blur", "hires_scale"}),
    ):
        parameters = told["named_endpoints"][name]["parameters"]
        names = [part["parameter_name"] for part in parameters]
        assert names[: len(files)] == files
        assert all(not part["parameter_has_default"] for part in parameters[: len(files)])
        assert set(names) >= there | {"prompt", "steps", "seed"}
        assert not set(names) & absent


@pytest.mark.slow
def test_a_picture_as_another_kind_of_file(client: Client, served: Served, tmp_path: Path) -> None:
    _, told = client.predict(api_name="/generate", **QUICK)
    digest = told["pictures"][0]["digest"]
    files, report = client.predict(
        digest=digest, format="WebP", quality=100, carry="everything", api_name="/export"
    )
    assert Image.open(files[0]).format == "WEBP"
    assert read_image_settings(Path(files[0])).values["seed"] == QUICK["seed"]
    assert (Path(report["file"]).suffix, report["notes"]) == (".webp", [])
    with pytest.raises(AppError, match="your gallery has no image"):
        client.predict(digest="0" * 64, api_name="/export")
    with pytest.raises(AppError, match=r"(?s)Quality.*Digest|Digest.*Quality"):
        client.predict(digest="../x", quality=0, api_name="/export")
    with Browser(served, "192.168.1.9") as guest:
        guest.get("/")
        answer = guest.ask("export", digest, "JPEG", 90, "text", "no")
    assert answer.is_error
    assert "your gallery has no image" in answer.text


def test_a_picture_and_what_made_it(client: Client, served: Served) -> None:
    files, told = client.predict(api_name="/generate", **QUICK)
    (path,) = map(Path, files)
    (made,) = told["pictures"]
    assert Image.open(path).size == (64, 64)
    (kept,) = served.home.glob(f"outputs/*/{made['file']}")
    assert path != kept
    assert path.read_bytes() == kept.read_bytes()  # downloaded byte for byte
    inside = json.loads(load_image(path).text_chunks["studio"])
    assert inside["digest"] == made["digest"]
    assert len(made["digest"]) == 64
    assert 0 < made["seconds"] <= told["seconds"]
    assert (
        inside["request"] == told["request"] == GenerationRequest(**QUICK).model_dump(mode="json")
    )


@pytest.mark.slow
def test_a_grid(client: Client, served: Served) -> None:
    axes = [
        {"field": "scheduler", "values": ["Euler", "DDIM"]},
        {"field": "steps", "values": "1-3 (+2)"},
    ]
    base = QUICK | {"noise_schedule": "Model default"}
    files, told = client.predict(api_name="/sweep", base=base, axes=axes, title="A grid")
    assert [cell["labels"] for cell in told["pictures"]] == [
        ["Euler", "Steps 1"],
        ["Euler", "Steps 3"],
        ["DDIM", "Steps 1"],
        ["DDIM", "Steps 3"],
    ]
    assert (told["made"], told["failed"]) == (4, 0)
    assert len(files) == 4 + 4
    for path, cell in zip(map(Path, files), told["pictures"]):
        inside = json.loads(load_image(path).text_chunks["studio"])
        assert inside["digest"] == cell["digest"]
        assert inside["request"]["scheduler"] == cell["labels"][0]
    assert [Path(path).name for path in files[4:]] == [
        "sheet.png",
        "viewer.html",
        "index.json",
        "index.csv",
    ]
    for bad, value in (
        ([axes[0], axes[1] | {"values": "x"}], "'x'"),
        ([axes[0] | {"values": "Eular"}], "Eular"),
    ):
        with refused(AppError) as caught:
            client.predict(api_name="/sweep", base=base, axes=bad)
        assert value in str(caught.value)
        assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_a_training(client: Client, served: Served) -> None:
    asked = {
        "dataset": "moon",
        "name": "told",
        "steps": 1,
        "train_batch_size": 1,
        "rank": 1,
        "resolution": 64,
        "seed": 7,
    }
    (file,), told = client.predict(api_name="/train", **asked)
    kept = served.home / "loras" / "told.safetensors"
    assert (told["lora"], told["steps"]) == ("told", 1)
    assert Path(file).read_bytes() == kept.read_bytes()
    with pytest.raises(AppError) as caught:
        client.predict(api_name="/train", **asked | {"dataset": "mooon", "rank": 1})
    assert "'mooon'" in str(caught.value)
    with refused(AppError, "Steps", "Rank"):
        client.predict(api_name="/train", **asked | {"rank": 0, "steps": -1})


@pytest.mark.slow
def test_every_field_arrives(client: Client) -> None:
    by_itself = {"variation_strength"}  # of variations the seed stays
    assert set(OTHER) | set(FIELD_REQUIRES) | set(SWITCH_FIELDS) | by_itself == set(
        GenerationRequest.model_fields
    )
    default = GenerationRequest().model_dump(mode="json")
    assert all(OTHER[name] != default[name] for name in OTHER)
    files, told = client.predict(api_name="/generate", **OTHER)
    assert told["request"] == default | OTHER
    assert [made["seed"] for made in told["pictures"]] == [5, 6, 7]
    assert len(files) == 3
    assert told["notes"] == []
    _, again = client.predict(
        api_name="/generate", **OTHER | {"loras": "<lora:moon:1:0.5>"}
    )  # as text
    assert [made["digest"] for made in again["pictures"]] == [
        made["digest"] for made in told["pictures"]
    ]
    varied = OTHER | {"variation_strength": 0.4, "variation_seed": 9}
    files, told = client.predict(api_name="/generate", **varied)
    assert told["request"] == default | varied
    assert [made["seed"] for made in told["pictures"]] == [5, 5, 5]


@pytest.mark.slow
def test_work_on_pictures(client: Client, served: Served, tmp_path: Path) -> None:
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 40))
    picture.save(tmp_path / "a.png")
    mask.save(tmp_path / "mask.png")
    files = {"image": handle_file(tmp_path / "a.png"), "mask": handle_file(tmp_path / "mask.png")}
    plain = {name: value for name, value in QUICK.items() if name not in ("width", "height")} | {
        "strength": 1
    }

    def done(name: str, **more: Any) -> tuple[np.ndarray, dict[str, Any]]:
        made, told = client.predict(api_name=name, **plain | more)
        return np.asarray(Image.open(made[0])).astype(int), told["request"]

    after, told = done("/inpaint", **files, mask_blur=0)
    inside = np.asarray(mask) > 0
    assert np.array_equal(after[~inside], np.asarray(picture)[~inside])
    assert np.abs(after - np.asarray(picture))[inside].mean() > 3
    assert (told["width"], told["mask_blur"]) == (64, 0)
    assert (served.home / "inputs" / f"{told['mask']}.png").is_file()
    after, told = done("/img2img", image=files["image"], hires_scale=2)
    assert after.shape == (128, 128, 3)
    assert told["strength"] == 1
    made, answer = client.predict(api_name="/upscale", image=files["image"], scale=2)
    assert answer["upscaler"] == "Lanczos"  # of whose making nothing is known
    expected = picture.resize((128, 128), Image.Resampling.LANCZOS)
    assert np.array_equal(Image.open(made[0]).convert("RGB"), expected)
    after, told = done("/outpaint", image=files["image"], extend_left=32, seam_blur=0)
    assert after.shape == (64, 96, 3)
    assert np.array_equal(after[:, 32:], np.asarray(picture))
    again, _ = client.predict(api_name="/generate", **told)  # a request whose picture is known
    assert np.array_equal(np.asarray(Image.open(again[0])), after)


@pytest.mark.slow
def test_what_cannot_be_done_to_pictures_is_said(
    client: Client, served: Served, tmp_path: Path
) -> None:
    said_before, kept = len(served.log.read_text()), sorted((served.home / "inputs").iterdir())
    for name, size in (("a", (64, 64)), ("small", (32, 32)), ("black", (64, 64))):
        Image.new("L", size, 0 if name == "black" else 255).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG and no more")
    Image.new("1", (13_000, 13_000)).save(tmp_path / "bomb.png")
    Image.new("1", (30_000, 8)).save(tmp_path / "wide.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    names = ("a", "small", "black", "bad", "bomb", "wide", "dot")
    a, small, black, bad, bomb, wide, dot = (
        handle_file(tmp_path / f"{name}.png") for name in names
    )
    for name, given in (
        ("/img2img", {"image": bad}),
        ("/img2img", {"image": bomb}),
        ("/outpaint", {"image": wide, "extend_left": 8}),
        ("/img2img", {"image": wide}),
        ("/img2img", {"image": dot}),
        ("/inpaint", {"image": a, "mask": dot}),
        ("/inpaint", {"image": wide, "mask": a}),
        ("/img2img", {"image": a, "strength": 0.01}),
        ("/inpaint", {"image": a, "mask": bad}),
        ("/inpaint", {"image": a, "mask": bomb}),
        ("/inpaint", {"image": a, "mask": small}),
        ("/inpaint", {"image": a, "mask": black}),
        ("/outpaint", {"image": a}),
        ("/generate", {"strength": 0.3}),
        ("/generate", {"image": "../../etc/passwd"}),
        ("/generate", {"image": "0" * 64}),
    ):
        with refused(AppError):
            client.predict(api_name=name, **{"prompt": "x", "steps": 2} | given)
    assert "Traceback" not in served.log.read_text()[said_before:]
    assert len(sorted((served.home / "inputs").iterdir())) <= len(kept) + 3


@pytest.mark.parametrize(
    "value",
    [None, [], {}, float("nan"), float("inf"), 10**400, -1, 1.5, True, "1e309", "\0\ud800", ["x"]],
    ids=lambda value: repr(value)[:20],
)
def test_nonsense_in_every_field_is_a_list_of_sentences(served: Served, value: Any) -> None:
    """As JSON that no client of gradio's would send: NaN, Infinity, numbers that no float holds."""
    said_before = len(served.log.read_text())
    with Browser(served) as program:
        for name, fields in TASK_FIELDS.items():
            files = [part for part in ("image", "mask") if part in fields]
            body = {
                "data": [
                    *files,
                    *[
                        value
                        for part in GenerationRequest.model_fields
                        if part in fields and part not in files
                    ],
                ]
            }
            answer = program.post(
                f"{API}/run/{name}",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            lines = answer.json()["error"].split("\n")
            assert answer.status_code == 500
            assert any(line.startswith("Steps: ") for line in lines)
            assert all(": " in line and line.endswith(".") and len(line) < 400 for line in lines), (
                lines
            )
    assert "Traceback" not in served.log.read_text()[said_before:]


def test_all_bad_fields_in_one_message(client: Client, served: Served) -> None:
    said_before = len(served.log.read_text())
    with refused(AppError, "Prompt", "Width", "Steps", "Sampler") as caught:
        client.predict(
            api_name="/generate",
            **QUICK | {"prompt": "a (cat:2000)", "width": 7, "steps": "x<y", "scheduler": "Eular"},
        )
    assert "'x<y'" in str(caught.value)  # as it was given: no HTML for programs
    with pytest.raises(AppError, match=r"'luna'.* moon"):  # and what else other tests put there
        client.predict(api_name="/generate", **QUICK | {"loras": ["luna"]})
    for bad, value in (
        ({"model": "pokket"}, "pocket"),
        ({"scheduler": "Euler a", "noise_schedule": "Karras"}, "Karras"),
    ):
        with refused(AppError) as caught:
            client.predict(api_name="/generate", **QUICK | bad)
        assert value in str(caught.value)
    assert "Traceback" not in served.log.read_text()[said_before:]


def test_inspect_reads_settings_back(client: Client, tmp_path: Path) -> None:
    files, told = client.predict(
        api_name="/generate", **QUICK | {"negative_prompt": "fog, Steps: 7"}
    )
    found = client.predict(handle_file(files[0]), api_name="/inspect")
    assert (found["kind"], found["source"], found["request"]) == (
        "picture",
        "studio",
        told["request"],
    )
    assert found["text"].startswith("a red ball\nNegative prompt: fog, Steps: 7\nSteps: 2,")
    broken, plain = tmp_path / "broken.png", tmp_path / "plain.png"
    broken.write_bytes(Path(files[0]).read_bytes()[:200])
    Image.new("RGB", (32, 32)).save(plain)
    for file in (broken, plain):
        with refused(AppError) as caught:
            client.predict(handle_file(file), api_name="/inspect")
        assert file.name in str(caught.value)


@pytest.mark.slow
def test_jobs_lists_the_latest_first(client: Client) -> None:
    made = [client.predict(api_name="/generate", **QUICK | {"seed": seed})[1] for seed in (1, 2)]
    rows = client.predict(limit=2, api_name="/jobs")
    assert [row["id"] for row in rows] == [told["job"] for told in reversed(made)]
    assert [row["pictures"] for row in rows] == [
        [told["pictures"][0]["file"]] for told in reversed(made)
    ]
    done = {"kind": "generate", "state": "done", "step": 2, "total": 2, "error": None}
    assert all(row.items() >= done.items() for row in rows)
    assert len(client.predict(api_name="/jobs")) <= 20
    for limit in (0, 201, "x", 1.5, None):
        with refused(AppError, "limit"):
            client.predict(limit=limit, api_name="/jobs")


@pytest.mark.slow
def test_models_lists_the_library(client: Client, served: Served) -> None:
    answer = client.predict(api_name="/models")
    pocket = next(entry for entry in answer["models"] if entry["name"] == "pocket")
    assert answer["total"] == len(answer["models"])
    assert pocket["kind"] == "model"
    assert pocket["family"] == "sd1"
    assert Path(pocket["location"]).name == "pocket"
    only = client.predict(search="mysks", kind="lora", family="sd1", api_name="/models")
    assert [entry["name"] for entry in only["models"]] == ["mysks"]
    assert client.predict(limit=1, api_name="/models")["models"] == answer["models"][:1]
    assert client.predict(kind="nonsense", api_name="/models")["total"] == 0
    for limit in (0, 10_001, "x", 1.5, None):
        with refused(AppError, "limit"):
            client.predict(limit=limit, api_name="/models")


@pytest.mark.slow
def test_captions_of_a_dataset(client: Client, served: Served) -> None:
    folder = served.home / "datasets" / "plush"
    shutil.copytree(
        shipped("assets") / "datasets" / "mysks", folder, ignore=shutil.ignore_patterns("*.txt")
    )
    asked = {"dataset": "plush", "pictures": ["003.png", "001.png"], "trigger": "mysks"}
    shown = client.predict(api_name="/caption", **asked, dry_run=True)
    assert not list(folder.glob("*.txt"))
    assert shown["dry_run"]
    assert shown["made"] == 2
    told = client.predict(api_name="/caption", **asked)
    assert {row["file"]: row["after"] for row in told["rows"]} == {
        f"{name}.png": (folder / f"{name}.txt").read_text().strip() for name in ("001", "003")
    }
    assert told["taken"] == 2
    assert (
        client.predict(limit=1, api_name="/jobs")[0].items()
        >= {"kind": "caption", "state": "done", "pictures": []}.items()
    )
    with pytest.raises(AppError, match=r"'plus'.* plush"):  # and what else other tests put there
        client.predict(api_name="/caption", dataset="plus")
    for bad in (
        {"dataset": "plush", "captioner": "x"},
        {"dataset": "moon", "mode": "replace"},
    ):
        with refused(AppError):
            client.predict(api_name="/caption", **bad)


@pytest.mark.slow
def test_what_is_in_a_dataset(client: Client, served: Served) -> None:
    folder = served.home / "datasets" / "looked at"
    shutil.copytree(shipped("assets") / "datasets" / "mysks", folder)
    (folder / "bad.png").write_bytes(b"x")
    (folder / "001.txt").write_text("a, a")
    told = client.predict(api_name="/dataset", dataset="looked at", trigger="sks9", resolution=512)
    by_command = subprocess.run(
        [
            sys.executable,
            "-m",
            "studio",
            "dataset",
            "--home",
            str(served.home),
            "looked at",
            "--json",
            "--trigger",
            "sks9",
            "--resolution",
            "512",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told == json.loads(by_command.stdout)
    assert (told["pictures"], told["captioned"]) == (
        15,
        15,
    )
    assert {"trigger", "small", "twice", "broken", "short"} == {one["kind"] for one in told["lint"]}
    assert not client.predict(api_name="/dataset", dataset="mysks", words=0, trigger="mysks")[
        "lint"
    ]
    with pytest.raises(AppError, match=r"'lookd'.* looked at"):
        client.predict(api_name="/dataset", dataset="lookd")
    with pytest.raises(AppError, match=r"'\.\./\.\./home'"):
        client.predict(api_name="/dataset", dataset="../../home")
    with refused(AppError) as caught:
        client.predict(api_name="/dataset", dataset="moon", words=-1, tokens="x")
    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == {"Tokens", "Words"}


@pytest.mark.slow
def test_search_in_a_dataset(client: Client, served: Served) -> None:
    folder = served.home / "datasets" / "seen"
    shutil.copytree(shipped("assets") / "datasets" / "mysks", folder)
    found = client.predict(api_name="/search", dataset="seen", words="a snowy landscape", limit=5)[
        "found"
    ]
    assert len(found) == 5
    assert "snow" in (folder / found[0]["file"]).with_suffix(".txt").read_text()
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    like = client.predict(
        api_name="/search", dataset="seen", like="003.png", limit=1, pictures=["004.png", "003.png"]
    )["found"]
    assert [one["file"] for one in like] == ["004.png"]
    for bad in (
        {},
        {"words": "x", "like": "003.png"},
        {"like": "gone.png"},
        {"like": "0" * 64},
        {"words": "x", "clip": "nothing"},
        {"words": "x", "limit": 0},
    ):
        with refused(AppError) as caught:
            client.predict(api_name="/search", dataset="seen", **bad)
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "\x00",
        '"><img src=x onerror=alert(1)>',
        "../..",
        "日本",
        "a" * 100_000,
        7,
        None,
        [1],
        {},
    ],
    ids=lambda one: repr(one)[:14],
)
def test_nonsense_about_datasets(client: Client, served: Served, nonsense: Any) -> None:
    said_before = len(served.log.read_text())
    for name, asked in (
        ("/dataset", {"dataset": nonsense}),
        ("/search", {"dataset": "mysks", "like": nonsense}),
        ("/dataset", {"dataset": "mysks", "trigger": nonsense, "words": nonsense}),
        ("/search", {"dataset": nonsense, "words": "x"}),
        (
            "/search",
            {"dataset": "mysks", "words": nonsense, "clip": nonsense, "pictures": nonsense},
        ),
    ):
        with pytest.raises(AppError) as caught:
            client.predict(api_name=name, **asked)
        assert "Something went wrong" not in str(caught.value)
        assert "Traceback" not in str(caught.value)
    assert "Traceback" not in served.log.read_text()[said_before:]


@pytest.mark.slow
def test_guests_ask_only_of_what_came_with_the_studio(client: Client, served: Served) -> None:
    (served.home / "datasets" / "family").mkdir(parents=True)
    shutil.copy(
        shipped("assets") / "datasets" / "mysks" / "000.png", served.home / "datasets" / "family"
    )
    with Browser(served, "192.168.7.9") as guest:
        guest.arrive()
        told = guest.ask("dataset", "mysks", "", 0, 77, 3).json()["data"][0]
        assert told["pictures"] == 15
        assert str(served.home) not in json.dumps(told)
        assert "folder" not in told
        for asked, words in (
            (("dataset", "family", "", 0, 77, 3), "There is no dataset"),
            (("search", "mysks", "pocket", [], "a lake", "", 5), "only possible for the owner"),
            (("search", "family", "pocket", [], "a lake", "", 5), "only possible for the owner"),
        ):
            answer = guest.ask(*asked)
            assert answer.status_code == 500
            assert words in answer.json()["error"]
            assert "000.png" not in answer.text
