"""Who may ask the demo: by which names, and from which pages."""

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from adapterbench.demo.hosts import known_hosts

if TYPE_CHECKING:
    from starlette.testclient import TestClient

EVIL = "http://evil.example"
UPLOAD = {"files": ("a.png", b"\x89PNG", "image/png")}


@pytest.fixture(scope="module")
def http() -> Iterator["TestClient"]:
    from .small import small_app

    with small_app() as client:
        yield client


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "127.0.0.1", "localhost:7860", "LocalHost:80", "[::1]:7860", "[::1]"]
)
def test_known_names(host: str, http: "TestClient") -> None:
    assert http.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost:7860, evil.example",
        "localhost evil.example",
        "0.0.0.0:7860",
        "192.168.1.2:7860",
        "[::2]:7860",
        "[::1",
        "::1",
        "localhost:port",
        "",
    ],
)
@pytest.mark.parametrize("forwarded", [{}, {"x-forwarded-host": "localhost"}])
def test_unknown_names(host: str, forwarded: dict[str, str], http: "TestClient") -> None:
    """As those of another site's pages, whose name leads here (DNS rebinding)."""
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=a"):
        assert http.get(path, headers={"host": host, **forwarded}).status_code == 400


def test_nobody_else_says_where_the_page_is(http: "TestClient") -> None:
    for header in ("x-forwarded-host", "x-gradio-server"):
        answer = http.get("/config", headers={header: "http://evil.example"})
        assert answer.json()["root"] == "http://127.0.0.1:7860"
        assert "evil" not in answer.text


def test_names_of_a_machine_that_others_reach() -> None:
    known = known_hosts("0.0.0.0", ["demo.example.org", "2001:db8::1"])
    assert {"localhost", "127.0.0.1", "[::1]", socket.gethostname().lower()} <= set(known)
    assert {"demo.example.org", "[2001:db8::1]"} <= set(known)
    assert not {"*", "evil.example", ""} & set(known)
    assert known_hosts("127.0.0.2") == ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:8888"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"origin": "http://127.0.0.1:7860@evil.example"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:7860"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"origin": EVIL, "x-forwarded-host": "evil.example"},
    ],
)
def test_pages_of_other_sites(headers: dict[str, str], http: "TestClient") -> None:
    """A form, a file, an event stream, a script, a frame: none is served."""
    post = [
        http.post("/gradio_api/upload", files=UPLOAD, headers=headers),
        http.post("/gradio_api/queue/join", json={}, headers=headers),
        http.post("/gradio_api/cancel", json={}, headers=headers),
        http.post("/login", data={"username": "demo", "password": "x"}, headers=headers),
    ]
    get = [
        http.get(path, headers=headers)
        for path in ("/", "/config", "/gradio_api/queue/data?session_hash=a", "/theme.css")
    ]
    for answer in [*post, *get]:
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_no_preflight_succeeds(http: "TestClient") -> None:
    for origin in (EVIL, "null", "http://localhost:3000"):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer = http.options("/gradio_api/queue/join", headers=asked)
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860"},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:9000", "host": "LOCALHOST:9000"},  # through a tunnel
        {"origin": "https://localhost", "host": "localhost"},  # through a proxy
        {"origin": "http://[::1]:7860", "host": "[::1]:7860"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    ],
)
def test_the_page_itself_and_programs(headers: dict[str, str], http: "TestClient") -> None:
    assert http.get("/config", headers=headers).status_code == 200
    assert http.post("/gradio_api/upload", files=UPLOAD, headers=headers).status_code == 422


def test_other_sites_may_link_to_the_page_and_to_nothing_else(http: "TestClient") -> None:
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert http.get("/", headers=link).status_code == 200
    assert http.get("/", headers=link | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert http.post("/", headers=link).status_code == 403
    assert http.get("/logout", headers=link).status_code == 403
