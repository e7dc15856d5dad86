"""Stage of every other run: train a row once and score it on a split."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import SampleParams, ScoreParams, load_params, load_train
from adapterbench.runs.program import run
from adapterbench.study.runs.files import Data
from adapterbench.study.runs.rates import read_rates
from adapterbench.study.runs.run import Settings, run_once


def main(
    row: Annotated[str, Argument(help="A row of `variants:` in params.yaml.")],
    data: Annotated[Path, Option(help="Folder `data` of the project.")],
    split: Annotated[str, Option(help="Split that is scored.")],
    rates: Annotated[Path, Option(help="Folder of stage rates for this row.")],
    steps: Annotated[int, Option(help="Optimiser steps.", min=1)],
    seed: Annotated[int, Option(help="Seed of the training.", min=0)],
    out: Annotated[Path, Option(help="Folder of the run.")],
    samples: Annotated[int | None, Option(help="Training images (default: all).", min=1)] = None,
    adapter: Annotated[Path | None, Option(help="Folder of the adapter (default: none).")] = None,
) -> None:
    """Train a row once and score it on a split."""
    sample, score = load_params(SampleParams, "sample"), load_params(ScoreParams, "score")
    changes: dict[str, Any] = {"steps": steps, "seed": seed, "samples": samples}
    changes |= {"learning_rate": read_rates(rates).best}
    train = load_train(row).model_copy(update=changes)
    settings = Settings(row, load_variant(row), train, sample, score, split)
    run_once(settings, Data(data), out, adapter)


if __name__ == "__main__":
    run(main)
