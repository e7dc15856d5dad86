"""Stage `score`: CLIP-T and CLIP-I of every picture of one method."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.config import ScoreParams, load_params
from adapterbench.runs.program import run
from adapterbench.runs.record import stage_record
from adapterbench.scoring.clip import load_judge, score_references, score_samples


def main(
    samples: Annotated[list[Path], Option(help="Folder of stage sample; may be given again.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    evaluator: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Folder for <method>.parquet.")],
    reference: Annotated[bool, Option(help="Score the items' real pictures, too.")] = False,
) -> None:
    """Score every picture of methods that painted the same items: one row a picture."""
    params = load_params(ScoreParams, "score")
    judge = load_judge(params, shards, samples[0])
    tasks = [(path.name, score_samples, path) for path in samples]
    tasks += [("reference", score_references, samples[0])] if reference else []
    facts = {"score": params}
    for method, score, path in tasks:
        inputs, file = [path, shards, evaluator], out / f"{method}.parquet"
        with stage_record("score", variant=method, params=facts, inputs=inputs) as record:
            means = score(judge, path, file).groupby("protocol")[["clip_t", "clip_i"]].mean()
            record.set(**{f"{c}_{p}": v for p, row in means.iterrows() for c, v in row.items()})
            record.artifact(file)


if __name__ == "__main__":
    run(main)
