"""Behaviour of `adapterbench.runs.memory`."""

import atexit
import gc
import platform
import subprocess
import sys

import pytest

from adapterbench.runs.memory import freeze_imports

FAULTS = """
import resource
import torch
from adapterbench.runs.memory import keep_freed_memory
keep_freed_memory()
for _ in range(6):
    parts = [torch.ones(2**22) for _ in range(8)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del parts
parts = [torch.ones(2**22) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_tensors_leave_their_pages_to_the_next_ones() -> None:
    # without the setting, 130,000 faults in about every second process
    command = [sys.executable, "-c", FAULTS]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 1000


def test_garbage_is_looked_for_outside_what_has_been_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(atexit, "register", lambda _: None)
    try:
        gc.disable()  # as the launcher does
        freeze_imports()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        knot: list[object] = []
        knot.append(knot)
        del knot
        assert gc.collect() > 0
    finally:
        gc.unfreeze()
