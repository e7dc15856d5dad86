"""The comparison on pairs of image and text prompt with a right answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapterbench.core.config import CompareParams
from adapterbench.core.errors import InputError, UserError
from adapterbench.formats.frames import read_frame
from adapterbench.formats.generated import Illustrations
from adapterbench.formats.pairs import PROTOCOLS
from adapterbench.report.findings import Finding, listed
from adapterbench.report.methods import Names, in_order
from adapterbench.report.metrics import ANSWERS, COPY, GOAL, LEADS, Metric
from adapterbench.report.scores import ROUNDING
from adapterbench.report.sheets import Sheet
from adapterbench.report.table import mean_and_interval, read_csv, write_csv

FILE = "pairs.csv"

BOTH, TEXT = "image_and_text", "text_only"
GIVEN = {
    BOTH: "image and text",
    "image_only": "image only",
    "shuffled_image": "another pair's image, text",
    TEXT: "text only",
    "real_copy": "the image prompt itself",
    "real_goal": "the goal itself",
}
"""`prompts` of a row -> the prompts that were given; the last three rows use no adapter."""

ENDS = ("", "_lo", "_hi")
SCORES = [f"{metric.key}{end}" for metric in (*ANSWERS, *LEADS) for end in ENDS]
COLUMNS = ["protocol", "method", "prompts", "n", *SCORES]
PRECISION = {f"{m.key}{end}": m.precision for m in (*ANSWERS, *LEADS) for end in ENDS}

Rows = dict[tuple[str, str], pd.DataFrame]
"""Item scores (index: sorted keys; columns: `ANSWERS`) by method and `prompts`."""


def compare_pairs(folder: Path, variants: Sequence[str], params: CompareParams) -> pd.DataFrame:
    """One row per protocol, method and `prompts`, with `COLUMNS`; empty if there are no pairs.

    Args:
        folder: `<method>/` of illustrations, of the variants and of `text_only`.

    Raises:
        UserError: a file is missing or damaged, or has other items than the others.
    """
    methods = [*in_order(variants), TEXT]
    paths = {method: Illustrations(folder / method).pairs_scores for method in methods}
    if not any(path.exists() for path in paths.values()):
        return pd.DataFrame(columns=COLUMNS)
    scores = {method: read_items(path) for method, path in paths.items()}
    frames = []
    for protocol in PROTOCOLS:
        rows = {
            (method, str(prompts)): part.set_index("key").sort_index()[[m.key for m in ANSWERS]]
            for method, frame in scores.items()
            for prompts, part in frame[frame["protocol"] == protocol].groupby("prompts")
            if prompts in given_to(method)
        }
        check_items(rows, methods, protocol)
        frames.append(summary(rows, params).assign(protocol=protocol))
    return pd.concat(frames, ignore_index=True)[COLUMNS].round(PRECISION)


def given_to(method: str) -> list[str]:
    """The `prompts` of a method; rows without an adapter belong to `text_only`."""
    prompts = list(GIVEN)
    return prompts[3:] if method == TEXT else prompts[:3]


def read_items(path: Path) -> pd.DataFrame:
    """The scores of one method.

    Raises:
        UserError: the file is missing or damaged, or lacks a column.
    """
    scores = [metric.key for metric in ANSWERS]
    frame = read_frame(path, ["protocol", "prompts", "key", *scores])
    numbers = frame[scores].apply(pd.to_numeric, errors="coerce")
    if not (numbers.abs() <= 1 + ROUNDING).all(axis=None):  # NaN is not
        raise InputError(f"{path} has a score that is not a finite number in [-1, 1]", path)
    return frame


def check_items(rows: Rows, methods: Sequence[str], protocol: str) -> None:
    """Check that all rows can be paired by item.

    Raises:
        UserError: two rows have different items, or a row is missing.
    """
    first = next(iter(rows.values()), pd.DataFrame())
    expected = [(method, given) for method in methods for given in given_to(method)]
    unpaired = [row for row in rows if not rows[row].index.equals(first.index)]
    if bad := [*unpaired, *(row for row in expected if row not in rows)]:
        method, given = bad[0]
        raise UserError(
            f"{method} ({given}) lacks items of {protocol} that others have: "
            "generate all with the same parameters"
        )


def summary(rows: Rows, params: CompareParams) -> pd.DataFrame:
    """Means with intervals; for image and text also the paired differences `LEADS`."""
    given = list(GIVEN)
    order = sorted(rows, key=lambda row: given.index(row[1]) if row[0] == TEXT else -1)
    table = pd.DataFrame(order, columns=["method", "prompts"]).assign(n=len(rows[order[0]]))
    for metric in ANSWERS:
        add(table, metric, list(table.index), [rows[row][metric.key] for row in order], params)
    both = [place for place, (_, prompts) in enumerate(order) if prompts == BOTH]
    for lead in LEADS:
        baseline = lead.key.removeprefix("over_")
        series = [
            rows[order[place]][GOAL.key]
            - rows[TEXT if baseline == TEXT else order[place][0], baseline][GOAL.key]
            for place in both
        ]
        add(table, lead, both, series, params)
    return table


def add(
    table: pd.DataFrame,
    metric: Metric,
    places: list[int],
    series: Sequence[pd.Series],
    params: CompareParams,
) -> None:
    """Add columns with mean and interval of each series, in the rows `places`; NaN elsewhere."""
    for end, values in zip(ENDS, mean_and_interval(series, params), strict=True):
        table[f"{metric.key}{end}"] = pd.Series(values, index=places)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write `pairs.csv`."""
    write_csv(table, folder / FILE, PRECISION)


