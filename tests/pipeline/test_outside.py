"""An adapter that was trained elsewhere stands in the table after three lines of YAML."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from adapterbench.adapters.core.storage import load_adapter
from adapterbench.exchange.ip_adapter import save_ip_adapter, to_ip_adapter
from adapterbench.frozen.load import load_part

from .project import VARIANTS, Project

pytestmark = pytest.mark.slow


def test_an_outside_adapter_is_a_row(project: Project, tmp_path: Path) -> None:
    unet = load_part(project.root / "data/backbone", "unet")
    adapter = load_adapter(project.root / "models/ip_adapter", unet)
    checkpoint = tmp_path / "outside.bin"
    save_ip_adapter(to_ip_adapter(adapter, unet, "linear"), checkpoint)

    project.run(sys.executable, "-m", "adapterbench", "adopt", str(checkpoint), "outside")
    project.params(variants={"outside": VARIANTS["ip_adapter"]})
    project.dvc("commit", "--force", "train@outside")
    made = {f"{stage}@outside" for stage in ("sample", "score", "illustrate")}
    assert project.ran("repro") == made | {"compare", "figures"}

    table = pd.read_csv(project.root / "results/comparison.csv", index_col="method")
    scores = ["clip_t", "clip_i", "neutral", "r_at_1", "n", "k", "trainable_params"]
    assert list(table.loc["outside", scores]) == list(table.loc["ip_adapter", scores])
    assert table["train_seconds"].isna()["outside"]
