"""Stage `unet`: train text to image on the training concepts and assemble the pipeline."""

from pathlib import Path
from typing import Annotated

from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer
from typer import Option

from adapterbench.backbone.load import load_clip
from adapterbench.backbone.recipes import clip, unet
from adapterbench.backbone.recipes.pictures import load_pictures
from adapterbench.backbone.recipes.run import log_values, resume_file, write_metrics
from adapterbench.config import load_params
from adapterbench.files import publish
from adapterbench.stage import run


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    vae: Annotated[Path, Option(help="Folder of stage vae.")],
    image_encoder: Annotated[Path, Option(help="Folder of stage clip.")],
    out: Annotated[Path, Option(help="Folder of the pipeline, diffusers layout.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Train text to image on the training concepts and assemble the pipeline."""
    params = load_params(unet.UnetParams, "unet")
    tokenizer = CLIPTokenizer.from_pretrained(image_encoder)
    text = clip.text_model(load_clip(f"local-dir:{image_encoder}", None).model, tokenizer)
    autoencoder = AutoencoderKL.from_pretrained(vae)
    data = unet.encode(load_pictures(shards, "train"), autoencoder, text, tokenizer)
    resume = resume_file("unet", params, shards)
    model, fitted = unet.train(params, data, resume, log_values)
    pipeline = StableDiffusionPipeline(
        autoencoder,
        text,
        tokenizer,
        model,
        unet.schedule(),
        None,
        None,
        requires_safety_checker=False,
    )
    with publish(out) as folder:
        unet.save(pipeline, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
