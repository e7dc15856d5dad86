"""Intervals over items and seeds against simulation, and corrections against the literature."""

import numpy as np
import pytest
from scipy import stats

from adapterbench.core.errors import UserError
from adapterbench.study.answers.statistics import Estimate, estimate, holm


def test_an_interval_covers_what_it_says() -> None:
    """Differences with chance in items and in three seeds, 600 experiments."""
    rng = np.random.default_rng(0)
    covered = []
    for experiment in range(600):
        of_seed = rng.normal(0, 0.03, (3, 1))
        of_item = rng.normal(0, 0.2, (1, 64))
        differences = 0.05 + of_seed + of_item + rng.normal(0, 0.1, (3, 64))
        low, high = estimate(differences, experiment).interval()
        covered.append(low <= 0.05 <= high)
    assert 0.93 <= np.mean(covered) <= 0.99


def test_one_seed_is_the_interval_over_items() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.2, (1, 400))
    found = estimate(values)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values[0]))
    np.testing.assert_allclose(found.interval(), expected, rtol=0.03)
    assert found.p_different() == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue, rel=0.5)


def test_three_equal_items_leave_the_seeds() -> None:
    """Where all items agree, it is the t interval over the seeds' means."""
    seeds = np.array([0.1, 0.2, 0.4])
    found = estimate(np.repeat(seeds[:, None], 50, axis=1))
    expected = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    np.testing.assert_allclose(found.interval(), expected, rtol=1e-9)


def test_not_worse_is_one_sided() -> None:
    one = Estimate(mean=-0.01, error=0.01, freedom=30)
    assert one.p_not_worse(0.03) == pytest.approx(stats.t.sf(2, 30))
    assert one.p_not_worse(0.01) == pytest.approx(0.5)


def test_equal_differences_leave_no_doubt() -> None:
    """R@1 may be 0 for every item in both rows."""
    none, all_equal = estimate(np.zeros((3, 8))), estimate(np.full((3, 8), -0.1))
    assert (none.interval(), none.p_different(), none.p_not_worse(0.05)) == ((0, 0), 1, 0)
    assert (all_equal.p_different(), all_equal.p_not_worse(0.05)) == pytest.approx((0, 1), abs=1e-9)


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    size = Estimate(0, 0.2 / 64**0.5, 63).detectable(power=0.8)
    samples = rng.normal(size, 0.2, (2000, 64))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_the_power_is_how_often_an_equal_row_is_found_not_worse() -> None:
    rng = np.random.default_rng(3)
    expected = Estimate(0, 0.2 / 64**0.5, 63).power(margin=0.06)
    samples = rng.normal(0, 0.2, (2000, 64))
    found = stats.ttest_1samp(samples, -0.06, axis=1, alternative="greater").pvalue < 0.05
    assert found.mean() == pytest.approx(expected, abs=0.03)
    assert Estimate(0, 0.025, 63).power(margin=1e-9) == pytest.approx(0.05)


def test_holm_by_hand() -> None:
    """The example in R's documentation of p.adjust would order so: 4 x .01, 3 x .02, .03 x 2."""
    assert holm([0.02, 0.01, 0.03, 0.9]) == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_item_is_no_interval() -> None:
    with pytest.raises(UserError, match="two items or more, not 1"):
        estimate(np.zeros((3, 1)))
