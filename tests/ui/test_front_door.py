"""Who comes in: everything that somebody may write into a request, against the page's own access control."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.errors import Busy, DiskError, InvalidSpec, TooSoon
from studio.services.identities import COOKIE_NAME, Identities
from studio.services.logins import Login, choose_logins
from studio.settings import Settings, load
from studio.storage.home import Home
from studio.ui.login import LOGIN_COOKIE
from studio.ui.middleware import check_port_free, format_host
from support.front_door import Clock, FrontDoor, who
from support.sentences import check_sentence, refused

LAN = "192.168.7.7"
JSON_PATH = "/gradio_api/info"
ANN = Login("ann", "se:cret", is_personal=True)
SHARED = Login("studio", "letmein")


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., FrontDoor]]:
    homes: list[Home] = []

    def open_door(*logins: Login, **values: Any) -> FrontDoor:
        homes.append(Home(load(**{"home": tmp_path / "home", **values})))
        return FrontDoor(homes[-1], logins)

    yield open_door
    for home in homes:
        home.close()


# ---- the original attack: whatever a stranger writes, nobody becomes the owner or gets in without a password ----

HOSTILE_HOSTS = [
    *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:7860", ""),
    *("studio.gradio.live", "x.gradio.live:443", "gradio.live", "localhost@evil.example", "a b"),
    *("evil.example#localhost", "evil.example/localhost", "evil.example?localhost", "0x7f.1"),
    *("127.1", "2130706433", "017700000001", "[::1", "::1]", "localhost.", "xn--localhost-", "%31"),
    *("LOCALHOST.evil", "127.0.0.1\\@evil", "evil.example, localhost", "null", "undefined", "*"),
    *("studio.local", "metadata.google.internal", "localhost.localdomain", "ip6-localhost"),
]
HOSTILE_ORIGINS = [
    *("http://evil.example", "null", "http://127.0.0.1", "http://localhost:7860", "file://"),
    *("https://x.gradio.live", "http://127.0.0.1:80", "http://127.0.0.1:78600", "//127.0.0.1:7860"),
    *("127.0.0.1:7860", "http://127.0.0.1:7860.evil.example", "http://127.0.0.1:7860@evil.example"),
    *("http://evil.example:7860", "chrome-extension://abc", "ftp://127.0.0.1:7860", "http://[::1]"),
    *("http://[::1]:7860", "http://", "https://", "http://a b", "http://127.0.0.1:x", "data:", ""),
    *("http://127.0.0.1:7860\\.evil", "https://127.0.0.1:7861", "moz-extension://1", "about:blank"),
]
FORWARDED = [
    {name: text}
    for name, text in itertools.product(
        (
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "via",
            "x-forwarded-host",
            "x-forwarded-proto",
        ),
        ("127.0.0.1", "::1", "localhost", "for=127.0.0.1", "https", "127.0.0.1, 127.0.0.1", " "),
    )
]
COOKIES = [
    *("", "x", "owner", "api", "0" * 16, f"{'0' * 16}.{'0' * 64}", f"{'0' * 16}.", f".{'0' * 64}"),
    *(f"{number:016x}.{number:064x}" for number in range(8)),
    *("../..", "' OR 1=1 --", '"a"', "a" * 5000, "%00", "=", ";", "\x7f", "null", "[]", "{}", "🙂"),
]
PASSWORDS = [
    *(("", ""), ("studio", ""), ("", "letmein"), ("studio", "letmein "), ("Studio", "letmein")),
    *(("studio", "LETMEIN"), ("studio", "letmei"), ("ann", "letmein"), ("studio", "se:cret")),
    *(("studio\0", "letmein"), ("studio", "letmein\0"), ("studio", "a" * 20_000), ("*", "*")),
    *(("' OR 1=1 --", "x"), ("admin", "admin"), ("studio", "\ud800"), ("ann:se", "cret")),
]
CLOSED_PATHS = [
    *(
        "/config",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/openapi.json",
        "/docs",
        "/redoc",
    ),
    *("/theme.css", "/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/upload"),
    *(
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/heartbeat/x",
        "/gradio_api/app_id",
        "/monitoring",
    ),
    *(
        "/gradio_api/call/jobs",
        "/gradio_api/run/jobs",
        "/static/x.js",
        "/assets/x.js",
        "/%2fconfig",
        "/login/x",
        "/logout/x",
    ),
    *("/gradio_api/login_check", "/gradio_api/token", "/gradio_api/user", "/manifest.json", "/x"),
    *("/login/../config", "/favicon.ico/../config", "/Login", "/gradio_api/startup-events/x"),
]
ATTACKS = [
    *(("host", value) for value in HOSTILE_HOSTS),
    *(("origin", value) for value in HOSTILE_ORIGINS),
    *(("forwarded", value) for value in FORWARDED),
    *(("cookie", value) for value in COOKIES),
    *(("password", value) for value in PASSWORDS),
    *(("path", value) for value in CLOSED_PATHS),
]


def attack(door: FrontDoor, kind: str, value: Any, number: int) -> str:
    """Try one thing; say what came of it: `held`, or what did not hold."""
    if kind == "host":
        statuses = {door.visit(host=value).get(path).status_code for path in ("/", "/config")}
        return "held" if statuses == {403} else f"answered {statuses}"
    if kind == "origin":
        answer = door.visit(origin=value).post(JSON_PATH)
        return "held" if answer.status_code == 403 else "took it"
    if kind == "forwarded":
        browser = door.visit()
        browser.headers.update(value)
        answer = browser.get("/config")
        return "held" if answer.status_code == 401 else "was the owner"
    if kind == "cookie":
        text = f"{COOKIE_NAME}={value}; {LOGIN_COOKIE}={value}"
        answer = door.visit(LAN).get("/config", headers={"cookie": text.encode("utf-8")})
        return "held" if answer.status_code == 401 else "let in"
    if kind == "password":
        body = {"username": value[0], "password": value[1]}
        data = {key: text.encode("utf-8", "surrogatepass") for key, text in body.items()}
        answer = door.visit(f"10.0.{number}.1").post("/login", data=data)
        door.clock.seconds += 4000
        return "held" if answer.status_code == 400 and not answer.cookies else "let in"
    answers = [getattr(door.visit(LAN), verb)(value) for verb in ("get", "post")]
    # The login page says nothing of the studio; a path that is none of gradio's is not answered.
    return "held" if {answer.status_code for answer in answers} == {401} else "open"


@pytest.mark.slow
def test_nothing_that_a_stranger_writes_opens_the_door(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door(SHARED, ANN)
    outcomes = [
        (kind, str(value)[:80], attack(door, kind, value, number))
        for number, (kind, value) in enumerate(ATTACKS)
    ]
    assert [outcome for outcome in outcomes if outcome[2] != "held"] == []
    assert len(outcomes) >= 175
    # The door is no wall: the right ones are let in.
    assert who(door.visit().get(JSON_PATH))["is_guest"] is False
    friend = door.visit(LAN)
    right = {"username": SHARED.name, "password": SHARED.password}
    assert friend.post("/login", data=right).json() == {"success": True}
    assert who(friend.get(JSON_PATH))["is_guest"] is True


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "localhost:7860"])
def test_the_owner_sits_at_this_machine(open_door: Callable[..., FrontDoor], name: str) -> None:
    door = open_door(SHARED)
    assert who(door.visit("127.0.0.1", name).get(JSON_PATH)) | {"root": ""} == {
        "id": "api",
        "is_guest": False,
        "root": "",
        "told": [],
        "path": JSON_PATH,
    }
    assert door.visit("::ffff:127.0.0.1", name).get(JSON_PATH).status_code == 200
    assert door.visit("::ffff:10.0.0.9", name).get(JSON_PATH).status_code == 401


def test_a_proxy_that_says_nothing_is_known_by_its_http(tmp_path: Path) -> None:
    """Browsers have not spoken 1.0 for decades; nginx does to whom it passes requests on."""
    from studio.services.connection import read_connection
    from studio.services.visitor import is_owner

    scope = {"client": ("127.0.0.1", 1), "headers": [(b"host", b"127.0.0.1:7860")]}
    settings = Settings(home=tmp_path)
    assert is_owner(read_connection(scope, settings))
    assert not is_owner(read_connection(scope | {"http_version": "1.0"}, settings))


# ---- identities ----


def given_cookie(browser: Any) -> str:
    return str(browser.cookies[COOKIE_NAME])


def test_an_identity_is_given_out_and_never_invented(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door()
    friend, other = door.visit(LAN), door.visit(LAN)
    ids = []
    for browser in (friend, other):
        assert browser.get("/").status_code == 200
        visitor_id, _, signature = given_cookie(browser).partition(".")
        assert who(browser.get(JSON_PATH))["id"] == visitor_id
        assert len(signature) == 64
        ids.append(visitor_id)
    assert ids[0] != ids[1]
    assert "set-cookie" not in friend.get("/").headers
    # Another's id under one's own signature, and eight invented ones: all are who they were.
    forged = [f"{ids[0]}.{given_cookie(other).partition('.')[2]}", *map(str, range(8))]
    seen = {
        who(door.visit(LAN).get(JSON_PATH, headers={"cookie": f"{COOKIE_NAME}={text}"}))["id"]
        for text in forged
    }
    assert len(seen) == 1
    assert not seen & set(ids)
    # The key outlives a restart, and is for nobody else to read.
    key = door.home.settings.home / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600
    again = FrontDoor(door.home)
    cookie = {"cookie": f"{COOKIE_NAME}={given_cookie(friend)}"}
    assert who(again.visit(LAN).get(JSON_PATH, headers=cookie))["id"] == ids[0]


def test_a_forwarded_address_makes_nobody_new(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door()
    seen = {
        who(door.visit(x_forwarded_for=f"10.0.0.{number}").get(JSON_PATH))["id"]
        for number in range(20)
    }
    assert len(seen) == 1
    named = open_door(trusted_proxies=("127.0.0.1",))
    chain = "6.6.6.6, 10.0.0.{}, 127.0.0.1"  # what stands before the proxy's word is hearsay
    seen = {
        who(named.visit(x_forwarded_for=chain.format(number % 2)).get(JSON_PATH))["id"]
        for number in range(20)
    }
    assert len(seen) == 2


def test_old_cookies_open_what_they_own(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door()
    old, stranger = "an-old-cookie-of-32-random-letters", "an-invented-cookie"
    old_id = hashlib.sha256(old.encode()).hexdigest()[:16]
    door.home.jobs.submit("generate", {}, owner=old_id)
    guest = door.visit(LAN, cookie=f"{COOKIE_NAME}={old}")
    assert who(guest.get(JSON_PATH))["id"] == old_id
    signed = guest.get("/").cookies[COOKIE_NAME]
    assert signed.startswith(f"{old_id}.")
    renewed = door.visit(LAN, cookie=f"{COOKIE_NAME}={signed}")
    assert who(renewed.get(JSON_PATH))["id"] == old_id
    new = door.visit(LAN, cookie=f"{COOKIE_NAME}={stranger}").get("/").cookies[COOKIE_NAME]
    assert not new.startswith(hashlib.sha256(stranger.encode()).hexdigest()[:16])
    # The owner's browser is who it was, whatever it has.
    owner = door.visit(cookie=f"{COOKIE_NAME}={stranger}")
    assert who(owner.get(JSON_PATH))["id"] == hashlib.sha256(stranger.encode()).hexdigest()[:16]


def test_new_guests_come_so_many_an_hour(tmp_path: Path) -> None:
    home, clock = Home(load(home=tmp_path, new_visitors=3)), Clock()
    identities = Identities(home, clock)
    assert len({identities.issue(LAN, is_guest=True) for _ in range(3)}) == 3
    with refused(TooSoon):
        identities.issue(LAN, is_guest=True)
    identities.issue(LAN, is_guest=False)  # the owner's own browsers are not counted
    for number in range(9):  # 12 of all addresses together
        identities.issue(f"10.0.{number}.1", is_guest=True)
    with refused(TooSoon):
        identities.issue("10.9.9.9", is_guest=True)
    clock.seconds += 3601
    identities.issue(LAN, is_guest=True)
    for number in range(2):  # one customer has 2⁶⁴ addresses of IPv6
        identities.issue(f"2001:db8::{number}", is_guest=True)
    identities.issue("2001:db8::9", is_guest=True)
    with refused(TooSoon):
        identities.issue("2001:db8::ffff:1", is_guest=True)
    home.close()


def test_one_guest_too_many_reads_why(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door(new_visitors=1)
    assert door.visit(LAN).get("/").status_code == 200
    answer = door.visit(LAN).get("/")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 3000
    check_sentence(answer.text)


def test_a_named_guest_is_the_same_on_two_machines(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door(SHARED, ANN, new_visitors=1)
    seen = set()
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        browser = door.visit(address)
        right = {"username": "ann", "password": "se:cret"}
        assert browser.post("/login", data=right).status_code == 200
        assert browser.get("/").status_code == 200  # and needs no cookie to be known by
        seen.add(who(browser.get(JSON_PATH))["id"])
        assert who(browser.get(JSON_PATH))["is_guest"] is True
    assert len(seen) == 1


# ---- login ----


def log_in(door: FrontDoor, address: str = LAN, **headers: str) -> Any:
    browser = door.visit(address, **headers)
    right = {"username": SHARED.name, "password": SHARED.password}
    assert browser.post("/login", data=right).status_code == 200
    return browser


def test_a_wrong_password_slows_down_the_next(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door(SHARED)
    right = {"username": SHARED.name, "password": SHARED.password}
    wrong = {"username": SHARED.name, "password": "x"}
    browser, pauses = door.visit(LAN), []
    for _ in range(24):
        answer = browser.post("/login", data=wrong)
        if answer.status_code == 400:
            continue
        assert answer.status_code == 429
        pauses.append(int(answer.headers["retry-after"]))
        if len(pauses) == 1:
            check_sentence(answer.json()["detail"])
        assert browser.post("/login", data=right).status_code == 429  # nor is the right one
        assert browser.get("/config").status_code == 401
        door.clock.seconds += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2
    assert pauses[-1] == 60
    assert door.visit("10.0.0.1").post("/login", data=right).status_code == 200
    door.clock.seconds += 60
    assert browser.post("/login", data=right).status_code == 200
    assert browser.get("/config").status_code == 200


@pytest.mark.slow
def test_many_machines_that_guess_are_slowed_down_together(
    open_door: Callable[..., FrontDoor],
) -> None:
    door = open_door(SHARED)
    wrong = {"username": SHARED.name, "password": "x"}
    tries = 0
    for number in range(300):
        answer = door.visit(f"10.{number // 250}.{number % 250}.1").post("/login", data=wrong)
        tries += answer.status_code == 400
        door.clock.seconds += 0.01
    assert tries < 50
    door.clock.seconds += 5
    log_in(door)  # and who knows it waits five seconds at most


def test_logging_out_ends_one_session_and_needs_the_own_page(
    open_door: Callable[..., FrontDoor],
) -> None:
    door = open_door(SHARED)
    one, other = log_in(door), log_in(door)
    own = {"origin": "http://127.0.0.1:7860"}
    hostile: list[dict[str, str]] = [
        *({"origin": origin} for origin in HOSTILE_ORIGINS),
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ]
    for headers in hostile:
        assert one.post("/logout", headers=headers).status_code == 403
    assert one.get("/logout").status_code == 405
    assert one.get("/config").status_code == 200
    token = one.cookies[LOGIN_COOKIE]
    assert one.post("/logout", headers=own).status_code == 200
    assert one.get("/config").status_code == 401
    taken = door.visit(LAN, cookie=f"{LOGIN_COOKIE}={token}")
    assert taken.get("/config").status_code == 401
    assert other.get("/config").status_code == 200


def test_a_session_outlives_a_restart_and_not_its_password(
    open_door: Callable[..., FrontDoor],
) -> None:
    door = open_door(SHARED)
    cookies = log_in(door).cookies
    token = cookies[LOGIN_COOKIE]
    stored = (door.home.settings.home / "logins.sqlite").read_bytes()
    assert token.encode() not in stored
    again = FrontDoor(door.home, (SHARED,))
    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    assert again.visit(LAN).get("/config", headers=cookie).status_code == 200
    changed = FrontDoor(door.home, (Login("studio", "another"),))
    assert changed.visit(LAN).get("/config", headers=cookie).status_code == 401


def test_many_logins_are_not_many_guests(open_door: Callable[..., FrontDoor]) -> None:
    """Before: each token alone was a guest of its own, with all that a guest may have."""
    door = open_door(SHARED)
    cookies = log_in(door).cookies
    tokens = {log_in(door, cookie=f"{COOKIE_NAME}={cookies[COOKIE_NAME]}").cookies[LOGIN_COOKIE]}
    for token in tokens:
        alone = {"cookie": f"{LOGIN_COOKIE}={token}"}
        assert door.visit(LAN).get("/config", headers=alone).status_code == 401
        both = {"cookie": f"{LOGIN_COOKIE}={token}; {COOKIE_NAME}={cookies[COOKIE_NAME]}"}
        visitor = who(door.visit(LAN).get("/config", headers=both))
        assert visitor["id"] == cookies[COOKIE_NAME].partition(".")[0]


def test_a_table_of_logins_that_is_damaged_while_open_is_said(
    open_door: Callable[..., FrontDoor], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = open_door(SHARED)
    cookies = log_in(door).cookies

    def fail(_token: str) -> None:
        raise DiskError("logins.sqlite could not be read or written: it is damaged.")

    monkeypatch.setattr(door.logins.sessions, "get", fail)
    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    answer = door.visit(LAN).get("/config", headers=cookie)
    assert answer.status_code == 503
    assert "logins.sqlite" in answer.text


def test_a_folder_is_no_file(open_door: Callable[..., FrontDoor]) -> None:
    guest = open_door().visit(LAN)
    for name in ("outputs", "thumbs", "loras", "inputs", "sweeps", "runs", ""):
        answer = guest.get(f"/gradio_api/file=/studio-home/{name}")
        assert answer.status_code == 403, name


def test_a_browser_logs_in_by_the_page(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door(SHARED, root_path="/studio")
    browser = door.visit(LAN, accept="text/html")
    page = browser.get("/studio/")
    assert page.status_code == 401
    assert 'action="/studio/login"' in page.text
    wrong = browser.post("/studio/login", data={"username": "<b>", "password": "x"})
    assert wrong.status_code == 400
    assert re.findall(r'role="alert">([^<]*)<', wrong.text) == ["Wrong name or password."]
    right = {"username": SHARED.name, "password": SHARED.password}
    answer = browser.post("/studio/login", data=right)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert "Path=/studio;" in answer.headers["set-cookie"]
    home = browser.get("/studio/")
    assert home.status_code == 200
    assert '<meta name="studio-login" content="studio">' in home.text
    json_browser = door.visit(LAN)
    assert json_browser.post("/login", json=right).json() == {"success": True}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, []),
        ({"auth": "ann:se:cret"}, ["ann"]),
        ({"guests": ("ann:a", "bob:b")}, ["ann", "bob"]),
        ({"auth": "me:x", "guests": ("ann:a",)}, ["me", "ann"]),
        ({"share": True}, ["studio"]),
        ({"host": "0.0.0.0"}, ["studio"]),
        ({"host": "::"}, ["studio"]),
        ({"host": "example.org"}, ["studio"]),
        ({"allow_hosts": ("example.org",)}, ["studio"]),
        ({"trusted_proxies": ("127.0.0.1",)}, ["studio"]),
    ],
)
def test_whoever_is_reached_from_outside_needs_a_password(
    values: dict[str, Any], names: list[str]
) -> None:
    first, again = choose_logins(Settings(**values)), choose_logins(Settings(**values))
    assert [login.name for login in first] == names
    assert all(len(login.password) > 12 for login in first if login.name == "studio")
    assert (first == again) is ("studio" not in names)


@pytest.mark.parametrize(
    "values",
    [
        *({"auth": text} for text in ("ann", "ann:", ":secret")),
        *({"guests": (text,)} for text in ("ann", "ann:", ":secret")),
        {"guests": ("ann:a", "ann:b")},
    ],
)
def test_what_is_no_login_is_refused(values: dict[str, Any]) -> None:
    with refused(InvalidSpec):
        choose_logins(Settings(**values))


# ---- headers ----


def test_cookies_are_kept_to_https_where_the_browser_speaks_it(
    open_door: Callable[..., FrontDoor],
) -> None:
    def is_secure(door: FrontDoor, *visitor: str, **headers: str) -> bool:
        return "; Secure" in door.visit(*visitor, **headers).get("/").headers["set-cookie"]

    shared = open_door(share=True)
    assert is_secure(shared, "127.0.0.1", "abc.gradio.live", x_forwarded_for="1.2.3.4")
    assert not is_secure(shared)
    # only a named proxy says so, else a stranger could keep the cookie from coming back
    assert not is_secure(shared, x_forwarded_proto="https")
    proxied = open_door(trusted_proxies=("127.0.0.1",))
    assert is_secure(proxied, x_forwarded_proto="https", x_forwarded_for="1.2.3.4")
    cookie = proxied.visit(x_forwarded_proto="https").get("/").headers["set-cookie"]
    assert "SameSite=Lax" in cookie
    assert "HttpOnly" in cookie
    framed = open_door(trusted_proxies=("127.0.0.1",), allow_embedding=("https://a.example",))
    cookie = framed.visit(x_forwarded_proto="https").get("/").headers["set-cookie"]
    assert "SameSite=None; Partitioned" in cookie


PLACES = ["/", "/config", "/login", "/gradio_api/queue/data", "/gradio_api/file=/x/a.svg", "/x"]


@pytest.mark.parametrize("place", PLACES)
def test_every_answer_says_what_it_may_do(open_door: Callable[..., FrontDoor], place: str) -> None:
    door = open_door(SHARED)
    for browser in (door.visit(), door.visit(LAN), door.visit(host="evil.example")):
        headers = browser.get(place).headers
        policy = headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'self'" in policy
        assert not re.search(r"https?:|\*|script-src[^;]*'unsafe-inline'", policy)
    embedded = open_door(allow_embedding=("https://colab.example",))
    policy = embedded.visit().get(place).headers["content-security-policy"]
    assert "frame-ancestors 'self' https://colab.example" in policy


def test_what_a_file_says_it_is_never_runs(open_door: Callable[..., FrontDoor]) -> None:
    door = open_door()
    sweeps = door.home.settings.sweeps

    def policy(path: object) -> str:
        answer = door.visit().get(f"/gradio_api/file={path}")
        return answer.headers["content-security-policy"]

    for name in ("a.svg", "a.html", "viewer.html", f"{sweeps}/../x/viewer.html"):
        assert "sandbox;" in policy(name)
        assert "script-src" not in policy(name)
    viewer = policy(sweeps / "1" / "viewer.html")
    assert "default-src 'none'; script-src 'unsafe-inline'" in viewer
    assert "connect-src" not in viewer


def test_the_pages_own_scripts_are_marked(open_door: Callable[..., FrontDoor]) -> None:
    browser = open_door().visit()
    pages = [browser.get("/") for _ in range(2)]
    nonces = []
    for page in pages:
        nonce = re.findall(r"'nonce-([\w-]+)'", page.headers["content-security-policy"])
        marks = re.findall(r"<script(?: type=\"module\")? nonce=\"([\w-]+)\"", page.text)
        assert len(marks) == page.text.count("<script") >= 3
        assert set(marks) == set(nonce)
        nonces += nonce
    assert nonces[0] != nonces[1]


def test_events_are_not_held_back(open_door: Callable[..., FrontDoor]) -> None:
    headers = open_door().visit().get("/gradio_api/queue/data").headers
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-cache, no-transform"


def test_another_sites_page_reads_nothing(open_door: Callable[..., FrontDoor]) -> None:
    """An image or a script of the studio's in a page elsewhere, asked for from the owner's browser."""
    browser = open_door().visit()
    for site in ("cross-site", "same-site"):
        for path in ("/", "/config", "/gradio_api/deep_link", "/gradio_api/file=/x.png"):
            headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
            assert browser.get(path, headers=headers).status_code == 403
        # a link to the page is followed
        followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert browser.get("/", headers=followed).status_code == 200
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert browser.get("/config", headers=own).status_code == 200


# ---- behind proxies ----


def test_a_name_is_allowed_where_the_settings_say_so(open_door: Callable[..., FrontDoor]) -> None:
    named = {"host": "studio.example.com", "origin": "https://studio.example.com"}
    closed = open_door()
    check_sentence(closed.visit(host=named["host"]).get("/").text)
    check_sentence(closed.visit(origin=named["origin"]).post(JSON_PATH).text)
    door = open_door(allow_hosts=("Studio.Example.com",))
    assert who(door.visit(**named).post(JSON_PATH))["is_guest"] is True
    # nginx passes its own address as Host unless it is told to pass the browser's
    assert who(door.visit(origin=named["origin"]).post(JSON_PATH))["is_guest"] is True
    assert door.visit(origin="https://evil.example").post(JSON_PATH).status_code == 403
    # a notebook's host gives each machine another name
    below = open_door(allow_hosts=("*.notebooks.example",))
    names = {"a.b.notebooks.example": 200, "notebooks.example": 403, "xnotebooks.example": 403}
    for name, status in names.items():
        assert below.visit(host=name).get(JSON_PATH).status_code == status
        assert below.visit(origin=f"https://{name}").post(JSON_PATH).status_code == status


ROOTS = [
    # settings, headers, path → the page's address as gradio is told
    ({}, {}, "/config", "http://127.0.0.1:7860/"),
    ({"root_path": "/studio"}, {}, "/config", "http://127.0.0.1:7860/studio/"),
    ({"root_path": "studio/"}, {}, "/studio/config", "http://127.0.0.1:7860/studio/"),
    ({}, {"referer": "http://127.0.0.1:7860/proxy/7860/?x"}, "/config", "http://127.0.0.1:7860/proxy/7860/"),
    ({}, {"referer": "http://evil.example/a/"}, "/config", "http://127.0.0.1:7860/"),
    ({}, {"x-forwarded-host": "evil.example"}, "/config", "http://127.0.0.1:7860/"),
    ({}, {"x-gradio-server": "http://evil.example"}, "/config", "http://127.0.0.1:7860/"),
    (
        {"trusted_proxies": ("127.0.0.1",), "allow_hosts": ("a.example",)},
        {"x-forwarded-host": "a.example", "x-forwarded-proto": "https", "x-forwarded-prefix": "/s"},
        "/config",
        "https://a.example/s/",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "headers", "path", "root"), ROOTS)
def test_gradio_is_told_where_the_page_lies(
    open_door: Callable[..., FrontDoor],
    values: dict[str, Any],
    headers: dict[str, str],
    path: str,
    root: str,
) -> None:
    answer = who(open_door(**values).visit().get(path, headers=headers))
    assert answer["root"] == root
    assert answer["path"] == "/config"
    assert not {"x-forwarded-host", "x-forwarded-proto"} & set(answer["told"])


def test_a_path_without_its_slash_leads_to_it(open_door: Callable[..., FrontDoor]) -> None:
    browser = open_door(root_path="/studio").visit()
    answer = browser.get("/studio")
    assert (answer.status_code, answer.headers["location"]) == (307, "/studio/")
    assert browser.get("/studio/").status_code == 200
    assert who(browser.get("/studiox"))["path"] == "/studiox"


@pytest.mark.parametrize(
    "values",
    [
        *({"host": text} for text in ("http://x", "a b", "127.0.0.1:80", "[::1", "", "x" * 300, "a..b")),
        *({"root_path": text} for text in ("http://x/y", "/a b", "/a?b", "/a//b")),
        *({"allow_hosts": (text,)} for text in ("http://x", "x:80", "")),
        *({"trusted_proxies": (text,)} for text in ("nginx", "1.2.3.4/99")),
        *({"allow_embedding": (text,)} for text in ("example.org", "https://a/b", "*")),
        {"guests": "ann:secret"},
    ],
)  # fmt: skip
def test_settings_that_are_none_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with refused(InvalidSpec):
        load(home=tmp_path / "home", **values)


@pytest.mark.parametrize("host", ["::1", "[::1]", " [::1] "])
def test_both_ways_to_write_an_ipv6_address(tmp_path: Path, host: str) -> None:
    assert load(home=tmp_path / "home", host=host).host == "::1"


def test_a_list_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_ALLOW_HOSTS", '["a.example", "b.example"]')
    assert load(home=tmp_path / "home").allow_hosts == ("a.example", "b.example")
    monkeypatch.setenv("STUDIO_ALLOW_HOSTS", "a.example")
    with refused(InvalidSpec):
        load(home=tmp_path / "home")


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "203.0.113.77", "2001:db8::77", "ü.invalid"]
)
def test_a_host_that_is_not_this_machines_is_said(tmp_path: Path, host: str) -> None:
    with pytest.raises(Busy, match=r"choose another --host") as caught:
        check_port_free(load(home=tmp_path / "home", host=host, port=0))
    assert f" {format_host(host)}:0 " in str(caught.value)
