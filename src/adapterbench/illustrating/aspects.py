"""Scores of what an image takes from its image prompt: colour, shape and concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from adapterbench.formats.generated import decode_images
from adapterbench.report.metrics import COLOUR, CONCEPT, SHAPE
from adapterbench.scoring.evaluator import Evaluator
from adapterbench.scoring.measures import cosine
from adapterbench.scoring.pixels import colour_distance, edge_f1_of


@dataclass(frozen=True)
class AspectScorer:
    """The reference images of some items, and the neutral evaluator."""

    references: Mapping[str, Image.Image]
    """By key."""
    neutral: Evaluator

    @cached_property
    def embeds(self) -> dict[str, Float[Tensor, " dim"]]:
        """Neutral embeddings of the reference images, `(D,)` each, by key."""
        vectors = self.neutral.images(list(self.references.values()))
        return dict(zip(self.references, vectors, strict=True))

    def __call__(self, tar: Path, keys: Sequence[str]) -> pd.DataFrame:
        """Scores of the image of each key in a tar: a row per key, a column per aspect.

        Raises:
            UserError: the tar is missing or damaged, or lacks an image.
        """
        images, references = decode_images(tar, keys), [self.references[key] for key in keys]
        expected = torch.stack([self.embeds[key] for key in keys])
        scores = {
            COLOUR: -colour_distance(images, references),
            SHAPE: edge_f1_of(images, references),
            CONCEPT: cosine(self.neutral.images(images), expected),
        }
        columns = {aspect.key: values.tolist() for aspect, values in scores.items()}
        return pd.DataFrame(columns, index=list(keys))
