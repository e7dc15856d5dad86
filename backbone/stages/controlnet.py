"""Stage `controlnet`: train a ControlNet for edge maps on the training concepts."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.pretraining import controlnet, unet
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import device, log_values, resume_file, write_metrics
from adapterbench.runs.program import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of the project's stage backbone.")],
    out: Annotated[Path, Option(help="Folder of the model, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Train a ControlNet for edge maps on the training concepts."""
    params = load_params(controlnet.ControlNetParams, "controlnet")
    resume = resume_file(f"controlnet-{fingerprint(backbone)[:16]}", params, shards)
    images = load_images(shards, "train", device=device())
    parts = [load_part(backbone, part) for part in ("vae", "text_encoder", "tokenizer")]
    data, controls = unet.encode(images, *parts), controlnet.edges(images)
    model, fitted = controlnet.train(params, backbone, data, controls, resume, log_values)
    with publish(out) as folder:
        controlnet.save(model, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
