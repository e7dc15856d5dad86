"""`dvc repro`: what it makes, what it does not make again, and that it makes the same again."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from adapterbench.report.metrics import COSTS

from .project import FLOORS, REAL, TABLE_STAGES, VARIANTS, Project, all_stages, stages_of

COST_COLUMNS = [cost.key for cost in COSTS]
TABLE = "results/comparison.csv"
INTERVALS = ("clip_i", "neutral")


def methods(project: Project) -> list[str]:
    """First column of the table."""
    return list(pd.read_csv(project.root / TABLE)["method"])


def test_the_table_has_a_row_for_each_variant_floor_and_ceiling(finished: Project) -> None:
    rows = [*VARIANTS, *FLOORS, *REAL, "shuffled_reference"]
    assert sorted(methods(finished)) == sorted(rows)
    table = pd.read_csv(finished.root / TABLE).set_index("method")
    assert table["n"].unique() == [3]
    assert table.loc["ip_adapter", "k"] == 2
    assert table.loc[list(VARIANTS), ["trainable_params", *COST_COLUMNS]].gt(0).all(axis=None)
    scores = ["clip_i", "neutral", "r_at_1"]
    assert list(table.loc["reference", scores]) == pytest.approx([1] * 3, abs=1e-3)
    assert table.loc["other_item", "r_at_1"] == 0
    assert table.loc[list(VARIANTS), "diversity"].gt(0).all()
    answers = pd.read_csv(finished.root / "results/pairs.csv")
    assert len(answers) == 2 * (3 * len(VARIANTS) + 3)
    assert (finished.root / "results/report.html").stat().st_size > 10_000


def test_dvc_shows_metrics_and_plots(project: Project) -> None:
    shown = json.loads(project.dvc("metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    table = pd.read_csv(project.root / TABLE).set_index("method")
    headline = files["metrics/comparison.json"]["data"]["ip_adapter"]
    assert headline["clip_i"] == table.loc["ip_adapter", "clip_i"]
    for variant in VARIANTS:
        costs = files[f"metrics/train/{variant}.json"]["data"]
        assert costs["trainable_params"] == table.loc[variant, "trainable_params"]

    plots = json.loads(project.dvc("plots", "show", "--json").stdout)["data"]
    figures = {f"results/figures/{path.name}" for path in project.root.glob("results/figures/*")}
    assert plots.keys() == {"loss", *INTERVALS, *figures}
    assert {Path(row["filename"]).stem for row in data(plots["loss"])} == VARIANTS.keys()
    for metric in INTERVALS:
        [filled] = plots[metric]
        drawn = [layer["encoding"] for layer in filled["content"]["layer"]]
        fields = {
            axis["field"] for encoding in drawn for name, axis in encoding.items() if name[0] == "x"
        }
        assert fields == {metric, f"{metric}_lo", f"{metric}_hi"}
        assert fields < data(plots[metric])[0].keys()
        assert [row["label"] for row in data(plots[metric])] == list(table["label"])


def data(plot: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows that a plot of one revision draws."""
    [filled] = plot
    rows: list[dict[str, str]] = filled["content"]["data"]["values"]
    return rows


def test_nothing_is_run_again_where_nothing_has_changed(project: Project) -> None:
    assert project.ran("repro") == set()
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("src/adapterbench/report/table.py", {"compare", "figures"}),
        ("src/adapterbench/runs/follow.py", set()),
    ],
)
@pytest.mark.slow
def test_an_edit_to_code_runs_again_what_uses_it(
    file: str, again: set[str], project: Project
) -> None:
    with (project.root / file).open("a") as code:
        code.write("# a comment\n")
    assert project.ran("repro") == again


