"""The choice of a learning rate."""

from pathlib import Path

import pytest

from adapterbench.core.errors import UserError
from adapterbench.study.rates import RatesParams, best_of, read_rates, sweep
from adapterbench.study.runs import Data, Settings, read_facts


def test_every_rate_is_run_and_the_best_is_named(
    data: Data, settings: Settings, workplace: Path
) -> None:
    params = RatesParams(steps=2, learning_rates=(1e-3, 1e20))
    rates = sweep(params, settings, data, workplace / "rates")
    assert rates == read_rates(workplace / "rates")
    assert rates.best == 1e-3
    assert rates.scores["1e+20"] is None
    assert set(rates.scores["0.001"] or {}) == {"clip_i", "neutral", "r_at_1"}
    facts = read_facts(workplace / "rates" / "0.001")
    assert (facts.learning_rate, facts.steps) == (1e-3, 2)


def test_the_best_has_the_highest_mean_of_both_judges() -> None:
    means: dict[str, dict[str, float] | None] = {
        "0.1": {"clip_i": 0.5, "neutral": 0.3, "r_at_1": 0.9},
        "0.2": {"clip_i": 0.4, "neutral": 0.5, "r_at_1": 0.0},
        "0.3": None,
    }
    assert best_of("row", means) == 0.2
    with pytest.raises(UserError, match=r"row diverged at every learning rate \(0.3\)"):
        best_of("row", {"0.3": None})
