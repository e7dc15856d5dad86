"""MLflow after `dvc repro`: every stage has its run, and a row of the table leads to its runs."""

from collections import Counter
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from adapterbench.runs.follower import Follower

from .project import FLOORS, REAL, VARIANT_STAGES, VARIANTS, Project, all_stages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """MLflow with the records of the finished project, sent by a copy of it."""
    project = finished.copy(tmp_path_factory.mktemp("sent") / "project")
    uri = finished.env["MLFLOW_TRACKING_URI"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        follower = Follower(project.root)
        follower.scan()
        follower.send()
    return MlflowClient(tracking_uri=uri)


def runs(client: MlflowClient, where: str = "") -> list[Run]:
    """The runs that a query finds."""
    experiment: Any = client.get_experiment_by_name("adapterbench")
    return list(client.search_runs([experiment.experiment_id], where))


def test_every_stage_has_a_finished_run(client: MlflowClient) -> None:
    assert {run.info.status for run in runs(client)} == {"FINISHED"}
    stages = Counter(stage.replace("_floor", "").partition("@")[0] for stage in all_stages())
    stages["score"] += len(FLOORS + REAL) * stages.pop("scores")  # one process, a run each
    found = runs(client, "tags.level = 'stage'")
    assert Counter(run.data.tags["stage"] for run in found) == stages


def test_a_row_of_the_table_leads_to_its_runs(finished: Project, client: MlflowClient) -> None:
    head = finished.run("git", "rev-parse", "HEAD~1").stdout.strip()
    table = pd.read_csv(finished.root / "results/comparison.csv").set_index("method")
    [top] = runs(client, "tags.level = 'experiment'")
    for variant in VARIANTS:
        query = f"tags.variant = '{variant}' and tags.`git.revision` = '{head}'"
        [row] = runs(client, f"{query} and tags.level = 'variant'")
        by_stage = {
            run.data.tags["stage"]: run for run in runs(client, f"{query} and tags.level = 'stage'")
        }
        assert by_stage.keys() == set(VARIANT_STAGES)
        above = {run.data.tags["mlflow.parentRunId"] for run in by_stage.values()}
        assert above == {row.info.run_id}
        assert row.data.tags["mlflow.parentRunId"] == top.info.run_id
        assert row.data.params["variant.projection"] == VARIANTS[variant]["projection"]
        numbers = row.data.metrics
        for name in ("trainable_params", "train_seconds"):
            assert numbers[name] == pytest.approx(table.loc[variant, name])
        for name in ("clip_t", "clip_i"):
            assert numbers[name] == pytest.approx(table.loc[variant, name], abs=1e-3)
        history = client.get_metric_history(row.info.run_id, "loss")
        assert [point.step for point in history] == [1, 2, 3]
        titles = {
            item.path.partition("+")[0] for item in client.list_artifacts(row.info.run_id, "images")
        }
        assert titles == {"images/generated~image", "images/generated~image_text"}
    variants = table.loc[list(VARIANTS)]
    assert top.data.metrics["clip_i"] == pytest.approx(variants["clip_i"].max())
    assert top.data.metrics["trainable_params"] == variants["trainable_params"].min()
    assert len(client.list_artifacts(top.info.run_id, "images")) > 2 * len(VARIANTS)


def test_the_best_adapter_is_one_query(finished: Project, client: MlflowClient) -> None:
    experiment: Any = client.get_experiment_by_name("adapterbench")
    order = [{"field_name": "metrics.clip_i", "ascending": False}]
    ranked = client.search_logged_models([experiment.experiment_id], order_by=order)
    table = pd.read_csv(finished.root / "results/comparison.csv").set_index("method")
    best = table.loc[list(VARIANTS), "clip_i"].sort_values(ascending=False)
    assert [model.name for model in ranked] == list(best.index)
