"""Two processes over gloo against one that has the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_backbone import VARIANT, Toy

from training.test_adapter import train_params

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
"""`accelerate launch` for GPUs goes the same way; for a CPU it wants MPI."""
MOST, MEAN = 5e-4, 5e-6
"""Tolerated difference of a weight and root mean square of all: five steps of 1e-3 move a weight by
up to 5e-3. Sums run in another order, and Adam magnifies rounding in the few weights whose gradient
is near zero; measured on two machines: at most 3e-6 and 1.4e-4, on the mean 9e-7."""


def stage(toy: Toy, out: str, launcher: list[str], **changes: Any) -> subprocess.CompletedProcess:
    """Run stage `train` as a user does, here."""
    params = {"variants": {"toy": VARIANT}, "train": train_params(**changes).model_dump()}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    return subprocess.run(
        [sys.executable, *launcher, str(ROOT / "stages/train.py"), "toy",
         "--encoded", str(toy.encoded), "--backbone", str(toy.backbone), "--out", out,
         "--metrics", f"{out}.json", "--curve", f"{out}.csv"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.usefixtures("workplace")
def test_two_processes_learn_what_one_does(toy: Toy) -> None:
    for out, launcher, changes in (
        ("one", [], {}),
        ("two", TWO, {}),
        ("cut", TWO, {"accumulate": 2}),
    ):
        done = stage(toy, out, launcher, log_every=1, **changes)
        assert done.returncode == 0, done.stderr
    one, others = load_file("one/adapter.safetensors"), ("two", "cut")
    for out in others:
        losses = (pd.read_csv(f"{name}.csv")["loss"].tolist() for name in ("one", out))
        assert next(losses) == pytest.approx(next(losses), rel=1e-5)
        weights = load_file(f"{out}/adapter.safetensors")
        differences = torch.cat([(weights[name] - one[name]).flatten() for name in one])
        assert differences.abs().max() < MOST
        assert differences.square().mean().sqrt() < MEAN
