"""Stage `hold_out`: choose the images that nothing is trained on, and list those with twins."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import DataParams, load_params
from adapterbench.core.files import publish, write_json
from adapterbench.pretraining.hold_out import HoldOutParams, describe, hold_out, sheet
from adapterbench.runs.program import run


def main(
    raw: Annotated[Path, Option(help="Folder of stage fetch.")],
    network: Annotated[Path, Option(help="Folder of stage neutral_evaluator, to detect twins.")],
    out: Annotated[Path, Option(help="JSON of the list, which `prepare` reads.")],
    figure: Annotated[Path, Option(help="PNG of the pairs around the threshold.")],
) -> None:
    """Choose the images that nothing is trained on, and list those with twins."""
    params = load_params(HoldOutParams, "hold_out")
    images, pixels, features = describe(load_params(DataParams, "data"), raw, network)
    held_out, pairs = hold_out(images, features, params)
    write_json(out, held_out.model_dump(mode="json"))
    with publish(figure) as beside:
        sheet(pairs, images, pixels, params.twin_cosine).save(beside, "PNG")


if __name__ == "__main__":
    run(main)
