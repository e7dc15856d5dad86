"""What goes wrong for a user: a mistake is one line; killed runs and lost files mend themselves."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from adapterbench.core.files import sha256

from .project import Project

PATIENCE = 120


def errors(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """The lines that a stage has for the user."""
    assert "Traceback" not in done.stdout + done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"compare": {"confidnce": 0.9}},
            "error: params.yaml: compare.confidnce is not a parameter "
            "(known: bootstrap_samples, confidence, labels, seed)",
        ),
        (
            {"data": {"samples_per_shard": "many"}},
            "error: params.yaml: data.samples_per_shard = 'many': Input should be a valid integer, "
            "unable to parse string as an integer",
        ),
    ],
)
def test_a_bad_parameter_is_one_line(change: dict[str, Any], line: str, project: Project) -> None:
    project.params(**change)
    assert errors(project.dvc("repro", fails=True)) == [line]


def test_a_missing_shard_is_one_line(project: Project) -> None:
    (project.root / "data/shards/train-00000.tar").unlink()
    done = project.dvc("repro", "--single-item", "encode", fails=True)
    assert errors(done) == [
        "error: shard data/shards/train-00000.tar is missing: run `dvc repro prepare`"
    ]
    assert (project.root / "dvc.lock").read_text() == project.run(
        "git", "show", "HEAD:dvc.lock"
    ).stdout


def test_a_lost_shard_comes_back_from_the_cache(project: Project) -> None:
    shard = project.root / "data/shards/train-00000.tar"
    digest = sha256(shard)
    shard.unlink()
    assert project.ran("repro") == set()
    assert sha256(shard) == digest


def test_a_killed_run_goes_on_where_it_was(project: Project) -> None:
    project.params(train={"steps": 200, "checkpoint_every": 5, "log_every": 50})
    command = ["dvc", "repro", "train@ip_adapter"]
    running = subprocess.Popen(
        command,
        cwd=project.root,
        env=project.env,
        process_group=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(project.root / ".resume", "train-ip_adapter-*.safetensors")
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # DVC and its stage, as when the machine goes down
        running.wait()

    done = project.dvc(*command[1:])
    assert "resuming at step" in done.stdout + done.stderr
    assert "params.yaml differs from what conf/ composes, in train." in done.stdout + done.stderr
    assert not list((project.root / ".resume").iterdir())
    assert project.ran("repro", "train@ip_adapter") == set()


def wait_for(folder: Path, pattern: str) -> None:
    """Until a file is there."""
    until = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert time.monotonic() < until, f"no {pattern} in {folder}"
        time.sleep(0.05)
