"""Stage `openmoji`: fetch the drawings that the descendants are trained on."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.pretraining.openmoji import OpenmojiParams, fetch
from adapterbench.runs.program import run


def main(out: Annotated[Path, Option(help="File of the package.")]) -> None:
    """Fetch the drawings that the descendants are trained on, pinned by version and digest."""
    fetch(load_params(OpenmojiParams, "openmoji").package, out)


if __name__ == "__main__":
    run(main)
