"""What MLflow shows of the records: nested runs, so that a row of its table leads to all others::

    adapterbench                  the MLflow experiment
      main 2026-01-31 12:00       one DVC process: the best of each number, the figures
        ip_adapter                a variant: its headline numbers, parameters, generated images
          train                   a stage: all that its record holds, load of the machine

Whatever was sent before a failure may be sent again. Adapters are `LoggedModel`s, told apart by
their weights, so that the scores of one gather on one.
"""

import json
import math
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from io import BytesIO
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
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from more_itertools import chunked
from PIL import Image

from adapterbench.runs.record import Adapter, Facts

MAX_METRICS, MAX_PARAMS, MAX_DIGEST = 1000, 100, 36
"""mlflow's limits: of one `log_batch`, and characters of a dataset's digest."""

STATUS = {
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "killed": "KILLED",
    "failed": "FAILED",
    "running": "RUNNING",
}
"""mlflow's words for the states of a record; a parent run has the last of its children's."""

KEY, MODEL, WEIGHTS = "adapterbench.key", "adapterbench.model", "adapterbench.weights"
"""Tags by which a run, the model of a run, and a model are found again."""

TILES, COLUMNS, TILE = 64, 8, 128
"""A grid of generated images: how many at most, in how many columns, of how many pixels."""


