"""What the runs read and write: parameters, folders of the project, and the files of a run."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import FiniteFloat

from adapterbench.core.config import Count, SampleParams, Section
from adapterbench.core.documents import Document, read_document
from adapterbench.formats.encoded import EncodedSplit

SCORES, CURVE, FACTS = "scores.parquet", "curve.csv", "facts.json"
"""Scores of every image, loss over the steps, and `Facts`, in the folder of a run."""

NEAREST = "nearest.parquet"
"""Beside the floors. `key, cosine`: of each image of the split, to the nearest training image."""

CHOSEN, WORST, REFERENCES = "chosen.tar", "worst.tar", "references.tar"
"""Images of a finalist: the first items, those with the lowest scores; all real images shown."""


class RatesParams(Section):
    """The sweep, the same for every row."""

    steps: Count
    learning_rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """Output folders of the project's stages, which all runs read."""

    root: Path
    """The project's folder `data`."""

    @property
    def encoded(self) -> Path:
        """Of stage `encode`."""
        return self.root / "encoded"

    @property
    def shards(self) -> Path:
        """Of stage `prepare`."""
        return self.root / "shards"

    @property
    def backbone(self) -> Path:
        """Of stage `backbone`."""
        return self.root / "backbone"

    @property
    def neutral_evaluator(self) -> Path:
        """Of stage `neutral_evaluator`."""
        return self.root / "neutral_evaluator"


def items_of(params: SampleParams, data: Data, split: str) -> SampleParams:
    """`params` with no more items than the split has."""
    items = min(params.items, len(EncodedSplit(data.encoded, split)))
    return params.model_copy(update={"items": items})


class Mechanism(Document):
    """Measurements on training images and on images of the scored split."""

    token_norm: FiniteFloat
    """Mean L2 norm of an image token, unseen images."""
    token_rank: FiniteFloat
    """Effective rank of the tokens of unseen images, see `effective_rank`."""
    seen_loss: FiniteFloat
    """Denoising loss from the image prompt alone, training images."""
    unseen_loss: FiniteFloat
    """The same on images of the scored split; the difference is the over-fit."""


class Facts(Document):
    """Content of `facts.json`."""

    row: str
    split: str
    seed: int
    steps: int
    learning_rate: FiniteFloat
    samples: int | None
    """Training images in use; None: all."""
    backbone: str
    """Digest of the base model."""
    device: str
    """Kind of the device and, of a CPU, its vector instructions and the number of threads."""
    trainable_params: int | None = None
    loss: FiniteFloat | None = None
    train_seconds: FiniteFloat | None = None
    mechanism: Mechanism | None = None
    diverged: str | None = None
    """Why there are no scores; None: there are."""


def read_facts(folder: Path) -> Facts:
    """Read the facts of a run.

    Raises:
        UserError: they are missing or damaged.
    """
    return read_document(Facts, folder / FACTS, "the facts of a run of the study")
