"""Who may do what: real studios in processes of their own, asked as hostile pages, guests and owners ask."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaling import UpscaleSpec
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.services.identities import COOKIE_NAME
from studio.services.visitor import MAX_TAB_CHARS, TAB_HEADER
from studio.settings import Settings, shipped
from studio.storage.datasets.dataset import DatasetStore
from studio.storage.home import Home
from studio.storage.jobs import Jobs
from studio.storage.training.runs import Runs
from studio.ui.api import TASK_FIELDS
from support.sentences import check_sentence
from support.served import API, Browser, Served, read_page_config


def asked(**values: Any) -> list[Any]:
    """A quick picture as the endpoint's positional values."""
    quick = {
        "prompt": "a boat",
        "width": 64,
        "height": 64,
        "steps": 2,
        "scheduler": "Euler",
        "noise_schedule": "Model default",
        "seed": 5,
    }
    return list(GenerationRequest(**(quick | values)).model_dump(mode="json").values())


QUICK = asked()


@pytest.fixture
def guest(served: Served) -> Iterator[Browser]:
    with Browser(served, "192.168.7.7") as browser:
        yield browser.arrive()


@pytest.fixture
def jobs(served: Served) -> Iterator[Jobs]:
    table = Jobs(served.home / "jobs.sqlite")
    yield table
    table.close()


def picture(browser: Browser) -> dict[str, str]:
    """Make one; where it and its thumbnail lie."""
    path = browser.ask("generate", *QUICK).json()["data"][0][0]["path"]
    return {"path": path, "thumb": path.replace("/outputs/", "/thumbs/").replace(".png", ".webp")}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "studio.gradio.live", ""],
)
def test_a_name_that_somebody_else_pointed_here_is_refused(served: Served, host: str) -> None:
    with Browser(served, host) as hostile:
        assert {hostile.get(place).status_code for place in ("/", "/config", f"{API}/info")} == {
            403
        }
        assert hostile.ask("jobs", 5).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.5"])
def test_names_of_this_machine_are_answered(served: Served, host: str) -> None:
    with Browser(served, host) as mine:
        assert mine.get("/config").status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        "http://localhost:7860",
        "https://x.gradio.live",
    ],
)
def test_another_sites_page_can_send_nothing(served: Served, origin: str) -> None:
    with Browser(served, origin=origin) as hostile:
        before = set((served.home / "uploads").rglob("*"))
        answers = [
            hostile.post(f"{API}/upload", files={"files": b"x"}),
            hostile.post(f"{API}/queue/join", json={"data": []}),
            hostile.ask("jobs", 5),
            hostile.post("/login", data={"username": "a", "password": "b"}),
        ]
        assert [answer.status_code for answer in answers] == [403] * 4
        assert set((served.home / "uploads").rglob("*")) == before
    with Browser(served, origin=served.url) as mine:
        assert (
            mine.ask("jobs", 5).status_code
            == mine.post(f"{API}/upload", files={"files": b"x"}).status_code
            == 200
        )


@pytest.mark.slow
def test_a_cookie_that_no_script_reads_tells_browsers_apart(served: Served, jobs: Jobs) -> None:
    with Browser(served) as one, Browser(served) as other:
        given = [browser.get("/").headers["set-cookie"] for browser in (one, other)]
        assert given[0] != given[1]
        assert all("HttpOnly" in text and "SameSite=Lax" in text for text in given)
        assert "set-cookie" not in one.get("/").headers
        picture(one)
        job = jobs.list_recent(1)[0]
        assert job.owner not in ("api", "")
        assert not any(signed in job.owner for signed in one.cookies[COOKIE_NAME].split(".")[1:])


