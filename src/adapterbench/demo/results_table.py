"""The table of the comparison with a filter, and its export."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import gradio as gr

from adapterbench.core.errors import UserError
from adapterbench.demo.downloads import download_made
from adapterbench.demo.folder import FileFolder
from adapterbench.demo.inputs import show_user_errors
from adapterbench.demo.settings import short
from adapterbench.report import sheets, table
from adapterbench.report.methods import BASELINES
from adapterbench.report.table import Comparison

MAX_FILTER = 60
"""Most characters of the filter."""

T = TypeVar("T")


def table_part(
    comparisons: Mapping[str, Comparison], protocol: gr.Radio, folder: FileFolder
) -> None:
    """The table, its filter and its export."""
    with gr.Group():
        wanted = gr.Textbox(
            label="Filter", placeholder="part of a method's name", max_length=MAX_FILTER
        )
        baselines = gr.Checkbox(True, label="Floors and ceilings")
    inputs = [protocol, wanted, baselines]

    def show_table(chosen: object, text: object, with_baselines: object) -> str:
        with show_user_errors():
            return table_text(filtered(comparisons, chosen, text, with_baselines))

    def csv(chosen: object, text: object, with_baselines: object) -> Path:
        comparison = filtered(comparisons, chosen, text, with_baselines)
        with folder.new(table.FILES[comparison.protocol]) as path:
            table.write_csv(comparison.rows, path)
        return path

    shown = gr.Markdown(
        table_text(next(iter(comparisons.values()))), elem_classes="comparison", padding=False
    )
    download_made("Download this table (CSV)", csv, inputs, "csv")
    gr.on(
        [protocol.change, wanted.change, baselines.change],
        show_table,
        inputs,
        shown,
        show_progress="hidden",
        preprocess=False,
        trigger_mode="always_last",
    )


def filtered(
    comparisons: Mapping[str, Comparison], protocol: object, text: object, baselines: object
) -> Comparison:
    """The rows of a protocol whose label or name has `text`.

    Raises:
        UserError: a value is not one that the page sends.
    """
    if not isinstance(text, str | None) or len(text or "") > MAX_FILTER:
        raise UserError(f"Filter is {short(text)}: write up to {MAX_FILTER} characters")
    comparison = one_of(comparisons, protocol, "Prompt")
    rows, part = comparison.rows, (text or "").strip().casefold()
    named = (rows["label"] + "\n" + rows["method"]).str.casefold()
    kept = named.str.contains(part, regex=False)
    if not baselines:
        kept &= ~rows["method"].isin(list(BASELINES))
    return replace(comparison, rows=rows[kept].reset_index(drop=True))


def table_text(comparison: Comparison) -> str:
    """The table in Markdown."""
    if comparison.rows.empty:
        return "No method has that in its name."
    return sheets.headline(comparison).markdown()


def one_of(values: Mapping[str, T], chosen: object, name: str) -> T:
    """The value of a choice.

    Raises:
        UserError: there is no such choice.
    """
    if not isinstance(chosen, str) or chosen not in values:
        raise UserError(f"{name} is {short(chosen)}: choose one of {', '.join(values)}")
    return values[chosen]
