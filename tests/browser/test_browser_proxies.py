"""The page behind a real nginx, as people set one up, and what it says when the way is cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.browser import CHROMIUM, FLAGS, ask, state
from support.reverse_proxy import reverse_proxy
from support.sentences import check_sentence
from support.served import Served, need_port

pytestmark = pytest.mark.slow
NAME = "studio.example.com"
USUAL = """proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;"""
# title: host, path that is opened, what stands in nginx's configuration, whether to log in
PROXIES: dict[str, tuple[str, str, str, bool]] = {
    "name": (NAME, "/", f"location / {{ proxy_pass http://studio; {USUAL} }}", True),
    "name that nginx hides": (NAME, "/", "location / { proxy_pass http://studio; }", True),
    "path cut off": (
        "127.0.0.1",
        "/studio/",
        f"location /studio/ {{ proxy_pass http://studio/; {USUAL} }}",
        True,
    ),
    "path cut off, without the slash": (
        "127.0.0.1",
        "/studio",
        f"location /studio {{ rewrite ^/studio/?(.*)$ /$1 break; proxy_pass http://studio; {USUAL} }}",
        True,
    ),
    "path cut off under a name that nginx hides": (
        NAME,
        "/studio/",
        "location /studio/ { proxy_pass http://studio/; }",
        True,
    ),
    "Jupyter": (
        "127.0.0.1",
        "/user/ann/proxy/7860/",
        """location /user/ann/proxy/7860/ { proxy_pass http://studio/; proxy_http_version 1.1;
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Context /user/ann/proxy/7860;
    proxy_set_header X-Forwarded-Prefix /user/ann/proxy/7860; }""",
        False,
    ),
}
# Read by the browser, which finds the name that the page has.
READ_BYTES = (
    "address => fetch(address).then(a => a.arrayBuffer()).then(a => [...new Uint8Array(a)])"
)
KEPT = f"location /studio {{ proxy_pass http://studio; {USUAL} }}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser that finds the name on this machine."""
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    need_port()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*FLAGS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def named(open_studio: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    home = tmp_path_factory.mktemp("named") / "home"
    return open_studio(home, "--allow-host", NAME, "--auth", "ann:se:cret")


@pytest.fixture(scope="module")
def rooted(open_studio: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    home = tmp_path_factory.mktemp("rooted") / "home"
    flags = ("--root-path", "/studio", "--trusted-proxy", "127.0.0.1", "--auth", "ann:se:cret")
    return open_studio(home, *flags)


@pytest.fixture
def faults() -> list[str]:
    return []


@pytest.fixture
def page(chromium: Browser, faults: list[str]) -> Iterator[Page]:
    """A page of a fresh browser; what breaks the content policy or fails in a script is a fault."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None,
    )
    yield page
    context.close()


def log_in(page: Page) -> None:
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("se:cret")
    page.get_by_role("button", name="Log in").click()


def generate(page: Page, studio: Served) -> None:
    """Make an image; the one that the page shows has to be a file of the studio's."""
    expect(page.locator("#estimate")).to_contain_text("steps")
    ask(page, prompt="a red ball", width=64, height=64, steps=3)
    state(page, "done")
    image = page.locator("#result img").first
    expect(image).to_be_visible()
    data = bytes(page.evaluate(READ_BYTES, image.get_attribute("src")))
    files = (studio.home / "outputs").rglob("*.png")
    (path,) = [path for path in files if path.read_bytes() == data]
    # what the studio's own HTML names, it names relative to the page
    relative = page.evaluate(
        "path => fetch(`gradio_api/file=${path}`).then(a => a.status)", str(path)
    )
    assert relative == 200
    expect(page.locator("#connection-fault")).to_have_count(0)


@pytest.mark.parametrize("title", PROXIES)
def test_an_image_is_made_through_nginx(
    title: str, named: Served, page: Page, tmp_path: Path, faults: list[str]
) -> None:
    host, path, locations, has_login = PROXIES[title]
    with reverse_proxy(tmp_path / "nginx", named.host, locations) as port:
        page.goto(f"http://{host}:{port}{path}")
        if has_login:
            log_in(page)
        generate(page, named)
        assert page.url == f"http://{host}:{port}{path.rstrip('/')}/"
        assert page.locator("#log-out").count() == has_login
    # gradio looks for a helper of embedded pages where it thinks the page lies; nothing needs it.
    assert [fault for fault in faults if "iframeResizer" not in fault] == []


@pytest.mark.parametrize("path", ["/studio", "/studio/"])
def test_an_image_is_made_under_a_path_that_nginx_keeps(
    path: str, rooted: Served, page: Page, tmp_path: Path, faults: list[str]
) -> None:
    with reverse_proxy(tmp_path / "nginx", rooted.host, KEPT) as port:
        page.goto(f"http://127.0.0.1:{port}{path}")
        log_in(page)
        generate(page, rooted)
        assert page.url == f"http://127.0.0.1:{port}/studio/"
        page.locator("#log-out button").click()
        expect(page.get_by_label("Password")).to_be_visible()
        page.goto(f"http://127.0.0.1:{port}/studio/")
        expect(page.get_by_label("Password")).to_be_visible()
    assert faults == []


def test_the_wrong_name_is_said(served: Served, page: Page, tmp_path: Path) -> None:
    keeps = f"location / {{ proxy_pass http://studio; {USUAL} }}"
    with reverse_proxy(tmp_path / "keeps", served.host, keeps) as port:
        page.goto(f"http://{NAME}:{port}/")
        check_sentence(page.inner_text("body"))
    hides = "location / { proxy_pass http://studio; }"
    with reverse_proxy(tmp_path / "hides", served.host, hides) as port:
        page.goto(f"http://{NAME}:{port}/")
        expect(page.locator("#generate")).to_be_visible()
        banner = page.locator("#connection-fault p")
        expect(banner).to_contain_text("--allow-host")
        check_sentence(banner.inner_text().replace(f":{port}", ":<port>"))


def test_a_program_logs_in_as_it_does_with_gradio(rooted: Served, tmp_path: Path) -> None:
    with reverse_proxy(tmp_path / "nginx", rooted.host, KEPT) as port:
        address = f"http://127.0.0.1:{port}/studio/"
        with pytest.raises(Exception, match="credentials were not provided"):
            Client(address, verbose=False)
        with pytest.raises(ValueError, match="Could not login"):
            Client(address, auth=("ann", "wrong"), verbose=False)
        client = Client(address, auth=("ann", "se:cret"), verbose=False)
        result = client.predict(
            prompt="a red ball", width=64, height=64, steps=2, api_name="/generate"
        )
        image = result[0][0]
        assert (
            Path(image["image"] if isinstance(image, dict) else image).read_bytes()[1:4] == b"PNG"
        )
        for path in ("/gradio_api/openapi.json", "/gradio_api/info", "/config", "/"):
            assert httpx.get(f"{address.rstrip('/')}{path}").status_code == 401


FAILURES: list[tuple[str, dict[str, Any]]] = [
    ("no answer", {}),
    ("bad gateway", {"status": 502, "content_type": "text/html", "body": "<h1>Bad</h1>"}),
    ("refused by a proxy", {"status": 403, "content_type": "text/html", "body": "<h1>No</h1>"}),
    ("logged out", {"status": 401, "content_type": "application/json", "body": "{}"}),
    ("lost path", {"status": 404, "content_type": "text/html", "body": "<h1>None</h1>"}),
    ("too many", {"status": 429, "content_type": "text/plain", "body": "Wait a minute."}),
    ("too large", {"status": 413, "content_type": "text/html", "body": ""}),
]


def test_a_request_that_fails_says_so_on_the_page(
    served: Served, page: Page, faults: list[str]
) -> None:
    page.goto(f"{served.url}/")
    expect(page.locator("#estimate")).to_contain_text("steps")
    banner = page.locator("#connection-fault")
    join = re.compile(r"/gradio_api/queue/join")
    for _, answer in FAILURES:
        if answer:
            page.route(join, partial(lambda answer, route: route.fulfill(**answer), answer))
        else:
            page.route(join, lambda route: route.abort())
        page.locator("#generate").click()
        expect(banner).to_be_visible()
        check_sentence(banner.locator("p").inner_text())
        page.unroute(join)
        banner.get_by_role("button", name="Close").click()
        expect(banner).to_have_count(0)
    # how far an upload is nobody knows once it has come
    progress = re.compile(r"/gradio_api/upload_progress")
    page.route(progress, lambda route: route.fulfill(status=404, body="{}"))
    status = page.evaluate("fetch('gradio_api/upload_progress?upload_id=1').then(a => a.status)")
    assert status == 404
    expect(banner).to_have_count(0)
    page.unroute(progress)
    # and it goes away by itself when an answer comes again
    page.goto(f"{served.url}/")
    expect(page.locator("#estimate")).to_contain_text("steps")
    page.route(join, lambda route: route.fulfill(status=429, body="Wait."))
    page.locator("#generate").click()
    expect(banner).to_be_visible()
    page.unroute(join)
    ask(page, prompt="a red ball", width=64, height=64, steps=2)
    state(page, "done")
    expect(banner).to_have_count(0)
    assert faults == []