@pytest.mark.slow
def test_login_on_the_network(open_studio: Callable[..., Served], tmp_path: Path) -> None:
    studio = open_studio(tmp_path / "home", "--host", "0.0.0.0")
    said = re.search(r"log in as (\S+) with the password (\S+)", studio.log.read_text())
    assert said
    with Browser(studio, "192.168.7.7") as visitor:
        closed = [
            visitor.get("/config"),
            visitor.ask("jobs", 5),
            visitor.post(f"{API}/upload", files={"files": b"x"}),
            visitor.get(f"{API}/file=/etc/passwd"),
            visitor.post(f"{API}/queue/join", json={"data": []}),
        ]
        assert {answer.status_code for answer in closed} == {401}
        for password in ("studio", said[2] + "x", said[2][:-1]):
            assert (
                visitor.post("/login", data={"username": said[1], "password": password}).status_code
                == 400
            )
        assert visitor.get("/config").status_code == 401
        assert (
            visitor.post("/login", data={"username": said[1], "password": said[2]}).status_code
            == 200
        )
        assert visitor.get("/config").status_code == visitor.ask("jobs", 5).status_code == 200
    with Browser(studio) as owner:  # who sits at the machine is never asked
        assert owner.get("/config").status_code == 200


def test_a_tab_says_which_it_is_and_opens_nothing_by_it(served: Served, jobs: Jobs) -> None:
    with Browser(served, **{TAB_HEADER: "t" * 1000}) as one:
        one.arrive()
        picture(one)
        job = jobs.list_recent(1)[0]
        assert job.tab == "t" * MAX_TAB_CHARS
        one.headers.pop(TAB_HEADER)
        picture(one)
        assert (jobs.list_recent(1)[0].owner, jobs.list_recent(1)[0].tab) == (job.owner, "")


@pytest.mark.slow
def test_a_guest_reads_own_pictures_and_nobody_elses(
    served: Served, owner: Browser, guest: Browser
) -> None:
    theirs, own, root = picture(owner), picture(guest), len(str(served.home))
    for made in (own["path"], own["thumb"]):
        assert guest.get(f"{API}/file={made}").status_code == 200
    for path in (theirs["path"], theirs["thumb"]):
        assert owner.get(f"{API}/file={path}").status_code == 200
        ways = (
            f"file={path}",
            f"file/{path}",
            f"file={path.replace('/', '%2f')}",
            f"file={served.home}/empty/..{path[root:]}",
            f"file=..{path[root:]}",
            f"file={path}?x=1",
            f"file=%00{path}",
        )
        assert [guest.get(f"{API}/{way}").status_code for way in ways] == [403] * len(ways)
    names = {name for row in guest.ask("jobs", 50).json()["data"][0] for name in row["pictures"]}
    again = {
        name for row in guest.through_the_queue("jobs", 50)["data"][0] for name in row["pictures"]
    }
    assert Path(own["path"]).name in names
    assert Path(theirs["path"]).name not in names | again
    assert names == again
    with Browser(
        served, "192.168.7.7"
    ) as program:  # without a cookie: neither that guest nor the owner's programs
        assert program.get(f"{API}/file={own['path']}").status_code == 403
        assert program.ask("jobs", 50).json()["data"][0] == []


