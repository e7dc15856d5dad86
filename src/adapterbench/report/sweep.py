"""The figure of the scale sweep: images, and curves of the mean scores."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from adapterbench.report.figures import SIDE, looks, style
from adapterbench.report.illustrations import Sweep
from adapterbench.report.methods import Names
from adapterbench.report.metrics import CLIP_I, CLIP_T
from adapterbench.report.references import thumbnail


def sweep_figure(sweep: Sweep, label: Names) -> Figure:
    """Images with a row per variant and a column per scale; to the right, CLIP-T over CLIP-I."""
    with style():
        figure = Figure(figsize=(11.6, 0.9 + 0.82 * (len(sweep.images) + 1)), layout="constrained")
        halves = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.7, 1))
        draw_images(halves[0, 0], sweep, label)
        draw_curves(halves[0, 1].subplots(), sweep, label)
    return figure


def draw_images(figure: SubFigure, sweep: Sweep, label: Names) -> None:
    """Images by variant and scale, below the two prompts."""
    scales = next(iter(sweep.scores.values()))["scale"]
    cells = figure.subplots(len(sweep.images) + 1, len(scales) + 1)
    for ax in cells.flat:
        ax.axis("off")
    text = textwrap.fill(f"Text prompt: {sweep.text}", 44, max_lines=3, placeholder=" …")
    write(cells[0, 1], text, -0.02, "left")
    write(cells[0, -2], "Image\nprompt:", 1.0, "right")
    show(cells[0, -1], sweep.image)
    for ax, scale in zip(cells[1, 1:], scales, strict=True):
        ax.set_title(f"λ = {scale:g}", fontsize=8.5)
    for row, (variant, images) in zip(cells[1:], sweep.images.items(), strict=True):
        write(row[0], textwrap.fill(label(variant), 14), 1.0, "right")
        for ax, image in zip(row[1:], images, strict=True):
            show(ax, image)


def write(ax: Axes, text: str, x: float, side: str) -> None:
    """Vertically centred text in a cell; left-aligned text does not widen its column."""
    written = ax.text(x, 0.5, text, ha=side, va="center", fontsize=8.5, transform=ax.transAxes)
    written.set_in_layout(side == "right")


def show(ax: Axes, image: Image.Image) -> None:
    """Show an image in a cell."""
    ax.imshow(thumbnail(image, SIDE))


def draw_curves(ax: Axes, sweep: Sweep, label: Names) -> None:
    """CLIP-T to the text prompt over CLIP-I to the image prompt, one curve per variant."""
    largest = next(iter(sweep.scores.values()))["scale"].iloc[-1]
    for variant, (colour, marker) in looks(list(sweep.scores)).items():
        means = sweep.scores[variant]
        x, y = means["clip_i"], means["clip_t"]
        ax.plot(
            x,
            y,
            color=colour,
            marker=marker,
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.4,
            linewidth=1.2,
            label=label(variant),
        )
        last = x.iloc[-1:], y.iloc[-1:]
        ax.scatter(
            *last, s=90, color=colour, marker=marker, edgecolor="black", linewidth=0.6, zorder=3
        )
    ax.set_xlabel(f"{CLIP_I.label} to the image prompt")
    ax.set_ylabel(f"{CLIP_T.label} to the text prompt")
    ax.set_title(f"Means over {sweep.items} items; large mark: λ = {largest:g}")
    ax.legend()
