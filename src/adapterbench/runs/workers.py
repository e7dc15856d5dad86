"""Worker processes on this machine, which decode and pack images."""

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
from typing import Any, TypeVar

from more_itertools import chunked, take

from adapterbench.core.errors import UserError

MAX_INLINE = 8
"""Up to so many portions are computed without worker processes."""
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Cores per process of the launch on this machine."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def parallel_map(
    call: Callable[[Task], Result],
    tasks: Iterable[Task],
    at_once: int = 1,
    heavy: Callable[[Task], bool] = lambda _: True,
) -> Iterator[Result]:
    """Results of `call` in the order of `tasks`, computed by one worker process per core.

    Tasks are read lazily, so only a few are in memory at a time.

    Args:
        call: picklable, as are its tasks and results. Each worker has its own copy of an object
            with state.
        tasks: arguments of the calls.
        at_once: tasks per portion, the unit of work of a worker.
        heavy: whether a task needs a worker; portions without such tasks are computed here.

    Raises:
        UserError: a worker process was killed.
    """
    portions = chunked(tasks, at_once)
    first = take(MAX_INLINE + 1, portions)
    if len(first) <= MAX_INLINE:
        yield from map(call, chain(*first))
        return
    count = cores()
    waiting: deque[Callable[[], list[Result]]] = deque()
    with ProcessPoolExecutor(count, initializer=start, initargs=(call, os.getpid())) as pool:
        try:
            for portion in chain(first, portions):
                if len(waiting) > 2 * count:
                    yield from waiting.popleft()()
                if any(map(heavy, portion)):
                    waiting.append(pool.submit(work, portion).result)
                else:
                    waiting.append(partial(list, map(call, portion)))
            while waiting:
                yield from waiting.popleft()()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, as the system does where memory runs out: see that "
                "there is enough and run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


worker_call: Callable[[Any], Any]
"""The function of a worker process, set by `start`."""


def start(call: Callable[[Any], Any], parent: int) -> None:
    """Initialise a worker process, which is killed when its parent ends for any reason."""
    global worker_call
    worker_call = call
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too and cleans up
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # a fork lacks its parent's threads and would deadlock
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def work(tasks: list[Any]) -> list[Any]:
    """Compute a portion in a worker."""
    return [worker_call(task) for task in tasks]
