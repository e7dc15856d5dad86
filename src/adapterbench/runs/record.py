"""The record of a stage run: a JSON file with parameters, inputs, metrics and costs.

The follower sends it to MLflow (`follow`). Records are temporary: git and DVC ignore their folder,
and no stage reads them.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import psutil
from pydantic import BaseModel

from adapterbench.core.composition import warn_unsaved_edits
from adapterbench.core.documents import read_document
from adapterbench.core.environment import peak_memory_mb
from adapterbench.core.files import publish, sha256
from adapterbench.runs import follow
from adapterbench.runs.identity import Process, dvc_process
from adapterbench.runs.provenance import device, digest, provenance

FLUSH_SECONDS = 10.0
"""Least time between two writes of the record while a stage runs."""


CONF_CHECKED = {"train", "compare"}
"""Stages that warn of edits that `dvc exp run` would drop. The check takes a second, and every
change of the parameters runs one of them."""

Status = Literal["running", "finished", "failed", "interrupted", "killed"]


class Series(BaseModel):
    """A number over the steps of a run."""

    step: list[int] = []
    value: list[float | None] = []
    seconds: list[float] = []
    """Since the run's start."""


class Adapter(BaseModel):
    """The adapter that a stage made or used."""

    folder: str
    sha256: str
    """Of its weights."""
    made: bool


class Facts(BaseModel, extra="forbid"):
    """Content of a record's file, in which numbers that are not finite are `null`."""

    stage: str
    variant: str | None
    status: Status = "running"
    error: str | None = None
    process: Process
    dvc: Process
    """The DVC process, or this one without DVC."""
    folder: str
    """Working directory of the stage; other paths are relative to it."""
    params: dict[str, Any]
    inputs: dict[str, str]
    """Digest of each input."""
    provenance: dict[str, Any]
    started: datetime
    ended: datetime | None = None
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    device: str = "cpu"
    metrics: dict[str, float | None] = {}
    headline: set[str] = set()
    """Names of the metrics that are also shown on the parent run."""
    history: dict[str, Series] = {}
    artifacts: list[str] = []
    images: dict[str, str] = {}
    """Paths of images, or of tars of images, by displayed title."""
    adapter: Adapter | None = None

    @property
    def run(self) -> str:
        """Name of the folder that the records of one DVC process share."""
        started = datetime.fromtimestamp(self.dvc.started, UTC)
        name = re.sub(r"[^\w.-]", "_", self.provenance["experiment"])
        return f"{name}-{started:%Y%m%dT%H%M%S}-{self.dvc.pid}"

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        with publish(path) as beside:
            beside.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            UserError: the file is not a record.
        """
        return read_document(cls, path, "a record", "delete it")


class Record:
    """Collects the facts of a stage run and writes them every few seconds."""

    def __init__(
        self,
        stage: str,
        *,
        params: Mapping[str, Any],
        variant: str | None = None,
        inputs: Iterable[Path] = (),
    ) -> None:
        """Record what is known at the start; see `stage_record` for the arguments."""
        this = psutil.Process()
        self.clock = time.monotonic()
        self.next_flush = 0.0
        self.facts = Facts(
            stage=stage,
            variant=variant,
            process=Process.of(this),
            dvc=Process.of(dvc_process() or this),
            folder=str(Path.cwd()),
            params=dict(params),
            inputs={path.as_posix(): digest(path) for path in inputs},
            provenance=provenance(),
            started=datetime.now(UTC),
        )
        name = f"{self.facts.started:%Y%m%dT%H%M%S.%f}-{stage}{f'-{variant}' if variant else ''}"
        self.path = follow.project_root() / follow.RECORDS / self.facts.run / f"{name}.json"

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each series; the summary shows the last one.

        Points are kept in memory and written every few seconds, so calls are cheap.
        """
        seconds = round(time.monotonic() - self.clock, 3)
        for name, value in values.items():
            series = self.facts.history.setdefault(name, Series())
            series.step.append(step)
            series.value.append(float(value))
            series.seconds.append(seconds)
        self.set(**values)
        if time.monotonic() >= self.next_flush:
            self.flush()

    def set(self, **values: float) -> None:
        """Record summary numbers, such as `images_per_second`."""
        self.facts.metrics |= {name: float(value) for name, value in values.items()}

    def headline(self, **values: float) -> None:
        """Record summary numbers that are also shown on the parent run."""
        self.set(**values)
        self.facts.headline |= values.keys()

    def artifact(self, path: Path) -> None:
        """Log a finished file or folder with the run.

        Raises:
            FileNotFoundError: it does not exist.
        """
        if not path.exists():
            raise FileNotFoundError(f"artifact {path} was not written")
        self.facts.artifacts.append(path.as_posix())

    def images(self, group: str, paths: Iterable[Path]) -> None:
        """Log images, or tars of images, to the parent run as `GROUP/NAME`."""
        self.facts.images |= {f"{group}/{path.stem}": path.as_posix() for path in paths}

    def adapter(self, weights: Path, *, made: bool) -> None:
        """Record the weights of the adapter that this run made or used."""
        if is_main_process():
            folder = weights.parent.as_posix()
            self.facts.adapter = Adapter(folder=folder, sha256=sha256(weights), made=made)

    def flush(self) -> None:
        """Write the record and start the follower; only the main process does so."""
        self.next_flush = time.monotonic() + FLUSH_SECONDS
        if is_main_process():
            self.facts.seconds = round(time.monotonic() - self.clock, 3)
            self.facts.peak_memory_mb = peak_memory_mb()
            self.facts.device = device()
            self.facts.write(self.path)
            if os.environ.get(follow.STAY) != "0":
                follow.start(follow.project_root())

    def close(self, status: Status, error: BaseException | None = None) -> None:
        """End the record as `finished`, `failed` or `interrupted`."""
        self.facts.status = status
        self.facts.ended = datetime.now(UTC)
        if error:
            self.facts.error = follow.masked(f"{type(error).__name__}: {error}")
        self.flush()


@contextmanager
def stage_record(
    stage: str,
    *,
    params: Mapping[str, Any],
    variant: str | None = None,
    inputs: Iterable[Path] = (),
) -> Iterator[Record]:
    """Record the block as one run of a stage.

    The record is written at the start, every few seconds, and at the end, also when the block
    fails or is interrupted; the exception goes on to the caller.

    Args:
        stage: name of the DVC stage.
        params: resolved parameters; may contain pydantic sections at any depth.
        variant: the adapter variant, for a stage that has one.
        inputs: files and folders whose digests are recorded.

    Raises:
        UserError: an input is missing.
    """
    if stage in CONF_CHECKED and is_main_process():
        warn_unsaved_edits()
    record = Record(stage, params=params, variant=variant, inputs=inputs)
    try:
        record.flush()
        yield record
    except KeyboardInterrupt as error:
        record.close("interrupted", error)
        raise
    except BaseException as error:
        record.close("failed", error)
        raise
    record.close("finished")


def is_main_process() -> bool:
    """Whether this is the main process of an `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"
