"""Images a second of scoring: each image, text and reference once against the loop people write.

The peer embeds a generated image, its caption and its reference anew for every image, one at a
time, with both evaluators; ours embeds each once, in batches, and computes KID, precision, recall
and diversity besides.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn import functional as F
from turns import compare, timed

from adapterbench.core.config import ScoreParams, load_params
from adapterbench.formats.generated import decode_images, find_tars, read_names
from adapterbench.runs.memory import keep_freed_memory
from adapterbench.scoring.evaluator import Folders
from adapterbench.scoring.scores import Scorer, load_scorer, score_samples


def main(
    samples: Annotated[Path, typer.Option(help="Folder of stage sample.")] = Path(
        "samples/ip_adapter"
    ),
    data: Annotated[Path, typer.Option(help="Folder of shards and networks.")] = Path("data"),
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 3,
) -> None:
    """Compare the two ways of scoring; needs what `dvc repro sample` leaves."""
    keep_freed_memory()  # as every stage does
    folders = Folders(backbone=data / "backbone", evaluator=data / "neutral_evaluator")
    scorer = load_scorer(load_params(ScoreParams, "score"), folders, data / "shards", samples)
    ways = {
        "each once, in batches (ours)": timed(lambda _: ours(scorer, samples)),
        "all anew, one by one": timed(lambda _: theirs(scorer, samples)),
    }
    count = sum(len(read_names(tar)) for tar in find_tars(samples))
    title = (
        f"Scoring {count} images of {len(scorer.items)} items, {torch.get_num_threads()} threads"
    )
    compare(title, "images/s", ways, rounds)


def ours(scorer: Scorer, samples: Path) -> int:
    """What stage `score` does for one method; references and texts are embedded anew, too."""
    with tempfile.TemporaryDirectory() as folder:
        return len(score_samples(replace(scorer), samples, Path(folder) / "scores.parquet"))


def theirs(scorer: Scorer, samples: Path) -> int:
    """The same cosines, image by image."""
    scores = []
    assert scorer.clip.text_embeds
    assert scorer.neutral
    items = {item.key: item for item in scorer.items}
    for tar in find_tars(samples):
        for key, k in read_names(tar):
            item, image = items[key], decode_images(tar, [key], k)[0]
            seen = scorer.clip.image_embeds([image])
            text = scorer.clip.text_embeds([item.captions[0]])
            reference = scorer.clip.image_embeds([item.image])
            neutral = scorer.neutral.image_embeds([image])
            neutral_reference = scorer.neutral.image_embeds([item.image])
            pairs = ((seen, text), (seen, reference), (neutral, neutral_reference))
            scores.append([F.cosine_similarity(a, b).item() for a, b in pairs])
    return len(scores)


if __name__ == "__main__":
    typer.run(main)
