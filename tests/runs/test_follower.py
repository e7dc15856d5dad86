"""What reaches MLflow: a real `mlflow server`, the project's own store, and servers that fail."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Run
from PIL import Image

from adapterbench.runs import mlflow_store
from adapterbench.runs.follow import SETTINGS, unsent
from adapterbench.runs.follower import Follower
from adapterbench.runs.record import Facts, stage_record

from .conftest import until

SCORES = {"a": {"clip_t": 0.25, "clip_i": 0.75}, "b": {"clip_t": 0.5, "clip_i": 0.5}}
CURVE = [(0, 1.0), (1, 0.5), (2, 0.25)]
BEST_FIRST = [{"field_name": "metrics.clip_t", "ascending": False}]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody writes to: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    mlflow_store.local_store(folder / "mlflow.db", folder / "mlartifacts")
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def store(project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own store."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    shutil.copy(empty_store, project)
    return project / "mlflow.db"


def train(variant: str = "a", error: BaseException | None = None) -> Path:
    """Stage `train`, which ends in `error` if one is given; its record."""
    weights = Path("models", variant, "adapter.safetensors")
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_text(f"weights of {variant}")
    params = {"variant": {"rank": 4}, "train": {"betas": [0.9, 0.99]}}
    with stage_record("train", variant=variant, params=params, inputs=[Path("models")]) as record:
        for step, loss in CURVE:
            record.metrics({"loss": loss, "rate": 0.1}, step=step)
        record.headline(loss=0.25, trainable_params=100)
        record.adapter(weights, made=True)
        if error:
            raise error
    return record.path


def sample(variant: str = "a") -> None:
    """Stage `sample`: a tar of nine images."""
    Image.new("RGB", (16, 16), "red").save("tile.png")
    with tarfile.open("image.tar", "w") as tar:
        for number in range(9):
            tar.add("tile.png", f"{number}.0.png")
    with stage_record("sample", variant=variant, params={"sample": {"items": 9}}) as record:
        record.adapter(Path("models", variant, "adapter.safetensors"), made=False)
        record.images("generated", [Path("image.tar")])


def score(variant: str = "a") -> None:
    """Stage `score`."""
    with stage_record("score", variant=variant, params={}) as record:
        record.headline(**SCORES[variant])


def compare() -> None:
    """Stages `compare` and `figures`, in one."""
    Image.new("RGB", (40, 20)).save("pareto.png")
    Path("tables/more").mkdir(parents=True, exist_ok=True)
    Path("tables/more/table.csv").write_text("a,b\n")
    with stage_record("compare", params={"compare": {"seed": 0}}) as record:
        record.headline(clip_t=0.5, clip_i=0.75)
        record.images("figures", [Path("pareto.png")])
        record.artifact(Path("tables"))


def everything() -> None:
    """All stages of two variants."""
    for variant in SCORES:
        for stage in (train, sample, score):
            stage(variant)
    compare()


def follow(follower: Follower | None = None) -> Follower:
    """Have all that has been written until now sent, as far as it goes."""
    follower = follower or Follower(Path.cwd())
    follower.scan()
    follower.send()
    return follower


def client() -> tuple[Any, str]:
    """The client of what the project sends to, and the id of its MLflow experiment."""
    there, _, experiment = mlflow_store.connect(Path.cwd())
    return there, experiment


def runs(where: str = "") -> list[Run]:
    """Runs in the order in which they began."""
    there, experiment = client()
    found = there.search_runs([experiment], where, order_by=["attributes.start_time ASC"])
    return [there.get_run(run.info.run_id) for run in found]


def one(where: str) -> Run:
    [run] = runs(where)
    return run


def curve(run: Run, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in client()[0].get_metric_history(run.info.run_id, name)]


def artifacts(run: Run, folder: str | None = None) -> list[str]:
    return [item.path for item in client()[0].list_artifacts(run.info.run_id, folder)]


def titles(run: Run) -> set[str]:
    """Titles of the images that a run shows."""
    return {path.removeprefix("images/").partition("+")[0] for path in artifacts(run, "images")}


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [item.getMessage() for item in caplog.records if item.name.startswith("adapterbench")]


def check_everything() -> None:
    """`everything` is there, nested, numbered and linked, and once."""
    assert [run.info.status for run in runs()] == ["FINISHED"] * (1 + 2 + 2 * 3 + 1)
    top = one("tags.level = 'experiment'")
    assert top.data.metrics.keys() == {"clip_t", "clip_i", "seconds"}
    assert (top.data.metrics["clip_t"], top.data.params) == (0.5, {"compare.seed": "0"})
    assert titles(top) == {"figures~pareto"}
    there, experiment = client()
    models = there.search_logged_models([experiment], order_by=BEST_FIRST)
    assert [model.name for model in models] == ["b", "a"]
    for model in models:
        own = f"tags.variant = '{model.name}'"
        numbers = {**SCORES[model.name], "loss": 0.25, "trainable_params": 100}
        variant = one(f"tags.level = 'variant' and {own}")
        assert variant.data.tags["mlflow.parentRunId"] == top.info.run_id
        assert variant.data.metrics.pop("seconds") > 0
        assert variant.data.metrics == {metric.key: metric.value for metric in model.metrics}
        assert variant.data.metrics == numbers
        params = {"variant.rank": "4", "train.betas": "[0.9, 0.99]"}
        assert (model.params, variant.data.params) == (params, params | {"sample.items": "9"})
        assert curve(variant, "loss") == CURVE
        assert titles(variant) == {"generated~image"}
        training, sampling = (one(f"tags.stage = '{s}' and {own}") for s in ("train", "sample"))
        assert training.data.tags["mlflow.parentRunId"] == variant.info.run_id
        assert curve(training, "rate") == [(step, 0.1) for step, _ in CURVE]
        assert training.inputs is not None
        assert training.outputs is not None
        assert sampling.inputs is not None
        [data] = training.inputs.dataset_inputs
        assert (data.dataset.name, len(data.dataset.digest)) == ("models", 36)
        [made], [used] = training.outputs.model_outputs, sampling.inputs.model_inputs
        assert made.model_id == used.model_id == model.model_id
        [weights] = there.list_logged_model_artifacts(model.model_id)
        assert weights.path == "adapter.safetensors"
    comparison = one("tags.stage = 'compare'")
    assert artifacts(comparison) == ["record.json", "tables"]
    assert artifacts(comparison, "tables/more") == ["tables/more/table.csv"]
    tags = there.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "mlflow.sharedViewState.variants" in tags


def test_what_is_sent_twice_is_there_once(caplog: pytest.LogCaptureFixture) -> None:
    """As after a follower that was killed when it had sent all and moved nothing."""
    everything()
    shutil.copytree("records", "kept")
    follow()
    assert unsent(Path.cwd()) == {}
    shutil.rmtree("records")
    shutil.move("kept", "records")
    follow()
    check_everything()
    assert failures(caplog) == []


def test_the_grid_shows_the_images_of_a_tar() -> None:
    train()
    sample()
    follow()
    variant = one("tags.level = 'variant'")
    [path] = [path for path in artifacts(variant, "images") if path.endswith(".png")]
    grid = Image.open(client()[0].download_artifacts(variant.info.run_id, path))
    assert grid.size == (8 * 16, 2 * 16)
    assert grid.getpixel((0, 16)) == (255, 0, 0)
    assert grid.getpixel((16, 16)) == (255, 255, 255)  # nine images, so seven places are empty


def test_each_dvc_process_has_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for started in (1000, 2000):  # one pid, given again
        dvc = SimpleNamespace(pid=1, create_time=lambda started=started: started)
        monkeypatch.setattr("adapterbench.runs.record.dvc_process", lambda dvc=dvc: dvc)
        train("a")
        train("b")
    follow()
    first, second = (run.info.run_id for run in runs("tags.level = 'experiment'"))
    above = [run.data.tags["mlflow.parentRunId"] for run in runs("tags.level = 'variant'")]
    assert above == [first, first, second, second]
    there, experiment = client()
    assert len(there.search_logged_models([experiment])) == 2  # the same weights are one model


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_that_ends_early(error: BaseException, status: str) -> None:
    train("b")
    with pytest.raises(type(error)):
        train("a", error)
    follow()
    states = {run.data.tags.get("variant"): run.info.status for run in runs()}
    assert states == {None: status, "a": status, "b": "FINISHED"}


def test_a_run_under_way_is_followed_until_its_process_is_dead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with stage_record("train", variant="a", params={}) as record:
        record.metrics({"loss": 1.0}, step=0)
        follower = follow()
        assert {run.info.status for run in runs()} == {"RUNNING"}
        until(lambda: any("system/" in m for m in one("tags.level = 'stage'").data.metrics))
        record.next_flush = 0.0
        record.metrics({"loss": 0.5}, step=1)
        reused = record.facts.process.model_copy(update={"started": 1.0})  # the pid lives
        record.facts.model_copy(update={"process": reused}).write(record.path)
        for _ in range(3):
            follow(follower)
        assert {run.info.status for run in runs()} == {"KILLED"}
        assert curve(one("tags.level = 'stage'"), "loss") == [(0, 1.0), (1, 0.5)]
        [path] = Path("records").glob("*/sent/*.json")
        assert Facts.read(path).status == "killed"
    assert failures(caplog) == []


def test_many_points_and_parameters() -> None:
    params = {f"p{i}": "x" * 7000 if i == 0 else i for i in range(250)}
    with stage_record("train", params={"train": params}) as record:
        for step in range(2500):
            record.metrics({"loss": step}, step=step)
        record.metrics({"loss": float("nan")}, step=2500)
    follow()
    run = one("tags.stage = 'train'")
    assert len(run.data.params) == 250
    points = curve(run, "loss")
    assert points[:2500] == [(step, float(step)) for step in range(2500)]
    assert len(points) == 2501


@pytest.mark.parametrize("text", ["[]", '{"stage": "train"}', "half", None])
def test_a_record_that_cannot_be_sent_keeps_no_other(
    text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that are no records, and one that mlflow refuses."""
    path = train("b")
    path.write_text(text or path.read_text().replace('"rate"', '"a?b"'))
    train("a")
    follow()
    assert list(unsent(Path.cwd())) == [path]
    [line] = failures(caplog)
    assert "\n" not in line
    assert one("tags.stage = 'train' and tags.variant = 'a'").info.status == "FINISHED"


