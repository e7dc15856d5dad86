"""Write the study's report: tables, figures, and a text whose numbers are all filled in."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Self

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from scipy import stats

from adapterbench.core.config import CompareParams, load_params
from adapterbench.core.documents import read_document
from adapterbench.core.files import publish, sha256
from adapterbench.formats.generated import Illustrations, decode_images, read_names
from adapterbench.formats.pairs import PROTOCOLS, list_path, read_pairs, tar_path
from adapterbench.report import figures as common
from adapterbench.report import pairs
from adapterbench.report.embedded import data_uri
from adapterbench.report.metrics import Metric
from adapterbench.report.table import write_csv
from adapterbench.study.answers import figures, tables
from adapterbench.study.answers.runs import MEASURES, Run, check_same_base, read_runs
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    RepeatedParams,
    ReportParams,
    ScreeningParams,
)
from adapterbench.study.runs.files import CHOSEN, CURVE, REFERENCES, SCORES, WORST, RatesParams

Columns = dict[str, Sequence[common.Cell]]

TEXT, PAGE, FIGURES = "study.md", "study.html", "study"
SAVERS = {".png": common.save, ".jpg": figures.save_photo}
DECIMALS = 6
"""Of all numbers in the tables' files."""


@dataclass(frozen=True, slots=True)
class Params:
    """The sections that the report reads."""

    report: ReportParams
    rates: RatesParams
    screening: ScreeningParams
    repeated: RepeatedParams
    curves: CurvesParams
    data_sizes: DataSizesParams
    confirmation: ConfirmationParams
    compare: CompareParams

    @classmethod
    def load(cls) -> Self:
        """The sections of params.yaml.

        Raises:
            UserError: one is missing or invalid.
        """
        return cls(
            report=load_params(ReportParams, "report"),
            rates=load_params(RatesParams, "rates"),
            screening=load_params(ScreeningParams, "screening"),
            repeated=load_params(RepeatedParams, "repeated"),
            curves=load_params(CurvesParams, "curves"),
            data_sizes=load_params(DataSizesParams, "data_sizes"),
            confirmation=load_params(ConfirmationParams, "confirmation"),
            compare=load_params(CompareParams, "compare"),
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """All tables of the study."""

    screening: pd.DataFrame
    curves: pd.DataFrame
    data_sizes: pd.DataFrame
    confirmation: pd.DataFrame
    power: pd.DataFrame
    pairs: pd.DataFrame
    trend: Mapping[str, float | None]
    """See `tables.trend`."""
    by_distance: Mapping[str, float]
    """See `tables.by_distance`."""
    fit: Mapping[str, float]
    """Rank correlation of the loss on unseen images with each score, over the rows."""
    margin: Mapping[str, float]
    """By score, on the split of the confirmation."""
    screening_margin: Mapping[str, float]
    """The same on the split of the screening."""
    groups: Mapping[str, list[Run]]
    equal: Mapping[str, bool]
    """Whether all bytes of a run that was repeated are equal, by row."""


def answer(params: Params, runs: Path) -> Answers:
    """Read all runs and make the tables.

    Raises:
        UserError: a run is missing or damaged, or does not fit the others.
    """
    names = "screening", "curves", "data_sizes", "confirmation"
    groups = {name: read_runs(runs / name) for name in names}
    check_same_base(groups)
    report = params.report
    screening = tables.screening(groups["screening"], report)
    curves = tables.curves(groups["curves"], params.curves, report)
    margin = tables.margins(runs / "floors/validation", report.margin)
    sizes = dict(zip(screening["row"], screening["trainable_params"], strict=True))
    return Answers(
        screening=screening,
        curves=curves,
        data_sizes=tables.data_sizes(groups["data_sizes"], params.data_sizes, report),
        confirmation=tables.confirmation(
            groups["confirmation"], params.confirmation, report, margin, sizes
        ),
        power=tables.power(curves, margin, report.level),
        pairs=pairs.compare_pairs(runs / "examples", params.confirmation.rows, params.compare),
        trend=tables.trend(groups["curves"], params.curves, report),
        by_distance=tables.by_distance(groups["curves"], runs / "floors/tuning", report),
        fit=fit(screening),
        margin=margin,
        screening_margin=tables.margins(runs / "floors/tuning", report.margin),
        groups=groups,
        equal={row: is_repeated(runs, row) for row in params.repeated.rows},
    )


def is_repeated(runs: Path, row: str) -> bool:
    """Whether the second run of a row has the scores and the curve of the first, to the byte."""
    first, second = (runs / group / row for group in ("screening", "repeated"))
    return all(sha256(first / name) == sha256(second / name) for name in (SCORES, CURVE))


def fit(screening: pd.DataFrame) -> dict[str, float]:
    """Spearman correlation over the rows of the loss on unseen images with each score."""
    return {
        metric.key: float(
            stats.spearmanr(screening["unseen_loss"], screening[metric.key], nan_policy="omit")[0]
        )
        for metric in MEASURES
    }


def write(params: Params, runs: Path, plan: Path, out: Path) -> None:
    """Write the folder `out`: the text, its figures, the page, and the tables as csv.

    Raises:
        UserError: an input is missing or damaged, or does not fit the others.
    """
    answers = answer(params, runs)
    drawn = draw(params, answers, runs / "examples")
    with publish(out) as beside:
        (beside / FIGURES).mkdir(parents=True)
        for name, figure in drawn.items():
            SAVERS[Path(name).suffix](figure, beside / FIGURES / name)
        for name in ("screening", "curves", "data_sizes", "confirmation"):
            table = getattr(answers, name)
            floats = table.select_dtypes(float).columns
            write_csv(table, beside / f"{name}.csv", dict.fromkeys(floats, DECIMALS))
        text = render(params, answers, read_document(dict[str, Any], plan, "a plan"))
        (beside / TEXT).write_text(text, encoding="utf-8")
        (beside / PAGE).write_text(page(text, beside), encoding="utf-8")


def draw(params: Params, answers: Answers, examples: Path) -> dict[str, Figure]:
    """All figures by file name."""
    report, rows = params.report, params.confirmation.rows
    return {
        "sizes.png": figures.sizes(answers.screening, report, answers.screening_margin),
        "depth.png": figures.differences(answers.screening, report.depth, report.original),
        "lengths.png": figures.lengths(answers.curves, params.curves.rows),
        "amounts.png": figures.amounts(answers.data_sizes, params.data_sizes.rows),
        "fit.png": figures.fit_and_scores(answers.screening, answers.fit),
        "chosen.jpg": common.grid(image_grid(examples, rows, CHOSEN)),
        **{f"worst_{row}.jpg": common.grid(strip(examples, row, WORST)) for row in rows},
        **{f"{name}.jpg": common.grid(pair_grid(examples, rows, name)) for name in PROTOCOLS},
    }


def strip(examples: Path, row: str, tar: str) -> Columns:
    """A column per item: the image prompt above, the row's image below."""
    columns = image_grid(examples, [row], tar).values()
    return {str(number): cells for number, cells in enumerate(zip(*columns, strict=True), 1)}


def image_grid(examples: Path, rows: Sequence[str], tar: str) -> Columns:
    """Columns: image prompt, and each row's image."""
    keys = [key for key, _ in read_names(examples / rows[0] / tar)]
    return {
        "Image prompt": decode_images(examples / rows[0] / REFERENCES, keys),
        **{row: decode_images(examples / row / tar, keys) for row in rows},
    }


def pair_grid(examples: Path, rows: Sequence[str], protocol: str) -> Columns:
    """Columns: prompts, goal, each row given both, and the base model with the text alone."""
    listed = read_pairs(list_path(Illustrations(examples / rows[0]).pairs, protocol))[:6]
    prompts, references = [pair.prompt for pair in listed], examples / rows[0] / REFERENCES
    given = {**dict.fromkeys(rows, pairs.BOTH), pairs.TEXT: pairs.TEXT}
    return {
        "Image prompt": decode_images(references, prompts),
        "Text prompt": [pair.text for pair in listed],
        "Goal (not given)": decode_images(references, [pair.goal for pair in listed]),
        **{
            row: decode_images(
                tar_path(Illustrations(examples / row).pairs, protocol, name), prompts
            )
            for row, name in given.items()
        },
    }


def render(params: Params, answers: Answers, plan: Mapping[str, Any]) -> str:
    """The text in Markdown."""
    environment = Environment(
        loader=PackageLoader("adapterbench.study.answers"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    spent = {
        name: sum(run.facts.train_seconds or 0 for run in runs) / 3600
        for name, runs in answers.groups.items()
    }
    text = environment.get_template(TEXT).render(
        p=params,
        a=answers,
        plan=plan,
        spent=spent,
        first=next(iter(answers.groups["confirmation"])),
        devices=devices(answers.groups),
        at_end=rates_at_end(answers.screening, params.rates),
        measures=MEASURES,
        protocols=PROTOCOLS,
        by_rule=tables.finalists(answers.screening, params.report, answers.screening_margin),
        records=records,
        where=where,
        cell=cell,
        p_text=p_text,
        signed=signed,
        verdicts=lambda row: tables.verdicts(row, params.report.level),
        answers_sheet=lambda name: pairs.sheet(answers.pairs, name, str).markdown(),
    )
    return text.rstrip() + "\n"


def devices(groups: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """The groups of runs that were made on each device."""
    found: dict[str, list[str]] = {}
    for name, runs in groups.items():
        device = re.sub(r"\b1 threads", "1 thread", runs[0].facts.device)
        found.setdefault(device, []).append(name)
    return found


def rates_at_end(table: pd.DataFrame, rates: RatesParams) -> list[str]:
    """The rows whose learning rate is the lowest or the highest that was tried."""
    ends = min(rates.learning_rates), max(rates.learning_rates)
    return [str(row) for row in table.loc[table["learning_rate"].isin(ends), "row"]]


def p_text(value: float) -> str:
    """A p value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows of a table."""
    return table.to_dict("records")


def where(table: pd.DataFrame, **values: Any) -> list[dict[Any, Any]]:
    """The rows of a table with these values."""
    return [row for row in records(table) if all(row[k] == v for k, v in values.items())]


def cell(row: Mapping[str, Any], metric: Metric, decimals: int = 3) -> str:
    """A mean with its interval; a dash if it was not measured."""
    return with_interval(row, metric.key, lambda value: f"{value:.{decimals}f}")


def signed(row: Mapping[str, Any], metric: Metric) -> str:
    """A difference with its interval; a dash if there is none."""
    return with_interval(row, f"{metric.key}_difference", metric.signed)


def with_interval(row: Mapping[str, Any], key: str, text: Callable[[float], str]) -> str:
    """`mean [lo, hi]`."""
    if pd.isna(row.get(key)):
        return "-"
    mean, lo, hi = (text(row[f"{key}{end}"]) for end in ("", "_lo", "_hi"))
    return f"{mean} [{lo}, {hi}]"


def photo_uri(path: Path) -> str:
    """A JPEG as a `data:` URI."""
    return "data:image/jpeg;base64," + b64encode(path.read_bytes()).decode()


def page(text: str, folder: Path) -> str:
    """The text as one HTML page with its figures inside."""
    body = MarkdownIt().enable("table").render(text)
    for path in sorted((folder / FIGURES).iterdir()):
        uri = data_uri(path) if path.suffix == ".png" else photo_uri(path)
        body = body.replace(f'src="{FIGURES}/{path.name}"', f'src="{uri}"')
    title = escape(text.partition("\n")[0].removeprefix("# "))
    environment = Environment(loader=PackageLoader("adapterbench.study.answers"), autoescape=False)
    return environment.get_template(PAGE).render(title=title, body=body)
