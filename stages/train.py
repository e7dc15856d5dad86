"""Stage `train`: train one adapter over the frozen backbone."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Argument, Option

from adapterbench.adapters.core.storage import WEIGHTS
from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import load_train
from adapterbench.runs.record import is_main_process, stage_record
from adapterbench.training.adapter import train_adapter


def main(
    variant: Annotated[str, Argument(help="A row of `variants:` in params.yaml.")],
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Folder of the adapter.")],
    metrics: Annotated[Path, Option(help="JSON of the cost columns.")],
    curve: Annotated[Path, Option(help="CSV of the loss over the steps.")],
) -> None:
    """Train one adapter over the frozen backbone; a killed run resumes."""
    row, params = load_variant(variant), load_train(variant)
    facts = {"variant": row.given(), "train": params}
    inputs = [encoded, backbone]
    with stage_record("train", variant=variant, params=facts, inputs=inputs) as record:
        trained = train_adapter(
            variant, row, params, encoded, backbone, out, on_log=lambda at, v: record.metrics(v, at)
        )
        if is_main_process():
            trained.write(metrics, curve)
        record.headline(**trained.costs)
        record.adapter(out / WEIGHTS, made=True)


if __name__ == "__main__":
    run(main)
