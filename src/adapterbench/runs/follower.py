"""The follower at work: it reads the records that have changed and sends them to MLflow."""

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
from adapterbench.runs.mlflow_store import TooLong, connect
from adapterbench.runs.record import Facts

log = logging.getLogger(__name__)

POLL, RETRY = 1.0, 5.0
"""Seconds between two looks at the records, and two tries after a failure."""


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
        """Follow while somebody is at work, and `idle` seconds more; what is left unsent.

        When nobody is, a failure ends it, too: the next one may be told of another server.
        """
        while True:
            self.look()
            if time.monotonic() >= self.next_try:
                self.send()
            if self.running() or any(process.alive for process in self.dvc):
                self.busy = time.monotonic()
            elif self.due or time.monotonic() > self.busy + idle:
                return self.times
            time.sleep(POLL)

    def running(self) -> list[Path]:
        """The records of stages at work."""
        return [path for path, facts in self.records.items() if facts.status == "running"]

    def look(self) -> None:
        """Read the records that have changed; one that runs in a dead process has been killed."""
        dead = [path for path in self.running() if not self.records[path].process.alive]
        before, self.times = self.times, unsent(self.root)
        self.records = {path: self.records[path] for path in self.records.keys() & self.times}
        self.due = [path for path in self.due if path in self.times]
        for path, written in self.times.items():
            if path not in dead and before.get(path) == written:
                continue
            try:
                facts = Facts.read(path)  # of the dead too: it may have ended just before
            except (UserError, OSError) as error:
                log.warning("%sMLflow: %s", FAILED, error)
                continue
            if path in dead and facts.status == "running":
                facts.status = "killed"
                facts.ended = datetime.fromtimestamp(written / 1e9, UTC)
                facts.write(path)
            self.records[path] = facts
            self.due = [*(each for each in self.due if each != path), path]
            self.dvc |= {facts.dvc} - {facts.process}
            self.busy = time.monotonic()

    def send(self) -> None:
        """Send what is due; what fails stays so, and keeps no other record from being sent."""
        reached = self.attempt(self.connect)
        done = [reached and self.attempt(self.send_record, path) for path in list(self.due)]
        if not all([reached, *done]):
            self.runs = None  # the next try trusts nothing that this one knew
            self.next_try = time.monotonic() + RETRY

    def attempt(self, step: Callable[..., None], *args: Path) -> bool:
        """Take a step; whether it went well. A cause of failure is logged once in a row."""
        try:
            step(*args)
            return True
        except (Exception, TooLong) as error:  # drivers, schemas, networks: there is no list
            place = os.environ.get("MLFLOW_TRACKING_URI") or "mlflow.db"
            text = masked(f"{place}: {type(error).__name__}: {error}", place)
            cause = textwrap.shorten(text, 400, placeholder=" ...")
            if cause != self.cause:
                log.warning("%s%s", FAILED, cause)
            self.cause = cause
            return False

    def connect(self) -> None:
        """Reach MLflow, where it is not reached yet."""
        self.runs = self.runs or Runs(*connect(self.root))

    def send_record(self, path: Path) -> None:
        """Send one record; move it when MLflow holds all of it."""
        facts, sent = self.records[path], path.parent / SENT
        siblings = [Facts.read(each) for each in sent.glob("*.json")]
        siblings += [each for each in self.records.values() if each.run == facts.run]
        assert self.runs
        self.runs.update(facts, f"{path.parent.name}/{path.stem}", siblings)
        self.due.remove(path)
        if facts.status != "running":
            sent.mkdir(exist_ok=True)
            path.rename(sent / path.name)
            del self.records[path]
