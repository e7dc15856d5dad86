"""What is larger than the machine is refused."""

import psutil
import pytest

from adapterbench.core import limits
from adapterbench.core.errors import UserError


def test_the_memory_is_that_of_the_machine() -> None:
    assert limits.total_memory() == psutil.virtual_memory().total


def test_what_takes_all_memory_passes_and_one_byte_more_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "total_memory", lambda: 3 * 2**30)
    limits.check_memory(3 * 2**30, "a batch", "lower it")
    with pytest.raises(UserError) as caught:
        limits.check_memory(3 * 2**30 + 1, "a batch of 4096", "lower train.batch_size")
    assert str(caught.value) == (
        "a batch of 4096 takes 3 GiB or more, this machine has 3: lower train.batch_size"
    )