def test_a_moved_or_copied_project_keeps_its_artifacts_with_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = project / "old", project / "new"
    old.mkdir()
    shutil.move("mlflow.db", old)
    monkeypatch.chdir(old)
    compare()
    train()
    follow()
    before = sorted(old.rglob("*"))
    shutil.copytree(old, new)
    monkeypatch.chdir(new)
    train("b")
    follow()
    assert sorted(old.rglob("*")) == before
    assert artifacts(one("tags.stage = 'compare'"), "tables/more") == ["tables/more/table.csv"]
    assert all(run.info.artifact_uri.startswith(f"{new}/mlartifacts/") for run in runs())
    there, experiment = client()
    for model in there.search_logged_models([experiment]):
        assert there.list_logged_model_artifacts(model.model_id)


def test_a_stop_while_the_store_is_made_leaves_nothing_half_made(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.unlink()
    store.with_name(".mlflow.db.partial-1").write_text("of a killed follower")

    def stopped(uri: str, _: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_store, "SqlAlchemyStore", stopped)
    with pytest.raises(KeyboardInterrupt):
        mlflow_store.local_store(store, store.with_name("mlartifacts"))
    assert not list(store.parent.glob("*mlflow.db*"))


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("postgresql://ann:p/w@127.0.0.1/db", "postgresql://***@127.0.0.1/db: ModuleNotFoundError"),
        ("nonsense://ann:pw@host", "unsupported URI 'nonsense://***@host'"),
        ("sqlite:///other.db", "out-of-date database schema"),
        ("sqlite:///broken.db", "file is not a database"),
        ("http://127.0.0.1:9", "Connection refused"),
    ],
)
def test_a_store_that_cannot_be_used_costs_one_line(
    uri: str,
    cause: str,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path("broken.db").write_text("this is no database" * 100)
    shutil.copy(store, "other.db")
    with sqlite3.connect("other.db") as other:
        other.execute("UPDATE alembic_version SET version_num = 'abc'")
    train()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        follow(follow())
    [line] = failures(caplog)
    assert cause in line
    assert "pw" not in line
    assert len(unsent(Path.cwd())) == 1
    follow()
    assert unsent(Path.cwd()) == {}


class BadServer(BaseHTTPRequestHandler):
    """Behaves as `manner` says."""

    manner = "hang"

    def do_GET(self) -> None:
        while self.manner == "hang":
            time.sleep(0.05)
        self.send_response(int(self.manner) if self.manner.isdecimal() else 200)
        self.send_header("Retry-After", "3600")
        self.end_headers()
        with suppress(OSError):
            while self.manner == "trickle":
                self.wfile.write(b" ")
                time.sleep(0.05)
            self.wfile.write({"html": b"<html>", "list": b"[]"}.get(self.manner, b'{"other": 1}'))

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("manner", ["503", "429", "trickle", "hang", "html", "list", "other"])
def test_a_bad_server_costs_one_line(
    manner: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train()
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), BadServer) as server,
        monkeypatch.context() as patch,
    ):
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        patch.setattr(BadServer, "manner", manner)
        patch.setattr(mlflow_store, "DEADLINE", 2.0)
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        follow()
        patch.setattr(BadServer, "manner", "404")  # lets go of what hangs
        server.shutdown()
    assert len(unsent(Path.cwd())) == 1
    [line] = failures(caplog)
    assert line.startswith("cannot send to http://127.0.0.1:")
    follow()
    assert unsent(Path.cwd()) == {}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, int]]:
    """A real `mlflow server` on the loopback; its address and process group."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"--host 127.0.0.1 --port {port} --workers 1 --artifacts-destination files"
    command = [sys.executable, "-m", "mlflow", "server", *options.split()]
    command += ["--backend-store-uri", "sqlite:///mlflow.db"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=env
        )

    def healthy() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return True
        return False

    try:
        until(healthy)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait()
        process.wait()


@pytest.mark.slow
def test_a_server_that_hangs_for_a_while_has_everything_in_the_end(
    project: Path, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "server").mkdir()
    shutil.move(store, project / "server")
    with mlflow_server(project / "server") as (uri, group):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        train("a")
        follower = follow()
        assert failures(caplog) == []
        sample("a")
        score("a")
        os.killpg(group, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(mlflow_store, "DEADLINE", 2.0)
            follow(follower)
        os.killpg(group, signal.SIGCONT)
        assert len(unsent(project)) == 2
        assert failures(caplog) == [f"cannot send to {uri}: CallTimeout: no answer within 2 s"]
        for stage in (train, sample, score):
            stage("b")
        compare()
        follow(follower)
        check_everything()
