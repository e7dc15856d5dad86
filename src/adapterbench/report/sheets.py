"""Tables of text, ready for Markdown or HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from adapterbench.report.findings import amount, interval, significance_sign
from adapterbench.report.methods import BASELINES
from adapterbench.report.metrics import (
    CLIP_T,
    COSTS,
    SCORES,
    SETS,
    TRAINABLE,
    Metric,
    clip_score,
    count_text,
)
from adapterbench.report.table import Comparison


@dataclass(frozen=True, slots=True)
class Sheet:
    """A header and rows of the same length; the first columns hold names, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    """How many leading columns are names."""
    baselines: int = 0
    """How many closing rows are floors and ceiling."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Cells `(row, column)` that no other variant's exceeds."""

    def markdown(self) -> str:
        """The table in GitHub's Markdown, names to the left and numbers to the right."""
        marks = [":---"] * self.names + ["---:"] * (len(self.header) - self.names)
        rows = [
            [f"**{cell}**" if (r, c) in self.best else cell for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]
        lines = [self.header, marks, *rows]
        return "\n".join("| " + " | ".join(cell_text(line)) + " |" for line in lines)


def cell_text(cells: Sequence[str]) -> list[str]:
    """Cells with the bar escaped, which would end them."""
    return [cell.replace("|", "\\|") for cell in cells]


def headline(comparison: Comparison) -> Sheet:
    """The columns of the original study, those of the neutral evaluator, and CLIPScore.

    Scores stand with their intervals; what was measured of no method has no column.
    """
    rows, sets = [], [metric for metric in SETS if comparison.rows[metric.key].notna().any()]
    for row in comparison.rows.to_dict("records"):
        scores = [interval(comparison, row["method"], metric) for metric in SCORES]
        scaled = CLIP_T.text(clip_score(row[CLIP_T.key]))
        size = count_text(int(row[TRAINABLE.key]))
        joint = [metric.text(row[metric.key]) for metric in sets]
        rows.append([comparison.label(row["method"]), size, *scores, *joint, scaled])
    labels = [metric.label for metric in (*SCORES, *sets)]
    header = ["Method", TRAINABLE.label, *labels, "CLIPScore"]
    return Sheet(header, rows, baselines=len(BASELINES), best=best_cells(comparison, 2, SCORES))


def best_cells(
    comparison: Comparison, first: int, metrics: Sequence[Metric]
) -> frozenset[tuple[int, int]]:
    """The cells of the variants that are best by a metric, whose columns begin at `first`."""
    found = set()
    for column, metric in enumerate(metrics, first):
        values = [metric.sign * comparison.row(v)[metric.key] for v in comparison.variants]
        found |= {(row, column) for row, value in enumerate(values) if value == max(values)}
    return frozenset(found)


def costs(comparison: Comparison) -> Sheet:
    """What each variant cost to train."""
    frame = comparison.rows[~comparison.rows["method"].isin(list(BASELINES))]
    rows = [
        [
            comparison.label(row["method"]),
            f"{int(row[TRAINABLE.key]):,}",
            *(cost.text(row[cost.key]) for cost in COSTS),
        ]
        for row in frame.to_dict("records")
    ]
    header = ["Method", TRAINABLE.label, *(cost.heading for cost in COSTS)]
    return Sheet(header, rows, best=best_cells(comparison, 1, [TRAINABLE, *COSTS]))


def paired(comparison: Comparison) -> Sheet:
    """Each pair of methods, a row; a difference that is not apart from zero is marked."""
    pairs = comparison.paired[["method", "baseline"]].drop_duplicates()
    ordered = pairs.assign(
        method=pd.Categorical(pairs["method"], categories=comparison.variants)
    ).sort_values("method", kind="stable")
    rows = []
    for method, baseline in ordered.itertuples(index=False):
        cells = [
            amount(comparison, method, baseline, metric)
            + ("" if significance_sign(comparison, method, baseline, metric) else " (n.s.)")
            for metric in SCORES
        ]
        rows.append([comparison.label(method), comparison.label(baseline), *cells])
    header = ["Method", "minus", *(metric.label for metric in SCORES)]
    return Sheet(header, rows, names=2)
