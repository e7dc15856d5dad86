import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import TYPE_CHECKING

import httpx
import pytest

from adapterbench.core.errors import UserError
from adapterbench.demo.hosts import known_hosts
from adapterbench.demo.server import PASSWORD, credentials, listening, temporary_workspace, url

from .conftest import served

if TYPE_CHECKING:
    from starlette.applications import Starlette


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    assert credentials(host) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_others_do(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "")
    with pytest.raises(UserError, match=f"set a password in {PASSWORD}"):
        credentials(host)
    monkeypatch.setenv(PASSWORD, "secret")
    assert credentials(host) == ("demo", "secret")


def test_temporary_files_go_with_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "elsewhere")  # brought back at the end
    with temporary_workspace() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert not folder.exists()
    assert Path(tempfile.gettempdir()) != folder


def test_the_folder_of_a_killed_demo_goes_when_the_next_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from adapterbench.demo.server import temporary_workspace\n"
        "with temporary_workspace() as folder:\n"
        "    (folder / 'upload.png').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    (tmp_path / ".vim.partial-1").mkdir()  # another program's
    assert (left / "upload.png").exists()
    with temporary_workspace() as folder:
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, ".vim.partial-1"}


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"port {port} is in use"),
            listening("127.0.0.1", port),
        ):
            pass


def test_an_address_of_another_machine() -> None:
    with (
        pytest.raises(UserError, match=r"cannot serve at --host 192.0.2.1 --port 7860 \("),
        listening("192.0.2.1", 7860),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::1", "[::1]"), ("::", "localhost")],
)
def test_the_address_to_open(host: str, shown: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listening(host, 0) as bound:
        assert url(bound) == f"http://{shown}:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def small() -> "Starlette":
    """The small page."""
    from adapterbench.demo.application import application
    from adapterbench.demo.upload import Uploads

    from .small import small_page

    return application(small_page(Event()), Uploads(), known_hosts("127.0.0.1"))


def test_every_answer_says_that_it_is_no_script_and_in_no_frame(small: "Starlette") -> None:
    with served(small) as address, httpx.Client(base_url=address) as http:
        answers = [
            http.get("/"),
            http.get("/config"),
            http.get("/nowhere"),
            http.get("/", headers={"host": "evil.example"}),
            http.get("/", headers={"origin": "http://evil.example"}),
            http.get("/", headers={"connection": "upgrade", "upgrade": "websocket"}),
            http.post("/gradio_api/queue/join", content=bytes(2**17)),
            http.post("/gradio_api/queue/join", content="{"),
        ]
    assert [a.status_code for a in answers] == [200, 200, 404, 400, 403, 200, 413, 422]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, small: "Starlette") -> Iterator[tuple[str, int]]:
    """Where a server is that waits for nobody."""
    from adapterbench.demo import application, connections

    monkeypatch.setattr(application, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "PER_ADDRESS", 3)
    with served(small) as address:
        host, port = address.removeprefix("http://").split(":")
        yield host, int(port)


def closed(connection: socket.socket) -> bool:
    """Wait until the server has closed a connection."""
    connection.settimeout(60)
    try:
        while connection.recv(2**16):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localh",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: loc",
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nabc",
    ],
)
def test_connections_that_ask_for_nothing(sent: bytes, impatient: tuple[str, int]) -> None:
    with socket.create_connection(impatient) as connection:
        connection.sendall(sent)
        assert closed(connection)


def test_a_head_that_trickles_in(impatient: tuple[str, int]) -> None:
    """A byte now and then does not keep a connection."""
    with socket.create_connection(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                connection.sendall(b"x")
                sleep(0.05)
            pytest.fail("the connection stays")


def test_huge_heads(impatient: tuple[str, int]) -> None:
    with socket.create_connection(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**17)
        assert closed(connection)


def test_connections_of_one_address(impatient: tuple[str, int]) -> None:
    held = [socket.create_connection(impatient) for _ in range(4)]
    assert closed(held[3])
    for connection in held:
        connection.close()


@pytest.fixture
def signals() -> Iterator[None]:
    """As `runs.program` sets them."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(sent: int, small: "Starlette") -> None:
    """And what stands after `serve`, such as the folder's removal, is run."""
    from adapterbench.demo.application import serve

    def visit_and_stop(address: str) -> None:
        with httpx.stream("GET", f"{address}/gradio_api/heartbeat/a") as stream:
            next(stream.iter_raw())  # an open stream does not keep the server
            os.kill(os.getpid(), sent)

    with temporary_workspace() as folder, listening("127.0.0.1", 0) as bound:
        visitor = Thread(target=visit_and_stop, args=[url(bound)])
        visitor.start()
        serve(small, bound)
        visitor.join()
    assert not folder.exists()
    assert signal.getsignal(signal.SIGHUP) is signal.default_int_handler


@pytest.mark.usefixtures("signals")
def test_nohup_keeps_it(small: "Starlette") -> None:
    from adapterbench.demo.application import serve

    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def visit_and_stop(address: str) -> None:
        httpx.get(f"{address}/config")
        os.kill(os.getpid(), signal.SIGHUP)
        assert httpx.get(f"{address}/config").status_code == 200
        os.kill(os.getpid(), signal.SIGTERM)

    with listening("127.0.0.1", 0) as bound:
        visitor = Thread(target=visit_and_stop, args=[url(bound)])
        visitor.start()
        serve(small, bound)
        visitor.join()
