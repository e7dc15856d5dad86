"""Two ways of doing the same work, timed in turns, so that a drifting machine slows both alike."""

import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

Turn = Callable[[int], float]
"""Number of a turn -> work done a second in it."""


def timed(work: Callable[[int], int]) -> Turn:
    """A turn from what does the work of one and says how much it was."""

    def turn(number: int) -> float:
        began = time.perf_counter()
        done = work(number)
        return done / (time.perf_counter() - began)

    return turn


def compare(
    title: str, unit: str, turns: Mapping[str, Turn], rounds: int
) -> dict[str, list[float]]:
    """Warm up, let the ways take turns, print their speeds and the ratios; the speeds of each.

    Args:
        turns: by the name of the way; ours first.
        rounds: timed turns of each.
    """
    for turn in turns.values():
        turn(0)
    speeds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(1, rounds + 1):
        for name, turn in turns.items():
            speeds[name].append(turn(number))
    table = Table(title=title)
    for column in (
        "way",
        f"{unit} (median)",
        "min",
        "max",
        "ours is faster by (median)",
        "from to",
    ):
        table.add_column(column)
    ours = next(iter(speeds.values()))
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        table.add_row(
            name,
            *(f"{f(values):.3g}" for f in (statistics.median, min, max)),
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    Console(width=120).print(table)
    return speeds
