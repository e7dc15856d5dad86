"""The tables of one split: a comparison per protocol, as csv and as Markdown."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from adapterbench.core.config import CompareParams
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report import markdown, table
from adapterbench.report.measured import measured_on
from adapterbench.report.table import Comparison


def write_tables(
    scores: Path,
    train_metrics: Path,
    rows: Mapping[str, Any],
    training_free: Collection[str],
    params: CompareParams,
    split: str,
    out: Path,
) -> list[Comparison]:
    """Write the tables of all protocols into `out`; return them, the headline protocol first.

    Args:
        scores: folder of `<method>.parquet`.
        train_metrics: folder of `<variant>.json`.
        rows: the variants of the parameter file, by name.
        training_free: names of the training-free methods.
        split: whose items were scored.

    Raises:
        UserError: see `table.compare` and `measured_on`.
    """
    methods = rows, training_free
    tables = [table.compare(scores, train_metrics, *methods, name, params) for name in PROTOCOLS]
    table.write(tables, out)
    for item in tables:
        markdown.write(item, measured_on(*item.size, split), out)
    return tables
