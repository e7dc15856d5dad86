"""Stage `backbone`: bring the frozen model, at its pinned revision."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.config import BackboneParams, load_params
from adapterbench.files import publish
from adapterbench.record import stage_record
from adapterbench.registry import load
from adapterbench.stage import run


def main(out: Annotated[Path, Option(help="Folder of the model, diffusers layout.")]) -> None:
    """Bring the frozen model, at its pinned revision."""
    params = load_params(BackboneParams, "backbone")
    with stage_record("backbone", params={"backbone": params}), publish(out) as folder:
        load("adapterbench.backbone.sources", params.source).fetch(params, folder)


if __name__ == "__main__":
    run(main)
