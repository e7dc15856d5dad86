"""How much one client may ask of the demo."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from adapterbench.demo import limits
from adapterbench.demo.limits import BodyDeadline, ConcurrentRequests, client_of

if TYPE_CHECKING:
    from httpx import Response
    from starlette.testclient import TestClient

JOIN = "/gradio_api/queue/join"


@pytest.fixture(scope="module")
def http() -> Iterator["TestClient"]:
    """The small page; each test asks from addresses of its own."""
    from .small import small_app

    with small_app() as client:
        yield client


def join(http: "TestClient", session: str, address: str) -> "Response":
    """Ask for the small page's function."""
    body = {"session_hash": session, "fn_index": 0, "data": []}
    return http.post(JOIN, json=body, headers={"test-client": address})


def test_one_session_does_not_fill_the_queue(http: "TestClient") -> None:
    asked = [join(http, "one", "10.0.0.1").status_code for _ in range(20)]
    assert asked == [200] * 4 + [429] * 16
    assert "too many requests waiting" in join(http, "one", "10.0.0.1").json()["detail"]
    assert join(http, "two", "10.0.0.1").status_code == 200


def test_one_client_does_not_fill_the_queue(http: "TestClient") -> None:
    """Whatever it calls its sessions."""
    asked = [join(http, f"made-up-{n}", "10.0.0.2").status_code for n in range(70)]
    assert asked == [200] * 8 + [429] * 62
    prefix = "2001:db8:0:1"
    asked = [join(http, f"of-v6-{n}", f"{prefix}::{n:x}").status_code for n in range(20)]
    assert asked == [200] * 8 + [429] * 12
    assert join(http, "mine", "10.0.0.3").status_code == 200


def test_many_clients_leave_a_place_for_another() -> None:
    from .small import small_app

    with small_app() as http:
        for turn in range(8):
            for n in range(12):
                join(http, f"{n}-{turn}", f"10.1.0.{n}")
        assert join(http, "0-8", "10.1.0.0").status_code == 429
        assert join(http, "newcomer", "10.2.0.1").status_code == 200


def test_places_in_the_queue_are_free_again(http: "TestClient") -> None:
    events = [join(http, "again", "10.0.0.4").json()["event_id"] for _ in range(4)]
    assert join(http, "again", "10.0.0.4").status_code == 429
    body = {"session_hash": "again", "fn_index": 0, "event_id": events[-1]}
    assert http.post("/gradio_api/cancel", json=body).status_code == 200
    assert join(http, "again", "10.0.0.4").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"session_hash": "a", "data": []}',
        b'{"session_hash": "", "fn_index": 0, "data": []}',
        b'{"session_hash": null, "fn_index": 0, "data": []}',
        b'{"session_hash": "a", "fn_index": 10000, "data": []}',
        b'{"session_hash": "a", "fn_index": -1, "data": []}',
        b'{"session_hash": "a", "fn_index": NaN, "data": []}',
        b'{"session_hash": "a", "fn_index": 0, "data": [NaN]}',
        b'{"session_hash": "a", "fn_index": 0, "data": [-Infinity]}',
        b'{"session_hash": "a", "fn_index": 0, "data": 5}',
        b'{"session_hash": "a", "fn_index": 0, "data": ["\\ud800"]}',
        b'{"session_hash": "a", "fn_index": 0, "data": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"session_hash": "%s", "fn_index": 0, "data": []}' % (b"a" * 65),
    ],
)
def test_requests_that_are_not_the_pages(body: bytes, http: "TestClient") -> None:
    answer = http.post(JOIN, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Not a request of this page")
    assert len(answer.text) < 200  # it does not return what was sent


def test_what_is_no_json_elsewhere(http: "TestClient") -> None:
    body = b'{"session_hash": "a", "fn_index": NaN, "event_id": NaN}'
    answer = http.post("/gradio_api/cancel", content=body, headers={"content-type": "text/json"})
    assert answer.status_code == 422


def pieces(total: int) -> Iterator[bytes]:
    """A body whose length is not told."""
    for _ in range(total // 2**14):
        yield bytes(2**14)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("path", "kind"),
    [(JOIN, "application/json"), ("/gradio_api/cancel", "application/json"), ("/login", FORM)],
)
@pytest.mark.parametrize("body", [lambda: bytes(2**20), lambda: pieces(2**20)])
def test_large_bodies(path: str, kind: str, body: Callable[[], Any], http: "TestClient") -> None:
    answer = http.post(path, content=body(), headers={"content-type": kind})
    assert answer.status_code == 413


def test_slow_bodies() -> None:
    """One that trickles in for ever, though a piece comes each time."""
    answered: list[int] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except HTTPException as error:
            answered.append(error.status_code)

    async def trickle() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def quick() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        """Nobody listens."""

    limited = BodyDeadline(app, seconds=0.05)
    for receive in (quick, trickle):
        asyncio.run(limited({"type": "http"}, receive, send))
    assert answered == [408]


def test_a_stream_outlives_the_bodys_deadline() -> None:
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])
    seen: list[str] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await asyncio.sleep(0.05)
        seen.append((await receive())["type"])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        """Nobody listens."""

    asyncio.run(BodyDeadline(app, seconds=0.01)({"type": "http"}, receive, send))
    assert seen == ["http.disconnect"]


