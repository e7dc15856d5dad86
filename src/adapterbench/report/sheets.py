"""Tables of text for Markdown and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from adapterbench.report.findings import amount, interval, significance_sign
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
    """A table of text: the first columns are names, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    """Number of leading columns with names."""
    baselines: int = 0
    """Number of closing rows of methods without an adapter."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Cells `(row, column)` with the best value of a column."""

    def markdown(self) -> str:
        """The table in GitHub's Markdown: names left-aligned, numbers right-aligned."""
        marks = [":---"] * self.names + ["---:"] * (len(self.header) - self.names)
        rows = [
            [f"**{cell}**" if (r, c) in self.best else cell for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]
        lines = [self.header, marks, *rows]
        return "\n".join("| " + " | ".join(cell_text(line)) + " |" for line in lines)


def cell_text(cells: Sequence[str]) -> list[str]:
    """Cells with `|` escaped."""
    return [cell.replace("|", "\\|") for cell in cells]


def headline(comparison: Comparison) -> Sheet:
    """Trainable parameters, all scores with intervals, set scores and CLIPScore.

    A set score that no method has gets no column.
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
    baselines = len(rows) - len(comparison.variants)
    return Sheet(header, rows, baselines=baselines, best=best_cells(comparison, 2, SCORES))


def best_cells(
    comparison: Comparison, first: int, metrics: Sequence[Metric]
) -> frozenset[tuple[int, int]]:
    """Cells of the best variants by each metric; column `first` belongs to the first metric."""
    cells = set()
    for column, metric in enumerate(metrics, first):
        values = [metric.sign * comparison.row(v)[metric.key] for v in comparison.variants]
        cells |= {(row, column) for row, value in enumerate(values) if value == max(values)}
    return frozenset(cells)


def costs(comparison: Comparison) -> Sheet:
    """Training cost of each variant."""
    frame = comparison.rows[comparison.rows["method"].isin(comparison.variants)]
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
    """One row per pair of methods; differences that are not significant are marked `n.s.`."""
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
