"""Stage `report`: measure the backbone on held-out concepts, with pictures."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import write_json
from adapterbench.pretraining.report import ReportParams, report
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    pipeline: Annotated[Path, Option(help="Folder of stage unet.")],
    image_encoder: Annotated[Path, Option(help="Folder of stage clip.")],
    evaluator: Annotated[Path, Option(help="Folder of stage clip, the other seed.")],
    metrics: Annotated[Path, Option(help="JSON of the bars.")],
    out: Annotated[Path, Option(help="Folder of the report.")],
) -> None:
    """Measure the backbone on held-out concepts, with pictures."""
    params = load_params(ReportParams, "report")
    bars = report(params, shards, pipeline, [evaluator, image_encoder], out)
    write_json(metrics, bars)


if __name__ == "__main__":
    run(main)
