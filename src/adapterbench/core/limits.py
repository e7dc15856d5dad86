"""What this machine can hold: what is too large for it is refused before it is tried."""

import os

from adapterbench.core.errors import UserError


def total_memory() -> int:
    """Memory of this machine, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse what takes more than all memory; what takes less may still not fit.

    Args:
        needed: bytes, at the least.
        what: takes them, with the parameter that decides it.
        remedy: such as "lower train.batch_size".

    Raises:
        UserError: it does.
    """
    if needed > (total := total_memory()):
        raise UserError(
            f"{what} takes {needed / 2**30:,.0f} GiB or more, this machine has "
            f"{total / 2**30:,.0f}: {remedy}"
        )
