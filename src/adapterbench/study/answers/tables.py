"""The tables of the study, from its runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from adapterbench.formats.frames import read_frame
from adapterbench.report.metrics import NEUTRAL, Metric
from adapterbench.study.answers.runs import (
    MEASURES,
    Run,
    difference,
    item_means,
    scores,
    select,
)
from adapterbench.study.answers.statistics import Estimate, estimate, holm
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    ReportParams,
)
from adapterbench.study.runs.files import NEAREST

FLOOR, CEILING = "no_prompt", "vae"
HIGHER, LOWER, EQUAL = "higher", "lower", "not told apart"


def margins(floors: Path, share: float) -> dict[str, float]:
    """By score, `share` of the way from floor to ceiling on a split."""
    floor, ceiling = (
        item_means(floors / f"{method}.parquet").mean() for method in (FLOOR, CEILING)
    )
    return {
        metric.key: share * float(ceiling[metric.key] - floor[metric.key]) for metric in MEASURES
    }


def compared(
    runs: Sequence[Run], others: Sequence[Run] | None, metric: Metric
) -> dict[str, float | None]:
    """Mean of a score with its interval, and the paired difference with other runs.

    Args:
        others: None: the runs are those of the original.
    """
    mean = estimate(scores(runs, metric.key))
    cells: dict[str, float | None] = {"": mean.mean, **ends(mean)}
    if others is not None:
        against = estimate(difference(runs, others, metric.key))
        cells |= {"_difference": against.mean, **ends(against, "_difference")}
        cells["_p"] = against.p_different()
        cells |= {"_error": against.error, "_freedom": against.freedom}
    return {f"{metric.key}{end}": value for end, value in cells.items()}


def ends(value: Estimate, prefix: str = "") -> dict[str, float]:
    """The interval of an estimate, as columns."""
    lo, hi = value.interval()
    return {f"{prefix}_lo": lo, f"{prefix}_hi": hi}


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Add `_p_holm` beside each `_p`; the family is one score's column."""
    for metric in MEASURES:
        column = f"{metric.key}_p"
        if column in table:
            known = table[column].notna()
            table.loc[known, f"{column}_holm"] = holm(table.loc[known, column].tolist())
    return table


def screening(runs: Sequence[Run], params: ReportParams) -> pd.DataFrame:
    """One row per variant, compared with the original; a diverged one has no scores."""
    [original] = select(runs, params.original)
    size = original.facts.trainable_params
    records = []
    for run in runs:
        facts = run.facts
        record: dict[str, Any] = facts.model_dump(exclude={"mechanism"})
        if facts.mechanism and run.scores is not None:
            others = None if run is original else [original]
            for metric in MEASURES:
                record |= compared([run], others, metric)
            record |= facts.mechanism.model_dump()
            record["gap"] = facts.mechanism.unseen_loss - facts.mechanism.seen_loss
            record["share"] = facts.trainable_params / size  # type: ignore[operator]  # both scored
        records.append(record)
    table = pd.DataFrame(records).sort_values(["trainable_params", "row"], ignore_index=True)
    return corrected(table)


def curves(runs: Sequence[Run], params: CurvesParams, report: ReportParams) -> pd.DataFrame:
    """One row per variant and length, over all seeds, compared with the original at that length."""
    return by_setting(runs, "steps", params.steps, params.rows, report.original)


def data_sizes(runs: Sequence[Run], params: DataSizesParams, report: ReportParams) -> pd.DataFrame:
    """One row per variant and number of images, compared with the original on as many."""
    return by_setting(runs, "samples", params.samples, params.rows, report.original)


def by_setting(
    runs: Sequence[Run], name: str, values: Sequence[int], rows: Sequence[str], original: str
) -> pd.DataFrame:
    """One row per value of a setting of the runs and per variant."""
    records = []
    for value in values:
        baseline = select(runs, original, **{name: value})
        for row in rows:
            chosen = select(runs, row, **{name: value})
            record: dict[str, Any] = {"row": row, name: value, "seeds": len(chosen)}
            for metric in MEASURES:
                record |= compared(chosen, None if row == original else baseline, metric)
            records.append(record | mean_losses(chosen))
    return corrected(pd.DataFrame(records))


def trend(
    runs: Sequence[Run], params: CurvesParams, report: ReportParams
) -> dict[str, float | None]:
    """What a doubling of the steps adds to the network's difference with the original.

    The slope of a straight line over log2(steps), by least squares for every seed and item.
    """
    columns: dict[str, float | None] = {}
    for metric in MEASURES:
        gains = np.stack(
            [
                difference(
                    select(runs, report.network, steps=steps),
                    select(runs, report.original, steps=steps),
                    metric.key,
                )
                for steps in params.steps
            ]
        )
        lines = np.polyfit(np.log2(params.steps), gains.reshape(len(gains), -1), 1)
        slope = estimate(lines[0].reshape(gains.shape[1:]))
        cells = {"": slope.mean, **ends(slope), "_p": slope.p_different()}
        columns |= {f"{metric.key}_difference{end}": value for end, value in cells.items()}
    return columns


