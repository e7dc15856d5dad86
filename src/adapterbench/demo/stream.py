"""Turn a function that emits events into an iterator."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """The iterator was closed."""


@dataclass(frozen=True)
class End:
    """The function has returned or raised."""

    error: Exception | None = None


def stream(work: Callable[[Callable[[T], None]], None]) -> Generator[T, None, None]:
    """Run `work(emit)` in a thread; yield each event as it is emitted; raise what `work` raises.

    If the iterator is closed early, the next `emit` raises `StoppedError`, and closing waits for
    `work` to end, so consecutive calls never overlap.
    """
    events: SimpleQueue[T | End] = SimpleQueue()
    closed = Event()

    def emit(event: T) -> None:
        if closed.is_set():
            raise StoppedError
        events.put(event)

    def run() -> None:
        try:
            work(emit)
            events.put(End())
        except Exception as error:  # raised again below, in the caller's thread
            events.put(End(error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while not isinstance(event := events.get(), End):
            yield event
        if event.error:
            raise event.error
    finally:
        closed.set()
        thread.join()
