"""Identity of processes by pid and start time, since the system reuses pids."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

import psutil
from pydantic import BaseModel

PARENT = "ADAPTERBENCH_PARENT"
"""Environment variable: the parent's pid when `stages/launch.py` started, seconds ago."""

CLOCK_STEP = 2.0
"""Tolerance of start times, seconds; they shift when the system clock is set."""


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
        """Whether it is still running."""
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
            for process in (parent, *parent.parents()):
                if "dvc" in {process.name(), *(Path(word).name for word in process.cmdline())}:
                    return process
    return None


def end_with_dvc() -> None:
    """Send SIGTERM to this process when the DVC process that runs it ends, or has ended.

    Otherwise the stage of a killed DVC would run on, in parallel with that of the next run.
    """

    def watch(dvc: psutil.Process) -> None:
        dvc.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    parent = os.environ.pop(PARENT, None)
    if dvc := dvc_process():
        Thread(target=watch, args=[dvc], daemon=True).start()
    elif parent not in (None, str(os.getppid())):
        os.kill(os.getpid(), signal.SIGTERM)
