"""One run of the study: what stays of it, and what of one that diverges."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from toy_backbone import Toy

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import fingerprint
from adapterbench.study.runs.files import Data, read_facts
from adapterbench.study.runs.run import Settings, run_once


def test_a_run_leaves_scores_a_curve_and_facts(
    toy: Toy, data: Data, settings: Settings, workplace: Path
) -> None:
    out = workplace / "run"
    facts = run_once(settings, data, out)
    assert {path.name for path in out.iterdir()} == {"scores.parquet", "curve.csv", "facts.json"}
    assert facts == read_facts(out)
    assert (facts.row, facts.seed, facts.steps, facts.diverged) == ("toy", 0, 2, None)
    assert facts.backbone == fingerprint(toy.backbone)
    scores = pd.read_parquet(out / "scores.parquet")
    assert scores["key"].nunique() == len(scores) == 6  # the split is smaller than sample.items
    assert scores[["clip_i", "neutral", "r_at_1"]].notna().all(axis=None)
    assert pd.read_csv(out / "curve.csv")["step"].tolist() == [2]


def test_two_runs_are_equal_to_the_byte(data: Data, settings: Settings, workplace: Path) -> None:
    for name in ("one", "two"):
        run_once(settings, data, workplace / name)
    for file in ("scores.parquet", "curve.csv"):
        assert (workplace / "one" / file).read_bytes() == (workplace / "two" / file).read_bytes()


def test_a_run_that_diverges_is_a_fact(data: Data, settings: Settings, workplace: Path) -> None:
    train = settings.train.model_copy(update={"learning_rate": 1e20, "steps": 5})
    facts = run_once(replace(settings, train=train), data, workplace / "run")
    assert "not finite" in str(facts.diverged)
    assert facts.mechanism is None
    assert [path.name for path in (workplace / "run").iterdir()] == ["facts.json"]


def test_a_missing_input_writes_nothing(data: Data, settings: Settings, workplace: Path) -> None:
    with pytest.raises(UserError, match="no split 'tuning'"):
        run_once(replace(settings, split="tuning"), data, workplace / "run")
    assert not (workplace / "run").exists()
