"""MLflow after `dvc repro`: every stage has its run, and a row of the table leads to its runs."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from adapterbench.core.files import read_json

from .project import FLOORS, REAL, VARIANT_STAGES, VARIANTS, Project, all_stages


@pytest.fixture(scope="module")
def client(finished: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=finished.env["MLFLOW_TRACKING_URI"])


def records(project: Project) -> Iterator[dict[str, Any]]:
    """What every stage of the project noted."""
    for path in (project.root / "records").rglob("*.json"):
        yield read_json(path)


def test_every_stage_has_a_finished_run(finished: Project, client: MlflowClient) -> None:
    runs = [client.get_run(record["mlflow"]["run_id"]) for record in records(finished)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    stages = Counter(stage.replace("_floor", "").partition("@")[0] for stage in all_stages())
    stages["score"] += len(FLOORS + REAL) * stages.pop("scores")  # one process, a run each
    assert Counter(run.data.tags["stage"] for run in runs) == stages


def test_a_row_of_the_table_leads_to_its_runs(finished: Project, client: MlflowClient) -> None:
    head = finished.run("git", "rev-parse", "HEAD~1").stdout.strip()
    experiment = client.get_experiment_by_name("adapterbench")
    table = pd.read_csv(finished.root / "results/comparison.csv").set_index("method")
    for variant in VARIANTS:
        query = f"tags.variant = '{variant}' and tags.`git.revision` = '{head}'"
        found = client.search_runs([experiment.experiment_id], query)
        ours = [run for run in found if run.data.tags.get("dvc.experiment") == "main"]
        by_stage = {run.data.tags["stage"]: run for run in ours if "stage" in run.data.tags}
        assert by_stage.keys() == set(VARIANT_STAGES)
        assert nested(client, by_stage["train"]) == ["main", variant, "train"]

        training = by_stage["train"].data
        assert training.params["variant.projection"] == VARIANTS[variant]["projection"]
        assert training.metrics["trainable_params"] == table.loc[variant, "trainable_params"]
        history = client.get_metric_history(by_stage["train"].info.run_id, "loss")
        assert [point.step for point in history] == [1, 2, 3]
        scores = by_stage["score"].data.metrics
        assert scores["clip_i_image"] == pytest.approx(table.loc[variant, "clip_i"], abs=1e-3)


def nested(client: MlflowClient, run: Run) -> list[str]:
    """Names of a run and of those above it, from the top."""
    above = run.data.tags.get("mlflow.parentRunId")
    return [*(nested(client, client.get_run(above)) if above else []), run.info.run_name]
