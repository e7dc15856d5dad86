"""Stage `unet`: train text to image on the training concepts and assemble the pipeline."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.pretraining import unet
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import device, log_values, resume_file, write_metrics
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    vae: Annotated[Path, Option(help="Folder of stage vae.")],
    image_encoder: Annotated[Path, Option(help="Folder of stage clip.")],
    out: Annotated[Path, Option(help="Folder of the pipeline, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Train text to image on the training concepts and assemble the pipeline."""
    params = load_params(unet.UnetParams, "unet")
    resume = resume_file("unet", params, shards)
    autoencoder, text, tokenizer = unet.load_parts(vae, image_encoder)
    images = load_images(shards, "train", device=device())
    data = unet.versions(params, images, autoencoder, tokenizer)
    model, fitted = unet.train(params, data, text, resume, log_values)
    with publish(out) as folder:
        unet.save(autoencoder, text, tokenizer, model, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
