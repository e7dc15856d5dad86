"""Stage `plan`: estimate the hours of the study, and of the original study's models."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import load_params
from adapterbench.core.files import write_json
from adapterbench.runs.program import run
from adapterbench.study.budget import PlanParams, plan


def main(
    backbone: Annotated[Path, Option(help="Folder of the base model.")],
    project: Annotated[Path, Option(help="Parameter file of the project.")],
    out: Annotated[Path, Option(help="JSON of the estimates.")],
) -> None:
    """Estimate the hours of the study, and of the original study's models."""
    write_json(out, plan(load_params(PlanParams, "plan"), backbone, project))


if __name__ == "__main__":
    run(main)
