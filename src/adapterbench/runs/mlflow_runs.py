"""The records as nested MLflow runs, each linked from the one above::

    adapterbench                  the MLflow experiment
      main 2026-01-31 12:00       one DVC process: the best of each number, the figures
        ip_adapter                a variant: its headline numbers, parameters, generated images
          train                   a stage: all that its record holds, load of the machine

All calls may be repeated after a failure. Adapters are `LoggedModel`s, identified by their weights,
so all scores of an adapter are attached to one model.
"""

import json
import math
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
)
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from more_itertools import chunked
from PIL import Image

from adapterbench.runs.record import Adapter, Facts

MAX_METRICS, MAX_PARAMS, MAX_DIGEST = 1000, 100, 36
"""Limits of mlflow: entries per `log_batch`, and characters of a dataset's digest."""

STATUS = {
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "killed": "KILLED",
    "failed": "FAILED",
    "running": "RUNNING",
}
"""mlflow's status by that of a record; a parent run gets its children's last one in this order."""

KEY, MODEL, WEIGHTS = "adapterbench.key", "adapterbench.model", "adapterbench.weights"
"""Tags that identify a run, the model of a run, and a model."""

MONITORS: dict[str, SystemMetricsMonitor] = {}
"""mlflow's threads that log system metrics to the runs of running stages."""

TILES, COLUMNS, TILE = 64, 8, 128
"""Grid of generated images: most tiles, columns, largest side of a tile in pixels."""


class Runs:
    """The runs of one MLflow experiment."""

    def __init__(self, client: Any, uri: str, experiment: str) -> None:
        self.client, self.uri, self.experiment = client, uri, experiment
        self.ids: dict[str, str] = {}
        self.sent: Counter[tuple[str, str]] = Counter()
        """Number of points of (run, series) that MLflow has."""

    def update(self, facts: Facts, key: str, siblings: Sequence[Facts]) -> None:
        """Send what is new in a record.

        Args:
            key: unique key of the record.
            siblings: all records of its DVC process, this one included.
        """
        *above, run = self.open(facts, key)
        self.send_series(run, facts, facts.history)
        if facts.status == "running":
            self.watch(run)
            return
        if run in MONITORS:
            MONITORS.pop(run).finish()
        self.send_summary(run, above[-1], facts)
        self.send_files(run, above[-1], facts)
        self.end(run, [facts])
        for level, parent in enumerate(above):
            below = [other for other in siblings if not level or other.variant == facts.variant]
            self.end(parent, below)

    def open(self, facts: Facts, key: str) -> list[str]:
        """The ids of the runs of a record, created if missing, parents first."""
        began = datetime.fromtimestamp(facts.dvc.started)
        title = f"{facts.provenance['experiment']} {began:%Y-%m-%d %H:%M:%S}"
        levels = [("experiment", facts.run, title), ("stage", key, facts.stage)]
        if facts.variant:
            levels.insert(1, ("variant", f"{facts.run}/{facts.variant}", facts.variant))
        runs: list[str] = []
        for level, place, name in levels:
            if place not in self.ids:
                query = f"tags.`{KEY}` = '{place}'"
                known = self.client.search_runs([self.experiment], query, max_results=1)
                run = known[0] if known else self.create(level, place, name, facts, runs)
                if level == "stage":
                    self.begin(run.info.run_id, runs, facts)
                self.ids[place] = run.info.run_id
            runs.append(self.ids[place])
        return runs

    def create(self, level: str, place: str, name: str, facts: Facts, above: list[str]) -> Any:
        """Create a run with the start time of the record."""
        tags = {
            KEY: place,
            "level": level,
            "stage": facts.stage if level == "stage" else None,
            "variant": facts.variant if above else None,
            "dvc.experiment": facts.provenance["experiment"],
            "git.dirty": facts.provenance["dirty"],
            "git.revision": facts.provenance["revision"],
            "mlflow.source.git.commit": facts.provenance["revision"],
            "mlflow.parentRunId": above[-1] if above else None,
        }
        known = {tag: str(value) for tag, value in tags.items() if value is not None}
        return self.client.create_run(self.experiment, milliseconds(facts.started), known, name)

    def begin(self, run: str, above: list[str], facts: Facts) -> None:
        """Log the parameters and inputs of a stage to its run and to the one above."""
        for level in (run, above[-1]):
            known = self.client.get_run(level).data.params  # mlflow refuses a second value
            new = [Param(*item) for item in flatten(facts.params) if item[0] not in known]
            for batch in chunked(new, MAX_PARAMS):
                self.client.log_batch(level, params=batch)
            self.client.log_inputs(level, datasets(facts))
        for parent in above:
            self.client.update_run(parent, "RUNNING")

    def watch(self, run: str) -> None:
        """Start mlflow's thread that logs system metrics while the stage runs."""
        if run not in MONITORS:
            MONITORS[run] = SystemMetricsMonitor(run, tracking_uri=self.uri)
            MONITORS[run].start()

    def send_series(self, run: str, facts: Facts, names: Iterable[str]) -> None:
        """Log the new points of series."""
        start = milliseconds(facts.started)
        for name in names:
            series = facts.history[name]
            rows = zip(series.step, series.value, series.seconds, strict=True)
            points = [
                metric(name, value, start + round(1000 * at), step)
                for step, value, at in islice(rows, self.sent[run, name], None)
            ]
            for batch in chunked(points, MAX_METRICS):
                self.client.log_batch(run, batch)
            self.sent[run, name] = len(series.step)

    def send_summary(self, run: str, parent: str, facts: Facts) -> None:
        """Log the final numbers; headline numbers also to the parent and the adapter."""
        end, curves = milliseconds(facts.ended), facts.history.keys()
        numbers = {"peak_memory_mb": facts.peak_memory_mb, **facts.metrics}
        points = [metric(name, value, end) for name, value in numbers.items()]
        headline = [point for point in points if point.key in facts.headline]
        self.client.log_batch(run, [point for point in points if point.key not in curves])
        self.client.log_batch(parent, [point for point in headline if point.key not in curves])
        self.send_series(parent, facts, curves & facts.headline)
        if (headline or facts.adapter) and (model := self.model(run, parent, facts)):
            scores = [metric(point.key, point.value, end, model=model) for point in headline]
            self.client.log_batch(run, scores)

    def model(self, run: str, parent: str, facts: Facts) -> str | None:
        """Id of the `LoggedModel` of a run's adapter, else of its variant's latest one."""
        if facts.adapter is None:
            query = f"tags.variant = '{facts.variant}' AND tags.`{MODEL}` LIKE 'm-%'"
            order = ["attributes.start_time DESC"]
            runs = self.client.search_runs([self.experiment], query, max_results=1, order_by=order)
            return str(runs[0].data.tags[MODEL]) if runs else None
        model = self.logged_model(run, facts, facts.adapter)
        if MODEL not in self.client.get_run(run).data.tags:
            for level in (run, parent):
                if facts.adapter.made:
                    self.client.log_outputs(level, [LoggedModelOutput(model, 0)])
                else:
                    self.client.log_inputs(level, models=[LoggedModelInput(model)])
            self.client.set_tag(run, MODEL, model)
        return model

    def logged_model(self, run: str, facts: Facts, adapter: Adapter) -> str:
        """Id of the `LoggedModel` with an adapter's weights, created if missing."""
        query = f"name = '{facts.variant}' AND tags.`{WEIGHTS}` = '{adapter.sha256}'"
        known = self.client.search_logged_models([self.experiment], query, max_results=1)
        model = next(iter(known), None) or self.client.create_logged_model(
            self.experiment,
            facts.variant,
            source_run_id=run if adapter.made else None,
            tags={WEIGHTS: adapter.sha256},
            params=dict(flatten(facts.params)),
            model_type="adapter",
        )
        if model.status != LoggedModelStatus.READY:
            for file in Path(facts.folder, adapter.folder).glob("*"):
                self.client.log_model_artifact(model.model_id, file)
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return str(model.model_id)

    def send_files(self, run: str, parent: str, facts: Facts) -> None:
        """Log the existing artifacts, and the images to the parent."""
        for path in (Path(facts.folder, name) for name in facts.artifacts):
            for file in filter(Path.is_file, (path, *sorted(path.rglob("*")))):
                folder = None if file == path else file.parent.relative_to(path.parent).as_posix()
                self.client.log_artifact(run, file, folder)
        self.client.log_text(run, facts.model_dump_json(indent=2), "record.json")
        logged = [Path(item.path).name for item in self.client.list_artifacts(parent, "images")]
        for title, image in facts.images.items():
            if not any(name.startswith(title.replace("/", "~") + "+") for name in logged):
                self.client.log_image(parent, image_or_grid(Path(facts.folder, image)), key=title)

    def end(self, run: str, records: Sequence[Facts]) -> None:
        """Set the status, end time and total seconds of a run from all its records."""
        last = max((facts.status for facts in records), key=list(STATUS).index)
        ended = max(milliseconds(facts.ended) for facts in records)
        seconds = sum(facts.seconds for facts in records)
        self.client.log_batch(run, [metric("seconds", seconds, ended)])
        if last != "running":
            self.client.set_terminated(run, STATUS[last], ended)


