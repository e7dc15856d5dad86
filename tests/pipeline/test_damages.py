"""Damaged inputs of real stages: one line and nothing half-written, or the very same outputs.

Never a traceback, never a hang, and never another output of a file that has a digest.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from damages import damaged

from adapterbench.core.files import read_json

from .project import Project

pytestmark = pytest.mark.slow
SEED = 20261126
PATIENCE = 600
"""Seconds, far more than any stage takes on a busy machine: what takes longer hangs."""
COSTS = ("train_seconds", "images_per_second", "peak_memory_mb", "host_memory_mb")
"""What differs from one training to the next."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that a stage reads."""

    files: str
    """Pattern of its paths in the project."""
    stage: str
    digest: bool = False
    """Whether its bytes have a digest, its own or another file's."""


KINDS = (
    Kind("data/raw/*.tgz", "prepare", digest=True),
    Kind("params.yaml", "prepare"),
    Kind("data/shards/*.tar", "encode", digest=True),
    Kind("data/shards/manifest.json", "encode"),
    Kind("data/backbone/model_index.json", "encode"),
    Kind("data/backbone/image_encoder/*", "encode"),
    Kind("data/encoded/*.safetensors", "train@ip_adapter", digest=True),
    Kind("data/encoded/manifest.json", "train@ip_adapter"),
    Kind("data/backbone/unet/*.json", "train@ip_adapter_lora"),
    Kind("data/encoded/*-*.json", "sample@ip_adapter", digest=True),
    Kind("models/ip_adapter/adapter.safetensors", "sample@ip_adapter", digest=True),
    Kind("models/ip_adapter/adapter_config.json", "sample@ip_adapter"),
    Kind("data/backbone/*/*", "sample@ip_adapter", digest=True),
    Kind("samples/ip_adapter/*.tar", "score@ip_adapter", digest=True),
    Kind("data/neutral_evaluator/*", "score@ip_adapter"),
    Kind("data/bases/twin/*/*", "illustrate@ip_adapter"),
    Kind("results/scores/*.parquet", "compare", digest=True),
    Kind("illustrations/*/pairs.parquet", "compare", digest=True),
    Kind("metrics/train/*.json", "compare"),
    Kind("illustrations/*/pairs/*.json", "figures"),
    Kind("results/*.csv", "figures"),
    Kind("metrics/train/*.csv", "figures"),
)
"""A damage each."""


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_a_damaged_input_is_refused_in_one_line_or_changes_nothing(
    number: int, project: Project
) -> None:
    print(trial(project, KINDS[number], f"{SEED}-{number}"))


def trial(project: Project, kind: Kind, seed: str) -> str:
    """Damage a file, run its stage; what came of it."""
    draw = random.Random(seed)
    stage = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"][kind.stage]
    outs = [project.root / out["path"] for out in stage["outs"]]
    expected = [decoded(out) for out in outs]
    path = draw.choice(sorted(p for p in project.root.glob(kind.files) if p.is_file()))
    path.write_bytes(path.read_bytes())  # DVC may have linked it to its cache
    what = f"seed {seed}: {damaged(path, draw)} of {path.relative_to(project.root)}"
    for out in outs:  # as DVC does
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    code, text = run(project, shlex.split(stage["cmd"]), what)
    left = [str(path) for path in project.root.rglob(".*.partial-*")]
    assert not left, f"half-written: {left}: {what}"
    if code:
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in text, f"a traceback: {what}\n{text}"
        assert len(lines) == 1, f"not one line: {what}\n{text}"
        return f"{kind.stage}: refused: {what}: {lines[0]}"
    if [decoded(out) for out in outs] == expected:
        return f"{kind.stage}: the same output: {what}"
    assert not kind.digest, f"another output without a word: {what}"
    return f"{kind.stage}: another output: {what}"


def run(project: Project, command: list[str], what: str) -> tuple[int, str]:
    """Exit code and output of a stage."""
    running = subprocess.Popen(
        command,
        cwd=project.root,
        env=project.env,
        process_group=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        text, _ = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        os.killpg(running.pid, signal.SIGKILL)
        raise AssertionError(f"a hang: {what}") from error
    return running.returncode, text


def decoded(out: Path) -> Any:
    """The contents of an output, without the costs of a training."""
    if out.is_dir():
        return {
            path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }
    if out.suffix == ".json":
        content = read_json(out)
        return {name: value for name, value in content.items() if name not in COSTS}
    return out.read_bytes()
