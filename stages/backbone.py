"""Stage `backbone`: fetch the frozen model, at its pinned revision."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import BackboneParams, load_params
from adapterbench.core.files import publish
from adapterbench.core.registry import load
from adapterbench.runs.record import stage_record


def main(out: Annotated[Path, Option(help="Folder of the model, diffusers layout.")]) -> None:
    """Fetch the frozen model, at its pinned revision."""
    params = load_params(BackboneParams, "backbone")
    with stage_record("backbone", params={"backbone": params}), publish(out) as folder:
        load("adapterbench.backbone.sources", params.source).fetch(params, folder)


if __name__ == "__main__":
    run(main)
