"""A plot of two numbers of the comparison, which the visitor chooses."""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO

import gradio as gr

from adapterbench.demo import html
from adapterbench.demo.inputs import show_user_errors
from adapterbench.demo.results_table import one_of
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report.figures import trade_off
from adapterbench.report.metrics import CLIP_I, COSTS, SCORES, TRAINABLE, Metric
from adapterbench.report.table import Comparison

DPI = 130
"""Pixels per inch."""
WIDTH = 240
"""Least width of a choice of an axis, pixels."""
CAPTION = (
    "Adapters with intervals; the line joins those that no other beats in both numbers. Grey: "
    "floors, and the ceilings where they are near."
)


def trade_off_part(comparisons: Mapping[str, Comparison], protocol: gr.Radio) -> None:
    """A plot whose axes the visitor chooses."""
    gr.Markdown("## Trade-off")
    first = next(iter(comparisons.values()))
    variants = first.rows[first.rows["method"].isin(first.variants)]
    costs = [metric for metric in (TRAINABLE, *COSTS) if (variants[metric.key] > 0).all()]
    across = {metric.heading: metric for metric in (*costs, *SCORES)}
    upward = {metric.label: metric for metric in SCORES}
    with gr.Row():
        x = gr.Dropdown(
            list(across), value=TRAINABLE.heading, label="Horizontal axis", min_width=240
        )
        y = gr.Dropdown(list(upward), value=CLIP_I.label, label="Vertical axis", min_width=240)

    def show_plot(chosen: object, horizontal: object, vertical: object) -> str:
        with show_user_errors():
            return plot(
                one_of(comparisons, chosen, "Prompt"),
                one_of(across, horizontal, "Horizontal axis"),
                one_of(upward, vertical, "Vertical axis"),
            )

    shown = gr.HTML(plot(first, TRAINABLE, CLIP_I))
    gr.on(
        [protocol.change, x.change, y.change],
        show_plot,
        [protocol, x, y],
        shown,
        show_progress="hidden",
        preprocess=False,
        trigger_mode="always_last",
    )


def plot(comparison: Comparison, x: Metric, y: Metric) -> str:
    """The plot as HTML."""
    file = BytesIO()
    trade_off(comparison, x, y).savefig(file, format="png", dpi=DPI)
    uri = "data:image/png;base64," + b64encode(file.getvalue()).decode()
    title = PROTOCOLS[comparison.protocol].title
    alt = f"Scatter plot of {y.label} over {x.heading}, a point an adapter; {title}."
    return html.render("plot.html", uri=uri, alt=alt, caption=CAPTION)
