"""A project to be recorded, and stages that run in it."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE = 120.0
"""Seconds for what takes a few on an idle machine."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, with no DVC around it, whose stages start no follower."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ADAPTERBENCH_FOLLOW", "0")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.05)


def stage(body: str, name: str = "train") -> list[str]:
    """A command that runs `body` in a record, as a stage script does."""
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from adapterbench.runs.program import run\n"
        "from adapterbench.runs.record import stage_record\n"
        "def main() -> None:\n"
        f"    with stage_record({name!r}, variant='a', params={{}}) as record:\n"
        f"        {body}\n"
        "run(main)\n"
    )
    return [sys.executable, "-c", code]
