"""Settings of a picture at an address: what is fetched, from where, for whom, and what is said of the rest."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.cli.main import main
from studio.errors import BadFile, BadPicture, DownloadError, NotAllowed
from studio.services.picture_links import fetch_settings
from studio.services.visitor import Visitor
from studio.storage.downloads import picture_links
from support.sentences import refused
from support.sites import CIVITAI, ELSEWHERE, OTHER, Sites

OWNER, ANN = Visitor("me", is_guest=False), Visitor("ann", is_guest=True)
PICTURE = f"https://{OTHER}/a/boat%20red.png"
TEXT = "a boat\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64, Version: v1.10.1"


@pytest.fixture
def png() -> bytes:
    info = PngInfo()
    info.add_itxt("parameters", TEXT)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_settings_of_a_known_site(sites: Sites, png: bytes) -> None:
    sites.put(f"https://{CIVITAI}/x.png", png)
    recipe = fetch_settings(f" https://{CIVITAI}/x.png ", OWNER)
    assert (recipe.program, recipe.values["prompt"]) == ("A1111", "a boat")


def test_another_site_needs_a_word(sites: Sites, png: bytes) -> None:
    sites.put(PICTURE, png)
    with refused(DownloadError):
        fetch_settings(PICTURE, OWNER)
    assert not sites.log
    assert fetch_settings(PICTURE, OWNER, is_trusted=True).values["steps"] == 12
    moved = sites.redirect(f"https://{CIVITAI}/y.png", f"https://{ELSEWHERE}/y.png")
    with refused(DownloadError):
        fetch_settings(moved, OWNER)


def test_guests_fetch_nothing(sites: Sites, png: bytes) -> None:
    sites.put(f"https://{CIVITAI}/x.png", png)
    with refused(NotAllowed):
        fetch_settings(f"https://{CIVITAI}/x.png", ANN, is_trusted=True)
    assert not sites.log


@pytest.mark.parametrize(
    "link",
    [
        *("", "boat", "http://civitai.com/x.png", "https://", "https://a:b@civitai.com/x.png"),
        *("file:///etc/passwd", "https://[::1", "https://localhost/x", "https://a.b/" + "x" * 9999),
    ],
    ids=lambda link: link[:20],
)
def test_what_is_no_address(link: str, sites: Sites) -> None:
    with refused(BadFile):
        fetch_settings(link, OWNER, is_trusted=True)
    assert not sites.log


def test_no_private_machine_is_asked(sites: Sites) -> None:
    sites.names["inside.example.org"] = ["10.0.0.7"]
    with refused(DownloadError):
        fetch_settings("https://inside.example.org/x.png", OWNER, is_trusted=True)


def test_what_is_no_picture(sites: Sites, png: bytes) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    bodies = (b"<!doctype html><p>log in", plain.getvalue(), b"\0" * 99, b"", png[:60])
    for body in bodies:
        sites.put(PICTURE, body)
        with refused(BadPicture):
            fetch_settings(PICTURE, OWNER, is_trusted=True)


def test_a_picture_without_end(sites: Sites, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_links, "MAX_PICTURE_BYTES", 2**20)
    sites.put(PICTURE, png + bytes(2**21))
    with refused(DownloadError):
        fetch_settings(PICTURE, OWNER, is_trusted=True)
    sites.on(PICTURE, lambda asked: (asked.start(200), asked.wfile.write(bytes(2**21)))[0])
    with refused(DownloadError):
        fetch_settings(PICTURE, OWNER, is_trusted=True)


def test_the_command_line(sites: Sites, png: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    sites.put(PICTURE, png)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", PICTURE, "--yes"])
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["source"], report["request"]["seed"]) == ("A1111", 7)
