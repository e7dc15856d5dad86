"""Stage `edges`: measure on held-out concepts whether the ControlNet is followed."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import write_json
from adapterbench.pretraining.drawing import DrawParams
from adapterbench.pretraining.edges import measure
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of the project's stage backbone.")],
    controlnet: Annotated[Path, Option(help="Folder of stage controlnet.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
    out: Annotated[Path, Option(help="PNG: edge maps, images without control, with it.")],
) -> None:
    """Measure on held-out images how well the ControlNet's edges are followed."""
    params = load_params(DrawParams, "edges")
    write_json(metrics, measure(params, shards, backbone, controlnet, out))


if __name__ == "__main__":
    run(main)
