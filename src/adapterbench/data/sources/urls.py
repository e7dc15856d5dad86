"""Images from the web by lists of (caption, url), such as those of CC3M, with img2dataset.

img2dataset has its own environment, since its pins conflict with requirements.lock.
"""

import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pandas as pd

from adapterbench.core.config import Count, Section
from adapterbench.core.documents import read_document
from adapterbench.core.errors import InputError, UserError
from adapterbench.core.files import link_or_copy, publish, remove
from adapterbench.data import distributors
from adapterbench.data.sample import SPLITS, RawSample, read_tar
from adapterbench.formats.image import MAX_PIXELS
from adapterbench.formats.tars import open_tar
from adapterbench.runs.resume import exclusive_run, resume_path

log = logging.getLogger(__name__)

ATTRIBUTION = {
    "cc3m": "Conceptual Captions, (c) Google LLC, free to use; images of their respective owners"
}

ENVIRONMENT = Path(".venv-img2dataset")
"""Made by `make img2dataset`."""
PER_TAR = 10_000
"""URLs per tar; a killed download resumes at its incomplete tars."""
INTERRUPT_SECONDS = 5
"""Seconds between two interrupts of img2dataset."""
TARGETS = {
    "img2dataset": "img2dataset",
    "pyspark": "clusters",
    "ray": "clusters",
}
"""Programs of the environment, and the target of `make` that installs each."""
SETTINGS = {"OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS), "NO_ALBUMENTATIONS_UPDATE": "1"}

CAUSES = {
    r"HTTP Error (\d+)": r"HTTP \1",
    r"timed out": "timed out",
    r"X-Robots-Tag": "disallowed by X-Robots-Tag",
    r"image area too large|MAX_IMAGE_PIXELS": "too many pixels",
    r"decoding error|OpenCV": "not a readable image",
    r"getaddrinfo|Name or service|No address|name resolution": "no such host",
    r"SSL|certificate": "TLS failed",
    r"IncompleteRead|reset|closed": "connection cut",
    r"refused|unreachable|No route": "cannot connect",
}
"""Causes by patterns of img2dataset's messages, which may name hosts, ports and sizes."""


class Params(Section):
    """Fields of `data.fetch` with `source: urls`."""

    train: str
    """List of (caption, url) to train on: two columns, a tab between, no header."""
    validation: str
    """List to validate on."""
    limit: Count | None
    """URLs that are taken from the head of each list; `null`: all."""
    image_size: Count
    """Larger images are scaled down to this shorter side, pixels; the aspect ratio is kept."""
    distributor: Literal["multiprocessing", "pyspark", "ray"]
    """How img2dataset shares its tars; Spark and Ray among machines, too."""
    processes: Count
    """Processes that download; a named cluster of Spark or Ray has its own number."""
    threads: Count
    """Connections per process."""
    timeout: Count
    """Seconds without an answer after which a URL fails."""
    retries: int
    """Further attempts per failed URL."""


def fetch(params: Params, out: Path) -> None:
    """Download both lists to `out/<split>/*.tar`, with a `.parquet` of failures and causes.

    A killed download resumes at the incomplete tars of either list.

    Raises:
        UserError: a list, img2dataset or its distributor is missing, or some tars are incomplete
            in the end.
    """
    require_installed(params.distributor)
    lists = {split: Path(path).expanduser() for split, path in params if split in SPLITS}
    for split, path in lists.items():
        if not path.is_file():
            raise UserError(f"{path} is missing: download it, or set data.fetch.{split} to it")
    facts = params.model_dump(include={"limit", "image_size"})
    places = {
        split: resume_path("urls", facts | {"split": split}, path) for split, path in lists.items()
    }
    with exclusive_run(*places.values()):
        tars = {split: download(path, params, places[split]) for split, path in lists.items()}
        for split, done in tars.items():
            with publish(out / split) as folder:
                folder.mkdir()
                for file in sorted(done.iterdir()):
                    if file.suffix in (".tar", ".parquet"):
                        link_or_copy(file, folder / file.name)
        # not before: DVC deletes `out` when an unfinished stage starts
        for place in places.values():
            remove(place)


def require_installed(distributor: str) -> None:
    """Check that img2dataset's environment has what the distributor needs.

    Raises:
        UserError: a package is missing, or Java for Spark.
    """
    for program, target in TARGETS.items():
        needed = program in ("img2dataset", distributor)
        if needed and not (ENVIRONMENT / "bin" / program).is_file():
            raise UserError(f"{ENVIRONMENT} has no {program}: run `make {target}`")
    home = os.environ.get("JAVA_HOME")
    if distributor == "pyspark" and not shutil.which(f"{home}/bin/java" if home else "java"):
        raise UserError(
            "Spark needs Java 17 or later: install it (`apt-get install default-jre-headless`), or "
            "set JAVA_HOME to it"
        )


def download(path: Path, params: Params, place: Path) -> Path:
    """Download the missing tars of one list; return their folder below `place`.

    Raises:
        UserError: the list is damaged, or some tars are incomplete in the end.
    """
    table = read_list(path, params.limit)
    tars = claim_tars(place)
    all_, before = ceil(len(table) / PER_TAR), len(list(tars.glob("*_stats.json")))
    if before == all_:
        return tars
    log.info(
        "downloading %s images of %s; %d of %d tars are complete",
        f"{len(table):,}", path.name, before, all_,
    )  # fmt: skip
    table.to_parquet(place / "urls.parquet")
    code = run_img2dataset(place / "urls.parquet", tars, params)
    # its exit code is 0 even if a tar fails
    if (whole := len(complete_tars(tars))) < all_:
        raise UserError(
            f"img2dataset made {whole} of {all_} tars of {path.name} (exit code {code}): see its "
            "output above, and run again to resume"
        )
    return tars


def claim_tars(place: Path) -> Path:
    """Rename the folder of tars below `place` to a unique name and delete incomplete tars.

    Orphaned processes of a killed run cannot write there: they only know the old name, and the
    files that they hold open are deleted.
    """
    tars = place / f"tars-{uuid4().hex}"
    for before in place.glob("tars-*"):  # one at most
        before.rename(tars)
    tars.mkdir(parents=True, exist_ok=True)
    whole = complete_tars(tars)
    for file in tars.iterdir():
        if number(file) not in whole:
            remove(file)
    return tars


def complete_tars(tars: Path) -> set[str]:
    """Numbers of the complete tars."""
    return {number(stats) for stats in tars.glob("*_stats.json") if is_complete(stats)}


def number(file: Path) -> str:
    """The number of the tar that a file belongs to."""
    return file.stem.removesuffix("_stats")


def is_complete(stats: Path) -> bool:
    """Whether the tar of these statistics, which img2dataset writes last, is complete.

    img2dataset skips rows that it cannot write, as on a full disk, so the counts are compared.
    """
    tar = stats.with_name(f"{number(stats)}.tar")
    try:
        with open_tar(tar):
            pass
        rows = len(pd.read_parquet(tar.with_suffix(".parquet"), columns=["key"]))
        statistics = read_document(dict[str, Any], stats, "statistics of img2dataset", "run again")
        return bool(rows == statistics.get("count"))
    except (UserError, OSError, ValueError):
        return False


def run_img2dataset(table: Path, tars: Path, params: Params) -> int:
    """Run img2dataset and return its exit code; tars with statistics are skipped.

    It stays in this process group, so that a signal to the group ends it and its processes.
    """
    options = {
        "url_list": table.absolute(),  # workers run in other folders
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": tars.absolute(),
        "output_format": "webdataset",
        "incremental_mode": "incremental",
        "number_sample_per_shard": PER_TAR,
        "image_size": params.image_size,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "max_image_area": MAX_PIXELS,
        "extract_exif": False,
        "distributor": params.distributor,
        "processes_count": params.processes,
        "thread_count": params.threads,
        "timeout": params.timeout,
        "retries": params.retries,
    }
    command = [
        *(str(ENVIRONMENT / "bin/python"), "-P", distributors.__file__),
        *(params.distributor, str(params.processes), json.dumps(SETTINGS)),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with subprocess.Popen(command, env=os.environ | SETTINGS) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            interrupt(running)
            raise


def interrupt(running: subprocess.Popen[bytes]) -> None:
    """End img2dataset by SIGINT, on which it ends its processes; SIGKILL would orphan them.

    The signal is repeated, since a starting background job ignores SIGINT.
    """
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(INTERRUPT_SECONDS)


def read_list(path: Path, limit: int | None) -> pd.DataFrame:
    """The first `limit` rows of a list, with columns `caption` and `url`.

    Raises:
        UserError: it is not a list of captions and URLs.
    """
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            names=["caption", "url"],
            index_col=False,
            nrows=limit,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    if not table["url"].str.match(r"https?://").any():
        raise UserError(f"{path} is not a list of caption, tab, url: download it again")
    return table


def read(raw: Path, _: Params) -> Iterator[RawSample]:
    """Yield the downloaded samples, then the failed ones, tar by tar."""
    for split in SPLITS:
        for tar in sorted((raw / split).glob("*.tar")):
            rows = read_rows(tar.with_suffix(".parquet"))
            succeeded = rows["status"] == "success"
            yield from counted(read_tar(tar, prefix=f"{split}-", split=split), succeeded.sum(), tar)
            yield from failures(rows[~succeeded], split)


def read_rows(path: Path) -> pd.DataFrame:
    """Read the status of each URL of a tar.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return pd.read_parquet(path, columns=["key", "caption", "status", "error_message"])
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path} is missing or damaged ({cause})", path) from error


def counted(samples: Iterator[RawSample], expected: int, tar: Path) -> Iterator[RawSample]:
    """The samples of a tar, counted.

    Raises:
        UserError: their number differs from that of the downloads.
    """
    count = 0
    for sample in samples:
        count += 1
        yield sample
    if count != expected:
        raise InputError(f"{tar} has {count} images of {expected} that were downloaded", tar)


def failures(rows: pd.DataFrame, split: str) -> Iterator[RawSample]:
    """Samples without image for the failed URLs."""
    for row in rows.sort_values("key").itertuples():
        yield RawSample(
            key=f"{split}-{row.key}",
            captions=(str(row.caption),),
            split=split,
            problem=cause(str(row.error_message)),
        )


def cause(message: str) -> str:
    """The kind of failure, under which it is counted."""
    for pattern, name in CAUSES.items():
        if match := re.search(pattern, message):
            return match.expand(name)
    return "download failed"