def test_requests_at_a_time() -> None:
    statuses: list[int] = []

    async def run() -> None:
        go_on = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        limited = ConcurrentRequests(app, each=2, total=3)

        async def ask(address: str) -> None:
            await limited({"type": "http", "client": (address, 1)}, receive, send)

        async with asyncio.TaskGroup() as tasks:
            for address in ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"):
                tasks.create_task(ask(address))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            go_on.set()
        assert sorted(statuses) == [200, 200, 200, 429, 429]
        await ask("10.0.0.1")
        assert not limited.active

    asyncio.run(run())
    assert statuses[-1] == 200


def test_a_client() -> None:
    def of(address: str | None) -> str:
        return client_of({"client": address and (address, 1)})

    assert of("10.0.0.1") != of("10.0.0.2")
    assert of("2001:db8::1") == of("2001:db8::2") != of("2001:db8:0:1::1")
    assert of(None) == of("local")


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "monotonic", clock)
    return clock


@pytest.fixture(scope="module")
def small() -> Iterator["TestClient"]:
    """The small page behind a password."""
    from .small import small_app

    with small_app(("demo", "secret")) as client:
        yield client


@pytest.fixture
def locked(small: "TestClient", clock: Clock) -> "TestClient":
    """The same, a long time after what was done there before."""
    clock.now = Clock.now = Clock.now + 1000
    small.cookies.clear()
    return small


def log_in(http: "TestClient", password: str, address: str = "10.0.0.1") -> "Response":
    form = {"username": "demo", "password": password}
    return http.post("/login", data=form, headers={"test-client": address})


def test_the_password_is_asked_for(locked: "TestClient") -> None:
    files = {"files": ("a.png", b"no image", "image/png")}
    assert locked.get("/config").status_code == 401
    assert locked.post("/gradio_api/upload", files=files).status_code == 401
    assert join(locked, "a", "10.0.0.1").status_code == 401
    assert "for friends" not in locked.get("/").text
    assert log_in(locked, "secret").is_success
    assert "for friends" in locked.get("/config").text
    assert locked.post("/gradio_api/upload", files=files).status_code == 422
    assert join(locked, "a", "10.0.0.1").status_code == 200


def test_guesses_at_the_password(locked: "TestClient", clock: Clock) -> None:
    answers = [log_in(locked, f"guess {n}").status_code for n in range(40)]
    assert answers == [400] * 5 + [429] * 35
    refused = log_in(locked, "secret")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert log_in(locked, "secret", "10.0.0.2").is_success  # others are not locked out
    clock.now += 61
    assert log_in(locked, "secret").is_success


def test_guesses_from_many_addresses(locked: "TestClient", clock: Clock) -> None:
    answers = [log_in(locked, "guess", f"10.0.{n}.1").status_code for n in range(40)]
    assert answers == [400] * 30 + [429] * 10
    clock.now += 61
    assert log_in(locked, "secret").is_success


def test_logging_in_is_no_guess(locked: "TestClient") -> None:
    assert all(log_in(locked, "secret").is_success for _ in range(20))
