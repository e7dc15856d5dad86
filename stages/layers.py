"""Stage `layers`: which layer of an adapter carries colour, shape and concept; its presets."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.adapters.core.variant import load_variant
from adapterbench.core import config
from adapterbench.core.config import load_params
from adapterbench.illustrating.layers import Inputs, Params, measure
from adapterbench.runs.record import stage_record
from adapterbench.scoring.evaluator import Folders


def main(
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    evaluator: Annotated[Path, Option(help="Folder of stage neutral_evaluator.")],
    adapter: Annotated[Path, Option(help="Folder of stage train, named after the variant.")],
    presets: Annotated[Path, Option(help="File for the presets, beside the adapter's folder.")],
    out: Annotated[Path, Option(help="Folder for layers.csv and the images of the presets.")],
) -> None:
    """Switch single layers on and off, score the images, derive presets; a killed run resumes."""
    layers = load_params(config.LayersParams, "layers")
    sample = load_params(config.SampleParams, "sample")
    scoring = load_params(config.ScoreParams, "score")
    params = Params(layers, sample, scoring, load_params(config.CompareParams, "compare"))
    variant, folders = load_variant(adapter.name), Folders(backbone, evaluator)
    facts = {"layers": layers, "sample": sample}
    with stage_record("layers", variant=adapter.name, params=facts) as record:
        measure(params, Inputs(encoded, shards, folders, adapter, variant), presets, out)
        record.artifact(out / "layers.csv")


if __name__ == "__main__":
    run(main)
