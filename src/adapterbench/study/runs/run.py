"""One run of the study: an adapter trained once, and what is measured of it on one split.

The adapter and its images are deleted; what stays is a folder of a few kilobytes:
`scores.parquet`, the scores of every image; `curve.csv`, the loss over the steps; `facts.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import SampleParams, ScoreParams, TrainParams
from adapterbench.core.errors import DivergedError, one_line
from adapterbench.core.files import publish, write_json
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.load import fingerprint
from adapterbench.sampling.sampler import sample
from adapterbench.scoring.evaluator import Folders
from adapterbench.scoring.scores import load_scorer, score_samples
from adapterbench.study.runs.files import CURVE, FACTS, SCORES, Data, Facts, Mechanism, items_of
from adapterbench.study.runs.mechanism import measure_mechanism
from adapterbench.training.adapter import Trained, train_adapter


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


def run_once(settings: Settings, data: Data, out: Path, adapter: Path | None = None) -> Facts:
    """Train the adapter, score its images of a split, and write the folder `out`.

    A run that diverges has facts alone. One that is killed resumes its training.

    Args:
        adapter: where the adapter is kept; None: it is deleted.

    Raises:
        UserError: the row cannot be built, or an input is missing or does not fit the others.
    """
    params = settings.train
    with publish(out) as beside, TemporaryDirectory() as temporary:
        beside.mkdir()
        try:
            outcome = train_and_score(settings, data, adapter or Path(temporary, "adapter"), beside)
        except DivergedError as error:
            outcome = {"diverged": one_line(error)}
        facts = Facts(
            row=settings.row,
            split=settings.split,
            seed=params.seed,
            steps=params.steps,
            learning_rate=params.learning_rate,
            samples=params.samples,
            backbone=fingerprint(data.backbone),
            device=device(),
            **outcome,
        )
        write_json(beside / FACTS, facts.model_dump())
    return facts


def train_and_score(settings: Settings, data: Data, adapter: Path, folder: Path) -> dict[str, Any]:
    """Write the curve and the scores into `folder`; return what was measured.

    Raises:
        DivergedError: the training diverged.
    """
    trained, mechanism = train(settings, data, adapter)
    with TemporaryDirectory() as temporary:
        trained.write(Path(temporary, "costs.json"), folder / CURVE)
        draw_and_score(settings, data, adapter, Path(temporary, "samples"), folder / SCORES)
    costs = {name: trained.costs[name] for name in ("trainable_params", "loss", "train_seconds")}
    return costs | {"mechanism": mechanism}


def train(settings: Settings, data: Data, adapter: Path) -> tuple[Trained, Mechanism]:
    """Train into the folder `adapter`, and measure its tokens and losses.

    Raises:
        DivergedError: the training diverged.
        UserError: the row cannot be built, or an input is missing or does not fit the others.
    """
    EncodedSplit(data.encoded, settings.split)  # an unknown split ends it before the training
    inputs = data.encoded, data.backbone
    row = settings.row, settings.variant, settings.train
    trained = train_adapter(*row, *inputs, adapter, lambda *_: None)
    return trained, measure_mechanism(adapter, *inputs, settings.split)


def draw_and_score(settings: Settings, data: Data, adapter: Path, samples: Path, out: Path) -> None:
    """Generate the images of the split's items from the image prompts alone, and score them."""
    sample(
        items_of(settings.sample, data, settings.split),
        data.encoded,
        data.backbone,
        adapter,
        ["image"],
        samples,
        variant=settings.variant,
        split=settings.split,
    )
    given = settings.score, Folders(data.backbone, data.neutral_evaluator), data.shards, samples
    score_samples(load_scorer(*given, split=settings.split), samples, out)


def device() -> str:
    """What makes two runs comparable to the last digit."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
