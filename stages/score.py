"""Stage `score`: scores of every image of one method, by a CLIP and by a neutral network."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import ScoreParams, load_params
from adapterbench.runs.record import stage_record
from adapterbench.scoring.evaluator import Folders
from adapterbench.scoring.scores import MEANS, load_scorer, tasks


def main(
    samples: Annotated[list[Path], Option(help="Folder of stage sample; may be given again.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    evaluator: Annotated[Path, Option(help="Folder of stage neutral_evaluator.")],
    out: Annotated[Path, Option(help="Folder for <method>.parquet.")],
    real: Annotated[bool, Option("--real", help="Score the items' real images, too.")] = False,
) -> None:
    """Score every image of methods that have the same items: one row an image."""
    params = load_params(ScoreParams, "score")
    scorer = load_scorer(params, Folders(backbone, evaluator), shards, samples[0])
    facts, inputs = {"score": params}, [*samples, shards, backbone, evaluator]
    for method, score in tasks(scorer, samples, backbone if real else None).items():
        file = out / f"{method}.parquet"
        with stage_record("score", variant=method, params=facts, inputs=inputs) as record:
            means = score(file).groupby("protocol")[list(MEANS)].mean()
            record.set(**{f"{c}_{p}": v for p, row in means.iterrows() for c, v in row.items()})
            record.headline(**means.iloc[0])  # of the headline protocol, where it was sampled
            record.artifact(file)


if __name__ == "__main__":
    run(main)
