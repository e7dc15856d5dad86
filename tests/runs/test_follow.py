"""The MLflow copy, against a real `mlflow server`, the default store, and servers that fail."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterbench.core.errors import UserError
from adapterbench.runs import follow
from adapterbench.runs.follow import Copy, flatten, masked, replay
from adapterbench.runs.record import Record, stage_record

SCRIPT = """
import sys
from adapterbench.runs.record import stage_record

with stage_record(sys.argv[1], variant=sys.argv[2], params={"seed": 0}) as record:
    record.metrics({"loss": 0.5}, step=0)
"""
PATIENCE = 30.0
"""Most seconds that a server which does not answer may cost: mlflow's own settings take minutes,
ours about two on an idle machine, and tests also run on busy ones."""


class Server:
    """A real `mlflow server` on the loopback with an SQLite store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        words = [word for option in options.items() for word in option]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                stdout=log,
                stderr=log,
                start_new_session=True,  # one signal reaches its workers too
                cwd=self.folder,
                env={
                    **os.environ,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
            )
        until(self.healthy, 240)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import mlflow beforehand: those seconds are not the server's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in follow.SETTINGS.items():
            patch.setenv(name, value)
        follow.connect("http://127.0.0.1:9")


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; the name of the experiment keeps the tests apart on their one server."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in {**follow.SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)  # and so `connect` leaves nothing behind
    monkeypatch.setenv("DVC_EXP_NAME", tmp_path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The live server, which a test before this one may have killed."""
    if one_server.process is None:
        one_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one_server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # a busy machine is not a dead server
    return one_server


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there."""
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def read(path: str | Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(path).read_text())
    return facts


def client() -> Any:
    return follow.connect(follow.tracking_uri())


def run_of(path: str | Path) -> Any:
    """mlflow's run of a record."""
    return client().get_run(read(path)["mlflow"]["run_id"])


def history(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client().get_metric_history(run_id, name)]


def all_runs() -> list[Any]:
    found = client().get_experiment_by_name("adapterbench")
    runs: list[Any] = client().search_runs(
        [found.experiment_id], filter_string=f"tags.dvc.experiment = '{Path.cwd().name}'"
    )
    return runs


def train(variant: str = "a", error: BaseException | None = None) -> Path:
    """A small stage run, which ends in `error` if one is given."""
    Path("shards").mkdir(exist_ok=True)
    params = {"train": {"steps": 3, "betas": [0.9, 0.99]}, "variant": {"rank": 4}}
    with stage_record("train", variant=variant, params=params, inputs=[Path("shards")]) as record:
        for step in range(3):
            record.metrics({"loss": 1 / (step + 1)}, step=step)
        record.set(images_per_second=12.5)
        Path("model").mkdir(exist_ok=True)
        Path("model/adapter.bin").write_text("weights")
        record.artifact(Path("model"))
        if error:
            raise error
    return record.path


def check_copy(path: Path, status: str = "FINISHED") -> None:
    """MLflow holds what the record holds, each point once."""
    facts, run = read(path), run_of(path)
    assert run.info.status == status
    assert run.data.params == {
        "train.steps": "3",
        "train.betas": "[0.9, 0.99]",
        "variant.rank": "4",
    }
    assert history(run.info.run_id, "loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.data.metrics["images_per_second"] == 12.5
    assert run.data.metrics["seconds"] == facts["seconds"]
    assert run.data.metrics["peak_memory_mb"] == facts["peak_memory_mb"]
    files = {item.path for item in client().list_artifacts(run.info.run_id)}
    assert files == {"model", "record.json"}
    [weights] = client().list_artifacts(run.info.run_id, "model")
    assert weights.path == "model/adapter.bin"
    assert facts["mlflow"]["complete"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [item.getMessage() for item in caplog.records if item.levelno >= logging.WARNING]


class TestServer:
    def test_a_run_is_copied_below_its_experiment_and_variant(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = train()
        check_copy(path)
        assert warnings(caplog) == []
        facts, run = read(path), run_of(path)
        assert facts["mlflow"]["uri"] == server.uri
        variant = client().get_run(run.data.tags["mlflow.parentRunId"])
        experiment = client().get_run(variant.data.tags["mlflow.parentRunId"])
        names = [level.info.run_name for level in (run, variant, experiment)]
        assert names == ["train", "a", Path.cwd().name]
        assert "mlflow.parentRunId" not in experiment.data.tags
        assert {level.info.status for level in (run, variant, experiment)} == {"FINISHED"}

    @pytest.mark.usefixtures("server")
    def test_tags_say_what_code_and_data_a_run_came_from(self) -> None:
        for command in ("init", "-c user.name=a -c user.email=a@b commit --allow-empty -m x"):
            subprocess.run(["git", *command.split()], check=True, capture_output=True)
        path = train()
        facts, tags = read(path), run_of(path).data.tags
        assert tags["git.revision"] == facts["git"]["revision"]
        assert len(tags["git.revision"]) == 40
        assert tags["git.dirty"] == "False"
        assert tags["data.digest.shards"] == facts["inputs"]["shards"]
        assert len(tags["data.digest"]) == 12
        assert tags["dvc.experiment"] == Path.cwd().name
        assert (tags["stage"], tags["variant"]) == ("train", "a")

    @pytest.mark.usefixtures("server")
    def test_stages_and_variants_share_their_parents(self) -> None:
        for variant in ("a", "b", "a"):
            train(variant)
        with stage_record("compare", params={}) as record:
            pass
        runs = all_runs()
        assert len(runs) == 3 + 1 + 2 + 1  # three trainings, compare, two variants, the experiment
        parents = [run.data.tags.get("mlflow.parentRunId") for run in runs]
        assert parents.count(None) == 1
        assert len(set(parents)) == 1 + 1 + 2
        top = next(run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags)
        assert run_of(record.path).data.tags["mlflow.parentRunId"] == top

    @pytest.mark.usefixtures("server")
    def test_processes_at_the_same_time_share_one_parent(self) -> None:
        stages = [
            subprocess.Popen([sys.executable, "-c", SCRIPT, stage, "a"])
            for stage in ("train", "sample")
        ]
        assert [stage.wait(timeout=600) for stage in stages] == [0, 0]
        one, other = run_of("records/train/a.json"), run_of("records/sample/a.json")
        assert one.info.run_id != other.info.run_id
        assert one.data.tags["mlflow.parentRunId"] == other.data.tags["mlflow.parentRunId"]
        assert len(all_runs()) == 4

    @pytest.mark.usefixtures("server")
    @pytest.mark.parametrize(
        ("error", "status"), [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
    )
    def test_a_run_that_ends_early(self, error: BaseException, status: str) -> None:
        with pytest.raises(type(error)):
            train(error=error)
        check_copy(Path("records/train/a.json"), status)

    def test_a_server_that_hangs_costs_seconds_and_a_replay_fills_its_run(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        send = Copy.send
        monkeypatch.setattr(Copy, "send", hanging_after_the_start(server, send))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        try:
            began = time.monotonic()
            path = train()
            assert time.monotonic() - began < PATIENCE
        finally:
            server.signal(signal.SIGCONT)
        assert len(warnings(caplog)) == 1
        kept = read(path)
        assert kept["history"]["loss"]["value"] == [1.0, 0.5, 1 / 3]
        assert not kept["mlflow"]["complete"]
        monkeypatch.setattr(Copy, "send", send)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        assert replay(path)
        check_copy(path)
        assert read(path)["mlflow"]["run_id"] == kept["mlflow"]["run_id"]

    @pytest.mark.usefixtures("server")
    def test_points_sent_twice_are_kept_once(self) -> None:
        path = train()
        run_id = read(path)["mlflow"]["run_id"]
        assert replay(path)
        check_copy(path)
        assert read(path)["mlflow"]["run_id"] == run_id
        assert len(all_runs()) == 3

    @pytest.mark.usefixtures("server")
    def test_many_points_and_parameters(self) -> None:
        params = {f"p{i}": "x" * 7000 if i == 0 else i for i in range(250)}
        with stage_record("train", params=params) as record:
            for step in range(2500):
                record.metrics({"loss": step}, step=step)
            record.metrics({"loss": float("nan")}, step=2500)
        run = run_of(record.path)
        assert len(run.data.params) == 250
        points = history(run.info.run_id, "loss")
        assert points[:2500] == [(step, float(step)) for step in range(2500)]
        assert len(points) == 2501

    def test_a_kept_record_is_sent_to_a_live_server(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        first, second = train("a"), train("b")
        assert len(warnings(caplog)) == 2  # one a run
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        follow.main(Path("records"))
        check_copy(first)
        check_copy(second)
        assert len(all_runs()) == 5
        follow.main(Path("records"))
        assert len(all_runs()) == 5  # nothing is sent again

    def test_a_server_killed_in_the_middle(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        with stage_record("train", variant="a", params={"seed": 0}) as record:
            record.metrics({"loss": 1.0}, step=0)
            server.kill()
            record.next_flush = 0.0
            began = time.monotonic()
            for step in range(1, 1000):
                record.metrics({"loss": 1.0}, step=step)
                record.next_flush = 0.0 if step in (1, 10, 100) else record.next_flush
        assert time.monotonic() - began < PATIENCE
        assert len(warnings(caplog)) == 1
        assert "\n" not in warnings(caplog)[0]
        facts = read(record.path)
        assert facts["status"] == "finished"
        assert facts["history"]["loss"]["step"] == list(range(1000))
        assert facts["mlflow"]["run_id"]
        assert not facts["mlflow"]["complete"]


class TestUnreachable:
    def test_a_server_that_is_down_from_the_start(
        self, dead: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        began = time.monotonic()
        path = train()
        assert time.monotonic() - began < PATIENCE
        [warning] = warnings(caplog)
        assert dead in warning
        assert "adapterbench.runs.follow" in warning
        facts = read(path)
        assert facts["status"] == "finished"
        assert facts["history"]["loss"]["value"] == [1.0, 0.5, 1 / 3]
        assert facts["mlflow"] == {"uri": dead, "run_id": None, "complete": False}

    def test_the_error_of_the_stage_is_what_the_caller_sees(self, dead: str) -> None:
        assert dead
        with pytest.raises(ValueError, match="the stage's own"):
            train(error=ValueError("the stage's own"))
        assert read("records/train/a.json")["status"] == "failed"

    def test_a_server_that_accepts_and_never_answers(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()
            train()
            assert time.monotonic() - began < PATIENCE
        assert len(warnings(caplog)) == 1

    def test_a_store_that_cannot_be_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "broken.db").write_text("this is no database" * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'broken.db'}")
        began = time.monotonic()
        train()
        assert time.monotonic() - began < PATIENCE
        assert len(warnings(caplog)) == 1

    def test_credentials_are_in_no_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        uri = f"http://ann:hunter2@127.0.0.1:{free_port()}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        path = train()
        assert "hunter2" not in caplog.text + path.read_text()
        assert "***@127.0.0.1" in caplog.text

    @pytest.mark.usefixtures("dead")
    def test_upload_says_that_the_server_does_not_answer(self) -> None:
        train()
        with pytest.raises(UserError, match="try later"):
            follow.main(Path("records"))


def hanging_after_the_start(server: Server, send: Callable[..., None]) -> Callable[..., None]:
    """`Copy.send` for which the server stops between the first call and the second."""

    def call(self: Copy, facts: dict[str, Any]) -> None:
        if self.run_id is not None:
            server.signal(signal.SIGSTOP)
        send(self, facts)

    return call


def test_a_bug_of_ours_is_not_taken_for_a_dead_server(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dead

    def buggy(self: Copy, facts: dict[str, Any]) -> None:
        raise KeyError(f"{self} {facts['stage']}")

    monkeypatch.setattr(Copy, "send", buggy)
    with pytest.raises(KeyError):
        train()


def test_the_default_is_a_local_sqlite_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = train()
    assert warnings(caplog) == []
    assert (tmp_path / "mlflow.db").is_file()
    assert read(path)["mlflow"]["uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    check_copy(path)
    assert list(tmp_path.glob("mlartifacts/**/adapter.bin"))
    assert not (tmp_path / "mlruns").exists()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    train("b")
    assert client().get_experiment_by_name("mine")


def test_the_store_of_a_queued_experiment_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert follow.tracking_uri() == "sqlite:////project/mlflow.db"
    monkeypatch.delenv("DVC_ROOT")
    assert follow.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_slow_server_is_asked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(self: Copy, facts: dict[str, Any]) -> None:
        assert self.uri
        assert facts
        clock[0] += 3.0

    monkeypatch.setattr(Copy, "send", slow)
    record = Record("train", params={}, copy=Copy())
    record.flush()
    assert record.next_flush - clock[0] == 60.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:pw@host/path", "https://***@host/path"),
        ("postgresql+psycopg2://ann:p%40w@host/db", "postgresql+psycopg2://***@host/db"),
        ("no answer from https://:tok@host: why?", "no answer from https://***@host: why?"),
        ("https://host/db?password=pw and more", "https://host/db?*** and more"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_addresses_are_shown_without_their_secrets(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_nested_parameters_get_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None, "f": {}}
    assert dict(flatten(nested)) == {"a.b.c": 1, "a.d": [1, 2], "e": None, "f": {}}
