"""Stage `report`: answer the study's questions from its runs."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import CompareParams, load_params
from adapterbench.runs.program import run
from adapterbench.study.answers.report import Params, write
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    RepeatedParams,
    ReportParams,
    ScreeningParams,
)


def main(
    runs: Annotated[Path, Option(help="Folder of all runs.")],
    plan: Annotated[Path, Option(help="JSON of stage plan.")],
    out: Annotated[Path, Option(help="Folder of the text, figures, page and tables.")],
) -> None:
    """Answer the study's questions from its runs."""
    params = Params(
        report=load_params(ReportParams, "report"),
        screening=load_params(ScreeningParams, "screening"),
        repeated=load_params(RepeatedParams, "repeated"),
        curves=load_params(CurvesParams, "curves"),
        data_sizes=load_params(DataSizesParams, "data_sizes"),
        confirmation=load_params(ConfirmationParams, "confirmation"),
        compare=load_params(CompareParams, "compare"),
    )
    write(params, runs, plan, out)


if __name__ == "__main__":
    run(main)
