"""Stage `report`: measure the backbone on held-out images, with grids."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import write_json
from adapterbench.pretraining.report import ReportParams, load_evaluators, report
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of stage prepare.")],
    pipeline: Annotated[Path, Option(help="Folder of stage unet.")],
    image_encoder: Annotated[Path, Option(help="Folder of stage image_encoder.")],
    evaluator: Annotated[Path, Option(help="Folder of stage clip, the other seed.")],
    network: Annotated[Path, Option(help="Folder of stage neutral_evaluator.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
    out: Annotated[Path, Option(help="Folder of the report.")],
) -> None:
    """Measure the backbone on held-out images, with grids."""
    params = load_params(ReportParams, "report")
    clips = {"evaluator": evaluator, "image_encoder": image_encoder}
    evaluators = load_evaluators(clips, network, params.resolution)
    write_json(metrics, report(params, shards, pipeline, evaluators, out))


if __name__ == "__main__":
    run(main)
