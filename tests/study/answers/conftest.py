"""A study of four rows whose scores are drawn, so that the truth is known."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapterbench.core.files import write_json
from adapterbench.formats.frames import write_frame
from adapterbench.study.runs.files import CURVE, FACTS, NEAREST, SCORES, Facts, Mechanism

ITEMS = 40
SIZES = {"original": 1000, "small": 400, "network": 1500, "bad": 100}
TRUTH = {"original": 0.0, "small": -0.002, "network": 0.05, "bad": -0.2}
"""Mean of every score minus that of the original."""

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(workplace: Path) -> WriteRun:
    """Write a run; a row's scores are its truth plus what seed and item add."""

    def write(group: str, row: str, seed: int = 0, **changes: Any) -> Path:
        steps, samples = changes.get("steps", 100), changes.get("samples")
        once = group in ("screening", "repeated")
        name = row if once else f"{row}-{seed}-{steps}-{samples}"
        folder = workplace / "runs" / group / name
        folder.mkdir(parents=True)
        write_json(folder / FACTS, facts(row, seed, changes).model_dump())
        if not changes.get("diverged"):
            write_frame(drawn(row, seed), folder / SCORES)
            (folder / CURVE).write_text("step,loss\n1,0.5\n")
        return folder

    return write


def facts(row: str, seed: int, changes: Mapping[str, Any]) -> Facts:
    """Facts of a run."""
    mechanism = Mechanism(token_norm=3, token_rank=9, seen_loss=0.5, unseen_loss=0.6)
    given: dict[str, Any] = {
        "row": row,
        "seed": seed,
        "split": "tuning",
        "steps": 100,
        "learning_rate": 0.001,
        "samples": None,
        "backbone": "a" * 64,
        "device": "cpu",
        "trainable_params": SIZES[row],
        "loss": 0.4,
        "train_seconds": 1.0,
        "mechanism": mechanism,
    }
    if changes.get("diverged"):
        given |= dict.fromkeys(("trainable_params", "loss", "train_seconds", "mechanism"))
    return Facts(**(given | dict(changes)))


def drawn(row: str, seed: int) -> pd.DataFrame:
    """Scores of two images an item; items differ much, images and seeds little."""
    item = np.random.default_rng(0).normal(0.5, 0.1, ITEMS)
    own = np.random.default_rng([seed, *row.encode()]).normal(0, 0.004, (2, ITEMS))
    values = np.concatenate([item + TRUTH[row] + part for part in own])
    keys = [f"item{number:02d}" for number in range(ITEMS)] * 2
    return pd.DataFrame({"key": keys, "clip_i": values, "neutral": values, "r_at_1": values})


@pytest.fixture
def floors(workplace: Path) -> Path:
    """Floors and nearest training images of one split."""
    folder = workplace / "runs" / "floors" / "tuning"
    folder.mkdir(parents=True)
    keys = [f"item{number:02d}" for number in range(ITEMS)]
    for name, value in {"no_prompt": 0.1, "vae": 0.9}.items():
        columns = dict.fromkeys(("clip_i", "neutral", "r_at_1"), value)
        write_frame(pd.DataFrame({"key": keys, **columns}), folder / f"{name}.parquet")
    cosines = np.linspace(0, 1, ITEMS)
    write_frame(pd.DataFrame({"key": keys, "cosine": cosines}), folder / NEAREST)
    return folder
