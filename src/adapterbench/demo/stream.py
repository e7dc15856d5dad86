"""A call that reports as it goes, turned into an iterator."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """Nobody listens any more."""


@dataclass(frozen=True)
class End:
    """The call is over."""

    error: Exception | None = None


def stream(work: Callable[[Callable[[T], None]], None]) -> Generator[T, None, None]:
    """Yield what `work(emit)` emits, as it does so; raise what it raises.

    `work` runs in a thread. When the iterator is closed early, the next `emit` raises
    `StoppedError`, and closing waits until `work` is over: two calls in a row never overlap.
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
        except Exception as error:  # raised again below, where the caller is
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
