from collections.abc import Callable
from threading import active_count

import pytest

from adapterbench.demo.stream import stream

Emit = Callable[[int], None]


def test_events_come_in_order_then_the_error() -> None:
    def work(emit: Emit) -> None:
        emit(1)
        emit(2)
        raise ValueError("why")

    events = stream(work)
    assert [next(events), next(events)] == [1, 2]
    with pytest.raises(ValueError, match="why"):
        next(events)


def test_closing_stops_the_work_and_waits_for_it() -> None:
    before = active_count()
    seen = []

    def work(emit: Emit) -> None:
        try:
            for number in range(10**9):
                emit(number)
        finally:
            seen.append("over")

    events = stream(work)
    assert next(events) == 0
    events.close()
    assert seen == ["over"]
    assert active_count() == before
