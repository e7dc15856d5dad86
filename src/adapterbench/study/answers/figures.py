"""The figures of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from adapterbench.core.files import publish
from adapterbench.report.figures import GREY, MARKERS, frontier, style
from adapterbench.report.intervals import Floats
from adapterbench.report.metrics import Metric
from adapterbench.study.answers.runs import MEASURES
from adapterbench.study.params import ReportParams

SIMILARITIES = MEASURES[:2]

GAP = Metric(
    key="gap",
    label="Loss, unseen minus seen",
    unit="",
    better="lower",
    decimals=4,
    precision=6,
)
SHOWN_MARGINS = 3
"""How far below the original the axis goes; rows far below would flatten all the others."""
DOTTED: Any = {"linestyle": (0, (1, 1.5)), "linewidth": 1}
BLUE, ORANGE, GREEN, *_ = sns.color_palette("colorblind")


def sizes(table: pd.DataFrame, params: ReportParams, margin: Mapping[str, float]) -> Figure:
    """Each score over the trainable parameters, with the frontier; the rows on it are named."""
    with style():
        figure = Figure(figsize=(9.2, 9.6), layout="constrained")
        for ax, metric in zip(figure.subplots(2), SIMILARITIES, strict=True):
            scored = table.dropna(subset=[metric.key])
            size_panel(ax, scored, metric, params, margin[metric.key])
    return figure


def size_panel(
    ax: Axes, table: pd.DataFrame, metric: Metric, params: ReportParams, margin: float
) -> None:
    """One score over the trainable parameters; rows far below the others stand on the axis."""
    original = table[table["row"] == params.original].iloc[0]
    lowest = original[metric.key] - SHOWN_MARGINS * margin
    best = frontier(
        list(table[["trainable_params", metric.key]].itertuples(index=False, name=None))
    )
    named = below = 0
    for number, row in enumerate(table.to_dict("records")):
        at, low = (row["trainable_params"], row[metric.key]), row[metric.key] < lowest
        depth = row["row"] in params.depth
        colour = ORANGE if row["row"] == params.original else GREEN if depth else BLUE
        if low:
            ax.plot(at[0], lowest, "v", color=colour, markersize=6, clip_on=False)
            right = at[0] > table["trainable_params"].max() / 3  # its name would leave the figure
            text, place = (
                f"{row['row']}, {metric.text(at[1])}",
                (-7 if right else 7, 3 + 11 * below),
            )
            note(ax, text, (at[0], lowest), place, "right" if right else "left")
            below += 1
            continue
        arms = lengths_of_arms(table.iloc[[number]], metric.key)
        look: dict[str, Any] = {"color": colour, "elinewidth": 0.6, "markersize": 5}
        ax.errorbar(*at, yerr=arms, fmt="s" if depth else "o", **look)
        if at in best or row["row"] == params.original:
            note(ax, str(row["row"]), at, (4, -11 if named % 2 else 5))
            named += 1
    ax.step(*zip(*best, strict=True), where="post", color=GREY, linewidth=1)
    ax.axvline(params.budget * original["trainable_params"], color=GREY, **DOTTED)
    ax.axhline(original[metric.key] - margin, color=GREY, **DOTTED)
    ax.set_ylim(bottom=lowest)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Trainable parameters")
    ax.set_ylabel(metric.label)


def note(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[int, int], ha: str = "left"
) -> None:
    """A small name beside a point."""
    ax.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=7.5, ha=ha)


def save_photo(figure: Figure, path: Path) -> None:
    """Write images as JPEG, a tenth of a PNG's size."""
    with publish(path) as beside, style():
        figure.savefig(beside, format="jpg", pil_kwargs={"quality": 85})


def lengths(table: pd.DataFrame, rows: Sequence[str]) -> Figure:
    """Each score over the optimiser steps, means and intervals over seeds and items."""
    with style():
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        for ax, metric in zip(figure.subplots(1, 3), MEASURES, strict=True):
            line_panel(ax, table, metric, rows, "steps", "Optimiser steps")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(rows))
    return figure


def amounts(table: pd.DataFrame, rows: Sequence[str]) -> Figure:
    """Each similarity and the over-fit over the number of training images."""
    with style():
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        for ax, metric in zip(figure.subplots(1, 3), (*SIMILARITIES, GAP), strict=True):
            line_panel(ax, table, metric, rows, "samples", "Training images")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(rows))
    return figure


def line_panel(
    ax: Axes, table: pd.DataFrame, metric: Metric, rows: Sequence[str], x: str, title: str
) -> None:
    """One line per row of the study, with intervals where the table has them."""
    palette = sns.color_palette("colorblind")
    for number, row in enumerate(rows):
        part = table[table["row"] == row]
        place = part[x] * 1.02 ** (number - (len(rows) - 1) / 2)  # so that intervals do not overlap
        look: dict[str, Any] = {"color": palette[number], "marker": MARKERS[number], "label": row}
        if f"{metric.key}_lo" in part:
            arms = [
                part[metric.key] - part[f"{metric.key}_lo"],
                part[f"{metric.key}_hi"] - part[metric.key],
            ]
            ax.errorbar(place, part[metric.key], yerr=arms, markersize=4, elinewidth=0.7, **look)
        else:
            ax.plot(place, part[metric.key], markersize=4, **look)
    ticks = sorted(set(table[x]))
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(title)
    ax.set_ylabel(metric.label)


def lengths_of_arms(table: pd.DataFrame, key: str) -> Floats:
    """Lower and upper lengths of error bars, `(2, N)`."""
    lower, upper = table[key] - table[f"{key}_lo"], table[f"{key}_hi"] - table[key]
    return np.stack([lower.to_numpy(), upper.to_numpy()])


def differences(table: pd.DataFrame, rows: Sequence[str], original: str) -> Figure:
    """Paired differences with the original by each similarity, with intervals over items."""
    part = table[table["row"].isin(rows)].set_index("row").reindex(list(rows)).dropna(how="all")
    part = part[part.index != original]
    with style():
        figure = Figure(figsize=(9.2, 0.9 + 0.26 * len(part)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, metric in zip(axes, SIMILARITIES, strict=True):
            key = f"{metric.key}_difference"
            middle, ends = part[key], lengths_of_arms(part, key)
            ax.errorbar(middle, range(len(part)), xerr=ends, fmt="o", markersize=4, color=GREY)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set_yticks(range(len(part)), list(part.index))
            ax.set_xlabel(f"{metric.label}, minus {original}")
        axes[0].invert_yaxis()
    return figure


def fit_and_scores(table: pd.DataFrame, correlations: Mapping[str, float]) -> Figure:
    """Loss on unseen images against each similarity, a point per row."""
    with style():
        figure = Figure(figsize=(9.2, 3.4), layout="constrained")
        for ax, metric in zip(figure.subplots(1, 2), SIMILARITIES, strict=True):
            ax.scatter(
                table["unseen_loss"],
                table[metric.key],
                s=14,
                color=sns.color_palette("colorblind")[0],
            )
            ax.set_xlabel("Denoising loss on unseen images")
            ax.set_ylabel(metric.label)
            ax.set_title(f"Spearman correlation {correlations[metric.key]:+.2f}")
    return figure
