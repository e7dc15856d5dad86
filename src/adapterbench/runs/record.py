"""The record of one stage run: a JSON file of what ran, on what, with what result and at what cost.

It is the first home of these facts; MLflow gets a copy (`follow`). Records are volatile: git and
DVC ignore their folder, and no stage reads them.
"""

import hashlib
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from adapterbench.core.environment import git, installed, peak_memory_mb, revision
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, read_json, sha256, write_json
from adapterbench.runs.follow import Copy, Facts, complete, masked, project_root

RECORDS = Path("records")

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "peft",
    "numpy",
    "webdataset",
)
"""Libraries whose version may change a number."""

FLUSH_SECONDS = 10.0
"""Least time between two writes of the record while a stage runs."""

FLUSH_SHARE = 20.0
"""Least time between two writes in units of what the last one took: a slow server costs 5%."""


class Record:
    """Facts of one stage run. `facts` is what the JSON file at `path` holds.

    A number that is not finite is kept as `null`.
    """

    def __init__(
        self,
        stage: str,
        *,
        params: Mapping[str, Any],
        variant: str | None = None,
        inputs: Iterable[Path] = (),
        path: Path | None = None,
        copy: Copy | None = None,
    ) -> None:
        """Note what is known at the start; `stage_record` explains the arguments."""
        self.path = placed(path or RECORDS / stage / f"{variant or stage}.json")
        self.copy = copy
        self.clock = time.monotonic()
        self.next_flush = 0.0
        self.facts: Facts = {
            "stage": stage,
            "variant": variant,
            "status": "running",
            "error": None,
            "params": to_jsonable_python(params),
            "experiment": experiment_name(),
            "dvc": {
                "experiment": os.environ.get("DVC_EXP_NAME"),
                "baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
            },
            "git": revision(),
            "inputs": {path.as_posix(): digest(path) for path in inputs},
            "packages": {name: installed(name) for name in PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "started": now(),
            "ended": None,
            "metrics": {},
            "history": {},
            "artifacts": [],
            "mlflow": None,
            **self.cost(),
        }

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note one point of each series; the summary shows the last one.

        It is kept in memory and written every few seconds, so a training loop may call it often.
        """
        seconds = round(time.monotonic() - self.clock, 3)
        for name, value in values.items():
            series = self.facts["history"].setdefault(
                name, {"step": [], "value": [], "seconds": []}
            )
            series["step"].append(step)
            series["value"].append(finite(value))
            series["seconds"].append(seconds)
        self.set(**values)
        if time.monotonic() >= self.next_flush:
            self.flush()

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Note one number: a point of a series, or without a `step` a summary."""
        if step is None:
            self.set(**{name: value})
        else:
            self.metrics({name: value}, step)

    def set(self, **values: float) -> None:
        """Note summary numbers, such as `images_per_second`."""
        self.facts["metrics"].update({name: finite(value) for name, value in values.items()})

    def artifact(self, path: Path) -> None:
        """Name a finished file or folder to be copied to MLflow.

        Raises:
            FileNotFoundError: it is not there.
        """
        if not path.exists():
            raise FileNotFoundError(f"artifact {path} was not written")
        self.facts["artifacts"].append(path.as_posix())

    def flush(self) -> None:
        """Write the record, then bring the copy up to date; of several processes, one does."""
        if not leads():
            return
        began = time.monotonic()
        self.facts.update(self.cost())
        write_json(self.path, self.facts)  # before MLflow, which may fail
        if self.copy:
            self.facts["mlflow"] = self.copy.update(self.facts)
            write_json(self.path, self.facts)
        took = time.monotonic() - began
        self.next_flush = time.monotonic() + max(FLUSH_SECONDS, FLUSH_SHARE * took)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the record as `finished`, `failed` or `interrupted`."""
        cause = masked(f"{type(error).__name__}: {error}") if error else None
        self.facts.update(status=status, error=cause, ended=now())
        self.flush()

    def cost(self) -> Facts:
        """What the run has taken so far and on which device."""
        return {
            "seconds": round(time.monotonic() - self.clock, 3),
            "peak_memory_mb": peak_memory_mb(),
            **machine(),
        }


@contextmanager
def stage_record(
    stage: str,
    *,
    params: Mapping[str, Any],
    variant: str | None = None,
    inputs: Iterable[Path] = (),
    path: Path | None = None,
) -> Iterator[Record]:
    """Record the block as one run of a stage, with a copy in MLflow.

    The record is written at the start, every few seconds, and at the end, also when the block
    fails or is interrupted; the exception goes on to the caller.

    Args:
        stage: name of the DVC stage.
        params: resolved parameters; pydantic sections are welcome at any depth.
        variant: the adapter variant, for a stage that has one.
        inputs: files and folders whose digests are noted.
        path: the JSON file; by default `records/STAGE/VARIANT.json`, or `records/STAGE/STAGE.json`
            for a stage without variants.

    Raises:
        UserError: an input is missing.
    """
    record = Record(stage, params=params, variant=variant, inputs=inputs, path=path, copy=Copy())
    set_aside(record.path)
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


def leads() -> bool:
    """Whether this process writes for all that `accelerate launch` started together."""
    return os.environ.get("RANK", "0") == "0"


def placed(path: Path) -> Path:
    """Where a record goes: at `path`, or by experiment in the user's folder.

    A queued DVC experiment runs in a copy of the project that is deleted when it ends.
    """
    root = project_root()
    if path.is_absolute() or root == Path.cwd():
        return path
    return root / path.parts[0] / experiment_name() / Path(*path.parts[1:])


def set_aside(path: Path) -> None:
    """Keep the record of an earlier run that MLflow does not have, under its starting time."""
    if leads() and path.exists():
        earlier = read_json(path)
        if not complete(earlier):
            began = datetime.fromisoformat(earlier["started"])
            path.rename(path.with_name(f"{path.stem}.{began:%Y%m%dT%H%M%S}.json"))


def experiment_name() -> str:
    """Name of the DVC experiment, else the git branch, else the short revision."""
    return (
        os.environ.get("DVC_EXP_NAME")
        or git("branch", "--show-current")
        or git("rev-parse", "--short", "HEAD")
        or "workspace"
    )


def digest(path: Path) -> str:
    """A cheap fingerprint of an input, as `KIND:HEX`.

    In order: the MD5 of the DVC output that holds it, the SHA-256 of a file, of a folder's
    `manifest.json`, or of the folder's file names and sizes.

    Raises:
        UserError: there is nothing at `path`.
    """
    if not path.exists():
        raise UserError(f"{path} is missing: run `dvc repro` to make it")
    tracked = locked_digests()
    for place in (path, *path.parents):
        if place.as_posix() in tracked:
            return f"md5:{tracked[place.as_posix()]}"
    if path.is_file():
        return f"sha256:{sha256(path)}"
    manifest = path / MANIFEST
    if manifest.is_file():
        return f"manifest:{sha256(manifest)}"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = "".join(f"{file.relative_to(path)} {file.stat().st_size}\n" for file in files)
    return f"listing:{hashlib.sha256(listing.encode()).hexdigest()}"


def locked_digests() -> dict[str, str]:
    """MD5 of each output in `dvc.lock`, which tells the present only while DVC runs the stage."""
    lock = Path("dvc.lock")
    if "DVC_STAGE" not in os.environ or not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        out["path"]: out["md5"]
        for stage in stages.values()
        for out in stage.get("outs", [])
        if "md5" in out
    }


def machine() -> Facts:
    """Device and CPU threads of torch, where the stage has imported it: a record alone does not."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"device": "cpu", "torch_threads": None}
    cuda = torch.cuda.is_initialized()
    return {
        "device": f"cuda ({torch.cuda.get_device_name()})" if cuda else "cpu",
        "torch_threads": torch.get_num_threads(),
    }


def finite(value: float) -> float | None:
    """`value` as a plain number (one-element tensors too); `None` when JSON has no word for it."""
    number = float(value)
    return number if math.isfinite(number) else None


def now() -> str:
    """This moment in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
