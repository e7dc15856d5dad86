"""The way into MLflow: the local store, and a client that waits for no server longer than it says.

Only the follower imports this module and `mlflow_runs`: mlflow takes seconds to import.
"""

import faulthandler
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from adapterbench.core.files import publish, remove

DEADLINE = 20.0
"""Most seconds that a call may take, whatever the server sends or asks to wait for."""

UPLOAD_RATE = 1e6
"""Bytes a second: what a call uploads lengthens its deadline."""

DATABASE_ATTEMPTS = 3
"""mlflow's ten, with doubling pauses, wait 100 seconds for a database that is not there."""

PLACES = (
    ("experiments", "artifact_location"),
    ("logged_models", "artifact_location"),
    ("runs", "artifact_uri"),
)
"""Where mlflow's database keeps paths of artifacts."""

COLUMNS = ("clip_t", "clip_i", "trainable_params", "loss", "seconds")
VARIANTS_VIEW = {
    "searchFilter": "tags.level = 'variant'",
    "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
}
"""A saved view of MLflow's page: a row a variant with its numbers; charts compare variants."""


class TooLong(BaseException):
    """A call did not end in time; no `except Exception` of a library swallows it."""


class Client:
    """An `MlflowClient` each of whose calls ends in time, else raises `TooLong`."""

    def __init__(self, uri: str) -> None:
        mlflow.store.db.utils.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
        with deadline(DEADLINE):
            self.client = MlflowClient(tracking_uri=uri)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **options: Any) -> Any:
            size = sum(each.stat().st_size for each in args if isinstance(each, Path))
            with deadline(DEADLINE + size / UPLOAD_RATE):
                return method(*args, **options)

        return call


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block after some seconds; where C code holds on, end the process."""

    def ring(*_: object) -> None:
        raise TooLong(f"no answer within {seconds:.0f} s")

    handler = signal.signal(signal.SIGALRM, ring)
    # again and again: what is raised while Python collects garbage is lost
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def connect(root: Path) -> tuple[Client, str, str]:
    """Client and address of `MLFLOW_TRACKING_URI` or the project's own store; the experiment."""
    artifacts = root / "mlartifacts"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or local_store(root / "mlflow.db", artifacts)
    client = Client(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "adapterbench"
    if known := client.get_experiment_by_name(name):
        return client, uri, known.experiment_id
    # a server says itself where artifacts go; a bare database must be told an absolute place
    location = None if uri.startswith("http") else str(artifacts)
    view = {"name": "Variants", "createdAt": 0, "state": json.dumps(VARIANTS_VIEW)}
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.sharedViewState.variants": json.dumps(view),
    }
    return client, uri, client.create_experiment(name, location, tags)


def local_store(path: Path, artifacts: Path) -> str:
    """Address of an SQLite store, made when it is not there.

    It is made beside its place and renamed: a stop in the middle would leave tables that mlflow
    can neither use nor complete. It holds full paths, so a project that has been moved or copied
    has them changed.
    """
    for left in path.parent.glob(f".{path.name}.partial-*"):
        remove(left)
    if not path.exists():
        with publish(path) as beside:
            SqlAlchemyStore(f"sqlite:///{beside}", str(artifacts))._dispose_engine()
    with closing(sqlite3.connect(path)) as store, store:
        query = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?"
        for (old,) in store.execute(query, [f"/%/{artifacts.name}"]).fetchall():
            for table, column in PLACES:
                store.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [old, str(artifacts)]
                )
    return f"sqlite:///{path}"
