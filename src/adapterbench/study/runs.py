"""One run of the study: an adapter trained once, and what is measured of it on one split.

The adapter and its images are deleted; what stays is a folder of a few kilobytes:
`scores.parquet`, the scores of every image; `curve.csv`, the loss over the steps; `facts.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import FiniteFloat

from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import SampleParams, ScoreParams, TrainParams
from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import DivergedError, one_line
from adapterbench.core.files import publish, write_json
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.load import fingerprint
from adapterbench.sampling.sampler import sample
from adapterbench.scoring.evaluator import Folders
from adapterbench.scoring.scores import load_scorer, score_samples
from adapterbench.study.mechanism import Mechanism, measure_mechanism
from adapterbench.training.adapter import train_adapter
from adapterbench.training.loop import OnLog

SCORES, CURVE, FACTS = "scores.parquet", "curve.csv", "facts.json"


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
    def folders(self) -> Folders:
        """Of stages `backbone` and `neutral_evaluator`."""
        return Folders(self.root / "backbone", self.root / "neutral_evaluator")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one run is made."""

    row: str
    """Name of the variant."""
    variant: Variant
    train: TrainParams
    sample: SampleParams
    score: ScoreParams
    split: str
    """Whose items are generated and scored."""


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


def run_once(settings: Settings, data: Data, out: Path, on_log: OnLog) -> Facts:
    """Train the adapter, score its images of a split, and write the folder `out`.

    A run that diverges has facts alone. One that is killed resumes its training.

    Raises:
        UserError: the row cannot be built, or an input is missing or does not fit the others.
    """
    params = settings.train
    EncodedSplit(data.encoded, settings.split)  # an unknown split ends it before the training
    with publish(out) as beside:
        beside.mkdir()
        try:
            outcome = train_and_score(settings, data, beside, on_log)
        except DivergedError as error:
            outcome = {"diverged": one_line(error)}
        facts = Facts(
            row=settings.row,
            split=settings.split,
            seed=params.seed,
            steps=params.steps,
            learning_rate=params.learning_rate,
            samples=params.samples,
            backbone=fingerprint(data.folders.backbone),
            device=device(),
            **outcome,
        )
        write_json(beside / FACTS, facts.model_dump())
    return facts


def train_and_score(settings: Settings, data: Data, folder: Path, on_log: OnLog) -> dict[str, Any]:
    """Write the curve and the scores into `folder`; return what was measured.

    Raises:
        DivergedError: the training diverged.
    """
    inputs = data.encoded, data.folders.backbone
    with TemporaryDirectory() as temporary:
        adapter, samples = Path(temporary, "adapter"), Path(temporary, "samples")
        trained = train_adapter(
            settings.row, settings.variant, settings.train, *inputs, adapter, on_log
        )
        trained.write(Path(temporary, "costs.json"), folder / CURVE)
        mechanism = measure_mechanism(adapter, *inputs, settings.split)
        draw_and_score(settings, data, adapter, samples, folder / SCORES)
    costs = {name: trained.costs[name] for name in ("trainable_params", "loss", "train_seconds")}
    return costs | {"mechanism": mechanism}


def draw_and_score(settings: Settings, data: Data, adapter: Path, samples: Path, out: Path) -> None:
    """Generate the images of the split's items from the image prompts alone, and score them."""
    items = min(settings.sample.items, len(EncodedSplit(data.encoded, settings.split)))
    sample(
        settings.sample.model_copy(update={"items": items}),
        data.encoded,
        data.folders.backbone,
        adapter,
        ["image"],
        samples,
        variant=settings.variant,
        split=settings.split,
    )
    given = settings.score, data.folders, data.shards, samples
    score_samples(load_scorer(*given, split=settings.split), samples, out)


def device() -> str:
    """What makes two runs comparable to the last digit."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def read_facts(folder: Path) -> Facts:
    """Read the facts of a run.

    Raises:
        UserError: they are missing or damaged.
    """
    return read_document(Facts, folder / FACTS, "the facts of a run of the study")
