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
from typing import Any, TypeVar

from more_itertools import chunked, take

from adapterbench.core.errors import UserError

FEW = 8
"""Portions that are not worth starting processes for."""
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that are this process's own, where others of the launch run on the same machine."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def parallel_map(
    call: Callable[[Task], Result],
    tasks: Iterable[Task],
    at_once: int = 1,
    heavy: Callable[[Task], bool] = lambda _: True,
) -> Iterator[Result]:
    """Results of `call` in the order of `tasks`, computed by a worker process for each core.

    Tasks are taken as they are needed, so that a few are in memory at a time.

    Args:
        call: a function that can be pickled, as its tasks and results can. Where it is an object
            with a state, each worker has one of its own.
        tasks: what it is called with.
        at_once: tasks that are handed to a worker as one portion.
        heavy: whether a task is worth a worker; a portion without such is done here.

    Raises:
        UserError: a worker process was killed.
    """
    portions = chunked(tasks, at_once)
    first = take(FEW + 1, portions)
    if len(first) <= FEW:
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


own: Callable[[Any], Any]
"""What a worker process calls."""


def start(call: Callable[[Any], Any], parent: int) -> None:
    """Make a worker process ready, and let it end when its parent does, however that ends."""
    global own
    own = call
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and cleans up
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def work(tasks: list[Any]) -> list[Any]:
    """What a worker does with a portion."""
    return [own(task) for task in tasks]
