"""The record holds what ran, on what, with what result, whatever way the run ends."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from adapterbench import runs
from adapterbench.core.config import CompareParams
from adapterbench.core.errors import UserError
from adapterbench.runs.record import Facts, Record, stage_record

pytestmark = pytest.mark.usefixtures("project")


def read() -> dict[str, Any]:
    """The one record of the project."""
    [path] = Path("records").glob("*/*.json")
    facts: dict[str, Any] = json.loads(path.read_text(), parse_constant=pytest.fail)
    return facts


def test_trainings_and_the_comparison_tell_what_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    stage: str
    monkeypatch.setattr(runs.record, "warn_unsaved_edits", lambda: told.append(stage))
    for stage in ("fetch", "train", "sample", "compare"):
        with stage_record(stage, params={}):
            pass
    assert told == ["train", "compare"]


def test_a_finished_run() -> None:
    section = CompareParams(bootstrap_samples=10, confidence=0.9, seed=0, labels={})
    with stage_record("train", variant="a", params={"compare": section}) as record:
        assert read()["status"] == "running"
        for step in range(3):
            record.metrics({"loss": 1 / (step + 1), "lr": 0.1}, step=step)
        record.set(images_per_second=12.5)
        record.headline(saved=2)
    facts = read()
    assert facts["status"] == "finished"
    assert facts["error"] is None
    assert facts["params"] == {"compare": section.model_dump()}
    assert facts["history"]["loss"]["step"] == [0, 1, 2]
    assert facts["history"]["loss"]["value"] == [1.0, 0.5, 1 / 3]
    assert facts["history"]["loss"]["seconds"] == sorted(facts["history"]["loss"]["seconds"])
    assert facts["metrics"] == {"loss": 1 / 3, "lr": 0.1, "images_per_second": 12.5, "saved": 2.0}
    assert facts["headline"] == ["saved"]
    assert facts["provenance"]["packages"]["numpy"] == numpy.__version__
    assert facts["seconds"] >= facts["history"]["loss"]["seconds"][-1]
    assert facts["peak_memory_mb"] > 1
    assert facts["started"] <= facts["ended"]
    [path] = Path("records").glob("*/*.json")
    assert json.loads(Facts.read(path).model_dump_json()) == facts


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (ValueError("broken"), "failed", "ValueError: broken"),
        (UserError("no data"), "failed", "UserError: no data"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (OSError("no s3://key:hunter5@bucket/x"), "failed", "OSError: no s3://***@bucket/x"),
    ],
)
def test_a_run_that_ends_early_keeps_its_values_and_the_error(
    error: BaseException, status: str, cause: str
) -> None:
    def fail() -> None:
        with stage_record("train", variant="a", params={}) as record:
            record.metrics({"loss": 0.5}, step=1)
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    facts = read()
    assert (facts["status"], facts["error"]) == (status, cause)
    assert facts["history"]["loss"]["value"] == [0.5]
    assert facts["ended"]


def test_values_that_are_not_finite_are_null_in_valid_json() -> None:
    record = Record("train", params={})
    record.metrics({"loss": float("nan")}, step=0)
    record.set(speed=float("inf"))
    record.close("failed")
    facts = read()
    assert facts["history"]["loss"]["value"] == [None]
    assert facts["metrics"] == {"loss": None, "speed": None}


def test_tensors_are_taken_as_numbers() -> None:
    torch = pytest.importorskip("torch")
    record = Record("train", params={})
    record.metrics({"loss": torch.tensor(0.5)}, step=0)
    record.close("finished")
    assert read()["metrics"] == {"loss": 0.5}
    assert read()["device"] == f"cpu ({torch.get_num_threads()} threads)"


def test_a_run_killed_outright_leaves_what_was_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("train", params={})
    record.metrics({"loss": 0.5}, step=0)
    record.metrics({"loss": 0.4}, step=1)  # too soon after the first to be written
    assert read()["history"]["loss"]["step"] == [0]
    monkeypatch.setattr(time, "monotonic", lambda: record.next_flush + 1)
    record.metrics({"loss": 0.3}, step=2)
    assert read()["history"]["loss"]["step"] == [0, 1, 2]
    assert read()["status"] == "running"


def test_an_artifact_must_exist() -> None:
    record = Record("train", params={})
    Path("adapter.bin").write_text("x")
    record.artifact(Path("adapter.bin"))
    with pytest.raises(FileNotFoundError, match="absent"):
        record.artifact(Path("absent.bin"))
    assert record.facts.artifacts == ["adapter.bin"]


def test_the_record_of_a_queued_experiment_is_in_the_users_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "copy").mkdir()
    monkeypatch.chdir(project / "copy")
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
    record = Record("train", variant="a", params={})
    record.close("finished")
    assert record.path.is_relative_to(project / "records")
    assert Facts.read(record.path).folder == str(project / "copy")


def test_of_several_processes_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with stage_record("train", params={}) as record:
        record.metrics({"loss": 0.5}, step=0)
    assert not Path("records").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"stage": 1}', '{"stage": "train"}'])
def test_what_is_no_record_is_one_line(text: str) -> None:
    Path("a.json").write_text(text)
    with pytest.raises(UserError, match=r"a.json is not a record \(.*\): delete it") as caught:
        Facts.read(Path("a.json"))
    assert "\n" not in str(caught.value)


def test_a_stage_imports_nothing_of_mlflow() -> None:
    code = (
        "import sys, adapterbench.runs.record\n"
        "heavy = {'mlflow', 'torch', 'sqlalchemy', 'requests', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
