"""Bootstrap intervals of means over items, paired across methods."""

import numpy as np
import numpy.typing as npt

from adapterbench.core.errors import UserError

Floats = npt.NDArray[np.float64]


def bootstrap(
    values: Floats, *, samples: int, confidence: float, seed: int
) -> tuple[Floats, Floats]:
    """Percentile bootstrap interval of the mean of each row of `values`.

    Items are resampled with replacement. An item's K images must be averaged first: they share a
    reference and are not independent. All rows use the same resamples, so the intervals of several
    methods and of their differences are paired.

    Args:
        values: `(M, N)`, one series per row, one item per column.
        samples: number of resamples.
        confidence: coverage, such as 0.95.
        seed: seed of the resampling.

    Returns:
        Lower and upper ends, `(M,)` each.

    Raises:
        UserError: there are fewer than two items.
    """
    items = values.shape[1]
    if items < 2:
        raise UserError(f"an interval needs two items or more, not {items}: raise sample.items")
    rng = np.random.default_rng(seed)
    means = np.empty((samples, len(values)))
    for row in means:
        times_drawn = np.bincount(rng.integers(0, items, items), minlength=items)
        row[:] = values @ times_drawn / items
    tail = (1 - confidence) / 2
    lo, hi = np.quantile(means, [tail, 1 - tail], axis=0)
    return lo, hi
