"""Identity of processes by pid and start time, since the system reuses pids."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

import psutil
from pydantic import BaseModel

from adapterbench.core.files import HOST

NOTED = "ADAPTERBENCH_DVC"
"""Environment variable: the DVC process (`Noted`) that ran `stages/launch.py`, seconds ago."""

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


class Noted(BaseModel, frozen=True):
    """The DVC process that has started a stage, and its machine: a launcher may start on others."""

    host: str
    dvc: Process


def note_dvc() -> None:
    """Note the DVC process that runs this one, which may have died when the stage is imported."""
    if dvc := dvc_process():
        os.environ[NOTED] = Noted(host=HOST, dvc=Process.of(dvc)).model_dump_json()


def end_with_dvc() -> None:
    """Send SIGTERM to this process when the DVC process that runs it ends, or has ended.

    Otherwise the stage of a killed DVC would run on, in parallel with that of the next run.
    """

    def watch(dvc: psutil.Process) -> None:
        dvc.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    noted = os.environ.pop(NOTED, None)  # the follower, which this process starts, lives on
    if dvc := dvc_process():
        Thread(target=watch, args=[dvc], daemon=True).start()
    elif noted and was_killed(Noted.model_validate_json(noted)):
        os.kill(os.getpid(), signal.SIGTERM)


def was_killed(noted: Noted) -> bool:
    """Whether the DVC process was one of this machine and has ended."""
    return noted.host == HOST and not noted.dvc.alive
