"""Stage `image_encoder`: tune a CLIP's image tower to the pipeline's text encoder."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.frozen.load import load_clip, load_part
from adapterbench.pretraining import clip
from adapterbench.pretraining.image_encoder import TuneParams, tune
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import log_values, resume_file, write_metrics
from adapterbench.runs.program import run
from adapterbench.training.distributed import DistributedContext


def main(
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    start: Annotated[Path, Option("--clip", help="Folder of stage clip.")],
    pipeline: Annotated[Path, Option(help="Folder of stage unet.")],
    out: Annotated[Path, Option(help="Folder of the model, read by open_clip.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Tune a CLIP's image tower to the pipeline's text encoder."""
    params = load_params(TuneParams, "image_encoder")
    context = DistributedContext(params.mixed_precision)
    images = load_images(shards, "train", device=context.device)
    model = load_clip(f"local-dir:{start}", None).model
    text, tokenizer = (load_part(pipeline, part) for part in ("text_encoder", "tokenizer"))
    resume = resume_file("image_encoder", params, shards, start, pipeline)
    fitted = tune(params, images, model, text, tokenizer, resume, log_values, context)
    with publish(out) as folder:
        clip.save(model, load_params(clip.ClipParams, "clip"), tokenizer, folder)
    write_metrics(metrics, fitted, resume, {})


if __name__ == "__main__":
    run(main)
