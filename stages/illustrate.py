"""Stage `illustrate`: the images that the figures show in addition to the scored ones."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.adapters.core.variant import load_variant
from adapterbench.core import config
from adapterbench.core.config import load_params
from adapterbench.illustrating.illustrate import Inputs, illustrate
from adapterbench.runs.record import stage_record
from adapterbench.scoring.evaluator import Folders


def main(
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    bases: Annotated[Path, Option(help="Folder of stage bases.")],
    evaluator: Annotated[Path, Option(help="Folder of stage neutral_evaluator.")],
    out: Annotated[Path, Option(help="Folder of the images, named after the method.")],
    adapter: Annotated[Path | None, Option(help="Folder of stage train; none: baseline.")] = None,
) -> None:
    """Generate with other texts, base models, scales and prompt pairs; score the last two."""
    params = load_params(config.IllustrateParams, "illustrate")
    sample = load_params(config.SampleParams, "sample")
    variant = load_variant(out.name) if adapter else None
    inputs = Inputs(encoded, shards, backbone, bases, adapter, variant)
    facts = {"illustrate": params, "sample": sample}
    with stage_record("illustrate", variant=out.name, params=facts) as record:
        scoring, folders = load_params(config.ScoreParams, "score"), Folders(backbone, evaluator)
        record.set(images=illustrate(params, sample, scoring, inputs, folders, out))


if __name__ == "__main__":
    run(main)
