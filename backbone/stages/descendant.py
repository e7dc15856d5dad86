"""Stage `descendant`: fine-tune the backbone to another style of drawing."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.pretraining import descendant
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.openmoji import redrawn
from adapterbench.pretraining.run import device, log_values, resume_file, write_metrics
from adapterbench.runs.program import run


def main(
    name: Annotated[str, Argument(help="Section of params.yaml, such as openmoji_color.")],
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    drawings: Annotated[Path, Option(help="Package of stage openmoji.")],
    backbone: Annotated[Path, Option(help="Folder of the project's stage backbone.")],
    out: Annotated[Path, Option(help="Folder of the LoRA, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Fine-tune the backbone on the training concepts, drawn in another style."""
    params = load_params(descendant.DescendantParams, name)
    resume = resume_file(name, params, shards)
    images = redrawn(load_images(shards, "train", device=device()), drawings, params.style)
    unet, fitted = descendant.train(params, images, backbone, resume, log_values)
    with publish(out) as folder:
        descendant.save(unet, folder)
    write_metrics(metrics, fitted, resume, {"images": len(images)})


if __name__ == "__main__":
    run(main)
