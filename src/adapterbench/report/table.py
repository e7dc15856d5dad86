"""The comparison of one protocol: a row a method, and paired differences, as tidy frames."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import FiniteFloat

from adapterbench.core.config import CompareParams
from adapterbench.core.documents import read_document
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.core.files import publish
from adapterbench.formats.generated import HEADLINE, PROTOCOLS
from adapterbench.report.intervals import bootstrap
from adapterbench.report.methods import BASELINES, DAGGER, ORIGINAL, contrasts, in_order, label
from adapterbench.report.metrics import COSTS, SCORES, SETS, TRAINABLE
from adapterbench.report.scores import Scores, read_scores

COST_KEYS = [cost.key for cost in COSTS]
ENDS = [f"{metric.key}{end}" for metric in SCORES for end in ("", "_lo", "_hi")]
SET_KEYS = [metric.key for metric in SETS]
COLUMNS = ["method", "label", "trained", TRAINABLE.key, *ENDS, *SET_KEYS, "n", "k", *COST_KEYS]
PAIRED = ["protocol", "method", "baseline", "metric", "difference", "lo", "hi", "apart"]

PRECISION = {
    **{cost.key: cost.precision for cost in COSTS},
    **{f"{m.key}{end}": m.precision for m in SCORES for end in ("", "_lo", "_hi")},
    **{m.key: m.precision for m in SETS},
    **dict.fromkeys(("difference", "lo", "hi"), SCORES[0].precision),
}
"""Decimals of each column of floats in the csv files."""

FILES = {p: f"comparison{'' if p == HEADLINE else f'_{p}'}.csv" for p in PROTOCOLS}
"""Table of each protocol; the headline protocol has the plain name."""

PAIRED_FILE = "paired.csv"
NAMES = ("protocol", "method", "label", "trained", "baseline", "metric")
"""Columns of text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All methods under one protocol."""

    protocol: str
    rows: pd.DataFrame
    """`COLUMNS`, a row a method: the variants, then floors and ceiling."""
    paired: pd.DataFrame
    """`PAIRED`, a row a pair of methods and a metric; `apart`: the interval excludes zero."""

    @property
    def variants(self) -> list[str]:
        """The trained methods, in the table's order."""
        return [method for method in self.rows["method"] if method not in BASELINES]

    @property
    def original(self) -> str:
        """The variant to which the others are compared."""
        return ORIGINAL if ORIGINAL in self.variants else self.variants[0]

    @property
    def size(self) -> tuple[int, int]:
        """Items (N) and images of each (K)."""
        row = self.row(self.original)
        return row["n"], row["k"]

    @property
    def otherwise(self) -> dict[str, str]:
        """How each variant was trained that was not trained as the others, by its label."""
        trained = self.rows[self.rows["trained"] != ""]
        return dict(zip(trained["label"], trained["trained"], strict=True))

    def label(self, method: str) -> str:
        """Name of a method for people; a dagger marks one that was trained otherwise."""
        row = self.row(method)
        return f"{row['label']} {DAGGER}" if row["trained"] else str(row["label"])

    def row(self, method: str) -> dict[str, Any]:
        """One method's row."""
        return {
            str(column): value
            for column, value in self.rows[self.rows["method"] == method].iloc[0].items()
        }

    def difference(self, method: str, baseline: str, metric: str) -> tuple[float, float, float]:
        """Mean paired difference `method - baseline` with its interval `(difference, lo, hi)`."""
        table = self.paired[self.paired["metric"] == metric]
        ends = {
            (row["method"], row["baseline"]): (row["difference"], row["lo"], row["hi"])
            for row in table.to_dict("records")
        }
        if (method, baseline) in ends:
            return ends[method, baseline]
        difference, lo, hi = ends[baseline, method]
        return -difference, -hi, -lo