@pytest.mark.slow
def test_three_lines_of_yaml_add_a_row_and_nothing_else_is_trained(project: Project) -> None:
    path = project.root / "params.yaml"
    lines = (
        "  mine:\n    {projection: feedforward, attention: append,\n     tokens: 1, expansion: 1}\n"
    )
    path.write_text(path.read_text().replace("sample:\n", f"{lines}sample:\n", 1))
    assert yaml.safe_load(path.read_text())["variants"].keys() == VARIANTS.keys() | {"mine"}

    before = methods(project)
    assert project.ran("repro") == stages_of("mine") | {"compare", "figures"}
    assert set(methods(project)) - set(before) == {"mine"}


@pytest.mark.slow
def test_a_further_split_has_a_table_of_its_own(project: Project) -> None:
    path = project.root / "params.yaml"
    params = yaml.safe_load(path.read_text()) | {"further_splits": ["train"]}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    assert project.ran("repro") == {"further_split@train"}
    folder = project.root / "results/splits/train"
    further, table = (pd.read_csv(f / "comparison.csv") for f in (folder, project.root / "results"))
    assert list(further["method"]) == list(table["method"])
    assert not further["clip_i"].equals(table["clip_i"])
    assert "N = 3 train items" in (folder / "comparison.md").read_text()


@pytest.mark.slow
def test_layers_are_measured_of_the_variants_that_are_listed(project: Project) -> None:
    project.params(layers={"variants": ["ip_adapter_lora"], "items": 4})
    ran = project.ran("repro")
    assert ran == {"layers@ip_adapter_lora", "compare", "figures"}
    table = pd.read_csv(project.root / "illustrations/ip_adapter_lora.layers/layers.csv")
    assert set(table["n"]) == {2}
    presets = json.loads((project.root / "models/ip_adapter_lora.presets.json").read_text())
    assert presets["presets"].keys() <= {"style", "layout"}
    assert "What each layer carries" in (project.root / "results/report.html").read_text()
    assert project.ran("repro") == set()


@pytest.mark.slow
def test_methods_without_training_are_added_and_nothing_else_runs(project: Project) -> None:
    path = project.root / "params.yaml"
    added = {"img2img": {"strength": 0.5}, "reference_only": {"weight": 1.0}}
    params = yaml.safe_load(path.read_text()) | {"training_free": added}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    before = methods(project)
    stages = {f"{stage}_training_free@{name}" for stage in ("sample", "score") for name in added}
    assert project.ran("repro") == stages | {*TABLE_STAGES}
    assert set(methods(project)) - set(before) == added.keys()
    assert "Against Image to image" in (project.root / "results/comparison.md").read_text()


def test_the_same_training_gives_the_same_bytes(project: Project) -> None:
    weights = project.root / "models/ip_adapter/adapter.safetensors"
    before = weights.read_bytes()
    stage = "train@ip_adapter"
    real = project.in_real_processes()
    assert real.ran("repro", "--force", "--single-item", stage) == {stage}
    assert weights.read_bytes() == before


@pytest.mark.slow
def test_two_runs_from_nothing_give_the_same_tables(fresh: Project, finished: Project) -> None:
    again = fresh.copy(fresh.root.parent / "again").in_real_processes()
    assert again.ran("repro") == all_stages()
    first, second = (pd.read_csv(p.root / TABLE, dtype=str) for p in (finished, again))
    pd.testing.assert_frame_equal(
        first.drop(columns=COST_COLUMNS), second.drop(columns=COST_COLUMNS)
    )
    for name in ("results/paired.csv", "metrics/comparison.json"):
        assert (again.root / name).read_bytes() == (finished.root / name).read_bytes()
    stages = [yaml.safe_load((p.root / "dvc.lock").read_text()) for p in (finished, again)]
    kept = [outputs(lock) for lock in stages]
    assert kept[0] == kept[1]


def outputs(lock: dict[str, dict[str, dict[str, list[dict[str, str]]]]]) -> dict[str, str]:
    """Digest of every output that no clock gets into."""
    found = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    timed = ("metrics/train", "results/")
    return {path: md5 for path, md5 in found.items() if not path.startswith(timed)} | {
        path: md5 for path, md5 in found.items() if path.startswith("results/scores")
    }
