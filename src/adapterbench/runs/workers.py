"""Processes of this machine that one process of a stage starts, to decode and pack images."""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain
from typing import TypeVar

from more_itertools import chunked

from adapterbench.core.errors import UserError

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>

Task, Result = TypeVar("Task"), TypeVar("Result")


def cores() -> int:
    """Cores that are this process's own, where others of the launch run on the same machine."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def spread(
    call: Callable[[Task], Result],
    tasks: Iterable[Task],
    at_once: int,
    heavy: Callable[[Task], bool] = lambda _: True,
) -> Iterator[Result]:
    """Results of `call` in the order of `tasks`, computed by a worker process for each core.

    Tasks are taken as they are needed, so that a few are in memory at a time. Where all of them
    fit in one portion they are done here: starting processes would take longer.

    Args:
        call: a function that can be pickled, as its tasks and results can.
        tasks: what it is called with.
        at_once: tasks that are handed to a worker as one portion.
        heavy: whether a task is worth a worker; a portion without such is done here.

    Raises:
        UserError: a worker process was killed.
    """
    portions = chunked(tasks, at_once)
    first = next(portions, [])
    second = next(portions, None)
    if second is None:
        yield from map(call, first)
        return
    count = cores()
    waiting: deque[Callable[[], list[Result]]] = deque()
    with ProcessPoolExecutor(count, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            for portion in chain([first, second], portions):
                if len(waiting) > 2 * count:
                    yield from waiting.popleft()()
                if any(map(heavy, portion)):
                    waiting.append(pool.submit(each, call, portion).result)
                else:
                    waiting.append(partial(each, call, portion))
            while waiting:
                yield from waiting.popleft()()
        except BrokenProcessPool as error:
            raise killed() from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def each(call: Callable[[Task], Result], tasks: list[Task]) -> list[Result]:
    """What a worker does with a portion."""
    return [call(task) for task in tasks]


def end_with_parent(parent: int) -> None:
    """Let a worker process end when its parent does, however that ends, and ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and cleans up
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def killed() -> UserError:
    """The line for a worker process that has ended before its work."""
    return UserError(
        "a worker process was killed, as the system does where memory or shared memory (/dev/shm) "
        "runs out: see that there is enough and run the same command again"
    )
