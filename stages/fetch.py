"""Stage `fetch`: fetch the raw images, pinned by version and checked by digest."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import DataParams, load_params, parse
from adapterbench.core.registry import load
from adapterbench.runs.record import stage_record


def main(out: Annotated[Path, Option(help="Folder for the raw packages.")]) -> None:
    """Fetch the raw images, pinned by version and checked by digest."""
    params = load_params(DataParams, "data")
    with stage_record("fetch", params={"data": params}):
        source = load("adapterbench.data.sources", params.source)
        source.fetch(parse(source.Params, params.fetch, "data.fetch"), out)


if __name__ == "__main__":
    run(main)
