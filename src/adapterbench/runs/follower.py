"""Sends changed records to MLflow."""

import logging
import os
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from adapterbench.core.errors import UserError
from adapterbench.runs.follow import FAILED, SENT, masked, unsent
from adapterbench.runs.identity import Process
from adapterbench.runs.mlflow_runs import Runs
from adapterbench.runs.mlflow_store import CallTimeout, connect
from adapterbench.runs.record import Facts

log = logging.getLogger(__name__)

POLL, RETRY = 1.0, 5.0
"""Seconds between two scans of the records, and before a retry after a failure."""


class Follower:
    """The follower of the project at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: Runs | None = None
        self.times: dict[Path, int] = {}
        self.records: dict[Path, Facts] = {}
        self.due: list[Path] = []
        self.dvc: set[Process] = set()
        self.busy = self.next_try = time.monotonic()
        self.cause: str | None = None

    def follow(self, idle: float) -> dict[Path, int]:
        """Send records while a stage or DVC runs, and `idle` seconds more; return the unsent ones.

        When nothing runs, a failure ends it too: the next follower may get another server.
        """
        while True:
            self.scan()
            if time.monotonic() >= self.next_try:
                self.send()
            if self.running() or any(process.alive for process in self.dvc):
                self.busy = time.monotonic()
            elif self.due or time.monotonic() > self.busy + idle:
                return self.times
            time.sleep(POLL)

    def running(self) -> list[Path]:
        """The records of running stages."""
        return [path for path, facts in self.records.items() if facts.status == "running"]

    def scan(self) -> None:
        """Read changed records; a running record of a dead process becomes `killed`."""
        dead = [path for path in self.running() if not self.records[path].process.alive]
        before, self.times = self.times, unsent(self.root)
        self.records = {path: self.records[path] for path in self.records.keys() & self.times}
        self.due = [path for path in self.due if path in self.times]
        for path, written in self.times.items():
            if path not in dead and before.get(path) == written:
                continue
            try:
                facts = Facts.read(path)  # also of dead processes: it may have ended just before
            except (UserError, OSError) as error:
                log.warning("%sMLflow: %s", FAILED, error)
                continue
            if path in dead and facts.status == "running":
                facts.status = "killed"
                facts.ended = datetime.fromtimestamp(written / 1e9, UTC)
                facts.write(path)
            self.records[path] = facts
            self.due = [*(other for other in self.due if other != path), path]
            self.dvc |= {facts.dvc} - {facts.process}
            self.busy = time.monotonic()

    def send(self) -> None:
        """Send the due records; a failed one stays due and does not block the others."""
        reached = self.attempt(self.connect)
        done = [reached and self.attempt(self.send_record, path) for path in list(self.due)]
        if not all([reached, *done]):
            self.runs = None  # the next attempt starts without cached state
            self.next_try = time.monotonic() + RETRY

    def attempt(self, step: Callable[..., None], *args: Path) -> bool:
        """Run a step and return whether it succeeded; a repeated cause is logged once."""
        try:
            step(*args)
            return True
        except (Exception, CallTimeout) as error:  # many libraries, many types
            place = os.environ.get("MLFLOW_TRACKING_URI") or "mlflow.db"
            text = masked(f"{place}: {type(error).__name__}: {error}", place)
            cause = textwrap.shorten(text, 400, placeholder=" ...")
            if cause != self.cause:
                log.warning("%s%s", FAILED, cause)
            self.cause = cause
            return False

    def connect(self) -> None:
        """Connect to MLflow unless connected."""
        self.runs = self.runs or Runs(*connect(self.root))

    def send_record(self, path: Path) -> None:
        """Send one record; move it to `sent` when its stage has ended."""
        facts, sent = self.records[path], path.parent / SENT
        siblings = [Facts.read(file) for file in sent.glob("*.json")]
        siblings += [other for other in self.records.values() if other.run == facts.run]
        assert self.runs
        self.runs.update(facts, f"{path.parent.name}/{path.stem}", siblings)
        self.due.remove(path)
        if facts.status != "running":
            sent.mkdir(exist_ok=True)
            path.rename(sent / path.name)
            del self.records[path]
