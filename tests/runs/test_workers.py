"""Work that is spread over processes: in order, none left behind, a killed one in one line."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from adapterbench.core.errors import UserError
from adapterbench.runs import workers
from adapterbench.runs.workers import parallel_map

PATIENCE = 300
"""Seconds for what takes one on an idle machine."""


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)


def who(number: int) -> tuple[int, int]:
    time.sleep(0.01 if number % 3 else 0.05)  # so that some are ready before those before them
    return number, os.getpid()


def test_results_come_in_order_from_other_processes() -> None:
    done = list(parallel_map(who, range(40), 3))
    assert [number for number, _ in done] == list(range(40))
    assert os.getpid() not in {pid for _, pid in done}


@pytest.mark.parametrize("count", [0, 1, 3 * workers.MAX_INLINE])
def test_a_few_portions_are_done_here(count: int) -> None:
    assert list(parallel_map(who, range(count), 3)) == [(n, os.getpid()) for n in range(count)]


def test_light_portions_are_done_here() -> None:
    done = dict(parallel_map(who, range(30), 3, heavy=lambda number: number == 4))
    assert [number for number, pid in done.items() if pid != os.getpid()] == [3, 4, 5]


def test_a_few_tasks_are_taken_ahead() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = parallel_map(who, tasks(), 2)
    next(results)
    assert len(taken) <= 2 * (workers.MAX_INLINE + 3)
    results.close()  # type: ignore[attr-defined]


class Counting:
    """Tells how often it was called where it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _: int) -> tuple[int, int]:
        self.count += 1
        return os.getpid(), self.count


def test_each_worker_has_a_state_of_its_own() -> None:
    done = list(parallel_map(Counting(), range(40)))
    for pid in {pid for pid, _ in done}:
        assert [count for other, count in done if other == pid] == list(
            range(1, 1 + sum(other == pid for other, _ in done))
        )


def killed(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(UserError, match="a worker process was killed") as caught:
        list(parallel_map(killed, range(100), 2))
    assert "\n" not in str(caught.value)


def full(_: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_a_worker_is_that_of_the_stage() -> None:
    with pytest.raises(OSError, match="No space") as caught:
        list(parallel_map(full, range(100), 2))
    assert caught.value.errno == errno.ENOSPC


def noted(number: int) -> int:
    Path(f"worker-{os.getpid()}").touch()
    time.sleep(2 * PATIENCE)  # longer than the test
    return number


def test_workers_end_with_a_killed_parent(workplace: Path) -> None:
    parent = get_context("fork").Process(target=lambda: list(parallel_map(noted, range(100), 1)))
    parent.start()
    until = time.monotonic() + PATIENCE
    while len(found := list(workplace.glob("worker-*"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    parent.kill()
    parent.join()
    pids = [int(path.name.removeprefix("worker-")) for path in found]
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in pids):
        assert time.monotonic() < until
        time.sleep(0.01)
