"""Stages `clip` and `evaluator`: train a CLIP."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from adapterbench.core.config import load_params
from adapterbench.core.files import publish
from adapterbench.pretraining import clip, tokenizer
from adapterbench.pretraining.images import load_images
from adapterbench.pretraining.run import device, log_values, resume_file, write_metrics
from adapterbench.runs.program import run


def main(
    name: Annotated[str, Argument(help="Section of params.yaml: clip or evaluator.")],
    shards: Annotated[Path, Option(help="Shards of the project's stage prepare.")],
    out: Annotated[Path, Option(help="Folder of the model, read by open_clip.")],
    metrics: Annotated[Path, Option(help="JSON of the metrics.")],
) -> None:
    """Train a CLIP; its tokenizer is trained on the captions of the same images."""
    params = load_params(clip.ClipParams, name)
    images, held_out = (load_images(shards, s, device=device()) for s in ("train", "validation"))
    captions = (text for texts in images.captions for text in texts)
    vocabulary = tokenizer.train(captions, params.vocab_size, params.context_length)
    resume = resume_file(name, params, shards)
    model, fitted = clip.train(params, images, vocabulary, resume, log_values, name)
    image_embeds, text_embeds = clip.embed(model, held_out, vocabulary)
    with publish(out) as folder:
        clip.save(model, params, vocabulary, folder)
    recalls = {
        f"recall_at_{k}_of_500": clip.recall(image_embeds[:500], text_embeds[:500], k)
        for k in (1, 10)
    }
    write_metrics(metrics, fitted, resume, recalls)


if __name__ == "__main__":
    run(main)
