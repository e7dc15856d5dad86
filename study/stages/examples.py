"""Stage `examples`: images of a finalist, and its scores on prompts with a right answer."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import SampleParams, ScoreParams, load_params
from adapterbench.core.errors import UserError
from adapterbench.runs.program import run
from adapterbench.study.examples import ExamplesParams, Finalist, make_examples
from adapterbench.study.runs.files import Data


def main(
    out: Annotated[Path, Option(help="Folder of the images and their scores.")],
    data: Annotated[Path, Option(help="Folder `data` of the project.")],
    adapter: Annotated[Path | None, Option(help="An adapter (default: the base alone).")] = None,
    scores: Annotated[Path | None, Option(help="Folder of the run that scored it.")] = None,
) -> None:
    """Generate images of a finalist, and score prompts with a right answer."""
    params = load_params(ExamplesParams, "examples")
    common = load_params(SampleParams, "sample"), load_params(ScoreParams, "score")
    if bool(adapter) != bool(scores):
        raise UserError("--adapter and --scores belong together: give both, or none")
    finalist = Finalist(adapter, scores) if adapter and scores else None
    make_examples(params, *common, Data(data), finalist, out)


if __name__ == "__main__":
    run(main)
