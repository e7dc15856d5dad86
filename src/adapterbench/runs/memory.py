"""What the C library does with freed memory, and Python with garbage."""

import atexit
import ctypes
import gc
import platform

# of malloc.h; the first is the largest value that glibc takes
MMAP_THRESHOLD, LARGEST_THRESHOLD = -3, 32 * 2**20
TRIM_THRESHOLD, NEVER = -1, 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free, for the tensors to come.

    It would give large blocks back to the system and take them anew, zeroed page by page, at every
    step: 9,000 page faults, a tenth of the time of a small UNet's training step on a CPU. Other C
    libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, NEVER)


def spare_imports() -> None:
    """Look for garbage neither in what has been imported nor, as the program ends, anywhere.

    Imports stay, and there are many: with torch and diffusers the end takes 0.3 s instead of 1.5.
    From here on garbage is looked for, where the launcher has put that off until now.
    """
    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)
