"""Stage `report`: answer the study's questions from its runs."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.runs.program import run
from adapterbench.study.answers.report import Params, write


def main(
    runs: Annotated[Path, Option(help="Folder of all runs.")],
    plan: Annotated[Path, Option(help="JSON of stage plan.")],
    out: Annotated[Path, Option(help="Folder of the text, figures, page and tables.")],
) -> None:
    """Answer the study's questions from its runs."""
    write(Params.load(), runs, plan, out)


if __name__ == "__main__":
    run(main)
