"""Stage `floors`: score a split without an adapter, and its real images."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from adapterbench.core.config import SampleParams, ScoreParams, load_params
from adapterbench.runs.program import run
from adapterbench.study.floors import measure_floors
from adapterbench.study.runs.files import Data


def main(
    split: Annotated[str, Argument(help="Split that is scored.")],
    data: Annotated[Path, Option(help="Folder `data` of the project.")],
    out: Annotated[Path, Option(help="Folder of the scores.")],
) -> None:
    """Score a split without an adapter, and its real images."""
    params = load_params(SampleParams, "sample"), load_params(ScoreParams, "score")
    measure_floors(*params, Data(data), split, out)


if __name__ == "__main__":
    run(main)
