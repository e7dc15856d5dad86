"""Processes told apart by pid and start time: the system gives a pid again to another process."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

import psutil
from pydantic import BaseModel

CLOCK_STEP = 2.0
"""Seconds by which a start time may seem to move when the system's clock is set."""


class Process(BaseModel, frozen=True):
    """A process of this machine, dead or alive."""

    pid: int
    started: float
    """Seconds since 1970."""

    @classmethod
    def of(cls, process: psutil.Process) -> Self:
        """The identity of a running process."""
        return cls(pid=process.pid, started=process.create_time())

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_STEP
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False


def dvc_process() -> psutil.Process | None:
    """The DVC process (`dvc` or `python -m dvc`) that runs this one as a stage, if there is one."""
    if "DVC_STAGE" in os.environ:
        with suppress(psutil.Error):
            parent = psutil.Process(os.getppid())
            for each in (parent, *parent.parents()):
                if "dvc" in {each.name(), *(Path(word).name for word in each.cmdline())}:
                    return each
    return None


def end_with_dvc() -> None:
    """Have this process stop, as by SIGTERM, when the DVC process that runs it is gone.

    A killed DVC leaves its stage behind, which would go on beside the stage of the next run.
    """

    def watch(dvc: psutil.Process) -> None:
        dvc.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    if dvc := dvc_process():
        Thread(target=watch, args=[dvc], daemon=True).start()
