"""The MLflow copy of a run's record: sent piece by piece, and never worth a training run.

Runs are nested, so that a row of the table leads to them::

    adapterbench                 the MLflow experiment
      DVC experiment             or the git branch, under a plain `dvc repro`
        variant                  absent for a stage that has none
          stage                  parameters, metrics over time, cost, artifacts, record.json

A server that is down, dies or hangs costs one warning and a few seconds; the record keeps the
values, and `python -m adapterbench.runs.follow records` sends them later. mlflow takes seconds to
import: only `connect` does it.
"""

import hashlib
import json
import logging
import math
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from adapterbench.core.errors import UserError
from adapterbench.core.files import read_json, write_json
from adapterbench.runs.memory import fast_imports

log = logging.getLogger(__name__)

Facts = dict[str, Any]
"""What a record holds: see `record.Record`."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",  # seconds; with one retry, a hanging server costs eight
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server closes idle connections: one is not enough
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""Defaults of mlflow's own environment variables; what the user sets comes first."""

QUIET = {"alembic": logging.WARNING, "urllib3.connectionpool": logging.ERROR}
"""Loggers that tell of migrations and of every retry."""

DATABASE_ATTEMPTS = 3
"""mlflow's ten, with doubling pauses, wait 100 seconds for a database that is not there."""

LOCK_SECONDS = 10.0
"""Patience for another process that is making the same parent runs."""

MAX_METRICS, MAX_PARAMS = 1000, 100
"""mlflow's limits of one `log_batch`."""

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""mlflow's words for the states in which a record ends."""

GROUP = "adapterbench.group"
"""Tag by which separate processes find the parent run that they share."""


def project_root() -> Path:
    """Folder of `dvc.yaml`; DVC names the user's one while a queued experiment runs in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite store of the project, whatever the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def masked(text: str) -> str:
    """`text` without the credentials and the query of any address in it."""
    text = re.sub(r"(\w+://)[^\s/]*@", r"\1***@", text)
    return re.sub(r"(\w+://[^\s?]*)\?[^\s'\")]*", r"\1?***", text)


def connect(uri: str) -> Any:
    """An `MlflowClient` for `uri` that gives up within seconds and does not chatter."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    with fast_imports():
        import mlflow.store.db.utils
        from mlflow import MlflowClient

    mlflow.store.db.utils.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
    return MlflowClient(tracking_uri=uri)


def unavailable() -> tuple[type[Exception], ...]:
    """What mlflow, the network or the database raise; anything else is a bug of ours."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, OSError


class Copy:
    """The MLflow copy of one record.

    `update` sends what the record holds and the copy does not, so that a run under way and the
    replay of a kept record are one code path. After the first failure it sends nothing more.
    """

    def __init__(self) -> None:
        self.uri = tracking_uri()
        self.down = False
        self.client: Any = None
        self.run_id: str | None = None
        self.parents: list[str] = []
        self.sent_points: dict[str, int] = {}
        self.sent_artifacts: set[str] = set()

    def update(self, facts: Facts) -> Facts:
        """Send what is new in `facts`; give the `mlflow` entry that the record keeps."""
        if not self.down:
            try:
                self.send(facts)
            except unavailable() as error:
                self.down = True
                cause = textwrap.shorten(masked(str(error)), 160, placeholder=" ...")
                log.warning(
                    "MLflow at %s: %s. The run goes on and its record keeps the values: "
                    "`python -m adapterbench.runs.follow records` sends them later",
                    masked(self.uri),
                    cause,
                )
        return {
            "uri": masked(self.uri),
            "run_id": self.run_id or (facts.get("mlflow") or {}).get("run_id"),
            "complete": not self.down and facts["status"] in STATUS,
        }

    def send(self, facts: Facts) -> None:
        """Bring MLflow up to date with `facts`."""
        self.client = self.client or connect(self.uri)
        if self.run_id is None:
            self.open(facts)
        self.send_points(facts)
        self.send_artifacts(facts)
        if facts["status"] in STATUS:
            self.close(facts)

    def open(self, facts: Facts) -> None:
        """Find the run of a replayed record or make it below its parents; log its parameters."""
        from filelock import FileLock

        experiment_id = self.experiment()
        self.parents = []  # an interrupted first attempt may have found some
        with FileLock(lock_path(self.uri), timeout=LOCK_SECONDS):
            for level in range(1, len(group_names(facts)) + 1):
                self.parents.append(self.parent(experiment_id, facts, level))
        self.run_id = self.existing(facts) or self.create(
            experiment_id, facts["stage"], facts, self.parents[-1], stage_tags(facts)
        )
        for batch in batches(list(flatten(facts["params"])), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=[param(key, value) for key, value in batch])

    def experiment(self) -> str:
        """Id of the MLflow experiment, made when it is not there yet."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "adapterbench"
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        # A server says itself where artifacts go; a bare database must be told an absolute place.
        local = None if self.uri.startswith("http") else artifact_root()
        try:
            return str(self.client.create_experiment(name, artifact_location=local))
        except MlflowException:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)  # another process was faster

    def parent(self, experiment_id: str, facts: Facts, level: int) -> str:
        """Id of the run that groups the experiment (level 1) or its variant (level 2)."""
        names = group_names(facts)[:level]
        key = re.sub(r"[^\w./-]", "_", "/".join(names))
        found = self.client.search_runs(
            [experiment_id], filter_string=f"tags.`{GROUP}` = '{key}'", max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        above = self.parents[-1] if self.parents else None
        tags = {GROUP: key, "dvc.experiment": names[0], "git.revision": facts["git"]["revision"]}
        if level > 1:
            tags["variant"] = names[1]
        return self.create(experiment_id, names[-1], facts, above, tags)

    def existing(self, facts: Facts) -> str | None:
        """Id of the run that a kept record had begun, when this store knows it."""
        from mlflow.exceptions import MlflowException

        run_id = (facts.get("mlflow") or {}).get("run_id")
        if run_id is None:
            return None
        try:
            return str(self.client.get_run(run_id).info.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def create(
        self, experiment_id: str, name: str, facts: Facts, above: str | None, tags: Facts
    ) -> str:
        """Make a run that starts when the record does; `above` is its parent."""
        if above:
            tags = {**tags, "mlflow.parentRunId": above}
        known = {key: str(value) for key, value in tags.items() if value is not None}
        run = self.client.create_run(
            experiment_id, start_time=milliseconds(facts["started"]), tags=known, run_name=name
        )
        return str(run.info.run_id)

    def send_points(self, facts: Facts) -> None:
        """Log the points of the series that are not there yet, many at a time."""
        started = milliseconds(facts["started"])
        points = []
        for name, series in facts["history"].items():
            columns = zip(series["step"], series["value"], series["seconds"], strict=True)
            for step, value, seconds in islice(columns, self.sent_points.get(name, 0), None):
                points.append(metric(name, value, started + round(1000 * seconds), step))
        for batch in batches(points, MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=batch)
        self.sent_points = {name: len(series["step"]) for name, series in facts["history"].items()}

    def send_artifacts(self, facts: Facts) -> None:
        """Upload the artifacts that are not there yet; a replay skips what has since gone."""
        for name in facts["artifacts"]:
            path = Path(name)
            if name in self.sent_artifacts or not path.exists():
                continue
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))
            self.sent_artifacts.add(name)

    def close(self, facts: Facts) -> None:
        """Log the summary, the cost and the record itself, then end the run and its parents."""
        ended = milliseconds(facts["ended"])
        cost = {name: facts[name] for name in ("seconds", "peak_memory_mb")}
        summary = {**cost, **facts["metrics"]}
        points = [
            metric(name, value, ended, 0)
            for name, value in summary.items()
            if name not in facts["history"]
        ]
        for batch in batches(points, MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=batch)
        own = {name: value for name, value in facts.items() if name != "mlflow"}
        self.client.log_dict(self.run_id, own, "record.json")
        for run_id in [self.run_id, *reversed(self.parents)]:
            self.client.set_terminated(run_id, STATUS[facts["status"]], end_time=ended)


