"""A process is who it says it is: its pid alone does not do."""

import subprocess
import sys

import psutil
import pytest

from adapterbench.runs.identity import Process, dvc_process

from .conftest import until


def test_a_pid_that_was_given_again_is_another_process() -> None:
    own = Process.of(psutil.Process())
    assert own.alive
    assert not own.model_copy(update={"started": own.started - 3600}).alive


def test_a_killed_process_is_dead_before_and_after_it_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as running:
        process = Process.of(psutil.Process(running.pid))
        assert process.alive
        running.kill()
        until(lambda: not process.alive)  # a zombie
        running.wait()
        assert not process.alive


def test_what_dvc_does_not_run_has_no_dvc_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    assert dvc_process() is None
