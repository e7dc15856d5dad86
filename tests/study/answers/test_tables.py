"""The tables find what the drawn scores hold, and say so where they hold nothing."""

from pathlib import Path
from typing import Any

import pytest

from adapterbench.formats.frames import write_frame
from adapterbench.study.answers import tables
from adapterbench.study.answers.runs import read_runs
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    ReportParams,
)
from adapterbench.study.runs.files import SCORES

from .conftest import SIZES, TRUTH, WriteRun, drawn

REPORT = ReportParams(
    original="original",
    network="network",
    depth=("original", "network"),
    margin=0.05,
    budget=0.5,
    level=0.05,
)


def test_screening_compares_every_row_with_the_original(
    write_run: WriteRun, workplace: Path
) -> None:
    for row in ("original", "small", "network"):
        write_run("screening", row)
    write_run("screening", "bad", diverged="the loss is not finite")
    table: Any = tables.screening(read_runs(workplace / "runs/screening"), REPORT).set_index("row")
    assert table["share"].drop("bad").to_dict() == {"original": 1, "small": 0.4, "network": 1.5}
    assert table.loc["network", "neutral_difference"] == pytest.approx(TRUTH["network"], abs=0.003)
    assert table.loc["network", "neutral_p_holm"] < 1e-6
    assert table.loc["small", "neutral_p"] <= table.loc["small", "neutral_p_holm"]
    assert table["neutral_difference"].isna()[["original", "bad"]].all()
    assert table.loc["bad", "diverged"] == "the loss is not finite"  # shown, not dropped
    assert table.loc["small", "gap"] == pytest.approx(0.1)
    rows, margin = table.reset_index(), dict.fromkeys(("clip_i", "neutral", "r_at_1"), 0.04)
    assert list(tables.finalists(rows, REPORT, margin).values()) == ["small", "small", "network"]
    strict = dict.fromkeys(margin, -0.1)
    assert list(tables.finalists(rows, REPORT, strict).values()) == ["small", None, "network"]


def test_confirmation_tells_not_worse_from_worse(
    write_run: WriteRun, workplace: Path, floors: Path
) -> None:
    rows = ("original", "small", "network", "bad")
    for row in rows:
        for seed in (11, 12, 13):
            write_run("confirmation", row, seed)
    margin = tables.margins(floors, REPORT.margin)
    assert margin == pytest.approx(dict.fromkeys(("clip_i", "neutral", "r_at_1"), 0.04))
    params = ConfirmationParams(rows=rows, seeds=(11, 12, 13), steps=100)
    runs = read_runs(workplace / "runs/confirmation")
    table: Any = tables.confirmation(runs, params, REPORT, margin, SIZES).set_index("row")
    assert table.loc["small", "not_worse_holm"] < 0.05
    assert table.loc["bad", "not_worse_holm"] > 0.99
    assert table.loc["network", "not_worse"] < 0.05
    assert (table["not_worse_holm"] >= table["not_worse"]).drop("original").all()
    low, high = table.loc["network", ["neutral_difference_lo", "neutral_difference_hi"]]
    assert low < TRUTH["network"] < high


def test_curves_sizes_and_power(write_run: WriteRun, workplace: Path, floors: Path) -> None:
    for row in ("original", "network"):
        for seed in (1, 2, 3):
            for steps in (50, 100):
                write_run("curves", row, seed, steps=steps)
        for samples in (10, 20):
            write_run("data_sizes", row, samples=samples)
    runs = read_runs(workplace / "runs/curves")
    params = CurvesParams(rows=("original", "network"), seeds=(1, 2, 3), steps=(50, 100))
    curves = tables.curves(runs, params, REPORT)
    assert curves[["row", "steps", "seeds"]].to_numpy().tolist() == [
        [row, steps, 3] for steps in (50, 100) for row in ("original", "network")
    ]
    assert curves["gap"].tolist() == pytest.approx([0.1] * 4)
    power: Any = tables.power(curves, tables.margins(floors, 0.05), 0.05).set_index("score")
    assert power.loc["neutral", "power"] > 0.9
    tiny = tables.power(curves, dict.fromkeys(("clip_i", "neutral", "r_at_1"), 1e-6), 0.05)
    assert tiny["power"].tolist() == pytest.approx([0.05] * 3, abs=0.01)
    trend = tables.trend(runs, params, REPORT)  # the truth is the same at both lengths
    for key in ("clip_i", "neutral", "r_at_1"):
        assert trend[f"{key}_difference"] == pytest.approx(0, abs=1e-9)
    sizes = DataSizesParams(rows=("original", "network"), samples=(10, 20), steps=100, seed=0)
    by_amount = tables.data_sizes(read_runs(workplace / "runs/data_sizes"), sizes, REPORT)
    assert by_amount["samples"].tolist() == [10, 10, 20, 20]
    found = tables.by_distance(runs, floors, REPORT)
    assert abs(found["neutral"]) < 0.5  # noise
    assert found["neutral_p"] > 0.001


def test_the_trend_is_the_change_per_doubling(write_run: WriteRun, workplace: Path) -> None:
    for steps, gain in {50: 0.01, 100: 0.03, 200: 0.05}.items():
        for seed in (1, 2, 3):
            write_run("curves", "original", seed, steps=steps)
            folder = write_run("curves", "network", seed, steps=steps)
            raised = drawn("original", seed)
            raised["neutral"] += gain
            write_frame(raised, folder / SCORES)
    params = CurvesParams(rows=("original", "network"), seeds=(1, 2, 3), steps=(50, 100, 200))
    trend = tables.trend(read_runs(workplace / "runs/curves"), params, REPORT)
    assert trend["neutral_difference"] == pytest.approx(0.02)
    assert trend["neutral_difference_lo"] == pytest.approx(0.02)
    assert trend["clip_i_difference"] == pytest.approx(0)


def test_a_verdict_needs_a_corrected_p() -> None:
    row = {"clip_i_difference": 0.1, "clip_i_p_holm": 0.01}
    row |= {"neutral_difference": -0.1, "neutral_p_holm": 0.06}
    assert tables.verdicts(row, 0.05) == {"clip_i": "higher", "neutral": "not told apart"}
    assert tables.verdicts(row, 0.10) == {"clip_i": "higher", "neutral": "lower"}
