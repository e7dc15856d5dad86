"""Stage `further_split`: the table over another split of the data, such as novel concepts."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Argument, Option

from adapterbench.core import config
from adapterbench.report.tables import write_tables
from adapterbench.runs.record import is_main_process, stage_record
from adapterbench.sampling.methods import Inputs, sample_methods
from adapterbench.scoring.scores import score_methods


def main(
    split: Annotated[str, Argument(help="A split that stage prepare writes, such as novel.")],
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    evaluator: Annotated[Path, Option(help="Folder of stage neutral_evaluator.")],
    models: Annotated[Path, Option(help="Folder of the adapters, by variant.")],
    train_metrics: Annotated[Path, Option(help="Folder of <variant>.json.")],
    out: Annotated[Path, Option(help="Folder for images, scores and tables.")],
) -> None:
    """Sample, score and compare all methods on a further split, as on the validation split."""
    params, rows = config.load_params(config.SampleParams, "sample"), config.load_rows()
    scoring, others = config.load_params(config.ScoreParams, "score"), config.load_training_free()
    intervals = config.load_params(config.CompareParams, "compare")
    facts, inputs = {"sample": params, "split": split}, Inputs(encoded, shards, backbone, models)
    with stage_record("further_split", params=facts, inputs=[encoded, shards, models]) as record:
        samples = sample_methods(params, inputs, rows, others, split, out / "samples")
        score_methods(scoring, samples, shards, backbone, evaluator, split, out / "scores")
        if is_main_process():
            write_tables(out / "scores", train_metrics, rows, others, intervals, split, out)
            record.artifact(out / "comparison.md")


if __name__ == "__main__":
    run(main)
