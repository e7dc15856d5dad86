"""The figure of what each layer carries."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adapterbench.report.figures import GREY, style
from adapterbench.report.layers import EFFECTS, LAYERS, joint, select, short_names
from adapterbench.report.metrics import ASPECTS

COLOURS = "RdBu"
DARK = 0.7
"""Share of the scale from which the colour is dark."""
TINY = 1e-9
"""Divisor of a column of zeros."""


def heat_map(table: pd.DataFrame) -> Figure:
    """Effects of single layers: a panel per way of measuring; all layers and presets below.

    The text is an effect, bold where its interval excludes 0; the colour relates it to the largest
    one of its column, of either sign.
    """
    layers = {effect: select(table, LAYERS, effect) for effect in EFFECTS}
    names = short_names(layers["mean"]["layer"].unique().tolist())
    below = joint(table)
    heights = [len(names), below["layer"].nunique()]
    with style():
        size = 2.2 + 2.4 * len(EFFECTS), 1.6 + 0.32 * sum(heights)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(2, len(EFFECTS), height_ratios=heights, squeeze=False)
        for ax, (effect, rows) in zip(panels[0], layers.items(), strict=True):
            draw(ax, rows.assign(layer=rows["layer"].map(names)), EFFECTS[effect])
        draw(panels[1, 0], below, "On against none")
        for ax in panels[1, 1:]:
            ax.axis("off")
        for ax in panels[0, 1:]:
            ax.set_yticklabels([])
    return figure


def draw(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    """One panel: a row per layer, a column per aspect."""
    layers = rows["layer"].unique().tolist()
    cells = rows.set_index(["layer", "aspect"])
    wide = rows.pivot(index="layer", columns="aspect", values="difference")
    effects = wide.loc[layers, [aspect.key for aspect in ASPECTS]].to_numpy()
    relative = effects / np.abs(effects).max(axis=0).clip(min=TINY)
    ax.imshow(relative, cmap=COLOURS, vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(len(ASPECTS)), [f"{a.label}\n({a.unit})" for a in ASPECTS], fontsize=7.5)
    ax.set_yticks(range(len(layers)), layers, fontsize=7.5)
    ax.grid(visible=False)
    ax.set_title(title)
    for y, layer in enumerate(layers):
        for x, aspect in enumerate(ASPECTS):
            row = cells.loc[(layer, aspect.key)]
            found = row["lo"] > 0 or row["hi"] < 0
            colour = "white" if abs(relative[y, x]) > DARK else "black" if found else GREY
            ax.text(
                x,
                y,
                aspect.signed(row["difference"]),
                ha="center",
                va="center",
                fontsize=7.5,
                color=colour,
                fontweight="bold" if found else "normal",
            )
