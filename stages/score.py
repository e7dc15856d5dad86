"""Stage `score`: CLIP-T and CLIP-I of every picture of one method."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.config import ScoreParams, load_params
from adapterbench.record import stage_record
from adapterbench.score.clip import load_judge, score_references, score_samples
from adapterbench.stage import run


def main(
    samples: Annotated[Path, Option(help="Folder of stage sample.")],
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    evaluator: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Parquet file, named after the method.")],
    real: Annotated[bool, Option(help="Score the real pictures of the same items.")] = False,
) -> None:
    """Score every picture of one method: CLIP-T and CLIP-I, one row a picture."""
    params = load_params(ScoreParams, "score")
    inputs = [samples, shards, evaluator]
    facts = {"score": params}
    with stage_record("score", variant=out.stem, params=facts, inputs=inputs) as record:
        score = score_references if real else score_samples
        frame = score(load_judge(params, shards, samples), samples, out)
        means = frame.groupby("protocol")[["clip_t", "clip_i"]].mean()
        record.set(**{f"{c}_{p}": v for p, row in means.iterrows() for c, v in row.items()})
        record.artifact(out)


if __name__ == "__main__":
    run(main)
