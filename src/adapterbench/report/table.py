"""The comparison of one protocol as tidy frames: a row per method, and paired differences."""

from collections.abc import Collection, Iterable, Mapping, Sequence
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
from adapterbench.report.methods import (
    BASELINES,
    DAGGER,
    ORIGINAL,
    TRAINING_FREE,
    WITHOUT_ADAPTER,
    contrasts,
    in_order,
    label,
)
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
"""Decimals of each float column in the csv files."""

FILES = {p: f"comparison{'' if p == HEADLINE else f'_{p}'}.csv" for p in PROTOCOLS}
"""File of each protocol's table; the headline protocol's name has no suffix."""

PAIRED_FILE = "paired.csv"
NAMES = ("protocol", "method", "label", "trained", "baseline", "metric")
"""Columns of text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All methods under one protocol."""

    protocol: str
    rows: pd.DataFrame
    """`COLUMNS`, one row per method: variants, training-free methods, floors and ceilings."""
    paired: pd.DataFrame
    """`PAIRED`, one row per pair of methods and metric; `apart`: the interval excludes zero."""

    @property
    def variants(self) -> list[str]:
        """The trained methods, in the order of the table."""
        return [method for method in self.rows["method"] if method not in WITHOUT_ADAPTER]

    @property
    def training_free(self) -> list[str]:
        """The methods that use the item's image without an adapter."""
        return [method for method in self.rows["method"] if method in TRAINING_FREE]

    @property
    def original(self) -> str:
        """The variant with which the others are compared."""
        return ORIGINAL if ORIGINAL in self.variants else self.variants[0]

    @property
    def size(self) -> tuple[int, int]:
        """Items (N) and images per item (K)."""
        row = self.row(self.original)
        return row["n"], row["k"]

    @property
    def other_training(self) -> dict[str, str]:
        """Training settings of the variants that override the common ones, by label."""
        trained = self.rows[self.rows["trained"] != ""]
        return dict(zip(trained["label"], trained["trained"], strict=True))

    def label(self, method: str) -> str:
        """Label of a method; a dagger marks one that was trained with other settings."""
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
    training_free: Collection[str],
    protocol: str,
    params: CompareParams,
) -> Comparison:
    """Build the comparison from `folder/<method>.parquet` and `train_metrics/<variant>.json`.

    Args:
        rows: the variants of the parameter file, by name.
        training_free: names of the training-free methods.

    Raises:
        UserError: scores are missing, damaged or not paired (see `read_scores`), a training
            record is missing or incomplete, or two rows have the same label.
    """
    variants = in_order(list(rows))
    if not variants:
        raise UserError("params.yaml has no variants: add a row under `variants:`")
    scores = read_scores(folder, variants, protocol, training_free)
    paired = differences(scores, contrasts(variants, training_free), params)
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
        raise UserError(f"two rows have the label {twice!r}: correct compare.labels in params.yaml")
    return Comparison(
        protocol=protocol,
        rows=pd.concat([table, sets, costs], axis=1)[COLUMNS].round(PRECISION),
        paired=paired[PAIRED].round(PRECISION),
    )


def settings(row: Mapping[str, Any]) -> str:
    """A variant's own training settings, such as `steps 300`."""
    return ", ".join(f"{name} {value}" for name, value in (row.get("train") or {}).items())


def means(scores: Scores, params: CompareParams) -> pd.DataFrame:
    """Mean and interval of each metric, one row per method."""
    frame = pd.DataFrame({"method": list(scores.methods)})
    for metric in SCORES:
        series = [items[metric.key] for items in scores.methods.values()]
        mean, lo, hi = mean_and_interval(series, params)
        frame[metric.key], frame[f"{metric.key}_lo"], frame[f"{metric.key}_hi"] = mean, lo, hi
    return frame.assign(n=len(series[0]))


def differences(
    scores: Scores, pairs: Sequence[tuple[str, str]], params: CompareParams
) -> pd.DataFrame:
    """Mean paired difference and interval, one row per pair `(method, baseline)` and metric."""
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
    values = np.stack([values.to_numpy(dtype=float) for values in series])
    lo, hi = bootstrap(
        values,
        samples=params.bootstrap_samples,
        confidence=params.confidence,
        seed=params.seed,
    )
    return values.mean(axis=1), lo, hi


def training(folder: Path, method: str) -> dict[str, float]:
    """Trainable parameters and costs of one method; 0 and NaN for one without an adapter."""
    if method in WITHOUT_ADAPTER:
        return {TRAINABLE.key: 0, **dict.fromkeys(COST_KEYS, np.nan)}
    path, record = folder / f"{method}.json", read_training(folder, method)
    keys = [TRAINABLE.key, *COST_KEYS]
    if missing := [key for key in keys if key not in record]:
        raise InputError(f"{path} lacks {', '.join(missing)}", path)
    return {key: np.nan if (value := record[key]) is None else value for key in keys}


