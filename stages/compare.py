"""Stage `compare`: tables, paired differences and findings in words from the scores per image."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import CompareParams, load_params, load_rows, load_training_free
from adapterbench.core.files import write_json
from adapterbench.report import pairs, table
from adapterbench.report.tables import write_tables
from adapterbench.runs.record import stage_record


def main(
    scores: Annotated[Path, Option(help="Folder of <method>.parquet.")],
    train_metrics: Annotated[Path, Option(help="Folder of <variant>.json.")],
    illustrations: Annotated[Path, Option(help="Folder of <method>/pairs.parquet.")],
    out: Annotated[Path, Option(help="Folder for the tables.")],
    metrics: Annotated[Path, Option(help="File for the numbers that `dvc metrics` shows.")],
) -> None:
    """Compare all variants and baselines under each protocol."""
    params = load_params(CompareParams, "compare")
    rows, training_free = load_rows(), load_training_free()
    facts, inputs = {"compare": params}, [scores, train_metrics, illustrations]
    with stage_record("compare", params=facts, inputs=inputs) as record:
        given = scores, train_metrics, rows, training_free
        tables = write_tables(*given, params, "validation", out)
        pairs.write(pairs.compare_pairs(illustrations, list(rows), params), out)
        write_json(metrics, table.as_metrics(tables))
        record.headline(**table.best(tables[0], train_metrics))
        record.artifact(out / "comparison.md")


if __name__ == "__main__":
    run(main)
