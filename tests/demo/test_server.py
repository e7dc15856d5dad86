import os
import socket
import tempfile
from pathlib import Path

import gradio as gr
import httpx
import pytest

from adapterbench.core.errors import UserError
from adapterbench.demo.server import PASSWORD, credentials, nothing_left_behind, serve

from .conftest import free_port


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
    with nothing_left_behind() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert not folder.exists()
    assert Path(tempfile.gettempdir()) != folder


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, gr.Blocks() as page:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            serve(page, "127.0.0.1", port, None)


def test_the_password_is_asked_for() -> None:
    with gr.Blocks() as page:
        gr.Markdown("for friends")
    url = serve(page, "127.0.0.1", free_port(), ("demo", "secret"))
    with httpx.Client(base_url=url) as client:
        assert client.get("config").status_code == 401
        assert client.post("login", data={"username": "demo", "password": "guess"}).is_error
        assert client.post("login", data={"username": "demo", "password": "secret"}).is_success
        assert "for friends" in client.get("config").text
    page.close(verbose=False)
