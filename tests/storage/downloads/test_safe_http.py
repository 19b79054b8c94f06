"""The safe client against sites that lead astray, refuse, stall and lie; real sockets and TLS."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.errors import Cancelled, DownloadError, SiteRefusal
from studio.storage.downloads.network import LostConnection, Network, is_public_address
from studio.storage.downloads.safe_http import MAX_ANSWER_BYTES, MAX_TRIES, PassingError, SafeClient
from studio.storage.downloads.site_rules import Request
from support.sentences import refused
from support.sites import CIVITAI, ELSEWHERE, HUB, OTHER, STORAGE, Asked, Sites

pytestmark = pytest.mark.smoke
PAGE = f"https://{HUB}/api/x"
FILE = f"https://{OTHER}/x"


def get(sites: Sites, url: str = PAGE, **more: Any) -> Any:
    return SafeClient(sites.network).get_json(Request(url, **more))


def answers(status: int = 200, body: bytes = b'{"a": 1}', **headers: str) -> Any:
    return lambda asked: asked.answer(status, body, **headers)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("172.16.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),  # where clouds keep their keys
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("192.0.0.9", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("::ffff:8.8.8.8", False),
        ("::8.8.8.8", False),
        ("64:ff9b::808:808", False),
        ("2002:808:808::1", False),
        ("2001:0:1::1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_public_addresses(address: str, is_public: bool) -> None:
    assert is_public_address(address) is is_public


def test_an_answer_and_what_is_asked(sites: Sites) -> None:
    sites.on(PAGE, answers())
    assert get(sites) == {"a": 1}
    headers = sites.log[0].headers
    assert headers["Host"] == HUB
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers


def test_a_name_that_leads_to_a_private_address(sites: Sites) -> None:
    sites.names[HUB] = ["10.0.0.5", "169.254.169.254"]
    with refused(DownloadError):
        get(sites)
    assert sites.log == []


def test_of_several_addresses_only_public_ones_are_used(sites: Sites) -> None:
    sites.on(PAGE, answers())
    sites.names[HUB] = ["10.0.0.5", "127.0.0.1"]
    assert get(sites) == {"a": 1}


def test_a_name_that_leads_elsewhere_at_the_second_look(sites: Sites) -> None:
    """The address that was checked is connected to: the name is not looked up again for that."""
    sites.on(PAGE, answers())
    looks = iter([["127.0.0.1"], ["10.0.0.5"]])
    connected: list[str] = []
    network = replace(
        sites.network,
        resolve=lambda host, port: [(address, sites.port) for address in next(looks)],
        is_allowed=lambda address: connected.append(address) or address == "127.0.0.1",
    )
    client = SafeClient(network)
    assert client.get_json(Request(PAGE)) == {"a": 1}
    assert connected == ["127.0.0.1"]
    with refused(DownloadError):  # the next connection looks, and checks, anew
        client.get_json(Request(PAGE))
    assert len(sites.log) == 1


def test_a_redirect_to_a_private_address(sites: Sites) -> None:
    sites.names[STORAGE] = ["192.168.0.1"]
    sites.redirect(PAGE, f"https://{STORAGE}/x")
    with refused(DownloadError):
        get(sites)


@pytest.mark.parametrize(
    "location",
    [
        f"http://{STORAGE}/x",
        f"https://{ELSEWHERE}/x",
        "https://127.0.0.1/x",
        f"https://ann:secret@{STORAGE}/x",
        f"https://{STORAGE}:8443/x",
        "file:///etc/passwd",
        "https://[::1",
        "",
    ],
)
def test_redirects_that_are_not_followed(sites: Sites, location: str) -> None:
    sites.redirect(PAGE, location)
    with refused(DownloadError):
        get(sites)
    assert [call.host for call in sites.log] == [HUB]


def test_an_endless_chain(sites: Sites) -> None:
    sites.redirect(PAGE, PAGE)
    with refused(DownloadError):
        get(sites)
    assert len(sites.log) == 6


def test_five_redirects_are_followed(sites: Sites) -> None:
    for number in range(5):
        sites.redirect(f"{PAGE}{number or ''}", f"{PAGE}{number + 1}", status=301 + number % 2)
    sites.on(f"{PAGE}5", answers())
    assert get(sites) == {"a": 1}


def test_a_secret_stays_with_its_site(sites: Sites) -> None:
    sites.redirect(PAGE, f"https://{STORAGE}/x")
    sites.redirect(f"https://{STORAGE}/x", f"https://{HUB}/back")
    sites.on(f"https://{HUB}/back", answers())
    get(sites, token="hf_secret")
    sent = {(call.host, "hf_secret" in str(call.headers)) for call in sites.log}
    assert sent == {(HUB, True), (STORAGE, False)}


def test_another_site_only_after_a_question(sites: Sites) -> None:
    sites.on(FILE, answers())
    with refused(DownloadError):
        get(sites, FILE)
    assert sites.log == []
    assert get(sites, FILE, is_confirmed=True) == {"a": 1}
    assert get(sites, FILE, trusted_host=OTHER) == {"a": 1}


def test_a_storage_only_after_a_redirect(sites: Sites) -> None:
    with refused(DownloadError):
        get(sites, "https://files.r2.cloudflarestorage.com/x")


def test_a_certificate_of_nobody(sites: Sites) -> None:
    sites.on(PAGE, answers())
    network = replace(sites.network, create_context=ssl.create_default_context)
    with refused(DownloadError):
        SafeClient(network).get_json(Request(PAGE))
    assert sites.log == []


def test_a_certificate_for_another_name(sites: Sites) -> None:
    sites.names["evil.hf.co"] = ["127.0.0.1"]
    with refused(DownloadError):
        get(sites, "https://evil.hf.co/x")


def test_no_such_name(sites: Sites) -> None:
    with refused(LostConnection):
        get(sites, "https://nowhere.hf.co/x")
    assert len(sites.pauses) > 0


def test_nobody_answers(sites: Sites) -> None:
    network = replace(sites.network, resolve=lambda host, port: [("127.0.0.1", 1)])
    with refused(LostConnection):
        SafeClient(network).get_json(Request(PAGE))


@given(
    host=st.text("aé.-_:[]@%\\ /0x", max_size=12),
    path=st.text("/aé%\n ?#;\x00\r", max_size=12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_address_is_asked_or_refused_in_words(sites: Sites, host: str, path: str) -> None:
    network = replace(sites.network, resolve=lambda host, port: [("127.0.0.1", sites.port)])
    client = SafeClient(network, max_tries=1)
    for url in (f"https://{host}/{path}", f"https://{HUB}/{path}"):
        with suppress(DownloadError):
            client.get_json(Request(url, is_confirmed=True))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501])
def test_a_refusal_is_said_at_once(sites: Sites, status: int) -> None:
    sites.on(PAGE, answers(status))
    with refused(SiteRefusal):
        get(sites)
    assert len(sites.log) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_is_tried_again_and_said(sites: Sites, status: int) -> None:
    sites.on(PAGE, answers(status))
    with refused(PassingError):
        get(sites)
    assert len(sites.log) == MAX_TRIES
    assert sum(sites.pauses) == pytest.approx(2 ** (MAX_TRIES - 1) - 1)


def test_trouble_that_passes(sites: Sites) -> None:
    left = [503, 500, 200]
    sites.on(PAGE, lambda asked: asked.answer(left.pop(0), b"[]"))
    assert get(sites) == []


def test_the_pause_that_a_site_asks_for_is_kept(sites: Sites) -> None:
    left = [429, 200]
    sites.on(PAGE, lambda asked: asked.answer(left.pop(0), b"[]", Retry_After="7"))
    get(sites)
    assert sum(sites.pauses) == pytest.approx(7)


@pytest.mark.parametrize("text", ["100000", "Wed, 21 Oct 2199 07:28:00 GMT"])
def test_a_long_pause_is_said_instead(sites: Sites, text: str) -> None:
    sites.on(PAGE, answers(429, Retry_After=text))
    with pytest.raises(PassingError):
        get(sites)
    assert sites.pauses == []


@pytest.mark.parametrize("text", ["soon", "-5", "Wed, 21 Oct 1999 07:28:00 GMT", "9" * 99])
def test_a_pause_of_nonsense(sites: Sites, text: str) -> None:
    sites.on(PAGE, answers(429, Retry_After=text))
    with pytest.raises(PassingError):
        get(sites)
    assert len(sites.log) == MAX_TRIES


def test_a_packed_answer_is_refused(sites: Sites) -> None:
    sites.on(PAGE, answers(Content_Encoding="gzip"))
    with refused(DownloadError):
        get(sites)


@pytest.mark.parametrize(
    "body", [b"<html>log in", b"[" * 100_000, b"\xff\xfe", b"", b'{"a": 1'], ids=range(5)
)
def test_an_answer_that_is_no_list(sites: Sites, body: bytes) -> None:
    sites.on(PAGE, answers(body=body))
    with refused(DownloadError):
        get(sites)


def test_an_endless_answer(sites: Sites) -> None:
    def flood(asked: Asked) -> None:
        asked.start(200, Transfer_Encoding="chunked")
        chunk = b" " * 2**20
        for _ in range(2 * MAX_ANSWER_BYTES // 2**20):
            asked.wfile.write(b"100000\r\n" + chunk + b"\r\n")

    sites.on(PAGE, flood)
    with refused(DownloadError):
        get(sites)


def test_a_head_of_endless_lines(sites: Sites) -> None:
    def flood(asked: Asked) -> None:
        asked.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            asked.wfile.write(f"X-{number}: {'x' * 900}\r\n".encode())

    sites.on(PAGE, flood)
    with refused(DownloadError):
        get(sites)


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 2\x00\r\n\r\n"])
def test_an_answer_that_is_no_http(sites: Sites, raw: bytes) -> None:
    sites.on(PAGE, lambda asked: asked.wfile.write(raw))
    with pytest.raises(DownloadError):
        get(sites)


def test_a_cut_answer(sites: Sites) -> None:
    def cut(asked: Asked) -> None:
        asked.start(200, Content_Length="100")
        asked.wfile.write(b"{")

    sites.on(PAGE, cut)
    with refused(LostConnection):
        get(sites)


def test_silence_is_given_up(sites: Sites) -> None:
    sites.silence_seconds = 0.3
    sites.on(PAGE, lambda asked: time.sleep(1))
    with refused(LostConnection):
        SafeClient(sites.network)._ask(PAGE, Request(PAGE))


def test_a_stop_is_heard_while_nothing_comes(sites: Sites) -> None:
    sites.silence_seconds = 30
    ended = threading.Event()
    sites.on(PAGE, lambda asked: ended.wait(10) and None)
    end = time.monotonic() + 0.3

    def check_stop() -> None:
        if time.monotonic() > end:
            raise Cancelled

    with pytest.raises(Cancelled):
        SafeClient(sites.network, check_stop).get_json(Request(PAGE))
    ended.set()
    assert time.monotonic() < end + 2


def test_a_stop_is_heard_in_a_pause(sites: Sites) -> None:
    sites.on(PAGE, answers(503, Retry_After="200"))

    def check_stop() -> None:
        if len(sites.pauses) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        SafeClient(sites.network, check_stop).get_json(Request(PAGE))


def test_the_network_of_this_machine_checks_certificates_and_addresses() -> None:
    network = Network()
    context = network.create_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert network.is_allowed is is_public_address


def test_civitai_is_known_too(sites: Sites) -> None:
    sites.on(f"https://{CIVITAI}/x", answers())
    assert get(sites, f"https://{CIVITAI}/x") == {"a": 1}
