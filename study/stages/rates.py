"""Stage `rates`: choose the learning rate of a row by short runs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import SampleParams, ScoreParams, load_params, load_train
from adapterbench.runs.program import run
from adapterbench.study.runs.files import Data, RatesParams
from adapterbench.study.runs.rates import sweep
from adapterbench.study.runs.run import Settings


def main(
    row: Annotated[str, Argument(help="A row of `variants:` in params.yaml.")],
    data: Annotated[Path, Option(help="Folder `data` of the project.")],
    split: Annotated[str, Option(help="Split that is scored.")],
    out: Annotated[Path, Option(help="Folder of the runs and of rates.json.")],
) -> None:
    """Choose the learning rate of a row by short runs."""
    sample, score = load_params(SampleParams, "sample"), load_params(ScoreParams, "score")
    settings = Settings(row, load_variant(row), load_train(row), sample, score, split)
    sweep(load_params(RatesParams, "rates"), settings, Data(data), out)


if __name__ == "__main__":
    run(main)
