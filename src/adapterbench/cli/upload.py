"""`adapterbench upload`: put an export on the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


def upload(
    folder: Annotated[Path, Argument(help="What `adapterbench export --format hub` wrote.")],
    repository: Annotated[str, Argument(help="Repository of the hub: USER/REPO.")],
    revision: Annotated[
        str | None, Option(help="Branch; made if there is none (default: main).")
    ] = None,
    private: Annotated[bool, Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload an export to the Hugging Face hub, in one commit, and print its address.

    Uploads the folder's safetensors, JSON, Markdown, PNG and WebP files, and fills in the
    repository's name in the card. A repository that does not exist is made. The token is that of
    `hf auth login` or HF_TOKEN, with the right to write.
    """
    from adapterbench.exchange import hub  # slow import, not needed for `--help`

    typer.echo(hub.upload(folder, repository, revision, private))