def bring(browser: Browser, shade: int) -> str:
    """Have a picture of one colour worked on; its name among the pictures that were brought."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, 9, 9)).save(out, "PNG")
    sent = browser.post(f"{API}/upload", files={"files": ("a.png", out.getvalue())}).json()[0]
    file = {"path": sent, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    rest = [
        value
        for name, value in zip(GenerationRequest.model_fields, QUICK)
        if name in TASK_FIELDS["img2img"] and name != "image"
    ]
    return str(browser.ask("img2img", file, *rest).json()["data"][1]["request"]["image"])


@pytest.mark.slow
def test_what_a_guest_brought_is_nobody_elses(
    served: Served, owner: Browser, guest: Browser
) -> None:
    def read(browser: Browser, name: str, ending: str = ".png") -> int:
        ways = (
            f"file={served.home}/inputs/{name}{ending}",
            f"file/{served.home}/inputs/{name}{ending}",
            f"file={served.home}/outputs/../inputs/{name}{ending}",
        )
        (status,) = {browser.get(f"{API}/{way}").status_code for way in ways}
        return status

    with Browser(served, "192.168.7.7") as bob:
        bob.arrive()
        theirs, own = bring(owner, 10), bring(guest, 20)
        assert [read(browser, theirs) for browser in (owner, guest, bob)] == [200, 403, 403]
        assert [read(browser, own) for browser in (owner, guest, bob)] == [200, 200, 403]
        (mark,) = (
            path.suffix
            for path in (served.home / "inputs").glob(f"{own}.*")
            if path.suffix != ".png"
        )
        assert [read(browser, own, mark) for browser in (guest, bob)] == [403, 403]
        # nor through a job, whose pictures would be theirs
        plain = dict(zip(GenerationRequest.model_fields, QUICK))
        with_it, steps = plain | {"image": own}, [{"field": "steps", "values": [2, 3]}]
        bobs = plain | {"image": bring(bob, 30)}
        smuggled = [
            bob.ask("generate", *asked(image=own)),
            bob.ask("generate", *asked(image=own, mask=own)),
            bob.ask("sweep", steps, "", False, with_it),
            bob.ask("sweep", steps, "", True, with_it | {"mask": own}),
            *(
                bob.ask("sweep", [{"field": name, "values": [own]}], "", False, bobs)
                for name in ("image", "mask")
            ),
        ]
        for one in smuggled:
            check_sentence(one.json()["error"])
        assert guest.ask("sweep", steps, "", False, with_it).status_code == 200
        assert (
            guest.ask("generate", *asked(image=own)).status_code
            == 200
            == owner.ask("generate", *asked(image=own)).status_code
        )
        assert bring(bob, 20) == own
        assert read(bob, own) == 200  # who has the same pixels may have them


def test_nobody_reads_other_files(served: Served, owner: Browser, guest: Browser) -> None:
    made = picture(owner)["path"]
    (served.home / "studio.toml").write_text("")
    for file in (
        "jobs.sqlite",
        "gallery.sqlite",
        "studio.toml",
        "hashes.json",
        "worker-cpu.log",
        "models/other/model_index.json",
    ):
        path = served.home / file
        assert path.is_file()
        for browser in (owner, guest):
            for way in (
                f"file={path}",
                f"file=../{file}",
                f"file={served.home}/outputs/../{file}",
                f"file/{path}",
            ):
                assert browser.get(f"{API}/{way}").status_code == 403
    for browser in (owner, guest):
        for place in (
            "/etc/passwd",
            "file:///etc/passwd",
            f"{Path(__file__)}",
            "http://127.0.0.1:1/",
        ):
            assert browser.get(f"{API}/file={place}").status_code == 403
    assert (
        "somebody else" in guest.get(f"{API}/file=http://1.1.1.1/").text
    )  # gradio would fetch it for them
    for path in (
        made,
        "/etc/passwd",
        str(served.home / "jobs.sqlite"),
        f"{served.home}/uploads/../jobs.sqlite",
        "\0",
        "",
        5,
    ):
        for mark in ({}, {"meta": {"_type": "gradio.FileData"}}):
            answer = guest.ask("inspect", {"path": path, **mark})
            assert answer.status_code == 500
            assert answer.json()["error"] in (
                "Send a file.",
                None,
            )  # None: gradio refused it


def test_the_page_reads_only_what_was_dropped_on_it(
    served: Served, owner: Browser, guest: Browser
) -> None:
    config = read_page_config(served.url)
    drop = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "drop")
    upload = next(
        one for one in config["dependencies"] if [drop, "upload"] in map(list, one["targets"])
    )
    file = {"path": picture(owner)["path"], "meta": {"_type": "gradio.FileData"}}
    answer = guest.touch(
        "drop", "upload", [file if part == drop else None for part in upload["inputs"]]
    )
    assert answer.status_code == 500
    assert "a boat" not in answer.text


@pytest.mark.slow
def test_a_guest_changes_nothing_of_others(
    served: Served, guest: Browser, owner: Browser, jobs: Jobs
) -> None:
    long = {"prompt": "a boat", "steps": 150, "num_images": 90, "width": 64, "height": 64}
    picture(owner)
    ended = jobs.list_recent(1)[0].id
    running, waiting = (
        jobs.submit("generate", long, owner="ann"),
        jobs.submit("generate", long, owner="ann"),
    )
    for verb, id in (
        ("cancel", running),
        ("cancel", waiting),
        ("first", waiting),
        ("last", waiting),
        ("retry", ended),
    ):
        answer = guest.touch("queue-list", "click", [0], action=verb, target=str(id))
        assert answer.status_code == 500
        check_sentence(answer.json()["error"].replace(f"Job {id} ", "Job <number> "))
    assert [job.id for job in jobs.list_open()] == [running, waiting]
    forbidden = [
        guest.touch(
            "models-list", "click", ["", "", "", False, 0], action="unload", target="pocket"
        )
    ]
    config = read_page_config(served.url)
    kept = next(one for one in config["dependencies"] if one["api_name"] == "save_preset")
    forbidden.append(guest.ask("save_preset", *[None for _ in kept["inputs"]]))
    captions = {name: field.get_default() for name, field in CaptionSpec.model_fields.items()}
    forbidden.append(
        guest.ask("caption", *(captions | {"dataset": "moon", "dry_run": True}).values())
    )
    for answer in forbidden:
        check_sentence(answer.json()["error"])
    for id in (waiting, running):
        assert (
            owner.touch("queue-list", "click", [0], action="cancel", target=str(id)).status_code
            == 200
        )
    job = jobs.get(waiting)
    assert job
    assert job.state == "cancelled"


@pytest.mark.slow
def test_a_guest_may_ask_for_less(guest: Browser, owner: Browser, jobs: Jobs) -> None:
    before = jobs.list_recent(1)
    large = asked(width=1032, height=1032, steps=61, num_images=9, batch_size=5)
    for said in (
        guest.ask("generate", *large).json()["error"],
        guest.through_the_queue("generate", *large)["error"],
    ):
        assert [line.split(":")[0] for line in said.split("\n")] == [
            "Width",
            "Height",
            "Steps",
            "Images",
            "Batch size",
        ]
    assert jobs.list_recent(1) == before
    most = asked(num_images=9, steps=1, guidance=1)
    assert owner.ask("generate", *most).status_code == 200


@pytest.mark.slow
def test_hostile_uploads(served: Served, owner: Browser, guest: Browser) -> None:
    said = len(served.log.read_text())
    upscale_settings = list(UpscaleSpec(image="0" * 64).model_dump(mode="json").values())[1:]
    assert guest.post(f"{API}/upload", files={"files": bytes(2**26 + 1)}).status_code == 413
    page = owner.post(
        f"{API}/upload", files={"files": ("../../../x.html", b"<script>alert(1)</script>")}
    ).json()[0]
    assert Path(page).is_relative_to(served.home / "uploads")
    assert Path(page).name == "x.html"
    shown = owner.get(f"{API}/file={page}")
    assert shown.headers["content-disposition"].startswith("attachment")
    assert "html" not in shown.headers["content-type"]
    head = b"IHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4)
    hostile = (
        ("x.png", b"<svg onload=alert(1)>"),
        ("x.png", bomb),
        ("x.svg", b"<svg/>"),
        ("x.png", b""),
        ("x.ckpt", b"\x80\x04"),
        ("x.zip", b"PK\x03\x04"),
        ("x.toml", b"\0"),
    )
    for name, data in hostile:
        before = set((served.home / "uploads").rglob("*.*"))
        file = (name, io.BytesIO(data))
        answer = guest.post(f"{API}/upload", files={"files": file})
        if data != bomb:
            assert answer.status_code == 413
            check_sentence(answer.text)
            assert set((served.home / "uploads").rglob("*.*")) == before
        # what does not tell itself by its first bytes is told when it is read
        by = guest if data == bomb else owner
        sent = by.post(f"{API}/upload", files={"files": (name, io.BytesIO(data))}).json()[0]
        sent_file = {"path": sent, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        for endpoint, values in (("inspect", []), ("upscale", upscale_settings)):
            told = by.ask(endpoint, sent_file, *values).json()["error"]
            assert name in told
            if data == bomb and endpoint == "inspect":  # reads its texts: there are none
                assert "No generation settings found in" in told
            else:
                assert "not a readable image" in told or "pixels" in told
    assert "Traceback" not in served.log.read_text()[said:]


def test_small_pictures_of_a_private_dataset_are_not_served_to_guests(served: Served) -> None:
    settings = Settings(home=served.home)
    own = settings.home / "datasets" / "private"
    own.mkdir(parents=True, exist_ok=True)
    shutil.copy(shipped("assets") / "datasets" / "mysks" / "000.png", own)
    (thumb,) = DatasetStore(settings).open("private").make_thumbnails(["000.png"])
    assert thumb
    assert hashlib.sha256(thumb.read_bytes()).hexdigest()
    with Browser(served) as owner, Browser(served, "192.168.7.9") as guest:
        for browser, expected in ((owner, 200), (guest, 403)):
            browser.arrive()
            assert browser.get(f"{API}/file={thumb}").status_code == expected
            for path in (
                own / "000.png",
                Path(str(thumb).replace("/datasets/", "/datasets/../datasets/")),
            ):
                assert guest.get(f"{API}/file={path}").status_code == 403


# ---- files of guests and of the owner ----


def test_a_guest_reads_only_own_sheets(served: Served) -> None:
    axis = {"field": "steps", "values": [1, 2]}
    grid = validate(SweepSpec, {"base": {"prompt": "a boat", "seed": 3}, "axes": [axis]})
    sweeps = Home(Settings(home=served.home)).sweeps
    with Browser(served) as owner, Browser(served, "192.168.7.7") as guest:
        for browser in (owner, guest):
            browser.arrive()
        own = guest.cookies[COOKIE_NAME].partition(".")[0]
        files = []
        for sweep in (theirs := sweeps.save(grid, "somebody"), sweeps.save(grid, own)):
            files.append(sweeps.get_folder(sweep) / "viewer.html")
            files[-1].parent.mkdir(parents=True)
            files[-1].write_text("<p>a sheet</p>")
        file, address = files[0], f"{API}/file={files[0]}"
        assert (
            owner.get(address).status_code == guest.get(f"{API}/file={files[1]}").status_code == 200
        )
        for way in (
            address,
            f"{API}/file/{file}",
            f"{address}?v=1",
            f"{API}/file={file.parent}/../{theirs}/viewer.html",
        ):
            assert guest.get(way).status_code == 403
        for odd in (
            sweeps.get_folder(""),
            sweeps.get_folder(theirs),
            sweeps.get_folder("none") / "viewer.html",
        ):
            assert guest.get(f"{API}/file={odd}").status_code == 403
    sweeps.close()


def test_a_guest_reads_only_own_samples_and_loras(served: Served) -> None:
    settings = Settings(home=served.home)
    runs = Runs(settings)
    config = validate(TrainingConfig, {"dataset": "moon", "name": "x", "steps": 3})
    with Browser(served) as owner, Browser(served, "192.168.7.8") as guest:
        for browser in (owner, guest):
            browser.arrive()
        own = guest.cookies[COOKIE_NAME].partition(".")[0]
        for who, name, expected in (("somebody", "theirs", 403), (own, "mine", 200)):
            id = runs.add(config, who)
            sample = settings.runs / id / "samples" / "00000000-0.png"
            file = settings.loras / f"{name}.safetensors"
            for path in (sample, file):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
            runs.update_record(id, "result", lora={"what": "lora", "lora": name, "step": 1})
            for path in (sample, file):
                assert owner.get(f"{API}/file={path}").status_code == 200
                assert guest.get(f"{API}/file={path}").status_code == expected


@pytest.mark.slow
def test_an_invented_address_is_no_new_guest(served: Served, jobs: Jobs) -> None:
    """uvicorn by itself believes X-Forwarded-For of whatever comes from this machine, as a tunnel does."""
    for address in ("10.1.1.1", "10.1.1.2", "127.0.0.1"):
        with Browser(served, "192.168.7.7", **{"x-forwarded-for": address}) as program:
            assert program.ask("generate", *QUICK).status_code == 200
    owners = {job.owner for job in jobs.list_recent(3)}
    assert len(owners) == 1
    assert owners.pop().startswith("api-")