def verdicts(row: Mapping[str, Any], level: float) -> dict[str, str]:
    """By similarity, whether a row is `higher`, `lower` or `not told apart`, after Holm."""
    return {
        metric.key: direction(row[f"{metric.key}_difference"])
        if row[f"{metric.key}_p_holm"] < level
        else EQUAL
        for metric in MEASURES[:2]
    }


def direction(difference: float) -> str:
    """In words."""
    return HIGHER if difference > 0 else LOWER


def mean_losses(runs: Sequence[Run]) -> dict[str, float]:
    """Losses on training images and on others, means over the seeds."""
    measured = [run.facts.mechanism for run in runs if run.facts.mechanism]
    seen = sum(it.seen_loss for it in measured) / len(measured)
    unseen = sum(it.unseen_loss for it in measured) / len(measured)
    return {"seen_loss": seen, "unseen_loss": unseen, "gap": unseen - seen}


def confirmation(
    runs: Sequence[Run],
    params: ConfirmationParams,
    report: ReportParams,
    margin: Mapping[str, float],
    sizes: Mapping[str, int],
) -> pd.DataFrame:
    """The finalists over new seeds, with tests of "not worse than the original".

    `<score>_p_not_worse` is of one score; `not_worse` its largest over the scores (a row must pass
    all, Berger 1982), `not_worse_holm` that corrected over the finalists.
    """
    original = select(runs, report.original)
    records = []
    for row in params.rows:
        chosen = select(runs, row)
        record: dict[str, Any] = {"row": row, "seeds": len(chosen), "trainable_params": sizes[row]}
        record["share"] = sizes[row] / sizes[report.original]
        for metric in MEASURES:
            record |= compared(chosen, None if row == report.original else original, metric)
            if row != report.original:
                against = estimate(difference(chosen, original, metric.key))
                p_value = against.p_not_worse(margin[metric.key])
                record[f"{metric.key}_p_not_worse"] = p_value
        records.append(record)
    table = corrected(pd.DataFrame(records))
    single = [f"{metric.key}_p_not_worse" for metric in MEASURES]
    rivals = table["row"] != report.original
    table["not_worse"] = table.reindex(columns=single).max(axis=1, skipna=False)
    table.loc[rivals, "not_worse_holm"] = holm(table.loc[rivals, "not_worse"].tolist())
    return table


def power(curve: pd.DataFrame, margin: Mapping[str, float], level: float) -> pd.DataFrame:
    """Power of the tests of `confirmation`, by the errors that `curves` had at the same size.

    The power is that of finding an equal row not worse; `detectable` is the difference that a
    two-sided test finds with a probability of 0.8.
    """
    last = curve[(curve["steps"] == curve["steps"].max()) & curve[f"{NEUTRAL.key}_error"].notna()]
    records = []
    for metric in MEASURES:
        error, freedom = (float(last[f"{metric.key}_{it}"].mean()) for it in ("error", "freedom"))
        size = Estimate(0, error, freedom)
        records.append(
            {
                "score": metric.key,
                "error": error,
                "margin": margin[metric.key],
                "power": size.power(margin[metric.key], level),
                "detectable": size.detectable(level=level),
            }
        )
    return pd.DataFrame(records)


def finalists(
    table: pd.DataFrame, params: ReportParams, margin: Mapping[str, float]
) -> dict[str, str | None]:
    """The rows of the screening that are worth a confirmation, by the rule that names each.

    Args:
        margin: by score, on the split of the screening.
    """
    ranked = table.assign(score=mean_of_similarities(table)).sort_values(
        "score", ascending=False, kind="stable"
    )
    near = [ranked[f"{key}_difference"] > -margin[key] for key in margin]
    others = ranked["row"] != params.original
    rules = {
        "the best within the budget of parameters": ranked[ranked["share"] <= params.budget],
        "the smallest within the margin in every score": ranked[
            np.logical_and.reduce(near)
        ].sort_values("trainable_params", kind="stable"),
        "the best projection with hidden layers": ranked[ranked["row"].isin(params.depth) & others],
    }
    return {name: next(iter(rows["row"]), None) for name, rows in rules.items()}


def mean_of_similarities(table: pd.DataFrame) -> "pd.Series[float]":
    """Mean of the two similarities."""
    first, second, _ = MEASURES
    return (table[first.key] + table[second.key]) / 2


def by_distance(runs: Iterable[Run], floors: Path, params: ReportParams) -> dict[str, float]:
    """Rank correlation over items: how near training images come, and what the MLP gains.

    A positive one says that the MLP gains more on images like those that it was trained on.
    """
    given = list(runs)
    steps = max(run.facts.steps for run in given)
    last, original = (select(given, row, steps=steps) for row in (params.network, params.original))
    near = read_frame(floors / NEAREST, ["key", "cosine"]).set_index("key")["cosine"]
    found: dict[str, float] = {}
    for metric in MEASURES[:2]:
        gains = difference(last, original, metric.key).mean(axis=0)
        index = last[0].scores.index  # type: ignore[union-attr]  # `difference` has scores
        result = stats.spearmanr(near[index], gains)
        found |= {metric.key: float(result.statistic), f"{metric.key}_p": float(result.pvalue)}
    return found