def metric(name: str, value: float | None, at: int, step: int = 0, model: Any = None) -> Metric:
    """mlflow's entity of a number; `null` in a record stands for a value that was not finite."""
    return Metric(name, math.nan if value is None else value, at, step, model_id=model)


def datasets(facts: Facts) -> list[DatasetInput]:
    """mlflow's entities of the inputs of a stage."""
    context = [InputTag("mlflow.data.context", facts.stage)]
    return [
        DatasetInput(
            Dataset(
                path, digest.partition(":")[2][:MAX_DIGEST], "local", json.dumps([path, digest])
            ),
            context,
        )
        for path, digest in facts.inputs.items()
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as `a.b.c` names; a list stays one value, as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list) else str(value)


def milliseconds(moment: datetime | None) -> int:
    """Milliseconds since 1970, mlflow's unit; 0 before the end."""
    return round(1000 * moment.timestamp()) if moment else 0


def image_or_grid(path: Path) -> Image.Image:
    """An image, or a grid of the first images of a tar."""
    if path.suffix != ".tar":
        return Image.open(path, formats=["PNG"])
    with tarfile.open(path) as tar:
        files = [tar.extractfile(member) for member in islice(tar, TILES)]
        tiles = [Image.open(file, formats=["PNG"]).convert("RGB") for file in files if file]
    for tile in tiles:
        tile.thumbnail((TILE, TILE))
    width, height = tiles[0].size
    grid = Image.new("RGB", (COLUMNS * width, math.ceil(len(tiles) / COLUMNS) * height), "white")
    for number, tile in enumerate(tiles):
        grid.paste(tile, (number % COLUMNS * width, number // COLUMNS * height))
    return grid
