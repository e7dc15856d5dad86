"""Stage `archive`: compress the shards to take them to another machine."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.pretraining.archive import archive
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    out: Annotated[Path, Option(help="Folder that is read like the shards.")],
) -> None:
    """Compress the shards without loss to take them to another machine, such as one with a GPU."""
    archive(shards, out)


if __name__ == "__main__":
    run(main)