class Runs:
    """The runs of one MLflow experiment."""

    def __init__(self, client: Any, experiment: str) -> None:
        self.client = client
        self.experiment = experiment
        self.ids: dict[str, str] = {}
        self.sent: Counter[tuple[str, str]] = Counter()
        """How many points of (run, series) MLflow has."""
        self.monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(Exception):  # its library or its device is not there
            self.monitors.append(GPUMonitor())

    def update(self, facts: Facts, key: str, siblings: Sequence[Facts]) -> None:
        """Send what is new in a record.

        Args:
            key: tells the record from all others.
            siblings: all records of its DVC process, this one included.
        """
        *above, own = self.open(facts, key)
        self.send_series(own, facts, facts.history)
        if facts.status == "running":
            return
        parent = above[-1]
        self.send_summary(own, parent, facts)
        for file, folder in files(facts):
            self.client.log_artifact(own, file, folder)
        self.client.log_text(own, facts.model_dump_json(indent=2), "record.json")
        self.send_images(parent, facts)
        self.end(own, [facts])
        self.end(above[0], siblings)
        if facts.variant:
            self.end(parent, [each for each in siblings if each.variant == facts.variant])

    def open(self, facts: Facts, key: str) -> list[str]:
        """The runs of a record from the top, made when they are not there yet: parents first."""
        began = datetime.fromtimestamp(facts.dvc.started)
        title = f"{facts.provenance.experiment} {began:%Y-%m-%d %H:%M:%S}"
        levels = [("experiment", facts.run, title), ("stage", key, facts.stage)]
        if facts.variant:
            levels.insert(1, ("variant", f"{facts.run}/{facts.variant}", facts.variant))
        ids: list[str] = []
        for level, place, name in levels:
            if place not in self.ids:
                tags = {KEY: place, "level": level, level: name}
                run = self.find(place) or self.create(name, tags, facts, ids)
                if level == "stage":
                    self.begin(run, ids, facts)
                self.ids[place] = run
            ids.append(self.ids[place])
        return ids

    def find(self, key: str) -> str | None:
        """Id of the run with a key."""
        runs = self.client.search_runs([self.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def create(self, name: str, tags: dict[str, Any], facts: Facts, above: list[str]) -> str:
        """Make a run that starts when the record does."""
        tags = tags | {
            "variant": facts.variant if above else None,
            "dvc.experiment": facts.provenance.experiment,
            "git.dirty": facts.provenance.dirty,
            "git.revision": facts.provenance.revision,
            "mlflow.source.git.commit": facts.provenance.revision,
            "mlflow.parentRunId": above[-1] if above else None,
        }
        known = {tag: str(value) for tag, value in tags.items() if value is not None}
        run = self.client.create_run(self.experiment, milliseconds(facts.started), known, name)
        return str(run.info.run_id)

    def begin(self, own: str, above: list[str], facts: Facts) -> None:
        """Log the parameters and inputs of a stage to its own run and the one above."""
        params = dict(flatten(facts.params))
        datasets = [dataset(path, text, facts.stage) for path, text in facts.inputs.items()]
        for run in (own, above[-1]):
            known = self.client.get_run(run).data.params  # mlflow refuses a second value
            new = [Param(name, value) for name, value in params.items() if name not in known]
            for batch in chunked(new, MAX_PARAMS):
                self.client.log_batch(run, params=batch)
            self.client.log_inputs(run, datasets)
        for run in above:
            self.client.update_run(run, "RUNNING")

    def send_series(self, run: str, facts: Facts, names: Iterable[str]) -> None:
        """Log the points of series that are not there yet."""
        start = milliseconds(facts.started)
        for name in names:
            series = facts.history[name]
            rows = zip(series.step, series.value, series.seconds, strict=True)
            new = islice(rows, self.sent[run, name], None)
            points = [
                metric(name, value, start + round(1000 * at), step) for step, value, at in new
            ]
            for batch in chunked(points, MAX_METRICS):
                self.client.log_batch(run, batch)
            self.sent[run, name] = len(series.step)

    def send_summary(self, own: str, parent: str, facts: Facts) -> None:
        """Log the final numbers; those of the headline to the parent and to the adapter, too."""
        end, curves = milliseconds(facts.ended), facts.history
        numbers = {"peak_memory_mb": facts.peak_memory_mb, **facts.metrics}
        points = [metric(name, value, end) for name, value in numbers.items()]
        headline = [point for point in points if point.key in facts.headline]
        self.client.log_batch(own, [point for point in points if point.key not in curves])
        self.client.log_batch(parent, [point for point in headline if point.key not in curves])
        self.send_series(parent, facts, curves.keys() & facts.headline)
        if (headline or facts.adapter) and (model := self.model(own, parent, facts)):
            scores = [metric(point.key, point.value, end, model=model) for point in headline]
            self.client.log_batch(own, scores)

    def model(self, run: str, parent: str, facts: Facts) -> str | None:
        """Id of the `LoggedModel` of the adapter that a run, or its variant's last one, had."""
        if facts.adapter is None:
            query = f"tags.variant = '{facts.variant}' AND tags.`{MODEL}` LIKE 'm-%'"
            runs = self.client.search_runs(
                [self.experiment], query, order_by=["attributes.start_time DESC"], max_results=1
            )
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
        """Id of the `LoggedModel` with an adapter's weights, made when it is not there yet."""
        query = f"name = '{facts.variant}' AND tags.`{WEIGHTS}` = '{adapter.sha256}'"
        known = self.client.search_logged_models([self.experiment], query, max_results=1)
        model = next(iter(known), None) or self.client.create_logged_model(
            self.experiment,
            facts.variant,
            source_run_id=run if adapter.made else None,
            tags={WEIGHTS: adapter.sha256},
            params={name: str(value) for name, value in flatten(facts.params)},
            model_type="adapter",
        )
        if model.status != LoggedModelStatus.READY:
            for file in Path(facts.folder, adapter.folder).glob("*"):
                self.client.log_model_artifact(model.model_id, file)
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return str(model.model_id)

    def send_images(self, run: str, facts: Facts) -> None:
        """Show the images that are not there yet."""
        there = {Path(item.path).name for item in self.client.list_artifacts(run, "images")}
        for title, path in facts.images.items():
            prefix = title.replace("/", "~") + "+"
            if not any(name.startswith(prefix) for name in there):
                self.client.log_image(run, picture(Path(facts.folder, path)), key=title)

    def send_load(self, keys: Iterable[str]) -> None:
        """Log how busy the machine is to the runs of the records that are under way."""
        load: dict[str, float] = {}
        for monitor in self.monitors:
            monitor.collect_metrics()
            load |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        now = round(1000 * time.time())
        for run in (self.ids[key] for key in keys if key in self.ids):
            step = self.sent[run, "system/"] = self.sent[run, "system/"] + 1
            self.client.log_batch(
                run, [metric(f"system/{name}", value, now, step) for name, value in load.items()]
            )

    def end(self, run: str, records: Sequence[Facts]) -> None:
        """Give a run the state, the end and the seconds of all its records together."""
        last = max((facts.status for facts in records), key=list(STATUS).index)
        ended = max(milliseconds(facts.ended) for facts in records if facts.ended)
        self.client.log_batch(
            run, [metric("seconds", sum(facts.seconds for facts in records), ended)]
        )
        if last != "running":
            self.client.set_terminated(run, STATUS[last], ended)


def metric(
    name: str, value: float | None, at: int, step: int = 0, model: str | None = None
) -> Metric:
    """mlflow's entity of one number; a record's `null` is one that was not finite."""
    return Metric(name, math.nan if value is None else value, at, step, model_id=model)


def dataset(path: str, digest: str, stage: str) -> DatasetInput:
    """mlflow's entity of one input of a stage."""
    short = digest.partition(":")[2][:MAX_DIGEST]
    source = json.dumps({"path": path, "digest": digest})
    return DatasetInput(
        Dataset(path, short, "local", source), [InputTag("mlflow.data.context", stage)]
    )


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as `a.b.c` names; a list stays one value, as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list) else str(value)


def milliseconds(moment: datetime | None) -> int:
    """Milliseconds since 1970, mlflow's unit."""
    return round(1000 * moment.timestamp()) if moment else 0


def files(facts: Facts) -> Iterator[tuple[Path, str | None]]:
    """Files of a record's artifacts, and the folder that each goes to; what is gone is left out."""
    for name in facts.artifacts:
        path = Path(facts.folder, name)
        if path.is_file():
            yield path, None
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file, file.parent.relative_to(path.parent).as_posix()


def picture(path: Path) -> Image.Image:
    """An image, or a grid of the first images of a tar."""
    if path.suffix != ".tar":
        return Image.open(path, formats=["PNG"])
    tiles = []
    with tarfile.open(path) as tar:
        for member in islice((each for each in tar if each.isfile()), TILES):
            data = BytesIO(tar.extractfile(member).read())  # type: ignore[union-attr]  # a file
            tile = Image.open(data, formats=["PNG"]).convert("RGB")
            tile.thumbnail((TILE, TILE))
            tiles.append(tile)
    width, height = tiles[0].size
    grid = Image.new("RGB", (COLUMNS * width, -(-len(tiles) // COLUMNS) * height), "white")
    for number, tile in enumerate(tiles):
        grid.paste(tile, (number % COLUMNS * width, number // COLUMNS * height))
    return grid
