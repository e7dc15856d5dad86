"""What tests of models at their true size share."""

from collections.abc import Iterator

import psutil
import pytest
from filelock import FileLock


@pytest.fixture(scope="module")
def much_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One model of many GiB at a time, whatever process of the test run holds it."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "much_memory.lock"):
        yield


@pytest.fixture
def sdxl_fits() -> None:
    """Skip where SDXL would not fit."""
    if psutil.virtual_memory().total < 20 * 2**30:
        pytest.skip("SDXL takes 16 GiB of memory")
