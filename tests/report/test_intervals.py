"""Intervals against scipy, a case worked by hand, and Gaussians of known mean."""

import numpy as np
import pytest
import scipy.stats

from adapterbench.core.errors import UserError
from adapterbench.report.intervals import bootstrap


def test_equal_to_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, (3, 50))
    lo, hi = bootstrap(values, samples=2000, confidence=0.9, seed=7)
    reference = scipy.stats.bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=2000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    np.testing.assert_allclose(lo, reference.low, rtol=0, atol=1e-12)
    np.testing.assert_allclose(hi, reference.high, rtol=0, atol=1e-12)


def test_two_items_by_hand() -> None:
    # items 0 and 1: the mean of a resample is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, so the
    # central 40 % is 1/2 alone and the central 95 % is everything
    values = np.array([[0.0, 1.0]])
    lo, hi = bootstrap(values, samples=4000, confidence=0.4, seed=0)
    assert (lo[0], hi[0]) == (0.5, 0.5)
    lo, hi = bootstrap(values, samples=4000, confidence=0.95, seed=0)
    assert (lo[0], hi[0]) == (0.0, 1.0)


def test_series_share_their_resamples() -> None:
    a, shift = np.random.default_rng(2).normal(size=30), 0.25
    lo, hi = bootstrap(np.stack([a, a + shift]), samples=300, confidence=0.95, seed=0)
    np.testing.assert_allclose(lo[1] - lo[0], shift)
    np.testing.assert_allclose(hi[1] - hi[0], shift)


def test_covers_the_mean_of_a_gaussian_as_often_as_it_says() -> None:
    rows = np.random.default_rng(3).normal(0.3, 1.0, (1000, 60))
    lo, hi = bootstrap(rows, samples=1000, confidence=0.95, seed=0)
    covered = np.mean((lo <= 0.3) & (hi >= 0.3))
    assert 0.92 < covered < 0.97
    np.testing.assert_allclose((hi - lo).mean(), 2 * 1.96 / np.sqrt(60), rtol=0.05)


def test_one_item_has_no_interval() -> None:
    with pytest.raises(UserError, match="two items or more"):
        bootstrap(np.ones((2, 1)), samples=10, confidence=0.95, seed=0)
