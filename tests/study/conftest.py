from pathlib import Path

import pytest
from toy_backbone import SAMPLE, VARIANT, Toy
from training.test_adapter import train_params

from adapterbench.adapters.core.variant import parse_variant
from adapterbench.study.runs.files import Data
from adapterbench.study.runs.run import Settings


@pytest.fixture
def data(toy: Toy, workplace: Path) -> Data:
    """The toy project's folders under the names that the study expects."""
    root = workplace / "data"
    root.mkdir()
    for name in ("encoded", "shards", "backbone", "neutral_evaluator"):
        (root / name).symlink_to(toy.root / name)
    return Data(root)


@pytest.fixture
def settings(toy: Toy) -> Settings:
    """A run of two steps on the validation split."""
    sample = SAMPLE.model_copy(update={"items": 100})
    variant, params = parse_variant(VARIANT), train_params(steps=2)
    return Settings("toy", variant, params, sample, toy.score_params(), "validation")
