"""Webdataset shards of a Hugging Face data set, at a pinned revision."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from braceexpand import braceexpand
from huggingface_hub import HfApi, RepoFile, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from more_itertools import chunked
from pydantic import field_validator
from tqdm.contrib.concurrent import thread_map

from adapterbench.core.config import Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import link_or_copy, publish, remove, sha256
from adapterbench.data.sample import SPLITS, RawSample, read_tars
from adapterbench.runs.resume import exclusive_run, resume_path

ATTRIBUTION = {
    "cc3m": "Conceptual Captions, (c) Google LLC, free to use; images of their respective "
    "owners; shards: pixparse/cc3m-wds of the Hugging Face hub"
}

AT_ONCE = 4
"""Shards that are downloaded at the same time."""
ASKED_AT_ONCE = 100
"""Shards per request for digests."""


class Params(Section):
    """Fields of `data.fetch` with `source: hub`."""

    repository: str
    """Id of the data set."""
    revision: str
    """Commit of the data set."""
    train: str
    """Shards to train on; `{0000..0575}` stands for a range."""
    validation: str
    """Shards to validate on."""

    @field_validator(*SPLITS)
    @classmethod
    def braces_are_balanced(cls, pattern: str) -> str:
        """Check that `braceexpand` accepts the pattern; it raises ValueError."""
        braceexpand(pattern)
        return pattern


def fetch(params: Params, out: Path) -> None:
    """Download the shards to `out/<split>`, checked by the digests that the hub has for them.

    A killed download resumes at the incomplete shards, also with another range of shards.

    Raises:
        UserError: there is no network, data set or shard, or a shard arrived damaged.
    """
    names = {split: list(braceexpand(part)) for split, part in params if split in SPLITS}
    done = resume_path("hub", params.model_dump(include={"repository", "revision"}))
    digests = find_digests(params, [name for part in names.values() for name in part])
    with exclusive_run(done):
        thread_map(
            partial(download, params, done),
            digests.keys(),
            digests.values(),
            max_workers=AT_ONCE,
            desc="fetch",
            unit="shard",
        )
        for split, part in names.items():
            with publish(out / split) as folder:
                folder.mkdir()
                for name in part:
                    link_or_copy(done / "whole" / name, folder / Path(name).name)
        remove(done)


def find_digests(params: Params, names: list[str]) -> dict[str, str]:
    """The hub's SHA-256 of each shard by name.

    Raises:
        UserError: there is no network, data set or shard.
    """
    digests: dict[str, str] = {}
    for chunk in chunked(names, ASKED_AT_ONCE):
        with hub_errors(params):
            infos = HfApi().get_paths_info(
                params.repository, chunk, revision=params.revision, repo_type="dataset"
            )
        files = (file for file in infos if isinstance(file, RepoFile))
        digests |= {file.path: file.lfs.sha256 for file in files if file.lfs}
    if missing := [name for name in names if name not in digests]:
        raise UserError(
            f"{params.repository} has no shard {missing[0]} at {params.revision}: correct "
            "data.fetch.train or data.fetch.validation"
        )
    return digests


def download(params: Params, done: Path, name: str, digest: str) -> None:
    """Download one shard to `done/whole`, unless it exists.

    Raises:
        UserError: the download failed, or its digest is not the hub's.
    """
    whole = done / "whole" / name
    if whole.is_file():
        return
    with hub_errors(params):
        downloaded = hf_hub_download(
            params.repository,
            name,
            revision=params.revision,
            repo_type="dataset",
            local_dir=done / "partial",
        )
    if (actual := sha256(Path(downloaded))) != digest:
        remove(Path(downloaded))
        raise UserError(
            f"{name} arrived damaged (digest {actual}, not the hub's {digest}): run again for it"
        )
    whole.parent.mkdir(parents=True, exist_ok=True)
    Path(downloaded).replace(whole)


@contextmanager
def hub_errors(params: Params) -> Iterator[None]:
    """Raise a `UserError` with cause and remedy for errors of the hub in the block."""
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise UserError(
            "cannot reach the hub: check the network and run again to resume, or set data.source "
            "to local and data.fetch to a copy of the shards on this machine"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"the hub does not serve {params.repository} at {params.revision} "
            f"({type(error).__name__}): check data.fetch.repository and data.fetch.revision"
        ) from error


def read(raw: Path, _: Params) -> Iterator[RawSample]:
    """Yield the samples of the training shards, then those of the validation shards."""
    return read_tars(raw)
