"""Connection to MLflow: the local store, and a client whose calls have a deadline.

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
"""Most seconds per call, including retries that the server asks for."""

UPLOAD_RATE = 1e6
"""Bytes per second; the deadline of an upload grows with its size."""

DATABASE_ATTEMPTS = 3
"""mlflow's default of ten, with doubling pauses, takes 100 seconds without a database."""

PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("logged_models", "artifact_location"),
    ("runs", "artifact_uri"),
)
"""Columns of mlflow's database with paths of artifacts."""

COLUMNS = ("clip_t", "clip_i", "trainable_params", "loss", "seconds")
VARIANTS_VIEW = {
    "searchFilter": "tags.level = 'variant'",
    "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
}
"""A saved view of MLflow's page: one row per variant with its numbers."""


class CallTimeout(BaseException):
    """A call exceeded its deadline; a BaseException, so that no library swallows it."""


class Client:
    """An `MlflowClient` whose calls raise `CallTimeout` after a deadline."""

    def __init__(self, uri: str) -> None:
        mlflow.store.db.utils.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
        with deadline(DEADLINE):
            self.client = MlflowClient(tracking_uri=uri)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **options: Any) -> Any:
            size = sum(file.stat().st_size for file in args if isinstance(file, Path))
            with deadline(DEADLINE + size / UPLOAD_RATE):
                return method(*args, **options)

        return call


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `CallTimeout` in the block after some seconds; end the process if C code blocks."""

    def ring(*_: object) -> None:
        raise CallTimeout(f"no answer within {seconds:.0f} s")

    handler = signal.signal(signal.SIGALRM, ring)
    # repeated, since an exception raised during garbage collection is lost
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
    # a server has its own artifact location; a database needs an absolute path
    location = None if uri.startswith("http") else str(artifacts)
    view = {"name": "Variants", "createdAt": 0, "state": json.dumps(VARIANTS_VIEW)}
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.sharedViewState.variants": json.dumps(view),
    }
    return client, uri, client.create_experiment(name, location, tags)


def local_store(path: Path, artifacts: Path) -> str:
    """Address of the SQLite store, created if missing.

    It is created beside its path and renamed: an interrupted creation would leave tables that
    mlflow can neither use nor complete. Its absolute paths are updated if the project has moved.
    """
    for leftover in path.parent.glob(f".{path.name}.partial-*"):
        remove(leftover)
    if not path.exists():
        with publish(path) as beside:
            SqlAlchemyStore(f"sqlite:///{beside}", str(artifacts))._dispose_engine()
    with closing(sqlite3.connect(path)) as store, store:
        query = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?"
        for (old,) in store.execute(query, [f"/%/{artifacts.name}"]).fetchall():
            for table, column in PATH_COLUMNS:
                store.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [old, str(artifacts)]
                )
    return f"sqlite:///{path}"
