"""Responses of consecutive streams are one stream, which ends once."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from adapterbench.demo.event_stream import LingeringStream


def served(streams: list[list[str]], then: list[set[str]], status: int = 200) -> TestClient:
    """What Gradio would send in consecutive streams, and the events that wait after each."""
    waiting = iter(then)

    def messages(_: Request) -> Any:
        if status != 200:
            return PlainTextResponse("no", status)
        return StreamingResponse(sent(streams.pop(0)), media_type="text/event-stream")

    def sent(kinds: list[str]) -> Iterator[str]:
        for kind in kinds:
            yield f"data: {json.dumps({'msg': kind}, separators=(',', ':'))}\n\n"

    events = SimpleNamespace(get=lambda _session: next(waiting))
    page: Any = SimpleNamespace(_queue=SimpleNamespace(pending_event_ids_session=events))
    lingering = Middleware(LingeringStream, page=page, seconds=-1)
    return TestClient(Starlette(routes=[Route("/data", messages, middleware=[lingering])]))


@pytest.mark.parametrize("further", [0, 1, 2])
def test_further_events_come_through_the_same_stream(further: int) -> None:
    streams = [["process_completed", "close_stream"] for _ in range(1 + further)]
    http = served(streams, [{"event"}] * further + [set()])
    answer = http.get("/data", params={"session_hash": "s"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    kinds = [json.loads(line[6:])["msg"] for line in answer.text.splitlines() if line]
    assert kinds == ["process_completed"] * (1 + further) + ["close_stream"]


def test_what_breaks_off_is_not_kept_open() -> None:
    answer = served([["process_starts"]], []).get("/data", params={"session_hash": "s"})
    assert answer.text.count("process_starts") == 1


def test_a_refusal_stays_what_it_is() -> None:
    answer = served([], [], status=401).get("/data")
    assert (answer.status_code, answer.text) == (401, "no")
