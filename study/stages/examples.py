"""Stage `examples`: images of a finalist, and its scores on prompts with a right answer."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import SampleParams, ScoreParams, load_params
from adapterbench.runs.program import run
from adapterbench.study.examples import ExamplesParams, Finalist, make_examples
from adapterbench.study.runs.files import Data


def main(
    out: Annotated[Path, Option(help="Folder of the images and their scores.")],
    data: Annotated[Path, Option(help="Folder `data` of the project.")],
    row: Annotated[str | None, Argument(help="A row (default: the base model alone).")] = None,
    adapter: Annotated[Path | None, Option(help="Folder of the row's adapter.")] = None,
    scores: Annotated[Path | None, Option(help="Folder of the run that scored it.")] = None,
) -> None:
    """Generate images of a finalist, and score prompts with a right answer."""
    params = load_params(ExamplesParams, "examples")
    common = load_params(SampleParams, "sample"), load_params(ScoreParams, "score")
    finalist = None
    if row and adapter and scores:
        finalist = Finalist(load_variant(row), adapter, scores)
    make_examples(params, *common, Data(data), finalist, out)


if __name__ == "__main__":
    run(main)
