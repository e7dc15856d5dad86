"""Runs that are compared are of one kind, and none is left out without a word."""

from pathlib import Path

import numpy as np
import pytest

from adapterbench.core.errors import UserError
from adapterbench.study.answers.runs import (
    check_same_base,
    difference,
    read_run,
    read_runs,
    scores,
    select,
)

from .conftest import ITEMS, WriteRun, drawn


def test_images_of_an_item_are_averaged(write_run: WriteRun) -> None:
    run = read_run(write_run("g", "small"))
    assert run.scores is not None
    values = drawn("small", 0)["clip_i"].to_numpy().reshape(2, ITEMS).mean(axis=0)
    np.testing.assert_allclose(run.scores["clip_i"], values)


def test_differences_are_paired_by_seed_and_item(write_run: WriteRun, workplace: Path) -> None:
    for seed in (2, 1):
        for row in ("original", "network"):
            write_run("g", row, seed)
    runs = read_runs(workplace / "runs/g")
    network, original = (select(runs, row) for row in ("network", "original"))
    paired = difference(network, original, "neutral")
    assert paired.shape == (2, ITEMS)
    np.testing.assert_allclose(paired, scores(network, "neutral") - scores(original, "neutral"))
    assert paired.std() < 0.02 < scores(network, "neutral").std()  # the items' part is gone
    assert [run.facts.seed for run in network] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "b" * 64}, "mixes runs of two kinds: .* has backbone"),
        ({"device": "gpu"}, "has device 'cpu', .* has 'gpu'"),
        ({"split": "validation"}, "has split"),
    ],
)
def test_runs_of_two_kinds_are_refused(
    write_run: WriteRun, workplace: Path, change: dict[str, str], message: str
) -> None:
    write_run("g", "original")
    write_run("g", "small", **change)
    with pytest.raises(UserError, match=message):
        read_runs(workplace / "runs/g")


def test_other_items_are_refused(write_run: WriteRun, workplace: Path) -> None:
    write_run("g", "original")
    folder = write_run("g", "small")
    from adapterbench.formats.frames import write_frame

    write_frame(drawn("small", 0)[:-1].iloc[1:], folder / "scores.parquet")
    write_frame(drawn("small", 0).query("key != 'item03'"), folder / "scores.parquet")
    with pytest.raises(UserError, match="other items than"):
        read_runs(workplace / "runs/g")


def test_a_missing_seed_is_named(write_run: WriteRun, workplace: Path) -> None:
    for seed in (1, 2):
        write_run("g", "original", seed)
    write_run("g", "small", 1)
    runs = read_runs(workplace / "runs/g")
    with pytest.raises(UserError, match=r"small has the seeds \[1\] and original .*\[1, 2\]"):
        difference(select(runs, "small"), select(runs, "original"), "neutral")
    with pytest.raises(UserError, match="no run of network with steps = 7"):
        select(runs, "network", steps=7)


def test_a_diverged_run_has_no_scores(write_run: WriteRun, workplace: Path) -> None:
    write_run("g", "bad", diverged="the loss is not finite")
    runs = read_runs(workplace / "runs/g")
    with pytest.raises(UserError, match=r"bad \(seed 0, 100 steps\) diverged: the loss is not"):
        scores(runs, "neutral")


def test_no_runs_at_all(workplace: Path) -> None:
    with pytest.raises(UserError, match="has no runs: run `make study`"):
        read_runs(workplace / "runs/none")


def test_a_score_that_is_no_number(write_run: WriteRun) -> None:
    from adapterbench.formats.frames import write_frame

    folder = write_run("g", "small")
    frame = drawn("small", 0)
    frame.loc[3, "neutral"] = np.nan
    write_frame(frame, folder / "scores.parquet")
    with pytest.raises(UserError, match="not a finite number"):
        read_run(folder)


def test_groups_over_two_bases_are_refused(write_run: WriteRun, workplace: Path) -> None:
    write_run("one", "original")
    write_run("same", "original", device="gpu")  # another device is no fault between groups
    write_run("other", "original", backbone="b" * 64)
    groups = {name: read_runs(workplace / "runs" / name) for name in ("one", "same", "other")}
    check_same_base({name: groups[name] for name in ("one", "same")})
    with pytest.raises(UserError, match="runs of other are over another base model"):
        check_same_base(groups)


def test_a_killed_run_is_no_run(write_run: WriteRun, workplace: Path) -> None:
    write_run("g", "original")
    (workplace / "runs/g/.small.partial-12-host").mkdir()
    assert [run.facts.row for run in read_runs(workplace / "runs/g")] == ["original"]
