"""The report: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from adapterbench.core.files import publish
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.formats.pairs import PROTOCOLS as PAIR_PROTOCOLS
from adapterbench.report import layers, pairs, sheets
from adapterbench.report.embedded import data_uri
from adapterbench.report.findings import findings
from adapterbench.report.markdown import HOW_TO_READ, ROWS, dagger_note, training_free_note
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.table import Comparison
from adapterbench.report.verdict import verdict

FIRST = "image_prompts"
"""Figure at the top of the page."""


@dataclass(frozen=True, slots=True)
class CaptionedFigure:
    """A figure of the page."""

    path: Path
    """The PNG, which is embedded in the page."""
    caption: str
    alt: str
    """Alternative text."""

    @property
    def uri(self) -> str:
        """The image as a `data:` URI."""
        return data_uri(self.path)


def render(
    comparisons: Mapping[str, Comparison],
    answers: pd.DataFrame,
    by_layer: Mapping[str, pd.DataFrame],
    measured: MeasuredOn,
    figures: Sequence[CaptionedFigure],
    provenance: Mapping[str, str],
    attribution: Mapping[str, str],
) -> str:
    """The page's HTML; it depends on the arguments alone (no time, host or path).

    Args:
        comparisons: by protocol, the headline protocol first.
        answers: table of `pairs`; if it is empty, the page has no such section.
        by_layer: tables of `layers`, by variant; likewise.
        figures: in the order of the page.
        provenance: revision, digests and versions, by name.
        attribution: makers and licences of the images shown, by image set.
    """
    environment = Environment(
        loader=PackageLoader("adapterbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headline = next(iter(comparisons.values()))
    sections = [
        {
            "id": protocol,
            "title": PROTOCOLS[protocol].title.capitalize(),
            "headline": sheets.headline(comparison),
            "findings": findings(comparison),
            "paired": sheets.paired(comparison),
        }
        for protocol, comparison in comparisons.items()
    ]
    right = [
        {
            "title": title.capitalize(),
            "sheet": pairs.sheet(answers, protocol, headline.label),
            "findings": pairs.findings(answers, protocol, headline.label),
            "items": int(answers["n"].max()),
        }
        for protocol, title in PAIR_PROTOCOLS.items()
        if len(answers)
    ]
    carried = [
        {
            "title": headline.label(variant),
            "sheet": layers.sheet(table),
            "finding": layers.sentence(table),
        }
        for variant, table in by_layer.items()
    ]
    return environment.get_template("report.html").render(
        answers=right,
        layers=carried,
        rule=layers.RULE,
        facts=measured.facts(),
        notes=[*dagger_note(headline), HOW_TO_READ, ROWS, *training_free_note(headline)],
        verdict=verdict(headline),
        sections=sections,
        costs=sheets.costs(headline),
        first=next(figure for figure in figures if figure.path.stem == FIRST),
        figures=[figure for figure in figures if figure.path.stem != FIRST],
        provenance=provenance,
        attribution=attribution,
    )


def write(path: Path, text: str) -> None:
    """Write the page atomically."""
    with publish(path) as beside:
        beside.write_text(text, encoding="utf-8")
