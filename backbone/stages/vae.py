"""Stage `vae`: train the autoencoder on the training concepts."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.pretraining import vae
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import device, log_values, resume_file, write_metrics
from adapterbench.runs.program import run
from adapterbench.scoring.evaluators.timm import load_network


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    network: Annotated[Path, Option(help="Folder of the project's stage neutral_evaluator.")],
    out: Annotated[Path, Option(help="Folder of the model.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Train the autoencoder on the training concepts."""
    params = load_params(vae.VaeParams, "vae")
    resume = resume_file("vae", params, shards)
    images = load_images(shards, "train", device=device())
    features = load_network(network, images.pixels.shape[-1])
    model, fitted = vae.train(params, images, features, resume, log_values)
    held_out = load_images(shards, "validation", device=device()).pixels
    psnr = float(vae.psnr(vae.reconstruct(model, held_out), held_out).mean())
    with publish(out) as folder:
        vae.save(model, folder)
    write_metrics(metrics, fitted, resume, {"psnr": psnr})


if __name__ == "__main__":
    run(main)
