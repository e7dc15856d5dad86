"""Adapters on the Hugging Face hub: download by a repository's name, and upload of an export."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterbench.adapters.core.storage import CONFIG, WEIGHTS, load_config, load_variant
from adapterbench.core.errors import UserError, one_line
from adapterbench.core.files import check_digest
from adapterbench.exchange.presets import PRESETS

README = "README.md"
"""The model card of an export."""
REPOSITORY = "USER/REPO"
"""Stands in the card of an export for the repository's name; `upload` fills it in."""
LOADED = (WEIGHTS, CONFIG, PRESETS)
"""All that is downloaded of a repository: tensors and JSON, no code and no pickle."""
UPLOADED = ("*.safetensors", "*.json", "*.md", "*.png", "*.webp")
NAME = re.compile(r"(?P<owner>\w[\w.-]*)/\w[\w.-]*", re.ASCII)


def is_repository(name: object, revision: str | None) -> bool:
    """Whether `name` means a repository of the hub, not a folder.

    A path such as `models/ip_adapter`, whose first folder exists here, is none: a mistyped folder
    is not looked up on the hub. With a `revision` every `user/name` is one.
    """
    if not (isinstance(name, str) and (match := NAME.fullmatch(name))):
        return False
    return revision is not None or not Path(match["owner"]).is_dir()


def download(repository: str, revision: str | None) -> Path:
    """The folder of an adapter in the hub's cache, downloaded if it is not there.

    Args:
        repository: such as `user/name`.
        revision: branch, tag or commit; None: `main`.

    Raises:
        UserError: there is no network, repository, revision or adapter in it.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repository, revision):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(LOADED)))
    if missing := [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]:
        raise UserError(
            f"{repository} of the hub is no adapter of this package, it has no {missing[0]}: name "
            "another; `adapterbench adopt` makes an adapter of an IP-Adapter's file"
        )
    return folder


def upload(
    folder: Path, repository: str, revision: str | None = None, private: bool = False
) -> str:
    """Upload an export for the hub in one commit; return its address.

    The repository, and the branch `revision`, are made if they do not exist. The token is the one
    of the hub's own client: `hf auth login`, or HF_TOKEN.

    Args:
        folder: what `adapterbench export --format hub` wrote.
        repository: such as `user/name`.
        revision: a branch; None: `main`.
        private: whether a repository that is made is private.

    Raises:
        UserError: the folder is no such export, there is no token or network, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    check_export(folder)
    if get_token() is None:
        raise UserError("there is no token for the hub: run `hf auth login`, or set HF_TOKEN")
    files = sorted({file for pattern in UPLOADED for file in folder.glob(pattern)})
    operations = [
        CommitOperationAdd(file.name, content(file, repository))
        for file in files
        if file.is_file() and not file.name.startswith(".")
    ]
    api = HfApi()
    with hub_errors(repository, revision):
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.create_commit(
            repository, operations, commit_message="Adapter of adapterbench", revision=revision
        )
    return f"{url}/tree/{revision}" if revision else str(url)


def check_export(folder: Path) -> None:
    """Check that a folder is an export for the hub and that its weights are whole.

    Raises:
        UserError: it is not, or they are not.
    """
    if missing := [n for n in (WEIGHTS, CONFIG, README) if not (folder / n).is_file()]:
        raise UserError(
            f"{folder} is no export for the hub, it has no {missing[0]}: make one with "
            "`adapterbench export MODEL OUT --format hub`"
        )
    load_variant(folder)
    try:
        if digest := load_config(folder).sha256:
            check_digest(folder / WEIGHTS, digest)
    except ValueError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({error}): export it again") from error


def content(file: Path, repository: str) -> bytes | Path:
    """What is uploaded of a file: the card with the repository's name, others as they are.

    Raises:
        UserError: the card is not UTF-8.
    """
    if file.name != README:
        return file
    try:
        return file.read_bytes().decode().replace(REPOSITORY, repository).encode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error}): save it as UTF-8") from error


@contextmanager
def hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Raise a `UserError` with cause and remedy for errors of the hub in the block."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise UserError(refusal(error.__cause__, repository, revision)) from error
        raise UserError(
            f"cannot reach the hub for {repository}: check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, or name a folder on this machine"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(refusal(error, repository, revision)) from error
    except ValueError as error:  # a bad name, or a card with a field that the hub does not know
        cause = one_line(error)
        raise UserError(f"the hub did not take {repository} ({cause}): correct it") from error
    except (ConnectionError, RuntimeError) as error:  # of a large file, by Xet or by git LFS
        cause = one_line(error.__cause__ or error)
        raise UserError(f"a transfer failed ({cause}): check the network, run it again") from error


def refusal(error: Exception, repository: str, revision: str | None) -> str:
    """What the hub's answer means, and what to do.

    Args:
        error: an `HfHubHTTPError`.
    """
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    assert isinstance(error, HfHubHTTPError)
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} of the hub has no revision {revision!r}: name a branch, tag or commit"
    if status == 404:
        return f"the hub has no {repository}: check its name"
    if status in {401, 403}:
        return (
            f"the hub denies access to {repository} ({status}): check its name, and that the token "
            "of `hf auth login` or HF_TOKEN may read it (to upload: write it)"
        )
    return f"the hub answered {status} for {repository}: {remedy(status)}"


def remedy(status: int) -> str:
    """What to do about a status that says nothing of names and rights."""
    return "try again later" if status == 429 or status >= 500 else "check its name and files"
