"""The small models in this repository, in a DVC remote of their own."""

from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.repo import Repo
from dvc_data.hashfile.build import build

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

REMOTE = "published"
"""Name of the remote in the repository; not the default one, so `dvc push` never writes to it."""


def fetch(params: BackboneParams, out: Path) -> None:
    """Copy `params.path` as published, whatever the working copy holds.

    Raises:
        UserError: its digest is not `params.revision`, or it is missing or damaged.
    """
    pin = Path(f"{params.path}.dvc")
    try:
        published = yaml.safe_load(pin.read_text())["outs"][0]["md5"]
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{pin} is missing or damaged: restore it from git") from error
    if params.revision != published:
        raise UserError(
            f"{params.path} is published at {published}, params.yaml asks for "
            f"backbone.revision = {params.revision}: set it to the published one"
        )
    try:
        with Repo(".", remote=REMOTE) as repo:
            repo.datafs.get(params.path, str(out), recursive=True)
            # DVC does not verify the files of a local remote
            _, _, copied = build(repo.cache.local, str(out), localfs, "md5", dry_run=True)
    except (DvcException, FileNotFoundError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"cannot fetch {params.path} from the remote {REMOTE!r} ({cause}): "
            "is the clone complete?"
        ) from error
    if copied.hash_info.value != published:
        raise UserError(
            f"{params.path} in the remote {REMOTE!r} has digest {copied.hash_info.value}, not "
            f"{published}: it is damaged, restore it from git"
        )
