"""A small page behind the demo's limits, for tests that need no image generation."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import gradio as gr
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from adapterbench.demo.application import application
from adapterbench.demo.hosts import known_hosts
from adapterbench.demo.upload import Uploads

ADDRESS = "http://127.0.0.1:7860"
CLIENT = "test-client"
"""Header by which a test says from which address a request comes."""


def small_page(go_on: Event) -> gr.Blocks:
    """A page with one function, which waits for `go_on`."""
    with gr.Blocks() as page:
        gr.Markdown("for friends")
        gr.Button().click(lambda: go_on.wait() and None)
    page.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    return page


@contextmanager
def clients(app: Starlette) -> Iterator[TestClient]:
    """A client that comes from any address."""

    async def from_anywhere(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            scope["client"] = (headers.get(CLIENT.encode(), b"127.0.0.1").decode(), 1)
        await app(scope, receive, send)

    with TestClient(from_anywhere, base_url=ADDRESS) as client:
        yield client


@contextmanager
def small_app(auth: tuple[str, str] | None = None) -> Iterator[TestClient]:
    """The small page, asked without a network; it goes on at the end."""
    go_on = Event()
    app = application(small_page(go_on), Uploads(), known_hosts("127.0.0.1"), auth)
    with clients(app) as client:
        yield client
        go_on.set()
