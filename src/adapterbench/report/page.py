"""The report: one self-contained HTML page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from adapterbench.core.files import publish
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.formats.pairs import PROTOCOLS as PAIR_PROTOCOLS
from adapterbench.report import pairs, sheets
from adapterbench.report.markdown import HOW_TO_READ, ROWS
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.table import Comparison
from adapterbench.report.words import findings


@dataclass(frozen=True, slots=True)
class Plate:
    """A figure of the page."""

    path: Path
    """The PNG; its bytes go into the page."""
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a `data:` address."""
        return "data:image/png;base64," + b64encode(self.path.read_bytes()).decode()


def render(
    comparisons: Mapping[str, Comparison],
    answers: pd.DataFrame,
    measured: MeasuredOn,
    plates: Sequence[Plate],
    provenance: Mapping[str, str],
    attribution: Mapping[str, str],
) -> str:
    """The page's text; it holds what is passed in and nothing volatile.

    Args:
        comparisons: by protocol, the headline protocol first.
        answers: see `pairs`; without rows it has no section.
        plates: the figures in order.
        provenance: what the numbers come from (revision, digests, versions), by name.
        attribution: makers and licences of the pictures shown, by image set.
    """
    environment = Environment(
        loader=PackageLoader("adapterbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        {
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
            "sheet": pairs.sheet(answers, protocol),
            "findings": pairs.findings(answers, protocol),
            "items": int(answers["n"].max()),
        }
        for protocol, title in PAIR_PROTOCOLS.items()
        if len(answers)
    ]
    return environment.get_template("report.html").render(
        answers=right,
        facts=measured.facts(),
        notes=[HOW_TO_READ, ROWS],
        sections=sections,
        costs=sheets.costs(next(iter(comparisons.values()))),
        plates=plates,
        provenance=provenance,
        attribution=attribution,
    )


def write(path: Path, text: str) -> None:
    """Write the page as a whole."""
    with publish(path) as beside:
        beside.write_text(text, encoding="utf-8")