def compare(
    folder: Path,
    train_metrics: Path,
    rows: Mapping[str, Any],
    protocol: str,
    params: CompareParams,
) -> Comparison:
    """Build the comparison from `folder/<method>.parquet` and `train_metrics/<variant>.json`.

    Args:
        rows: the variants of the parameter file, by name.

    Raises:
        UserError: scores are missing, damaged or not paired (see `read_scores`), or a training
            record is missing or lacks a column.
    """
    variants = in_order(list(rows))
    if not variants:
        raise UserError("params.yaml has no variants: add a row under `variants:`")
    scores = read_scores(folder, variants, protocol)
    paired = differences(scores, contrasts(variants), params)
    paired.insert(0, "protocol", protocol)
    table = means(scores, params).assign(
        k=[scores.images[m] for m in scores.methods],
        label=[label(method, params.labels) for method in scores.methods],
        trained=[settings(rows.get(method, {})) for method in scores.methods],
    )
    sets = scores.sets.reset_index(drop=True)
    costs = pd.DataFrame([training(train_metrics, method) for method in scores.methods])
    if table["label"].duplicated().any():
        twice = table["label"][table["label"].duplicated()].iloc[0]
        raise UserError(f"two rows are called {twice!r}: correct compare.labels in params.yaml")
    return Comparison(
        protocol=protocol,
        rows=pd.concat([table, sets, costs], axis=1)[COLUMNS].round(PRECISION),
        paired=paired[PAIRED].round(PRECISION),
    )


def settings(row: Mapping[str, Any]) -> str:
    """What a variant sets of its own training, such as `steps 300`."""
    return ", ".join(f"{name} {value}" for name, value in (row.get("train") or {}).items())


def means(scores: Scores, params: CompareParams) -> pd.DataFrame:
    """Mean and interval of each metric, a row a method."""
    frame = pd.DataFrame({"method": list(scores.methods)})
    for metric in SCORES:
        series = [items[metric.key] for items in scores.methods.values()]
        mean, lo, hi = mean_and_interval(series, params)
        frame[metric.key], frame[f"{metric.key}_lo"], frame[f"{metric.key}_hi"] = mean, lo, hi
    return frame.assign(n=len(series[0]))


def differences(
    scores: Scores, pairs: Sequence[tuple[str, str]], params: CompareParams
) -> pd.DataFrame:
    """Mean paired difference and interval of each `(method, baseline)`, a row a pair and metric."""
    frames = []
    for metric in SCORES:
        series = [
            scores.methods[method][metric.key] - scores.of(baseline, method)[metric.key]
            for method, baseline in pairs
        ]
        frame = pd.DataFrame(pairs, columns=["method", "baseline"])
        frame["metric"] = metric.key
        frame["difference"], frame["lo"], frame["hi"] = mean_and_interval(series, params)
        frames.append(frame)
    paired = pd.concat(frames, ignore_index=True)
    return paired.assign(apart=(paired["lo"] > 0) | (paired["hi"] < 0))


