"""The processes of one stage under `accelerate launch`, or a single process without it.

Each does its share of a list of tasks. The main one (`is_main_process`) combines the results when
all have finished (`wait_for_everyone`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

BARRIER_TIMEOUT = timedelta(days=1)
"""Barrier timeout; the default of NCCL is ten minutes."""

T = TypeVar("T")


def process_state() -> PartialState:
    """State of this process among those of the stage, with its `device`."""
    # `Accelerator` evaluates this flag, `PartialState` does not
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=BARRIER_TIMEOUT)


def share(tasks: Sequence[T], state: PartialState) -> Sequence[T]:
    """This process's tasks: every n-th of all.

    Deterministic; needs no communication. After a kill, the remaining tasks are shared among all
    processes, also with another number of processes.
    """
    return tasks[state.process_index :: state.num_processes]
