"""The processes that `accelerate launch` starts for one stage; a process alone does everything.

Each takes its share of a list of tasks. One of them, `is_main_process`, puts the results together
when all have finished (`wait_for_everyone`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(days=1)
"""How long one that has finished waits for the others, where NCCL would give up in ten minutes."""

T = TypeVar("T")


def process_state() -> PartialState:
    """The processes of this stage, as this one sees them; its `device` is this one's own."""
    # as its larger relative, Accelerator, does by itself
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def share(tasks: Sequence[T], state: PartialState) -> Sequence[T]:
    """This process's tasks: every n-th of all.

    It depends on nothing but the list, so processes agree without a word, and what a killed run
    has left, with another number of processes too, is spread over all.
    """
    return tasks[state.process_index :: state.num_processes]
