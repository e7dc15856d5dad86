"""The figures of the report: deterministic pixels, colour-blind safe palette."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter
from PIL import Image

from adapterbench.core.errors import InputError, one_line
from adapterbench.core.files import publish
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report.methods import CEILINGS, STUDY, Names
from adapterbench.report.metrics import SCORES, TRAINABLE, Metric
from adapterbench.report.references import thumbnail
from adapterbench.report.table import Comparison

DPI = 200
MARKERS = "osD^vPX<>*"
DASHES = {
    "img2img": (0, (6, 1.5, 1, 1.5)),
    "reference_only": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
    "no_prompt": (0, (1, 1.5)),
    "text_only": (0, (6, 2)),
    "shuffled_reference": (0, (3, 1.5, 1, 1.5)),
    "other_item": (0, (1, 4)),
    **dict.fromkeys(CEILINGS, "solid"),
}
GREY = "0.35"
Colour = str | tuple[float, ...]

SIDE = 230
"""Side of a grid cell, pixels at `DPI`."""

LINE = 28
"""Height of a line of a grid's titles, pixels at `DPI`."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all figures; restore matplotlib's settings afterwards."""
    with sns.axes_style("whitegrid"), mpl.rc_context(STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without time stamp or program version."""
    with publish(path) as beside, style():
        figure.savefig(beside, format="png", metadata={"Software": None})


def looks(variants: Sequence[str]) -> dict[str, tuple[tuple[float, ...], str]]:
    """Colour and marker of each variant, independent of the other variants.

    Fixed for the variants of the original study, by a hash of the name for all others.
    """
    palette = sns.color_palette("colorblind")
    known = list(STUDY)
    count, rest = len(known), len(palette) - len(known)
    places = {
        v: (known.index(v), known.index(v))
        if v in STUDY
        else (count + crc32(v.encode()) % rest, count + crc32(v[::-1].encode()) % rest)
        for v in variants
    }
    return {v: (palette[colour], MARKERS[marker]) for v, (colour, marker) in places.items()}


def pareto(comparison: Comparison) -> Figure:
    """Each score over the trainable parameters, with intervals, frontier, floors and ceilings."""
    with style():
        figure = Figure(figsize=(9.2, 7.8), layout="constrained")
        for ax, metric in zip(figure.subplots(2, 2).flat, SCORES, strict=True):
            trade_off_panel(ax, comparison, TRAINABLE, metric)
        legend_below(figure, ax)
    return figure


def trade_off(comparison: Comparison, x: Metric, y: Metric) -> Figure:
    """A score over a cost or another score, as in `pareto`."""
    with style():
        figure = Figure(figsize=(7.2, 5), layout="constrained")
        ax = figure.subplots()
        trade_off_panel(ax, comparison, x, y)
        legend_below(figure, ax)
    return figure


def trade_off_panel(ax: Axes, comparison: Comparison, x: Metric, y: Metric) -> None:
    """One panel of `pareto`; `x` has a logarithmic axis unless it is a score."""
    rows = {method: comparison.row(method) for method in comparison.rows["method"]}
    for variant, (colour, marker) in looks(comparison.variants).items():
        row = rows[variant]
        ax.errorbar(
            row[x.key],
            row[y.key],
            xerr=[[side] for side in arms(row, x)] if x in SCORES else None,
            yerr=[[side] for side in arms(row, y)],
            fmt=marker,
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.5,
            markersize=7,
            capsize=3,
            label=comparison.label(variant),
        )
    points = [(-x.sign * rows[v][x.key], y.sign * rows[v][y.key]) for v in comparison.variants]
    best = frontier(points)
    ax.plot(
        [-x.sign * cost for cost, _ in best],
        [y.sign * score for _, score in best],
        color=GREY,
        linewidth=1,
        zorder=1,
        label="Pareto frontier",
    )
    if x in SCORES:
        ax.set_xlabel(f"{x.label}, {x.better} is better")
    else:
        tick_points(ax, [rows[variant][x.key] for variant in comparison.variants])
        ax.set_xlabel(f"{x.heading} (log scale)")
    ax.set_ylabel(f"{y.label}, {y.better} is better")
    ax.set_title(f"{y.label}, {PROTOCOLS[comparison.protocol].title}")
    others = {method: rows[method][y.key] for method in rows if method not in comparison.variants}
    draw_baselines(ax, others, comparison.label)