def read(folder: Path) -> pd.DataFrame:
    """Read the table that `write` wrote.

    Raises:
        UserError: the table is missing or damaged.
    """
    table = read_csv(folder / FILE, COLUMNS)
    if not (table["protocol"].isin(PROTOCOLS) & table["prompts"].isin(GIVEN)).all():
        path = folder / FILE
        raise InputError(f"{path} has an unknown protocol or kind of prompts", path)
    return table


def sheet(table: pd.DataFrame, protocol: str, label: Names) -> Sheet:
    """The rows of one protocol as a text table."""
    part = table[table["protocol"] == protocol]
    rows = [
        [
            "" if row["method"] == TEXT else label(row["method"]),
            GIVEN[row["prompts"]],
            *(cell(metric, row, metric.text) for metric in ANSWERS),
            *(cell(metric, row, metric.signed) for metric in LEADS),
        ]
        for row in part.to_dict("records")
    ]
    header = ["Method", "Given", *(metric.label for metric in (*ANSWERS, *LEADS))]
    return Sheet(header, rows, names=2, baselines=int((part["method"] == TEXT).sum()))


def cell(metric: Metric, row: Mapping[Any, Any], text: Callable[[float], str]) -> str:
    """A value with its interval; empty if it is NaN."""
    mean, lo, hi = (row[f"{metric.key}{end}"] for end in ENDS)
    return "" if np.isnan(mean) else f"{text(mean)} [{text(lo)}, {text(hi)}]"


def findings(table: pd.DataFrame, protocol: str, label: Names) -> list[Finding]:
    """Is image and text nearer to the goal than either alone, and which adapters copy?"""
    part = table[(table["protocol"] == protocol) & (table["prompts"] == BOTH)]
    sentences = []
    for lead in LEADS:
        lo, hi = part[f"{lead.key}_lo"], part[f"{lead.key}_hi"]
        sides = {"nearer to the goal": lo > 0, "farther from it": hi < 0}
        sides["no significant difference"] = ~(
            sides["nearer to the goal"] | sides["farther from it"]
        )
        groups = [
            f"{name}: {listed(label, part['method'][rows])}"
            for name, rows in sides.items()
            if rows.any()
        ]
        against = GIVEN[lead.key.removeprefix("over_")]
        sentences.append(Finding(f"Image and text against {against}: {'; '.join(groups)}."))
    copies = part["method"][part[COPY.key] > part[GOAL.key]]
    if len(copies):
        text = "On average nearer to the image prompt than to the goal"
        sentences.append(Finding(f"{text}: {listed(label, copies)}."))
    return sentences
