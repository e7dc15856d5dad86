"""Stage `unet`: train text to image on the training concepts and assemble the pipeline."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.pretraining import unet
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import log_values, resume_file, write_metrics
from adapterbench.runs.program import run
from adapterbench.training.distributed import DistributedContext


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    vae: Annotated[Path, Option(help="Folder of stage vae, or of the VAE of --start.")],
    clip: Annotated[Path, Option(help="Folder of stage clip, or of the image encoder of --start.")],
    out: Annotated[Path, Option(help="Folder of the pipeline, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
    start: Annotated[Path | None, Option(help="Pipeline to train from unet.first_step on.")] = None,
) -> None:
    """Train text to image on the training concepts and assemble the pipeline."""
    params = load_params(unet.UnetParams, "unet")
    autoencoder, text, tokenizer, model = unet.load_parts(params, vae, clip, start)
    context = DistributedContext(params.mixed_precision)
    resume = resume_file("unet", params, shards, *filter(None, [start]))
    images = load_images(shards, "train", device=context.device)
    data = unet.versions(params, images, autoencoder, tokenizer)
    model, fitted = unet.train(params, data, text, resume, log_values, context, model)
    with publish(out) as folder:
        unet.save(autoencoder, text, tokenizer, model, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