def read_training(folder: Path, method: str) -> dict[str, int | float | None]:
    """The metrics that a training recorded; None: unknown.

    Raises:
        UserError: the file is missing or has another structure.
    """
    path = folder / f"{method}.json"
    return read_document(dict[str, int | FiniteFloat | None], path, "the costs of a training")


def best(comparison: Comparison, train_metrics: Path) -> dict[str, float]:
    """The best value of each metric among the variants, and the lowest final loss; NaN: none."""
    rows = comparison.rows[comparison.rows["method"].isin(comparison.variants)]
    numbers = {
        metric.key: rows[metric.key].max() if metric.sign > 0 else rows[metric.key].min()
        for metric in (*SCORES, TRAINABLE, *COSTS)
    }
    records = [read_training(train_metrics, variant) for variant in comparison.variants]
    losses = [loss for record in records if (loss := record.get("loss")) is not None]
    return numbers | {"loss": min(losses, default=np.nan)}


def write(comparisons: Iterable[Comparison], folder: Path) -> None:
    """Write each protocol's csv, and one csv of all paired differences."""
    comparisons = list(comparisons)
    for comparison in comparisons:
        write_csv(comparison.rows, folder / FILES[comparison.protocol])
    write_csv(pd.concat([c.paired for c in comparisons]), folder / PAIRED_FILE)


def write_csv(frame: pd.DataFrame, path: Path, precision: Mapping[str, int] = PRECISION) -> None:
    """Write a frame with fixed decimals per column; NaN becomes an empty cell."""
    text = frame.copy()
    for column in text.columns.intersection(list(precision)):
        decimals = precision[column]
        text[column] = [
            "" if pd.isna(value) else f"{value + 0.0:.{decimals}f}" for value in frame[column]
        ]
    with publish(path) as beside:
        text.to_csv(beside, index=False, lineterminator="\n")


def read(folder: Path) -> dict[str, Comparison]:
    """Read what `write` wrote, by protocol.

    Raises:
        UserError: a table is missing, damaged or incomplete.
    """
    paired = read_csv(folder / PAIRED_FILE, PAIRED)
    comparisons = {
        protocol: Comparison(
            protocol=protocol,
            rows=read_csv(folder / FILES[protocol], COLUMNS),
            paired=paired[paired["protocol"] == protocol].reset_index(drop=True),
        )
        for protocol in PROTOCOLS
    }
    for comparison in comparisons.values():
        check_complete(comparison, folder)
    return comparisons


def check_complete(comparison: Comparison, folder: Path) -> None:
    """Check that no row or score is missing, as in a truncated file.

    Raises:
        UserError: one is missing.
    """
    rows, path = comparison.rows, folder / FILES[comparison.protocol]
    lacking = [method for method in BASELINES if method not in set(rows["method"])]
    if lacking or not comparison.variants or rows["method"].duplicated().any():
        raise InputError(f"{path} does not have one row per method", path)
    if not np.isfinite(rows[[*ENDS, "n", "k"]]).all(axis=None):
        raise InputError(f"{path} lacks a score", path)
    pairs = comparison.paired
    names = set(pairs[["method", "baseline", "metric"]].itertuples(index=False, name=None))
    compared = contrasts(comparison.variants, comparison.training_free)
    expected = {(*pair, metric.key) for pair in compared for metric in SCORES}
    if names != expected or not np.isfinite(pairs[["difference", "lo", "hi"]]).all(axis=None):
        path = folder / PAIRED_FILE
        raise InputError(f"{path} lacks a difference", path)


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one table and check its columns."""
    try:
        # read names as text: a method may be called `null`
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""]
        )
        numbers = frame.columns.intersection([*PRECISION, TRAINABLE.key, "n", "k"])
        frame[numbers] = frame[numbers].apply(pd.to_numeric)
        texts = frame.columns.intersection(list(NAMES))
        frame[texts] = frame[texts].fillna("")
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", path) from error
    except (ValueError, OSError) as error:  # pandas' errors are ValueErrors
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error
    if missing := [column for column in columns if column not in frame]:
        raise InputError(f"{path} lacks {', '.join(missing)}", path)
    return frame


def as_metrics(comparisons: Iterable[Comparison]) -> dict[str, dict[str, float]]:
    """Metrics for `dvc metrics diff`, by variant; names of other protocols have a prefix."""
    numbers: dict[str, dict[str, float]] = {}
    for comparison in comparisons:
        prefix = "" if comparison.protocol == HEADLINE else f"{comparison.protocol}_"
        for variant in comparison.variants:
            row, of_variant = comparison.row(variant), numbers.setdefault(variant, {})
            of_variant |= {f"{prefix}{metric.key}": row[metric.key] for metric in SCORES}
            of_variant[TRAINABLE.key] = int(row[TRAINABLE.key])
    return numbers