def group_names(facts: Facts) -> list[str]:
    """Names of the parent runs from the top: the experiment, then the variant if there is one."""
    return [name for name in (facts["experiment"], facts["variant"]) if name]


def stage_tags(facts: Facts) -> Facts:
    """Tags of a stage's run: what code, what data and what experiment it came from."""
    inputs = json.dumps(facts["inputs"], sort_keys=True)
    return {
        "stage": facts["stage"],
        "variant": facts["variant"],
        "dvc.experiment": facts["experiment"],
        "dvc.baseline": facts["dvc"]["baseline"],
        "git.revision": facts["git"]["revision"],
        "git.dirty": facts["git"]["dirty"],
        "mlflow.source.git.commit": facts["git"]["revision"],
        "data.digest": hashlib.sha256(inputs.encode()).hexdigest()[:12],
        **{f"data.digest.{path}": digest for path, digest in facts["inputs"].items()},
        **{f"package.{name}": version for name, version in facts["packages"].items()},
    }


def flatten(values: Facts, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as `a.b.c` names; a list stays one value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def metric(name: str, value: float | None, timestamp: int, step: int) -> Any:
    """mlflow's entity of one point; a record's `null` is a value that was not finite."""
    from mlflow.entities import Metric

    return Metric(name, math.nan if value is None else value, timestamp, step)


def param(name: str, value: Any) -> Any:
    """mlflow's entity of one parameter; a list or mapping is written as JSON."""
    from mlflow.entities import Param

    return Param(name, json.dumps(value) if isinstance(value, list | dict) else str(value))


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive slices of at most `size` items."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def milliseconds(moment: str) -> int:
    """An ISO time as milliseconds since 1970, mlflow's unit."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def artifact_root() -> str:
    """Where artifacts go when no server says so."""
    return (project_root() / "mlartifacts").as_uri()


def lock_path(uri: str) -> str:
    """A lock file that the processes of this user share for one store."""
    name = hashlib.sha256(f"{Path.home()} {uri}".encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"adapterbench-{name}.lock")


def replay(path: Path) -> bool:
    """Send a kept record to MLflow, into the run that it had begun if there is one.

    Returns whether MLflow holds all of it now; a record that says `running` never counts as such,
    since its process lives or was killed outright.
    """
    facts = read_json(path)
    facts["mlflow"] = Copy().update(facts)
    write_json(path, facts)
    return bool(facts["mlflow"]["complete"])


def main(records: Path) -> None:
    """Send every record under RECORDS that MLflow lacks."""
    kept = [path for path in sorted(records.rglob("*.json")) if not complete(read_json(path))]
    for path in kept:
        if replay(path):
            log.info("%s: sent", path)
        elif read_json(path)["status"] in STATUS:
            raise UserError(f"MLflow at {masked(tracking_uri())} did not take {path}: try later")
        else:
            log.info("%s: sent so far, its run has not ended", path)
    log.info("%d of the records under %s had to be sent", len(kept), records)


def complete(facts: Facts) -> bool:
    """Whether MLflow holds all of a record."""
    return bool((facts["mlflow"] or {}).get("complete"))


if __name__ == "__main__":
    from adapterbench.runs.program import run

    run(main)
