"""Intervals and tests of paired differences over items and seeds.

A difference has two sources of chance: which items were scored, and which seeds were trained with.
Items are many and are resampled. Seeds are few, and a bootstrap of three values is too narrow, so
they enter by the variance of their means and a t distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from adapterbench.core.errors import UserError
from adapterbench.report.intervals import Floats

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error."""

    mean: float
    error: float
    """Standard error over items and seeds."""
    freedom: float
    """Degrees of freedom of its t distribution."""

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval."""
        half = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def p_different(self) -> float:
        """p value of the hypothesis that the mean is zero, two-sided."""
        return 2 * self.tail(abs(self.mean))

    def p_not_worse(self, margin: float) -> float:
        """p value of the hypothesis that the mean is `-margin` or less, one-sided."""
        return self.tail(self.mean + margin)

    def tail(self, distance: float) -> float:
        """Probability that chance alone exceeds a distance."""
        if not self.error:  # all differences are equal, such as an R@1 of 0 in both rows
            return 0.5 * (1 - float(np.sign(distance)))
        return float(stats.t.sf(distance / self.error, self.freedom))

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float:
        """The true difference that a two-sided test at `level` finds with this probability."""
        quantiles = stats.t.ppf([1 - level / 2, power], self.freedom)
        return float(quantiles.sum()) * self.error

    def power(self, margin: float, level: float = 0.05) -> float:
        """Probability that a true difference of zero is found not worse by `margin`."""
        critical = stats.t.ppf(1 - level, self.freedom)
        return float(stats.nct.sf(critical, self.freedom, margin / self.error))


def estimate(differences: Floats, seed: int = 0) -> Estimate:
    """The mean of paired differences, `(S, N)` for S seeds and N items.

    The variance is that of the mean over resampled items plus that of the mean over seeds, with
    Satterthwaite's degrees of freedom. With one seed it is that over items alone.

    Raises:
        UserError: there are fewer than two items.
    """
    seeds, items = differences.shape
    if items < 2:
        raise UserError(f"an interval needs two items or more, not {items}: raise sample.items")
    per_item = differences.mean(axis=0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, items, (RESAMPLES, items))
    parts = [(float(per_item[drawn].mean(axis=1).var(ddof=1)), items - 1)]
    if seeds > 1:
        parts.append((float(differences.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / squares if squares else float(items - 1)
    return Estimate(float(differences.mean()), variance**0.5, freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for a family of tests (Holm 1979), in the given order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - place) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected
