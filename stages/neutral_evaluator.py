"""Stage `neutral_evaluator`: fetch the second evaluator, at its pinned revision."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.backbone.fetch import fetch
from adapterbench.core.config import BackboneParams, load_params
from adapterbench.core.files import publish
from adapterbench.core.registry import load
from adapterbench.runs.record import stage_record


def main(out: Annotated[Path, Option(help="Folder of the network, timm's layout.")]) -> None:
    """Fetch the second evaluator, at its pinned revision."""
    params = load_params(BackboneParams, "neutral_evaluator")
    facts = {"neutral_evaluator": params}
    with stage_record("neutral_evaluator", params=facts), publish(out) as folder:
        source = load("adapterbench.backbone.sources", params.source)
        fetch(source, params, "neutral_evaluator", folder)


if __name__ == "__main__":
    run(main)
