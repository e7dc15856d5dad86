"""Limits of this machine: what needs more memory than it has is rejected in advance."""

import os

from adapterbench.core.errors import UserError


def total_memory() -> int:
    """Physical memory of this machine, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Reject what needs more than all memory; what needs less may still not fit.

    Args:
        needed: lower bound, bytes.
        what: what needs the memory, with the parameter that decides it.
        remedy: such as "lower train.batch_size".

    Raises:
        UserError: `needed` exceeds the memory of this machine.
    """
    if needed > (total := total_memory()):
        raise UserError(
            f"{what} takes {needed / 2**30:,.0f} GiB or more, this machine has "
            f"{total / 2**30:,.0f}: {remedy}"
        )
