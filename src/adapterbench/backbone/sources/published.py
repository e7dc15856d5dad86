"""The small model that is shipped with this repository, through a DVC remote of its own."""

from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.repo import Repo
from dvc_data.hashfile.build import build

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

REMOTE = "published"
"""Name of the remote inside the repository; never the default one, so no `dvc push` lands there."""


def fetch(params: BackboneParams, out: Path) -> None:
    """Bring `params.path` as it was published, whatever the working copy holds.

    Raises:
        UserError: it was published at another digest than `params.revision`, is not there, or is
            damaged.
    """
    pin = Path(f"{params.path}.dvc")
    try:
        published = yaml.safe_load(pin.read_text())["outs"][0]["md5"]
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{pin} is missing or damaged: take it from git again") from error
    if params.revision != published:
        raise UserError(
            f"{params.path} is published at {published}, params.yaml asks for "
            f"backbone.revision = {params.revision}: set it to the published one"
        )
    try:
        with Repo(".", remote=REMOTE) as repo:
            repo.datafs.get(params.path, str(out), recursive=True)
            # DVC trusts the names of a local remote's files
            _, _, copied = build(repo.cache.local, str(out), localfs, "md5", dry_run=True)
    except (DvcException, FileNotFoundError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"cannot bring {params.path} from the remote {REMOTE!r} ({cause}): "
            "is the clone complete?"
        ) from error
    if copied.hash_info.value != published:
        raise UserError(
            f"{params.path} in the remote {REMOTE!r} has digest {copied.hash_info.value}, not "
            f"{published}: it is damaged, take it from git again"
        )
