"""Stage `unet`: train text to image on the training concepts and assemble the pipeline."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.pretraining import unet
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import log_values, resume_file, write_metrics
from adapterbench.runs.program import run
from adapterbench.training.distributed import DistributedContext


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    vae: Annotated[Path, Option(help="Folder of stage vae.")],
    image_encoder: Annotated[Path, Option(help="Folder of stage clip.")],
    out: Annotated[Path, Option(help="Folder of the pipeline, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
    start: Annotated[
        Path | None,
        Option(
            help="Folder of a pipeline, such as ../pins/emoji, whose UNet and text encoder go "
            "on from unet.first_step; --vae is then its vae. Default: from scratch."
        ),
    ] = None,
) -> None:
    """Train text to image on the training concepts and assemble the pipeline."""
    params = load_params(unet.UnetParams, "unet")
    if params.first_step >= params.steps or (params.first_step and not start):
        raise UserError(
            f"unet.first_step is {params.first_step:,}: it must be below unet.steps "
            f"({params.steps:,}), and 0 without --start"
        )
    autoencoder, text, tokenizer = unet.load_parts(vae, image_encoder)
    model, name = None, "unet"
    if start:
        text, model = (load_part(start, part) for part in ("text_encoder", "unet"))
        name = f"unet-{fingerprint(start)[:16]}"
    resume = resume_file(name, params, shards)
    context = DistributedContext(params.mixed_precision)
    images = load_images(shards, "train", device=context.device)
    data = unet.versions(params, images, autoencoder, tokenizer)
    model, fitted = unet.train(params, data, text, resume, log_values, context, model)
    with publish(out) as folder:
        unet.save(autoencoder, text, tokenizer, model, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