def mean_and_interval(
    series: Iterable[pd.Series], params: CompareParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end of each series of item values, `(M,)` each."""
    values = np.stack([one.to_numpy(dtype=float) for one in series])
    lo, hi = bootstrap(
        values,
        samples=params.bootstrap_samples,
        confidence=params.confidence,
        seed=params.seed,
    )
    return values.mean(axis=1), lo, hi


def training(folder: Path, method: str) -> dict[str, float]:
    """Size and cost of one method; a baseline has nothing trained and no cost."""
    if method in BASELINES:
        return {TRAINABLE.key: 0, **dict.fromkeys(COST_KEYS, np.nan)}
    path, record = folder / f"{method}.json", read_training(folder, method)
    wanted = [TRAINABLE.key, *COST_KEYS]
    if missing := [key for key in wanted if key not in record]:
        raise InputError(f"{path} lacks {', '.join(missing)}", path)
    return {key: np.nan if (value := record[key]) is None else value for key in wanted}


def read_training(folder: Path, method: str) -> dict[str, int | float | None]:
    """What a training noted of itself; None: it is not known.

    Raises:
        UserError: it noted nothing, or something else.
    """
    path = folder / f"{method}.json"
    return read_document(dict[str, int | FiniteFloat | None], path, "the costs of a training")


def best(comparison: Comparison, train_metrics: Path) -> dict[str, float]:
    """The best of each number among the variants, the last loss included; NaN: never measured."""
    rows = comparison.rows[comparison.rows["method"].isin(comparison.variants)]
    numbers = {
        metric.key: rows[metric.key].max() if metric.sign > 0 else rows[metric.key].min()
        for metric in (*SCORES, TRAINABLE, *COSTS)
    }
    records = [read_training(train_metrics, variant) for variant in comparison.variants]
    losses = [loss for record in records if (loss := record.get("loss")) is not None]
    return numbers | {"loss": min(losses, default=np.nan)}


def write(comparisons: Iterable[Comparison], folder: Path) -> None:
    """Write each protocol's csv and the paired differences of all; equal scores, equal bytes."""
    comparisons = list(comparisons)
    for comparison in comparisons:
        write_csv(comparison.rows, folder / FILES[comparison.protocol])
    write_csv(pd.concat([c.paired for c in comparisons]), folder / PAIRED_FILE)


def write_csv(frame: pd.DataFrame, path: Path, precision: Mapping[str, int] = PRECISION) -> None:
    """Write a frame with fixed decimals by column; what was not measured is empty."""
    text = frame.copy()
    for column in text.columns.intersection(list(precision)):
        decimals = precision[column]
        text[column] = [
            "" if pd.isna(value) else f"{value + 0.0:.{decimals}f}" for value in frame[column]
        ]
    with publish(path) as beside:
        text.to_csv(beside, index=False, lineterminator="\n")


def read(folder: Path) -> dict[str, Comparison]:
    """Read back what `write` wrote, by protocol.

    Raises:
        UserError: a table is missing or lacks a column.
    """
    paired = read_csv(folder / PAIRED_FILE, PAIRED)
    found = {
        protocol: Comparison(
            protocol=protocol,
            rows=read_csv(folder / FILES[protocol], COLUMNS),
            paired=paired[paired["protocol"] == protocol].reset_index(drop=True),
        )
        for protocol in PROTOCOLS
    }
    for comparison in found.values():
        check_complete(comparison, folder)
    return found


def check_complete(comparison: Comparison, folder: Path) -> None:
    """Refuse tables that lack a row or a score, as those that were cut short do.

    Raises:
        UserError: one does.
    """
    rows, path = comparison.rows, folder / FILES[comparison.protocol]
    lacking = [method for method in BASELINES if method not in set(rows["method"])]
    if lacking or not comparison.variants or rows["method"].duplicated().any():
        raise InputError(f"{path} has not one row for each method", path)
    if not np.isfinite(rows[[*ENDS, "n", "k"]]).all(axis=None):
        raise InputError(f"{path} lacks a score", path)
    pairs = comparison.paired
    names = set(pairs[["method", "baseline", "metric"]].itertuples(index=False, name=None))
    wanted = {(*pair, metric.key) for pair in contrasts(comparison.variants) for metric in SCORES}
    if names != wanted or not np.isfinite(pairs[["difference", "lo", "hi"]]).all(axis=None):
        path = folder / PAIRED_FILE
        raise InputError(f"{path} lacks a difference", path)


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one table and check its columns."""
    try:
        # names are text: a method may be called `null`
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""]
        )
        numbers = frame.columns.intersection([*PRECISION, TRAINABLE.key, "n", "k"])
        frame[numbers] = frame[numbers].apply(pd.to_numeric)
        texts = frame.columns.intersection(list(NAMES))
        frame[texts] = frame[texts].fillna("")
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", path) from error
    except (ValueError, OSError) as error:  # pandas' own are ValueErrors
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error
    if missing := [column for column in columns if column not in frame]:
        raise InputError(f"{path} lacks {', '.join(missing)}", path)
    return frame


def as_metrics(comparisons: Iterable[Comparison]) -> dict[str, dict[str, float]]:
    """The numbers that `dvc metrics diff` shows: by variant, the headline's under plain names."""
    numbers: dict[str, dict[str, float]] = {}
    for comparison in comparisons:
        prefix = "" if comparison.protocol == HEADLINE else f"{comparison.protocol}_"
        for variant in comparison.variants:
            row, of_variant = comparison.row(variant), numbers.setdefault(variant, {})
            of_variant |= {f"{prefix}{metric.key}": row[metric.key] for metric in SCORES}
            of_variant[TRAINABLE.key] = int(row[TRAINABLE.key])
    return numbers
