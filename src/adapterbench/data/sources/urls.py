"""Pictures of the web by lists of (caption, url), such as CC3M's own, through img2dataset.

img2dataset stands in an environment of its own, since its pins do not fit requirements.lock.
"""

import csv
import logging
import os
import re
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
from adapterbench.data.sample import SPLITS, RawSample, read_tar
from adapterbench.formats.image import MAX_PIXELS
from adapterbench.formats.tars import open_tar
from adapterbench.runs.resume import exclusive_run, resume_path

log = logging.getLogger(__name__)

ATTRIBUTION = {
    "cc3m": "Conceptual Captions, (c) Google LLC, free to use; pictures of their respective owners"
}

ENVIRONMENT = Path(".venv-img2dataset")
"""Made by `make img2dataset`."""
PER_TAR = 10_000
"""Addresses of a tar; a killed download goes on at the tars that it was in."""
PATIENCE = 5
"""Seconds between two interrupts of img2dataset."""
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
"""What img2dataset's messages say; they may name hosts, ports and numbers of bytes."""


class Params(Section):
    """Fields of `data.fetch` with `source: urls`."""

    train: str
    """List of (caption, url) to train on: two columns, a tab between, no header."""
    validation: str
    """List to validate on."""
    limit: Count | None
    """Addresses that are taken from the head of each list; `null`: all."""
    image_size: Count
    """A shortest side above this many pixels is reduced to it, the ratio kept."""
    distributor: Literal["multiprocessing", "pyspark", "ray"]
    """How img2dataset spreads the work; the last two over many machines."""
    processes: Count
    """Processes that download."""
    threads: Count
    """Connections of a process."""
    timeout: Count
    """Seconds after which a silent server is given up."""
    retries: int
    """Further tries of an address that failed."""


def fetch(params: Params, out: Path) -> None:
    """Download both lists to `out/<split>/*.tar`, with a `.parquet` of what failed and why.

    A killed download goes on at the tars that are not whole, of whichever list.

    Raises:
        UserError: img2dataset or a list is missing, or it left part of the work undone.
    """
    if not (ENVIRONMENT / "bin/img2dataset").is_file():
        raise UserError(f"{ENVIRONMENT} has no img2dataset: run `make img2dataset`")
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


def download(path: Path, params: Params, place: Path) -> Path:
    """The folder below `place` that has all tars of one list, once img2dataset made the missing.

    Raises:
        UserError: the list is damaged, or some tars are not whole in the end.
    """
    table = read_list(path, params.limit)
    tars = take_over(place)
    all_, before = ceil(len(table) / PER_TAR), len(list(tars.glob("*_stats.json")))
    if before == all_:
        return tars
    log.info(
        "downloading %s pictures of %s; %d of %d tars are here",
        f"{len(table):,}", path.name, before, all_,
    )  # fmt: skip
    table.to_parquet(place / "urls.parquet")
    code = run_img2dataset(place / "urls.parquet", tars, params)
    # its exit code is 0 whatever happens to a tar
    if (whole := len(whole_tars(tars))) < all_:
        raise UserError(
            f"img2dataset made {whole} of {all_} tars of {path.name} (exit code {code}): see its "
            f"output above, check that {ENVIRONMENT} has {params.distributor}, and run again to "
            "go on"
        )
    return tars


def take_over(place: Path) -> Path:
    """The folder of tars below `place` under a name of this run alone, with the whole ones in it.

    A process that a killed run left behind cannot write there: it knows the old name only, and
    what it holds open is deleted.
    """
    tars = place / f"tars-{uuid4().hex}"
    for before in place.glob("tars-*"):  # one at most
        before.rename(tars)
    tars.mkdir(parents=True, exist_ok=True)
    whole = whole_tars(tars)
    for file in tars.iterdir():
        if number(file) not in whole:
            remove(file)
    return tars


def whole_tars(tars: Path) -> set[str]:
    """Numbers of the tars that are finished."""
    return {number(stats) for stats in tars.glob("*_stats.json") if is_whole(stats)}


def number(file: Path) -> str:
    """The number of the tar that a file belongs to."""
    return file.stem.removesuffix("_stats")


def is_whole(stats: Path) -> bool:
    """Whether img2dataset finished the tar of these statistics, which it writes last.

    And whether nothing is lost: what it cannot write, as on a full disk, it leaves out.
    """
    tar = stats.with_name(f"{number(stats)}.tar")
    try:
        with open_tar(tar):
            pass
        rows = len(pd.read_parquet(tar.with_suffix(".parquet"), columns=["key"]))
        found = read_document(dict[str, Any], stats, "statistics of img2dataset", "run again")
        return bool(rows == found.get("count"))
    except (UserError, OSError, ValueError):
        return False


def run_img2dataset(table: Path, tars: Path, params: Params) -> int:
    """Its exit code; it skips the tars that `tars` has statistics of.

    It stays in our process group, so that what kills the group kills it and its processes.
    """
    options = {
        "url_list": table,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": tars,
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
    command = [str(ENVIRONMENT / "bin/img2dataset"), *(f"--{k}={v}" for k, v in options.items())]
    with subprocess.Popen(command, env=os.environ | SETTINGS) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            interrupt(running)
            raise


def interrupt(running: subprocess.Popen[bytes]) -> None:
    """End img2dataset by SIGINT, on which it ends its processes; killed, it would leave them.

    Until it is gone: as it starts, a background job ignores SIGINT.
    """
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(PATIENCE)


def read_list(path: Path, limit: int | None) -> pd.DataFrame:
    """A list's head of columns `caption` and `url`.

    Raises:
        UserError: it is not a list of captions and addresses.
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
    """Yield what was downloaded, then what was not, tar by tar."""
    for split in SPLITS:
        for tar in sorted((raw / split).glob("*.tar")):
            rows = read_rows(tar.with_suffix(".parquet"))
            came = rows["status"] == "success"
            yield from counted(read_tar(tar, prefix=f"{split}-", split=split), came.sum(), tar)
            yield from failures(rows[~came], split)


def read_rows(path: Path) -> pd.DataFrame:
    """What became of each address of a tar.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return pd.read_parquet(path, columns=["key", "caption", "status", "error_message"])
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path} is missing or damaged ({cause})", path) from error


def counted(samples: Iterator[RawSample], expected: int, tar: Path) -> Iterator[RawSample]:
    """The samples of a tar.

    Raises:
        UserError: there are not as many as were downloaded.
    """
    count = 0
    for sample in samples:
        count += 1
        yield sample
    if count != expected:
        raise InputError(f"{tar} has {count} images of {expected} that were downloaded", tar)


def failures(rows: pd.DataFrame, split: str) -> Iterator[RawSample]:
    """Samples without picture for the addresses that failed."""
    for row in rows.sort_values("key").itertuples():
        yield RawSample(
            key=f"{split}-{row.key}",
            captions=(str(row.caption),),
            split=split,
            problem=cause(str(row.error_message)),
        )


def cause(message: str) -> str:
    """A kind of failure that can be counted."""
    for pattern, name in CAUSES.items():
        if found := re.search(pattern, message):
            return found.expand(name)
    return "download failed"
