"""What bounds the scores of a split: floors, real images, and how near training images come."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
import torch.nn.functional as F

from adapterbench.core.config import SampleParams, ScoreParams
from adapterbench.core.files import publish
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.frames import write_frame
from adapterbench.sampling.sampler import sample
from adapterbench.scoring.scores import score_methods
from adapterbench.study.runs.files import NEAREST, Data, items_of

PROTOCOLS = {"no_prompt": "image", "text_only": "image_text"}
"""Floor -> protocol whose prompts the base model gets, without an adapter."""


def measure_floors(
    sampling: SampleParams, scoring: ScoreParams, data: Data, split: str, out: Path
) -> None:
    """Write `out/<method>.parquet` of floors and real images, and `NEAREST`.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    params = items_of(sampling, data, split)
    with publish(out) as beside, TemporaryDirectory() as temporary:
        beside.mkdir()
        samples = [Path(temporary, name) for name in PROTOCOLS]
        for folder, protocol in zip(samples, PROTOCOLS.values(), strict=True):
            inputs = data.encoded, data.backbone, None
            sample(params, *inputs, [protocol], folder, split=split)
        networks = data.backbone, data.neutral_evaluator
        score_methods(scoring, samples, data.shards, *networks, split, beside)
        write_frame(nearest(data.encoded, split), beside / NEAREST)


def nearest(encoded: Path, split: str) -> pd.DataFrame:
    """Cosine of each image's embedding to that of the nearest training image."""
    images, training = (embeddings(EncodedSplit(encoded, name)) for name in (split, "train"))
    keys = [sample["key"] for sample in EncodedSplit(encoded, split).samples]
    return pd.DataFrame({"key": keys, "cosine": (images @ training.T).amax(dim=1).double()})


def embeddings(data: EncodedSplit) -> torch.Tensor:
    """Unit embeddings `(N, c)` of all images."""
    return F.normalize(data.gather(torch.arange(len(data)), torch.zeros(len(data))).image_embeds)