def legend_below(figure: Figure, ax: Axes) -> None:
    """A legend of the entries of `ax` below all panels, up to five in a row."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=ceil(len(labels) / ceil(len(labels) / 5)),
    )


def arms(row: Mapping[str, Any], metric: Metric) -> tuple[float, float]:
    """Lower and upper length of an error bar."""
    mean = row[metric.key]
    return max(mean - row[f"{metric.key}_lo"], 0.0), max(row[f"{metric.key}_hi"] - mean, 0.0)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pareto frontier: points `(size, score)` whose score no smaller point reaches, by size."""
    best: list[tuple[float, float]] = []
    for size, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or score > best[-1][1]:
            best.append((size, score))
    return best


def tick_points(ax: Axes, sizes: Sequence[float]) -> None:
    """Put ticks of the logarithmic x axis at the points; skip a tick that would overlap another."""
    low, high = min(sizes) / 1.3, max(sizes) * 1.3
    gap = (high / low) ** 0.16  # the width of a label
    ticks: list[float] = []
    for size in sorted(set(sizes)):
        if not ticks or size / ticks[-1] > gap:
            ticks.append(size)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_xticks(ticks)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(EngFormatter(places=1, sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def draw_baselines(ax: Axes, values: Mapping[str, float], label: Names) -> None:
    """Draw methods without an adapter as lines, without far ceilings; name all in the margin."""
    limits = ax.get_ylim()
    lines = [m for m, value in values.items() if m not in CEILINGS or near(value, limits)]
    for method in lines:
        ax.axhline(values[method], color=GREY, linestyle=DASHES[method], linewidth=1, zorder=1)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    names = sorted(values.items(), key=lambda item: item[1])
    heights = spread([min(value, high) for _, value in names], (high - low) * 0.055)
    for (method, value), height in zip(names, heights, strict=True):
        ax.annotate(
            f"{label(method)} {value:.3f}{' ↑' if value > high else ''}",
            (1, height),
            xytext=(4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=GREY,
            annotation_clip=False,
        )


def near(ceiling: float, limits: tuple[float, float]) -> bool:
    """Whether a ceiling is close enough to be shown on an axis with these limits.

    CLIP-I of the reference is 1 by definition, often far above every generated image; a far ceiling
    is named at the edge with an arrow.
    """
    low, high = limits
    return ceiling <= high + 0.7 * (high - low)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending positions, moved up so that neighbours are at least `gap` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    return moved


def forest(comparisons: Sequence[Comparison]) -> Figure:
    """Mean and interval of every method: a column per metric, a row of panels per protocol."""
    count = len(comparisons[0].rows)
    size = 2 + 2.8 * len(SCORES), 0.9 + 0.3 * count * len(comparisons)
    with style():
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(
            len(comparisons), len(SCORES), sharex="col", sharey="row", squeeze=False
        )
        for column, metric in enumerate(SCORES):
            for ax, comparison in zip(panels[:, column], comparisons, strict=True):
                forest_panel(ax, comparison, metric)
            for ax, comparison in zip(panels[:, column], comparisons, strict=True):
                for ceiling in CEILINGS:
                    draw_ceiling(ax, comparison, metric, ceiling)
            panels[-1, column].set_xlabel(
                f"{metric.label} ({metric.unit}),\n{metric.better} is better"
            )
    return figure


def forest_panel(ax: Axes, comparison: Comparison, metric: Metric) -> None:
    """One metric under one protocol: a line per method, in the order of the table."""
    drawn = looks(comparison.variants)
    methods = list(comparison.rows["method"])
    for place, method in enumerate(methods):
        if method in CEILINGS:
            continue
        colour, marker = drawn.get(method, (GREY, "|"))
        draw_interval(ax, place, comparison.row(method), metric, colour, marker)
    ax.axhline(len(drawn) - 0.5, color=GREY, linewidth=0.8)
    ax.set_yticks(range(len(methods)), list(map(comparison.label, methods)))
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.set_title(f"{metric.label}, {PROTOCOLS[comparison.protocol].title}")


def draw_interval(
    ax: Axes, place: int, row: Mapping[str, Any], metric: Metric, colour: Colour, marker: str
) -> None:
    """Draw a mean and its interval on line `place`."""
    thin = marker == "|"
    ax.errorbar(
        row[metric.key],
        place,
        xerr=[[side] for side in arms(row, metric)],
        fmt=marker,
        color=colour,
        markeredgecolor=colour if thin else "black",
        markeredgewidth=1.5 if thin else 0.5,
        markersize=9 if thin else 6,
        capsize=3,
    )


def draw_ceiling(ax: Axes, comparison: Comparison, metric: Metric, method: str) -> None:
    """Draw a ceiling's interval, or its value with an arrow if it is off the axis."""
    place, row = list(comparison.rows["method"]).index(method), comparison.row(method)
    value = row[metric.key]
    low, high = ax.get_xlim()
    if near(value, (low, high)):
        draw_interval(ax, place, row, metric, GREY, "|")
    else:
        ax.text(
            0.98,
            place,
            f"{metric.text(value)} →",
            ha="right",
            va="center",
            transform=ax.get_yaxis_transform(),
            color=GREY,
            fontsize=8,
        )


def losses(curves: Mapping[str, pd.DataFrame], label: Names) -> Figure:
    """Training loss of each variant: logged values (faint) and their running mean.

    Args:
        curves: frames with columns `step` and `loss`, by variant.
    """
    with style():
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        ax = figure.subplots()
        for place, (variant, (colour, marker)) in enumerate(looks(list(curves)).items()):
            curve = curves[variant]
            window, apart = max(1, len(curve) // 20), max(1, len(curve) // 8)
            smooth = curve["loss"].rolling(window, center=True, min_periods=1).mean()
            ax.plot(curve["step"], curve["loss"], color=colour, alpha=0.2, linewidth=0.7)
            ax.plot(
                curve["step"],
                smooth,
                color=colour,
                marker=marker,
                markevery=(place * apart // len(curves), apart),
                markersize=5,
                linewidth=1.4,
                label=label(variant),
            )
        ax.set_xlabel("Optimiser step")
        ax.set_ylabel("Training loss")
        ax.set_title("Training loss, running mean over the logged values")
        ax.legend()
    return figure


def read_curve(path: Path) -> pd.DataFrame:
    """Read the logged losses of one variant.

    Raises:
        UserError: the file is missing or damaged, or lacks a column.
    """
    try:
        curve = pd.read_csv(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", path) from error
    except (ValueError, OSError) as error:  # pandas' errors are ValueErrors
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error
    if missing := {"step", "loss"} - set(curve):
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}", path)
    if bad := [name for name in ("step", "loss") if not pd.api.types.is_numeric_dtype(curve[name])]:
        raise InputError(f"{path} has values other than numbers in {bad[0]}", path)
    return curve


Cell = Image.Image | str


def grid(columns: Mapping[str, Sequence[Cell]]) -> Figure:
    """Grid of images and texts.

    Args:
        columns: title -> cells from top to bottom, an image or a text each; of equal length.
    """
    titles = [textwrap.fill(title, 14, max_lines=4, placeholder="…") for title in columns]
    side, gap = SIDE, SIDE // 24
    head = 2 * gap + LINE * max(title.count("\n") + 1 for title in titles)
    rows = len(next(iter(columns.values())))
    size = (len(columns) * (side + gap) + gap, head + rows * (side + gap))
    canvas = Image.new("RGB", size, "white")
    with style():
        figure = Figure(figsize=(size[0] / DPI, size[1] / DPI))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.axis("off")
        for column, (title, cells) in enumerate(zip(titles, columns.values(), strict=True)):
            left = gap + column * (side + gap)
            ax.text(left + side / 2, head - gap, title, ha="center", va="bottom", fontsize=7.5)
            for row, cell in enumerate(cells):
                top = head + row * (side + gap)
                if isinstance(cell, str):
                    text = textwrap.fill(cell, 16, max_lines=7, placeholder=" …")
                    middle = (left + side / 2, top + side / 2)
                    ax.text(*middle, text, ha="center", va="center", fontsize=7.5)
                else:
                    canvas.paste(thumbnail(cell, side), (left, top))
        ax.imshow(canvas)
    return figure
