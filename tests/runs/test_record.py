"""The record holds what ran, on what, with what result, whatever way the run ends."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from adapterbench.core.config import CompareParams
from adapterbench.core.errors import UserError
from adapterbench.runs import record as module
from adapterbench.runs.record import Record, digest, stage_record


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with no DVC around it and a tracking server that is not there."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str | Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(path).read_text())
    return facts


def run_git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


def test_a_finished_run() -> None:
    section = CompareParams(bootstrap_samples=10, confidence=0.9, seed=0)
    with stage_record("train", variant="a", params={"compare": section}) as record:
        assert read("records/train/a.json")["status"] == "running"
        for step in range(3):
            record.metrics({"loss": 1 / (step + 1), "lr": 0.1}, step=step)
        record.set(images_per_second=12.5)
        record.metric("saved", 2)
    facts = read("records/train/a.json")
    assert facts["status"] == "finished"
    assert facts["error"] is None
    assert facts["params"] == {"compare": section.model_dump()}
    assert facts["history"]["loss"]["step"] == [0, 1, 2]
    assert facts["history"]["loss"]["value"] == [1.0, 0.5, 1 / 3]
    assert facts["history"]["loss"]["seconds"] == sorted(facts["history"]["loss"]["seconds"])
    assert facts["metrics"] == {"loss": 1 / 3, "lr": 0.1, "images_per_second": 12.5, "saved": 2.0}
    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["seconds"] >= facts["history"]["loss"]["seconds"][-1]
    assert facts["peak_memory_mb"] > 1
    assert facts["started"] <= facts["ended"]


def fail_with(error: BaseException) -> None:
    with stage_record("train", variant="a", params={}) as record:
        record.metrics({"loss": 0.5}, step=1)
        raise error


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (ValueError("broken"), "failed", "ValueError: broken"),
        (UserError("no data"), "failed", "UserError: no data"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
)
def test_a_run_that_ends_early_keeps_its_values_and_the_error(
    error: BaseException, status: str, cause: str
) -> None:
    with pytest.raises(type(error)) as caught:
        fail_with(error)
    assert caught.value is error
    facts = read("records/train/a.json")
    assert (facts["status"], facts["error"]) == (status, cause)
    assert facts["history"]["loss"]["value"] == [0.5]
    assert facts["ended"]


def test_a_stage_without_a_variant_and_a_path_of_ones_own() -> None:
    with stage_record("compare", params={}):
        pass
    with stage_record("compare", params={}, path=Path("elsewhere/c.json")):
        pass
    assert read("records/compare/compare.json")["variant"] is None
    assert read("elsewhere/c.json")["stage"] == "compare"


def test_values_that_are_not_finite_are_null_in_valid_json() -> None:
    record = Record("train", params={})
    record.metrics({"loss": float("nan")}, step=0)
    record.set(speed=float("inf"))
    record.close("failed")
    facts = json.loads(record.path.read_text(), parse_constant=pytest.fail)
    assert facts["history"]["loss"]["value"] == [None]
    assert facts["metrics"] == {"loss": None, "speed": None}


def test_tensors_are_taken_as_numbers() -> None:
    torch = pytest.importorskip("torch")
    record = Record("train", params={})
    record.metrics({"loss": torch.tensor(0.5)}, step=0)
    record.close("finished")
    assert read(record.path)["metrics"] == {"loss": 0.5}
    assert read(record.path)["torch_threads"] == torch.get_num_threads()


def test_a_run_killed_outright_leaves_what_was_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("train", params={})
    record.metrics({"loss": 0.5}, step=0)
    record.metrics({"loss": 0.4}, step=1)  # too soon after the first to be written
    assert read(record.path)["history"]["loss"]["step"] == [0]
    monkeypatch.setattr(time, "monotonic", lambda: record.next_flush + 1)
    record.metrics({"loss": 0.3}, step=2)
    assert read(record.path)["history"]["loss"]["step"] == [0, 1, 2]
    assert read(record.path)["status"] == "running"


def test_logging_does_not_slow_a_training_loop() -> None:
    record = Record("train", params={})
    began = time.perf_counter()
    for step in range(5000):
        record.metrics({"loss": 0.5, "lr": 0.1}, step=step)
    assert (time.perf_counter() - began) / 5000 < 1e-3


def test_an_artifact_must_exist() -> None:
    record = Record("train", params={})
    Path("adapter.bin").write_text("x")
    record.artifact(Path("adapter.bin"))
    with pytest.raises(FileNotFoundError, match="absent"):
        record.artifact(Path("absent.bin"))
    assert record.facts["artifacts"] == ["adapter.bin"]


def test_an_earlier_record_that_mlflow_lacks_is_kept() -> None:
    for day in (1, 2):
        record = Record("train", variant="a", params={})
        module.set_aside(record.path)
        record.facts["started"] = f"2026-01-0{day}T00:00:00.000+00:00"
        record.close("finished")
    names = sorted(path.name for path in Path("records/train").iterdir())
    assert names == ["a.20260101T000000.json", "a.json"]
    latest = read("records/train/a.json")
    Path("records/train/a.json").write_text(json.dumps({**latest, "mlflow": {"complete": True}}))
    module.set_aside(Path("records/train/a.json"))
    assert Path("records/train/a.json").exists()


class TestExperimentName:
    def test_outside_a_repository(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
        assert module.experiment_name() == "workspace"

    def test_the_branch_or_else_the_commit(self) -> None:
        run_git("init", "-b", "trunk")
        run_git("commit", "--allow-empty", "-m", "first")
        assert module.experiment_name() == "trunk"
        run_git("checkout", "--detach")
        assert run_git("rev-parse", "HEAD").startswith(module.experiment_name())

    def test_a_dvc_experiment_gives_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
        monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")
        facts = Record("train", params={}).facts
        assert facts["experiment"] == "bumpy-kite"
        assert facts["dvc"] == {"experiment": "bumpy-kite", "baseline": "abc"}


def test_a_queued_experiment_keeps_its_record_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
    Record("train", variant="a", params={}).close("finished")
    assert (tmp_path / "records/bumpy-kite/train/a.json").is_file()


class TestDigest:
    def test_a_file(self) -> None:
        Path("a.bin").write_bytes(b"abc")
        assert digest(Path("a.bin")) == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"

    def test_a_folder_with_a_manifest(self) -> None:
        Path("shards").mkdir()
        Path("shards/manifest.json").write_bytes(b"{}")
        assert digest(Path("shards")) == f"manifest:{hashlib.sha256(b'{}').hexdigest()}"

    def test_a_folder_without_one_follows_names_and_sizes(self) -> None:
        Path("shards").mkdir()
        Path("shards/a").write_text("1")
        first = digest(Path("shards"))
        assert first.startswith("listing:")
        assert digest(Path("shards")) == first
        Path("shards/b").write_text("1")
        assert digest(Path("shards")) != first

    def test_dvc_knows_its_outputs_while_it_runs_the_stage(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("data/shards").mkdir(parents=True)
        Path("data/shards/a").write_text("1")
        outs = [{"path": "data/shards", "hash": "md5", "md5": "0123.dir"}]
        lock = {"schema": "2.0", "stages": {"prepare": {"cmd": "x", "outs": outs}, "b": {}}}
        Path("dvc.lock").write_text(yaml.safe_dump(lock))
        assert digest(Path("data/shards")).startswith("listing:")
        monkeypatch.setenv("DVC_STAGE", "train")
        assert digest(Path("data/shards")) == "md5:0123.dir"
        assert digest(Path("data/shards/a")) == "md5:0123.dir"

    def test_a_missing_input_is_the_users_to_mend(self) -> None:
        with pytest.raises(UserError, match=r"data is missing: run `dvc repro`"):
            Record("train", params={}, inputs=[Path("data")])


def test_no_secret_reaches_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter2@127.0.0.1:9/?token=hunter3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter4")
    with pytest.raises(OSError, match="hunter5"):
        fail_with(OSError("cannot reach s3://key:hunter5@bucket/x"))
    text = Path("records/train/a.json").read_text()
    assert "hunter" not in text
    assert "127.0.0.1:9" in text


def test_the_import_is_light() -> None:
    code = (
        "import sys, adapterbench.runs.record\n"
        "heavy = {'mlflow', 'torch', 'sqlalchemy', 'requests', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
