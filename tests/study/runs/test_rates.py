"""The choice of a learning rate."""

from dataclasses import replace
from pathlib import Path

import pytest

from adapterbench.core.errors import UserError
from adapterbench.study.runs.files import Data, RatesParams
from adapterbench.study.runs.rates import best_of, read_rates, sweep
from adapterbench.study.runs.run import Settings, train


def test_every_rate_is_run_and_the_best_is_named(
    data: Data, settings: Settings, workplace: Path
) -> None:
    params = RatesParams(steps=2, learning_rates=(1e-3, 1e20))
    rates = sweep(params, settings, data, workplace / "rates")
    assert rates == read_rates(workplace / "rates")
    assert rates.best == 1e-3
    changed = settings.train.model_copy(update={"learning_rate": 1e-3, "steps": 2})
    _, mechanism = train(replace(settings, train=changed), data, workplace / "adapter")
    assert rates.losses == {"0.001": mechanism.unseen_loss, "1e+20": None}


def test_the_best_has_the_lowest_loss() -> None:
    assert best_of("row", {"0.1": 0.5, "0.2": 0.4, "0.3": None}) == 0.2
    with pytest.raises(UserError, match=r"row diverged at every learning rate \(0.3\)"):
        best_of("row", {"0.3": None})
